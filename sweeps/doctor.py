"""`python -m sweeps.doctor [STUDY]`: what would go wrong in a sweep with the same options, and how to mend it."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from sweeps import checkup, cli
from sweeps.checkup import Level


@click.command(name="sweeps.doctor")
@cli.sweep_options
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 1000), help="Number of seeds: 1 to N.")
@click.option(
    "--weights", type=click.Path(path_type=Path), metavar="SEARCH", help="A file of `python -m sweeps.search`."
)
def main(seeds: int, weights: Path | None, **options: Any) -> int:
    """Check what usually goes wrong, before hours are spent on STUDY. Takes the sweep's options; writes nothing."""
    from sweeps.examine import examine
    from sweeps.launch import Request

    findings = examine(Request(**options), seeds=range(1, seeds + 1), weights=weights)
    return checkup.show(Console(), [*checkup.installation(), *findings])


def run() -> None:
    """The command. With another package in the way, or without one that it needs, nothing else can be looked at."""
    installation = checkup.installation()
    if any(finding.level == Level.WRONG for finding in installation):
        sys.exit(checkup.show(Console(), installation))
    cli.run(main)


if __name__ == "__main__":
    run()
