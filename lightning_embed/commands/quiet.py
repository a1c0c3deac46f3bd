"""Keeping libraries' adverts, and advice about parts that are not used here, off the screen."""

import logging
import os
import warnings


def quiet_libraries() -> None:
    """No adverts, no advice about loaders that are not used; called after Lightning's import,
    which sets its own level."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("profilers", "callbacks.model_summary"):  # reports that were asked for
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.INFO)
    for message in (
        ".*does not have many workers.*",
        ".*dataloader is not resumable.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*is not supported for `.*` in `autocast`.*",
        ".*Please use the new API settings to control TF32.*",
        ".*`max_epochs` was not set.*",  # RunLength sets it once the text is known
        ".*It is recommended to use .*sync_dist=True.*",
        r".*add the following callbacks: \['Timer'\].*",  # a run that goes on without a limit
        ".*WeightAveraging doesn't support sharding model layers.*",
        ".*assuming the intent is to load in a single process.*",
    ):
        warnings.filterwarnings("ignore", message=message)
