"""Evidence about one padding row: whether it changed, at which step, and the most likely cause.

`RowWatch` compares the row's bits with a reference before and after optimizer steps. At the first
difference it records what else was true: a gradient of the row, an optimizer moment, other rows
changed too. Everything stays on the device until `evidence()` is read, so that no comparison waits
for a GPU. `guard.py` decides when to compare and what to do about a change.
"""

import math
from enum import IntFlag
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_embed.padding.embedding import clear_padding_moments
from lightning_embed.padding.padded import PaddedEmbedding, is_sharded, row_of

Cause = Literal[
    "reinit",
    "tied_head",
    "weight_decay",
    "stale_moment",
    "averaging",
    "loading",
    "in_place",
    "resize",
    "max_norm",
    "non_finite",
]

EXPLANATIONS: dict[str, tuple[str, str]] = {
    "reinit": (
        "the whole matrix was written anew, as re-initialisation does",
        "use TokenEmbedding, which zeroes the row again after apply() and reset_parameters()",
    ),
    "tied_head": (
        "a gradient reached the row: a head that shares the matrix can predict padding",
        "use TokenEmbedding.logits(h), or protect_padding_row(weight) for a head of your own",
    ),
    "weight_decay": (
        "the row is not zero and the optimizer's weight decay shrinks it",
        "put the embedding into a group with weight_decay 0, or zero the row",
    ),
    "stale_moment": (
        "an optimizer moment of the row is not zero and moves it without a gradient",
        "clear the row's optimizer state, as on_change='repair' does",
    ),
    "averaging": (
        "weight averaging brought in another row",
        "start averaging from a zero row, or zero the averaged model's row",
    ),
    "loading": (
        "a state dict with another row was loaded",
        "use TokenEmbedding, which zeroes the row after loading",
    ),
    "in_place": (
        "only this row was written, outside the optimizer",
        "look for code that edits the weight between steps",
    ),
    "resize": (
        "the matrix was replaced by one with another row there",
        "use TokenEmbedding.resize(), which keeps the padding row",
    ),
    "max_norm": (
        "the embedding's own max_norm shrank it when it was looked up",
        "zero the row, which no max_norm shrinks, or leave max_norm out",
    ),
    "non_finite": (
        "the row holds NaN or infinity",
        "look for a division by zero or an overflow at this step",
    ),
}

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
PROBES = 4  # other rows, which tell a change of this row from a change of the whole matrix


class Seen(IntFlag):
    """What was true when the row first differed."""

    IN_STEP = 1  # between just before and just after an optimizer step
    GRADIENT = 2
    MOMENT = 4
    DECAY = 8
    OTHER_ROWS = 16
    NOT_FINITE = 32
    LOADED = 64
    AVERAGED = 128
    REPLACED = 256
    SHRUNK = 512  # to the embedding's max_norm


def cause_of(seen: Seen) -> Cause:
    """The most telling explanation of the evidence."""
    if seen & Seen.NOT_FINITE:
        return "non_finite"
    if seen & Seen.IN_STEP:
        if seen & Seen.GRADIENT:
            return "tied_head"
        if seen & Seen.MOMENT:
            return "stale_moment"
        return "weight_decay" if seen & Seen.DECAY else "in_place"
    if seen & Seen.SHRUNK:
        return "max_norm"
    if seen & Seen.REPLACED:
        return "resize"
    if seen & Seen.LOADED:
        return "loading"
    if seen & Seen.AVERAGED:
        return "averaging"
    return "reinit" if seen & Seen.OTHER_ROWS else "in_place"


class Finding(NamedTuple):
    """A row that changed."""

    name: str
    step: int
    deviation: float  # largest |row - reference| at the first change; inf where not a number
    gradient: float  # largest |gradient| of the row so far
    cause: Cause

    def __str__(self) -> str:
        what, advice = EXPLANATIONS[self.cause]
        return (
            f"{self.name} moved by {self.deviation:.1e} at step {self.step}: {what} ({self.cause};"
            f" its gradient reached {self.gradient:.1e}); {advice}"
        )


def same_bits(a: Tensor, b: Tensor) -> Tensor:
    """A boolean scalar on the device; -0 differs from +0, NaN equals the same NaN."""
    bits = BITS[a.element_size()]
    return (a.view(bits) == b.view(bits)).all()


class RowWatch:
    """Compares one padding row with its value at the start, the reference.

    The reference is mostly zero, but need not be. A rank that does not hold the row finds nothing.
    """

    def __init__(self, embedding: PaddedEmbedding) -> None:
        self.embedding = embedding
        self.loaded = False
        weight = embedding.weight
        device = weight.device
        self._weight = weight
        row = embedding.row()
        self.holds_row = row is not None
        self.reference = torch.zeros(weight.shape[1], device=device) if row is None else row.clone()
        at = embedding.padding_idx
        after, ahead = range(at + 1, weight.shape[0])[:PROBES], range(at)[-PROBES:]
        self._others = max(after, ahead, key=len)
        self._probe = self._other_rows()
        self.first_step = torch.tensor(-1, device=device)
        self._deviation = torch.zeros((), device=device)
        self._seen = torch.tensor(0, device=device)
        self.gradient = torch.zeros((), device=device)
        self._peak: Tensor | None = None  # |gradient| of the row in this step
        self._address: int | None = None  # in memory, of the weight whose row is in `_both`
        self._both = (self.reference, self.reference)  # the row and the reference as bits
        self._hook = embedding.module.register_load_state_dict_post_hook(self._note_loading)

    def _note_loading(self, module: object, keys: object) -> None:
        self.loaded = True

    def close(self) -> None:
        self._hook.remove()

    @property
    def label(self) -> str:
        return f"{self.embedding.name}[{self.embedding.padding_idx}]"

    def _other_rows(self) -> Tensor | None:
        weight = self.embedding.weight
        if not is_sharded(weight):
            return weight.detach()[self._others.start : self._others.stop].clone()
        rows = [row_of(weight, i) for i in self._others]
        here = [row for row in rows if row is not None]
        return torch.stack(here).clone() if here else None

    # Comparing ---------------------------------------------------------------------------------

    @torch.no_grad()
    def look_outside(self, step: int, averaging: bool) -> None:
        """Compare when no optimizer has stepped since the last comparison."""
        seen = Seen.LOADED if self.loaded else Seen(0)
        self.loaded = False
        if averaging:
            seen |= Seen.AVERAGED
        weight = self.embedding.weight
        if weight is not self._weight:
            # FSDP2 replaces its shard by the whole matrix while a forward pass needs it.
            gathered = is_sharded(weight) != is_sharded(self._weight)
            if not gathered or weight.shape != self._weight.shape:
                seen |= Seen.REPLACED
            self._weight = weight
            self._probe = None
        if self._plainly_unchanged():
            return  # keep the probe of the last step: it shows what has changed since then
        now, before = self._other_rows(), self._probe
        self._probe = now
        mask = torch.full_like(self._seen, int(seen))
        if before is not None and now is not None:
            mask = mask | (~same_bits(now, before)).long() * int(Seen.OTHER_ROWS)
        self._compare(step, mask | self._shrunk() * int(Seen.SHRUNK))

    def _shrunk(self) -> Tensor | int:
        """Whether the row is the reference, scaled down to the embedding's `max_norm` as a lookup
        does; a number on the device."""
        module, row = self.embedding.module, self.embedding.row()
        limit: Any = getattr(module, "max_norm", None)
        if limit is None or row is None or row.shape != self.reference.shape:
            return 0
        before, now = self.reference.float(), row.float()
        norm = torch.linalg.vector_norm(before, getattr(module, "norm_type", 2.0))
        near = (now - before * (limit / norm)).abs().max() <= 1e-2 * before.abs().max()
        return ((norm > limit) & near).long()

    def _plainly_unchanged(self) -> bool:
        """On a CPU, where nothing waits for a device, a cheap comparison before the full one."""
        if self.reference.device.type != "cpu":
            return False
        weight = self.embedding.weight
        address = None if is_sharded(weight) else weight.data_ptr()
        if address is None or address != self._address:
            row = self.embedding.row()
            if row is None or row.dtype != self.reference.dtype:
                return False
            bits = BITS[row.element_size()]
            self._address, self._both = address, (row.view(bits), self.reference.view(bits))
        return torch.equal(*self._both)

    @torch.no_grad()
    def look_before_step(self) -> None:
        """Record the row's gradient, which an optimizer may overwrite in its step."""
        gradient = self.embedding.gradient_row() if self.holds_row else None
        if gradient is not None and self.reference.device.type == "cpu" and not gradient.any():
            gradient = None  # as in `_plainly_unchanged`
        self._peak = None if gradient is None else gradient.abs().max()
        if self._peak is not None:
            self.gradient = torch.maximum(self.gradient, self._peak)

    @torch.no_grad()
    def look_after_step(self, step: int, optimizer: Optimizer) -> None:
        """Compare after an optimizer step that `look_before_step` prepared."""
        if not self._plainly_unchanged():
            decays = any(
                group.get("weight_decay") and any(p is self._weight for p in group["params"])
                for group in optimizer.param_groups
            )
            mask = torch.full_like(self._seen, int(Seen.IN_STEP | (Seen.DECAY if decays else 0)))
            if self._peak is not None:
                mask |= (self._peak != 0) * int(Seen.GRADIENT)  # NaN is not 0
            if moments := self.moment_rows(optimizer):
                stale = torch.cat(moments).abs().max() != 0
                if decays:  # decay as L2 fills the moments too, of a row that is not zero
                    stale &= (self.reference == 0).all()
                mask |= stale * int(Seen.MOMENT)
            self._compare(step, mask)
        self._probe = self._other_rows()

    def moment_rows(self, optimizer: Optimizer) -> list[Tensor]:
        """The row's part of every optimizer moment."""
        state = optimizer.state.get(self._weight, {}).values()
        shaped = [m for m in state if isinstance(m, Tensor) and m.shape == self._weight.shape]
        rows = [row_of(m, self.embedding.padding_idx) for m in shaped]
        return [row for row in rows if row is not None]

    @torch.no_grad()
    def look_at_saved(self, weight: Tensor, step: int, averaging: bool) -> None:
        """Compare a weight about to be written to a checkpoint, which may be an average."""
        if is_sharded(weight) or weight.device != self.reference.device:
            return  # a sharded row is compared on the rank that holds it
        mask = torch.full_like(self._seen, int(Seen.AVERAGED if averaging else 0))
        self._compare(step, mask, row_of(weight, self.embedding.padding_idx))

    def _compare(self, step: int, mask: Tensor, row: Tensor | None = None) -> None:
        row = self.embedding.row() if row is None else row
        # A rank that did not hold the row has no reference, even while FSDP2 gathers all rows.
        if row is None or not self.holds_row or row.dtype != self.reference.dtype:
            return
        first = ~same_bits(row, self.reference) & (self.first_step < 0)
        finite = row.isfinite().all()
        distance = (row.float() - self.reference.float()).abs().max().nan_to_num(nan=torch.inf)
        seen = mask | (~finite).long() * int(Seen.NOT_FINITE)
        self._seen = torch.where(first, seen, self._seen)
        self._deviation = torch.where(first, distance, self._deviation)
        self.first_step = torch.where(first, step, self.first_step)

    # Reading -----------------------------------------------------------------------------------

    def is_still(self) -> bool:
        """Whether no change was seen here; waits for the device."""
        return self.first_step.item() < 0

    def evidence(self) -> Tensor:
        """`(4,)` float64: first step or -1, what was seen, deviation, largest gradient."""
        parts = (self.first_step, self._seen, self._deviation, self.gradient)
        return torch.stack([part.double() for part in parts])

    def finding(self, evidence: list[float]) -> Finding | None:
        """What an `evidence()`, of this rank or another, says."""
        step, seen, deviation, gradient = evidence
        if math.isnan(step) or step < 0:
            return None
        return Finding(self.label, int(step), deviation, gradient, cause_of(Seen(int(seen))))

    @torch.no_grad()
    def repair(self, optimizers: list[Optimizer]) -> None:
        """Write the reference back and clear the row's moments, which would move it again."""
        row = self.embedding.row()
        if row is not None:
            row.copy_(self.reference)
            for optimizer in optimizers:
                clear_padding_moments(optimizer, self._weight, self.embedding.padding_idx)
        self.forget()

    @torch.no_grad()
    def accept(self) -> None:
        """Make the row's present value the reference, so that a change is reported once."""
        row = self.embedding.row()
        if row is not None:
            self.reference, self._address = row.clone(), None
        self.forget()

    def forget(self) -> None:
        self.first_step = torch.full_like(self.first_step, -1)
