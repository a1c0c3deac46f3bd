"""Signals that ask a program to end, also while its main thread is held up outside Python."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from lightning_embed.processes import stop_signals

Item = TypeVar("Item")


class Ended(SystemExit):
    """A signal has asked for the end; the status is 128 + signal.

    Attributes:
        told: it stands on screen already.
        goes_on: the same command goes on where this one was.
    """

    told = goes_on = False


def leave(number: int, frame: Any) -> None:
    """A handler that ends the program tidied up."""
    raise Ended(128 + number)


def name_of(error: BaseException) -> str:
    """The signal's name, of an `Ended` or a KeyboardInterrupt."""
    number = int(error.code or 0) - 128 if isinstance(error, Ended) else signal.SIGINT
    return signal.Signals(number).name


@contextmanager
def watched(tell: Callable[[int], None]) -> Iterator[None]:
    """Meanwhile `tell` is called with the number of each signal, in another thread: Python notes it
    in a pipe at once, though its handlers wait for the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where Python lets nobody watch
        return
    read, note = os.pipe()
    os.set_blocking(note, False)

    def watch() -> None:
        while number := os.read(read, 1):
            tell(number[0])

    before = signal.set_wakeup_fd(note)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(note)  # the watcher reads the end
        watcher.join()
        os.close(read)


class Later:
    """A signal that is waiting to be heeded.

    Attributes:
        number: its number, 0 as long as there is none.
        fed: all items were taken.
    """

    number, fed = 0, False

    def until(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, up to a signal: there whoever takes them gets an `Ended`."""
        for item in items:
            if self.number:
                raise Ended(128 + self.number)
            yield item
        self.fed = True


@contextmanager
def heeded_later(tell: Callable[[str, Later], None]) -> Iterator[Later]:
    """A signal that would end the program ends it behind the block, which can end earlier by
    `Later.until`. A second one ends it at once. Handlers of others stay.

    Args:
        tell: called at once, in another thread, with the signal's name.
    """
    later = Later()
    if threading.current_thread() is not threading.main_thread():
        yield later
        return
    ending = (leave, signal.default_int_handler)
    before: dict[int, Any] = {n: signal.getsignal(n) for n in stop_signals()}
    before = {int(n): handler for n, handler in before.items() if handler in ending}

    def note(number: int) -> None:
        if number not in before:
            return
        if later.number:
            from lightning_embed.library_internals import end_at_once

            end_at_once(128 + number)
        later.number = number
        tell(signal.Signals(number).name, later)

    for number in before:
        signal.signal(number, _wait)
    try:
        with watched(note):
            yield later
    except Ended:
        if not later.number:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if later.number:
        before[later.number](later.number, None)


def _wait(number: int, frame: Any) -> None:
    """A handler that leaves all to `heeded_later`."""
