"""`python -m benchmarks [NAME ...]`: run benchmarks, print one table and write it as JSON."""

import os
from importlib import import_module
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
from rich.console import Console

from benchmarks.comparison import Comparison, in_one_line, machine, read, require_writable, show, timed, write
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


@click.command(
    name="benchmarks",
    help=f"Run the benchmarks named ({', '.join(BENCHMARKS)}; default: all but {', '.join(ON_REQUEST)}). "
    "Exit code 1: a limit is broken.",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="The table shows their median.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A JSON file. Default: runs/benchmarks.json, or runs/benchmarks-NAME.json of those named.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The JSON file of an earlier run: its ratios are shown too, and what became worse is named: where each of the "
    "repeats, of three at least, is worse than each of the earlier ones. The exit code does not tell.",
)
def main(names: tuple[str, ...], repeats: int, out: Path | None, against: Path | None) -> int:
    """Run benchmarks; what was measured is written after each of them."""
    default = [name for name in BENCHMARKS if name not in ON_REQUEST]
    modules = {name: cli.lookup(BENCHMARKS, name, "the benchmark") for name in names or default}
    earlier = read(against) if against else None
    out = out or Path("runs") / f"{'-'.join(['benchmarks', *names])}.json"
    here = machine()
    if against and out.resolve() == against.resolve():
        raise ValueError(f"--against must be another file than what is written, got {against}; keep it elsewhere")
    require_writable(out)
    groups: dict[str, list[Comparison]] = {}
    for name, module in modules.items():
        click.echo(f"{name} …", err=True, nl=False)
        seconds = timed(lambda name=name, module=module: groups.update({name: measure(name, module, repeats)}))
        click.echo(f" {seconds:.0f} s", err=True)
        write(groups, out, on=here)
    show(groups, Console(), on=here, earlier=earlier)
    click.echo(f"wrote {out}")
    return int(any(each.broken for each in chain(*groups.values())))


def measure(name: str, module: str, repeats: int) -> list[Comparison]:
    """The comparisons of a benchmark, which leaves all as it was; where it can't run, the reason in their place."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    with TemporaryDirectory(prefix=f"{name}-") as folder:
        try:
            compare = import_module(f"benchmarks.{module}").compare
            comparisons: list[Comparison] = compare(repeats=repeats, folder=Path(folder))
        except Exception as error:  # of libraries that others wrote: it must not take the other benchmarks along
            comparisons = [Comparison(name=name, missing=in_one_line(error), failed=True)]
        finally:
            os.environ.clear()
            os.environ.update(environment)
            torch.set_num_threads(threads)
    return comparisons


if __name__ == "__main__":
    cli.run(main)
