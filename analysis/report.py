"""A sweep's report: what it says, and its files. The same store gives the same bytes."""

import re
from collections.abc import Callable

from analysis import forms, stats
from analysis.cost import cost_grid
from analysis.document import Document, Grid, Section, slugs
from analysis.figures import axis_charts, curve_chart, galleries, search_parts
from analysis.html import render_html
from analysis.layout import difference_grids, shared_notes, table_grid
from analysis.lines import distinct_lines, stage_runs
from analysis.load import Sweep, read_ahead
from analysis.provenance import facts, runs_grid
from analysis.tables import Table, build_tables

FORMS: dict[str, Callable[[Document], str]] = {
    "md": forms.render_markdown,
    "html": render_html,
    "tex": forms.render_latex,
    "csv": forms.render_csv,
    "json": forms.render_json,
}
FIGURES = "figures"


def build_document(sweep: Sweep) -> Document:
    """All that a report of a sweep says.

    Raises:
        ValueError: the study's or the preset's name is not fit for a file name; the runs of one protocol are of
            different images.
    """
    study, preset = sweep.record.study, sweep.record.preset
    name = f"{study}-{preset}"
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"study and preset must be of letters, digits and ._+- to name a file, got {name!r}")
    tables = build_tables(sweep)
    lines = distinct_lines(sweep, tables)
    stages = stage_runs(sweep, lines)
    every_run = list({run.run_id: run for runs in stages.values() for run in runs}.values())
    read_ahead(sweep, [], every_run)
    names = [f"search {search.record.row} {search.record.id}" for search in sweep.searches]
    searches = [search_parts(search, slugs(names)[name]) for search, name in zip(sweep.searches, names, strict=True)]
    problems = [*_too_few_seeds(len(sweep.record.seeds)), *(each for table in tables for each in table.problems())]
    sections = [
        _section("Tables", [table_grid(table, f"table-{index}") for index, table in enumerate(tables, 1)]),
        _section("Differences", _differences(tables)),
        Section(title="Images", galleries=tuple(galleries(sweep, tables))),
        Section(title="Figures", charts=(*axis_charts(sweep, lines), *curve_chart(sweep, stages))),
        Section(
            title="Searches",
            grids=tuple(grid for grid, _ in searches),
            charts=tuple(chart for _, charts in searches for chart in charts),
        ),
        Section(title="Cost", grids=(cost_grid(sweep, stages),)),
    ]
    return Document(
        name=name,
        title=f"{study}, preset {preset}",
        preset=preset,
        seeds=len(sweep.record.seeds),
        summary=" ".join(sweep.record.notes),
        sections=tuple(each for each in sections if each.grids or each.charts or each.galleries),
        facts=tuple(facts(sweep, every_run)),
        runs=runs_grid(sweep, lines),
        problems=tuple(problems),
        tables=tuple(tables),
    )


def render(document: Document, names: tuple[str, ...] = tuple(FORMS)) -> dict[str, bytes]:
    """The files of a report by their path: a file per form, and its figures with the numbers in them.

    Raises:
        ValueError: a form is unknown.
    """
    files = {f"{document.name}.{name}": _bytes(FORMS[name](document)) for name in check_forms(names)}
    for section in document.sections:
        for chart in section.charts:
            place = f"{FIGURES}/{document.name}-{chart.name}"
            files |= {f"{place}.svg": _bytes(chart.svg), f"{place}.pdf": chart.pdf, f"{place}.csv": _bytes(chart.csv)}
        for gallery in section.galleries:
            place = f"{FIGURES}/{document.name}-{gallery.name}"
            files |= {f"{place}.pdf": gallery.pdf, f"{place}.csv": _bytes(gallery.csv)}
    return files


def check_forms(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of forms, if all are known.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        if name not in FORMS:
            raise ValueError(f"format must be of {', '.join(FORMS)}, got {name!r}")
    return names


def _bytes(text: str) -> bytes:
    """UTF-8; half a character, as a name in a store may have, becomes a question mark."""
    return text.encode(errors="replace")


def _section(title: str, grids: list[Grid]) -> Section:
    own, common = shared_notes(grids)
    return Section(title=title, grids=tuple(own), notes=common)


def _too_few_seeds(seeds: int) -> list[str]:
    if seeds >= stats.MIN_SEEDS:
        return []
    return [f"Of {seeds} seed{'' if seeds == 1 else 's'} nothing can be claimed: at least {stats.MIN_SEEDS} are needed"]


def _differences(tables: list[Table]) -> list[Grid]:
    return [grid for index, table in enumerate(tables, 1) for grid in difference_grids(table, f"table-{index}")]
