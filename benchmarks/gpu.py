"""One CUDA device: GPT-2's smallest shape beside nanoGPT, mostly empty rows, Tiny Shakespeare.

    python benchmarks/gpu.py --nanogpt DIR --text input.txt

- a step of 12 layers, width 768, context 1,024, vocabulary 50,304 in bfloat16, compiled: tokens
  a second beside nanoGPT's model and loop (compiled, bfloat16 autocast, fused AdamW), and the share
  of the bfloat16 rate that a plain product reaches on this device; the parameters agree within 2 %;
- the same network on the default corpus' windows, one in each row of 1,024, 75 % of the positions
  padding, beside its own speed with full rows of such windows;
- Tiny Shakespeare by characters with at most 10.7 M parameters: real tokens and seconds of training
  to a validation loss of 1.4697, nanoGPT's published one (5,000 steps of 16,384 tokens), in windows
  of 256 that do not overlap.

Refuses where there is no CUDA device. How to get nanoGPT: see `peers.py`; the text is char-rnn's.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peers import (
    HERE,
    ROOT,
    Side,
    Sides,
    environment,
    library_text,
    parse,
    parser,
    publish,
    rounds,
    scratch,
)
from results import Measured, Row

from lightning_embed import DecoderLM, TextDataModule
from lightning_embed.watching.meters import matrix_rate

LENGTH, VOCABULARY = 1024, 50_304
SHAPE = {"d_model": 768, "n_layers": 12, "n_heads": 12, "d_ff": 2048}
NANOGPT = {"n_embd": 768, "n_layer": 12, "n_head": 12, "block_size": 1024, "vocab_size": VOCABULARY}
PUBLISHED_LOSS, PUBLISHED_TOKENS, MOST_PARAMETERS = 1.4697, 5_000 * 16_384, 10_700_000
SHAKESPEARE = {
    "data.tokenizer": "characters",
    "data.max_length": 256,
    "data.widths": [256],
    "data.tokens_per_batch": 16_384,
    "model.d_model": 384,
    "model.n_layers": 6,
    "model.n_heads": 6,
    "model.d_ff": 1024,
    "model.dropout": 0.2,
    "model.optimizer": "muon",
    "model.lr": 0.003,
    "model.muon_lr": 0.02,
    "model.decay_fraction": 1.0,
    "trainer.max_steps": 1_000,  # a fifth of the published run's tokens
    "trainer.val_check_interval": 1_000,
    "trainer.check_val_every_n_epoch": "null",
}


def step_rows(options: Any, folder: Path) -> list[Row]:
    text = library_text(folder)
    cache = {"tokenizer": str(folder / "tokenizer.json"), "cache_dir": str(folder / "cache")}
    one = TextDataModule(files=str(text), **cache)
    documents: dict[str, Any] = {**cache, "max_length": LENGTH, "tokens_per_batch": LENGTH}
    common: dict[str, Any] = {
        "length": LENGTH,
        "device": "cuda",
        "precision": "bf16-mixed",
        "model": SHAPE,
    }
    tokens = {
        "tokens": str(one.prepared.path / "train" / "tokens.bin"),
        "id_type": one.prepared.train.tokens.dtype.name,
        "rows": options.rows,
    }
    with Sides(options) as sides:
        ours = sides.add(
            "a step, Muon, bf16-mixed, compiled blocks, clip 1",
            "side_ours.py",
            form="step",
            vocab_size=VOCABULARY,
            **common,
            **tokens,
        )
        nanogpt = sides.add(
            "nanoGPT, a step, bfloat16 autocast, compiled, fused AdamW, dropout 0, clip 1",
            "side_nanogpt.py",
            nanogpt=str(Path(options.nanogpt).resolve()),
            device="cuda",
            format="bfloat16",
            compile=True,
            model=NANOGPT,
            **tokens,
        )

        def layout(name: str, kind: str) -> Side:
            return sides.add(
                name,
                "side_ours.py",
                form="layout",
                layout=kind,
                padding=0.75,
                rows=options.rows,
                vocab_size=4096,
                data=documents,
                **common,
            )

        empty = layout("rows 25 % full", "padded")
        full = layout("the same windows in full rows", "packed")
        sides.measure()
    with torch.device("meta"):
        network = DecoderLM(VOCABULARY, **SHAPE)
    rate = matrix_rate(torch.device("cuda"), torch.bfloat16)
    reached = ours.rate * network.training_flops(1, (LENGTH + 1) / 2)
    return [
        ours.compared("a step to nanoGPT compiled", nanogpt, 1.25),
        Row(
            "model FLOP/s to a plain product's",
            Measured(
                f"{ours.name}; 6 FLOPs for each weight of a product and token, 12 D for each"
                " layer's causal pair",
                {"TFLOP/s": reached / 1e12},
            ),
            Measured("a large square product in bfloat16", {"TFLOP/s": rate / 1e12}),
            reached / rate,
            at_least=0.45,
        ),
        empty.compared("rows 25 % full to full rows", full, 0.9),
    ]


def shakespeare_rows(options: Any, folder: Path) -> list[Row]:
    runs = []
    for number in range(options.repeats):
        report = folder / f"shakespeare-{number}.json"
        settings = SHAKESPEARE | {
            "config": "configs/shakespeare_char.yaml",
            "seed_everything": number,
            "data.files": options.text.resolve(),
            "data.rows_per_batch": "null",
            "data.cache_dir": folder / "cache",
            "trainer.precision": "bf16-mixed",
            "trainer.default_root_dir": folder / "runs",
        }
        given = {
            "form": "timed fit",
            "report": str(report),
            "began": time.time(),
            "arguments": [f"--config={settings.pop('config')}"]
            + [f"--{name}={value}" for name, value in settings.items()],
        }
        subprocess.run(
            [sys.executable, str(HERE / "side_ours.py"), json.dumps(given)],
            cwd=ROOT,
            env=environment(options.threads),
            check=True,
        )
        runs.append(json.loads(report.read_text(encoding="utf-8")))
    loss = statistics.median(run["loss"] for run in runs)
    seconds = statistics.median(sum(run["seconds"][2:]) for run in runs)  # the first two compile
    whole = statistics.median(run["whole"] for run in runs)
    tokens = len(runs[0]["seconds"]) * SHAKESPEARE["data.tokens_per_batch"]
    parameters = runs[0]["parameters"]
    small = "" if parameters <= MOST_PARAMETERS else ", MORE THAN ALLOWED"
    words = f"Tiny Shakespeare, {parameters:,} parameters{small}, {len(runs)} seeds, medians"

    def row(what: str, unit: str, mine: float, published: float, at_most: float) -> Row:
        beside = Measured("nanoGPT's published run on a GPU", {unit: published})
        return Row(what, Measured(words, {unit: mine}), beside, mine / published, at_most=at_most)

    return [
        row("validation loss to nanoGPT's", "loss", loss, PUBLISHED_LOSS, 1),
        row("tokens to the published run's", "tokens", tokens, PUBLISHED_TOKENS, 0.25),
        Row(
            "seconds of training to that loss",
            Measured(
                words,
                {"s without compilation (at most 20)": seconds, "s from command to loss": whole},
            ),
        ),
    ]


def main() -> None:
    made = parser(__doc__, warm=20, steps=30)
    made.add_argument("--nanogpt", required=True, help="folder with nanoGPT's model.py")
    made.add_argument("--text", required=True, type=Path, help="Tiny Shakespeare's input.txt")
    made.add_argument("--rows", type=int, default=16, help="rows of a batch")
    options = parse(made)
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py needs a CUDA device, and torch finds none here")
    with scratch() as folder:
        rows = step_rows(options, folder) + shakespeare_rows(options, folder)
    publish("gpu", f"{options.rows} rows of {LENGTH}. {rounds(options)}", rows, options)


if __name__ == "__main__":
    main()
