"""Tokenizers that llama.cpp knows, and those that it does not; without llama.cpp, whose part
`test_llama_cpp.py` compares."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported_shapes import bpe, characters, pretrained
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from workshop import Outcome, Workshop

from lightning_embed.errors import UserError
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained import llama_cpp_tokens as module
from lightning_embed.pretrained.llama_cpp_tokens import AWKWARD, llama_cpp_name
from lightning_embed.pretrained.opening import open_pretrained
from lightning_embed.tokens.tokenizer import TextTokenizer

Build = Callable[..., DecoderLM]


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEXTS", 20)


def test_a_portable_tokenizer_is_known(tiny_lm: Build) -> None:
    assert llama_cpp_name(pretrained(tiny_lm, tokenizer=bpe(portable=True))) == "superbpe"


def test_that_of_gpt_2_is_known_when_adopted(tiny_lm: Build, tmp_path: Path) -> None:
    foreign = Tokenizer(models.BPE())
    foreign.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    foreign.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    foreign.train_from_iterator([*AWKWARD, "don't we'll 12345 12345 x  y\n\n  z " * 20], trainer)
    foreign.save(str(tmp_path / "tokenizer.json"))
    adopted = TextTokenizer.adopt(str(tmp_path / "tokenizer.json"))
    assert llama_cpp_name(pretrained(tiny_lm, tokenizer=adopted)) == "gpt-2"


def test_another_is_refused_with_the_number_of_texts(tiny_lm: Build) -> None:
    """The pieces of `--data.tokenizer bpe`, and a normalizer that changes the text."""
    given = pretrained(tiny_lm, tokenizer=bpe())
    with pytest.raises(UserError, match=r"would give [1-9]\d* of 40 texts other ids.*superbpe: a"):
        llama_cpp_name(given)
    data = json.loads(bpe(portable=True).to_json()) | {"normalizer": {"type": "NFC"}}
    given = pretrained(tiny_lm, tokenizer=TextTokenizer.from_json(json.dumps(data)))
    with pytest.raises(UserError, match=r"would give 1 of 40 texts other ids"):
        llama_cpp_name(given)


def test_what_is_no_bpe_of_bytes_is_refused(tiny_lm: Build) -> None:
    with pytest.raises(UserError, match=r"no tokenizer like this one.*bpe-portable"):
        llama_cpp_name(pretrained(tiny_lm, tokenizer=characters()))


def test_the_held_out_text_is_compared_where_it_is_at_hand(
    finished: tuple[Workshop, Outcome],
) -> None:
    given = open_pretrained(finished[0].root / "done")
    held_out = list(module._texts(given))
    own = Path(finished[0].files).parent
    assert held_out and all(
        any(text in file.read_text(encoding="utf-8") for file in own.iterdir()) for text in held_out
    )


def test_numbers_are_cut_in_threes_from_their_end() -> None:
    """Of ASCII digits, and of no others, as llama.cpp does."""
    cut: Any = bpe(portable=True)._tokenizer.pre_tokenizer
    pieces = [text for text, _ in cut.pre_tokenize_str("a  1234567, 12\nb")]
    assert pieces == ["aĠĠ", "1", "234", "567", ",Ġ", "12", "Ċb"]
    assert len(cut.pre_tokenize_str("\u0661\u0662\u0663\u0664")) == 1
