"""What each trial is given, found from the machine and the stage tree where the user does not say."""

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeps.naming import counted
from sweeps.stages import Stage

GPU_MEMORY_PER_TRIAL = 16 * 2**30
"""Bytes of GPU memory to allow for a trial of the paper preset: a generous estimate, not measured on a GPU."""

GPU_VENDORS = ("0x10de", "0x1002")
"""NVIDIA and AMD, on the PCI bus."""
GPU_DRIVERS = ("nvidia*", "nvhost*", "kfd", "dxg")
"""Devices of NVIDIA's driver, its Jetsons', AMD's, and Windows' for the Linux in it: without a PCI bus to look at."""
COMPILERS = {"cpu": ("CXX", ("g++",)), "cuda": ("CC", ("gcc", "clang"))}
"""By device, the variable that names the compiler, and what is taken without it; on a GPU it is Triton that asks."""
CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Of x86 processors; on ARM's nothing was measured."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What trials run on: this machine, or a cluster. `gpu_memory` in bytes of one GPU; None where it is not known."""

    cores: int
    largest_node: int
    """Cores of the node that has most of them: a trial runs on one node."""
    gpus: int
    gpu_memory: int | None = None
    cpu_bfloat16: bool = False
    gpu_bfloat16: bool = True
    """Of a cluster the defaults: its processors may differ, and its GPUs are taken to be Amperes or later."""


def this_machine() -> Machine:
    """The cores and GPUs that this process may use."""
    cores = len(os.sched_getaffinity(0))
    if not may_have_gpus():
        return Machine(cores=cores, largest_node=cores, gpus=0, cpu_bfloat16=processor_has_bfloat16())
    import torch

    gpus = torch.cuda.device_count()
    memory = torch.cuda.get_device_properties(0).total_memory if gpus else None
    return Machine(
        cores=cores,
        largest_node=cores,
        gpus=gpus,
        gpu_memory=memory,
        cpu_bfloat16=processor_has_bfloat16(),
        gpu_bfloat16=bool(gpus) and torch.cuda.is_bf16_supported(including_emulation=False),
    )


def may_have_gpus(root: Path = Path("/")) -> bool:
    """Whether PyTorch, whose import takes a second, has to be asked: not where no card and no driver is to be seen."""
    if any(vendor.read_text().strip() in GPU_VENDORS for vendor in root.glob("sys/bus/pci/devices/*/vendor")):
        return True  # its driver may be loaded at the first call only
    return any(any(root.glob(f"dev/{name}")) for name in GPU_DRIVERS)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Processor cores (also the trial's threads) and a share of a GPU; `at_once` is how many trials then fit."""

    cpus: int
    gpus: float
    at_once: int

    @property
    def share(self) -> str:
        """What a trial has to itself, as `record.TAG_DEVICES` says it: its GPUs if it has any, else its cores."""
        if self.gpus:
            return f"{self.gpus:.3g} {'GPU' if self.gpus <= 1 else 'GPUs'}"
        return counted(self.cpus, "core")


def resolve_device(name: str, machine: Machine) -> str:
    """The device a person means by auto, cpu or cuda.

    Raises:
        ValueError: cuda was asked for and there is none.
    """
    if name == "auto":
        return "cuda" if machine.gpus else "cpu"
    if name == "cuda" and not machine.gpus:
        raise ValueError("--device must be a device that there is (cpu, auto), got cuda")
    return name


def require_compiler(device: str) -> None:
    """
    Raises:
        ValueError: there is none of those that PyTorch compiles networks for this machine's device with.
    """
    variable, programs = COMPILERS[device]
    if named := os.environ.get(variable):
        programs = (named,)
    if not any(map(shutil.which, programs)):
        raise ValueError(
            f"--compile needs a compiler ({variable}, else {' or '.join(COMPILERS[device][1])}), "
            f"got {' and '.join(programs)}, which is not there"
        )


def best_precision(device: str, machine: Machine) -> Literal["float32", "bfloat16"]:
    """bfloat16 where what trains has circuits for it.

    By what the hardware says and not by timing, which could turn out otherwise tomorrow: the precision is part of a
    stage's key.
    """
    native = machine.gpu_bfloat16 if device == "cuda" else machine.cpu_bfloat16
    return "bfloat16" if native else "float32"


def slow_precision(precision: str, device: str, machine: Machine) -> str:
    """Why training in a precision may be slow there; nothing where it is not."""
    if precision == "float32" or best_precision(device, machine) == precision:
        return ""
    what = "GPUs" if device == "cuda" else "processors"
    return f"{precision} is not known to be what the {what} here compute in: it may take many times as long as float32"


def processor_has_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor multiplies in bfloat16, and oneDNN with it; no where the system does not say."""
    return not BFLOAT16_FLAGS.isdisjoint(_of_the_first_processor("flags", cpuinfo).split())


def processor(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, or its architecture where the system does not say."""
    return _of_the_first_processor("model name", cpuinfo) or platform.machine()


def _of_the_first_processor(field: str, cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def share_out(wanted: int, machine: Machine, *, device: str, cpus: int | None, gpus: float | None) -> Resources:
    """Cores and GPU share of each trial: as given, else so that the `wanted` trials that can run at once fill the
    machine.

    As many trials share a GPU as its memory allows (`GPU_MEMORY_PER_TRIAL` each); where it is not known, one.

    Raises:
        ValueError: a trial would not fit, and would wait forever.
    """
    if not machine.largest_node:
        raise ValueError("--address must be a cluster with a node that has cores for trials, got one without")
    if cpus is None:
        cpus = min(max(1, machine.cores // wanted), machine.largest_node)
    if cpus > machine.largest_node:
        raise ValueError(
            f"--cpus-per-trial must be at most {machine.largest_node}, the cores of a machine here, got {cpus}"
        )
    devices = machine.gpus if device == "cuda" else 0
    if gpus is not None and gpus > devices:
        raise ValueError(f"--gpus-per-trial must be at most {devices}, the GPUs in use here, got {gpus:g}")
    by_cores = max(1, machine.cores // cpus)
    if not devices:
        return Resources(cpus=cpus, gpus=0.0, at_once=min(wanted, by_cores))
    if gpus is None:
        room = machine.gpu_memory // GPU_MEMORY_PER_TRIAL if machine.gpu_memory else 1
        gpus = 1 / max(1, min(-(-wanted // devices), room))
    by_gpus = int(devices / gpus + 1e-6)  # ten tenths of a GPU are ten
    return Resources(cpus=cpus, gpus=gpus, at_once=min(wanted, by_cores, by_gpus))


def chains_at_once(stages: Sequence[Stage]) -> int:
    """Trained stages that are nobody's parent: that many chains can be under way at once."""
    parents = {stage.parent.key for stage in stages if stage.parent}
    return max(1, sum(bool(stage.steps) and stage.key not in parents for stage in stages))
