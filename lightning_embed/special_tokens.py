"""The four special ids every part of the package agrees on.

Knows: the numbers and their names. Leaves to others: what a tokenizer does with them
(`tokenizer.py`) and what a model does with them (`embedding.py`, `loss.py`).

The order is that of fairseq, RoBERTa, BART, XLM-R and OPT, so their tokenizers work unchanged.
"""

BOS_ID = 0
PAD_ID = 1
EOS_ID = 2
UNK_ID = 3

BOS, PAD, EOS, UNK = "<s>", "<pad>", "</s>", "<unk>"
SPECIAL_TOKENS = (BOS, PAD, EOS, UNK)  # the position in this tuple is the id

IGNORE_INDEX = -100  # a target that counts for nothing; torch's own default
