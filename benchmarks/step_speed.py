"""The speed of a step, and of the whole training program, beside nanoGPT and Hugging Face.

    python benchmarks/step_speed.py --nanogpt DIR --peers-python PATH

4 layers, width 256, context 256, vocabulary 4,096, the same rows of the same text (the standard
library's source, all windows full). Real tokens a second of

- a bare step (forward, backward, clip, optimizer): ours as the default run computes it, with AdamW
  and with Muon, and eager with AdamW, against nanoGPT in its README's CPU settings (eager; dropout
  0, clip 1) and with `torch.compile`;
- the whole training program, loop, data and logging included: ours, as a Llama with AdamW (which is
  what the other side trains) and as it is by default (normalised queries and keys, Muon), against
  Hugging Face's Trainer with a Llama of the same shape, eager, AdamW.

Each side runs in the number format that is fastest for it on this machine, or all in `--format`.
`d_ff` is 704, so that all models have as many parameters as nanoGPT's, which has positions to learn
and a wider, ungated feed-forward. How to get the peers: see `peers.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import (
    PRECISIONS,
    WAYS,
    Side,
    Sides,
    in_format,
    library_text,
    parse,
    parser,
    publish,
    rounds,
    scratch,
)
from results import Measured, Row

from lightning_embed import TextDataModule
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.watching.meters import matrix_rate

LENGTH, VOCABULARY = 256, 4096
SHAPE = {"d_model": 256, "n_layers": 4, "n_heads": 4, "d_ff": 704}
NANOGPT = {"n_embd": 256, "n_layer": 4, "n_head": 4, "block_size": 256, "vocab_size": VOCABULARY}
LLAMA = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "vocab_size": VOCABULARY,
}
OURS = {  # optimizer, whether compiled
    "AdamW": ("adamw", True),
    "Muon": ("muon", True),
    "AdamW, eager": ("adamw", False),
}
BARS = {  # by our format
    "bfloat16": {
        "a step, AdamW, to nanoGPT eager": 2.5,
        "a step, AdamW, to nanoGPT compiled": 2.5,
        "a step, Muon, to nanoGPT eager": 2.5,
        "a step, Muon, to nanoGPT compiled": 2.5,
        "whole program, the default, to the Trainer": 2.0,
        "whole program, a Llama with AdamW, to the Trainer": 2.0,
    },
    "float32": {
        "a step, AdamW, to nanoGPT compiled": 1.25,
        "a step, Muon, to nanoGPT compiled": 1.1,
        "a step, AdamW, eager, to nanoGPT eager": 1.1,
    },
}


def main() -> None:
    made = parser(__doc__, warm=20, steps=20, formats=True)
    made.add_argument("--nanogpt", required=True, help="folder with nanoGPT's model.py")
    made.add_argument("--peers-python", required=True, help="Python that has transformers")
    made.add_argument("--rows", type=int, default=12, help="rows of a batch; nanoGPT's README: 12")
    options = parse(made)
    rows, precision = options.rows, PRECISIONS[options.format]
    with scratch() as folder, Sides(options) as sides:
        text = {
            "files": str(library_text(folder)),
            "tokenizer": str(folder / "tokenizer.json"),
            "cache_dir": str(folder / "cache"),
            "max_length": LENGTH,
            "widths": [LENGTH],
            "tokens_per_batch": rows * LENGTH,
        }
        data = TextDataModule(**text)
        prepared = data.prepared
        windows = data.train_dataloader().rows.windows
        full = windows.length == LENGTH
        np.save(folder / "starts.npy", windows.start[full])
        np.save(folder / "lengths.npy", windows.length[full])
        tokens = {
            "tokens": str(prepared.path / "train" / "tokens.bin"),
            "id_type": prepared.train.tokens.dtype.name,
            "rows": rows,
        }
        ours = {
            name: sides.add(
                f"a step, {optimizer}, {precision}, {'compiled blocks' if compiled else 'eager'},"
                " clip 1",
                "side_ours.py",
                form="step",
                vocab_size=VOCABULARY,
                length=LENGTH,
                device="cpu",
                precision=precision,
                model=SHAPE
                | {"optimizer": optimizer, "compile": compiled, "muon_dtype": options.format},
                **tokens,
            )
            for name, (optimizer, compiled) in OURS.items()
        }
        nanogpt = {
            how: sides.add_best(
                f"nanoGPT, a step, {{}}, {how}, AdamW (not fused on CPU, as in its script), dropout"
                " 0, clip 1",
                "side_nanogpt.py",
                nanogpt=str(Path(options.nanogpt).resolve()),
                device="cpu",
                compile=how == "compiled",
                model=NANOGPT,
                **tokens,
            )
            for how in ("eager", "compiled")
        }
        arguments = {
            **{f"data.{name}": value for name, value in text.items()},
            "trainer.default_root_dir": folder / "runs",
            "trainer.max_steps": 100_000,
            "trainer.limit_val_batches": 0,
            **{f"model.{name}": value for name, value in SHAPE.items()},
        }
        program = {
            way: sides.add(
                f"the whole program, {way}, {precision}, compiled, guard, logger",
                "side_ours.py",
                form="fit",
                arguments=[
                    "--config=configs/stdlib.yaml",
                    *(f"--{name}={value}" for name, value in arguments.items()),
                    *flags,
                    *in_format(options),
                ],
            )
            for way, flags in WAYS.items()
        }
        trainer = sides.add_best(
            "Hugging Face's Trainer, the whole program, {}, eager, fused AdamW, clip 1, its default"
            " attention",
            "side_transformers.py",
            options.peers_python,
            folder=str(folder / "trainer"),
            starts=str(folder / "starts.npy"),
            lengths=str(folder / "lengths.npy"),
            sampling="random",
            model=LLAMA,
            **tokens,
        )
        sides.measure()
    publish("step_speed", *compare(options, ours, nanogpt, program, trainer), options)


def compare(
    options: Any,
    ours: dict[str, Side],
    nanogpt: dict[str, Side],
    program: dict[str, Side],
    trainer: Side,
) -> tuple[str, list[Row]]:
    """What the sides had in common, beside the bound of the model's products; and the rows."""
    pairs = {
        f"a step, {name}, to nanoGPT {how}": (side, nanogpt[how])
        for name, side in ours.items()
        for how in ("eager", "compiled")
        if OURS[name][1] or how == "eager"
    }
    pairs |= {f"whole program, {way}, to the Trainer": (p, trainer) for way, p in program.items()}
    bars = BARS[options.format]
    rows = [one.compared(what, other, bars.get(what)) for what, (one, other) in pairs.items()]
    cpu = torch.device("cpu")
    rate = matrix_rate(cpu, getattr(torch, options.format), 20)
    if options.format == "bfloat16":
        exact = matrix_rate(cpu, torch.float32, 20)
        rows.append(
            Row(
                "a product in bfloat16 to float32",
                Measured("a large matrix product in bfloat16", {"GFLOP/s": rate / 1e9}),
                Measured("the same in float32", {"GFLOP/s": exact / 1e9}),
                rate / exact,
            )
        )
    with torch.device("meta"):
        network = DecoderLM(VOCABULARY, **SHAPE)
    bound = rate * LENGTH / network.training_flops(LENGTH, LENGTH * (LENGTH + 1) / 2)
    theirs = {f"nanoGPT {how}": side for how, side in nanogpt.items()} | {"the Trainer": trainer}
    how = (
        f"{options.rows} rows of {LENGTH}. {rounds(options)} The bound: a step of nothing but the"
        f" model's products in {options.format} would be {bound:,.0f} real tokens/s, "
        + ", ".join(f"{bound / side.rate:.2f} of {name}" for name, side in theirs.items())
        + f"; our AdamW step is at {ours['AdamW'].rate / bound:.2f} of it."
    )
    return how, rows


if __name__ == "__main__":
    main()
