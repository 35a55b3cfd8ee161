"""`python -m benchmarks.step_cost`: what a step costs against batch, image size, width and scales, as a figure.

Each panel varies one of them around the quick preset's multi-task content stage, in the precision that a sweep would
choose, on one core. The model is the number of operations in the step's convolutions, counted from their shapes, at the
rate of the best convolution of the same minute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.comparison import require_writable
from benchmarks.made_up import config_of, made_up_stages
from benchmarks.rates import GIGA, best_convolution, seconds_each, step_operations
from sweeps import cli
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.overrides import apply_overrides
from sweeps.presets import quick
from sweeps.resources import this_machine

PANELS: Mapping[str, tuple[str, Sequence[int]]] = {
    "Batch": ("batch_size", (1, 2, 4, 8, 16)),
    "Image size (pixels)": ("data.image_size", (32, 64, 128)),
    "Width (channels)": ("generator.width", (8, 16, 32, 64)),
    "Scales": ("generator.scales", (1, 2, 3)),
}
"""Heading, field and values."""
TICKS = (0.03, 0.1, 0.3, 1, 3)
TIMED = 1.0
"""Seconds for which each step is done again."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A step with one field changed: seconds taken, and seconds at the best convolution's rate."""

    value: int
    taken: float
    model: float


def measure(field: str, value: int, cache: Path) -> Point:
    """Time the step of a multi-task content stage."""
    config = apply_overrides(quick().config, [f"{field}={value}"])
    stages = made_up_stages(config, cache, faces=2, device="cpu", machine=this_machine())
    stage = config_of(next(each for each in stages if each.name == "multi-task · content"))
    if field == "generator.scales":  # which the study's rows decide
        stage = replace(stage, generator=replace(stage.generator, scales=value))
    learner = TrainingLearner(stage, seed=1, execution=Execution(), cache=cache)
    operations = step_operations(stage, cache)
    rate = best_convolution(stage.precision).rate(at_least=TIMED)
    return Point(value=value, taken=seconds_each(learner.step, at_least=TIMED), model=operations / rate / GIGA)


@click.command(name="benchmarks.step_cost")
@click.option(
    "--out", default=Path("runs/step-cost.png"), show_default=True, type=click.Path(path_type=Path, dir_okay=False)
)
def main(out: Path) -> int:
    """Measure, print a table and draw the figure."""
    require_writable(out)
    torch.set_num_threads(1)
    table = Table(box=None)
    for heading in ("", "", "taken", "model", "model / taken"):
        table.add_column(heading, justify="right")
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 3.4), sharey=True, layout="constrained")
    for axis, (heading, (field, values)) in zip(axes, PANELS.items(), strict=True):
        with TemporaryDirectory() as folder:
            points = [measure(field, value, Path(folder) / str(value)) for value in values]
        for each in points:
            row = (f"{1000 * each.taken:.0f} ms", f"{1000 * each.model:.0f} ms", f"{each.model / each.taken:.2f}")
            table.add_row(heading, str(each.value), *row)
        axis.loglog(values, [each.taken for each in points], "o-", label="measured")
        axis.loglog(values, [each.model for each in points], "k--", label="at the best rate")
        axis.set_xlabel(heading)
        axis.set_xticks(values, [str(value) for value in values])
        axis.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("Seconds a step")
    axes[0].legend(frameon=False, loc="upper left")
    figure.savefig(out, dpi=150)
    Console().print(table)
    click.echo(f"wrote {out}")
    return 0


if __name__ == "__main__":
    cli.run(main)
