"""Two trials at once on two cores, against one on one core: processes that each train with one thread."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.comparison import Comparison
from benchmarks.made_up import CONFIG, Child, config_of, made_up_stages
from sweeps.deblurring.config import TrainingStage
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.presets import quick
from sweeps.resources import this_machine

LEAST = 1.6
"""Times the throughput of one trial on one core."""
WINDOW = 1.5
"""Seconds for which steps are counted."""
FACES = 849
STAGE = "multi-task · content"


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Steps per second of two trials together, and of one, now on this core and now on that, that has both."""
    cores = sorted(os.sched_getaffinity(0))
    name = f"{STAGE}: two trials at once, against one on one core"
    if len(cores) < 2:
        return [Comparison(name=name, missing="one core")]
    stages = made_up_stages(quick().config, folder, faces=FACES, device="cpu", machine=this_machine())
    config = config_of(next(stage for stage in stages if stage.name == STAGE))
    together, alone = [], []
    with ExitStack() as stack:
        trials = [Child("benchmarks.at_once", config, folder, core) for core in cores[:2]]
        for trial in trials:
            stack.push(trial)  # ends it, also where the other does not start
        for trial in trials:
            trial.answer()
        for repeat in range(repeats):
            one = [trials[repeat % 2]]
            if repeat % 2:
                together.append(rate(trials))
                alone.append(rate(one))
            else:
                alone.append(rate(one))
                together.append(rate(trials))
    return [Comparison(name=name, ours=tuple(together), theirs=tuple(alone), unit="steps/s", least=LEAST)]


def rate(trials: Sequence[Child]) -> float:
    """Steps per second of all in windows at the same time."""
    for trial in trials:
        trial.ask()
    return sum(trial.answer() for trial in trials)


def train(config: TrainingStage, cache: Path, core: int) -> None:
    """Take steps on a core for a window's time for each line on standard input, and print the rate."""
    os.sched_setaffinity(0, [core])
    torch.set_num_threads(1)
    learner = TrainingLearner(config, seed=1, execution=Execution(), cache=cache)
    learner.step()
    print(0.0, flush=True)
    for _ in sys.stdin:
        steps, start = 0, perf_counter()
        while perf_counter() - start < WINDOW:
            learner.step()
            steps += 1
        print(steps / (perf_counter() - start), flush=True)


if __name__ == "__main__":
    train(CONFIG.validate_json(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
