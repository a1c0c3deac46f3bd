"""Every kind of tokenizer: adopted with the same pieces; no text gives a special id; parts of a
text have the tokens they have in it; one id's text."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_kinds import FOREIGN, TEXTS, kinds
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from lightning_embed.errors import UserError
from lightning_embed.special_tokens import SPECIAL_TOKENS
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.tokenizer_json import BOS_NAMES, EOS_NAMES, PAD_NAMES, UNK_NAMES

NAMES = sorted({*SPECIAL_TOKENS, *BOS_NAMES, *EOS_NAMES, *PAD_NAMES, *UNK_NAMES, "[MASK]"})
ODD = ["", " ", "  two  spaces ", "line\nline\r\n", "\u4f60\u597d", "A\u0301", "\0", "x" * 300]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextTokenizer]:
    return kinds(tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize("name", FOREIGN)
def test_adopting_keeps_the_pieces(made: dict[str, TextTokenizer], name: str) -> None:
    original, adopted = FOREIGN[name](), made[name]
    original.encode_special_tokens = True
    assert [adopted.piece(number) for number in range(4)] == list(SPECIAL_TOKENS)
    assert (adopted.bos_id, adopted.pad_id, adopted.eos_id, adopted.unk_id) == (0, 1, 2, 3)
    data = json.loads(adopted.to_json())
    vocabulary = data["model"]["vocab"]
    assert adopted.vocab_size == len(vocabulary)  # dense
    for text in [*TEXTS[:2], *ODD[:-1]]:
        numbers = original.encode(text, add_special_tokens=False).ids
        before = [original.id_to_token(number) for number in numbers]
        after = [adopted.piece(number) for number in adopted.encode(text)]
        if name == "clip":  # leaves out what it does not know
            after = [piece for piece in after if piece != "<unk>"]
        assert after == ["<unk>" if piece == "[UNK]" else piece for piece in before]


def test_loading_says_what_can_be_done(
    made: dict[str, TextTokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, make in FOREIGN.items():
        make().save(str(tmp_path / f"{name}.json"))
        with pytest.raises(UserError, match=r"<pad>|\[PAD\]") as caught:
            TextTokenizer.load(str(tmp_path / f"{name}.json"))
        line = str(caught.value)
        assert line.endswith(f"--adopt {tmp_path / name}.json") and "\n" not in line
    monkeypatch.setattr("lightning_embed.tokens.adoption.MODELS", ("BPE",))
    with pytest.raises(UserError) as caught:
        TextTokenizer.load(str(tmp_path / "bert.json"))
    line = str(caught.value)
    assert "at id 0, not 1; it cannot be renumbered, either" in line
    assert "its model is WordPiece, not BPE" in line and "--adopt" not in line


def texts_with_names() -> st.SearchStrategy[str]:
    words = st.sampled_from([*NAMES, *(n.lower() for n in NAMES), *(n.upper() for n in NAMES)])
    other = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    return st.lists(words | other | st.sampled_from([" ", "a", "<", "▁", "##"])).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts_with_names())
def test_no_text_gives_a_special_id(made: dict[str, TextTokenizer], text: str) -> None:
    for name, tokenizer in made.items():
        for ids in (tokenizer.encode(text), tokenizer.encode(text, begins=False)):
            assert not {0, 1, 2} & set(ids), name
        if name in ("bpe", "portable", "gpt2"):
            assert tokenizer.unk_id not in ids and tokenizer.gives_back(text), name
        if name in ("unigram_with_bytes", "llama2"):
            assert tokenizer.unk_id not in tokenizer.encode(text), name


@pytest.mark.parametrize("prefix", [False, True])
def test_a_name_that_is_a_word_is_cut_in_two(tmp_path: Path, prefix: bool) -> None:
    vocabulary = {
        token: i for i, token in enumerate((*SPECIAL_TOKENS, "a", "<", "pad>", "▁", "▁a"))
    }
    library = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    library.normalizer = normalizers.Lowercase()
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if prefix:
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    library.save(str(tmp_path / "t.json"))
    loaded = TextTokenizer.load(str(tmp_path / "t.json"))
    for tokenizer in (loaded, TextTokenizer.from_json(loaded.to_json())):
        pieces = [tokenizer.piece(number) for number in tokenizer.encode("a <PAD>")]
        assert pieces == (["a", "▁", "<", "pad>"] if prefix else ["a", "<", "pad>"])
        assert not {0, 1, 2} & set(tokenizer.encode("<s></s> <pad> [CLS]"))
        assert tokenizer.fingerprint == loaded.fingerprint


def test_a_part_has_the_tokens_that_it_has_in_the_whole(made: dict[str, TextTokenizer]) -> None:
    """Between a word and the space after it, where parts are cut."""
    text, draw = TEXTS[0][:170], random.Random(0)
    places = [n for n in range(1, len(text) - 1) if text[n] == " " and text[n - 1].isalnum()]
    for name, tokenizer in made.items():
        if name == "llama2":  # merges reach across spaces, which is counted
            continue
        for place in draw.sample(places, 8):
            parts = tokenizer.encode_documents([text[:place], text[place:]], [True, False])
            ids = [number for part in parts for number in part[1:-1].tolist()]
            assert ids == tokenizer.encode(text), (name, place)
            (second,) = tokenizer.encode_documents([text[place:]], [False])
            assert second.tolist() == parts[1].tolist()


def test_the_texts_of_ids_are_the_text(made: dict[str, TextTokenizer]) -> None:
    for name, tokenizer in made.items():
        texts = [tokenizer.text_of(number) for number in tokenizer.encode("and of a in the")]
        assert "".join(texts).removeprefix(" ") == "and of a in the", name
        assert [tokenizer.text_of(number) for number in range(4)] == list(SPECIAL_TOKENS)
