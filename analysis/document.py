"""What a report says, in the order in which it says it, before any form (Markdown, LaTeX, HTML, a terminal) is chosen.

Every text here is plain; a form escapes it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from analysis.tables import Table

Tone = Literal["", "faint", "warning"]


def slugs(names: Iterable[str]) -> dict[str, str]:
    """For each name one of its own that is fit for a file and for an anchor: lower-case letters, digits, hyphens."""
    found: dict[str, str] = {}
    for name in names:
        letters = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in name.lower())
        slug = "-".join(letters.split())[:60] or "unnamed"
        while slug in found.values():
            slug += "-"
        found[name] = slug
    return found


@dataclass(frozen=True, kw_only=True)
class Text:
    """A cell's text: `marks` refer to the grid's footnotes, `value` is what a column is sorted by (None: last)."""

    text: str
    marks: tuple[str, ...] = ()
    bold: bool = False
    tone: Tone = ""
    value: float | None = None
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a grid: its heading, and the group ("CelebA") that it stands in; neighbours of a group share it.

    `subject` is what a column and its neighbours are about, where some headings do not say so ("PSNR" for "paper").
    """

    heading: str
    group: str = ""
    subject: str = ""
    numeric: bool = True
    tone: Tone = ""

    @property
    def full_heading(self) -> str:
        """A heading that stands alone."""
        name = ", ".join(dict.fromkeys(filter(None, (self.subject, self.heading))))
        return " ".join(filter(None, (self.group, name)))


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sentence below a grid; with a mark, a footnote."""

    text: str
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table as it is shown. `name` is fit for a file or an anchor; the first `labels` columns name a line."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    labels: int
    rows: tuple[tuple[Text, ...], ...]
    notes: tuple[Note, ...] = ()

    def by_group(self) -> "list[Grid]":
        """A grid per group of columns, each with all the labels."""
        names = dict.fromkeys(column.group for column in self.columns[self.labels :])
        return [self._of_group(name) for name in names]

    def _of_group(self, name: str) -> "Grid":
        shown = [index for index, column in enumerate(self.columns) if index < self.labels or column.group == name]
        return replace(
            self,
            title=f"{self.title}, {name}",
            columns=tuple(self.columns[index] for index in shown),
            rows=tuple(tuple(row[index] for index in shown) for row in self.rows),
        )

    def groups(self) -> list[tuple[str, int]]:
        """Each run of neighbouring columns of one group, and how many columns it spans; the labels are not in it."""
        spans: list[tuple[str, int]] = []
        for column in self.columns[self.labels :]:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure: a drawing and the numbers in it.

    `svg` takes its colours for text and axes from the page (`currentColor`), so that it can be read on light and dark.
    `pdf` is the same for a paper; `csv` the numbers.
    """

    name: str
    title: str
    caption: str
    description: str
    svg: str
    pdf: bytes
    csv: str


@dataclass(frozen=True, kw_only=True)
class Tile:
    """An image as a PNG file, what it shows ("Content loss") and how good it is ("23.25 dB", "" for the truth).

    `zooms` has a PNG file of each part worth a closer look, in the order of the gallery's `zooms`.
    """

    label: str
    quality: str
    png: bytes
    zooms: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One test image: the truth, the degraded input, then each row's restoration."""

    title: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Examples of one table's rows on one test set; `zooms` are the names of the parts shown enlarged.

    `pdf` is the same as a figure for a paper, `csv` the numbers in it.
    """

    name: str
    title: str
    caption: str
    zooms: tuple[str, ...]
    examples: tuple[Example, ...]
    pdf: bytes
    csv: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A line of the provenance: distinct values, each with a link or ""."""

    name: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a report."""

    title: str
    grids: tuple[Grid, ...] = ()
    charts: tuple[Chart, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report. `name` names its files; `problems` says, a line each, what keeps it from being defended. `tables`
    are the numbers behind the first sections, for forms that programs read; each is over so many `seeds`."""

    name: str
    title: str
    preset: str
    seeds: int
    summary: str
    sections: tuple[Section, ...]
    facts: tuple[Fact, ...]
    runs: Grid
    problems: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()

    def has(self, *states: str) -> bool:
        """Whether a number is not there for one of some reasons (`states.REASONS`)."""
        cells = [cell for table in self.tables for row in table.rows for cell in row.cells.values()]
        return any(problem.state in states for cell in cells for problem in cell.problems)
