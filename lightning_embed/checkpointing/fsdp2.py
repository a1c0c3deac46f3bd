"""`FSDP2Strategy`: Lightning's strategy for sharded models, with checkpoints that are whole.

A folder of shards takes an older one's place only once every process has written its part; what is
in the folder is the business of `shards.py`.
"""

import errno
import os
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from lightning_embed.atomic import put_in_place, remove, temporary_name
from lightning_embed.checkpointing.compatibility import Candidate, check
from lightning_embed.checkpointing.files import read_checkpoint
from lightning_embed.checkpointing.lightning_io import is_disk_full
from lightning_embed.checkpointing.shards import is_sharded, load_into, read_meta, save_sharded
from lightning_embed.hardware import settle_threads
from lightning_embed.library_internals import use_every_process_as_shard
from lightning_embed.model.decoder import DecoderLM


def shard(model: DecoderLM, mesh: DeviceMesh) -> None:
    """FSDP2: every rank keeps a part of each parameter and gathers a block when it is its turn."""
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in ("loss", "score", "hidden", "logits"):  # they, too, need the parameters gathered
        register_fsdp_forward_method(model, name)


class FSDP2Strategy(ModelParallelStrategy):
    """Parameters, gradients and moments in shards, one on each process.

    Lightning's own writes a sharded checkpoint over the one before it, so that a kill leaves
    neither, and reads one in ways that could run a program.

    Args:
        save_distributed_checkpoint: each process writes its shard; False gathers a single file.
        data_parallel_size: processes that share the model; "auto" is all of them.
        tensor_parallel_size: of no use here yet.
        kwargs: see `ModelParallelStrategy`.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = True,
        data_parallel_size: Literal["auto"] | int = "auto",
        tensor_parallel_size: int = 1,
        **kwargs: Any,
    ) -> None:
        self.writes_shards = save_distributed_checkpoint
        super().__init__(
            data_parallel_size, tensor_parallel_size, save_distributed_checkpoint, **kwargs
        )

    def setup_environment(self) -> None:
        use_every_process_as_shard(self)
        super().setup_environment()
        if self.root_device.type == "cpu":  # Lightning limits threads in the first process alone
            settle_threads(self.num_processes)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """A new folder each time; the old one goes once the new one is whole.

        Raises:
            OSError: on every process, where one of them found the disk full.
        """
        if not self.writes_shards:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        target = Path(self.broadcast(filepath))
        pid = self.broadcast(os.getpid())
        work = temporary_name(target, pid)
        problem = ""
        try:
            save_sharded(checkpoint, work, self.is_global_zero)
        except (CheckpointException, OSError, RuntimeError) as error:
            problem = str(error) or type(error).__name__
        full = False
        if self.is_global_zero:
            if problem:
                full = is_disk_full(target.parent)
                remove(work)
            else:
                put_in_place(work, target)
        problem, full = self.broadcast((problem, full))
        if full:
            raise OSError(errno.ENOSPC, f"disk full; {target} is not written")
        if problem:
            raise OSError(f"{target} is not written: {problem}")

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = True) -> Any:
        path = Path(self.broadcast(checkpoint_path))
        if not is_sharded(path):
            return self._load_file(path)
        assert self.model is not None
        state: dict[str, Any] = {"state_dict": get_model_state_dict(self.model)}
        load_into(state, path)
        self.model.load_state_dict(state["state_dict"])
        for number, optimizer in enumerate(self.optimizers):
            key = f"optimizer_{number}"
            state = {key: get_optimizer_state_dict(self.model, optimizer)}
            load_into(state, path)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=state[key])
        return read_meta(path) | {"state_dict": {}}  # its tensors are in their places already

    def _load_file(self, path: Path) -> dict[str, Any]:
        """A single file, of which every process takes its part.

        Lightning numbers the parameters in the module's order, torch's optimizers in that of their
        groups; with several groups moments would end at other parameters.
        """
        assert self.model is not None
        checkpoint = read_checkpoint(path)
        whole = StateDictOptions(full_state_dict=True)
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        own = [
            {group["name"]: group["params"] for group in o.param_groups} for o in self.optimizers
        ]
        candidate = Candidate(path, "train" if own else "evaluate", checkpoint)
        candidate.state_dict = self.model.state_dict()
        candidate.groups = own[0] if own else {}
        check(candidate, "tensors")
        set_model_state_dict(self.model, checkpoint["state_dict"], options=whole)
        for optimizer, groups, saved in zip(
            self.optimizers, own, checkpoint["optimizer_states"], strict=True
        ):
            state: dict[str, Any] = {"state": {}, "param_groups": []}
            today = {group["name"]: group for group in optimizer.param_groups}
            for group in saved["param_groups"]:
                named = [names[parameter] for parameter in groups[group["name"]]]
                # An older version's group may lack a key.
                state["param_groups"].append(today[group["name"]] | group | {"params": named})
                for key, name in zip(group["params"], named, strict=True):
                    if key in saved["state"]:
                        state["state"][name] = saved["state"][key]
            set_optimizer_state_dict(self.model, optimizer, state, options=whole)
        rest = {k: v for k, v in checkpoint.items() if k != "optimizer_states"}
        return rest | {"state_dict": {}}
