"""One stage, in plain PyTorch: no engine, no tracker.

A learner (what a study brings) does the steps; `train_stage` gives it what every stage needs: the parent's state,
resumption in mid-stage, curves, a check for non-finite losses, evaluation at the end, and files that others can read.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from sweeps import record
from sweeps.learner import Learner, Test
from sweeps.stages import Stage

CHECKPOINTS_KEPT = 2
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
STATE = "state.pt"
METRICS = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can't change a result: where and how often. Intervals are in steps."""

    cache: Path
    device: str = "cpu"
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
    and only evaluation is missing. Checkpoints and the result are written under `folder`.
    """

    stage: Stage
    tests: tuple[Test, ...]
    folder: Path
    start: Path | None = None
    trained: bool = False

    @property
    def result(self) -> Path:
        """Folder with the final model, metrics, per-image metrics and strips."""
        return self.folder / "result"


class NonFiniteError(RuntimeError):
    """A loss or a metric became NaN or infinite."""


Report = Callable[[int, dict[str, float]], None]


def train_stage(job: Job, settings: Settings, report: Report) -> None:
    """Train a stage, from its last checkpoint if there is one, evaluate it and write its result.

    `report(global_step, metrics)` is called every `log_every` steps with mean losses and at validations.
    On the CPU, with the same number of threads, an interrupted stage ends with the same bits as an undisturbed one.

    Raises:
        NonFiniteError: naming the stage and the steps; its checkpoints are removed, since they may be spoilt.
    """
    torch.set_num_threads(settings.threads)
    stage = job.stage
    learner = stage.config.learner(seed=stage.seed, device=torch.device(settings.device), cache=settings.cache)
    try:
        step = _resume(job, learner)
        while step < stage.steps:
            since, step = step, min(step + settings.log_every, stage.steps)
            metrics = _mean_losses(learner, step - since)
            if step % settings.validate_every == 0 or step == stage.steps:
                metrics |= {f"validation/{name}": value for name, value in learner.validate().items()}
            _require_finite(metrics, f"{stage.title}, steps {since + 1} to {step}")
            # Before the checkpoint: after a kill between the two a point is reported twice, not never.
            report(stage.first_step + step, metrics)
            if step % settings.checkpoint_every == 0 or step == stage.steps:
                _write_checkpoint(job, learner, step)
        _write_result(job, learner)
    except NonFiniteError:
        for checkpoint in checkpoints(job.folder):
            checkpoint.unlink()
        raise


def _mean_losses(learner: Learner, steps: int) -> dict[str, float]:
    """Do some steps; the mean of each loss term. Values are read once at the end, so that a GPU need not wait."""
    sums = dict(learner.step())
    for _ in range(steps - 1):
        for name, value in learner.step().items():
            sums[name] = sums[name] + value
    return {f"loss/{name}": float(value) / steps for name, value in sums.items()}


def _require_finite(metrics: dict[str, float], where: str) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"{where}: {name} is {value}")


def _resume(job: Job, learner: Learner) -> int:
    """Bring the learner to where the stage stands and return the steps done."""
    if not job.trained:
        for checkpoint in reversed(checkpoints(job.folder)):
            try:
                content = load_state(checkpoint)
            except IncompleteStateError as error:
                print(f"{error}; going back to the one before", flush=True)
                continue
            assert content["stage"] == job.stage.key
            for name, part in learner.state.items():
                part.load_state_dict(content["state"][name])
            return int(content["step"])
    if job.start:
        _inherit(learner, load_state(job.start)["state"], same_stage=job.trained)
    return job.stage.steps if job.trained else 0


def _inherit(learner: Learner, parent: dict[str, Any], *, same_stage: bool) -> None:
    for name, part in learner.state.items():
        if name not in parent:
            continue
        state = parent[name]
        if isinstance(part, torch.optim.Optimizer) and not same_stage:
            # The moments go on; the learning rate is the child's own.
            state = {**state, "param_groups": part.state_dict()["param_groups"]}
        part.load_state_dict(state)


class IncompleteStateError(RuntimeError):
    """A state file that was cut off, or is none."""


def load_state(path: Path) -> dict[str, Any]:
    """Read a state file into the processor's memory: plain tensors and values, never a bare pickle.

    Raises:
        IncompleteStateError: the file is not a complete state file.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise IncompleteStateError(f"{path} is not a complete state file ({error})") from error
    return content


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a stage, oldest first."""
    found = [path for path in folder.glob("checkpoint-*.pt") if re.fullmatch(r"checkpoint-\d+\.pt", path.name)]
    return sorted(found, key=lambda path: int(path.stem.split("-")[1]))


def _write_checkpoint(job: Job, learner: Learner, step: int) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / f"checkpoint-{step:08d}.pt"
    _save_state(path, job, learner, step)
    for old in checkpoints(job.folder)[:-CHECKPOINTS_KEPT]:
        old.unlink(missing_ok=True)


def _save_state(path: Path, job: Job, learner: Learner, step: int) -> None:
    state = {name: part.state_dict() for name, part in learner.state.items()}
    partial = path.with_suffix(".partial")
    torch.save({"stage": job.stage.key, "step": step, "state": state}, partial)
    os.replace(partial, path)


def _write_result(job: Job, learner: Learner) -> None:
    """Evaluate, and write `result/` in one move, so that a result is whole or absent."""
    partial = job.folder / "result.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    metrics: dict[str, float] = {}
    for test in job.tests:
        evaluation = learner.evaluate(test)
        metrics |= {record.test_metric(test.name, name): value for name, value in evaluation.means().items()}
        _require_finite(metrics, job.stage.title)
        table = partial / record.per_image_file(test.name)
        table.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(evaluation.per_image), table)
        for index, strip in enumerate(evaluation.strips):
            image = partial / record.strip_file(test.name, index)
            image.parent.mkdir(parents=True, exist_ok=True)
            strip.save(image)
    (partial / METRICS).write_text(json.dumps(metrics, sort_keys=True))
    if learner.model is not None:
        model = partial / "model"
        model.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in learner.model.state_dict().items()}, model / WEIGHTS)
        (model / CONFIG).write_text(json.dumps(asdict(job.stage.config), sort_keys=True, indent=2))
        _save_state(model / STATE, job, learner, job.stage.steps)
    shutil.rmtree(job.result, ignore_errors=True)
    os.replace(partial, job.result)
