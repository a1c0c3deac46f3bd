"""What padding costs: rows half and three quarters empty, beside the same windows packed.

    python benchmarks/layouts.py

The default run's network and step. Batches of the default corpus' windows, drawn so that half or
three quarters of the positions would be padding with one window in each row of 256; the same
windows, in the same batches, in full rows that hold several. Real tokens a second of both.
"""

import yaml
from peers import ROOT, Side, Sides, parse, parser, publish, rounds, scratch

from lightning_embed import TextDataModule
from lightning_embed.arithmetic import fastest_format

CONFIG = "configs/stdlib.yaml"
SHARES = (0.5, 0.75)


def main() -> None:
    options = parse(parser(__doc__, warm=30, steps=30))
    config = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))
    with scratch() as folder, Sides(options) as sides:
        settings = config["data"] | {"cache_dir": str(folder / "cache")}
        data = TextDataModule(**settings)
        precision = fastest_format("cpu").precision

        def side(layout: str, share: float) -> Side:
            return sides.add(
                f"{layout}, where {share:.0%} of one-window rows would be padding",
                "side_ours.py",
                form="layout",
                layout=layout,
                padding=share,
                vocab_size=data.prepared.tokenizer.vocab_size,
                rows=config["data"]["tokens_per_batch"] // data.max_length,
                length=data.max_length,
                device="cpu",
                precision=precision,
                model=config["model"],
                data=settings,
            )

        pairs = [(share, side("padded", share), side("packed", share)) for share in SHARES]
        sides.measure()
    rows = [
        padded.compared(f"{share:.0%} padding to packed", packed, 0.97)
        for share, padded, packed in pairs
    ]
    publish("layouts", f"{CONFIG}, {precision}. {rounds(options)}", rows, options)


if __name__ == "__main__":
    main()
