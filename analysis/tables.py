"""A sweep's tables: per row, test set and metric the mean and spread over seeds, or why there is none."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from analysis.load import FINISHED, StageRun, Sweep
from sweeps import record
from sweeps.record import Metric, RowRecord, SweepRecord, TableRecord

COMPLETE = "complete"
RUNNING, STOPPED, STALE, NOT_FINITE, FAILED, MISSING = REASONS = (
    "running",
    "stopped",
    "stale",
    "not finite",
    "failed",
    "missing",
)
"""Why a run has no number to show: what the next sweep may still change comes first."""
PAPER_NOTE = (
    "The paper's values are for 128×128 faces and the published training; this sweep's are not comparable to them."
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table.

    `status` is "complete", "2/3 seeds, 1 stale" or one of `REASONS`. `mean` is over the `n` runs with a number to
    show (None if none has), of these `seeds` (none if the row has no seed); `std` is their sample standard deviation
    (None for fewer than two). `published` is the paper's number, if it gives one. `difference` is
    `mean - published`, for a complete cell of a sweep with the paper's data and training.
    """

    status: str
    mean: float | None
    std: float | None
    n: int
    seeds: tuple[str, ...]
    published: float | None
    difference: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: its label cells, and a cell per (test set, metric name)."""

    name: str
    labels: tuple[str, ...]
    trained: bool
    cells: dict[tuple[str, str], Cell]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, computed and not yet laid out."""

    title: str
    caption: str
    headings: tuple[str, ...]
    tests: tuple[str, ...]
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def build_tables(sweep: Sweep) -> list[Table]:
    """Every table of a sweep, in the record's order; all numbers of a test set are of the record's protocol."""
    return [_table(sweep, table) for table in sweep.record.tables]


def status_on(sweep: Sweep, run: StageRun | None, test: str) -> str:
    """Where a run stands on a test set: "complete", or one of `REASONS`.

    "stale" is a finished run that was evaluated under another protocol, "missing" one that was not evaluated.
    """
    if run is None:
        return MISSING
    if run.status != FINISHED:
        return {"FAILED": FAILED, "KILLED": STOPPED}.get(run.status, RUNNING)
    fingerprint = run.tags.get(record.protocol_tag(test))
    if fingerprint is None:
        return MISSING
    return COMPLETE if fingerprint == sweep.record.fingerprints[test] else STALE


def line_name(cells: Iterable[str]) -> str:
    """A table line's label cells as one text."""
    return ", ".join(filter(None, cells))


def _table(sweep: Sweep, table: TableRecord) -> Table:
    study = sweep.record
    rows = tuple(_row(sweep, row) for row in table.rows)
    return Table(
        title=table.title,
        caption=f"{table.caption.rstrip('.')} (preset {study.preset}).",
        headings=tuple(table.headings),
        tests=tuple(study.tests),
        metrics=tuple(study.metrics),
        rows=rows,
        notes=(
            _spread_note(study.seeds),
            *_paper_note(study, rows),
            *study.notes,
            *_code_note(sweep, table),
        ),
    )


def _row(sweep: Sweep, row: RowRecord) -> Row:
    cells = {
        (test, metric.name): _cell(sweep, row, test, metric.name)
        for test in sweep.record.tests
        for metric in sweep.record.metrics
    }
    return Row(name=row.name, labels=tuple(row.cells), trained=row.trained, cells=cells)


def _cell(sweep: Sweep, row: RowRecord, test: str, metric: str) -> Cell:
    runs = sweep.row_runs(row)
    name = record.test_metric(test, metric)
    states = {seed: _state(run, name, status_on(sweep, run, test)) for seed, run in runs.items()}
    values = {seed: run.metrics[name] for seed, run in runs.items() if run and states[seed] == COMPLETE}
    complete = len(values) == len(runs)
    mean = fmean(values.values()) if values else None
    published = row.published.get(test, {}).get(metric)
    difference = mean - published if complete and mean is not None and published is not None else None
    return Cell(
        status=COMPLETE if complete else _partial(Counter(states.values())),
        mean=mean,
        std=stdev(values.values()) if len(values) > 1 else None,
        n=len(values),
        seeds=tuple(filter(None, values)),
        published=published,
        difference=difference if sweep.record.comparable else None,
    )


def _state(run: StageRun | None, metric: str, status: str) -> str:
    if run is None or status != COMPLETE:
        return status
    if metric not in run.metrics:
        return MISSING
    # An SQL store keeps an infinity as the largest float.
    return COMPLETE if abs(run.metrics[metric]) < sys.float_info.max else NOT_FINITE


def _partial(counts: Counter[str]) -> str:
    """What an incomplete cell says: why it has no number, or how many seeds have one and why the others don't."""
    reasons = sorted(counts.keys() - {COMPLETE}, key=REASONS.index)
    if not counts[COMPLETE]:
        return reasons[0]
    why = ", ".join(f"{counts[reason]} {reason}" for reason in reasons)
    return f"{counts[COMPLETE]}/{counts.total()} seeds, {why}"


def _spread_note(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"One seed ({seeds[0]}), so no spread; in parentheses the number of seeds."
    listed = ", ".join(map(str, seeds))
    return f"Mean ± sample standard deviation over seeds {listed}; in parentheses the number of seeds."


def _paper_note(study: SweepRecord, rows: Iterable[Row]) -> list[str]:
    published = any(cell.published is not None for row in rows for cell in row.cells.values())
    return [PAPER_NOTE] if published and not study.comparable else []


def _code_note(sweep: Sweep, table: TableRecord) -> list[str]:
    rows: dict[str, list[str]] = defaultdict(list)
    for row in table.rows:
        runs = [run for run in sweep.row_runs(row).values() if run and run.status == FINISHED]
        for digest in sorted({run.tags.get(record.TAG_CODE_DIGEST, "none") for run in runs}):
            rows[digest].append(line_name(row.cells))
    # "a+b" is the digest of a run that was begun with one version and continued with another.
    if len(rows) < 2 and not any("+" in digest for digest in rows):
        return []
    which = "; ".join(f"{digest}: {', '.join(names)}" for digest, names in sorted(rows.items()))
    return [f"The rows were computed by different versions of the code ({which})."]
