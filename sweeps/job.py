"""A stage as a job: what an engine is given to do, where, and the files that come of it.

Without PyTorch, whose import takes longer than much of what a driver does.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.learner import Execution, Test
from sweeps.record import HISTORY_FILE
from sweeps.stages import Stage

CHECKPOINTS_KEPT = 2
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
STATE = "state.pt"
METRICS = "metrics.json"
HISTORY = HISTORY_FILE
DIGESTS = "digests.json"
COSTS = "costs.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can't change a result: where and how often. Intervals are in steps."""

    cache: Path
    execution: Execution = field(default_factory=Execution)
    threads: int = 1
    log_every: int = 10
    validate_every: int = 50
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        # Else the first point after a resume would average fewer steps than in an undisturbed run.
        for name in ("validate_every", "checkpoint_every"):
            if (value := getattr(self, name)) % self.log_every:
                raise ValueError(f"{name} must be a multiple of log_every ({self.log_every}), got {value}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage to train and the test sets to evaluate at its end.

    `start` is the state file to start from: the parent's final state, or the stage's own where it is `trained` already
    and only evaluation is missing. Checkpoints and the result are written under `folder`. `until` is the step, counted
    from the stage's own start, at which to pause: training ends there with a validation and a checkpoint. None: the
    stage's end, where it is evaluated and has a result.
    """

    stage: Stage
    tests: tuple[Test, ...]
    folder: Path
    start: Path | None = None
    trained: bool = False
    until: int | None = None

    @property
    def result(self) -> Path:
        """Folder with the final model, metrics, per-image metrics and strips."""
        return self.folder / "result"


Point = tuple[int, dict[str, float]]
"""A global step and the metrics there."""

Report = Callable[[int, dict[str, float], Sequence[Point]], None]
"""Called with a global step, the metrics there, and points before it that the listener may not have heard."""


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a stage, oldest first."""
    found = [path for path in folder.glob("checkpoint-*.pt") if re.fullmatch(r"checkpoint-\d+\.pt", path.name)]
    return sorted(found, key=lambda path: int(path.stem.split("-")[1]))
