"""`Curves`: a TensorBoard logger that a full disk interrupts and does not end."""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from lightning_embed.console import say
from lightning_embed.errors import writing
from lightning_embed.library_internals import begin_new_event_file

LONGEST_WAIT = 2.0  # seconds for a clock that is a little behind


class Curves(TensorBoardLogger):
    """Lightning's logger; while its folder cannot be written to, entries are lost, which is said
    once, and a new file begins when it can be again.

    Args:
        folder, name: the curves lie in `folder/name`.
        first_step: curves from here on, of an earlier process, are taken back: these steps are
            done once more.
    """

    def __init__(self, folder: str, name: str, first_step: int | None = None) -> None:
        super().__init__(folder, name, version="", default_hp_metric=False, purge_step=first_step)
        self._lost = 0
        _wait_until_later_than(Path(folder) / name)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        with self._unless_full(step):
            super().log_metrics(metrics, step)

    def save(self) -> None:
        """Put what was logged on the disk, so that a kill loses nothing a checkpoint knows of."""
        with self._unless_full(None):
            super().save()

    def finalize(self, status: str) -> None:
        with self._unless_full(None):
            super().finalize(status)

    @contextlib.contextmanager
    def _unless_full(self, step: int | None) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # Lightning wraps whatever a writer raises
            cause = error.__cause__ or error
            if not isinstance(cause, OSError):
                raise
            if not self._lost:
                say("warning", f"TensorBoard's entries are lost for now: {cause}")
            self._lost += 1
            # Its writing thread has ended; nothing of this run is taken back.
            begin_new_event_file(self, None if step is None else step + 1)


def _wait_until_later_than(folder: Path) -> None:
    """Let the second pass in which the folder's last event file was begun: TensorBoard reads files
    in the order of their names, which is that of seconds, and of process ids within one."""
    begun = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    ahead = max((int(second) + 1 for second in begun if second.isdigit()), default=0) - time.time()
    if ahead > LONGEST_WAIT:
        say(
            "warning",
            f"this machine's clock is {ahead:,.0f} s behind the run's last entries: TensorBoard"
            " may draw its curves out of order",
        )
    elif ahead > 0:
        time.sleep(ahead)


def require_writable(loggers: Iterable[Logger]) -> None:
    """Refuse a folder that logs cannot be written to, before there is anything to log.

    Raises:
        UserError: names the folder.
    """
    for folder in (Path(logger.save_dir) for logger in loggers if logger.save_dir):
        with writing(folder, "--trainer.logger.save_dir"):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()


def quiet_writer() -> None:
    """TensorBoard writes in a thread of its own, whose end on a full disk Python would report with
    a traceback; `Curves` hears of it at the next entry and says it in a line."""
    before = threading.excepthook

    def hook(ended: threading.ExceptHookArgs) -> None:
        of_tensorboard = type(ended.thread).__module__.startswith("tensorboard.")
        if not (of_tensorboard and isinstance(ended.exc_value, OSError)):
            before(ended)

    threading.excepthook = hook
