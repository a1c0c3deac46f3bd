"""Pieces of text are whole characters, never what a stop string cuts, and together the text."""

import pytest

from lightning_embed.inference.continuation import Continuation
from lightning_embed.tokens.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def byte_level() -> TextTokenizer:
    """Without merges to speak of: each byte of a letter beyond ASCII is a token."""
    return TextTokenizer.train(["abc"], 260)


def pieces(tokenizer: TextTokenizer, ids: list[int], *stop: str) -> tuple[list[str], Continuation]:
    text = Continuation(tokenizer, [tokenizer.bos_id], stop)
    return [*(text.add(new) for new in ids), text.rest()], text


def test_characters_come_whole(byte_level) -> None:
    found, _ = pieces(byte_level, byte_level.encode("aé世🙂"))
    assert [piece for piece in found if piece] == ["a", "é", "世", "🙂"]


@pytest.mark.parametrize("cut", range(1, 5))
def test_bytes_that_are_no_character_are_what_decoding_makes_of_them(byte_level, cut) -> None:
    ids = byte_level.encode("🙂")[:cut]
    for rest in ([], byte_level.encode("ab")):
        assert "".join(pieces(byte_level, ids + rest)[0]) == byte_level.decode(ids + rest)


@pytest.mark.parametrize(
    ("text", "stop", "left"),
    [
        ("one\n\ntwo", ["\n\n"], "one"),
        ("one\ntwo", ["\n\n"], "one\ntwo"),
        ("one\n", ["\n\n"], "one\n"),  # held back to the end
        ("aaab", ["aab"], "a"),
        ("abcd", ["d", "bc"], "a"),
        ("abcd", ["abcx", "bcy"], "abcd"),
        ("stop", ["stop"], ""),
        ("größe", ["ö"], "gr"),
    ],
)
def test_a_text_ends_before_the_first_stop_string(byte_level, text, stop, left) -> None:
    found, continuation = pieces(byte_level, byte_level.encode(text), *stop)
    assert "".join(found) == left
    assert continuation.stopped == (left != text)


def test_the_first_space_is_kept_by_a_tokenizer_that_drops_it_from_a_text() -> None:
    """As those of the SentencePiece family do, whose words carry the space before them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "▁def": 4, "▁read": 5}
    library = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    library.add_special_tokens(list(vocabulary)[:4])
    text = Continuation(TextTokenizer(library), [0, 4])
    assert [text.add(5), text.add(5), text.rest()] == [" read", " read", ""]
