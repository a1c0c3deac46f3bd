"""Settings of a fit that were given and that another setting makes pointless."""

from collections.abc import Callable, Iterator
from typing import Any


def without_effect(config: Any, default: Callable[[str], Any]) -> Iterator[str]:
    """A few words for each setting that differs from its default and changes nothing.

    Args:
        config: of the whole command.
        default: of a setting by its dotted name.
    """
    model, trainer = config.model, config.trainer
    constant = model.schedule == "constant"
    unseen = trainer.limit_val_batches == 0
    for idle, because, names in (
        (model.optimizer != "muon", f"model.optimizer {model.optimizer}", ["model.muon_lr"]),
        (model.schedule != "wsd", f"model.schedule {model.schedule}", ["model.decay_fraction"]),
        (constant, "model.schedule constant", ["model.final_fraction"]),
        (
            constant and model.warmup_steps is not None,
            "model.schedule constant and a given warm-up",
            ["model.schedule_steps"],
        ),
        (
            config.samples.max_new_tokens == 0,
            "samples.max_new_tokens 0",
            ["samples.temperature", "samples.prompts"],
        ),
        (
            unseen,
            "trainer.limit_val_batches 0",
            [
                *("early_stopping.monitor", "early_stopping.patience", "early_stopping.min_delta"),
                *("checkpoints.monitor", "checkpoints.mode", "data.quick_eval_tokens"),
                *("trainer.val_check_interval", "trainer.check_val_every_n_epoch"),
            ],
        ),
        (
            not trainer.gradient_clip_val,
            "trainer.gradient_clip_val 0",
            ["trainer.gradient_clip_algorithm"],
        ),
        (
            str(trainer.precision).startswith("16"),
            f"trainer.precision {trainer.precision}, whose scaler skips such steps itself",
            ["loss_watch.on_non_finite"],
        ),
    ):
        for name in names if idle else ():
            if config[name] != default(name):
                yield f"--{name} {config[name]} has no effect with {because}"
