"""Which metrics `monitor` settings may name: those of the validation, known before training.

Lightning looks a metric up at the first validation, and early stopping that finds none there only
keeps silent.
"""

from collections.abc import Iterable

import lightning as L

from lightning_embed.errors import UserError
from lightning_embed.evaluation.metrics import HIGHER_IS_BETTER, SCALARS

FLAGS = {"ResumableEarlyStopping": "--early_stopping", "Checkpoints": "--checkpoints"}
OWN = ("lightning.", "lightning_embed.")  # packages whose callbacks log no metrics but these


def require_monitors(callbacks: Iterable[L.Callback]) -> None:
    """Refuse a callback of a fit that monitors what no validation measures, or the wrong way round.

    Raises:
        UserError: lists what there is; or says which `mode` the metric needs. A user's own callback
            may log metrics that nobody knows beforehand: beside one, any name is taken.
    """
    callbacks = list(callbacks)
    metrics = [f"val/{name}" for name in SCALARS]
    complete = all(type(callback).__module__.startswith(OWN) for callback in callbacks)
    for callback in callbacks:
        name, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        kind = type(callback).__name__
        flag = FLAGS.get(kind, kind)
        if not isinstance(name, str):
            continue
        if name not in metrics:
            if complete:
                raise UserError(
                    f"{flag}.monitor {name} is no metric of the validation: there are"
                    f" {', '.join(metrics)}"
                )
            continue
        wanted = "max" if name.removeprefix("val/") in HIGHER_IS_BETTER else "min"
        if mode in ("min", "max") and mode != wanted:
            better = "higher" if wanted == "max" else "lower"
            raise UserError(
                f"{flag}.monitor {name} is better the {better} it is: give {flag}.mode {wanted}"
            )
