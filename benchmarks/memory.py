"""What a further trial on the same faces and kernels takes of the memory, against its network and activations.

Four trials hold the network of a preset, its optimiser and the activations of a step, on as many faces as the paper's.
Memory is counted as PSS, in which a page that n processes share counts for each as its n-th part: their sum is what
they take together.
"""

import re
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import torch
from pydantic import TypeAdapter

from benchmarks.comparison import Comparison
from datasets.faces import face_set, open_faces, store_faces
from datasets.kernels import load_kernels, open_kernels
from sweeps.deblurring.config import DeblurConfig, LossWeights, TrainingData, TrainingStage
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.measure import start_moments
from sweeps.presets import PRESETS
from sweeps.resources import resolve_precision, this_machine

TRIALS = 4
FACES = 6464
"""The paper's."""
PRIVATE = ("Private_Clean", "Private_Dirty")
LIMIT = 1.3
"""Times the memory of a trial's network and activations; the quick preset's are less than PyTorch itself takes."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Megabytes that each trial after the first adds, and what the network and the activations of a lone one take."""
    return [
        _compare(preset, repeats=repeats, folder=folder, limit=limit)
        for preset, limit in (("paper", LIMIT), ("quick", None))
    ]


def _compare(preset: str, *, repeats: int, folder: Path, limit: float | None) -> Comparison:
    stage = _stage(PRESETS[preset]().config, folder)
    added, needed = [], []
    for _ in range(repeats):
        with ExitStack() as stack:
            first = stack.enter_context(Holder(stage, folder))
            before = first.megabytes(*PRIVATE)
            first.advance()
            needed.append(first.megabytes(*PRIVATE) - before)
            alone = first.megabytes("Pss")
            others = [stack.enter_context(Holder(stage, folder)) for _ in range(TRIALS - 1)]
            for trial in others:
                trial.advance()
            together = sum(trial.megabytes("Pss") for trial in (first, *others))
            added.append((together - alone) / len(others))
    return Comparison(
        name=f"{preset} preset: a further trial of {TRIALS} on {FACES:,} faces, against its network and activations",
        ours=tuple(added),
        theirs=tuple(needed),
        unit="MB",
        limit=limit,
    )


def _stage(config: DeblurConfig, cache: Path) -> TrainingStage:
    """The multi-task content stage on made-up faces, as many as the paper's."""
    size = config.data.image_size
    pixels = np.random.default_rng(0).integers(256, size=(FACES, size, size, 3), dtype=np.uint8)
    faces = store_faces(face_set(name="made up", images=pixels), cache=cache).digest
    kernels = load_kernels(
        sizes=config.data.kernel_sizes, per_size=config.data.kernels_per_size, seed=1, cache=cache
    ).digest
    return TrainingStage(
        generator=config.generator,
        losses=LossWeights(),
        optimiser=config.optimiser,
        batch_size=config.batch_size,
        precision=resolve_precision("auto", "cpu", this_machine()),
        data=TrainingData(faces=faces, validation_faces=faces, kernels=kernels, validation_kernels=kernels, noise=0.01),
    )


class Holder:
    """A process that has read all faces and kernels; told to advance, it holds what a step needs."""

    def __init__(self, stage: TrainingStage, cache: Path) -> None:
        text = TypeAdapter(TrainingStage).dump_json(stage).decode()
        command = [sys.executable, "-m", "benchmarks.memory", text, str(cache)]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True)

    def __enter__(self) -> "Holder":
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def advance(self) -> None:
        """Build the network, its optimiser's moments and gradients, and hold the activations of a step."""
        assert self._process.stdin
        print(file=self._process.stdin, flush=True)
        self._wait()

    def megabytes(self, *kinds: str) -> float:
        """Of resident memory, by the names that the kernel gives its kinds."""
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        kilobytes = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
        return sum(int(kilobytes[kind]) for kind in kinds) * 1024 / 1e6

    def _wait(self) -> None:
        assert self._process.stdout
        if not self._process.stdout.readline():
            raise RuntimeError(f"a trial ended with exit code {self._process.wait()}")


def hold(stage: TrainingStage, cache: Path) -> None:
    """Read the data; after a line on standard input hold what a step needs; end with the input."""
    torch.set_num_threads(1)
    seen = [open_faces(stage.data.faces, cache=cache).images, open_kernels(stage.data.kernels, cache=cache).kernels]
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what is no part of the network either
    print(*(array.max() for array in seen), flush=True)
    sys.stdin.readline()
    learner = TrainingLearner(stage, seed=1, execution=Execution(), cache=cache)
    start_moments(next(part for part in learner.state.values() if isinstance(part, torch.optim.Optimizer)))
    losses, _ = learner.losses(*learner.draw())  # with the graph that holds the activations
    print(float(losses["total"].detach()), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    hold(TypeAdapter(TrainingStage).validate_json(sys.argv[1]), Path(sys.argv[2]))
