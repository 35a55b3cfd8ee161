"""The share of orchestration in a sweep on the quick preset, on two cores with two trials at once.

Orchestration is what the whole command, from the start of Python to its exit, takes longer than a plain loop over the
longest chain of the same stages. Both run the preset's own stages with their reports, checkpoints, evaluation files and
models, but with steps, validations and restored images that cost nothing; both start Python, import PyTorch and load
faces, weights and networks. What is left is Ray, MLflow, their start and their end, the processes of the trials, and
all that is said to the driver and the store.

What the driver and Ray's processes use while trials take their time is orchestration too: where both cores train, it
slows them down by its share of the cores. It is read from the processes' clocks in a sweep whose steps only wait.
Reports are part of the command's own time, one after another, although in truth most are made while others train.

Training is not run to its end, which takes many minutes, but estimated as `--plan` does: a few real steps of each kind
of stage are timed, on one core with nothing beside them but the waiting sweep, and the sweep is taken to last as long
as its longest chain or half of all its work, whichever is longer. Two trials side by side take longer than that, which
makes the true share smaller; the waiting sweep lengthens the steps by its share of a core, some hundredths, which makes
the true share larger by as little. All repeats have the same estimate and the same share of waiting processes: their
range does not show that one estimate differs from the next, by a tenth in five in a row, by more in a bad hour.
"""

import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.comparison import Comparison, Way, side_by_side
from sweeps.cli import ROOT
from sweeps.deblurring.data import image_counts
from sweeps.estimate import Estimate, estimate
from sweeps.learner import Execution
from sweeps.measure import measure_all
from sweeps.presets import quick
from sweeps.resources import best_precision, this_machine
from sweeps.stages import Study
from sweeps.stand_in import stand_in_data
from sweeps.studies import Inputs, tables

CORES = 2
"""And trials at once."""
LIMIT = 0.03
"""Of the whole sweep's seconds."""
SPARE_FACES = 50
"""To train on, beside those that are held out."""
START, PAUSE, CALM = 10.0, 2.0, 0.1
"""Seconds that its start takes at least; and cores that they use, over so many seconds, when it is over."""
LATEST = 120.0
"""Seconds after which a sweep that is not calm is given up."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Orchestration against the whole sweep: itself and the training.

    Raises:
        RuntimeError: there are fewer cores than it takes.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) < CORES:
        raise RuntimeError(f"this benchmark takes {CORES} cores, got {len(cores)}")
    os.sched_setaffinity(0, sorted(cores)[:CORES])
    try:
        return _compare(repeats=repeats, folder=folder)
    finally:
        os.sched_setaffinity(0, cores)


def _compare(*, repeats: int, folder: Path) -> list[Comparison]:
    config = quick().config
    cache, faces = folder / "cache", folder / "faces"
    cache.mkdir()
    _write_faces(
        faces, config.data.test_faces + config.data.validation_faces + SPARE_FACES, size=config.data.image_size
    )
    ways: dict[str, Way] = {
        "sweep": lambda place: partial(_run, "benchmarks.idle_sweep", place, faces, cache),
        "loop": lambda place: partial(_run, "benchmarks.idle_loop", place, faces, cache),
    }
    # First: the cache then has faces and kernels, and made-up weights where a sweep would fetch the real ones.
    share, training = _beside_a_waiting_sweep(folder / "waiting", faces, cache)
    seconds = side_by_side(ways, repeats=repeats, folder=folder)
    # The time for which both cores train: all work, less the time in which at least one does.
    waiting = share * (sum(stage.seconds for stage in training.stages) - training.seconds)
    started = [sweep - loop for sweep, loop in zip(seconds["sweep"], seconds["loop"], strict=True)]
    orchestration = tuple(each + waiting for each in started)
    whole = tuple(each + training.seconds for each in orchestration)
    return [
        Comparison(
            name="Quick preset, orchestration against the whole sweep",
            detail=f"{waiting:.1f} s of it by processes that wait",
            ours=orchestration,
            theirs=whole,
            limit=LIMIT,
        ),
    ]


def _beside_a_waiting_sweep(place: Path, faces: Path, cache: Path) -> tuple[float, Estimate]:
    """Of the cores' time, what the processes of a sweep use whose trials wait; and the training's estimate, made
    meanwhile."""
    with subprocess.Popen(**_command("benchmarks.idle_sweep", "waiting", place, faces, cache)) as driver:
        try:
            study = _made_up_study(cache)
            _settle(driver)
            before, start = cpu_seconds(driver.pid), time.monotonic()
            training = _training(study, cache)
            used, elapsed = cpu_seconds(driver.pid) - before, time.monotonic() - start
            ended = driver.poll() is not None
        finally:
            driver.terminate()
            said = driver.communicate()[0]
    if ended:
        raise RuntimeError(f"the waiting sweep ended early: {said}")
    return used / elapsed / CORES, training


def _made_up_study(cache: Path) -> Study:
    config = quick().config
    data = stand_in_data(config.data, {}, config.backbone, cache)
    precision = best_precision("cpu", this_machine())
    return tables(Inputs(config=config, data=data, seeds=[1], backbone_digest="", caption="", precision=precision))


def _training(study: Study, cache: Path) -> Estimate:
    preset = quick()
    images = image_counts(preset.config.data, tests=len(study.tests), validate_every=preset.validate_every)
    costs = measure_all(study.stages(), test=study.tests[0], execution=Execution(), threads=1, cache=cache)
    return estimate(study.stages(), costs, images, places=CORES)


def _settle(driver: subprocess.Popen[str]) -> None:
    """Wait until a sweep's start is over. Its first moments are calm too: they are not looked at.

    Raises:
        RuntimeError: it is not calm after LATEST seconds.
    """
    start = time.monotonic()
    time.sleep(START)
    used = math.inf
    while used > CALM * PAUSE and driver.poll() is None:
        if time.monotonic() - start > LATEST:
            raise RuntimeError(f"the waiting sweep must use less than {CALM:g} cores after {LATEST:.0f} s")
        before = cpu_seconds(driver.pid)
        time.sleep(PAUSE)
        used = cpu_seconds(driver.pid) - before


def cpu_seconds(ancestor: int) -> float:
    """Processor time that a process and all below it have used so far, with what has ended and was waited for."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()  # what follows the name
        except OSError:  # it has ended
            continue
        parents[int(stat.parent.name)] = int(fields[1])
        used[int(stat.parent.name)] = sum(map(int, fields[11:15]))  # its own, and of children that have ended

    def below(process: int | None) -> bool:
        while process is not None and process != ancestor:
            process = parents.get(process)
        return process == ancestor

    return sum(ticks for process, ticks in used.items() if below(process)) / os.sysconf("SC_CLK_TCK")


def _run(module: str, place: Path, faces: Path, cache: Path) -> None:
    """A command on the idle study, in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    with subprocess.Popen(**_command(module, "idle", place, faces, cache)) as process:
        said = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"{module} ended with exit code {process.returncode}: {said}")


def _command(module: str, study: str, runs: Path, faces: Path, cache: Path) -> dict[str, Any]:
    """What `subprocess` needs."""
    # Not a person's own cluster and store.
    own = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    options = ["--runs", runs, "--train-faces", faces, "--test-faces", f"Made up={faces}"]
    options += ["--device", "cpu", "--cpus-per-trial", "1"]
    return {
        "args": [sys.executable, "-m", module, study, *map(str, options)],
        "cwd": ROOT,
        "env": {**own, "WHETSTONE_CACHE": str(cache)},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


def _write_faces(folder: Path, count: int, *, size: int) -> None:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:04d}.png")
