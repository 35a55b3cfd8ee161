"""What the commands do: `ablate` and `search`, each from a request to an exit code."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweeps import cli
from sweeps.estimate import Cost
from sweeps.halving import rungs
from sweeps.launch import Launch, Request, only_driver, run_sweep
from sweeps.plan import print_plan
from sweeps.progress import Progress
from sweeps.resources import Resources, chains_at_once
from sweeps.stages import Range, Space, Stage, Study
from sweeps.stages import flat as as_flat
from sweeps.studies import describe
from sweeps.sweep import LongestChainFirst, State, Sweep
from sweeps.tuning import Search, Trial, current_values
from sweeps.weights import Found, RowFound

if TYPE_CHECKING:
    from sweeps.tracking import MLflowTracker

METRIC = "validation/psnr"


def ablate(request: Request, *, seeds: int, weights: Path | None, flat: bool, plan: bool, budget: float | None) -> int:
    """Train and evaluate a study's rows; the exit code is 1 where a stage failed.

    Raises:
        ValueError, OSError: a user's mistake, in one line.
    """
    launch = Launch(request)
    count = range(1, seeds + 1)
    found = Found.read(weights, request.preset) if weights else None

    def change(study: Study) -> Study:
        study = found.apply(study) if found else study
        return as_flat(study) if flat else study

    if plan:
        study = change(launch.study(launch.planned(), seeds=count))
        resources = launch.resources(chains_at_once(study.stages()))
        costs = launch.costs(change, count, resources)
        print_plan(launch.console, study, launch.estimate(study.stages(), costs, resources))
        return 0
    with only_driver(request.runs):
        tree = launch.real_study(count)
        tree = found.apply(tree) if found else tree
        study = as_flat(tree) if flat else tree
        # Of the tree, also for the flat way: another number of threads would change the bits.
        resources = launch.resources(chains_at_once(tree.stages()))
        stages = study.stages()
        tracker = launch.tracker(study, resources, experiment=study.name)
        if budget is not None:
            _require_budget(launch, stages, tracker, launch.costs(change, count, resources), resources, budget)
        tracker.close_abandoned([stage.key for stage in stages])
        tracker.publish(describe(study, request.preset, count))
        launch.say_where()
        sweep, progress = launch.sweep(study, stages, tracker, LongestChainFirst(stages), evaluate=True)
        for stage in sweep.already_done:
            if stage.labels:  # a trial of a search has become a row
                tracker.adopt(stage, study.rows_of(stage))
        if sweep.over():
            launch.console.print(f"Nothing to train: all {len(stages)} stages are in the store already.")
            code = 0
        else:
            code = _run(launch, study, sweep, progress, resources) or _summary(launch.console, sweep)
        if flat and not code:
            _compare(launch.console, tracker, tree, study)
        return code


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


def _require_budget(
    launch: Launch,
    stages: Sequence[Stage],
    tracker: "MLflowTracker",
    costs: Sequence[Cost],
    resources: Resources,
    budget: float,
) -> None:
    """Refuse what would take more hours than a person allows; what the store has takes none."""
    left = [(stage, cost) for stage, cost in zip(stages, costs, strict=True) if not tracker.find(stage)]
    whole = launch.estimate([stage for stage, _ in left], [cost for _, cost in left], resources)
    if whole.seconds > budget * 3600:
        raise ValueError(
            f"--budget must be at least the {whole.seconds / 3600:.2g} hours that the {len(left)} stages still to do "
            f"are estimated to take, got {budget:g}"
        )


def search(
    request: Request,
    *,
    trials: int,
    seed: int,
    rows: Sequence[str],
    over: Sequence[str],
    factor: int,
    levels: int,
    out: Path | None,
) -> int:
    """Search the values of rows, one after another, each on top of what was found for those before it.

    Raises:
        ValueError, OSError: a user's mistake, in one line.
    """
    launch = Launch(request)
    planned = launch.study(launch.planned(), seeds=[seed])
    spaces = _spaces(planned, rows, over)
    for space in spaces:
        current_values(_last_stage(planned, space.row), space)
    file = out or request.runs / "search" / f"{request.study}-{request.preset}.json"
    found = Found.read(file, request.preset) if file.exists() else Found(preset=request.preset, seed=seed, rows={})
    if found.seed != seed:
        raise ValueError(f"--out must be a new file or one of seed {seed}, got one of seed {found.seed}: {file}")
    found = found.without({space.row for space in spaces})
    with only_driver(request.runs):
        plain = launch.real_study([seed])
        resources = launch.resources(trials)
        tracker = launch.tracker(plain, resources, experiment=f"{plain.name}-search")
        launch.say_where()
        failed: list[Stage] = []
        for space in spaces:
            study = found.apply(plain)
            base = _last_stage(study, space.row)
            if code := _train_parents(launch, study, base, tracker, resources):
                return code
            schedule = Search(
                base=base,
                space=space,
                trials=trials,
                rungs=rungs(steps=base.steps, factor=factor, count=levels, multiple=launch.preset.log_every),
                factor=factor,
                metric=METRIC,
                history=tracker,
            )
            tracker.close_abandoned([stage.key for stage in schedule.stages])
            sweep, progress = launch.sweep(study, schedule.stages, tracker, schedule, evaluate=False)
            if not sweep.over() and (code := _run(launch, study, sweep, progress, resources)):
                return code
            best = schedule.best(sweep)
            _show_search(launch.console, schedule, sweep)
            failed = [*failed, *sweep.all_in(State.FAILED)]
            if best is None:
                return 1
            found = found.with_row(
                space.row,
                RowFound(
                    values=best.values,
                    metric=METRIC,
                    value=best.measured[base.steps],
                    trials=trials,
                    search=schedule.id,
                ),
            )
            found.write(file)
    launch.console.print("To train the rows with these values, give `python -m sweeps.ablation` the same options and")
    launch.console.print(f"    --weights {escape(str(file))}", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _train_parents(launch: Launch, study: Study, base: Stage, tracker: "MLflowTracker", resources: Resources) -> int:
    parents = list(base.chain())[:-1]
    sweep, progress = launch.sweep(study, parents, tracker, LongestChainFirst(parents), evaluate=False)
    if sweep.over():
        return 0
    return _run(launch, study, sweep, progress, resources) or _summary(launch.console, sweep)


def _run(launch: Launch, study: Study, sweep: Sweep, progress: Progress, resources: Resources) -> int:
    return run_sweep(launch.console, sweep, progress, launch.engine(study, resources))


def _spaces(study: Study, rows: Sequence[str], over: Sequence[str]) -> list[Space]:
    """What to search: the study's own spaces, those of some rows, or given ranges of one row."""
    if not over:
        known = {space.row: space for space in study.spaces}
        return [cli.lookup(known, row, "--row") for row in rows] or list(known.values())
    if len(rows) != 1:
        raise ValueError(f"--over needs one --row whose fields it names, got {len(rows)}")
    cli.lookup({row.name: row for row in study.rows if row.stages[0].steps}, rows[0], "--row")
    return [Space(row=rows[0], ranges=tuple(_range(text) for text in over))]


def _range(text: str) -> Range:
    """FIELD=LOW..HIGH."""
    field, _, bounds = text.partition("=")
    low, _, high = bounds.partition("..")
    try:
        each = Range(field=field, low=float(low), high=float(high))
    except ValueError:
        each = None
    if each is None or not 0 <= each.low < each.high < math.inf:
        raise ValueError(
            f"--over must be FIELD=LOW..HIGH with 0 <= LOW < HIGH, as losses.perceptual=1e-5..1e-2, got {text[:80]!r}"
        )
    return each


def _last_stage(study: Study, row: str) -> Stage:
    return next(each.stages[0] for each in study.rows if each.name == row)


def _standing(trial: Trial) -> tuple[int, float]:
    step = trial.last_step()
    return step, trial.measured.get(step, -math.inf)


def _show_search(console: Console, schedule: Search, sweep: Sweep) -> None:
    """The trials, the best first, what was spent, and what mattered."""
    best = schedule.best(sweep)
    table = Table(
        title=f"Search {schedule.id}, row {schedule.space.row}", title_justify="left", box=None, pad_edge=False
    )
    for heading in ("trial", *(each.field for each in schedule.space.ranges), "step", "PSNR", ""):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for trial in sorted(schedule.trials, key=_standing, reverse=True):
        step = trial.last_step()
        state = str(sweep.states[trial.stage.key])
        notes = [
            "best" if trial is best else "",
            "as it was" if trial.number == 0 else "",
            state if state != "done" else "",
        ]
        table.add_row(
            str(trial.number),
            *(f"{trial.values[each.field]:.3g}" for each in schedule.space.ranges),
            f"{step:,}",
            f"{trial.measured[step]:.2f}" if step else "",
            ", ".join(note for note in notes if note),
            style="bold" if trial is best else "",
        )
    console.print(table)
    spent = sum(trial.last_step() for trial in schedule.trials)
    full = schedule.full_steps()
    console.print(
        f"{spent:,} steps in place of {full:,} ({spent / full:.0%}), {sweep.executed:,} of them now.", highlight=False
    )
    if shares := schedule.importances(sweep):
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        console.print(f"Importance at the first rung (fANOVA): {listed}", highlight=False)
    for stage in sweep.all_in(State.FAILED):
        console.print(f"failed:  {escape(stage.title)}", style="red")


def _summary(console: Console, sweep: Sweep) -> int:
    failed, skipped = sweep.all_in(State.FAILED), sweep.all_in(State.SKIPPED)
    console.print(
        f"{len(sweep.trained)} stages trained ({sweep.executed:,} steps), {len(sweep.evaluated)} only evaluated, "
        f"{len(sweep.already_done)} were in the store already, {len(failed)} failed, {len(skipped)} skipped."
    )
    if sweep.repeated:
        console.print(f"{sweep.repeated:,} of the steps were done again: lost after the last checkpoint.")
    for stage in failed:
        console.print(f"failed:  {escape(stage.title)}", style="red")
    for stage in skipped:
        console.print(f"skipped: {escape(stage.title)}", style="yellow")
    return 1 if failed else 0
