"""Tables and differences as they are shown: numbers as text, footnotes, bold."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from analysis import stats
from analysis.comparisons import Comparison
from analysis.document import Column, Grid, Note, Text, slugs
from analysis.states import COMPLETE
from analysis.tables import Cell, Row, Table
from sweeps.record import Metric

VERDICT = "verdict"
MINUS = "\N{MINUS SIGN}"
Kind = Literal["ours", "paper", "difference"]
INTERVAL_NOTE = (
    "Intervals are at 95 %, each for itself, of the mean over other seeds, images and conditions, all three taken as "
    "samples; pairs are of the same seed, image and condition. P(better): how often the row is better on one image. p: "
    "adjusted by Holm's method over the rows of the table, so it may exceed 0.05 where an interval leaves out 0."
)


def number(value: float, decimals: int, sign: str = "") -> str:
    """A number with a real minus sign; `sign` "+" shows a plus too. What rounds to nothing has no sign."""
    text = format(value, f"{sign}.{decimals}f")
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", MINUS)


def with_unit(label: str, unit: str) -> str:
    """`PSNR (dB)`."""
    return f"{label} ({unit})" if unit else label


def table_grid(table: Table, name: str) -> Grid:
    """A table with the published numbers beside ours, where there are any."""
    kinds = [
        (test, metric, kind) for test in table.tests for metric in table.metrics for kind in _kinds(table, test, metric)
    ]
    footnotes: dict[str, str] = {}
    return Grid(
        name=name,
        title=table.title,
        caption=table.caption,
        columns=(
            *(Column(heading=heading, numeric=False) for heading in table.headings),
            *(_column(test, metric, kind) for test, metric, kind in kinds),
        ),
        labels=len(table.headings),
        rows=tuple(
            (
                *(Text(text=label) for label in row.labels),
                *(_cell(row, test, metric, kind, footnotes) for test, metric, kind in kinds),
            )
            for row in table.rows
        ),
        notes=(
            *(Note(text=text, mark=mark) for text, mark in footnotes.items()),
            *(Note(text=note) for note in table.notes),
        ),
    )


def difference_grids(table: Table, name: str) -> list[Grid]:
    """For each test set and metric the row-by-row differences of a table."""
    tests, metrics = slugs(table.tests), slugs(metric.name for metric in table.metrics)
    return [
        _difference_grid(table, test, metric, f"{name}-{tests[test]}-{metrics[metric.name]}")
        for test in table.tests
        for metric in table.metrics
    ]


def _kinds(table: Table, test: str, metric: Metric) -> list[Kind]:
    """A published or difference column only where it has a number."""
    cells = [row.cells[test, metric.name] for row in table.rows]
    published = any(cell.published is not None for cell in cells)
    difference = any(cell.difference is not None for cell in cells)
    kinds: list[tuple[Kind, bool]] = [("ours", True), ("paper", published), ("difference", difference)]
    return [kind for kind, shown in kinds if shown]


def _column(test: str, metric: Metric, kind: Kind) -> Column:
    if kind == "ours":
        return Column(heading=metric.label, group=test, subject=metric.label)
    return Column(
        heading={"paper": "paper", "difference": "diff."}[kind], group=test, subject=metric.label, tone="faint"
    )


def _cell(row: Row, test: str, metric: Metric, kind: Kind, footnotes: dict[str, str]) -> Text:
    cell = row.cells[test, metric.name]
    if kind == "ours":
        return _ours(row, test, cell, metric.decimals, footnotes)
    value, sign = (cell.published, "") if kind == "paper" else (cell.difference, "+")
    return Text(text="" if value is None else number(value, metric.decimals, sign), tone="faint", value=value)


def _ours(row: Row, test: str, cell: Cell, decimals: int, footnotes: dict[str, str]) -> Text:
    marks: tuple[str, ...] = ()
    if cell.problems:
        why = f"{row.line}, {test}: {'; '.join(problem.sentence() for problem in cell.problems)}."
        marks = (footnotes.setdefault(why, _mark(len(footnotes))),)
    return Text(
        text=_number_of(cell, decimals),
        marks=marks,
        bold=cell.best,
        tone="" if cell.sound else "warning",
        value=cell.mean,
    )


def _number_of(cell: Cell, decimals: int) -> str:
    if cell.mean is None:
        return cell.status
    spread = "" if cell.std is None else f" ± {number(cell.std, decimals)}"
    seeds = "" if cell.status == COMPLETE else f" ({cell.status})"
    return f"{number(cell.mean, decimals)}{spread}{seeds}"


def _mark(index: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        text = chr(ord("a") + letter) + text
    return text


def _difference_grid(table: Table, test: str, metric: Metric, name: str) -> Grid:
    """A line per row, against the row above it and against the full model."""
    found = {
        (each.row, family): each
        for family, some in table.comparisons.items()
        for each in some
        if each.test == test and each.metric == metric
    }
    footnotes: dict[str, str] = {}
    return Grid(
        name=name,
        title=f"Differences in {metric.label} on {test}, {table.title}",
        caption=f"Each row minus the row above it, and minus the full model, the last row (preset {table.preset}).",
        columns=(
            Column(heading="Row", numeric=False),
            *(
                Column(heading=heading, group=f"vs. {family}", numeric=heading != VERDICT)
                for family in table.comparisons
                for heading in (with_unit("diff.", metric.unit), "95 % interval", "P(better)", "p", VERDICT)
            ),
        ),
        labels=1,
        rows=tuple(
            (
                Text(text=table.short(row)),
                *(
                    cell
                    for family in table.comparisons
                    for cell in _comparison(found.get((row.name, family)), metric.decimals, footnotes)
                ),
            )
            for row in table.rows
        ),
        notes=(
            *(Note(text=text, mark=mark) for text, mark in footnotes.items()),
            Note(text=INTERVAL_NOTE),
            Note(text=_verdict_note(table.metrics)),
        ),
    )


def _verdict_note(metrics: Sequence[Metric]) -> str:
    smallest = ", ".join(f"±{each.relevant:g} {each.unit}".strip() + f" ({each.label})" for each in metrics)
    return (
        f"Better or worse: p < {stats.LEVEL:g}, with at least {stats.MIN_SEEDS} seeds. No relevant difference: the "
        f"interval lies within {smallest}. Underpowered: these seeds can carry neither claim."
    )


def _comparison(each: Comparison | None, decimals: int, footnotes: dict[str, str]) -> tuple[Text, ...]:
    if each is None:  # the first row has none above it, the full model is not compared with itself
        return (Text(text=""),) * 5
    doubtful = each.verdict in ("underpowered", "not compared")
    marks = (footnotes.setdefault(f"{each.reason}.", _mark(len(footnotes))),) if each.reason else ()
    says = Text(text=each.verdict, marks=marks, tone="warning" if doubtful else "")
    difference, wins = each.difference, each.wins
    if difference is None or wins is None:
        return (*[Text(text="–")] * 4, says)
    return (
        Text(text=number(difference.mean, decimals, "+"), value=difference.mean),
        Text(text=interval_text(difference.low, difference.high, decimals, "+") or "–", value=difference.low),
        Text(text=number(wins, 2), value=wins),
        p_text(each.p),
        says,
    )


def p_text(p: float | None) -> Text:
    """A p-value."""
    return Text(text="–" if p is None else "< 0.001" if p < 0.001 else number(p, 3), value=p)


def interval_text(low: float | None, high: float | None, decimals: int, sign: str = "") -> str:
    """`[+0.10, +0.52]`, rounded outwards: it must not seem to leave out what it holds. Nothing where there is none."""
    if low is None or high is None:
        return ""
    unit = 10**decimals
    low, high = math.floor(low * unit) / unit, math.ceil(high * unit) / unit
    return f"[{number(low, decimals, sign)}, {number(high, decimals, sign)}]"


def shared_notes(grids: Sequence[Grid]) -> tuple[list[Grid], tuple[Note, ...]]:
    """Grids without the notes that stand under all of them, and those notes."""
    common = [note for note in grids[0].notes if all(note in grid.notes for grid in grids)] if len(grids) > 1 else []
    own = [replace(grid, notes=tuple(note for note in grid.notes if note not in common)) for grid in grids]
    return own, tuple(common)
