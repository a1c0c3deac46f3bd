"""How much memory a training step takes, and how many micro-batches it must be split into.

The figures follow from shapes alone, so they are known before anything is built. Activations are
what each operation of a block keeps for the backward pass; `HEAP` and `UPDATE` were fitted to peaks
that were measured.

Shapes: B rows, T positions, D features, Q of all queries (by default D), F of the feed-forward, H
heads, K key/value heads, V words.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from lightning_embed.arithmetic import is_half
from lightning_embed.data.plan import BatchSettings
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.model.loss import MAX_LOGITS_ON_GPU, rows_at_once
from lightning_embed.model.segments import EXPLICIT_UP_TO

# What the system gives for a byte of activations, eager and compiled, and once: a heap has gaps
# between blocks, and `keep_freed_memory` lets it grow in large pieces.
HEAP, HEAP_COMPILED, HEAP_STEP = 1.46, 1.2, 36e6
UPDATE = 20  # bytes of Muon's working memory for each number of the shape with most numbers


class TrainingMemory(NamedTuple):
    """Bytes of one process, by part, when a step needs most of them."""

    parameters: float
    gradients: float
    moments: float
    activations: float  # kept for the backward pass, and what it works with
    loss: float  # a chunk of logits and what is made of it
    update: float  # the optimizer's working memory, once activations and logits are gone

    @property
    def total(self) -> float:
        state = self.parameters + self.gradients + self.moments
        return state + max(self.activations + self.loss, self.update)


class _Block(NamedTuple):
    """What decides how much a block keeps: sizes, and bytes of a number."""

    d: int
    q: int
    f: int
    kv: int  # features of keys, K heads of them
    heads: int
    width: int
    qk_norm: bool
    dropout: bool
    on_gpu: bool
    stored: int  # bytes of a parameter, and of a number of the residual stream
    computed: int  # bytes of a number in a product

    @property
    def explicit(self) -> bool:
        return not self.on_gpu and self.width <= EXPLICIT_UP_TO

    @property
    def written_out(self) -> bool:
        """Whether norms and rotations are those of `model/eager.py`, which keep less."""
        return not self.on_gpu and self.stored >= 4

    def eager(self) -> float:
        """Bytes kept for each position."""
        d, q, f, kv = self.d, self.q, self.f, self.kv
        stored, computed = self.stored, self.computed
        norm = max(4, stored)  # norms compute in float32 at least
        kept = 2 * d * (norm if self.written_out else stored + norm)
        kept += 2 * d * norm if stored < norm else 0
        # Autocast converts the input of each of five projections.
        kept += 5 * computed * d if computed < stored else 2 * stored * d
        kept += (1 if self.written_out else 2) * norm * (q + kv) if self.qk_norm else 0
        kept += computed * (q + 4 * f)  # the other two inputs, the gate before and after silu, up
        kept += 2 * computed * d if self.dropout else 0
        return kept + self._attention(scores=0.75)  # in two blocks

    def compiled(self) -> float:
        """The same where what is cheap is computed again."""
        d, computed = self.d, self.computed
        kept = self.stored * d + computed * (3 * d + 2 * self.q + self.kv + 3 * self.f)
        kept += 2 * d if self.dropout else 0
        return kept + self._attention(scores=1.0)

    def _attention(self, scores: float) -> float:
        q, kv, heads, computed = self.q, self.kv, self.heads, self.computed
        vectors = 4 * (2 + 2 * heads)  # of the norms
        if self.explicit:
            return vectors + 3 * computed * q + scores * heads * self.width * computed
        if self.on_gpu:
            return vectors + 4 * computed * q + 4 * heads
        return vectors + 2 * computed * (q + kv) + 4 * heads + self.width * computed


def _bytes(precision: str) -> tuple[int, int]:
    """Of a stored number and of one in a product, in a precision as Lightning names it."""
    if precision.startswith("64"):
        return 8, 8
    if not is_half(precision):
        return 4, 4
    return (2, 2) if precision.endswith("true") else (4, 2)


def training_memory(
    settings: dict[str, Any],
    vocab_size: int,
    rows: int,
    width: int,
    *,
    optimizer: Literal["muon", "adamw"] = "muon",
    precision: str = "32-true",
    compiled: bool = False,
    on_gpu: bool = False,
    processes: int = 1,
    sharded: bool = False,
) -> TrainingMemory:
    """Bytes by part that training takes in one process.

    Args:
        settings: of `DecoderLM`; those left out have their defaults.
        vocab_size: V.
        rows, width: of a micro-batch, B and T.
        optimizer: Muon keeps one moment for a matrix, AdamW two.
        precision: as Lightning names it.
        compiled: the blocks are, but for a run's first step, which counts too.
        on_gpu: else on a CPU.
        processes: that train together.
        sharded: they share parameters, gradients and moments; else each has all, and gradients
            twice: DDP sends copies.
    """
    chosen = DecoderLM.settings(**settings)
    outline = DecoderLM.outline(vocab_size, settings, one_layer=True)
    layer = next(outline.layers())
    layers, heads, d = chosen["n_layers"], chosen["n_heads"], chosen["d_model"]
    stored, computed = _bytes(precision)
    block = _Block(
        d=d,
        q=layer.attention.q_proj.out_features,
        f=layer.feed_forward.gate_proj.out_features,
        kv=layer.attention.k_proj.out_features,
        heads=heads,
        width=width,
        qk_norm=chosen["qk_norm"],
        dropout=chosen["dropout"] > 0,
        on_gpu=on_gpu,
        stored=stored,
        computed=computed,
    )
    shapes: dict[tuple[int, ...], int] = {}
    for p in layer.parameters():
        if p.ndim == 2:
            shapes[tuple(p.shape)] = shapes.get(tuple(p.shape), 0) + p.numel()
    matrices = sum(shapes.values())
    parameters = DecoderLM.parameter_count(vocab_size, settings)
    muon = optimizer == "muon"
    share = processes if sharded else 1
    state = TrainingMemory(
        parameters=stored * parameters / share,
        gradients=stored * parameters * (2 if processes > share else 1) / share,
        moments=stored * (2 * parameters - (layers * matrices if muon else 0)) / share,
        activations=0,
        loss=0,
        update=UPDATE * layers * max(shapes.values()) if muon else 0,
    )
    positions = rows * width

    def step(compiled: bool) -> dict[str, float]:
        kept = positions * (block.compiled() if compiled else block.eager())
        kept += computed * matrices if computed < stored else 0  # converted once a step
        if chosen["checkpoint_activations"]:
            kept += layers * positions * stored * d
        else:
            kept *= layers
        norm = (1 if block.written_out else 2) * max(4, stored) * d
        ends = positions * (norm + computed * d + 4 * block.q // heads)
        if on_gpu:
            chunk = max(1, MAX_LOGITS_ON_GPU // vocab_size)
        else:
            chunk = rows_at_once(outline.head_weight, compiled)
        logits = min(chunk, positions) * vocab_size * (2 * computed + 4)
        head = vocab_size * d * (4 + 2 * computed)
        heap, once = (1.0, 0) if on_gpu else (HEAP_COMPILED if compiled else HEAP, HEAP_STEP)
        return {
            "activations": once + heap * (kept + ends),
            "loss": heap * (logits + head + 4 * positions * d),
        }

    steady = state._replace(**step(compiled))
    first = TrainingMemory(state.parameters, 0, 0, **step(False), update=0)
    return max(steady, first, key=lambda memory: memory.total)


# Splitting ---------------------------------------------------------------------------------------


def largest(
    need: Callable[[int, int], TrainingMemory],
    batch: BatchSettings,
    micro_batches: int,
) -> TrainingMemory:
    """What the largest micro-batch needs.

    Args:
        need: of rows and their width.
        batch: what a global batch may hold.
        micro_batches: of a global batch, over all processes.
    """
    widths = batch.widths if batch.layout == "padded" else batch.widths[-1:]
    shapes = ((-(-batch.rows_at(width) // micro_batches), width) for width in widths)
    return max((need(*shape) for shape in shapes), key=lambda memory: memory.total)


def next_split(accumulate: int, batch: BatchSettings, processes: int) -> int | None:
    """Twice as many micro-batches a process, at most one for each of its widest rows; None where
    there are that many."""
    most = -(-batch.rows_at(batch.widths[-1]) // processes)
    return min(2 * accumulate, most) if accumulate < most else None


def split_that_fits(
    need: Callable[[int, int], TrainingMemory],
    free: float,
    batch: BatchSettings,
    accumulate: int,
    processes: int,
) -> int | None:
    """The first of `accumulate` and its successors with which a process finds room in `free` bytes;
    None if not even one row does."""
    tried: int | None = accumulate
    while tried is not None:
        if largest(need, batch, tried * processes).total <= free:
            return tried
        tried = next_split(tried, batch, processes)
    return None
