"""Leaving training documents out that are near-copies of held-out ones (`--data.decontaminate`).

The tokens stay as they are: windows of those documents are in no plan.
"""

import numpy as np

from lightning_embed.console import say
from lightning_embed.data.near_copies import near_copies
from lightning_embed.data.windows import Windows
from lightning_embed.errors import UserError
from lightning_embed.tokens.prepared import Prepared

NAMED = 3


def left_out_of(prepared: Prepared) -> np.ndarray:
    """`(left out,)` numbers of training documents, sorted ascending; says how many and which.

    Raises:
        UserError: nothing would be left to train on.
    """
    found = near_copies(prepared)
    split, names = prepared.train, prepared.report.sources
    count = len(found.left_out)
    if not count:
        say("note", "--data.decontaminate: no training document is a near-copy of a held-out one")
        return found.left_out
    if count == split.documents:
        raise UserError(
            f"all {count:,} training documents are near-copies of held-out ones: leave out"
            " --data.decontaminate, or give other text"
        )
    share = np.diff(split.offsets)[found.left_out].sum() / len(split.tokens)
    some = found.left_out[:NAMED].tolist()
    shown = [f"{names[split.source[number]]} (document {number})" for number in some]
    more = ", ..." if count > NAMED else ""
    say(
        "note",
        f"left out: {count:,} of {split.documents:,} training documents"
        f" ({100 * share:.2g} % of the tokens), near-copies of held-out ones:"
        f" {', '.join(shown)}{more}",
    )
    return found.left_out


def without(windows: Windows, documents: np.ndarray) -> Windows:
    """The windows of all other documents."""
    if not len(documents):
        return windows
    used = np.ones(max(int(windows.document.max(initial=0)), int(documents[-1])) + 1, bool)
    used[documents] = False
    return windows.only(np.flatnonzero(used[windows.document]))
