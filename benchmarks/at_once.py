"""Two trials at once on two cores, against one on one core: processes that each train with one thread."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, Popen
from time import perf_counter

import torch

from benchmarks.comparison import Comparison
from benchmarks.steps import config_of, made_up_stages
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.presets import quick
from sweeps.resources import this_machine

LEAST = 1.6
"""Times the throughput of one trial on one core."""
WINDOW = 2.0
"""Seconds for which steps are counted."""
STAGE = "multi-task · content"


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Steps per second of two trials together, and of one that has the machine to itself."""
    cores = sorted(os.sched_getaffinity(0))
    name = f"{STAGE}: two trials at once, against one on one core"
    if len(cores) < 2:
        return [Comparison(name=name, missing="one core")]
    made_up_stages(quick().config, folder, device="cpu", machine=this_machine())
    together, alone = [], []
    with ExitStack() as stack:
        trials = [stack.enter_context(Trial(core, folder)) for core in cores[:2]]
        for _ in range(repeats):
            alone.append(sum(rates_of(trials[:1])))
            together.append(sum(rates_of(trials)))
    return [Comparison(name=name, ours=tuple(together), theirs=tuple(alone), unit="steps/s", least=LEAST)]


class Trial:
    """A process on a core, which counts the steps of a window each time it is asked."""

    def __init__(self, core: int, cache: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.at_once", str(core), str(cache)]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True)

    def __enter__(self) -> "Trial":
        self.answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self) -> None:
        """Begin a window."""
        assert self._process.stdin
        print(file=self._process.stdin, flush=True)

    def answer(self) -> float:
        """Steps per second of the window; 0 when it is ready for its first."""
        assert self._process.stdout
        return float(self._process.stdout.readline())


def rates_of(trials: list[Trial]) -> list[float]:
    """Of windows at the same time."""
    for trial in trials:
        trial.ask()
    return [trial.answer() for trial in trials]


def train_on(core: int, cache: Path) -> None:
    """Take steps on a core for a window's time for each line on standard input, and print the rate."""
    os.sched_setaffinity(0, [core])
    torch.set_num_threads(1)
    stages = made_up_stages(quick().config, cache, device="cpu", machine=this_machine())
    stage = next(each for each in stages if each.name == STAGE)
    learner = TrainingLearner(config_of(stage), seed=1, execution=Execution(), cache=cache)
    learner.step()
    print(0.0, flush=True)
    for _ in sys.stdin:
        steps, start = 0, perf_counter()
        while perf_counter() - start < WINDOW:
            learner.step()
            steps += 1
        print(steps / (perf_counter() - start), flush=True)


if __name__ == "__main__":
    train_on(int(sys.argv[1]), Path(sys.argv[2]))
