"""A report in the terminal: its grids, as wide as fits, and what stands below them."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from analysis.document import Column, Document, Grid, Note, Section, Text

STYLES = {"": "", "faint": "dim", "warning": "yellow"}
SHOWN = ("Tables", "Differences", "Searches", "Cost")
"""Sections; differences only of several seeds: of one they have no intervals."""


def show(console: Console, document: Document) -> None:
    """Print the sections that a terminal can show, and what keeps the report from being defended."""
    for section in document.sections:
        if section.title in SHOWN and (section.title != "Differences" or document.seeds > 1):
            show_section(console, section)
    if document.problems:
        console.print(Styled("What keeps this report from being defended", style="bold yellow"))
        for problem in document.problems:
            console.print(Styled(f"- {problem}", style="yellow"))
        console.print()


def show_section(console: Console, section: Section) -> None:
    """Print a section's grids and notes."""
    for grid in section.grids:
        show_grid(console, grid)
    _notes(console, section.notes)


def show_grid(console: Console, grid: Grid) -> None:
    """Print a grid with its title, caption and notes."""
    console.print(Styled(grid.title, style="bold"))
    console.print(Styled(grid.caption))
    for part in _fitting(console, grid):
        console.print()
        console.print(part)
    console.print()
    _notes(console, grid.notes)


def _notes(console: Console, notes: Sequence[Note]) -> None:
    for note in notes:
        console.print(Styled(f"{note.mark}  {note.text}" if note.mark else note.text, style="dim"))
    if notes:
        console.print()


def _fitting(console: Console, grid: Grid) -> list[Table]:
    """A grid as the first that fits: one table, one per group, or one per group and subject. Where none does, words are
    wrapped."""
    unbounded = console.options.update(max_width=10_000)
    parts: dict[tuple[str, ...], list[int]] = {}
    for depth in (0, 1, 2):
        parts = {}
        for index in range(grid.labels, len(grid.columns)):
            column = grid.columns[index]
            parts.setdefault((column.group, column.subject)[:depth], []).append(index)
        tables = [_table(grid, shown) for shown in parts.values()]
        if all(console.measure(table, options=unbounded).maximum <= console.width for table in tables):
            return tables
    return [_table(grid, shown, narrow=True) for shown in parts.values()]


def _table(grid: Grid, shown: Sequence[int], narrow: bool = False) -> Table:
    labels, grouped = range(grid.labels), any(column.group for column in grid.columns)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    before = ""
    for index in (*labels, *shown):
        column = grid.columns[index]
        above = f"{column.group if column.group != before else ''}\n" if grouped else ""
        before = column.group
        table.add_column(
            Styled(f"{above}{column.heading}"),
            justify="right" if column.numeric else "left",
            no_wrap=column.numeric,
            overflow="ellipsis" if column.numeric else "fold",  # a number that is cut must show it
            width=_longest_word(grid, index) if narrow and not column.numeric else None,
        )
    for row in grid.rows:
        table.add_row(*(_cell(row[index], grid.columns[index]) for index in (*labels, *shown)))
    return table


def _longest_word(grid: Grid, index: int) -> int:
    """Width that a column of words needs at least, but for very long ones."""
    texts = (grid.columns[index].heading, *(row[index].text for row in grid.rows))
    words = (word for text in texts for word in text.split())
    return min(14, max(map(len, words), default=1))


def _cell(cell: Text, column: Column) -> Styled:
    style = " ".join(filter(None, (STYLES[cell.tone or column.tone], "bold" if cell.bold else "")))
    text = Styled(cell.text, style=style)
    text.append("".join(f" {mark}" for mark in cell.marks), style="dim")
    return text
