"""`TextDataModule`: text in, padded batches out, the same on any number of processes.

1. a source of documents is chosen           `corpus.py`
2. they become tokens on disk, once          `prepared.py`
3. windows are planned as global batches     `epochs.py`, `plan.py`
4. each process fills its share of the rows  `loader.py`, `batch.py`

How far a run has got in its data is a `Position`, kept in checkpoints.
"""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from lightning_embed.checkpointing.compatibility import DATA, Candidate, Purpose, check
from lightning_embed.checkpointing.position import Position
from lightning_embed.data.batch import PaddedRows
from lightning_embed.data.checkpoint_text import CheckpointText
from lightning_embed.data.epochs import Epochs
from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.mixture import MAX_PASSES, MOST_PASSES, normalised
from lightning_embed.data.near_copies import near_copies
from lightning_embed.data.plan import BatchSettings, Layout, eighths
from lightning_embed.data.windows import Windows, cut_windows
from lightning_embed.errors import UserError, require_range
from lightning_embed.sources.corpus import choose_source
from lightning_embed.sources.formats import Format
from lightning_embed.sources.held_out import SHARE, SplitKind
from lightning_embed.sources.mixed import Mixed
from lightning_embed.sources.source import Source
from lightning_embed.sources.texts import Kind
from lightning_embed.tokens.prepared import Prepared, default_cache_dir
from lightning_embed.tokens.token_files import Split, is_prepared


def _is_fit(trainer: L.Trainer) -> bool:
    """Also in the validations of a fit, where `trainer.training` is false."""
    return trainer.state.fn == "fit"


class TextDataModule(Epochs):
    """Tokenises a corpus once and serves it in planned, padded batches.

    Without `files`, `hub`, `source` and `sources` the text is the code of Python's own library.

    Args:
        files: a local file, glob or folder, or a list of them; `-` is standard input. Text, source
            code, json, jsonl, csv, tsv, parquet, arrow, each also compressed or in a tar or zip.
        hub: name of a data set on the Hugging Face Hub.
        hub_config: its configuration.
        text_column: where rows keep the text: a column, `meta.body` for a nested one; a list of
            messages with `role` and `content` is one text.
        tokenizer: "bpe", "bpe-portable" (a BPE with the same ids in llama.cpp) or "characters" to
            train one here, else a tokenizer.json, its folder or a Hub name.
        vocab_size: ids of a trained BPE; unset, what suits the size of the text.
        max_length: tokens in a window; longer documents become several.
        tokens_per_batch: positions of a global batch (all processes and accumulation), padding
            included.
        rows_per_batch: rows of a global batch at most.
        widths: widths rows are padded to; unset, eighths of `max_length`.
        layout: "padded" trains on one window a row, windows of like length together; "packed" on
            rows of `max_length` that hold several windows, each seeing only itself.
        eval_overlap: tokens of a document that evaluation shows again, as context only, before
            each later window.
        quick_eval_tokens: validation while training looks at about so many tokens; unset, at all.
        final_eval_tokens: the evaluation after training looks at about so many; unset, at all.
        num_workers: data worker processes; on CPU they take cores from training.
        cache_dir: where prepared tokens are kept; unset, `~/.cache/lightning_embed`.
        seed: of the batch order.
        source: any other text: an object like `lightning_embed.sources.source.Source`.
        format: of the files, whatever their suffixes say.
        document: what a document is in text: the file, a line, a paragraph, or what is between
            separators.
        separator: text that separates documents, and is part of none.
        hub_split: the data set's split to train on; "validation" is held out where there is one.
        hub_revision: the data set's branch, tag or commit; unset, the newest.
        hub_streaming: fetch, tokenise and drop the data set's files one by one; unset, where the
            disk is too small for all of them.
        validation: files, globs or folders that are held out; all other `files` train.
        validation_share: of the text at the end that is held out, or the rate of file names.
        split: what decides what of files is held out: the end of the text, a hash of a file's name,
            which more files do not change, or "auto", by name from 20 files on.
        sources: several texts by name, each with the options above of one text:
            `{books: {files: books/}, web: {hub: NAME}}`; `{}` is the standard library.
        mix: the share of real tokens that each of the sources has in training: `{books: 0.7, web:
            0.3}`; unset, as much as there is of each. A source with 0 trains nothing, and is
            evaluated.
        max_passes: over a source in an epoch at most; a small one has a smaller share then.
        decontaminate: leave out training documents that are near-copies of held-out ones.
    """

    def __init__(
        self,
        files: str | list[str] | None = None,
        hub: str | None = None,
        hub_config: str | None = None,
        text_column: str = "text",
        tokenizer: str = "bpe",
        vocab_size: int | None = None,
        max_length: int = 256,
        tokens_per_batch: int = 2_048,
        rows_per_batch: int | None = None,
        widths: list[int] | None = None,
        layout: Layout = "padded",
        eval_overlap: int = 0,
        quick_eval_tokens: int | None = None,
        num_workers: int = 0,
        cache_dir: str | None = None,
        seed: int = 42,
        source: Source | None = None,
        final_eval_tokens: int | None = None,
        format: Format | None = None,
        document: Kind = "file",
        separator: str | None = None,
        hub_split: str = "train",
        hub_revision: str | None = None,
        hub_streaming: bool | None = None,
        validation: str | list[str] | None = None,
        validation_share: float = SHARE,
        split: SplitKind = "auto",
        sources: dict[str, Any] | None = None,
        mix: dict[str, float] | None = None,
        max_passes: float = MAX_PASSES,
        decontaminate: bool = False,
    ) -> None:
        require_range("--data.quick_eval_tokens", quick_eval_tokens, at_least=1)
        require_range("--data.final_eval_tokens", final_eval_tokens, at_least=1)
        require_range("--data.num_workers", num_workers, at_least=0)
        require_range("--data.seed", seed, at_least=0)
        chosen = choose_source(
            files,
            hub,
            hub_config,
            text_column,
            source,
            format,
            document,
            separator,
            hub_split,
            hub_revision,
            hub_streaming,
            validation,
            validation_share,
            split,
            sources,
        )
        shares = dict[str, float]()
        require_range("--data.max_passes", max_passes, at_least=1, at_most=MOST_PASSES)
        if mix is not None:
            if not isinstance(chosen, Mixed):
                raise UserError(f"--data.mix {mix} needs texts by name: give --data.sources")
            shares = normalised(mix, list(chosen.sources))
        cut_windows(np.zeros(1, np.int64), max_length, eval_overlap)  # refuses bad lengths now
        widths = eighths(max_length) if widths is None else widths
        if not widths or widths[-1] != max_length:
            raise UserError(
                f"the last of --data.widths {widths} must be --data.max_length {max_length}"
            )
        settings = BatchSettings(tokens_per_batch, tuple(widths), rows_per_batch, layout)
        super().__init__(settings, max_length, seed, shares, max_passes, decontaminate)
        self.eval_overlap = eval_overlap
        self.quick_eval_tokens, self.final_eval_tokens = quick_eval_tokens, final_eval_tokens
        self.num_workers = num_workers
        cache = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self.text = CheckpointText(chosen, cache, tokenizer, vocab_size)
        self._train_loader: PlanLoader | None = None

    # Tokens ---------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make the tokens, or find them; Lightning calls it on one process of each machine."""
        self.text.prepare()
        if self.decontaminate and self.trainer is not None and _is_fit(self.trainer):
            near_copies(self.prepared)  # searched here alone, then kept on disk

    def setup(self, stage: str) -> None:
        """Take the first process' tokens: the text is hashed there and by no other.

        Raises:
            UserError: this machine does not have them.
        """
        assert self.trainer is not None
        found = self.text.folder
        own = found.name if found and self.trainer.is_global_zero else ""
        folder = self.text.cache_dir / self.trainer.strategy.broadcast(own)
        # What it has open serves on, even if the folder was removed meanwhile.
        if folder != found and not is_prepared(folder):
            raise UserError(
                f"process {self.trainer.global_rank} has no tokens {folder}: give all machines the"
                " same text, or a --data.cache_dir that they share"
            )
        self.text.open_from(folder)

    @property
    def prepared(self) -> Prepared:
        """The tokens, prepared on first use."""
        return self.text.prepared

    # Loaders --------------------------------------------------------------------------------

    def _share(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(
        self, split: Split, windows: Windows, settings: BatchSettings, *, train: bool
    ) -> PlanLoader:
        rank, world_size = self._share()
        accumulate = self.trainer.accumulate_grad_batches if train and self.trainer else 1
        rows = PaddedRows(
            split.tokens,
            windows,
            split.source,
            split.n_bytes,
            split.offsets,
            self.prepared.tokenizer.vocab_size,
        )
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return PlanLoader(
            rows,
            settings,
            seed=self.seed,
            shuffle=train,
            rank=rank,
            world_size=world_size,
            accumulate=accumulate,
            num_workers=self.num_workers,
            pin_memory=on_gpu,
            mixture=self.mixture if train else None,
        )

    def train_dataloader(self) -> PlanLoader:
        split = self.prepared.train
        self._train_loader = self._loader(split, self.train_windows(), self.settings, train=True)
        if self.trainer is None or self.trainer.current_epoch == self._origin.epoch:
            self._train_loader.start = self._origin.consumed * self._train_loader.accumulate
        return self._train_loader

    def eval_windows(self, quick: bool = False) -> Windows:
        """Every held-out window once, or a fixed draw of about `final_eval_tokens`, if `quick` of
        `quick_eval_tokens`."""
        split = self.prepared.validation
        windows = cut_windows(split.offsets, self.max_length, self.eval_overlap)
        draw = self.quick_eval_tokens if quick else self.final_eval_tokens
        return windows if draw is None else windows.draw(draw)

    def eval_dataloader(self, quick: bool = False) -> PlanLoader:
        """Batches of `eval_windows`, one window a row."""
        # As many positions as a training micro-batch: what is compiled for those serves these too.
        parts = self.trainer.accumulate_grad_batches if self.trainer else 1
        tokens = max(self.settings.tokens // parts, self.max_length)
        settings = BatchSettings(tokens, self.settings.widths)
        windows = self.eval_windows(quick)
        return self._loader(self.prepared.validation, windows, settings, train=False)

    def val_dataloader(self) -> PlanLoader:
        return self.eval_dataloader(quick=self.trainer is not None and _is_fit(self.trainer))

    def test_dataloader(self) -> PlanLoader:
        return self.eval_dataloader()

    def predict_dataloader(self) -> PlanLoader:
        return self.eval_dataloader()

    # State ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The position, in global batches, and of which data and plan."""
        step = self.trainer.global_step if self.trainer is not None else self._origin.step
        return {
            **self.position(step)._asdict(),
            "data": self.prepared.key,
            "tokenizer": self.prepared.tokenizer.fingerprint,
            "asked": self.text.asked,
            "plan": self.plan_settings,
            "evaluation": {
                "eval_overlap": self.eval_overlap,
                "final_eval_tokens": self.final_eval_tokens,
            },
        }

    def go_on_with(self, state_dict: dict[str, Any], training: bool) -> None:
        """Use the data a checkpoint was trained on.

        Raises:
            UserError: another tokenizer, or, for training, other data or another plan.
        """
        self.text.keep_tokens(state_dict)
        purpose: Purpose = "train" if training else "evaluate"
        now = {
            "key": self.prepared.key,
            "tokenizer": self.prepared.tokenizer.fingerprint,
            "plan": self.plan_settings,
        }
        check(Candidate(Path("the checkpoint"), purpose, {DATA: state_dict}, data=now), "data")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        training = self.trainer is None or _is_fit(self.trainer)
        self.go_on_with(state_dict, training)
        if training:
            self._origin = Position(*(state_dict[name] for name in Position._fields))
