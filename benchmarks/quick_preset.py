"""The share of orchestration in a sweep on the quick preset, on two cores with two trials at once.

Orchestration is what the whole command, from the start of Python to its exit, takes longer than a plain loop over the
longest chain of the same stages. Both run the preset's own stages with their reports, checkpoints, evaluation files and
models, but with steps, validations and restored images that cost nothing; both start Python, import PyTorch and load
faces, weights and networks. What is left is Ray, MLflow, their start and their end, the processes of the trials, and
all that is said to the driver and the store.

Training is not run to its end, which takes ten minutes, but estimated as `--plan` does: a few real steps of each kind
of stage are timed, on one core with nothing beside them, and the sweep is taken to last as long as its longest chain
or half of all its work, whichever is longer. Two trials side by side take longer than that, and the driver writes while
they compute: both make the true share smaller. What makes it larger is that Ray's processes use a little of the cores
for as long as a sweep lasts, which is not counted.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.comparison import Comparison, Way, side_by_side
from sweeps.cli import ROOT
from sweeps.deblurring.data import image_counts
from sweeps.estimate import estimate
from sweeps.measure import measure_all
from sweeps.presets import quick
from sweeps.stages import Study
from sweeps.stand_in import stand_in_data
from sweeps.studies import Inputs, tables

TRIALS_AT_ONCE = 2
LIMIT = 0.03
"""Of the whole sweep's seconds."""
SPARE_FACES = 50
"""To train on, beside those that are held out."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Orchestration against the whole sweep: itself and the training."""
    preset = quick()
    config = preset.config
    cache, faces = folder / "cache", folder / "faces"
    cache.mkdir()
    _write_faces(
        faces, config.data.test_faces + config.data.validation_faces + SPARE_FACES, size=config.data.image_size
    )
    data = stand_in_data(config.data, {}, config.backbone, cache)
    study = tables(Inputs(config=config, data=data, seeds=[1], backbone_digest="", caption=""))
    ways: dict[str, Way] = {
        "sweep": lambda place: partial(_command, "benchmarks.idle_sweep", place, faces, cache),
        "loop": lambda place: partial(_command, "benchmarks.idle_loop", place, faces, cache),
    }
    side_by_side(ways, repeats=1, folder=folder / "warm")  # prepares faces and kernels, as once on a machine
    seconds = side_by_side(ways, repeats=repeats, folder=folder)
    orchestration = [sweep - loop for sweep, loop in zip(seconds["sweep"], seconds["loop"], strict=True)]
    training = [_training_seconds(study, cache) for _ in range(repeats)]
    return [
        Comparison(
            name="Quick preset, orchestration against the whole sweep",
            ours=tuple(orchestration),
            theirs=tuple(mine + its for mine, its in zip(orchestration, training, strict=True)),
            stages=len(study.stages()),
            limit=LIMIT,
        )
    ]


def _training_seconds(study: Study, cache: Path) -> float:
    preset = quick()
    images = image_counts(preset.config.data, tests=len(study.tests), validate_every=preset.validate_every)
    costs = measure_all(study.stages(), test=study.tests[0], device=torch.device("cpu"), threads=1, cache=cache)
    return estimate(study.stages(), costs, images, places=TRIALS_AT_ONCE).seconds


def _command(module: str, runs: Path, faces: Path, cache: Path) -> None:
    """A command on the idle study, in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    # Not a person's own cluster and store.
    own = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    options = ["--runs", runs, "--train-faces", faces, "--test-faces", f"Made up={faces}"]
    options += ["--device", "cpu", "--cpus-per-trial", "1"]
    done = subprocess.run(
        [sys.executable, "-m", module, "idle", *map(str, options)],
        cwd=ROOT,
        env={**own, "WHETSTONE_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{module} ended with exit code {done.returncode}: {done.stdout}{done.stderr}")


def _write_faces(folder: Path, count: int, *, size: int) -> None:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:04d}.png")
