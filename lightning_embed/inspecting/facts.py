"""Everything that `data show` finds out: the same as lines on screen and as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.data.mixture import Ingredient
from lightning_embed.inspecting.batches import ShownBatch, shown_batch
from lightning_embed.inspecting.copies import Copies, copies
from lightning_embed.inspecting.corpus import Lengths, Vocabulary, lengths, vocabulary
from lightning_embed.inspecting.documents import Shown, chosen, shown
from lightning_embed.inspecting.layouts import Padding, paddings
from lightning_embed.tokens.token_files import SplitSize
from lightning_embed.watching.mixture_table import ingredients


@dataclass(frozen=True)
class Facts:
    """What a run will see.

    Attributes:
        title: of the corpus.
        key: of its folder in the cache of tokens.
        settings: what decides a batch, as flags name it.
        counts: what was read and what was left out, in plain words.
        notes: the same as lines.
        left_out: training documents left out by `--data.decontaminate`.
        splits: sizes of "train" and "validation".
        mixture: of several named sources, how much of each an epoch has.
        vocabulary: which ids are used.
        lengths: of the training documents.
        paddings: of each layout.
        copies: near-copies between the splits.
        documents: the beginnings of some training documents.
        batch: the batch of one step.
    """

    title: str
    key: str
    settings: dict[str, Any]
    counts: dict[str, int]
    notes: list[str]
    left_out: int
    splits: dict[str, SplitSize]
    mixture: list[Ingredient]
    vocabulary: Vocabulary
    lengths: Lengths | None
    paddings: list[Padding]
    copies: Copies
    documents: list[Shown]
    batch: ShownBatch

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        for name, size in self.splits.items():
            found["splits"][name]["bytes_per_token"] = size.bytes_per_token
        nothing_asked = {} if "mix" in self.settings else {"asked": None}
        found["mixture"] = [{**each._asdict(), **nothing_asked} for each in self.mixture]
        return found


def facts(data: TextDataModule, *, documents: int, draw: int | None, step: int) -> Facts:
    """Look at what a run with these data would see.

    Args:
        data: prepares the tokens where they are not there.
        documents: how many training documents to show.
        draw: a seed to draw them with; None takes the first.
        step: the optimizer step whose batch is shown, from 1.
    """
    prepared = data.prepared
    report = prepared.report
    loader = data.train_dataloader()
    position = data.position(step - 1)
    loader.set_epoch(position.epoch)
    draw_of_epoch = data.mixture.draw(0) if data.mixture else None
    numbers = chosen(prepared.train.documents, data.left_out, documents, draw)
    return Facts(
        title=report.title,
        key=prepared.key,
        settings=data.plan_settings,
        counts=report.counts,
        notes=report.notes,
        left_out=len(data.left_out),
        splits=report.splits,
        mixture=ingredients(data),
        vocabulary=vocabulary(prepared),
        lengths=lengths(prepared.train, data.left_out),
        paddings=paddings(loader.rows.windows, data.settings, data.seed, draw_of_epoch),
        copies=copies(prepared),
        documents=[shown(prepared, prepared.train, number) for number in numbers],
        batch=shown_batch(loader, position.consumed, step, prepared.tokenizer, report.sources),
    )
