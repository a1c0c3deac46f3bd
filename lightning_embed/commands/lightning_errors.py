"""What Lightning refuses, told in one line: a setting is the user's to mend.

Lightning raises every kind of exception for that. Those of its own `raise` statements are meant for
the user; what goes wrong elsewhere is a bug and keeps its traceback.
"""

import linecache
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning_embed.commands.wording import plain
from lightning_embed.errors import UserError

LIBRARIES = ("lightning", "jsonargparse")


@contextmanager
def refusals_in_one_line(early: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Turns Lightning's refusals into UserError; everything else passes.

    Args:
        early: whether nothing has been trained yet; later a refusal is no setting's fault.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not (is_refusal(error) and early()):
            raise
        raise UserError(plain(str(error))) from error


def is_refusal(error: Exception) -> bool:
    """Whether a `raise` statement in Lightning made this exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not str(error):
        return False
    code = trace.tb_frame.f_code
    room = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    line = linecache.getline(code.co_filename, trace.tb_lineno).strip()
    return room in LIBRARIES and line.startswith("raise ")
