"""`Samples`: text from the model at each validation, in TensorBoard.

Knows: when to sample and where it goes. Leaves to others: sampling (`generate.py`).
"""

from contextlib import suppress

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_embed.errors import UserError
from lightning_embed.training.generate import generate_texts
from lightning_embed.training.lightning_module import LanguageModel


class Samples(L.Callback):
    """Writes continuations of fixed prompts to TensorBoard's text page at every validation.

    Args:
        prompts: what is continued; an empty prompt begins a document.
        max_new_tokens: tokens of each continuation; 0 switches samples off.
        temperature: of the draws.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        max_new_tokens: int = 60,
        temperature: float = 0.8,
    ) -> None:
        if prompts == []:
            raise UserError(
                "--samples.prompts is empty; --samples.max_new_tokens 0 switches samples off"
            )
        self.prompts = [""] if prompts is None else prompts
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or not self.max_new_tokens:
            return
        if not self.can_run(trainer) or not isinstance(pl_module, LanguageModel):
            return
        with torch.random.fork_rng(devices=[]):  # training's randomness goes on undisturbed
            texts = self.texts(pl_module)
        for number, (prompt, text) in enumerate(zip(self.prompts, texts, strict=True)):
            for logger in trainer.loggers:
                write = getattr(getattr(logger, "experiment", None), "add_text", None)
                if write is not None:
                    code = "\n".join("    " + line for line in (prompt + text).splitlines())
                    with suppress(OSError):  # a full disk, which the next figure tells of
                        write(f"samples/{number}", code, trainer.global_step)

    @staticmethod
    def can_run(trainer: L.Trainer) -> bool:
        """One process writes samples; a sharded model cannot be run by one process alone."""
        return trainer.is_global_zero and not isinstance(trainer.strategy, ModelParallelStrategy)

    def texts(self, module: LanguageModel) -> list[str]:
        """A continuation of each prompt."""
        return generate_texts(
            module,
            self.prompts,
            max_new_tokens=self.max_new_tokens,
            max_length=module.hparams["max_length"],
            temperature=self.temperature,
        )
