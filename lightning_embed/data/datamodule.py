"""`TextDataModule`: text in, padded batches out, the same on any number of processes.

1. a source of documents is chosen           `corpus.py`
2. they become tokens on disk, once          `prepared.py`
3. windows are planned as global batches     `plan.py`
4. each process fills its share of the rows  `batch.py`

How far a run has got in its data is a `Position`, kept in checkpoints.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from lightning_embed.checkpointing.compatibility import DATA, Candidate, Purpose, check
from lightning_embed.checkpointing.position import Position
from lightning_embed.console import say
from lightning_embed.data.batch import PaddedRows, PlanLoader
from lightning_embed.data.plan import (
    BatchSettings,
    Layout,
    Windows,
    cut_windows,
    eighths,
    plan_epoch,
)
from lightning_embed.errors import UserError, require_range
from lightning_embed.sources.corpus import choose_source, to_score
from lightning_embed.sources.formats import Format
from lightning_embed.sources.source import Source
from lightning_embed.sources.stdlib import StdlibCorpus
from lightning_embed.sources.texts import Kind
from lightning_embed.tokens.held_out_again import HeldOutAgain
from lightning_embed.tokens.prepared import (
    Prepared,
    damage,
    data_key,
    default_cache_dir,
    open_prepared,
    prepare,
)
from lightning_embed.tokens.token_files import Split, is_prepared, shared_documents
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.trained import TRAINED, Named


def _is_fit(trainer: L.Trainer) -> bool:
    """Also in the validations of a fit, where `trainer.training` is false."""
    return trainer.state.fn == "fit"


class TextDataModule(L.LightningDataModule):
    """Tokenises a corpus once and serves it in planned, padded batches.

    Without `files`, `hub` and `source` the text is the code of Python's own standard library.

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
    ) -> None:
        super().__init__()
        require_range("--data.quick_eval_tokens", quick_eval_tokens, at_least=1)
        require_range("--data.final_eval_tokens", final_eval_tokens, at_least=1)
        require_range("--data.num_workers", num_workers, at_least=0)
        require_range("--data.seed", seed, at_least=0)
        self.source = choose_source(
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
        )
        cut_windows(np.zeros(1, np.int64), max_length, eval_overlap)  # refuses bad lengths now
        widths = eighths(max_length) if widths is None else widths
        if not widths or widths[-1] != max_length:
            raise UserError(
                f"the last of --data.widths {widths} must be --data.max_length {max_length}"
            )
        self.settings = BatchSettings(tokens_per_batch, tuple(widths), rows_per_batch, layout)
        self.tokenizer_name, self.vocab_size = tokenizer, vocab_size
        self._tokenizer: Named = tokenizer
        self.max_length, self.eval_overlap = max_length, eval_overlap
        self.quick_eval_tokens, self.final_eval_tokens = quick_eval_tokens, final_eval_tokens
        self.num_workers, self.seed = num_workers, seed
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self._origin = Position()  # where this process began; later positions follow from it
        self._folder: Path | None = None  # of the tokens, once they are known
        self._train_loader: PlanLoader | None = None
        self.is_other = False  # evaluation is of another text than the checkpoint was trained on
        self.trained_on = 0  # documents of that text which training saw, where that is known

    # Tokens ---------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make the tokens, or find them; Lightning calls it on one process of each machine."""
        if self._folder is None:
            self._folder = prepare(self.source, self.cache_dir, **self.tokenizer_asked)

    def setup(self, stage: str) -> None:
        """Take the first process' tokens: the text is hashed there and by no other.

        Raises:
            UserError: this machine does not have them.
        """
        assert self.trainer is not None
        own = self._folder.name if self._folder and self.trainer.is_global_zero else ""
        folder = self.cache_dir / self.trainer.strategy.broadcast(own)
        if not is_prepared(folder):
            raise UserError(
                f"process {self.trainer.global_rank} has no tokens {folder}: give all machines the"
                " same text, or a --data.cache_dir that they share"
            )
        self._open_from(folder)

    def _open_from(self, folder: Path) -> None:
        if folder != self._folder:
            self._folder = folder
            self.__dict__.pop("prepared", None)

    @cached_property
    def prepared(self) -> Prepared:
        """The tokens, prepared on first use."""
        self.prepare_data()
        assert self._folder is not None
        return open_prepared(self._folder)

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
        )

    def train_dataloader(self) -> PlanLoader:
        split = self.prepared.train
        windows = cut_windows(split.offsets, self.max_length)
        self._train_loader = self._loader(split, windows, self.settings, train=True)
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

    @cached_property
    def batches_per_epoch(self) -> int:
        """Global batches of the plan, the same number every epoch."""
        windows = cut_windows(self.prepared.train.offsets, self.max_length)
        return len(plan_epoch(windows, self.settings, seed=self.seed, epoch=0))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch: the plan's, or fewer by `--trainer.limit_train_batches`."""
        limit = self.trainer.limit_train_batches if self.trainer is not None else 1.0
        if isinstance(limit, float):
            return max(1, int(self.batches_per_epoch * limit))
        assert self.trainer is not None
        return max(1, min(self.batches_per_epoch, limit // self.trainer.accumulate_grad_batches))

    @property
    def targets_per_step(self) -> float:
        """Real targets of a global batch, on average."""
        return self.prepared.train.n_targets / self.batches_per_epoch

    # State ----------------------------------------------------------------------------------

    def position(self, step: int) -> Position:
        """Where the run stands after `step` optimizer steps."""
        return self._origin.at(step, self.steps_per_epoch)

    @property
    def plan_settings(self) -> dict[str, Any]:
        """What decides which windows make a batch, as flags name it."""
        return {
            "max_length": self.max_length,
            "tokens_per_batch": self.settings.tokens,
            "rows_per_batch": self.settings.rows,
            "layout": self.settings.layout,
            "widths": list(self.settings.widths),
            "seed": self.seed,
        }

    @property
    def tokenizer_asked(self) -> dict[str, Any]:
        """What decides the tokens beside the text."""
        return {"tokenizer": self._tokenizer, "vocab_size": self.vocab_size}

    def take_tokenizer(self, tokenizer: TextTokenizer) -> None:
        """Use this one: it is what the run keeps under the name of `--data.tokenizer`."""
        self._tokenizer = tokenizer

    @property
    def _asked(self) -> dict[str, Any]:
        """How the tokens were asked for: the text by its name, whatever is in it now."""
        by_name = {"tokenizer": self.tokenizer_name, "vocab_size": self.vocab_size}
        asked = {"source": type(self.source).__name__, **by_name}
        name = getattr(self.source, "name_of_text", None)
        return asked if name is None else {**asked, "text": name}

    def state_dict(self) -> dict[str, Any]:
        """The position, in global batches, and of which data and plan."""
        step = self.trainer.global_step if self.trainer is not None else self._origin.step
        return {
            **self.position(step)._asdict(),
            "data": self.prepared.key,
            "tokenizer": self.prepared.tokenizer.fingerprint,
            "asked": self._asked,
            "plan": self.plan_settings,
            "evaluation": {
                "eval_overlap": self.eval_overlap,
                "final_eval_tokens": self.final_eval_tokens,
            },
        }

    def _keep_tokens(self, state_dict: dict[str, Any]) -> None:
        """If the text was changed or removed since, use the tokens of before, where they are kept:
        Python's library is patched, notes grow, and a run began with what there was then."""
        before = self.cache_dir / state_dict["data"]
        if self.is_other or "text" not in self._asked or state_dict["asked"] != self._asked:
            return
        if not is_prepared(before) or before == self._folder:
            return
        change = "has changed"
        try:
            now = (self._folder or Path(data_key(self.source, **self.tokenizer_asked))).name
        except FileNotFoundError:
            now, change = "", "is gone"
        if now == before.name:
            return
        fault = damage(before)
        if fault:
            say("warning", f"the tokens of before, {before}, are damaged ({fault}): not used")
            return
        name = self._asked["text"]
        if self.tokenizer_name not in TRAINED:
            name += f" or --data.tokenizer {self.tokenizer_name}"
        say("note", f"{name} {change}; its tokens of before are used ({before})")
        self._open_from(before)

    def score_with(self, state_dict: dict[str, Any], tokenizer_json: str | None) -> None:
        """Take the text that a checkpoint is to be scored on: what its own run held out, or, of any
        other text, all of it, in the tokens of the checkpoint's own tokenizer.

        Raises:
            UserError: no text was named and the run's own is not kept; or `--data.tokenizer` names
                another tokenizer.
        """
        if tokenizer_json is None:
            return  # not written by `fit`
        self._keep_tokens(state_dict)
        if self._folder is not None and self._folder.name == state_dict["data"]:
            return
        tokenizer = TextTokenizer.from_json(tokenizer_json)
        if self.tokenizer_name not in TRAINED:
            named = TextTokenizer.load(self.tokenizer_name)
            if named.fingerprint != tokenizer.fingerprint:
                return  # `go_on_with` refuses
        own, asked = self.cache_dir / state_dict["data"], state_dict["asked"]
        trained = asked["tokenizer"] in TRAINED
        then: dict[str, Any] = {
            "tokenizer": asked["tokenizer"] if trained else tokenizer,
            "vocab_size": asked["vocab_size"],
        }
        unnamed = isinstance(self.source, StdlibCorpus) and asked["source"] != "StdlibCorpus"
        if unnamed and not is_prepared(own):
            raise UserError(
                f"the tokens this checkpoint was trained on are not in {own}: name its text, or"
                " another one, with --data.files"
            )
        self.is_other = not unnamed and data_key(self.source, **then) != own.name
        if self.is_other:
            text, then = to_score(self.source), {"tokenizer": tokenizer, "vocab_size": None}
            self._open_from(prepare(text, self.cache_dir, **then))
        else:
            self._open_from(own if unnamed else prepare(self.source, self.cache_dir, **then))

    def score_all_of(self, source: Source, tokenizer: TextTokenizer) -> None:
        """Take all of a text, whatever the checkpoint was trained on, in a tokenizer's tokens."""
        self.is_other = True
        self._open_from(prepare(source, self.cache_dir, tokenizer=tokenizer, vocab_size=None))

    def note_trained_on(self, state_dict: dict[str, Any]) -> None:
        """Count documents of another text that a checkpoint was trained on, where its tokens are
        still at hand."""
        folder = self.cache_dir / state_dict["data"]
        if is_prepared(folder) and not damage(folder):
            own = open_prepared(folder)
            if own.tokenizer.fingerprint == self.prepared.tokenizer.fingerprint:
                self.trained_on = shared_documents(self.prepared.validation, own.train)

    def score_again(self, scored: Prepared, tokenizer: TextTokenizer) -> None:
        """Take the text that was evaluated as `scored` in the tokens of another tokenizer, document
        by document.

        Raises:
            UserError: the text cannot be had from its tokens.
        """
        if tokenizer.fingerprint == scored.tokenizer.fingerprint:
            self.is_other = True
            self._open_from(scored.path)
        else:
            self.score_all_of(HeldOutAgain(scored), tokenizer)

    def go_on_with(self, state_dict: dict[str, Any], training: bool) -> None:
        """Use the data a checkpoint was trained on.

        Raises:
            UserError: another tokenizer, or, for training, other data or another plan.
        """
        self._keep_tokens(state_dict)
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

    def documents_of_step(self, step: int) -> list[str]:
        """Names of the documents in the global batch that optimizer step `step` trains on."""
        _, epoch, batch = self.position(step - 1)
        split = self.prepared.train
        windows = cut_windows(split.offsets, self.max_length)
        plan = plan_epoch(windows, self.settings, seed=self.seed, epoch=epoch)
        names = self.prepared.report.sources
        documents = np.unique(windows.document[plan.windows_of(batch)])
        return [f"{names[split.source[d]]} (document {d})" for d in documents]
