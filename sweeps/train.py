"""One stage, in plain PyTorch: no engine, no tracker.

A learner (what a study brings) does the steps; `train_stage` gives it what every stage needs: the parent's state,
resumption in mid-stage, curves, a check for non-finite losses, evaluation at the end, and files that others can read.
"""

import hashlib
import io
import json
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from sweeps import record
from sweeps.job import (
    CHECKPOINTS_KEPT,
    CONFIG,
    COSTS,
    DIGESTS,
    HISTORY,
    METRICS,
    STATE,
    WEIGHTS,
    Job,
    Point,
    Report,
    Settings,
    checkpoints,
)
from sweeps.learner import Learner, Stateful
from sweeps.stages import Stage

Clock = Callable[[], float]
"""Seconds since some moment."""


class NonFiniteError(RuntimeError):
    """A loss or a metric became NaN or infinite."""


@dataclass(kw_only=True)
class _Done:
    """What was done of a stage: steps from its own start, curves, and the seconds that steps and validations took.

    A resumed stage goes on from its checkpoint with all three: what was lost after that is in none.
    """

    step: int = 0
    history: list[Point] = field(default_factory=list)
    seconds: float = 0.0


def train_stage(job: Job, settings: Settings, report: Report, *, clock: Clock = time.perf_counter) -> None:
    """Train a stage, from its last checkpoint if there is one, evaluate it and write its result.

    `report(global_step, metrics, earlier)` is called where training begins, with no metrics and with the points before
    it that a checkpoint holds, then every `log_every` steps with mean losses and at validations. The whole history is
    in the result too, for a listener that was not there. On the CPU, with the same number of threads, an interrupted
    stage ends with the same bits as an undisturbed one.

    Raises:
        NonFiniteError: naming the stage and the steps; its checkpoints are removed, since they may be spoilt.
        IncompleteStateError: the state to start from is damaged.
    """
    torch.set_num_threads(settings.threads)
    stage = job.stage
    end = stage.steps if job.until is None else job.until
    learner = stage.config.learner(seed=stage.seed, execution=settings.execution, cache=settings.cache)
    try:
        done = _resume(job, learner)
        report(stage.first_step + done.step, {}, done.history)
        while done.step < end:
            since, done.step = done.step, min(done.step + settings.log_every, end)
            start = clock()
            metrics = _mean_losses(learner, done.step - since)
            if done.step % settings.validate_every == 0 or done.step == end:
                metrics |= {f"validation/{name}": value for name, value in learner.validate().items()}
            done.seconds += clock() - start
            _require_finite(metrics, f"{stage.title}, steps {since + 1} to {done.step}")
            done.history.append((stage.first_step + done.step, metrics))
            report(*done.history[-1], ())
            if done.step % settings.checkpoint_every == 0 or done.step == end:
                _write_checkpoint(job, learner, done)
        if job.until is None:
            _write_result(job, learner, done, clock)
        else:
            _write_json(job.folder / HISTORY, done.history)
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


def _resume(job: Job, learner: Learner) -> _Done:
    """Bring the learner to where the stage stands."""
    if not job.trained:
        for checkpoint in reversed(checkpoints(job.folder)):
            try:
                content = _state_of(job.stage, checkpoint)
            except IncompleteStateError as error:
                print(f"{error}; going back to the one before", flush=True)
                continue
            for name, part in learner.state.items():
                part.load_state_dict(_own_way(part, content["state"][name]))
            return _done(content)
    origin = job.stage if job.trained else job.stage.parent
    content = _state_of(origin, job.start) if origin and job.start else {"state": {}}
    _inherit(learner, content["state"], same_stage=job.trained)
    return replace(_done(content), step=job.stage.steps) if job.trained else _Done()


def _done(content: dict[str, Any]) -> _Done:
    """What a state file says was done; one of an earlier version has no seconds."""
    history = [(step, metrics) for step, metrics in content.get("history", [])]
    return _Done(step=int(content.get("step", 0)), history=history, seconds=float(content.get("seconds", 0.0)))


def _inherit(learner: Learner, parent: dict[str, Any], *, same_stage: bool) -> None:
    for name, part in learner.state.items():
        if name not in parent:
            continue
        state = parent[name]
        if isinstance(part, torch.optim.Optimizer) and not same_stage:
            # The moments go on; the learning rate is the child's own.
            state = {**state, "param_groups": part.state_dict()["param_groups"]}
        part.load_state_dict(_own_way(part, state))


def _own_way(part: Stateful, state: dict[str, Any]) -> dict[str, Any]:
    """A state to load, but for how an optimiser computes: that is this process's choice, not the checkpoint's."""
    if not isinstance(part, torch.optim.Optimizer):
        return state
    own = part.state_dict()["param_groups"]
    pairs = zip(state["param_groups"], own, strict=True)
    groups = [{**group, **{name: mine[name] for name in ("fused", "foreach") if name in mine}} for group, mine in pairs]
    return {**state, "param_groups": groups}


class IncompleteStateError(RuntimeError):
    """A state file that was cut off, or is another one."""


def load_state(path: Path) -> dict[str, Any]:
    """Read a state file into the processor's memory: plain tensors and values, never a bare pickle.

    Raises:
        IncompleteStateError: the file is not a complete state file.
    """
    try:
        with zipfile.ZipFile(path) as file:  # torch writes checksums, and does not compare them
            if damaged := file.testzip():
                raise ValueError(f"{damaged} does not have its checksum")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"stage", "step", "state"} - content.keys()
    except Exception as error:  # a damaged file raises any of a dozen
        reason = " ".join(str(error).split())[:200]
        raise IncompleteStateError(f"{path} is not a complete state file ({reason})") from error
    if missing:
        raise IncompleteStateError(f"{path} is not a state file: it has no {', '.join(sorted(missing))}")
    if not isinstance(content["state"], dict):
        raise IncompleteStateError(f"{path} is not a state file: its state is a {type(content['state']).__name__}")
    return content


def _state_of(stage: Stage, path: Path) -> dict[str, Any]:
    """The state file of a stage.

    Raises:
        IncompleteStateError: it is not complete, or another stage's.
    """
    content = load_state(path)
    if content["stage"] != stage.key:
        raise IncompleteStateError(f"{path} is of another stage ({content['stage']})")
    return content


def _write_checkpoint(job: Job, learner: Learner, done: _Done) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    _save_state(job.folder / f"checkpoint-{done.step:08d}.pt", job, learner, done)
    for old in checkpoints(job.folder)[:-CHECKPOINTS_KEPT]:
        old.unlink(missing_ok=True)


def _save_state(path: Path, job: Job, learner: Learner, done: _Done) -> None:
    state = {name: part.state_dict() for name, part in learner.state.items()}
    partial = path.with_suffix(".partial")
    try:
        content = io.BytesIO()  # on a full disk torch's own writer raises something that does not say so
        torch.save({"stage": job.stage.key, "state": state, **vars(done)}, content)
        partial.write_bytes(content.getbuffer())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)  # on a full disk every byte counts
        raise


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, sort_keys=True))


def _write_result(job: Job, learner: Learner, done: _Done, clock: Clock) -> None:
    """Evaluate, and write `result/` in one move, so that a result is whole or absent."""
    partial = job.folder / "result.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    metrics: dict[str, float] = {}
    # Of a stage that is only evaluated the store knows what its training took.
    costs = {} if job.trained else {record.TRAINING_SECONDS: done.seconds}
    costs[record.EVALUATION_SECONDS] = 0.0
    digests = {name: state_digest(part.state_dict()) for name, part in learner.state.items()}
    for test in job.tests:
        start = clock()
        evaluation = learner.evaluate(test)
        costs[record.EVALUATION_SECONDS] += clock() - start
        metrics |= {record.test_metric(test.name, name): value for name, value in evaluation.means().items()}
        _require_finite(metrics, job.stage.title)
        digests[f"{record.PER_IMAGE_FOLDER}.{test.name}"] = state_digest(evaluation.per_image)
        table = partial / record.per_image_file(test.name)
        table.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(evaluation.per_image), table)
        for (image, condition), strip in evaluation.strips.items():
            file = partial / record.strip_file(test.name, image, condition)
            file.parent.mkdir(parents=True, exist_ok=True)
            strip.save(file)
    _write_json(partial / METRICS, metrics)
    _write_json(partial / COSTS, costs)
    _write_json(partial / HISTORY, done.history)
    _write_json(partial / DIGESTS, digests)
    if learner.model is not None:
        model = partial / "model"
        model.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in learner.model.state_dict().items()}, model / WEIGHTS)
        (model / CONFIG).write_text(json.dumps(asdict(job.stage.config), sort_keys=True, indent=2))
        _save_state(model / STATE, job, learner, done)
    shutil.rmtree(job.result, ignore_errors=True)
    os.replace(partial, job.result)


def state_digest(state: object) -> str:
    """16 hexadecimal digits of the SHA-256 of nested dictionaries and lists of tensors and plain values, bit by bit."""
    total = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, torch.Tensor):
            total.update(f"{value.dtype}{tuple(value.shape)}".encode())
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            total.update(f"{{{len(value)}".encode())
            for key in sorted(value, key=repr):
                add(key)
                add(value[key])
        elif isinstance(value, (list, tuple)):
            total.update(f"[{len(value)}".encode())
            for each in value:
                add(each)
        else:
            total.update(repr(value).encode() + b"\0")

    add(state)
    return total.hexdigest()[:16]
