"""`python -m sweeps.ablation`, from a request to an exit code."""

from collections.abc import Callable
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from sweeps.deblurring.config import Precision
from sweeps.estimate import Estimate
from sweeps.launch import Launch, Request, run, summary
from sweeps.lock import only_driver
from sweeps.naming import counted
from sweeps.plan import print_plan
from sweeps.resources import chains_at_once
from sweeps.stages import Study
from sweeps.stages import flat as as_flat
from sweeps.studies import describe
from sweeps.sweep import LongestChainFirst, StoreError
from sweeps.weights import Found

if TYPE_CHECKING:
    from sweeps.tracking import MLflowTracker


def ablate(request: Request, *, seeds: int, weights: Path | None, flat: bool, plan: bool, budget: float | None) -> int:
    """Train and evaluate a study's rows; the exit code is 1 where a stage failed.

    Raises:
        ValueError, OSError: a user's mistake, in one line.
    """
    launch = Launch(request)
    count = range(1, seeds + 1)
    found = Found.read(weights, request.preset) if weights else None
    if found:
        found.require_unset(request.assignments)

    def weighted(study: Study) -> Study:
        return found.apply(study) if found else study

    def change(study: Study) -> Study:
        return as_flat(weighted(study)) if flat else weighted(study)

    launch.require_machine()
    launch.require_faces()
    if plan:
        tree = launch.study(launch.planned(), seeds=count)
        resources, study = launch.resources(chains_at_once(tree.stages())), change(tree)
        launch.say_if_slow()
        costs = launch.costs(change, count, resources)
        whole = launch.estimate(study.stages(), costs, resources)
        timed_on = f"{launch.device} in {launch.precision} with {counted(resources.cpus, 'thread')} a trial"
        print_plan(launch.console, study, whole, timed_on=timed_on)
        return 0
    with only_driver(request.runs):
        tree = weighted(launch.real_study(count))
        study = as_flat(tree) if flat else tree
        # Of the tree, also for the flat way: another number of threads would change the bits.
        resources = launch.resources(chains_at_once(tree.stages()))
        stages = study.stages()
        tracker = launch.tracker(study, resources, experiment=study.name, beside_ray=budget is None)
        if budget is not None:
            left = [not tracker.find(stage) for stage in stages]
            if any(left):
                costs = list(compress(launch.costs(change, count, resources), left))
                _require_budget(launch.estimate(list(compress(stages, left)), costs, resources), budget)
        tracker.close_abandoned([stage.key for stage in stages])
        published = describe(study, request.preset, count)
        tracker.publish(published)
        launch.say_where()
        sweep, progress = launch.sweep(study, stages, tracker, LongestChainFirst(stages), evaluate=True)
        for stage in sweep.already_done:
            if stage.labels:  # a trial of a search has become a row
                tracker.adopt(stage, study.rows_of(stage))
        if sweep.over():
            launch.console.print(f"Nothing to train: all {len(stages)} stages are in the store already.")
            code = 0
        else:
            _say_other_precision(launch, tracker, lambda precision: change(launch.real_study(count, precision)))
            if code := run(launch, study, sweep, progress, resources):
                return code
            code = summary(launch.console, sweep)
        _register(launch.console, tracker, study, published.curve)
        if flat and not code:
            _compare(launch.console, tracker, tree, study)
        return code


def _say_other_precision(launch: Launch, tracker: "MLflowTracker", study_in: Callable[[Precision], Study]) -> None:
    """Say that the store has rows in another precision: who has them may not want these too."""
    other: Precision = "float32" if launch.precision == "bfloat16" else "bfloat16"
    found = [stage for stage in study_in(other).stages() if stage.steps and tracker.find(stage)]
    if found:
        what = f"The store has {counted(len(found), 'stage')} of this sweep in {other}"
        launch.console.print(
            f"{what}; with --precision {other} it goes on from there.", highlight=False, soft_wrap=True
        )


def _register(console: Console, tracker: "MLflowTracker", study: Study, metric: str) -> None:
    """Give the rows' models their names. All results are in the store by now: where its registry does not answer, or is
    not ours to write to, that is worth a line and no more; the same command tries again."""
    try:
        tracker.register(study.rows, metric)
    except StoreError as error:
        console.print(f"The rows' models could not be registered: {escape(str(error))}", style="yellow")


def _compare(console: Console, tracker: "MLflowTracker", tree: Study, separate: Study) -> None:
    """Say for each row that both ways have trained whether they ended with the same bits."""
    for shared, alone in zip(tree.rows, separate.rows, strict=True):
        pairs = [
            (tracker.digests(one), tracker.digests(other))
            for one, other in zip(shared.stages, alone.stages, strict=True)
            if one.steps
        ]
        if pairs and all(one for one, _ in pairs):
            same = all(one == other for one, other in pairs)
            verdict = "the same bits as with shared prefixes" if same else "NOT the same bits as with shared prefixes"
            console.print(f"{shared.name}: {verdict}", style="" if same else "red", highlight=False)


def _require_budget(whole: Estimate, budget: float) -> None:
    """Refuse what would take more hours than a person allows."""
    if whole.seconds > budget * 3600:
        raise ValueError(
            f"--budget must be at least the {whole.seconds / 3600:.2g} hours that the "
            f"{counted(len(whole.stages), 'stage')} still to do are estimated to take, got {budget:g}"
        )
