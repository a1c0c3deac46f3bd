"""What a document is in text: nothing lost between blocks, whatever separates."""

import io
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_embed.errors import UserError
from lightning_embed.sources import texts
from lightning_embed.sources.texts import DocumentRule, Kind, Piece

ODD = st.text(alphabet="ab \t\r\n\x0b\x0c\x85\u2028é🙂|", max_size=60)


@pytest.fixture(autouse=True, params=[1, 2, 7, 1 << 20])
def block(request: pytest.FixtureRequest) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BLOCK", request.param)
        yield request.param


def documents(text: str, kind: Kind, separator: str | None = None) -> list[str]:
    stream = io.BytesIO(text.encode())
    found, ended = list[str](), True
    for piece in DocumentRule(kind, separator).documents(stream, "t.txt"):
        assert piece.begins is ended
        found = [*found, piece.text] if piece.begins else [*found[:-1], found[-1] + piece.text]
        ended = piece.ends
    assert ended
    return found


@given(ODD)
def test_a_file(text: str) -> None:
    assert documents(text, "file") == [text]


@given(ODD)
def test_lines_end_in_lf_or_crlf_and_in_nothing_else(text: str) -> None:
    lines = text.split("\n")
    last = [lines.pop()] if lines[-1] else lines.pop() and []
    wanted = [line.removesuffix("\r") for line in [*lines, *last]]
    assert documents(text, "line") == wanted


@given(ODD)
def test_paragraphs_end_at_blank_lines(text: str) -> None:
    wanted, held = list[str](), list[str]()
    for line in [*text.split("\n"), ""]:
        if line.strip():
            held.append(line)
        elif held:
            wanted.append("\n".join(held).removesuffix("\r"))
            held = []
    found = documents(text, "paragraph")
    # a line of white space longer than a block is text, where its length is not known yet
    if len(text) < texts.BLOCK:
        assert found == wanted
    else:
        assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", "".join(wanted))


@given(ODD, st.sampled_from(["|", "||", "a|b", "\r\n", "🙂", "aab"]))
def test_between_separators(text: str, separator: str) -> None:
    wanted = text.split(separator)
    if not wanted[-1]:  # nothing follows a separator at the end
        wanted.pop()
    found = documents(text, "separator", separator)
    assert found == wanted


def test_long_documents_come_in_pieces_of_bounded_length(block: int) -> None:
    if block > 7:
        return
    text = "x" * 300 + "\n" + "y" * 300 + "\n\nz"
    for kind, wanted in (("line", 4), ("paragraph", 2), ("file", 1)):
        pieces = list(DocumentRule(kind).documents(io.BytesIO(text.encode()), "t"))  # type: ignore[arg-type]
        assert sum(piece.begins for piece in pieces) == sum(p.ends for p in pieces) == wanted
        assert max(len(piece.text) for piece in pieces) <= 3 * block + 2


def test_a_byte_order_mark_goes_and_only_the_first() -> None:
    stream = io.BytesIO("\ufeff\ufeffa\ufeff".encode())
    assert "".join(p.text for p in DocumentRule().documents(stream, "t")) == "\ufeffa\ufeff"
    assert list(DocumentRule().documents(io.BytesIO(b""), "t")) == [Piece("")]


@pytest.mark.parametrize(
    ("kind", "separator", "said"),
    [
        ("separator", None, "--data.document separator needs a --data.separator TEXT"),
        ("separator", "", "--data.document separator needs a --data.separator TEXT"),
        ("line", "x", "--data.separator 'x' needs --data.document separator, not line"),
    ],
)
def test_a_rule_that_is_none(kind: Kind, separator: str | None, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        DocumentRule(kind, separator)
