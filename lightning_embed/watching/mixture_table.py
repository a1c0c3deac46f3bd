"""What a run of several named sources says of each: how much of it an epoch has, and how well it is
predicted."""

from collections.abc import Mapping, Sequence

import numpy as np

from lightning_embed.console import say, short
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.data.mixture import Ingredient

NAME = 20  # characters
TELLING = 0.0005  # of a share, which is shown in tenths of a percent


def say_mixture(data: TextDataModule) -> None:
    """Tokens, share and passes of each source, and where a share is not what was asked for."""
    say_ingredients(ingredients(data), data.max_passes if data.mixture else None)


def say_ingredients(rows: Sequence[Ingredient], max_passes: float | None) -> None:
    """The same of what is found already; `max_passes` is None where no shares are asked for."""
    if not rows:
        return
    head = f"{'source':<{NAME}}  {'tokens':>7}  {'asked':>7}  {'share':>7}  passes an epoch"
    say("mixture", head)
    for row in rows:
        asked = f"{100 * row.asked:5.1f} %" if max_passes else "-"
        share = f"{100 * row.had:5.1f} %"
        line = f"{row.name[:NAME]:<{NAME}}  {short(row.tokens):>7}  {asked:>7}  {share:>7}"
        say("", f"{line}  {row.passes:.2f}")
    if max_passes is None:
        return
    limited = [row.name for row in rows if row.asked and row.passes >= max_passes]
    short_of = [row.name for row in rows if row.asked - row.had > TELLING]
    if any(abs(row.had - row.asked) > TELLING for row in rows):
        limited = limited or short_of
        names = ", ".join(limited)
        say(
            "note",
            f"{names}: too small for the share asked at {max_passes:g} passes an epoch;"
            " --data.max_passes allows more",
        )


def ingredients(data: TextDataModule) -> list[Ingredient]:
    """Of a mixture, or of named sources that are taken as they are; else none."""
    if data.mixture is not None:
        return data.mixture.ingredients
    prepared = data.prepared
    names, split = prepared.report.named, prepared.train
    if not names:
        return []
    targets = np.diff(split.offsets) - 1
    tokens = np.bincount(prepared.report.named_of_source[split.source], targets, len(names))
    shares = tokens / tokens.sum()
    return [
        Ingredient(name, int(n), share, share, 1.0)
        for name, n, share in zip(names, tokens, shares.tolist(), strict=True)
    ]


def say_by_name(by_name: Mapping[str, Mapping[str, float]]) -> None:
    """Loss and bits per byte of each source, the hardest first."""
    if len(by_name) < 2:
        return
    say("by source", f"{'':<{NAME}}     loss  bits/byte")
    for name, its in sorted(by_name.items(), key=lambda item: -item[1]["bits_per_byte"]):
        say("", f"{name[:NAME]:<{NAME}}  {its['loss']:7.4f}  {its['bits_per_byte']:9.4f}")
