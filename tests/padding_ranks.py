"""What `test_prevention.py` runs on each of two processes: DDP and FSDP2 (`fully_shard`) on CPU.

    torchrun --nproc-per-node 2 tests/padding_ranks.py FOLDER

Writes `FOLDER/<rank>.json`: "ok" or what went wrong for each check. A check that fails on one rank
only may leave the other waiting; then neither file is whole, and the test says so.
"""

import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.strategies import ModelParallelStrategy
from padded_training import (
    OPTIMIZERS,
    VOCABULARY,
    Options,
    Small,
    batches,
    is_plus_zero,
    nonzero_rows_in_checkpoint,
    trainer_for,
)
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.optim import SGD, AdamW

from lightning_embed import PaddingVectorChanged, TokenEmbedding
from lightning_embed.padding.embedding import clear_padding_moments, protect_padding_row
from lightning_embed.padding.padded import row_of

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
STARTS = ("before", "after", "meta")  # when the embedding is initialised, relative to sharding
ROWS = (1, 15)  # of 20: the first process holds row 1, the second row 15
SHORT: dict[str, Any] = {"max_epochs": 1, "devices": 2, "use_distributed_sampler": False}

CHECKS: dict[str, Callable[[Path], None]] = {}


def check(name: str) -> Callable[[Callable[[Path], None]], None]:
    """Adds a check; each rank calls it with a folder of their own pair."""

    def add(function: Callable[[Path], None]) -> None:
        CHECKS[name] = function

    return add


def whole(weight: Tensor) -> Tensor:
    """Every row, on every rank."""
    weight = weight.detach()
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (2,))


def holder(row: int) -> int:
    return row // (VOCABULARY // 2)


def sharded(padding_idx: int, start: str) -> TokenEmbedding:
    """An embedding split over both ranks, initialised before, after, or after being on meta."""
    torch.manual_seed(0)
    with torch.device("meta" if start == "meta" else "cpu"):
        embedding = TokenEmbedding(VOCABULARY, 8, padding_idx)
    if start != "before":  # rubbish in memory, which what follows must overwrite
        nn.init.constant_(embedding.weight, float("nan"))
    fully_shard(embedding, mesh=mesh())
    if start == "meta":
        embedding.to_empty(device="cpu")
    if start != "before":
        embedding.reset_parameters()
    return embedding


class Sharded(Small):
    """`Small`, whose network is split over both ranks."""

    def __init__(self, options: Options, padding_idx: int = 1, start: str = "before") -> None:
        self.start = start
        super().__init__(options, padding_idx)
        if start == "meta":
            self.network.to("meta")

    def protect(self) -> None:
        pass  # sharding makes a new parameter: see `configure_model`

    def configure_model(self) -> None:
        if isinstance(self.weight, DTensor):
            return
        assert self.device_mesh is not None
        fully_shard(self, mesh=self.device_mesh["data_parallel"])
        register_fsdp_forward_method(self, "training_step")
        if self.start == "meta":
            self.network.to_empty(device="cpu")
            if self.options.head == "foreign":  # to_empty unties
                self.foreign.weight = self.network.embedding.weight
        if self.start != "before":
            self.network.reset_parameters()
        if self.options.head == "foreign":
            super().protect()


def fsdp2() -> ModelParallelStrategy:
    return ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def shared(folder: Path, name: str) -> Path:
    """The same path on both ranks, and both there."""
    dist.barrier()
    return folder / name


def add_ddp(optimizer: str) -> None:
    @check(f"ddp-{optimizer}")
    def train(folder: Path) -> None:
        for number, precision in enumerate(PRECISIONS):
            head = ("tied", "foreign")[number % 2]
            options = Options(optimizer, precision, "none", 1 + number % 2, 1.0, 0.1, head)
            module, trainer = Small(options), trainer_for(options, strategy="ddp", **SHORT)
            trainer.fit(module, batches(seed=int(os.environ["RANK"])), batches(1))
            assert trainer.global_step and is_plus_zero(module.weight[1]), precision
            trainer.save_checkpoint(path := shared(folder, f"ddp-{optimizer}-{number}.ckpt"))
            assert nonzero_rows_in_checkpoint(path) == [], precision


def add_fsdp(optimizer: str, place: int) -> None:
    @check(f"fsdp2-{optimizer}")
    def train(folder: Path) -> None:
        for number, precision in enumerate(PRECISIONS):
            start = STARTS[(place + number) % 3]
            padding_idx = ROWS[(place + number) % 2]
            head = ("tied", "foreign")[(place // 2 + number) % 2]
            options = Options(optimizer, precision, "none", 1, (None, 1.0)[number % 2], 0.1, head)
            told = f"{precision}, initialised {start}, row {padding_idx}, {head}"
            module = Sharded(options, padding_idx, start)
            trainer = trainer_for(options, strategy=fsdp2(), **SHORT)
            data = batches(padding_idx=padding_idx, seed=int(os.environ["RANK"]))
            trainer.fit(module, data, batches(1, padding_idx))
            module.reshard()  # after validation the root still has the whole matrix
            assert isinstance(module.weight, DTensor) and trainer.global_step, told
            assert is_plus_zero(whole(module.weight)[padding_idx]), told
            assert whole(module.weight)[2].count_nonzero(), told
            trainer.save_checkpoint(path := shared(folder, f"{optimizer}-{number}.ckpt"))
            dist.barrier()  # the first rank writes
            assert nonzero_rows_in_checkpoint(path, padding_idx) == [], told


for place, optimizer in enumerate(OPTIMIZERS):
    add_ddp(optimizer)
    add_fsdp(optimizer, place)


def add_start(start: str, row: int) -> None:
    @check(f"sharded-{start}-row-{row}")
    def initialise(folder: Path) -> None:
        embedding = sharded(row, start)
        weight = whole(embedding.weight)
        assert is_plus_zero(weight[row])
        others = torch.arange(VOCABULARY) != row
        assert (weight[others] != 0).any(dim=1).all() and weight.isfinite().all()
        if start == "before":  # the same numbers as without sharding
            torch.manual_seed(0)
            assert torch.equal(weight, TokenEmbedding(VOCABULARY, 8, row).weight)
        assert (row_of(embedding.weight, row) is not None) == (dist.get_rank() == holder(row))


def add_zeroing(row: int) -> None:
    @check(f"zero_padding_-row-{row}")
    def zero(folder: Path) -> None:
        embedding = sharded(row, "before")
        for value in (float("nan"), -0.0, 3.0):
            nn.init.constant_(embedding.weight, value)
            embedding.zero_padding_()
            weight = whole(embedding.weight)
            assert is_plus_zero(weight[row]), value
            assert not is_plus_zero(weight[2]), value
        embedding.apply(lambda m: nn.init.constant_(m.weight, 2.0))  # type: ignore[arg-type]
        weight = whole(embedding.weight)
        assert is_plus_zero(weight[row]) and (weight[2] == 2).all()

    @check(f"loading-row-{row}")
    def load(folder: Path) -> None:
        embedding, other = sharded(row, "before"), sharded(row, "before")
        nn.init.constant_(other.weight, 0.5)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            embedding.load_state_dict(other.state_dict())
        weight = whole(embedding.weight)
        assert is_plus_zero(weight[row]) and (weight[2] == 0.5).all()
        said = [str(w.message) for w in heard if "padding row" in str(w.message)]
        assert len(said) == (dist.get_rank() == holder(row)), said  # who holds it says so
        assert all("norm 1.41" in line for line in said), said

    @check(f"clear_padding_moments-row-{row}")
    def clear(folder: Path) -> None:
        embedding = sharded(row, "before")
        optimizer = AdamW(embedding.parameters(), lr=0.1, weight_decay=0.0)
        for with_row in (True, False):
            # A gradient for every row, the padding row's included, then one for the others alone.
            embedding.weight.grad = torch.ones_like(embedding.weight)
            if not with_row:
                embedding.zero_padding_()
                clear_padding_moments(optimizer, embedding.weight, row)
                here = row_of(embedding.weight.grad, row)
                if here is not None:
                    here.zero_()
            optimizer.step()
        moments = optimizer.state[embedding.weight]
        assert is_plus_zero(whole(embedding.weight)[row])
        assert is_plus_zero(whole(moments["exp_avg"])[row])
        assert whole(moments["exp_avg"])[2].count_nonzero() == 8

    @check(f"protect_padding_row-row-{row}")
    def protect(folder: Path) -> None:
        embedding = sharded(row, "before")
        protect_padding_row(embedding.weight, row)
        register_fsdp_forward_method(embedding, "logits")
        optimizer = SGD(embedding.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            hidden = embedding(torch.tensor([3, 5]))
            F.linear(hidden, embedding.weight)  # the gathered matrix, padding not excluded
            (hidden @ embedding.weight.T).logsumexp(-1).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert is_plus_zero(whole(embedding.weight)[row])
        assert whole(optimizer.state[embedding.weight]["momentum_buffer"])[2].count_nonzero()


for row in ROWS:
    for start in STARTS:
        add_start(start, row)
    add_zeroing(row)


@check("resize-before-sharding")
def _resize(folder: Path) -> None:
    """A sharded matrix is not resized: that is done before."""
    embedding = TokenEmbedding(10, 8)
    embedding.resize(VOCABULARY)
    fully_shard(embedding, mesh=mesh())
    assert is_plus_zero(whole(embedding.weight)[1])


class Nudges(L.Callback):
    """Writes into the padding row on the rank that holds it, and nowhere else."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == 2:
            row = row_of(pl_module.weight, pl_module.network.embedding.padding_idx)
            if row is not None:
                row[0] += 1e-7


def raised(module: Small, *callbacks: L.Callback, **settings: Any) -> PaddingVectorChanged:
    """The guard's error, which must come on every rank."""
    padding_idx = module.network.embedding.padding_idx
    trainer = trainer_for(module.options, *callbacks, **SHORT | settings)
    try:
        trainer.fit(module, batches(padding_idx=padding_idx), batches(1, padding_idx))
    except PaddingVectorChanged as error:
        return error
    raise AssertionError("the guard was silent")


def add_guard(row: int) -> None:
    @check(f"guard-nudge-row-{row}")
    def nudge(folder: Path) -> None:
        error = raised(Sharded(Options("sgd"), row), Nudges(), strategy=fsdp2())
        assert (error.cause, error.finding.step) == ("in_place", 3), str(error)
        assert error.finding.name == f"network.embedding.weight[{row}]", str(error)

    @check(f"guard-tied-head-row-{row}")
    def tied_head(folder: Path) -> None:
        class Unprotected(Sharded):
            def configure_model(self) -> None:
                head = self.options.head
                self.options = self.options._replace(head="tied")
                super().configure_model()
                self.options = self.options._replace(head=head)

        error = raised(Unprotected(Options(head="foreign"), row), strategy=fsdp2())
        assert (error.cause, error.finding.step) == ("tied_head", 1), str(error)

    @check(f"guard-keeps-a-row-that-is-not-zero-row-{row}")
    def not_zero(folder: Path) -> None:
        """The reference is the row's value at the start, also on the rank that has another part,
        and while validation has the whole matrix gathered."""

        class Meant(Sharded):
            def configure_model(self) -> None:
                super().configure_model()
                here = row_of(self.weight, row)
                if here is not None:
                    here.fill_(0.5)

        options = Options("sgd")
        said = StringIO()
        trainer = trainer_for(options, strategy=fsdp2(), val_check_interval=2, **SHORT)
        with redirect_stdout(said):
            trainer.fit(module := Meant(options, row), batches(padding_idx=row), batches(1, row))
        module.reshard()
        assert (whole(module.weight)[row] == 0.5).all()
        # Said by the first rank, wherever the row is.
        assert ("has norm 1.41, not zero" in said.getvalue()) == (dist.get_rank() == 0)


for row in ROWS:
    add_guard(row)


@check("guard-nudge-ddp")
def _nudge_ddp(folder: Path) -> None:
    """Under DDP each rank has the row; one of them alone is enough for both to stop."""

    class NudgesSecond(Nudges):
        def on_train_batch_start(self, *args: Any) -> None:
            if dist.get_rank() == 1:
                super().on_train_batch_start(*args)

    error = raised(Small(Options("sgd")), NudgesSecond(), strategy="ddp")
    assert (error.cause, error.finding.step) == ("in_place", 3), str(error)


def add_averaging(averaging: str) -> None:
    @check(f"ddp-{averaging}")
    def ddp(folder: Path) -> None:
        options = Options("adamw", "bf16-mixed", averaging, weight_decay=0.1, head="foreign")
        trainer = trainer_for(options, strategy="ddp", **SHORT | {"max_epochs": 3})
        trainer.fit(module := Small(options), batches(seed=dist.get_rank()), batches(1))
        assert trainer.global_step and is_plus_zero(module.weight[1])
        trainer.save_checkpoint(path := shared(folder, f"ddp-{averaging}.ckpt"))
        dist.barrier()
        assert nonzero_rows_in_checkpoint(path) == []


for averaging in ("ema", "swa"):
    add_averaging(averaging)


@check("fsdp2-swa")
def _sharded_swa(folder: Path) -> None:
    options = Options("adamw", averaging="swa", weight_decay=0.1)
    trainer = trainer_for(options, strategy=fsdp2(), **SHORT | {"max_epochs": 3})
    trainer.fit(module := Sharded(options), batches(seed=dist.get_rank()), batches(1))
    module.reshard()
    assert trainer.global_step and is_plus_zero(whole(module.weight)[1])


@check("fsdp2-refuses-ema")
def _refused(folder: Path) -> None:
    """Belongs to `REFUSED` of `test_prevention.py`; when it is allowed, it belongs above."""
    options = Options("adamw", averaging="ema")
    trainer = trainer_for(options, strategy=fsdp2(), **SHORT)
    try:
        trainer.fit(Sharded(options), batches(), batches(1))
    except AssertionError as error:
        assert "FSDP does not support deepcopy" in str(error), error
    else:
        raise RuntimeError("an average of sharded weights is allowed: test it")


NAMES = list(CHECKS)


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    dist.init_process_group("gloo", timeout=timedelta(seconds=40))
    found = {}
    for name, function in CHECKS.items():
        try:
            function(folder)
            found[name] = "ok"
        except Exception:
            found[name] = traceback.format_exc()
            print(f"rank {rank}: {name}\n{found[name]}", flush=True)
        (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
