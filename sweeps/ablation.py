"""`python -m sweeps.ablation [STUDY]`: train and evaluate every row of a study."""

from pathlib import Path
from typing import Any

import click

from sweeps import cli


@click.command(name="sweeps.ablation")
@cli.sweep_options
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 1000), help="Number of seeds: 1 to N.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="SEARCH",
    help="The file that `python -m sweeps.search` wrote: each row that it names is trained with what was found for it.",
)
@click.option("--flat", is_flag=True, help="Train each row from scratch, to check that sharing changes nothing.")
@click.option("--plan", is_flag=True, help="Print the stage tree, hours and bytes, and leave; writes nothing.")
@click.option(
    "--budget", type=click.FloatRange(0, min_open=True), metavar="HOURS", help="Refuse a sweep that would take longer."
)
def main(seeds: int, weights: Path | None, flat: bool, plan: bool, budget: float | None, **options: Any) -> int:
    """Train and evaluate the rows of STUDY (tables or controls); what the store already has is not trained again."""
    from sweeps.launch import Request
    from sweeps.run_ablation import ablate

    return ablate(Request(**options), seeds=seeds, weights=weights, flat=flat, plan=plan, budget=budget)


if __name__ == "__main__":
    cli.run(main)
