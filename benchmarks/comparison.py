"""A comparison of two ways to do the same, taken side by side; the table and the file that show it."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

Way = Callable[[Path], Callable[[], None]]
"""Prepares an empty folder; what it returns is timed."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Seconds (or another unit) of ours and of theirs, one of each per repeat; for so many stages, where it is about
    stages.

    The median of the repeats' ratios must be below `limit`, that of ours below `most`; None where there is no limit.
    """

    name: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    unit: str = "s"
    stages: int | None = None
    limit: float | None = None
    most: float | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours to theirs in each repeat: what slows the machine down for a while slows both down."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def broken(self) -> str:
        """One line that says which limit is broken; empty where none is."""
        ratio, ours = median(self.ratios), median(self.ours)
        if self.limit is not None and ratio >= self.limit:
            return f"{self.name}: the ratio must be below {self.limit:g}, and is {ratio:.3f}"
        if self.most is not None and ours >= self.most:
            return f"{self.name}: ours must be below {self.most:g} {self.unit}, and is {ours:.2f}"
        return ""


def side_by_side(ways: Mapping[str, Way], *, repeats: int, folder: Path) -> dict[str, tuple[float, ...]]:
    """Seconds of each way in each repeat. Each repeat begins with another way, so that none always comes first."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            place = folder / f"{name}-{repeat}"
            place.mkdir(parents=True)
            seconds[name].append(timed(ways[name](place)))
    return {name: tuple(each) for name, each in seconds.items()}


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    start = perf_counter()
    action()
    return perf_counter() - start


def machine() -> dict[str, object]:
    """What the numbers were taken on; `load` is the number of processes that wanted to run in the last minute."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "ray", "mlflow")},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def show(comparisons: Sequence[Comparison], console: Console) -> None:
    """One table: medians over repeats, below them the smallest and the largest."""
    table = Table(title="Benchmarks", title_justify="left", box=None, padding=(0, 2, 1, 0))
    for heading in ("", "ours", "theirs", "ratio", "limit"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=bool(heading))
    for each in comparisons:
        table.add_row(
            each.name,
            _measured(each.ours, each),
            _measured(each.theirs, each),
            _spread(each.ratios, ".3f"),
            _limits(each),
            style="red" if each.broken else "",
        )
    console.print(table, highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in machine().items()), highlight=False)
    for each in comparisons:
        if each.broken:
            console.print(each.broken, style="red", highlight=False, soft_wrap=True)


def _limits(each: Comparison) -> str:
    ratio = [] if each.limit is None else [f"< {each.limit:g}"]
    ours = [] if each.most is None else [f"ours < {each.most:g} {each.unit}"]
    return "\n".join(ratio + ours)


def _measured(values: Sequence[float], of: Comparison) -> str:
    each = f"\n{median(values) / of.stages:.3f} a stage" if of.stages else ""
    return _spread(values, ".2f" if of.unit == "s" else ",.0f", f" {of.unit}") + each


def _spread(values: Sequence[float], digits: str, unit: str = "") -> str:
    return f"{median(values):{digits}}{unit}\n{min(values):{digits}}–{max(values):{digits}}"


def write(comparisons: Sequence[Comparison], path: Path) -> None:
    """The same as JSON, with each repeat's seconds."""
    entries = [{**asdict(each), "ratio": median(each.ratios), "ratios": each.ratios} for each in comparisons]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "comparisons": entries}, indent=2) + "\n")
