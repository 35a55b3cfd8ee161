"""Tables laid out as Markdown, LaTeX, HTML and CSV: the same store gives the same bytes."""

import csv
import io
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.load import FINISHED, StageRun, Sweep
from analysis.tables import COMPLETE, Cell, Row, Table, line_name, status_on
from sweeps import record
from sweeps.record import Metric

FORMATS = ("md", "html", "tex", "csv")
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
    "published",
    "difference",
    "status",
    "preset",
)
MINUS = "\N{MINUS SIGN}"
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
Kind = Literal["ours", "paper", "difference"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of numbers: ours, the published ones, or the difference."""

    test: str
    metric: Metric
    kind: Kind

    @property
    def heading(self) -> str:
        """The column's own heading, below its test set's."""
        return {"ours": self.metric.label, "paper": "paper", "difference": "diff."}[self.kind]

    @property
    def full_heading(self) -> str:
        """A heading that stands alone."""
        name = f"{self.test} {self.metric.label}"
        return name if self.kind == "ours" else f"{name}, {self.heading}"

    def text(self, row: Row) -> str:
        """What the column shows of a row: a number, the reason there is none, or nothing."""
        cell = row.cells[self.test, self.metric.name]
        if self.kind == "ours":
            return _ours(cell, row.trained, self.metric.decimals)
        if self.kind == "paper":
            return "" if cell.published is None else _number(cell.published, self.metric.decimals)
        return "" if cell.difference is None else _number(cell.difference, self.metric.decimals, "+")


@dataclass(frozen=True, kw_only=True)
class NamedRun:
    """A stage's run (None if missing), its seed ("" if it has none) and the table lines that show it."""

    lines: list[str]
    seed: str
    run: StageRun | None


def columns(table: Table) -> list[Column]:
    """A table's columns of numbers; a published or difference column only where it has a number."""
    found = []
    for test in table.tests:
        for metric in table.metrics:
            cells = [row.cells[test, metric.name] for row in table.rows]
            found.append(Column(test=test, metric=metric, kind="ours"))
            if any(cell.published is not None for cell in cells):
                found.append(Column(test=test, metric=metric, kind="paper"))
            if any(cell.difference is not None for cell in cells):
                found.append(Column(test=test, metric=metric, kind="difference"))
    return found


def render(tables: list[Table], sweep: Sweep, formats: tuple[str, ...] = FORMATS) -> dict[str, bytes]:
    """The files of a report: `<study>-<preset>.<format>` and its bytes.

    Raises:
        ValueError: a format is unknown, or the study's or the preset's name is not fit for a file name.
    """
    stem = f"{sweep.record.study}-{sweep.record.preset}"
    if not re.fullmatch(r"\w[\w.+-]*", stem):
        raise ValueError(f"study and preset must be of letters, digits and ._+- to name a file, got {stem!r}")
    return {f"{stem}.{name}": _render(name, tables, sweep).encode() for name in check_formats(formats)}


def check_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    """The formats, if all are known.

    Raises:
        ValueError: one is not.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format must be of {', '.join(FORMATS)}, got {name!r}")
    return formats


def escape_latex(text: str) -> str:
    """Plain text as LaTeX that typesets as that text."""
    return text.translate(LATEX)


def escape_markdown(text: str) -> str:
    """Plain text as Markdown that reads as that text, on one line."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def _render(name: str, tables: list[Table], sweep: Sweep) -> str:
    if name == "csv":
        return _csv(tables, sweep)
    context: dict[str, Any] = {"tables": tables, "sweep": sweep, "columns": columns, "spans": _spans}
    if name == "html":
        context |= {"strips": {test: _strips(sweep, test) for test in sweep.record.tests}}
        context |= {"facts": _facts(sweep), "runs": _named_runs(sweep)}
    return _environment(name).get_template(f"report.{name}.j2").render(context)


def _environment(name: str) -> Environment:
    """A template environment that escapes every value for the format."""
    plain = Environment(
        loader=PackageLoader("analysis"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    if name == "html":
        return plain.overlay(autoescape=True)
    if name == "md":
        return plain.overlay(finalize=lambda value: escape_markdown(str(value)))
    return plain.overlay(
        finalize=lambda value: escape_latex(str(value)),
        # {{, {% and {# are LaTeX.
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
    )


def _ours(cell: Cell, trained: bool, decimals: int) -> str:
    if cell.mean is None:
        return cell.status
    number = _number(cell.mean, decimals)
    if not trained:
        return number
    spread = "" if cell.std is None else f" ± {_number(cell.std, decimals)}"
    return f"{number}{spread} ({cell.n if cell.status == COMPLETE else cell.status})"


def _number(value: float, decimals: int, sign: str = "") -> str:
    return format(value, f"{sign}.{decimals}f").replace("-", MINUS)


def _spans(table: Table) -> list[tuple[str, int]]:
    """Each test set and how many columns it spans."""
    return list(Counter(column.test for column in columns(table)).items())


def _csv(tables: list[Table], sweep: Sweep) -> str:
    """One line per table, row, test set and metric, numbers to ten digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            for (test, metric), cell in row.cells.items():
                line = {"table": table.title, "row": row.name, "label": line_name(row.labels)}
                line |= {"test": test, "metric": metric, "status": cell.status, "preset": sweep.record.preset}
                line |= {"n": str(cell.n), "seeds": " ".join(cell.seeds)}
                for field in ("mean", "std", "published", "difference"):
                    value = getattr(cell, field)
                    line[field] = "" if value is None else format(value, ".10g")
                writer.writerow(line)
    return text.getvalue()


def _named_runs(sweep: Sweep) -> list[NamedRun]:
    """Every run behind the tables once, in row order, with all the lines it stands for."""
    found: dict[str, NamedRun] = {}
    for table in sweep.record.tables:
        for row in table.rows:
            name = f"{table.title}: {line_name(row.cells)}"
            for seed, run in sweep.row_runs(row).items():
                identity = run.run_id if run else f"{name} {seed}"
                found.setdefault(identity, NamedRun(lines=[], seed=seed, run=run)).lines.append(name)
    return list(found.values())


def _strips(sweep: Sweep, test: str) -> list[tuple[NamedRun, list[str]]]:
    """For each line of the tables the image strips of its first seed with numbers on the test set, as data URIs."""
    found = []
    shown: set[str] = set()
    for named in _named_runs(sweep):
        complete = status_on(sweep, named.run, test) == COMPLETE
        if named.run and complete and not shown.issuperset(named.lines):
            shown.update(named.lines)
            images = [f"data:image/png;base64,{b64encode(png).decode()}" for png in named.run.strips(test)]
            found.append((named, images))
    return [(named, images) for named, images in found if images]


def _facts(sweep: Sweep) -> list[tuple[str, str]]:
    """What the sweep asked for, and what its finished runs were made of: distinct values of each tag, by name."""
    runs = [named.run.tags for named in _named_runs(sweep) if named.run and named.run.status == FINISHED]
    data = sorted({tag for tags in runs for tag in tags if tag.startswith(record.TAG_DATA_PREFIX)})
    named_tags = {
        "Code digest": record.TAG_CODE_DIGEST,
        "Hardware": record.TAG_HARDWARE,
        **{f"Data digest of {tag.removeprefix(record.TAG_DATA_PREFIX)}": tag for tag in data},
    }
    return [
        ("Study", sweep.record.study),
        ("Preset", sweep.record.preset),
        ("Seeds", ", ".join(map(str, sweep.record.seeds))),
        *((f"Protocol of {test}", sweep.record.fingerprints[test]) for test in sweep.record.tests),
        ("Commit", _distinct(_commit(tags) for tags in runs)),
        *((name, _distinct(tags.get(tag, "") for tags in runs)) for name, tag in named_tags.items()),
    ]


def _commit(tags: dict[str, str]) -> str:
    commit = tags.get(record.TAG_COMMIT, "")
    return f"{commit} (modified)" if tags.get(record.TAG_DIRTY) == "true" else commit


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values) - {""})) or "not recorded"
