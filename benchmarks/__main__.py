"""`python -m benchmarks [NAME ...]`: run benchmarks, print one table and write it as JSON."""

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from benchmarks.comparison import Comparison, read, show, write
from sweeps import cli

BENCHMARKS = {
    "steps": "steps",
    "at-once": "at_once",
    "data": "data_making",
    "metrics": "metrics",
    "inference": "inference",
    "gpu": "gpu",
    "overhead": "overhead",
    "quick-preset": "quick_preset",
    "report": "large_report",
    "memory": "memory",
}
"""Modules, imported when they are run: where there is no Ray, those run that need none."""
ON_REQUEST = ("memory",)
"""Takes four times the memory of a trial of the paper's preset, and minutes."""


@click.command(name="benchmarks")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="The table shows their median.")
@click.option(
    "--out",
    default=Path("runs/benchmarks.json"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A JSON file.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The JSON file of an earlier run: its ratios are shown too, and what became worse is named.",
)
def main(names: tuple[str, ...], repeats: int, out: Path, against: Path | None) -> int:
    """Run the benchmarks named (steps, at-once, data, metrics, inference, gpu, overhead, quick-preset, report, memory;
    default: all but memory). Exit code 1: a limit is broken."""
    default = [name for name in BENCHMARKS if name not in ON_REQUEST]
    modules = {name: cli.lookup(BENCHMARKS, name, "the benchmark") for name in names or default}
    earlier = read(against) if against else {}
    groups: dict[str, list[Comparison]] = {}
    for name, module in modules.items():
        compare = import_module(f"benchmarks.{module}").compare
        with TemporaryDirectory(prefix=f"{name}-") as folder:
            groups[name] = compare(repeats=repeats, folder=Path(folder))
    show(groups, Console(), earlier)
    write(groups, out)
    click.echo(f"wrote {out}")
    return int(any(each.broken for comparisons in groups.values() for each in comparisons))


if __name__ == "__main__":
    cli.run(main)
