"""The file from which a run can be trained again: its whole configuration."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import SaveConfigCallback

from lightning_embed.errors import writing


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration to `path`, whatever logger there is, and the tokenizer
    beside it."""

    def __init__(self, *args: Any, path: Path, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path = path

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        with writing(self.path.parent, "--trainer.default_root_dir"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.datamodule.prepared.tokenizer.save(self.path.parent / "tokenizer.json")  # type: ignore[attr-defined]
            settings = self.config.clone()
            del settings["minutes"]  # what they stand for is there, and evaluations know none
            self.parser.save(settings, str(self.path), skip_none=False, overwrite=True)
