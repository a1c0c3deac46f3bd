"""nanoGPT's model in the loop its `train.py` runs: forward, backward, clip, AdamW.

Started by `peers.py`. `configure_optimizers`, the clipping at 1 and `zero_grad(set_to_none=True)`
are those of its training script; batches, logging, evaluation and the learning rate's schedule are
left out, all in its favour, and autocast to bfloat16 works on a CPU too, where its script has
float32 alone. With `evaluate` it looks at the checkpoint of a run of its whole `train.py` instead.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from turns import Turns, parameter_count, random_windows, settings


def evaluate(folder: str) -> None:
    """Print the loss of a run's checkpoint over the whole validation part, in windows that do not
    overlap."""
    sys.path.insert(0, folder)
    from model import GPT, GPTConfig

    run = Path(folder)
    saved = torch.load(run / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    model = GPT(GPTConfig(**saved["model_args"]))
    model.load_state_dict(saved["model"])
    model.eval()
    length = saved["model_args"]["block_size"]
    data = np.fromfile(run / "data" / "shakespeare_char" / "val.bin", np.uint16).astype(np.int64)
    rows = (len(data) - 1) // length
    ids = torch.from_numpy(data[: rows * length]).view(rows, length)
    targets = torch.from_numpy(data[1 : rows * length + 1]).view(rows, length)
    total = 0.0
    with torch.no_grad():
        for some, wanted in zip(ids.split(64), targets.split(64), strict=True):
            total += model(some, wanted)[1].item() * wanted.numel()
    print(json.dumps({"loss": total / ids.numel(), "parameters": parameter_count(model)}))


def main() -> None:
    asked = settings()
    if "evaluate" in asked:
        evaluate(asked["evaluate"])
        return
    sys.path.insert(0, asked["nanogpt"])
    from model import GPT, GPTConfig

    torch.manual_seed(1337)
    device = asked["device"]
    torch.backends.cuda.matmul.allow_tf32 = True
    config = GPTConfig(**asked["model"], dropout=0.0, bias=False)
    model = GPT(config).to(device)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), device)
    turns = Turns(asked["warm"], asked["steps"], {"parameters": parameter_count(model)})
    step_model = torch.compile(model) if asked["compile"] else model
    mixed = asked["format"] == "bfloat16"
    low = torch.autocast(device, torch.bfloat16) if mixed else nullcontext()
    for ids, targets in random_windows(
        asked["tokens"], asked["id_type"], asked["rows"], asked["model"]["block_size"], device
    ):
        with low:
            _, loss = step_model(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        turns(targets.numel())


if __name__ == "__main__":
    main()
