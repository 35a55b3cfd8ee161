"""The `analysis` command: a sweep's report in the terminal and as files, and two rows side by side."""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click
from mlflow.exceptions import MlflowException
from rich.console import Console

from analysis.compare import compare_rows
from analysis.document import Document
from analysis.load import load_sweep, open_store, without_password
from analysis.report import FORMS, build_document, check_forms, render
from analysis.states import MISSING, PAUSED, RUNNING
from analysis.terminal import show, show_section


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


def of_a_sweep(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose a sweep in a store."""
    options = (
        click.option("--study", default="tables", show_default=True, help="The study to report."),
        click.option("--preset", help="The preset to report.  [default: the latest sweep's]"),
        click.option(
            "--tracking-uri",
            envvar="MLFLOW_TRACKING_URI",
            help="The tracking store.  [default: $MLFLOW_TRACKING_URI, else sqlite:///RUNS/mlflow.db]",
        ),
        click.option(
            "--runs", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of the sweeps."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@of_a_sweep
@click.option("--format", "formats", default=",".join(FORMS), show_default=True, help="Files to write.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the files.  [default: RUNS/report]")
@click.option("--strict", is_flag=True, help="Exit with 1 where anything keeps the report from being defended.")
@click.option(
    "--watch",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Look again every so often, until nothing is running any more.",
)
def report(
    study: str,
    preset: str | None,
    tracking_uri: str | None,
    runs: Path,
    formats: str,
    out: Path | None,
    strict: bool,
    watch: float | None,
) -> int:
    """Print a study's tables and write them, with figures, as files."""
    names = check_forms(tuple(formats.split(",")))
    client = open_store(tracking_uri or f"sqlite:///{runs}/mlflow.db")
    folder = out or runs / "report"
    console = Console(highlight=False)

    def look() -> Document:
        with uncollected():
            return build_document(load_sweep(client, study, preset))

    document = None
    for document in looks(look, (lambda: time.sleep(watch)) if watch else None):
        with uncollected():
            # Before the terminal is written to, which may be a pipe that closes.
            for name, content in render(document, names).items():
                _write(folder / name, content)
            if watch:
                console.clear()
            show(console, document)
    assert document
    for name in names:
        click.echo(folder / f"{document.name}.{name}")
    return int(strict and bool(document.problems))


@contextmanager
def uncollected() -> Iterator[None]:
    """Leave out the garbage collector: it would look through a large store again and again, and find a few figures."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def looks(look: Callable[[], Document], wait: Callable[[], None] | None) -> Iterator[Document]:
    """A report, and with `wait` each later one that differs, until no number may come any more. Where some are missing
    and nothing is under way, it looks once more: between two stages a sweep has no run open."""
    shown, document, idle = None, look(), 0
    while True:
        if document != shown:
            yield document
        idle = 0 if document.has(RUNNING, PAUSED) else idle + 1
        if wait is None or idle == 2 or (idle and not document.has(MISSING)):
            return
        wait()
        shown, document = document, look()


@main.command()
@of_a_sweep
@click.argument("a", metavar="RUN")
@click.argument("b", metavar="RUN")
def compare(study: str, preset: str | None, tracking_uri: str | None, runs: Path, a: str, b: str) -> None:
    """Print how two rows differ: settings, metrics with intervals, metrics along the axis.

    RUN is the name of a row (all its seeds), or the id of a run of a row (that seed alone), or how one begins.
    """
    sweep = load_sweep(open_store(tracking_uri or f"sqlite:///{runs}/mlflow.db"), study, preset)
    show_section(Console(highlight=False), compare_rows(sweep, a, b))


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        ValueError: it can't be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise ValueError(f"--out must be a folder that can be written, got {path.parent} ({error.strerror})") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
