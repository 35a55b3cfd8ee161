"""The terminal's view of a sweep: a live stage tree, or plain lines where the output is not a terminal."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.record import LABEL_VALUES
from sweeps.stages import Stage
from sweeps.sweep import State

STYLES = {
    State.WAITING: "dim",
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.FAILED: "bold red",
    State.SKIPPED: "yellow",
    State.PAUSED: "blue",
    State.PRUNED: "dim",
}
HEADINGS = ["stage", "state", "step", "steps/s", "val. dB", "left"]
BAR = 12
"""Width of a progress bar; none where a name would have to be shortened for it."""
LINES_PER_STAGE = 4
"""Plain lines of progress within a stage."""


@dataclass
class _Line:
    state: State = State.WAITING
    step: int = 0
    psnr: float | None = None
    note: str = ""
    started: float = 0.0
    started_at: int = 0
    said: int = 0

    def speed(self) -> float | None:
        """Steps per second since this sweep took up the stage."""
        elapsed = time.monotonic() - self.started
        done = self.step - self.started_at
        return done / elapsed if self.state == State.RUNNING and done and elapsed > 0 else None


class Progress:
    """Shows the stage tree with state, step, speed, validation PSNR and time left. A context manager."""

    def __init__(self, console: Console, stages: Sequence[Stage]) -> None:
        self._console = console
        self._stages = _depth_first(stages)
        self._lines = {stage.key: _Line() for stage in stages}
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=2)

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, stage: Stage, state: State, step: int, metrics: dict[str, float], note: str) -> None:
        """A stage changed its state or made progress."""
        if stage.key not in self._lines:
            self._stages.append(stage)
        line = self._lines.setdefault(stage.key, _Line())
        noted = bool(note) and not line.note
        changed = state != line.state
        if (changed and state == State.RUNNING) or (state == State.RUNNING and line.step == 0):
            line.started, line.started_at = time.monotonic(), step
        line.state, line.step, line.note = state, step, note
        line.psnr = metrics.get("validation/psnr", line.psnr)
        if not self._console.is_terminal:
            self._say(stage, line, changed or noted)

    def _say(self, stage: Stage, line: _Line, changed: bool) -> None:
        due = stage.steps and line.step * LINES_PER_STAGE // stage.steps > line.said
        if not changed and not due:
            return
        line.said = line.step * LINES_PER_STAGE // stage.steps if stage.steps else 0
        parts = [f"{stage.title}: {line.state}"]
        if line.state == State.RUNNING and line.step:
            parts.append(f"step {line.step:,}/{stage.steps:,}")
            if speed := line.speed():
                parts.append(f"{speed:.2f} steps/s, {_duration((stage.steps - line.step) / speed)} left")
        if line.psnr is not None:
            parts.append(f"validation {line.psnr:.2f} dB")
        if line.note:
            parts.append(line.note)
        self._console.print(Text(", ".join(parts)), soft_wrap=True)

    def _table(self) -> Table:
        rows = [self._row(stage) for stage in self._stages]
        numbers = [max(len(row[index]) for row in [HEADINGS, *rows]) for index in range(1, len(HEADINGS))]
        room = max(self._console.width - sum(numbers) - len(numbers), 1)
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        with_bar = room - BAR - 1 >= max(cell_len(row[0]) for row in [HEADINGS, *rows])
        room -= BAR + 1 if with_bar else 0
        table.add_column(HEADINGS[0], no_wrap=True)
        for heading in HEADINGS[1:]:
            table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
        if with_bar:
            table.add_column("")
        for stage, row in zip(self._stages, rows, strict=True):
            line = self._lines[stage.key]
            bar = _bar(line.step, stage.steps, STYLES[line.state]) if stage.steps else ""
            name, state, *rest = row
            table.add_row(
                _shortened(name, room), Text(state, style=STYLES[line.state]), *rest, *([bar] if with_bar else [])
            )
            note = line.note or _values(stage)
            if note and line.state in (State.RUNNING, State.FAILED, State.SKIPPED):
                text = Text("  " + note, style=STYLES[line.state])
                text.truncate(room, overflow="ellipsis")
                table.add_row(text)
        return table

    def _row(self, stage: Stage) -> list[str]:
        line = self._lines[stage.key]
        speed = line.speed()
        return [
            "  " * (sum(each.key in self._lines for each in stage.chain()) - 1) + stage.title,
            str(line.state),
            f"{line.step:,}/{stage.steps:,}" if stage.steps else "",
            f"{speed:.2f}" if speed else "",
            f"{line.psnr:.2f}" if line.psnr is not None else "",
            _duration((stage.steps - line.step) / speed) if speed else "",
        ]


def _bar(step: int, steps: int, style: str) -> ProgressBar:
    # Of a style's name alone terminals of 16 colours show the same grey for what is done and for what is left.
    return ProgressBar(total=steps, completed=step, width=BAR, complete_style=style, finished_style=style)


def _depth_first(stages: Sequence[Stage]) -> list[Stage]:
    """Children below their parents."""
    order = {stage.key: index for index, stage in enumerate(stages)}
    return sorted(stages, key=lambda stage: [order[each.key] for each in stage.chain() if each.key in order])


def _values(stage: Stage) -> str:
    """What a trial tries."""
    values = json.loads(dict(stage.labels).get(LABEL_VALUES, "{}"))
    return ", ".join(f"{field.split('.')[-1]} {value:.3g}" for field, value in values.items())


def _shortened(name: str, width: int) -> str:
    """Only where a terminal is too narrow. What tells stages apart stands at the end of their names."""
    return name if cell_len(name) <= width else "…" + set_cell_size(name[::-1], width - 1)[::-1]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
