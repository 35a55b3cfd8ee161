"""What stands behind all tables together: each training once, whatever tables it is in, and the stages before it."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.load import StageRun, Sweep
from analysis.tables import Row, Table
from sweeps import record
from sweeps.record import RowRecord


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of the record, with all the labels that it has in the tables, and as each of these has computed it."""

    labels: tuple[str, ...]
    row: RowRecord
    computed: tuple[Row, ...]

    @property
    def label(self) -> str:
        """What a legend says."""
        return " / ".join(self.labels)

    def sound(self, test: str, metric: str) -> bool:
        """Whether no table has a problem with its number."""
        return all(row.cells[test, metric].sound for row in self.computed)


def distinct_lines(sweep: Sweep, tables: Sequence[Table]) -> list[Line]:
    """The lines of all tables, each training once."""
    found: dict[str, Line] = {}
    for asked, table in zip(sweep.record.tables, tables, strict=True):
        records = {row.name: row for row in asked.rows}
        for row in table.rows:
            trained = records[row.name]
            identity = repr(sorted(trained.keys.items()))
            known = found.get(identity, Line(labels=(), row=trained, computed=()))
            labels = tuple(dict.fromkeys((*known.labels, table.short(row))))
            found[identity] = Line(labels=labels, row=trained, computed=(*known.computed, row))
    return list(found.values())


def stage_runs(sweep: Sweep, lines: Sequence[Line]) -> dict[str, list[StageRun]]:
    """The runs behind all lines, their earlier stages included, by stage in the order of the lines."""
    found: dict[str, dict[str, StageRun]] = {}
    for line in lines:
        for run in sweep.row_runs(line.row).values():
            for each in sweep.chain(run) if run else ():
                found.setdefault(each.tags.get(record.TAG_STAGE, each.run_id), {})[each.run_id] = each
    return {stage: list(runs.values()) for stage, runs in found.items()}
