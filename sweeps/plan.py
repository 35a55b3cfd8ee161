"""`--plan`: the stage tree and what it would cost, for a person."""

from rich.console import Console
from rich.tree import Tree

from sweeps.estimate import MIB, Estimate, duration
from sweeps.naming import counted
from sweeps.stages import Study


def print_plan(console: Console, study: Study, whole: Estimate, *, timed_on: str) -> None:
    """The stage tree with steps, time and bytes, and what sharing prefixes saves."""
    estimates = {each.stage.key: each for each in whole.stages}
    tree = Tree(f"study {study.name}")
    branches: dict[str, Tree] = {}
    for stage in study.stages():
        above = branches[stage.parent.key] if stage.parent else tree
        branches[stage.key] = above.add(f"{stage.title}: {estimates[stage.key]}")
    console.print(tree, highlight=False)
    trained = sum(bool(stage.steps) for stage in study.stages())
    console.print(
        f"{counted(trained, 'stage')}, {study.tree_steps():,} iterations in place of {study.flat_steps():,} "
        "if every line of the tables were trained from scratch (a row in two tables is two lines)",
        highlight=False,
    )
    console.print(
        f"About {duration(whole.seconds)} with {whole.places} at a time; {whole.kept_bytes / MIB:,.0f} MiB kept, "
        f"at most {whole.peak_bytes / MIB:,.0f} MiB on disk",
        highlight=False,
    )
    console.print(
        f"Timed on {timed_on}, with made-up data. What the store has already is not taken off; --budget does so.",
        highlight=False,
        soft_wrap=True,
    )
