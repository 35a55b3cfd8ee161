"""`python -m sweeps.search`, from a request to an exit code."""

import math
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweeps import cli
from sweeps.halving import rungs
from sweeps.launch import Launch, Request, run, summary
from sweeps.lock import only_driver
from sweeps.record import SearchRecord, search_experiment
from sweeps.resources import Resources
from sweeps.stages import Range, Space, Stage, Study
from sweeps.suggest import TRIALS_FOR_IMPORTANCE
from sweeps.sweep import LongestChainFirst, State, Sweep
from sweeps.tuning import Search, Trial, current_values
from sweeps.weights import Found, RowFound

if TYPE_CHECKING:
    from sweeps.tracking import MLflowTracker

METRIC = "validation/psnr"


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
    launch.require_machine()
    launch.require_faces()
    file = out or request.runs / "search" / f"{request.study}-{request.preset}.json"
    found = Found.read(file, request.preset) if file.exists() else Found(preset=request.preset, seed=seed, rows={})
    if found.seed != seed:
        raise ValueError(f"--out must be a new file or one of seed {seed}, got one of seed {found.seed}: {file}")
    found = found.without({space.row for space in spaces})
    with only_driver(request.runs):
        plain = launch.real_study([seed])
        resources = launch.resources(trials)
        tracker = launch.tracker(plain, resources, experiment=search_experiment(plain.name))
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
            if not sweep.over() and (code := run(launch, study, sweep, progress, resources)):
                return code
            best, shares = schedule.best(sweep), schedule.importances(sweep)
            _show_search(launch.console, schedule, sweep, shares)
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
                    settings=request.assignments,
                ),
            )
            found.write(file)
            tracker.publish_search(_record(schedule, best, shares, study=plain.name, preset=request.preset))
    launch.console.print(
        "`python -m sweeps.ablation` trains the rows with these values, given the options of the study and"
    )
    options = " ".join([*(f"--set {quote(each)}" for each in request.assignments), f"--weights {file}"])
    launch.console.print(f"    {escape(options)}", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _train_parents(launch: Launch, study: Study, base: Stage, tracker: "MLflowTracker", resources: Resources) -> int:
    parents = list(base.chain())[:-1]
    sweep, progress = launch.sweep(study, parents, tracker, LongestChainFirst(parents), evaluate=False)
    if sweep.over():
        return 0
    return run(launch, study, sweep, progress, resources) or summary(launch.console, sweep)


def _spaces(study: Study, rows: Sequence[str], over: Sequence[str]) -> list[Space]:
    """What to search: the study's own spaces, those of some rows, or given ranges of one row."""
    trained = {row.name: row for row in study.rows if row.stages[0].steps}
    for row in rows:
        cli.lookup(trained, row, "--row")
    if not over:
        known = {space.row: space for space in study.spaces}
        for row in rows:
            if row not in known:
                raise ValueError(
                    f"--row {row} needs --over FIELD=LOW..HIGH; study {study.name!r} has ranges of its own "
                    f"for {', '.join(known)}"
                )
        return [known[row] for row in rows] or list(known.values())
    if len(rows) != 1:
        raise ValueError(f"--over needs one --row whose fields it names, got {', '.join(rows) or 'none'}")
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


def _record(schedule: Search, best: Trial, shares: dict[str, float], *, study: str, preset: str) -> SearchRecord:
    default = schedule.trials[0]
    return SearchRecord(
        id=schedule.id,
        study=study,
        preset=preset,
        row=schedule.space.row,
        metric=schedule.metric,
        first_step=best.stage.first_step,
        rungs=list(schedule.rungs),
        ranges={each.field: (each.low, each.high) for each in schedule.space.ranges},
        trials=len(schedule.trials),
        best=best.values,
        importances=shares,
        default_key=default.stage.key,
        defaults=default.values,
    )


def _show_search(console: Console, schedule: Search, sweep: Sweep, shares: dict[str, float]) -> None:
    """The trials, the best first, what was spent, and each field's share of the importance."""
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
    if best and best.number == 0:
        console.print("No trial was better than the row as it was.")
    spent = sum(trial.last_step() for trial in schedule.trials)
    full = schedule.full_steps()
    console.print(
        f"{spent:,} steps in place of {full:,} ({spent / full:.0%}), {sweep.executed:,} of them now.", highlight=False
    )
    if shares:
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        console.print(f"Importance at the first rung (fANOVA): {listed}", highlight=False)
    else:
        console.print(f"Importance (fANOVA): needs {TRIALS_FOR_IMPORTANCE} trials that reached the first rung.")
    for stage in sweep.all_in(State.FAILED):
        console.print(f"failed:  {escape(stage.title)}", style="red")
