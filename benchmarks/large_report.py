"""A report of 1,000 runs with 8,000 per-image rows each, beside what a user would write for the same tables.

Ours is `analysis report` with all its forms, figures and intervals; theirs is `mlflow.search_runs` and pandas
(`pandas_report`), with means and deviations only. Each is a process of its own, imports included.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import DEVNULL, run

from benchmarks.comparison import Comparison, Way, side_by_side
from benchmarks.large_store import FACES, KERNELS, STUDY, fill

ROWS, SEEDS = 20, 50
SECONDS, MEGABYTES = 10.0, 1000.0
"""What a report may take at most."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Seconds and megabytes, against theirs and below the limits."""
    store = folder / "store"
    store.mkdir()
    fill(store, rows=ROWS, seeds=SEEDS)
    commands = {
        "ours": ["analysis", "report", "--study", STUDY, "--runs", str(store), "--out"],
        "theirs": ["benchmarks.pandas_report", str(store)],
    }
    peaks: dict[str, list[float]] = {name: [] for name in commands}

    def way(name: str, command: Sequence[str]) -> Way:
        def prepare(place: Path) -> Callable[[], None]:
            return lambda: peaks[name].append(peak_megabytes([*command, str(place)], place))

        return prepare

    ways = {name: way(name, command) for name, command in commands.items()}
    seconds = side_by_side(ways, repeats=repeats, folder=folder / "out")
    what = f"report of {ROWS * SEEDS:,} runs of {FACES * KERNELS:,} images"
    return [
        Comparison(
            name=f"{what}, against search_runs and pandas",
            ours=seconds["ours"],
            theirs=seconds["theirs"],
            most=SECONDS,
        ),
        Comparison(
            name="memory of that report, against search_runs and pandas",
            ours=tuple(peaks["ours"]),
            theirs=tuple(peaks["theirs"]),
            unit="MB",
            most=MEGABYTES,
        ),
    ]


def peak_megabytes(arguments: Sequence[str], place: Path) -> float:
    """Run a module, and tell the most memory that it had at once.

    Raises:
        CalledProcessError: it failed.
    """
    file = place / "peak"
    run([sys.executable, "-m", "benchmarks.peak", file, *arguments], check=True, stdout=DEVNULL)
    return float(file.read_text())
