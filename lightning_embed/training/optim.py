"""Parameter groups, and one optimizer for Muon and AdamW together.

With two optimizers Lightning requires manual optimization, without its clipping, accumulation and
averaging. So this is one `Optimizer` whose groups name their rule.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.adamw import adamw
from torch.optim.lr_scheduler import LambdaLR

from lightning_embed import figures
from lightning_embed.errors import UserError
from lightning_embed.library_internals import (
    foreach_add_,
    foreach_lerp,
    foreach_lerp_,
    foreach_mul_,
)

# Quintic Newton-Schulz coefficients of Keller Jordan's Muon, as in torch.optim.Muon.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5

# Operations that Muon may take for each of forward and backward. Those run at about half the speed
# of the iteration's large products, so that this is a tenth of a step's time.
MOST_OF_A_STEP = 0.18
MOST_TURNS = 4  # more train worse: by 3 % of the bits with 8, by 10 % with 21

DEFAULTS = {  # of a group
    "lr": 1e-3,
    "rule": "adamw",
    "weight_decay": 0.0,
    "momentum": 0.95,
    "dtype": "float32",
    "turns": 1,
    "turn": 0,
    "betas": (0.9, 0.95),
    "eps": 1e-8,
}


def orthogonalise(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearest semi-orthogonal matrices of a stack `(S, rows, columns)`, computed in `dtype`.

    Matrices of one shape share batched products, because the time of small ones is that of calls.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def turns(shapes: Iterable[torch.Size], flops: float) -> int:
    """In how many turns matrices of these shapes are stepped so that Muon stays cheap beside a step
    of `flops` floating-point operations: 1 but for wide matrices and small batches, at most 4."""
    iteration = 0
    for shape in shapes:
        short, long = sorted(shape)
        iteration += ITERATIONS * (4 * short * short * long + 2 * short**3)
    return min(MOST_TURNS, max(1, math.ceil(iteration / (MOST_OF_A_STEP * flops))))


def _laid_out_as(update: Tensor, parameter: Tensor) -> Tensor:
    """`update`, of which every rank has the whole, sharded like `parameter`."""
    if not isinstance(parameter, DTensor):
        return update
    return distribute_tensor(
        update, parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def _local(tensor: Tensor | None) -> Tensor:
    """This rank's part of a sharded tensor, for what is done element by element."""
    assert tensor is not None
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class MuonAdamW(Optimizer):
    """Muon for matrices, AdamW for the rest; a group's `rule` says which.

    A "muon" group has `lr`, `momentum`, `weight_decay` and `dtype`, the name of the number format
    that its products are in (matrices of one shape are stacked); an "adamw" group has `lr`,
    `betas`, `eps`, `weight_decay`. Muon's step is scaled by sqrt(max(1, rows / columns)), the
    "original" rule of `torch.optim.Muon`. A step for which `found_inf` is set changes nothing,
    moments and step counters included.

    With `turns` k > 1 each step moves one in k of a muon group's matrices, k times as far; every
    step updates all momenta. They change little within a few steps, so that this trains nearly as
    well and takes 1/k of the products. `turn` counts the steps.

    While `measures` is set, a step leaves in `update_norms` how far it moved each named group: the
    norm of the difference, weight decay included, for which it copies one group at a time.
    """

    def __init__(self, groups: list[dict[str, Any]], *, fused: bool | None = None) -> None:
        super().__init__(groups, dict(DEFAULTS))
        self.fused = fused
        # 1 where the gradients are not finite, else 0; `LossWatch` or a gradient scaler sets it
        # before each step. On a GPU it is never read here, so that a step is skipped without
        # waiting for the device.
        self.found_inf: Tensor | None = None
        self.measures = False
        self.update_norms: dict[str, Tensor] = {}
        for group in self.param_groups:
            if group["rule"] not in ("muon", "adamw"):
                raise UserError(f"rule is {group['rule']!r}; choose muon or adamw")
            if group["rule"] == "muon" and any(p.ndim != 2 for p in group["params"]):
                raise UserError("Muon steps matrices only; give other shapes an adamw group")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.found_inf is not None and self.found_inf.device.type == "cpu" and self.found_inf:
            return loss
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                before = [p.clone() for p in params] if self.measures else []
                (self._muon if group["rule"] == "muon" else self._adamw)(group, params)
                if before:
                    foreach_add_(before, params, alpha=-1)
                    self.update_norms[group.get("name", group["rule"])] = whole_norm(before)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Fused AdamW needs its step counter on the parameter's device; torch and Lightning put it
        there only for their own optimizers. What groups of an older version lack has its default.
        """
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group.update(DEFAULTS | group)  # torch adds to its own
        for parameter, state in self.state.items():
            if "step" in state:
                state["step"] = state["step"].to(parameter.device if self.fused else "cpu")

    def _adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros(
                    (), dtype=torch.float32, device=p.device if self.fused else "cpu"
                )
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        states = [self.state[p] for p in params]
        adamw(
            [_local(p) for p in params],
            [_local(p.grad) for p in params],
            [_local(s["exp_avg"]) for s in states],
            [_local(s["exp_avg_sq"]) for s in states],
            [],
            [s["step"] for s in states],
            fused=self.fused,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            found_inf=self.found_inf,
        )

    def _muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        by_shape: defaultdict[tuple[torch.Size, torch.device], list[Tensor]] = defaultdict(list)
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            by_shape[p.shape, p.device].append(p)
        momentum, dtype = group["momentum"], getattr(torch, group["dtype"])
        turns, turn = group["turns"], group["turn"]
        group["turn"] = turn + 1
        lr = group["lr"] * turns
        for (shape, _), same in by_shape.items():
            buffers = [self.state[p]["momentum_buffer"] for p in same]
            grads: list[Any] = [p.grad for p in same]
            if self.found_inf is not None:  # the buffers then stay what they are
                for b, g in zip(map(_local, buffers), map(_local, grads), strict=True):
                    g.copy_(torch.where(self.found_inf > 0, b, g))
            foreach_lerp_(buffers, grads, 1 - momentum)
            mine = slice(turn % turns, None, turns)
            same = same[mine]
            if not same:  # fewer of this shape than turns
                continue
            nesterov = foreach_lerp(grads[mine], buffers[mine], momentum)
            whole = [u.full_tensor() if isinstance(u, DTensor) else u for u in nesterov]
            stepped = orthogonalise(torch.stack(whole), dtype).to(same[0].dtype)
            decay: Any = 1 - lr * group["weight_decay"]
            if self.found_inf is not None:
                stepped = torch.where(self.found_inf > 0, 0.0, stepped)
                decay = torch.where(self.found_inf > 0, 1.0, decay)
            updates = [_laid_out_as(u, p) for u, p in zip(stepped, same, strict=True)]
            if group["weight_decay"]:
                foreach_mul_([_local(p) for p in same], decay)
            scale = math.sqrt(max(1.0, shape[0] / shape[1]))
            foreach_add_(same, updates, alpha=-lr * scale)


def parameter_groups(
    model: nn.Module,
    *,
    optimizer: Literal["muon", "adamw"],
    lr: float,
    muon_lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    muon_dtype: str | None = None,
    muon_turns: int | None = None,
) -> list[dict[str, Any]]:
    """Groups for `MuonAdamW`: blocks' matrices decay; embeddings, heads, norms and biases do not.

    With `optimizer="muon"` the matrices take Muon's rule at `muon_lr`, computed in `muon_dtype` and
    in `muon_turns`, with "adamw" AdamW's at `lr`.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model, "head", None)
    if head is not None:
        embeddings.add(id(head.weight))
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim == 2 and id(p) not in embeddings]
    words = [p for p in trained if id(p) in embeddings]
    vectors = [p for p in trained if p.ndim != 2]
    betas = (betas[0], betas[1])  # a list where it comes from a YAML file
    common = {"betas": betas, "weight_decay": 0.0}
    matrix_group: dict[str, Any] = {"params": matrices, "weight_decay": weight_decay}
    if optimizer == "muon":
        matrix_group |= {
            "rule": "muon",
            "lr": muon_lr,
            "dtype": muon_dtype or "float32",
            "turns": muon_turns or 1,
            "name": "matrices",
        }
    else:
        matrix_group |= {"rule": "adamw", "lr": lr, "betas": betas, "name": "matrices"}
    groups = [
        matrix_group,
        {"params": words, "rule": "adamw", "lr": lr, "name": "embeddings"} | common,
        {"params": vectors, "rule": "adamw", "lr": lr, "name": "vectors"} | common,
    ]
    return [group for group in groups if group["params"]]


def whole_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all of them together; a collective call where they are sharded."""
    norm = get_total_norm(tensors)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """Today's, by the tag of each rule."""
    return {
        f"{figures.LEARNING_RATE}_{group['rule']}": group["lr"] for group in optimizer.param_groups
    }


def take_settings(
    scheduler: LambdaLR, groups: list[dict[str, Any]], factor: Callable[[int], float]
) -> None:
    """Put the settings of `groups` into an optimizer and scheduler that a checkpoint was loaded
    into, from the next step on."""
    wanted = {group["name"]: group for group in groups}
    scheduler.lr_lambdas = [factor] * len(groups)
    scheduler.base_lrs = [group["lr"] for group in groups]
    for group in scheduler.optimizer.param_groups:
        new = wanted[group["name"]]
        group.update({k: new[k] for k in ("weight_decay", "betas", "dtype", "turns") if k in new})
        group["initial_lr"] = new["lr"]
        group["lr"] = new["lr"] * factor(scheduler.last_epoch)
