"""A sweep's tables: per row, test set and metric the mean and spread over seeds, or why there is none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from analysis import stats
from analysis.comparisons import Comparison, Family, Side, best, families
from analysis.load import StageRun, Sweep, read_ahead
from analysis.states import COMPLETE, MISSING, REASONS, Problem, newest, numbers, require_same_images, status_on
from sweeps.record import Metric, RowRecord, SweepRecord, TableRecord

PAPER_NOTE = (
    "The paper's values are for 128×128 faces and the published training; this sweep's are not comparable to them."
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table.

    `status` is "complete", "2/3" or one of `REASONS`. `mean` is over the `n` runs with a number to show (None if none
    has), of these `seeds` (none if the row has no seed) and these `values`; `std` is their sample standard deviation
    (None for fewer than two). `published` is the paper's number, if it gives one. `difference` is `mean - published`,
    for a complete cell of a sweep with the paper's data and training. A cell is `sound` if it has no problem: it may be
    compared.
    `best` says that its row is better than every other row of the table, as far as the seeds can tell.
    """

    status: str
    mean: float | None
    std: float | None
    n: int
    seeds: tuple[str, ...]
    values: tuple[float, ...]
    published: float | None
    difference: float | None
    problems: tuple[Problem, ...] = ()
    best: bool = False

    @property
    def sound(self) -> bool:
        """Whether every seed has a number that nothing speaks against."""
        return not self.problems


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
    comparisons: dict[Family, list[Comparison]]
    notes: tuple[str, ...]

    def short(self, row: Row) -> str:
        """A row's first label, where that is no other row's too; else all."""
        alike = [each for each in self.rows if each.labels[0] == row.labels[0]]
        return row.labels[0] if len(alike) == 1 else row.line

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
        require_same_images(sweep, [run for run, each in evaluated if each == test], test)
    return [_table(sweep, table) for table in sweep.record.tables]


def line_name(cells: Iterable[str]) -> str:
    """A table line's label cells as one text."""
    return ", ".join(filter(None, cells))


def _shown(sweep: Sweep, row: RowRecord) -> bool:
    """Whether a row is shown: not one of another study that the store does not have."""
    return not row.optional or any(sweep.row_runs(row).values())


def _table(sweep: Sweep, table: TableRecord) -> Table:
    study, shown = sweep.record, [row for row in table.rows if _shown(sweep, row)]
    rows = [_row(sweep, row, shown) for row in shown]
    sides = [_side(sweep, asked, row) for asked, row in zip(shown, rows, strict=True)]
    comparisons: dict[Family, list[Comparison]] = {}
    for test in study.tests:
        for metric in study.metrics:
            for family, found in families(sweep, sides, test, metric).items():
                comparisons.setdefault(family, []).extend(found)
            if (first := best(sweep, sides, test, metric)) is not None:
                cell = replace(rows[first].cells[test, metric.name], best=True)
                rows[first] = replace(rows[first], cells={**rows[first].cells, (test, metric.name): cell})
    return Table(
        title=table.title,
        caption=f"{table.caption.rstrip('.')} (preset {study.preset}).",
        preset=study.preset,
        headings=tuple(table.headings),
        tests=tuple(study.tests),
        metrics=tuple(study.metrics),
        rows=tuple(rows),
        comparisons=comparisons,
        notes=(
            _spread_note(study),
            *_bold_note(study),
            *_paper_note(study, rows),
            *_absent_note(table.rows, shown),
            *study.notes,
        ),
    )


def _side(sweep: Sweep, asked: RowRecord, row: Row) -> Side:
    return Side(
        name=row.name,
        line=row.line,
        trained=row.trained,
        runs=sweep.row_runs(asked),
        problems={place: cell.problems for place, cell in row.cells.items()},
    )


def _row(sweep: Sweep, row: RowRecord, shown: Sequence[RowRecord]) -> Row:
    cells = {}
    for test in sweep.record.tests:
        against = newest_of(sweep, shown, test)
        for metric in sweep.record.metrics:
            cells[test, metric.name] = _cell(sweep, row, test, metric.name, against)
    return Row(name=row.name, labels=tuple(row.cells), trained=row.trained, cells=cells)


def newest_of(sweep: Sweep, rows: Sequence[RowRecord], test: str) -> StageRun | None:
    """The run whose code and data those of all rows must be: a trained row's, if there is one."""

    def among(trained: bool) -> StageRun | None:
        runs = (run for row in rows if row.trained == trained for run in sweep.row_runs(row).values() if run)
        return newest(sweep, runs, test)

    return among(True) or among(False)


def _cell(sweep: Sweep, row: RowRecord, test: str, metric: str, against: StageRun | None) -> Cell:
    runs = sweep.row_runs(row)
    values, problems = numbers(sweep, runs, test, metric, trained=row.trained, against=against)
    complete = bool(values) and len(values) == len(runs)
    mean = fmean(values.values()) if values else None
    published = row.published.get(test, {}).get(metric)
    difference = mean - published if complete and mean is not None and published is not None else None
    reason = min((problem.state for problem in problems), key=REASONS.index, default=MISSING)
    return Cell(
        status=COMPLETE if complete else f"{len(values)}/{len(runs)}" if values else reason,
        mean=mean,
        std=stdev(values.values()) if len(values) > 1 else None,
        n=len(values),
        seeds=tuple(filter(None, values)),
        values=tuple(values.values()),
        published=published,
        difference=difference if sweep.record.comparable else None,
        problems=problems,
    )


def _spread_note(study: SweepRecord) -> str:
    units = "".join(f" {metric.label} in {metric.unit}." for metric in study.metrics if metric.unit)
    if len(study.seeds) == 1:
        return f"One seed ({study.seeds[0]}): no spread, and no difference can be claimed.{units}"
    listed = ", ".join(map(str, study.seeds))
    return f"Mean ± sample standard deviation over n = {len(study.seeds)} seeds ({listed}).{units}"


def _bold_note(study: SweepRecord) -> list[str]:
    if len(study.seeds) < stats.MIN_SEEDS:
        return []
    return [f"Bold: better than every other row of the table, each by p < {stats.LEVEL:g} (paired, Holm)."]


def _paper_note(study: SweepRecord, rows: Iterable[Row]) -> list[str]:
    published = any(cell.published is not None for row in rows for cell in row.cells.values())
    return [PAPER_NOTE] if published and not study.comparable else []


def _absent_note(asked: Sequence[RowRecord], shown: Sequence[RowRecord]) -> list[str]:
    absent = [line_name(row.cells) for row in asked if row not in shown]
    return [f"Not here, as another study trains them and it has not: {'; '.join(absent)}."] if absent else []
