"""A sweep's tables: per row, test set and metric the mean and spread over seeds, or why there is none; and what may be
claimed of two rows."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from analysis import stats
from analysis.load import FINISHED, PerImage, StageRun, Sweep, read_ahead
from analysis.stats import Array, Estimate, Margins
from sweeps import record
from sweeps.record import Metric, RowRecord, SweepRecord, TableRecord

COMPLETE = "complete"
RUNNING, PAUSED, STOPPED, PRUNED, STALE, NOT_FINITE, FAILED, MISSING = REASONS = (
    "running",
    "paused",
    "stopped",
    "pruned",
    "stale",
    "not finite",
    "failed",
    "missing",
)
"""Why a run has no number to show: what the next sweep may still change comes first."""
UNDER_WAY = (RUNNING, PAUSED, MISSING)
NO_IMAGES = "without finite per-image metrics"
PAPER_NOTE = (
    "The paper's values are for 128×128 faces and the published training; this sweep's are not comparable to them."
)
Family = Literal["row above", "full model"]
"""Which rows are compared: p-values are adjusted within each."""
Verdict = Literal["better", "worse", "no relevant difference", "underpowered", "not compared"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a cell can't be defended: a seed ("" if the row has none) without a number, or with one that is stale.

    `detail` says more, in words that follow on `state`.
    """

    state: str
    seed: str
    run_id: str
    detail: str

    def sentence(self) -> str:
        """What a footnote says of it."""
        seed = f"seed {self.seed} " if self.seed else ""
        detail = f": {self.detail}" if self.detail else ""
        run = f" (run {self.run_id})" if self.run_id else ""
        return f"{seed}{self.state}{detail}{run}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table.

    `status` is "complete", "2/3" or one of `REASONS`. `mean` is over the `n` runs with a number to show (None if none
    has), of these `seeds` (none if the row has no seed); `std` is their sample standard deviation (None for fewer than
    two). `published` is the paper's number, if it gives one. `difference` is `mean - published`, for a complete cell
    of a sweep with the paper's data and training. A cell is `sound` if it has no problem: it may be compared.
    `best` says that its row is better than every other row of the table, as far as the seeds can tell.
    """

    status: str
    mean: float | None
    std: float | None
    n: int
    seeds: tuple[str, ...]
    published: float | None
    difference: float | None
    problems: tuple[Problem, ...] = ()
    best: bool = False

    @property
    def sound(self) -> bool:
        """Whether every seed has a number that nothing speaks against."""
        return not self.problems


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Row A (`row`) against row B (`against`) on one test set and metric.

    `difference` is of A - B in the metric's unit and `wins` is P(A > B), both None where the rows can't be compared;
    `p` is Holm's, over the comparisons of the table's rows with the row above, or of those with the full model.
    """

    row: str
    against: str
    family: Family
    test: str
    metric: Metric
    verdict: Verdict
    reason: str = ""
    difference: Estimate | None = None
    wins: Estimate | None = None
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: its label cells, and a cell per (test set, metric name)."""

    name: str
    labels: tuple[str, ...]
    trained: bool
    cells: dict[tuple[str, str], Cell]

    @property
    def line(self) -> str:
        """The label cells as one text."""
        return line_name(self.labels)

    def seeds(self, test: str, metric: Metric) -> int:
        """How many trainings a cell is the mean of; 0 for an untrained row."""
        return len(self.cells[test, metric.name].seeds)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, computed and not yet laid out."""

    title: str
    caption: str
    preset: str
    headings: tuple[str, ...]
    tests: tuple[str, ...]
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def problems(self) -> list[str]:
        """What keeps the table from being defended, a line for each run and test set."""
        lines: dict[str, None] = {}
        for row in self.rows:
            for (test, _), cell in row.cells.items():
                for problem in cell.problems:
                    lines[f"{self.title}, {row.line}, {test}: {problem.sentence()}"] = None
        return list(lines)


def build_tables(sweep: Sweep) -> list[Table]:
    """Every table of a sweep, in the record's order; all numbers of a test set are of the record's protocol.

    Raises:
        ValueError: two runs of one protocol are of different images; it names them.
    """
    rows = [row for table in sweep.record.tables for row in table.rows]
    runs = [run for row in rows for run in sweep.row_runs(row).values() if run]
    evaluated = [
        (run, test) for run in runs for test in sweep.record.tests if status_on(sweep, run, test)[0] == COMPLETE
    ]
    read_ahead(sweep, evaluated, [])
    for test in sweep.record.tests:
        _require_same_images(sweep, [run for run, each in evaluated if each == test], test)
    return [_table(sweep, table) for table in sweep.record.tables]


def status_on(sweep: Sweep, run: StageRun | None, test: str) -> tuple[str, str]:
    """Where a run stands on a test set, "complete" or one of `REASONS`, and what more there is to say of it.

    "stale" is a finished run that was evaluated under another protocol, "missing" one that was not evaluated.
    """
    if run is None:
        return MISSING, ""
    if run.status != FINISHED:
        if record.TAG_PRUNED in run.tags:
            return PRUNED, _short(run.tags[record.TAG_PRUNED])
        status = {"FAILED": FAILED, "KILLED": STOPPED, "SCHEDULED": PAUSED}.get(run.status, RUNNING)
        return status, _short(run.tags.get(record.TAG_FAILURE, "")) if status == FAILED else ""
    fingerprint = run.tags.get(record.protocol_tag(test))
    if fingerprint is None:
        return MISSING, f"not evaluated on {test}"
    wanted = sweep.record.fingerprints[test]
    return (COMPLETE, "") if fingerprint == wanted else (STALE, f"of protocol {fingerprint}, not {wanted}")


def line_name(cells: Iterable[str]) -> str:
    """A table line's label cells as one text."""
    return ", ".join(filter(None, cells))


def _short(text: str) -> str:
    return " ".join(text.split())[:200]


def _shown(sweep: Sweep, row: RowRecord) -> bool:
    """Whether a row is shown: not one of another study that the store does not have."""
    return not row.optional or any(sweep.row_runs(row).values())


def _require_same_images(sweep: Sweep, runs: Sequence[StageRun], test: str) -> None:
    known: tuple[StageRun, PerImage] | None = None
    for run in sorted(runs, key=lambda each: each.run_id):
        found = sweep.per_image(run, test)
        if found is None:
            continue
        if known and not found.same_images(known[1]):
            raise ValueError(
                f"runs of one protocol must be of the same images, got different ones on {test} "
                f"in runs {known[0].run_id} and {run.run_id}"
            )
        known = known or (run, found)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A row with the runs behind it, by seed."""

    row: Row
    runs: dict[str, StageRun | None]
    known: dict[tuple[str, str], Margins] = field(default_factory=dict)

    def values(self, sweep: Sweep, test: str, metric: str) -> Array:
        """The metric of a sound cell, (n_seeds, n_images, n_conditions)."""
        found = [sweep.per_image(run, test) for run in self.runs.values() if run]
        return np.stack([each.metrics[metric] for each in found if each])

    def margins(self, sweep: Sweep, test: str, metric: str) -> Margins:
        """The means of those values, which are asked for more often."""
        if (test, metric) not in self.known:
            self.known[test, metric] = stats.margins(self.values(sweep, test, metric))
        return self.known[test, metric]


def _table(sweep: Sweep, table: TableRecord) -> Table:
    study, shown = sweep.record, [row for row in table.rows if _shown(sweep, row)]
    newest = _newest(sweep, [row for row in shown if row.trained]) or _newest(sweep, shown)
    lines = [_Line(row=_row(sweep, row, newest), runs=sweep.row_runs(row)) for row in shown]
    columns = [(test, metric) for test in study.tests for metric in study.metrics]
    rows = [line.row for line in lines]
    comparisons: list[Comparison] = []
    for test, metric in columns:
        comparisons += _family(sweep, "row above", [(b, a) for a, b in pairwise(lines)], test, metric)
        comparisons += _family(sweep, "full model", [(line, lines[-1]) for line in lines[:-1]], test, metric)
        best = _best(sweep, lines, test, metric)
        if best is not None:
            cell = replace(rows[best].cells[test, metric.name], best=True)
            rows[best] = replace(rows[best], cells={**rows[best].cells, (test, metric.name): cell})
    return Table(
        title=table.title,
        caption=f"{table.caption.rstrip('.')} (preset {study.preset}).",
        preset=study.preset,
        headings=tuple(table.headings),
        tests=tuple(study.tests),
        metrics=tuple(study.metrics),
        rows=tuple(rows),
        comparisons=tuple(comparisons),
        notes=(_spread_note(study.seeds), *_paper_note(study, rows), *_absent_note(table.rows, shown), *study.notes),
    )


def _newest(sweep: Sweep, rows: Iterable[RowRecord]) -> StageRun | None:
    """The run that others are stale against where their code or data differ from its."""
    finished = [run for row in rows for run in sweep.row_runs(row).values() if run and run.status == FINISHED]
    return max(finished, key=lambda run: (run.start_time, run.run_id), default=None)


def _row(sweep: Sweep, row: RowRecord, newest: StageRun | None) -> Row:
    cells = {
        (test, metric.name): _cell(sweep, row, test, metric.name, newest)
        for test in sweep.record.tests
        for metric in sweep.record.metrics
    }
    return Row(name=row.name, labels=tuple(row.cells), trained=row.trained, cells=cells)


def _cell(sweep: Sweep, row: RowRecord, test: str, metric: str, newest: StageRun | None) -> Cell:
    runs = sweep.row_runs(row)
    name = record.test_metric(test, metric)
    values: dict[str, float] = {}
    problems: list[Problem] = []
    for seed, run in runs.items():
        state, detail = _state(sweep, run, test, metric)
        if run and state == COMPLETE:
            values[seed] = run.metrics[name]
            state, detail = _doubt(sweep, run, newest, test, metric, row.trained)
        if state != COMPLETE:
            problems.append(Problem(state=state, seed=seed, run_id=run.run_id if run else "", detail=detail))
    complete = len(values) == len(runs)
    mean = fmean(values.values()) if values else None
    published = row.published.get(test, {}).get(metric)
    difference = mean - published if complete and mean is not None and published is not None else None
    first_reason = min((problem.state for problem in problems), key=_rank, default=MISSING)
    return Cell(
        status=COMPLETE if complete and values else f"{len(values)}/{len(runs)}" if values else first_reason,
        mean=mean,
        std=stdev(values.values()) if len(values) > 1 else None,
        n=len(values),
        seeds=tuple(filter(None, values)),
        published=published,
        difference=difference if sweep.record.comparable else None,
        problems=tuple(problems),
    )


def _rank(state: str) -> int:
    return REASONS.index(state) if state in REASONS else len(REASONS)


def _state(sweep: Sweep, run: StageRun | None, test: str, metric: str) -> tuple[str, str]:
    state, detail = status_on(sweep, run, test)
    if run is None or state != COMPLETE:
        return state, detail
    name = record.test_metric(test, metric)
    if name not in run.metrics:
        return MISSING, f"no {name}"
    # An SQL store keeps an infinity as the largest float.
    return (COMPLETE, "") if abs(run.metrics[name]) < sys.float_info.max else (NOT_FINITE, "")


def _doubt(
    sweep: Sweep, run: StageRun, newest: StageRun | None, test: str, metric: str, trained: bool
) -> tuple[str, str]:
    """What speaks against a number that is there: other code or data than the newest run's, or nothing to compare."""
    assert newest
    for what, of in (("code", _code), ("data", lambda each: _data(each, test, trained))):
        ours, theirs = of(run), of(newest)
        if ours != theirs:
            return STALE, f"{what} {ours}, the newest run's is {theirs}"
    found = sweep.per_image(run, test)
    if found is None or not np.isfinite(found.metrics[metric]).all():
        return NO_IMAGES, ""
    return COMPLETE, ""


def _code(run: StageRun) -> str:
    """Digest of what computed a run; "a+b" for one that was begun with one version and continued with another."""
    return run.tags.get(record.TAG_CODE_DIGEST, "not recorded")


def _data(run: StageRun, test: str, trained: bool) -> str:
    """Digests of what a run was trained and tested on; the names of the data are their user's."""
    tested = record.data_tag(f"test {test}")
    return ", ".join(
        sorted(
            f"{tag.removeprefix(record.TAG_DATA_PREFIX).partition(' ')[0]} {digest}"
            for tag, digest in run.tags.items()
            if tag == tested or (trained and _of_training(tag))
        )
    )


def _of_training(tag: str) -> bool:
    return tag.startswith(record.TAG_DATA_PREFIX) and not tag.startswith(record.data_tag("test "))


def _family(
    sweep: Sweep,
    family: Family,
    pairs: Sequence[tuple[_Line, _Line]],
    test: str,
    metric: Metric,
    *,
    count_wins: bool = True,
) -> list[Comparison]:
    """Some comparisons on one test set and metric, with p-values adjusted for their number."""
    found = [_difference(sweep, a, b, test, metric) for a, b in pairs]
    adjusted = iter(stats.holm([each.p for each in found if isinstance(each, Estimate) and each.p is not None]))
    comparisons = []
    for (a, b), difference in zip(pairs, found, strict=True):
        comparison = Comparison(
            row=a.row.line, against=b.row.line, family=family, test=test, metric=metric, verdict="not compared"
        )
        if isinstance(difference, str):
            comparisons.append(replace(comparison, reason=difference))
            continue
        p = next(adjusted) if difference.p is not None else None
        verdict, reason = judge(difference, p, metric, max(a.row.seeds(test, metric), b.row.seeds(test, metric)))
        ours, theirs = (line.values(sweep, test, metric.name) for line in (a, b)) if count_wins else (None, None)
        wins = stats.wins(ours - theirs) if ours is not None and theirs is not None else None
        comparisons.append(replace(comparison, verdict=verdict, reason=reason, difference=difference, wins=wins, p=p))
    return comparisons


def _difference(sweep: Sweep, a: _Line, b: _Line, test: str, metric: Metric) -> Estimate | str:
    """A - B, or why there is none."""
    for line in (a, b):
        cell = line.row.cells[test, metric.name]
        if not cell.sound:
            return f"{line.row.line} is {', '.join(sorted({problem.state for problem in cell.problems}))}"
    return stats.estimate(a.margins(sweep, test, metric.name) - b.margins(sweep, test, metric.name))


def judge(difference: Estimate, p: float | None, metric: Metric, seeds: int) -> tuple[Verdict, str]:
    """What may be said of a difference with an (adjusted) p-value, of a mean over so many seeds; and why no more."""
    if difference.low is None or difference.high is None or p is None or seeds < stats.MIN_SEEDS:
        return "underpowered", f"At least {stats.MIN_SEEDS} seeds are needed for a claim, there are {seeds}"
    if p < stats.LEVEL:
        return ("better" if difference.mean > 0 else "worse"), ""
    if -metric.relevant < difference.low and difference.high < metric.relevant:
        return "no relevant difference", ""
    return "underpowered", ""


def _best(sweep: Sweep, lines: Sequence[_Line], test: str, metric: Metric) -> int | None:
    """Index of the row that is better than every other, each of them by Holm's adjusted p-value; None if none is, or a
    row can't be compared: the missing one may be better."""
    cells = [line.row.cells[test, metric.name] for line in lines]
    means = [cell.mean for cell in cells if cell.sound and cell.mean is not None]
    if len(lines) < 2 or len(means) < len(lines) or len(sweep.record.seeds) < stats.MIN_SEEDS:
        return None
    best = max(range(len(lines)), key=means.__getitem__)
    pairs = [(lines[best], each) for each in lines if each is not lines[best]]
    others = _family(sweep, "row above", pairs, test, metric, count_wins=False)
    return best if all(each.verdict == "better" for each in others) else None


def _spread_note(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"One seed ({seeds[0]}): no spread, and no difference can be claimed."
    listed = ", ".join(map(str, seeds))
    return f"Mean ± sample standard deviation over n = {len(seeds)} seeds ({listed})."


def _paper_note(study: SweepRecord, rows: Iterable[Row]) -> list[str]:
    published = any(cell.published is not None for row in rows for cell in row.cells.values())
    return [PAPER_NOTE] if published and not study.comparable else []


def _absent_note(asked: Sequence[RowRecord], shown: Sequence[RowRecord]) -> list[str]:
    absent = [line_name(row.cells) for row in asked if row not in shown]
    return [f"Rows of another study that the store does not have: {'; '.join(absent)}."] if absent else []
