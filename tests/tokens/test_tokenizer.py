"""Training, characters, loading, adopting; and that a text's `<pad>` is text everywhere."""

import copy
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lightning_embed.sources import hub_probe as hub
from lightning_embed.special_tokens import SPECIAL_TOKENS
from lightning_embed.tokens.tokenizer import SMALLEST_VOCABULARY, TextTokenizer

HOSTILE = "a <s><pad></s> b <unk>\n"
TEXTS = [
    "def read(self, name):\r\n\treturn self.names[name]\n" * 30,
    HOSTILE * 20,
    "Üben 你好 🙂 1234",
]
BERT = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "a")
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def trained() -> TextTokenizer:
    return TextTokenizer.train(TEXTS, 300)


def gpt2_style() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    data = json.loads(tokenizer.to_str())  # GPT-2's own file has it in the model's vocabulary too
    data["model"]["vocab"]["<|endoftext|>"] = tokenizer.token_to_id("<|endoftext|>")
    return Tokenizer.from_str(json.dumps(data))


def llama3_style() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    tokenizer.add_tokens(["    "])  # an ordinary added token changes the cuts: it has to stay
    tokenizer.add_special_tokens(["<|eot_id|>"])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(pad_id=0, pad_token="!", length=9)
    return tokenizer


def saved(tokenizer: Tokenizer, folder: Path, name: str = "tokenizer.json") -> str:
    tokenizer.save(str(folder / name))
    return str(folder / name)


def through_every_door(tokenizer: TextTokenizer, folder: Path) -> Iterator[TextTokenizer]:
    yield tokenizer
    yield TextTokenizer.from_json(tokenizer.to_json())
    tokenizer.save(folder / "new" / "tokenizer.json")
    yield TextTokenizer.load(str(folder / "new" / "tokenizer.json"))
    yield TextTokenizer.load(str(folder / "new"))


# -- trained -------------------------------------------------------------------------------


def test_our_four_come_first_and_all_bytes_are_there(trained: TextTokenizer) -> None:
    vocabulary = json.loads(trained.to_json())["model"]["vocab"]
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(vocabulary)
    assert (trained.bos_id, trained.pad_id, trained.eos_id) == (0, 1, 2)
    assert trained.vocab_size == 300 == len(vocabulary)


def test_training_is_deterministic_and_the_fingerprint_follows_it(trained: TextTokenizer) -> None:
    again, other = TextTokenizer.train(iter(TEXTS), 300), TextTokenizer.train(TEXTS, 299)
    assert again.to_json() == trained.to_json() and again.fingerprint == trained.fingerprint
    assert other.fingerprint != trained.fingerprint and len(trained.fingerprint) >= 8


def test_a_vocabulary_takes_what_the_text_supports() -> None:
    assert SMALLEST_VOCABULARY < TextTokenizer.train(["abab abab"], 5_000).vocab_size < 270
    assert TextTokenizer.train(["x"], SMALLEST_VOCABULARY).vocab_size == SMALLEST_VOCABULARY
    with pytest.raises(ValueError, match=r"--data\.vocab_size 259 .* at least 260"):
        TextTokenizer.train(TEXTS, 259)


def test_a_portable_one_has_the_same_tokens_and_merges_over_the_ends_of_pieces() -> None:
    """Of "..b" the dots are a piece; ".b" was learned where there was one dot."""
    taught = [".b .b .b"] * 9
    usual, portable = (TextTokenizer.train(taught, 262, portable=p) for p in (False, True))
    assert portable._tokenizer.get_vocab() == usual._tokenizer.get_vocab()
    assert portable.fingerprint != usual.fingerprint
    assert [usual.decode([i]) for i in usual.encode("..b")] == [".", ".", "b"]
    assert [portable.decode([i]) for i in portable.encode("..b")] == [".", ".b"]
    assert portable.decode(portable.encode("..b")) == "..b"


@pytest.mark.parametrize("portable", [False, True])
def test_names_of_special_tokens_are_text_behind_every_door(tmp_path: Path, portable: bool) -> None:
    trained = TextTokenizer.train(TEXTS, 300, portable=portable)
    for tokenizer in through_every_door(trained, tmp_path):
        ids = tokenizer.encode(HOSTILE)
        assert min(ids) > 3 and tokenizer.decode(ids) == HOSTILE
        (document,) = tokenizer.encode_documents([HOSTILE])
        assert document.tolist() == [0, *ids, 2]
        assert tokenizer.decode(document) == HOSTILE
        assert tokenizer.decode(document, skip_special_tokens=False) == f"<s>{HOSTILE}</s>"
        assert tokenizer.fingerprint == trained.fingerprint


BYTES = TextTokenizer.train([], SMALLEST_VOCABULARY)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    ids = BYTES.encode(text)
    assert BYTES.decode(ids) == text and len(ids) == len(text.encode())


def test_documents_have_a_narrow_type(trained: TextTokenizer) -> None:
    assert [d.dtype for d in trained.encode_documents(["a", ""])] == [np.uint16, np.uint16]
    assert trained.encode_documents([""])[0].tolist() == [0, 2]
    wide = TextTokenizer.characters(["".join(map(chr, range(0x10000, 0x20000)))])
    (document,) = wide.encode_documents([chr(0x1FFFF)])
    assert document.dtype == np.uint32 and document.tolist() == [0, 65_539, 2]


def test_a_failed_save_leaves_the_old_file(
    trained: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.json").write_text("old")

    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        trained.save(tmp_path / "t.json")
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]
    assert (tmp_path / "t.json").read_text() == "old"


# -- characters ----------------------------------------------------------------------------


def test_characters_by_code_point(tmp_path: Path) -> None:
    text = "b a\r\n\tü<s>🙂"
    for tokenizer in through_every_door(TextTokenizer.characters([text, "c"]), tmp_path):
        assert tokenizer.vocab_size == 4 + len(set(text) | {"c"})
        ids = tokenizer.encode(text)
        order = sorted(set(text) | {"c"})
        assert ids == [4 + order.index(c) for c in text]
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode("a?b??") == [
            *tokenizer.encode("a"),
            3,
            *tokenizer.encode("b"),
            3,
            3,
        ]


# -- loaded --------------------------------------------------------------------------------


def test_foreign_names_of_specials_truncation_and_padding(tmp_path: Path) -> None:
    vocabulary = {token: i for i, token in enumerate(BERT)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(BERT[:3]))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 0))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(pad_id=1, pad_token="[PAD]", length=12)
    loaded = TextTokenizer.load(saved(tokenizer, tmp_path))
    assert (loaded.bos_id, loaded.eos_id) == (0, 2)
    assert loaded.encode("a a a a a a") == [4] * 6


def test_a_special_that_the_file_does_not_call_special_is_text_too(trained: TextTokenizer) -> None:
    data = json.loads(trained.to_json())
    for token in data["added_tokens"]:
        token["special"] = False
    assert min(TextTokenizer.from_json(json.dumps(data)).encode(HOSTILE)) > 3
    data["added_tokens"] = []
    reread = TextTokenizer.from_json(json.dumps(data))
    assert min(reread.encode(HOSTILE)) > 3
    assert reread.decode([0, *reread.encode("a"), 2, 1]) == "a"


def test_a_unigram_model_spells_pad_out(tmp_path: Path) -> None:
    """As XLM-R's file: specials are pieces with the best score, so `<pad>` would be one piece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80,
        special_tokens=list(SPECIAL_TOKENS),
        unk_token="<unk>",
        show_progress=False,
        initial_alphabet=list("<>/"),
    )
    tokenizer.train_from_iterator(TEXTS[:2], trainer)
    tokenizer.encode_special_tokens = True
    assert 1 in tokenizer.encode("a <pad>").ids  # what the library does by itself
    for loaded in through_every_door(TextTokenizer.load(saved(tokenizer, tmp_path)), tmp_path):
        assert min(loaded.encode("a <pad></s><s>")) > 3
        assert loaded.decode(loaded.encode("a <pad> b")) == "a <pad> b"


def test_text_that_would_become_padding_is_refused(tmp_path: Path) -> None:
    words = {token: i for i, token in enumerate((*SPECIAL_TOKENS, "a"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ValueError, match=r"text '<s>' into the special id 0.*--data\.tokenizer"):
        TextTokenizer.load(saved(tokenizer, tmp_path))


@pytest.mark.parametrize(
    ("rename", "found"),
    [
        ({"<pad>": "<other>"}, "has no padding token"),
        ({"<pad>": "<s>", "<s>": "<pad>"}, "has `<pad>` at id 0, not 1"),
        ({"<s>": "<other>"}, "has no begin token"),
        ({"</s>": "<other>"}, "has no end token"),
    ],
)
def test_wrong_specials_are_refused_with_the_way_out(
    trained: TextTokenizer, tmp_path: Path, rename: dict[str, str], found: str
) -> None:
    data = json.loads(trained.to_json())
    data["model"]["vocab"] = {rename.get(t, t): i for t, i in data["model"]["vocab"].items()}
    for token in data["added_tokens"]:
        token["content"] = rename.get(token["content"], token["content"])
    file = tmp_path / "t.json"
    file.write_text(json.dumps(data))
    with pytest.raises(ValueError) as caught:
        TextTokenizer.load(str(file))
    assert found in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"python train.py tokenizer --adopt {file}")


@pytest.mark.parametrize("text", ["{", "[1]", '{"model": {"type": "BPE"}, "added_tokens": []}'])
def test_what_is_no_tokenizer(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match=r"t\.json") as caught:
        TextTokenizer.load(str(tmp_path / "t.json"))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r"not UTF-8 \(byte 7\)"):
        TextTokenizer.load(str(tmp_path / "t.json"))


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    for name in (str(tmp_path / "t.json"), str(tmp_path), "a/b/c", "./x", "t.json"):
        with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*--data\.tokenizer"):
            TextTokenizer.load(name)


# -- the Hub -------------------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.usefixtures("no_hub")
def test_without_a_network_a_hub_name_ends_in_one_line() -> None:
    with pytest.raises(ValueError) as caught:
        TextTokenizer.load("somebody/not-cached")
    line = str(caught.value)
    assert "\n" not in line and "somebody/not-cached" in line
    assert "HF_HUB_OFFLINE" in line and "--data.files" in line and "--data.tokenizer" in line


@pytest.mark.usefixtures("no_hub")
def test_a_cached_hub_name_needs_no_network(
    trained: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.save(tmp_path / "tokenizer.json")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_: str(tmp_path / "tokenizer.json")
    )
    assert TextTokenizer.load("gpt2").fingerprint == trained.fingerprint


def test_a_host_that_never_answers_does_not_hold_us_up(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()

    def hang(*_: object, **__: object) -> None:
        held.wait(20)  # as a name server that does not answer; connect's timeout covers no look-up
        raise OSError

    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(socket, "create_connection", hang)
    start = time.monotonic()
    assert not hub._answers("example.invalid", 443)
    assert time.monotonic() - start < 5
    held.set()


def test_the_probe_goes_to_the_proxy_and_finds_a_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for variable in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        hub.require_hub("gpt2", "--data.files")
    with pytest.raises(ValueError, match="no network"):
        hub.require_hub("gpt2", "--data.files")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.require_hub("gpt2", "--data.files")


# -- adopted -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [gpt2_style, llama3_style])
def test_adopting_keeps_cuts_and_text(make: Any, tmp_path: Path) -> None:
    original = make()
    file = saved(original, tmp_path)
    with pytest.raises(ValueError, match=r"has no padding token.*--adopt"):
        TextTokenizer.load(file)
    original.no_truncation()
    original.no_padding()
    for adopted in through_every_door(TextTokenizer.adopt(file), tmp_path):
        data = json.loads(adopted.to_json())
        named = {t["content"]: t["id"] for t in data["added_tokens"]}
        ids = data["model"]["vocab"] | named
        assert sorted(ids.values()) == list(range(adopted.vocab_size))  # dense
        assert [ids[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
        assert not any(token.startswith("<|") for token in ids)
        for text in (*TEXTS, "  x\n\n    y = 'don\u2019t'  ", "e\u0301"):
            before = original.encode(text, add_special_tokens=False).tokens
            after = adopted.encode(text)
            assert [original.token_to_id(t) + 4 for t in before if t != "    "] == [
                i for i in after if i != ids.get("    ")
            ]
            assert len(before) == len(after) and adopted.decode(after) == text
        assert adopted.decode(adopted.encode("<|endoftext|><s>")) == "<|endoftext|><s>"


def test_adopting_takes_out_what_changes_text(tmp_path: Path) -> None:
    data = json.loads(gpt2_style().to_str())
    data["normalizer"] = {"type": "NFC"}
    data["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "t.json").write_text(json.dumps(data))
    adopted = TextTokenizer.adopt(str(tmp_path / "t.json"))
    assert adopted.decode(adopted.encode("e\u0301 a")) == "e\u0301 a"


def test_only_byte_level_bpe_is_adopted(tmp_path: Path) -> None:
    good = json.loads(gpt2_style().to_str())
    cases: list[tuple[str, dict[str, Any]]] = []
    for problem, change in [
        ("its model is WordPiece", {"model": {"type": "WordPiece", "vocab": {}}}),
        ("does not work on bytes", {"pre_tokenizer": {"type": "Whitespace"}}),
        ("does not work on bytes", {"pre_tokenizer": None}),
        ("does not come back exactly", {"pre_tokenizer": WHITESPACE_THEN_BYTES}),
    ]:
        cases.append((problem, copy.deepcopy(good) | change))
    cases.append(("lacks some of the 256 bytes", copy.deepcopy(good)))
    del cases[-1][1]["model"]["vocab"]["!"]
    cases.append(("the end of words", copy.deepcopy(good)))
    cases[-1][1]["model"]["end_of_word_suffix"] = "</w>"
    for problem, data in cases:
        (tmp_path / "t.json").write_text(json.dumps(data))
        with pytest.raises(ValueError, match="cannot be adopted") as caught:
            TextTokenizer.adopt(str(tmp_path / "t.json"))
        assert problem in str(caught.value) and "\n" not in str(caught.value)


WHITESPACE_THEN_BYTES = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ],
}
