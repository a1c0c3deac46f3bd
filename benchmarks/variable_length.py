"""Real tokens a second on documents of all lengths: our fit and Hugging Face's Trainer.

    python benchmarks/variable_length.py --peers-python PATH

The default corpus (the standard library's functions and classes), windows of at most 256 tokens and
the default run's network; the Trainer has a Llama of the same shape in bfloat16 and pads each batch
to its longest row, once in random order and once with its grouping by length. Its rows are as many
as hold on average the real tokens of our batch. Both sides' real targets are counted, nothing else.
How to get the peers: see `peers.py`.
"""

import numpy as np
import yaml
from peers import ROOT, VERDICTS, Sides, parse, parser, publish, scratch, verdict

from lightning_embed import TextDataModule

CONFIG = "configs/stdlib.yaml"


def main() -> None:
    made = parser(__doc__, warm=40, steps=60)
    made.add_argument("--peers-python", required=True, help="Python that has transformers")
    options = parse(made)
    config = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))
    shape = config["model"]
    with scratch() as folder, Sides(options) as sides:
        data = TextDataModule(**config["data"] | {"cache_dir": str(folder / "cache")})
        loader = data.train_dataloader()
        windows = loader.rows.windows
        np.save(folder / "starts.npy", windows.start)
        np.save(folder / "lengths.npy", windows.length)
        real = float(np.mean(loader.plan.targets))
        rows = max(1, round(real / float(np.mean(windows.length))))
        ours = sides.add(
            "ours, the default run",
            "side_ours.py",
            form="fit",
            arguments=[
                f"--config={CONFIG}",
                f"--data.cache_dir={folder / 'cache'}",
                f"--trainer.default_root_dir={folder / 'runs'}",
                "--trainer.max_steps=100000",
                "--trainer.limit_val_batches=0",
            ],
        )
        # Our gated feed-forward is Llama's; queries and keys are normalised in ours alone.
        d_ff = usual_d_ff(shape["d_model"]) if shape.get("d_ff") is None else shape["d_ff"]
        llama = {
            "hidden_size": shape["d_model"],
            "intermediate_size": d_ff,
            "num_hidden_layers": shape["n_layers"],
            "num_attention_heads": shape["n_heads"],
            "max_position_embeddings": data.max_length,
            "vocab_size": data.prepared.tokenizer.vocab_size,
        }
        trainers = {
            sampling: sides.add(
                f"Hugging Face Trainer, bf16, {sampling}",
                "side_transformers.py",
                options.peers_python,
                folder=str(folder / "trainer"),
                tokens=str(data.prepared.path / "train" / "tokens.bin"),
                starts=str(folder / "starts.npy"),
                lengths=str(folder / "lengths.npy"),
                rows=rows,
                sampling=sampling,
                model=llama,
            )
            for sampling in ("random", "group_by_length")
        }
        sides.measure()
        table = sides.table()
    table += [
        *VERDICTS,
        verdict("ours to padded, random order", ours.faster_than(trainers["random"]), 3.5, 5),
        verdict("ours to group_by_length", ours.faster_than(trainers["group_by_length"]), 1.8, 2.5),
        "",
        f"{len(windows):,} windows of at most {data.max_length}, mean"
        f" {np.mean(windows.length):.0f}; ours {real:.0f} real tokens a batch, the Trainer {rows}"
        f" rows. {options.threads} threads; {options.repeats} rounds of {options.steps} steps after"
        f" {options.warm} to warm up, medians. Trainer: bf16=True, eager, fused AdamW, clip 1."
        f" Ours: {CONFIG} as it is (Muon, compiled, guard, logger).",
    ]
    publish("Real tokens a second on documents of all lengths", table, options)


def usual_d_ff(d_model: int) -> int:
    """`DecoderLM`'s own choice of the feed-forward's hidden width."""
    from lightning_embed.model import DecoderLM

    layer = next(DecoderLM(8, d_model, 1, 1).layers())
    return layer.feed_forward.up_proj.out_features


if __name__ == "__main__":
    main()
