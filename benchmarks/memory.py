"""What a further trial on the same faces and kernels takes of the memory, against its network and activations.

Four trials hold the network of a preset, its optimiser and the activations of a step, on as many faces as the paper's.
Memory is counted as PSS, in which a page that n processes share counts for each as its n-th part: their sum is what
they take together. Some of PyTorch is a process's own, whatever it trains. So a further trial is also counted from when
it has PyTorch: what it then adds is its network, its activations and whatever of the data was copied.
"""

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks.comparison import Comparison
from benchmarks.made_up import CONFIG, Child, config_of, made_up_stages
from datasets.faces import open_faces
from datasets.kernels import open_kernels
from sweeps.deblurring.config import TrainingStage
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.measure import start_moments
from sweeps.presets import PRESETS
from sweeps.resources import this_machine

TRIALS = 4
FACES = 6464
"""The paper's."""
STAGE = "multi-task · content"
PRIVATE = ("Private_Clean", "Private_Dirty")
LIMIT = 1.3
"""Times the memory of a trial's network and activations."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Megabytes that each trial after the first adds, whole and beyond PyTorch; and what the network and the
    activations of a lone one take."""
    return [each for preset in PRESETS for each in _compare(preset, repeats=repeats, folder=folder / preset)]


def _compare(preset: str, *, repeats: int, folder: Path) -> Sequence[Comparison]:
    few, many = (made_up_config(preset, folder, faces=faces) for faces in (2, FACES))
    needed, added, grown = [], [], []
    for _ in range(repeats):
        with Child("benchmarks.memory", few, folder) as lone:  # what it would copy of the data is next to nothing
            before = megabytes(lone, *PRIVATE)
            advance(lone)
            needed.append(megabytes(lone, *PRIVATE) - before)
        with ExitStack() as stack:
            trials = [stack.enter_context(Child("benchmarks.memory", many, folder))]
            advance(trials[0])
            alone = _together(trials)
            trials += [stack.enter_context(Child("benchmarks.memory", many, folder)) for _ in range(TRIALS - 1)]
            started = _together(trials)
            for trial in trials[1:]:
                advance(trial)
            whole = _together(trials)
            added.append((whole - alone) / (TRIALS - 1))
            grown.append((whole - started) / (TRIALS - 1))
    trial = f"{preset} preset: a further trial of {TRIALS} on {FACES:,} faces"
    return (
        Comparison(
            name=f"{trial}, against its network and activations",
            ours=tuple(added),
            theirs=tuple(needed),
            unit="MB",
            limit=LIMIT if preset == "paper" else None,  # the quick preset's are less than PyTorch itself takes
        ),
        Comparison(
            name=f"{trial}, beyond PyTorch, against the same",
            ours=tuple(grown),
            theirs=tuple(needed),
            unit="MB",
            limit=LIMIT,
        ),
    )


def made_up_config(preset: str, folder: Path, *, faces: int) -> TrainingStage:
    """The multi-task content stage on so many made-up faces."""
    stages = made_up_stages(PRESETS[preset]().config, folder, faces=faces, device="cpu", machine=this_machine())
    return config_of(next(stage for stage in stages if stage.name == STAGE))


def advance(trial: Child) -> None:
    """From where it has PyTorch to where it holds the data and a step's tensors."""
    trial.ask()
    trial.answer()


def _together(trials: Sequence[Child]) -> float:
    return sum(megabytes(trial, "Pss") for trial in trials)


def megabytes(trial: Child, *kinds: str) -> float:
    """Of resident memory, by the names that the kernel gives its kinds."""
    text = Path(f"/proc/{trial.pid}/smaps_rollup").read_text()
    kilobytes = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
    return sum(int(kilobytes[kind]) for kind in kinds) * 1024 / 1e6


def hold(config: TrainingStage, cache: Path) -> None:
    """After a line on standard input hold the data and what a step needs; end with the input."""
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what is no part of the network either
    print(0.0, flush=True)
    sys.stdin.readline()
    learner = TrainingLearner(config, seed=1, execution=Execution(), cache=cache)
    faces, kernels = open_faces(config.data.faces, cache=cache), open_kernels(config.data.kernels, cache=cache)
    read = float(faces.images.max()) + float(kernels.kernels.max())  # all of their pages
    start_moments(next(part for part in learner.state.values() if isinstance(part, torch.optim.Optimizer)))
    losses, _ = learner.losses(*learner.draw())  # with the graph that holds the activations
    print(read + float(losses["total"].detach()), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    hold(CONFIG.validate_json(sys.argv[1]), Path(sys.argv[2]))
