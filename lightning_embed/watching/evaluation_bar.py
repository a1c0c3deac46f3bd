"""`EvaluationBar`: how far a validation, a test or a prediction has got, where it takes a while."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import lightning as L

from lightning_embed.bar import bar


class EvaluationBar(L.Callback):
    """Shows a bar over the batches of each evaluation, those in training included."""

    def __init__(self) -> None:
        self._bar = ExitStack()
        self._advance: Callable[[float], None] = lambda piece: None

    def _begin(self, label: str, batches: list[int | float]) -> None:
        self._end()
        self._advance = self._bar.enter_context(bar(label, sum(batches)))

    def _step(self, *args: Any, **kwargs: Any) -> None:
        self._advance(1)

    def _end(self, *args: Any, **kwargs: Any) -> None:
        self._bar.close()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin("validation", trainer.num_val_batches)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin("test", trainer.num_test_batches)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin("prediction", trainer.num_predict_batches)

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _step
    on_validation_end = on_test_end = on_predict_end = on_exception = teardown = _end
