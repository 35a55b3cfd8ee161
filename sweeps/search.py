"""`python -m sweeps.search [STUDY]`: tune what the rows of a study leave open, such as the weights of losses."""

from pathlib import Path
from typing import Any

import click

from sweeps import cli


@click.command(name="sweeps.search")
@cli.sweep_options
@click.option("--trials", default=16, show_default=True, type=click.IntRange(2, 10_000), help="Trials for each row.")
@click.option(
    "--row",
    "rows",
    multiple=True,
    metavar="ROW",
    help="Repeatable. Default: each row that the study says is worth it, in order.",
)
@click.option(
    "--over",
    multiple=True,
    metavar="FIELD=LOW..HIGH",
    help="A real-valued field of the row's last stage, as losses.structure=0.1..10; repeatable. On a logarithmic scale "
    "unless LOW is 0. Default: what the study says is worth it.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(1), help="Seed of the trials' training.")
@click.option(
    "--factor", default=3, show_default=True, type=click.IntRange(2), help="One in so many goes on at a rung."
)
@click.option(
    "--rungs", "levels", default=3, show_default=True, type=click.IntRange(1, 10), help="How often to compare."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Rows are added to it. Default: search/STUDY-PRESET.json under --runs.",
)
def main(**options: Any) -> int:
    """Search the open values of STUDY's rows; `python -m sweeps.ablation --weights` takes what is found.

    The trials of a row start from its parent stage's checkpoint. At each rung the best go on from where they paused.
    """
    from sweeps.launch import Request
    from sweeps.run_search import search

    own = {name: options.pop(name) for name in ("trials", "rows", "over", "seed", "factor", "levels", "out")}
    return search(Request(**options), **own)


if __name__ == "__main__":
    cli.run(main)
