"""A comparison of two ways to do the same, taken side by side; the table and the file that show it."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from rich.console import Console

from sweeps.provenance import git_state
from sweeps.resources import best_precision, processor, this_machine

WIDTHS = (16, 16, 7, 15, 14, 6)
"""Of the columns of a comparison's line: 79 characters with the spaces between them."""

ENOUGH = 3
"""Repeats on each side for a verdict."""

Way = Callable[[Path], Callable[[], None]]
"""Prepares an empty folder; what it returns is timed."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Seconds (or another unit) of ours and of theirs, one of each per repeat. Of a rate, a unit that ends with "/s",
    more is better; of all else less.

    The median of the repeats' ratios must be below `limit` and no lower than `least`, that of ours below `most`; None
    where there is no such limit. `missing` says why there are no numbers, `failed` whether there should be some;
    `detail` is for the reader, and may differ from run to run.
    """

    name: str
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    unit: str = "s"
    limit: float | None = None
    least: float | None = None
    most: float | None = None
    missing: str = ""
    failed: bool = False
    detail: str = ""

    @property
    def ratios(self) -> list[float]:
        """Ours to theirs in each repeat: what slows the machine down for a while slows both down."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def broken(self) -> str:
        """One line that says which limit is broken; empty where none is."""
        if self.failed:
            return f"{self.name} failed: {self.missing}"
        if self.missing:
            return ""
        ratio, ours = median(self.ratios), median(self.ours)
        if self.limit is not None and ratio >= self.limit:
            return f"{self.name}: the ratio must be below {self.limit:g}, and is {ratio:.3f}"
        if self.least is not None and ratio < self.least:
            return f"{self.name}: the ratio must be at least {self.least:g}, and is {ratio:.3f}"
        if self.most is not None and ours >= self.most:
            return f"{self.name}: ours must be below {self.most:g} {self.unit}, and is {ours:.2f}"
        return ""

    def worse_than(self, earlier: Sequence[float]) -> bool:
        """Whether each repeat has a worse ratio than each of an earlier run's; of fewer than ENOUGH, none has."""
        if self.missing or min(len(self.ratios), len(earlier)) < ENOUGH:
            return False
        if self.unit.endswith("/s"):
            return max(self.ratios) < min(earlier)
        return min(self.ratios) > max(earlier)


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What an earlier run was taken on, and its ratios by the comparison's name in each group."""

    machine: Mapping[str, object]
    groups: Mapping[str, Mapping[str, Sequence[float]]]

    def ratios(self, group: str, name: str) -> Sequence[float]:
        """Empty where there are none."""
        return self.groups.get(group, {}).get(name, ())

    def unjudged(self, groups: Mapping[str, Sequence[Comparison]]) -> str:
        """How many comparisons have too few repeats on either side, in words; empty where none has."""
        repeats = [
            min(len(each.ratios), len(self.ratios(group, each.name)))
            for group, comparisons in groups.items()
            for each in comparisons
            if not each.missing
        ]
        few = sum(count < ENOUGH for count in repeats)
        return f"{few} of {len(repeats)}" if few else ""

    def missing_in(self, groups: Mapping[str, Sequence[Comparison]]) -> list[str]:
        """Names that only the earlier run has, in the groups that are in both."""
        return [
            name
            for group, comparisons in groups.items()
            for name in self.groups.get(group, {})
            if name not in {each.name for each in comparisons}
        ]


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
        "processor": processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "precision": best_precision("cpu", this_machine()),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "commit": git_state()[0][:10],
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        **{package: version(package) for package in ("torch", "ray", "mlflow") if find_spec(package)},
    }


def show(
    groups: Mapping[str, Sequence[Comparison]],
    console: Console,
    *,
    on: Mapping[str, object],
    earlier: Earlier | None = None,
) -> None:
    """A name and a line of numbers for each: medians over repeats, of the ratio the smallest and the largest too; last
    the median of its `earlier` ratios. Below, what both were taken on, what only the earlier run has, what breaks its
    limit and what became worse."""

    def say(line: str, style: str = "") -> None:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    say(_line(("ours", "theirs", "ratio", "from – to", "limit", *(["before"] if earlier else []))), "bold")
    for group, comparisons in groups.items():
        say(f"\n{group}", "bold")
        for each in comparisons:
            style = "red" if each.broken else ""
            title = f"{each.name} ({each.detail})" if each.detail else each.name
            say(title, style)
            before = [_before(earlier.ratios(group, each.name))] if earlier else []
            cells = [each.missing] if each.missing else [*_cells(each), *before]
            say(_line(cells), style or "cyan")
    say("\n" + _described(on))
    if earlier:
        say(f"before: {_described(earlier.machine)}")
        for name in earlier.missing_in(groups):
            say(f"{name}: only before")
        if unjudged := earlier.unjudged(groups):
            say(f"no verdict on {unjudged}: it takes {ENOUGH} repeats, now and before", "yellow")
    if any(each.broken for comparisons in groups.values() for each in comparisons):
        say("Limits are for a machine that does nothing else. Broken:", "red")
    for group, comparisons in groups.items():
        for each in comparisons:
            if each.broken:
                say(each.broken, "red")
            if earlier and each.worse_than(earlier.ratios(group, each.name)):
                say(f"{each.name}: worse than before, in each repeat", "yellow")


def _described(machine: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def _before(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.3g}" if ratios else "–"


def _line(cells: Sequence[str]) -> str:
    return " ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=False)).rstrip()


def _cells(each: Comparison) -> Sequence[str]:
    ratios = each.ratios
    limits = [
        *([] if each.limit is None else [f"< {each.limit:g}"]),
        *([] if each.least is None else [f"≥ {each.least:g}"]),
        *([] if each.most is None else [f"ours < {each.most:g} {each.unit}"]),
    ]
    return (
        _amount(median(each.ours), each.unit),
        _amount(median(each.theirs), each.unit),
        f"{median(ratios):.3g}",
        f"{min(ratios):.3g} – {max(ratios):.3g}",
        ", ".join(limits),
    )


def _amount(value: float, unit: str) -> str:
    if unit == "s" and 0 < value < 0.1:
        value, unit = 1000 * value, "ms"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def in_one_line(error: Exception) -> str:
    """What went wrong, and of which kind it was."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def require_writable(out: Path) -> None:
    """Ask for an `--out` that can be written before minutes are spent; what is there stays until there is more.

    Raises:
        ValueError: it can't.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        there = out.exists()
        out.open("a").close()
        if not there:
            out.unlink()
    except OSError as error:
        raise ValueError(f"--out must be a file that can be written, got {out} ({error.strerror})") from error


def write(groups: Mapping[str, Sequence[Comparison]], path: Path, *, on: Mapping[str, object]) -> None:
    """The same as JSON, with the numbers of each repeat."""
    content = {
        "machine": dict(on),
        "benchmarks": {
            group: [
                {**asdict(each), **({} if each.missing else {"ratio": median(each.ratios), "ratios": each.ratios})}
                for each in comparisons
            ]
            for group, comparisons in groups.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def read(path: Path) -> Earlier:
    """An earlier run.

    Raises:
        ValueError: it is not a file that `write` wrote.
    """
    try:
        content = json.loads(path.read_text())
        return Earlier(
            machine=dict(content["machine"]),
            groups={
                group: {each["name"]: [float(ratio) for ratio in each.get("ratios", [])] for each in comparisons}
                for group, comparisons in content["benchmarks"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"--against must be a file that `make bench` wrote, got {path}") from error
