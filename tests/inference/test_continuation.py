"""Pieces of text are whole characters, never what a stop string cuts, and together the text."""

import pytest
from tokenizer_kinds import kinds

from lightning_embed.inference.continuation import Continuation
from lightning_embed.tokens.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def byte_level() -> TextTokenizer:
    """Without merges to speak of: each byte of a letter beyond ASCII is a token."""
    return TextTokenizer.train(["abc"], 260)


def pieces(
    tokenizer: TextTokenizer, ids: list[int], *stop: str, prompt: list[int] | None = None
) -> tuple[list[str], Continuation]:
    text = Continuation(tokenizer, [tokenizer.bos_id] if prompt is None else prompt, stop)
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


# -- every kind of tokenizer ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextTokenizer]:
    return kinds(tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize(
    "text",
    [
        "apples and pears, 123 of them",
        "it's a café\n  in the üben. Two  lines",
        "你好 apples 🙂🙂 and ☃",
        "<s> and <unk> the <pad>",
    ],
)
def test_prompt_and_continuation_are_the_text(made: dict[str, TextTokenizer], text: str) -> None:
    """What is shown is what decoding all ids gives, wherever the prompt ends."""
    for name, tokenizer in made.items():
        ids = [tokenizer.bos_id, *tokenizer.encode(text)]
        for place in range(1, len(ids) + 1):
            prompt, new = ids[:place], ids[place:]
            before = tokenizer.decode(prompt)
            if "\N{REPLACEMENT CHARACTER}" in before or (not before and place > 1):
                continue  # in a character, or behind unknown ones: see below
            shown = before + "".join(pieces(tokenizer, new, prompt=prompt)[0])
            whole = tokenizer.decode(ids)
            if tokenizer.unk_id in ids:  # which decoding leaves out, with the space around it
                shown, whole = ("".join(each.split()) for each in (shown, whole))
            assert shown == whole, (name, place)


def test_behind_unknown_characters_a_word_has_its_space(made: dict[str, TextTokenizer]) -> None:
    for name in ("t5", "bert", "words"):
        tokenizer = made[name]
        prompt, new = tokenizer.encode("☃"), tokenizer.encode("the and the")
        shown = "".join(pieces(tokenizer, new, prompt=[tokenizer.bos_id, *prompt])[0])
        assert shown == " the and the", name
        unknown = tokenizer.unk_id
        assert unknown is not None
        shown = "".join(pieces(tokenizer, [*new, unknown, *new], prompt=[0, *prompt])[0])
        assert shown == " the and the the and the", name
