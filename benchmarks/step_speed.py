"""The speed of a step, and of the whole training program, beside nanoGPT and Hugging Face.

    python benchmarks/step_speed.py --nanogpt DIR --peers-python PATH

4 layers, width 256, context 256, vocabulary 4,096, the same rows of the same text (the standard
library's source, all windows full). Real tokens a second of

- a bare step (forward, backward, clip, optimizer): ours as the default run computes it, with AdamW
  and with Muon, against nanoGPT in its README's CPU settings (float32, eager; dropout 0, clip 1),
  and nanoGPT in float32 with `torch.compile`;
- the whole training program, loop, data and logging included: ours, as a Llama with AdamW (which is
  what the other side trains) and as it is by default (normalised queries and keys, Muon), against
  Hugging Face's Trainer with a Llama of the same shape in bfloat16, eager, AdamW.

`d_ff` is 704, so that all models have as many parameters as nanoGPT's, which has positions to learn
and a wider, ungated feed-forward. How to get the peers: see `peers.py`.
"""

import json
from pathlib import Path

import numpy as np
import torch
from peers import WAYS, Sides, library_text, parse, parser, publish, rounds, scratch
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


def main() -> None:
    made = parser(__doc__, warm=20, steps=20)
    made.add_argument("--nanogpt", required=True, help="folder with nanoGPT's model.py")
    made.add_argument("--peers-python", required=True, help="Python that has transformers")
    made.add_argument("--rows", type=int, default=12, help="rows of a batch; nanoGPT's README: 12")
    options = parse(made)
    rows = options.rows
    with scratch() as folder, Sides(options) as sides:
        data = TextDataModule(
            files=str(library_text(folder)),
            tokenizer=str(folder / "tokenizer.json"),
            cache_dir=str(folder / "cache"),
            max_length=LENGTH,
            widths=[LENGTH],
            tokens_per_batch=rows * LENGTH,
        )
        prepared = data.prepared
        windows = data.train_dataloader().rows.windows
        full = windows.length == LENGTH
        np.save(folder / "starts.npy", windows.start[full])
        np.save(folder / "lengths.npy", windows.length[full])
        tokens = {"tokens": str(prepared.path / "train" / "tokens.bin"), "rows": rows}
        ours = {
            optimizer: sides.add(
                f"a step, {optimizer}, bf16-mixed, compiled blocks, clip 1",
                "side_ours.py",
                form="step",
                vocab_size=VOCABULARY,
                length=LENGTH,
                device="cpu",
                precision="bf16-mixed",
                model=SHAPE | {"optimizer": optimizer},
                **tokens,
            )
            for optimizer in ("adamw", "muon")
        }
        nanogpt = {
            compiled: sides.add(
                f"nanoGPT, a step, float32, {'compiled' if compiled else 'eager'}, AdamW (not fused"
                " on CPU, as in its script), dropout 0, clip 1",
                "side_nanogpt.py",
                nanogpt=str(Path(options.nanogpt).resolve()),
                device="cpu",
                compile=compiled,
                model=NANOGPT,
                **tokens,
            )
            for compiled in (False, True)
        }
        arguments = {
            "data.files": data.files[0],
            "data.tokenizer": data.tokenizer_name,
            "data.cache_dir": data.cache_dir,
            "data.max_length": LENGTH,
            "data.widths": json.dumps([LENGTH]),
            "data.tokens_per_batch": rows * LENGTH,
            "trainer.default_root_dir": folder / "runs",
            "trainer.max_steps": 100_000,
            "trainer.limit_val_batches": 0,
            **{f"model.{name}": value for name, value in SHAPE.items()},
        }
        program = {
            way: sides.add(
                f"the whole program, {way}, bf16-mixed, compiled, guard, logger",
                "side_ours.py",
                form="fit",
                arguments=[
                    "--config=configs/stdlib.yaml",
                    *(f"--{name}={value}" for name, value in arguments.items()),
                    *flags,
                ],
            )
            for way, flags in WAYS.items()
        }
        trainer = sides.add(
            "Hugging Face's Trainer, the whole program, bf16=True, eager, fused AdamW, clip 1, its"
            " default attention",
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
    low, full = (
        matrix_rate(torch.device("cpu"), kind, 20) for kind in (torch.bfloat16, torch.float32)
    )
    with torch.device("meta"):
        network = DecoderLM(VOCABULARY, **SHAPE)
    bound = low * LENGTH / network.training_flops(LENGTH, LENGTH * (LENGTH + 1) / 2)
    names = {"adamw": "AdamW", "muon": "Muon"}
    compared = [
        side.compared(f"a step, {names[optimizer]}, to nanoGPT {how}", nanogpt[compiled], 2.5)
        for optimizer, side in ours.items()
        for how, compiled in (("eager", False), ("compiled", True))
    ]
    compared += [
        side.compared(f"whole program, {way}, to the Trainer", trainer, 2)
        for way, side in program.items()
    ]
    compared.append(
        Row(
            "a product in bfloat16 to float32",
            Measured("a large matrix product in bfloat16", {"GFLOP/s": low / 1e9}),
            Measured("the same in float32", {"GFLOP/s": full / 1e9}),
            low / full,
        )
    )
    shares = {
        "nanoGPT eager": nanogpt[False],
        "nanoGPT compiled": nanogpt[True],
        "the Trainer": trainer,
    }
    how = (
        f"{rows} rows of {LENGTH}. {rounds(options)} The bound: a step of nothing but the model's"
        f" products in bfloat16 would be {bound:,.0f} real tokens/s, "
        + ", ".join(f"{bound / side.rate:.2f} of {name}" for name, side in shares.items())
        + f"; our AdamW step is at {ours['adamw'].rate / bound:.2f} of it."
    )
    publish("step_speed", how, compared, options)


if __name__ == "__main__":
    main()
