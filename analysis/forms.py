"""A report as Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.document import Document, Grid
from analysis.layout import MINUS
from analysis.tables import Cell, Table

CSV_FIELDS = (
    "table",
    "row",
    "label",
    "test",
    "metric",
    "mean",
    "std",
    "n",
    "seeds",
    "values",
    "published",
    "difference",
    "status",
    "best",
    "problems",
    "preset",
)
COLUMNS_OF_A_PAGE = 10
LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "%_&#${}"},
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        # At the start of a line these would be read as arguments of the \\ before.
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",
        "±": r"$\pm$",
        MINUS: "$-$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "\n": " ",
    }
)


def escape_latex(text: str) -> str:
    """Plain text as LaTeX that typesets as that text."""
    return text.translate(LATEX)


def escape_markdown(text: str) -> str:
    """Plain text as Markdown that reads as that text, on one line."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def render_markdown(document: Document) -> str:
    """The document as GitHub's Markdown; figures are links to their files."""
    return _render(document, "report.md.j2", escape_markdown)


def render_latex(document: Document) -> str:
    """The grids as LaTeX tables, to be read by a document that uses booktabs."""
    # {{, {% and {# are LaTeX.
    brackets = {
        "variable_start_string": "<<",
        "variable_end_string": ">>",
        "block_start_string": "<%",
        "block_end_string": "%>",
        "comment_start_string": "<#",
        "comment_end_string": "#>",
    }
    return _render(document, "report.tex.j2", escape_latex, **brackets)


def _fitting(grid: Grid) -> list[Grid]:
    """A grid as a page is wide enough for."""
    return [grid] if len(grid.columns) <= COLUMNS_OF_A_PAGE else grid.by_group()


def render_csv(document: Document) -> str:
    """One line per table, row, test set and metric, numbers to ten digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for table in document.tables:
        writer.writerows(_csv_lines(table, document.preset))
    return text.getvalue()


def render_json(document: Document) -> str:
    """Tables, comparisons, grids, provenance and problems; numbers as they are, drawings left to their files."""
    drawings = [each for section in document.sections for each in section.charts]
    pictures = [each for section in document.sections for each in section.galleries]
    content = {
        "name": document.name,
        "title": document.title,
        "preset": document.preset,
        "summary": document.summary,
        "tables": [_json_table(table) for table in document.tables],
        "grids": [asdict(grid) for section in document.sections for grid in section.grids],
        "charts": [{"name": each.name, "title": each.title, "caption": each.caption} for each in drawings],
        "galleries": [{"name": each.name, "title": each.title, "caption": each.caption} for each in pictures],
        "provenance": [asdict(fact) for fact in document.facts],
        "runs": asdict(document.runs),
        "problems": list(document.problems),
    }
    return json.dumps(_rounded(content), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _rounded(content: Any) -> Any:
    """The same with ten significant digits, as in the CSV files: processors differ in the last."""
    if isinstance(content, float):
        return float(f"{content:.10g}")
    if isinstance(content, dict):
        return {name: _rounded(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return content


def _render(document: Document, name: str, escape: Callable[[str], str], **settings: Any) -> str:
    """A template that escapes every value for its form, but for what a macro of its own made of values."""

    def finalize(value: object) -> Markup:
        return value if isinstance(value, Markup) else Markup(escape(str(value)))

    environment = Environment(
        loader=PackageLoader("analysis"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,  # else macros give plain text, that would be escaped once more
        finalize=finalize,
        **settings,
    )
    return environment.get_template(name).render(document=document, fitting=_fitting)


def _csv_lines(table: Table, preset: str) -> list[dict[str, str]]:
    lines = []
    for row in table.rows:
        for (test, metric), cell in row.cells.items():
            line = {"table": table.title, "row": row.name, "label": row.line, "test": test, "metric": metric}
            line |= {"status": cell.status, "best": "yes" if cell.best else "", "problems": _problems(cell)}
            line |= {"n": str(cell.n), "seeds": " ".join(cell.seeds), "preset": preset}
            line["values"] = " ".join(format(value, ".10g") for value in cell.values)
            for field in ("mean", "std", "published", "difference"):
                value = getattr(cell, field)
                line[field] = "" if value is None else format(value, ".10g")
            lines.append(line)
    return lines


def _problems(cell: Cell) -> str:
    return "; ".join(problem.sentence() for problem in cell.problems)


def _json_table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "caption": table.caption,
        "notes": list(table.notes),
        "rows": [
            {
                "name": row.name,
                "labels": list(row.labels),
                "trained": row.trained,
                "cells": [
                    {"test": test, "metric": metric, **asdict(cell)} for (test, metric), cell in row.cells.items()
                ],
            }
            for row in table.rows
        ],
        "comparisons": [
            {**asdict(each), "metric": each.metric.name, "family": family}
            for family, some in table.comparisons.items()
            for each in some
        ],
    }
