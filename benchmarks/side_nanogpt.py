"""nanoGPT's model in the loop its `train.py` runs: forward, backward, clip, AdamW.

Started by `peers.py`. `configure_optimizers`, the precision (float32 on CPU), the clipping at 1 and
`zero_grad(set_to_none=True)` are those of its training script; batches, logging, evaluation and the
learning rate's schedule are left out, all in its favour.
"""

import sys
from contextlib import nullcontext

import torch
from turns import Turns, parameter_count, random_windows, settings


def main() -> None:
    asked = settings()
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
    # as in its train.py: no autocast on CPU, whatever the dtype
    low = torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()
    for ids, targets in random_windows(
        asked["tokens"], asked["rows"], asked["model"]["block_size"], device
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
