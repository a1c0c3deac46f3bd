"""The text of a record: a column by its name, a nested one by a dotted path, a list of messages."""

from collections.abc import Iterable, Mapping
from typing import Any

from lightning_embed.errors import UserError

MOST_NAMES, LONGEST_NAME = 30, 60  # of columns in a message


def require_column(column: str, present: Iterable[str], where: str) -> str:
    """The column that holds `column`: itself, or the first name of a dotted path.

    Raises:
        UserError: there is none, or more than one.
    """
    names = [str(name) for name in present]
    parts = column.split(".")
    for length in range(len(parts), 0, -1):  # a name may have dots of its own
        name = ".".join(parts[:length])
        if names.count(name) > 1:
            raise UserError(f"{where} has {names.count(name)} columns {name!r}: rename all but one")
        if name in names:
            return name
    raise no_column(column, names, where)


def no_column(column: str, names: list[str], where: str) -> UserError:
    shown = [name if len(name) < LONGEST_NAME else name[:LONGEST_NAME] + "..." for name in names]
    some = ", ".join(map(repr, shown[:MOST_NAMES])) + (", ..." if names[MOST_NAMES:] else "")
    if not names:
        return UserError(f"{where} has no column {column!r}, nor any other")
    return UserError(
        f"{where} has no column {column!r}: name one of {some} with --data.text_column"
    )


def value_of(row: Mapping[str, Any], column: str, where: str) -> Any:
    """What a row has at a dotted path; None where something on the way is null."""
    value: Any = row
    asked = column
    while True:
        above = asked[: len(asked) - len(column)]  # `meta.` within meta
        try:
            name = require_column(column, value, where)
        except UserError:
            if above and column.split(".")[0] not in value:
                raise no_column(asked, [f"{above}{name}" for name in value], where) from None
            raise
        value = value[name]
        if name == column or value is None:
            return value
        column = column.removeprefix(f"{name}.")
        if not isinstance(value, Mapping):
            raise UserError(
                f"{where}: column {name!r} is {kind_of(value)}, with no {column!r} in it; name"
                " another with --data.text_column"
            )


def as_text(value: Any, column: str, where: str) -> str:
    """A column's text. A list of messages is one text: `role: content`, a blank line between two.

    Raises:
        UserError: it is neither, or has half a surrogate pair.
    """
    text = value if isinstance(value, str) else _joined(value)
    if text is None and isinstance(value, Mapping) and value:
        inside = ", ".join(repr(f"{column}.{name}") for name in list(value)[:MOST_NAMES])
        raise UserError(
            f"{where}: column {column!r} is {kind_of(value)}, not text; name one of {inside} with"
            " --data.text_column"
        )
    if text is None:
        raise UserError(
            f"{where}: column {column!r} is {kind_of(value)}, not text; correct the file or "
            "name another column with --data.text_column"
        )
    if not _is_unicode(text):
        raise UserError(f"{where}: half a surrogate pair, which UTF-8 cannot hold")
    return text


def kind_of(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _joined(messages: Any) -> str | None:
    """A list of messages as one text; None if it is something else."""
    if not isinstance(messages, list) or not messages:
        return None
    texts = []
    for message in messages:
        if not isinstance(message, Mapping):
            return None
        role, content = message.get("role"), _content(message.get("content"))
        if not isinstance(role, str) or content is None:
            return None
        texts.append(f"{role}: {content}")
    return "\n\n".join(texts)


def _content(content: Any) -> str | None:
    """A message's content, which may be a list of parts, each of `type` text."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
    return "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
