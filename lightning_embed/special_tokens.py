"""The four special tokens and their ids, which every part of the package agrees on.

The order is that of fairseq, RoBERTa, BART, XLM-R and OPT, so their tokenizers work unchanged.
"""

BOS_ID = 0
PAD_ID = 1
EOS_ID = 2
UNK_ID = 3

BOS, PAD, EOS, UNK = "<s>", "<pad>", "</s>", "<unk>"
SPECIAL_TOKENS = (BOS, PAD, EOS, UNK)  # the position in this tuple is the id

IGNORE_INDEX = -100  # a target that counts for nothing; torch's own default
