"""Stages, rows and studies: what is trained, in which order, and the key that tells when it is done.

Nothing here knows what is being restored: a study brings its configs, and they bring their learners (`sweeps.learner`).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from sweeps.learner import Config, Test
from sweeps.record import Metric

PROTOCOL_VERSION = 1
"""Part of every stage key: raised when the meaning of a config, of a step or of a checkpoint changes."""


def digest(content: object) -> str:
    """16 hexadecimal digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training segment: where it starts, its config, its length and its seed.

    A stage of 0 steps is only evaluated (the degraded input).
    """

    name: str
    config: Config
    steps: int
    seed: int
    parent: "Stage | None" = None

    @cached_property
    def key(self) -> str:
        """Hash of what can change the result, and of nothing else: two equal keys are one training."""
        return digest(
            {
                "protocol": PROTOCOL_VERSION,
                "parent": self.parent.key if self.parent else None,
                "kind": type(self.config).__name__,
                "config": asdict(self.config),
                "steps": self.steps,
                "seed": self.seed,
            }
        )

    @property
    def title(self) -> str:
        """The name a person sees, such as `multi-task · +perceptual · seed 1`."""
        return f"{self.name} · seed {self.seed}" if self.steps else self.name

    @property
    def first_step(self) -> int:
        """Global step at which the stage starts: where its parent ended."""
        return self.parent.last_step if self.parent else 0

    @property
    def last_step(self) -> int:
        """Global step at which the stage ends."""
        return self.first_step + self.steps

    def chain(self) -> "Iterator[Stage]":
        """The stage and its ancestors, the root first."""
        if self.parent:
            yield from self.parent.chain()
        yield self


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table: its name and, for each seed, the last stage of its chain."""

    name: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Where a row stands in a table: its label cells and the published numbers, by test set and metric."""

    row: str
    cells: tuple[str, ...]
    published: dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a study: title, caption, headings of the label cells, lines in order."""

    title: str
    caption: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything a sweep needs to know: rows, tests, metrics and tables."""

    name: str
    rows: tuple[Row, ...]
    tests: Sequence[Test]
    metrics: tuple[Metric, ...]
    tables: tuple[Table, ...]
    comparable: bool
    notes: tuple[str, ...]

    def stages(self) -> list[Stage]:
        """The stage tree: every distinct stage of all rows, parents before their children."""
        unique: dict[str, Stage] = {}
        for row in self.rows:
            for last in row.stages:
                for stage in last.chain():
                    unique.setdefault(stage.key, stage)
        return list(unique.values())

    def rows_of(self, stage: Stage) -> list[str]:
        """Names of the rows that are read from `stage`."""
        return [row.name for row in self.rows if any(last.key == stage.key for last in row.stages)]

    def flat_steps(self) -> int:
        """Steps if every line of every table were trained from scratch, without shared prefixes."""
        rows = {row.name: row for row in self.rows}
        lines = [rows[line.row] for table in self.tables for line in table.lines]
        return sum(last.last_step for row in lines for last in row.stages)

    def tree_steps(self) -> int:
        """Steps of the stage tree."""
        return sum(stage.steps for stage in self.stages())
