"""Generating with a cache of keys and values: a token early and late, and beside transformers.

    python benchmarks/generation.py --peers-python PATH

The default run's network. First the time of a token at contexts of 16 and 255; then, if a Python
with transformers is given (`peers.py` tells how to get one), tokens for a second of processor of
its `generate` and ours, in turns: 200 after a prompt of 16, for one row and for eight. The peer has
the architecture of an exported folder.
"""

import statistics
import time
from itertools import pairwise

import torch
import yaml
from peers import ROOT, Sides, parse, parser, publish
from results import Measured, Row

from lightning_embed import DecoderLM
from lightning_embed.inference.generate import new_ids
from lightning_embed.inference.sampling import Sampling

CONFIG = "configs/stdlib.yaml"
VOCAB_SIZE, WINDOW, EARLY, LATE, TIMED = 4096, 256, 16, 255, 12
NETWORK = ("d_model", "n_layers", "n_heads")


def milliseconds(model: DecoderLM, context: int, rows: int) -> float:
    """Processor time of a step that reads up to `context` positions, the median of a dozen."""
    prompt = torch.randint(4, VOCAB_SIZE, (rows, context - TIMED)).tolist()
    settings = {"max_new_tokens": TIMED + 1, "max_length": WINDOW, "eos_id": -1}
    times = []
    for number, _ in enumerate(new_ids(model, prompt, Sampling(), ended=set(), **settings)):
        if number % rows == 0:
            times.append(time.process_time())
    return 1000 * statistics.median(b - a for a, b in pairwise(times))


def main() -> None:
    made = parser(__doc__, warm=1, steps=1)
    made.add_argument("--peers-python", help="of an environment with transformers")
    options = parse(made)
    config = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))
    network = {name: config["model"][name] for name in NETWORK}
    model = DecoderLM(VOCAB_SIZE, **network).eval()
    table = []
    for rows in (1, 8):
        pairs = [
            [milliseconds(model, context, rows) for context in (LATE, EARLY)]
            for _ in range(options.repeats + 1)
        ][1:]
        late, early = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        table.append(
            Row(
                f"a token at context {LATE} to one at {EARLY}, batch {rows}",
                Measured(f"context {LATE}", {"ms of processor": late}),
                Measured(f"context {EARLY}", {"ms of processor": early}),
                ratio,
                at_most=1.3 if rows == 1 else None,  # more rows are bound by memory
            )
        )
    if options.peers_python:
        asked = {
            **{"model": network, "vocab_size": VOCAB_SIZE, "window": WINDOW},
            **{
                "prompt": EARLY,
                "new": 200,
                "d_ff": model.blocks[0].feed_forward.up_proj.out_features,
            },
        }
        with Sides(options) as sides:
            names = {"ours": "ours", "transformers": "transformers' generate, cache, eager"}
            pairs = {
                rows: [
                    sides.add(
                        f"{name}, batch {rows}",
                        "side_generate.py",
                        options.peers_python if side == "transformers" else None,
                        side=side,
                        rows=rows,
                        **asked,
                    )
                    for side, name in names.items()
                ]
                for rows in (1, 8)
            }
            sides.measure()
        for rows, (mine, theirs) in pairs.items():
            ratio = statistics.median(
                (a.tokens / a.processor) / (b.tokens / b.processor)
                for a, b in zip(mine.turns, theirs.turns, strict=True)
            )
            sides_of_row = [
                Measured(side.name, {"tokens for a second of processor": side.thrift})
                for side in (mine, theirs)
            ]
            table.append(Row(f"batch {rows} to transformers", *sides_of_row, ratio, 1.5))
    options.format = "float32"  # of both sides
    how = f"The network of {CONFIG}, float32, 200 ids after {EARLY}. {options.repeats} rounds."
    publish("generation", how, table, options)


if __name__ == "__main__":
    main()
