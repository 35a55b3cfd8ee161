"""What a sweep cost: iterations, hours of work, hours of devices; and what sharing the stages saved."""

import re
from collections.abc import Mapping, Sequence

from analysis.document import Column, Grid, Note, Text
from analysis.load import FINISHED, StageRun, Sweep
from sweeps import record


def cost_grid(sweep: Sweep, stages: Mapping[str, Sequence[StageRun]]) -> Grid:
    """A line per stage, their sum, and the same if every line of the tables had been trained from scratch."""
    trained = {stage: done for stage, runs in stages.items() if (done := [run for run in runs if _is_training(run)])}
    every = [run for runs in trained.values() for run in runs]
    scratch = [
        each
        for table in sweep.record.tables
        for row in table.rows
        for run in sweep.row_runs(row).values()
        if run and row.trained
        for each in sweep.chain(run)
        if _is_training(each)
    ]
    units = sorted({_unit(run) for run in every} - {""})
    rows = [
        *(_row(stage, runs, units) for stage, runs in trained.items()),
        _row("All stages", every, units, bold=True),
        _row("Each line from scratch", scratch, units),
    ]
    saved = sum(map(_steps, scratch)) - sum(map(_steps, every))
    share = f" ({saved / sum(map(_steps, scratch)):.0%})" if scratch else ""
    return Grid(
        name="cost",
        title="Cost",
        caption=f"What the rows of the tables took to train and evaluate (preset {sweep.record.preset}).",
        columns=(
            Column(heading="Stage", numeric=False),
            Column(heading="Seeds"),
            Column(heading="Iterations"),
            Column(heading="Training, h"),
            Column(heading="Evaluation, h"),
            *(Column(heading=f"{unit} hours") for unit in units),
        ),
        labels=1,
        rows=tuple(rows),
        notes=(
            Note(
                text=f"Shared stages saved {saved:,} iterations{share} of training each line of the tables from "
                "scratch; a row in two tables is two lines."
            ),
            Note(text="Of finished stages; work that was lost with a killed process is not counted."),
        ),
    )


def _row(name: str, runs: Sequence[StageRun], units: Sequence[str], bold: bool = False) -> tuple[Text, ...]:
    training = _hours(runs, record.TRAINING_SECONDS)
    evaluation = _hours(runs, record.EVALUATION_SECONDS)
    seeds = {run.tags.get(record.TAG_SEED, "") for run in runs}
    cells = [
        Text(text=f"{len(seeds):,}", value=len(seeds)),
        Text(text=f"{sum(map(_steps, runs)):,}", value=sum(map(_steps, runs))),
        _hours_text(training),
        _hours_text(evaluation),
        *(_hours_text(_device_hours(runs, unit)) for unit in units),
    ]
    return tuple(Text(text=each.text, value=each.value, bold=bold) for each in (Text(text=name), *cells))


def _is_training(run: StageRun) -> bool:
    return run.status == FINISHED and _steps(run) > 0


def _steps(run: StageRun) -> int:
    text = run.params.get("steps", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _seconds(run: StageRun) -> float:
    return sum(run.metrics.get(name, 0.0) for name in (record.TRAINING_SECONDS, record.EVALUATION_SECONDS))


def _hours(runs: Sequence[StageRun], metric: str) -> float | None:
    """Hours of all runs; None where one of them did not record any, as it did not finish."""
    found = [run.metrics.get(metric) for run in runs]
    known = [value for value in found if value is not None]
    return sum(known) / 3600 if len(known) == len(found) else None


def _device_hours(runs: Sequence[StageRun], unit: str) -> float | None:
    """Hours of one kind of device; None where a run does not say what it had, or had more than one share."""
    if any(record.TRAINING_SECONDS not in run.metrics or not _unit(run) for run in runs):
        return None
    return sum(_share(run) * _seconds(run) for run in runs if _unit(run) == unit) / 3600


def _devices(run: StageRun) -> tuple[float, str]:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ([A-Za-z]+)", run.tags.get(record.TAG_DEVICES, ""))
    return (float(found[1]), found[2].removesuffix("s")) if found else (0.0, "")


def _share(run: StageRun) -> float:
    return _devices(run)[0]


def _unit(run: StageRun) -> str:
    return _devices(run)[1]


def _hours_text(value: float | None) -> Text:
    return Text(text="–" if value is None else f"{value:,.2f}", value=value)
