"""What goes wrong on the way from the Hub, in one line; what its client logs meanwhile, in short.

The client tries again five times by itself: after what `Retry-After` says where the Hub answers 429
(too many requests), else after seconds; a download that breaks off is resumed in steps of 10 MB,
and one that says nothing for `HF_HUB_DOWNLOAD_TIMEOUT` seconds (10) counts as broken off.
Each of that is one line in its log, with a long address. What it raises in the end has many types.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_embed.console import say
from lightning_embed.errors import UserError, one_line

ADDRESS = re.compile(r"https?://\S*/([^/\s:]+)")
STATUS = re.compile(r"HTTP Error (\d+)")
AGAIN = "give the command again: files that have come whole are kept"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@contextmanager
def told(name: str) -> Iterator[None]:
    """Say in short what the Hub's client logs, and end in one line when it gives up.

    Args:
        name: what is wanted from the Hub.

    Raises:
        UserError: the Hub refuses, breaks off or does not answer any more.
    """
    from huggingface_hub.errors import HfHubHTTPError

    heard: list[str] = []
    # an answer with an error, and what the library beneath (httpx, requests) raises without answer
    network = tuple(kind for kind in HfHubHTTPError.__bases__ if kind is not OSError)
    with _listening(heard):
        try:
            yield
        except Exception as error:
            why = _why(error, heard, network)
            if not why:
                raise
            raise UserError(f"{name!r} does not come from the Hub: {why}") from error


def _why(error: Exception, heard: list[str], network: tuple[type[BaseException], ...]) -> str:
    """What the Hub or the way there is to blame for, and what to do; nothing if neither is."""
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(before)
    codes = [getattr(getattr(each, "response", None), "status_code", None) for each in chain]
    logged = STATUS.match(heard[-1]) if heard else None  # with no further try after it
    code = next((code for code in codes if code), int(logged[1]) if logged else None)
    for each in chain:
        if "is a gated dataset" in str(each) and not isinstance(each, UserError):
            return f"{one_line(each)} {LOG_IN[0].upper()}{LOG_IN[1:]}"
    if code == 429:
        return f"too many requests (429); wait some minutes, or {LOG_IN}; {AGAIN}"
    if code and code >= 500:
        return f"it answers {code} (an error of its own), after several tries; {AGAIN}"
    if any(isinstance(each, network) and not hasattr(each, "response") for each in chain):
        return f"{_short(str(error)) or type(error).__name__}, after several tries; {AGAIN}"
    return ""


@contextmanager
def _listening(heard: list[str]) -> Iterator[None]:
    """The client's log goes into the list, and to the screen in short."""
    ear = logging.Handler(logging.WARNING)

    def emit(record: logging.LogRecord) -> None:
        line = record.getMessage()
        heard.append(line)
        if not STATUS.match(line):  # the next line says what follows from it
            say("note", f"the Hub: {_short(line)}")

    ear.emit = emit  # type: ignore[method-assign]
    logger = logging.getLogger("huggingface_hub")
    handlers, logger.handlers = logger.handlers, [ear]
    try:
        yield
    finally:
        logger.handlers = handlers


def _short(text: str) -> str:
    """In one line, addresses without all but their last part."""
    return ADDRESS.sub(r"\1", " ".join(text.split()))
