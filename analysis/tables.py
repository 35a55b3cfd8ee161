"""A sweep's tables: per row, test set and metric the mean and spread over seeds, or why there is none."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from analysis.load import FINISHED, StageRun, Sweep
from sweeps import record
from sweeps.record import Metric, RowRecord, TableRecord

COMPLETE, RUNNING, STOPPED, FAILED, MISSING = "complete", "running", "stopped", "failed", "missing"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table.

    `status` is "complete", "2/3 seeds", "running", "stopped", "failed" or "missing". `mean` is over the `n` runs
    that have finished (None if none has), of these `seeds` (none if the row has no seed); `std` is their sample
    standard deviation (None for fewer than two). `published` is the paper's number, if it gives one. `difference`
    is `mean - published`, for a complete cell of a sweep with the paper's data and training.
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
    """Every table of a sweep, in the record's order.

    Raises:
        ValueError: the numbers of one test set in one table were computed under different protocols.
    """
    return [_table(sweep, table) for table in sweep.record.tables]


def line_name(cells: Iterable[str]) -> str:
    """A table line's label cells as one text."""
    return ", ".join(filter(None, cells))


def _table(sweep: Sweep, table: TableRecord) -> Table:
    study = sweep.record
    for test in study.tests:
        _check_protocol(sweep, table, test)
    return Table(
        title=table.title,
        caption=f"{table.caption.rstrip('.')} (preset {study.preset}).",
        headings=tuple(table.headings),
        tests=tuple(study.tests),
        metrics=tuple(study.metrics),
        rows=tuple(_row(sweep, row) for row in table.rows),
        notes=(_spread_note(study.seeds), *study.notes, *_code_note(sweep, table)),
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
    states = {seed: _state(run, name) for seed, run in runs.items()}
    values = {seed: run.metrics[name] for seed, run in runs.items() if run and states[seed] == COMPLETE}
    complete = len(values) == len(runs)
    mean = fmean(values.values()) if values else None
    published = row.published.get(test, {}).get(metric)
    partial = f"{len(values)}/{len(runs)} seeds" if values else _reason(states.values())
    difference = mean - published if complete and mean is not None and published is not None else None
    return Cell(
        status=COMPLETE if complete else partial,
        mean=mean,
        std=stdev(values.values()) if len(values) > 1 else None,
        n=len(values),
        seeds=tuple(filter(None, values)),
        published=published,
        difference=difference if sweep.record.comparable else None,
    )


def _state(run: StageRun | None, metric: str) -> str:
    if run is None:
        return MISSING
    if run.status == FINISHED:
        return COMPLETE if metric in run.metrics else MISSING
    return {"FAILED": FAILED, "KILLED": STOPPED}.get(run.status, RUNNING)


def _reason(states: Iterable[str]) -> str:
    """Why a cell has no number: what may still change comes first."""
    return min(states, key=[RUNNING, STOPPED, FAILED, MISSING].index)


def _finished(sweep: Sweep, table: TableRecord) -> list[tuple[RowRecord, StageRun]]:
    found = [(row, run) for row in table.rows for run in sweep.row_runs(row).values()]
    return [(row, run) for row, run in found if run and run.status == FINISHED]


def _check_protocol(sweep: Sweep, table: TableRecord, test: str) -> None:
    runs: dict[str, list[str]] = defaultdict(list)
    names = [record.test_metric(test, metric.name) for metric in sweep.record.metrics]
    for row, run in _finished(sweep, table):
        if any(name in run.metrics for name in names):
            runs[run.tags.get(record.protocol_tag(test), "none")].append(f"{row.name} ({run.run_id})")
    if len(runs) > 1:
        which = "; ".join(f"{protocol}: {', '.join(found)}" for protocol, found in sorted(runs.items()))
        raise ValueError(f"{table.title} must show {test} numbers of one protocol, got {which}: sweep again")


def _spread_note(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"One seed ({seeds[0]}), so no spread; in parentheses the number of seeds."
    listed = ", ".join(map(str, seeds))
    return f"Mean ± sample standard deviation over seeds {listed}; in parentheses the number of seeds."


def _code_note(sweep: Sweep, table: TableRecord) -> list[str]:
    rows: dict[str, list[str]] = defaultdict(list)
    for row, run in _finished(sweep, table):
        names = rows[run.tags.get(record.TAG_CODE_DIGEST, "none")]
        if line_name(row.cells) not in names:
            names.append(line_name(row.cells))
    if len(rows) < 2:
        return []
    which = "; ".join(f"{digest[:12]}: {', '.join(names)}" for digest, names in sorted(rows.items()))
    return [f"The rows were computed by different versions of the code ({which})."]
