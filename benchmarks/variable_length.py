"""Real tokens a second on documents of all lengths: our fit and Hugging Face's Trainer.

    python benchmarks/variable_length.py --peers-python PATH

The default corpus (the standard library's functions and classes) and the default run's network. Two
ways to keep to at most 256 tokens: "windows", ours, cut a long document into several rows; "cut
documents" have a row each and end there, as a tokenizer's truncation does it, so that there is more
to pad. The Trainer has a Llama of the same shape, AdamW, and pads each batch to its longest row,
once in random order and once with its grouping by length. Its rows are as many as hold on average
the real tokens of our batch. Ours runs as it is by default (normalised queries and keys,
Muon) and as a Llama with AdamW, which is what the other side trains. Both sides' real targets are
counted, nothing else. Each side runs in the number format that is fastest for it on this machine,
or all in `--format`.
How to get the peers: see `peers.py`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from peers import (
    PRECISIONS,
    ROOT,
    WAYS,
    Side,
    Sides,
    in_format,
    parse,
    parser,
    publish,
    rounds,
    scratch,
)

from lightning_embed import TextDataModule

CONFIG = "configs/stdlib.yaml"
BARS = {  # by our format, our text and the Trainer's order
    ("bfloat16", "windows", "random"): 3.5,
    ("bfloat16", "windows", "group_by_length"): 1.8,
    ("bfloat16", "cut documents", "random"): 3.5,
    ("bfloat16", "cut documents", "group_by_length"): 1.8,
    ("float32", "cut documents", "random"): 2,
    ("float32", "cut documents", "group_by_length"): 1.3,
}


def main() -> None:
    made = parser(__doc__, warm=40, steps=60, formats=True)
    made.add_argument("--peers-python", required=True, help="Python that has transformers")
    options = parse(made)
    config = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))
    compared = list[tuple[str, list[Side], dict[str, Side]]]()
    notes = list[str]()
    with scratch() as folder, Sides(options) as sides:
        settings = config["data"] | {"cache_dir": str(folder / "cache")}
        whole = TextDataModule(**settings)
        whole.prepared.tokenizer.save(folder / "tokenizer.json")
        cut = {
            "files": str(write_cut_documents(whole, folder / "documents.jsonl")),
            "tokenizer": str(folder / "tokenizer.json"),
        }
        for name, given in {"windows": {}, "cut documents": cut}.items():
            data = TextDataModule(**settings | given)
            loader = data.train_dataloader()
            length = loader.rows.windows.length
            real = float(np.mean(loader.plan.targets))
            rows = max(1, round(real / float(np.mean(length))))
            notes.append(
                f"{name}: {len(length):,}, mean {np.mean(length):.0f}; ours {real:.0f} real tokens"
                f" a batch, the Trainer {rows} rows"
            )
            mine = [
                sides.add(
                    f"{name}, {way}, as {CONFIG} has it ({PRECISIONS[options.format]}, compiled,"
                    " guard, logger)",
                    "side_ours.py",
                    form="fit",
                    arguments=[
                        f"--config={CONFIG}",
                        f"--data.cache_dir={folder / 'cache'}",
                        *(f"--data.{key}={value}" for key, value in given.items()),
                        *flags,
                        *in_format(options),
                        f"--trainer.default_root_dir={folder / 'runs'}",
                        "--trainer.max_steps=100000",
                        "--trainer.limit_val_batches=0",
                    ],
                )
                for way, flags in WAYS.items()
            ]
            windows = folder / name
            windows.mkdir()
            np.save(windows / "starts.npy", loader.rows.windows.start)
            np.save(windows / "lengths.npy", length)
            trainers = {
                sampling: sides.add_best(
                    f"{name}, Hugging Face's Trainer, {sampling}, {{}}, eager, fused AdamW, clip 1",
                    "side_transformers.py",
                    options.peers_python,
                    folder=str(folder / "trainer"),
                    tokens=str(data.prepared.path / "train" / "tokens.bin"),
                    starts=str(windows / "starts.npy"),
                    lengths=str(windows / "lengths.npy"),
                    rows=rows,
                    sampling=sampling,
                    model=llama(config["model"], data),
                )
                for sampling in ("random", "group_by_length")
            }
            compared.append((name, mine, trainers))
        sides.measure()
    table = [
        side.compared(
            f"{name}, {way}, to {sampling}", trainer, BARS.get((options.format, name, sampling))
        )
        for name, mine, trainers in compared
        for side, way in zip(mine, WAYS, strict=True)
        for sampling, trainer in trainers.items()
    ]
    publish("variable_length", f"{'. '.join(notes)}. {rounds(options)}", table, options)


def write_cut_documents(data: TextDataModule, path: Path) -> Path:
    """The training documents cut where `truncation=True, max_length=256` would cut them."""
    split, tokenizer = data.prepared.train, data.prepared.tokenizer
    kept = data.max_length - 2  # <s> and </s> come back
    with path.open("w", encoding="utf-8") as file:
        for begin, end in zip(split.offsets[:-1] + 1, split.offsets[1:] - 1, strict=True):
            text = tokenizer.decode(split.tokens[begin : min(end, begin + kept)].tolist())
            file.write(json.dumps({"text": text}) + "\n")
    return path


def llama(shape: dict[str, Any], data: TextDataModule) -> dict[str, int]:
    """A Llama's configuration of our shape."""
    d_ff = usual_d_ff(shape["d_model"]) if shape.get("d_ff") is None else shape["d_ff"]
    return {
        "hidden_size": shape["d_model"],
        "intermediate_size": d_ff,
        "num_hidden_layers": shape["n_layers"],
        "num_attention_heads": shape["n_heads"],
        "max_position_embeddings": data.max_length,
        "vocab_size": data.prepared.tokenizer.vocab_size,
    }


def usual_d_ff(d_model: int) -> int:
    """`DecoderLM`'s own choice of the feed-forward's hidden width."""
    from lightning_embed.model.decoder import DecoderLM

    layer = next(DecoderLM(8, d_model, 1, 1).layers())
    return layer.feed_forward.up_proj.out_features


if __name__ == "__main__":
    main()
