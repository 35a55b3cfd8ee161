"""Stages, rows and studies: what is trained, in which order, and the key that tells when it is done.

Nothing here knows what is being restored: a study brings its configs, and they bring their learners (`sweeps.learner`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from sweeps.learner import Config, Test
from sweeps.overrides import apply_overrides
from sweeps.record import LABEL_WEIGHTS, Axis, Metric

PROTOCOL_VERSION = 1
"""Part of every stage key: raised when the meaning of a config, of a step or of a checkpoint changes."""


def digest(content: object) -> str:
    """16 hexadecimal digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training segment: where it starts, its config, its length and its seed.

    A stage of 0 steps is only evaluated (the degraded input). `copy` tells apart stages that are the same training done
    more than once on purpose (see `flat`). `labels` are names and texts for the run's tags; they are not in the key.
    """

    name: str
    config: Config
    steps: int
    seed: int
    parent: "Stage | None" = None
    copy: str = ""
    labels: tuple[tuple[str, str], ...] = ()

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
                **({"copy": self.copy} if self.copy else {}),
            }
        )

    @property
    def title(self) -> str:
        """The name a person sees, such as `multi-task · +perceptual · seed 1`."""
        parts = [self.name, f"seed {self.seed}" if self.steps else "", f"for {self.copy}" if self.copy else ""]
        return " · ".join(part for part in parts if part)

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
class Range:
    """A field of a stage's config and the values to try: on a logarithmic scale, unless `low` is 0."""

    field: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a search varies: fields of the last stage of a row."""

    row: str
    ranges: tuple[Range, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything a sweep needs to know: rows, tests, metrics and tables, and what is worth a search.

    `optional` rows have lines in the tables, but another study trains them: they are shown where the store has them.
    `notes`, `licences`, `axis` and `zooms` are for the reader of a report, see `record.SweepRecord`.
    """

    name: str
    rows: tuple[Row, ...]
    tests: Sequence[Test]
    metrics: tuple[Metric, ...]
    tables: tuple[Table, ...]
    comparable: bool
    notes: tuple[str, ...]
    spaces: tuple[Space, ...] = ()
    optional: tuple[Row, ...] = ()
    licences: tuple[str, ...] = ()
    axis: Axis | None = None
    zooms: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)

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
        """Steps if every line of every table (but for optional ones) were trained from scratch, without shared
        prefixes."""
        rows = {row.name: row for row in self.rows}
        lines = [rows[line.row] for table in self.tables for line in table.lines if line.row in rows]
        return sum(last.last_step for row in lines for last in row.stages)

    def tree_steps(self) -> int:
        """Steps of the stage tree."""
        return sum(stage.steps for stage in self.stages())


Values = dict[str, float]
"""Fields of a config and their values."""


def with_values(stage: Stage, values: Values, **changes: Any) -> Stage:
    """The stage with some fields of its config changed (and other attributes of its own).

    Raises:
        ValueError: a field that the config does not have, or a value that it does not take.
    """
    config = apply_overrides(stage.config, [f"{field}={value!r}" for field, value in values.items()])
    return replace(stage, config=config, **changes)


def tuned(study: Study, found: Mapping[str, Values], label: str) -> Study:
    """The study with each row in `found` trained with the values found for it, and what follows on such a row
    following on that; `label` says where they come from, in the tags of these stages' runs.

    Raises:
        ValueError: a row that the study does not have.
    """
    rows = {row.name: row for row in study.rows}
    if unknown := found.keys() - rows.keys():
        raise ValueError(f"--weights must name rows of study {study.name!r} ({', '.join(rows)}), got {min(unknown)!r}")
    changes = {stage.key: values for name, values in found.items() for stage in rows[name].stages}

    def rebuild(stage: Stage) -> Stage:
        moved = replace(stage, parent=rebuild(stage.parent) if stage.parent else None)
        if stage.key in changes:
            moved = with_values(moved, changes[stage.key], labels=((LABEL_WEIGHTS, label),))
        if moved.key == stage.key:
            return moved
        return replace(moved, name=f"{stage.name} · {'tuned' if stage.key in changes else 'on tuned'}")

    def rebuilt(rows: tuple[Row, ...]) -> tuple[Row, ...]:
        return tuple(replace(row, stages=tuple(rebuild(last) for last in row.stages)) for row in rows)

    return replace(study, rows=rebuilt(study.rows), optional=rebuilt(study.optional))


def flat(study: Study) -> Study:
    """The same study without shared prefixes: each row trains its whole chain for itself, to show that sharing changes
    nothing. Its stages have keys of their own, its results an experiment of their own; it has no optional rows."""
    rows = tuple(
        replace(row, stages=tuple(_copy(last, row.name) if last.steps else last for last in row.stages))
        for row in study.rows
    )
    own = {row.name for row in rows}
    tables = tuple(
        replace(table, lines=tuple(line for line in table.lines if line.row in own)) for table in study.tables
    )
    return replace(study, name=f"{study.name}-flat", rows=rows, optional=(), tables=tables)


def _copy(stage: Stage, name: str) -> Stage:
    return replace(stage, parent=_copy(stage.parent, name) if stage.parent else None, copy=name)
