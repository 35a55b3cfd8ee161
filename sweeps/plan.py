"""`--plan`: the stage tree and what it would cost, for a person."""

from rich.console import Console
from rich.tree import Tree

from sweeps.stages import Stage, Study


def print_plan(console: Console, study: Study) -> None:
    """The stage tree with steps, and what sharing prefixes saves."""
    trained = [stage for stage in study.stages() if stage.steps]
    tree = Tree(f"study {study.name}")
    branches: dict[str, Tree] = {}
    for stage in study.stages():
        above = branches[stage.parent.key] if stage.parent else tree
        branches[stage.key] = above.add(_plan_line(stage))
    console.print(tree, highlight=False)
    console.print(
        f"{len(trained)} stages, {study.tree_steps():,} iterations in place of {study.flat_steps():,} "
        "without shared prefixes",
        highlight=False,
    )


def _plan_line(stage: Stage) -> str:
    return f"{stage.title}: {stage.steps:,} iterations" if stage.steps else f"{stage.title}: evaluated only"
