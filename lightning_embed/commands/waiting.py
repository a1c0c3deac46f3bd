"""Waiting for the other processes of a run: says for whom, ends on a signal, gives up in one line.

torch waits in C++, where Python runs no signal handlers, for half an hour unless told otherwise.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from torch.distributed import DistError

from lightning_embed.console import say
from lightning_embed.errors import UserError
from lightning_embed.interrupts import watched
from lightning_embed.library_internals import end_at_once, meeting_timeout
from lightning_embed.processes import is_main_process, stop_signals

PATIENCE = 10.0  # seconds; processes that are started together meet before


def wait_in_words(trainer: L.Trainer, tidy: Callable[[], None]) -> None:
    """Have the trainer say whom it waits for when the processes of its run do not meet soon.

    Args:
        trainer: of one or several processes.
        tidy: called, in another thread, before a signal ends this one.

    While it waits, raises UserError where torch gives up.
    """
    strategy: Any = trainer.strategy
    if trainer.world_size == 1:
        return
    meet = strategy.setup_environment

    def end(number: int) -> None:
        if strategy.launcher is not None:
            strategy.launcher.kill(number)  # processes that Lightning started on this host
        if is_main_process():
            say("stopped", f"by {signal.Signals(number).name} while waiting")
        tidy()

    def meet_in_words() -> None:
        speaker = threading.Timer(PATIENCE, _say, [trainer])
        speaker.daemon = True
        try:
            with ended_by_signals(end):
                speaker.start()
                meet()
        except DistError as error:
            raise UserError(
                f"{_whom(trainer)} did not meet: {' '.join(str(error).split())}; {_remedy(trainer)}"
            ) from error
        finally:
            speaker.cancel()

    strategy.setup_environment = meet_in_words


@contextmanager
def ended_by_signals(tidy: Callable[[int], None]) -> Iterator[None]:
    """Meanwhile a signal that asks to stop ends the process with status 128 + signal, also where
    the main thread is held up in C++."""
    ends = {int(number) for number in stop_signals()}

    def end(number: int) -> None:
        if number in ends:
            try:
                tidy(number)
            finally:
                end_at_once(128 + number)

    with watched(end):
        yield


def _say(trainer: L.Trainer) -> None:
    strategy: Any = trainer.strategy
    if is_main_process() or strategy.cluster_environment.local_rank() == 0:  # one on each host
        limit = meeting_timeout(trainer)
        flags = f"--trainer.strategy {type(strategy).__name__} --trainer.strategy.timeout"
        ends = f" and after {limit} ({flags})" if limit else ""
        text = f"for {_whom(trainer)}; {_remedy(trainer)}; ends on Ctrl-C{ends}"
        say("waiting", text, anywhere=True)


def _whom(trainer: L.Trainer) -> str:
    around = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
    return (
        f"all {trainer.world_size} processes of this run (--trainer.num_nodes"
        f" {trainer.num_nodes}, --trainer.devices {trainer.num_devices}) at"
        f" {around.main_address}:{around.main_port}, this is number {trainer.global_rank}"
    )


def _remedy(trainer: L.Trainer) -> str:
    around = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
    if trainer.num_nodes == 1:
        return "--trainer.devices 1 trains without the others"
    return (
        "start the others, with MASTER_ADDR, NODE_RANK and"
        f" MASTER_PORT={around.main_port} in their environment, or give --trainer.num_nodes 1"
    )
