"""The `analysis` command: a sweep's tables in the terminal and as files."""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from mlflow.exceptions import MlflowException
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from analysis.load import load_sweep, open_store, without_password
from analysis.report import FORMATS, Column, check_formats, columns, render
from analysis.tables import COMPLETE, Row, Table, build_tables


class OneLineErrors(click.Group):
    """A command group that ends bad input, click's own complaints included, with one line and exit code 2.

    Set WHETSTONE_DEBUG=1 for the traceback.
    """

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            sys.exit(super().main(*args, **{**kwargs, "standalone_mode": False}))
        except click.Abort:
            sys.exit(130)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "analysis"
            message = f"{error.format_message()} See {command} --help."
        except (ValueError, OSError, MlflowException) as error:
            if os.environ.get("WHETSTONE_DEBUG"):
                raise
            message = " ".join(without_password(str(error)).split())
        click.echo(f"error: {message}", err=True)
        sys.exit(2)


@click.group(cls=OneLineErrors, no_args_is_help=False)
def main() -> None:
    """Tables and reports, rebuilt from the tracking store alone."""


@main.command()
@click.option("--study", default="tables", show_default=True, help="The study to report.")
@click.option("--preset", help="The preset to report.  [default: the latest sweep's]")
@click.option("--format", "formats", default=",".join(FORMATS), show_default=True, help="Files to write.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the files.  [default: RUNS/report]")
@click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    help="The tracking store.  [default: $MLFLOW_TRACKING_URI, else sqlite:///RUNS/mlflow.db]",
)
@click.option(
    "--runs", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of the sweeps."
)
def report(
    study: str, preset: str | None, formats: str, out: Path | None, tracking_uri: str | None, runs: Path
) -> None:
    """Print a study's tables and write them as files."""
    names = check_formats(tuple(formats.split(",")))
    sweep = load_sweep(open_store(tracking_uri or f"sqlite:///{runs}/mlflow.db"), study, preset)
    tables = build_tables(sweep)
    files = render(tables, sweep, names)
    folder = out or runs / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        _write(folder / name, content)
    console = Console(highlight=False)
    shared = [note for note in tables[0].notes if all(note in table.notes for table in tables)]
    for table in tables:
        _print(console, table, [note for note in table.notes if note not in shared])
    for note in shared:
        console.print(Text(note, style="dim"))
    console.print()
    for name in files:
        click.echo(folder / name)


def _print(console: Console, table: Table, notes: list[str]) -> None:
    console.print(Text(table.title, style="bold"))
    console.print(Text(table.caption))
    for grid in _fitting(console, table):
        console.print()
        console.print(grid)
    console.print()
    for note in notes:
        console.print(Text(note, style="dim"))


def _fitting(console: Console, table: Table) -> list[Grid]:
    """A table as the first that fits: one grid, one per test set, or one per test set and metric."""
    found = columns(table)
    unbounded = console.options.update(max_width=10_000)
    grids: list[Grid] = []
    for width in (0, 1, 2):
        groups: dict[tuple[str, ...], list[Column]] = {}
        for column in found:
            groups.setdefault((column.test, column.metric.name)[:width], []).append(column)
        grids = [_grid(table, group) for group in groups.values()]
        if all(console.measure(grid, options=unbounded).maximum <= console.width for grid in grids):
            break
    return grids


def _grid(table: Table, shown: list[Column]) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in table.headings:
        grid.add_column(Text(f"\n{heading}"), min_width=8)
    for column in shown:
        above = column.test if column.kind == "ours" else ""
        grid.add_column(Text(f"{above}\n{column.heading}"), justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(*map(Text, row.labels), *(_cell(row, column) for column in shown))
    return grid


def _cell(row: Row, column: Column) -> Text:
    complete = row.cells[column.test, column.metric.name].status == COMPLETE
    style = "dim" if column.kind != "ours" else "" if complete else "yellow"
    return Text(column.text(row), style=style)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
