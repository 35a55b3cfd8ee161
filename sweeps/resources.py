"""What each trial is given, found from the machine and the stage tree where the user does not say."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sweeps.stages import Stage

GPU_MEMORY_PER_TRIAL = 16 * 2**30
"""Bytes of GPU memory to allow for a trial of the paper preset: a generous estimate, not measured on a GPU."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Processor cores (also the trial's threads) and a share of a GPU."""

    cpus: int
    gpus: float


def resolve_device(name: str) -> str:
    """The device a person means by auto, cpu or cuda.

    Raises:
        ValueError: cuda was asked for and there is none.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device must be a device that PyTorch finds here (cpu, auto), got cuda")
    return name


def share_out(
    stages: Sequence[Stage], *, device: str, cpus: int | None, gpus: float | None, one_at_a_time: bool
) -> Resources:
    """Cores and GPU share of each trial: as given, else so that the stages that can run at once fill the machine.

    On a GPU as many trials share one as its memory allows (`GPU_MEMORY_PER_TRIAL` each).

    Raises:
        ValueError: a trial would not fit this machine, and would wait forever.
    """
    at_once = 1 if one_at_a_time else max(1, _leaves(stages))
    cores = len(os.sched_getaffinity(0))
    if cpus is None:
        cpus = max(1, cores // at_once)
    if cpus > cores:
        raise ValueError(f"--cpus-per-trial must be at most {cores}, the cores of this machine, got {cpus}")
    devices = torch.cuda.device_count() if device == "cuda" else 0
    if gpus is not None and gpus > devices:
        raise ValueError(f"--gpus-per-trial must be at most {devices}, the GPUs in use here, got {gpus:g}")
    if not devices:
        return Resources(cpus=cpus, gpus=0.0)
    if gpus is None:
        memory = torch.cuda.get_device_properties(0).total_memory
        wanted = -(-at_once // devices)
        gpus = 1 / max(1, min(wanted, memory // GPU_MEMORY_PER_TRIAL))
    return Resources(cpus=cpus, gpus=gpus)


def _leaves(stages: Sequence[Stage]) -> int:
    """Trained stages that are nobody's parent: that many chains can be under way at once."""
    parents = {stage.parent.key for stage in stages if stage.parent}
    return sum(bool(stage.steps) and stage.key not in parents for stage in stages)
