"""What Lightning's loop, logger, progress, guard, checkpoints and the rest add to a step.

    python benchmarks/lightning_overhead.py

The default run (`configs/stdlib.yaml`, whole program) against a bare loop over the same batches in
the same order, with the same network, precision, compiled parts, clip, optimizer and schedule. Both
take turns over the same stretch of steps; validation is left out, as it is no part of a step.

Each is started several times: where a process' memory happens to lie makes its steps one or two per
cent faster or slower for as long as it lives, which is as much as is to be measured here.
"""

import statistics
from collections.abc import Iterable

import yaml
from peers import ROOT, Side, Sides, parse, parser, publish, rounds, scratch
from results import Measured, Row

from lightning_embed import TextDataModule
from lightning_embed.arithmetic import fastest_format

CONFIG = "configs/stdlib.yaml"


def main() -> None:
    made = parser(__doc__, warm=40, steps=60)
    made.add_argument("--pairs", type=int, default=5, help="how often each is started")
    options = parse(made)
    config = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))
    with scratch() as folder, Sides(options) as sides:
        settings = config["data"] | {"cache_dir": str(folder / "cache")}
        data = TextDataModule(**settings)
        precision = fastest_format("cpu").precision

        def start(number: int) -> tuple[Side, Side]:
            fit = sides.add(
                f"Lightning, process {number}",
                "side_ours.py",
                form="fit",
                arguments=[
                    f"--config={CONFIG}",
                    f"--data.cache_dir={folder / 'cache'}",
                    f"--trainer.default_root_dir={folder / 'runs'}",
                    "--trainer.accelerator=cpu",
                    "--trainer.max_steps=100000",
                    "--trainer.limit_val_batches=0",
                ],
            )
            bare = sides.add(
                f"a bare loop, process {number}",
                "side_ours.py",
                form="bare",
                vocab_size=data.prepared.tokenizer.vocab_size,
                length=data.max_length,
                precision=precision,
                model=config["model"],
                data=settings,
            )
            return fit, bare

        pairs = [start(number + 1) for number in range(options.pairs)]
        sides.measure()
    ratios = [fit.slower_step_than(bare) for fit, bare in pairs]

    def middle(sides: Iterable[Side]) -> dict[str, float]:
        return {"ms a step": 1000 * statistics.median(side.step for side in sides)}

    row = Row(
        "Lightning's time per step to a bare loop's",
        Measured("the default run, whole program", middle(fit for fit, _ in pairs)),
        Measured("a bare loop over the same batches", middle(bare for _, bare in pairs)),
        statistics.median(ratios),
        at_most=1.03,
    )
    how = (
        f"{CONFIG}, {precision}, compiled. {rounds(options)} The median of {len(ratios)} pairs of"
        f" processes: {', '.join(f'{ratio:.3f}' for ratio in sorted(ratios))}."
    )
    publish("lightning_overhead", how, [row], options)


if __name__ == "__main__":
    main()
