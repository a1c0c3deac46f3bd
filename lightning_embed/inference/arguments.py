"""What a caller in Python may get wrong: the type of an argument, a limit, text that is no Unicode.

The command line's parser has seen to types already, and has none for text: a byte that is not UTF-8
becomes half a surrogate pair, which no tokenizer encodes.
"""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from lightning_embed.errors import UserError, require_range


def require_number(flag: str, value: Any, **limits: float) -> None:
    """Refuse what is no number (TypeError) and one outside `require_range`'s limits."""
    _require_type(flag, value, Real, "a number")
    require_range(flag, value, **limits)


def require_whole(flag: str, value: Any, **limits: float) -> None:
    """Refuse what is no whole number (TypeError) and one outside `require_range`'s limits."""
    _require_type(flag, value, Integral, "a whole number")
    require_range(flag, value, **limits)


def require_text(name: str, value: Any) -> None:
    """Refuse what is no string (TypeError) and one that cannot be written in UTF-8 (UserError)."""
    _require_type(name, value, str, "a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{name} is not UTF-8: character {error.start + 1} is {value[error.start]!a}"
        ) from None


def texts_of(name: str, value: Any) -> list[str]:
    """One string or several, as a list; see `require_text`."""
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        _require_type(name, value, str, "a string or several")
    texts = [value] if isinstance(value, str) else list(value)
    for text in texts:
        require_text(name, text)
    return texts


def _require_type(name: str, value: Any, wanted: type, words: str) -> None:
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise TypeError(f"{name} must be {words}, not {value!r}")
