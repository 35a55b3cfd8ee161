"""What orchestration costs: 40 stages that do nothing, of four reports with eight metrics each.

Both Ray engines use one Ray session with two cores, one core a trial, actors that are reused, no Tune log files, and a
SQLite store that is empty in each repeat; Ray and the stores are started before the clock, the trials' processes after
it. Nothing is done for warmth: in the first repeat libraries' files are read, by ours first. Ours does more for its
time: each stage also writes a checkpoint and a result, and its run has digests and a key by which it is found again.
"""

import logging
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from sweeps.ray_engine import RayEngine  # before Ray: it sets Ray's environment

# isort: split
import ray
from mlflow.tracking import MlflowClient

from benchmarks import plain_tune
from benchmarks.comparison import Comparison, Way, side_by_side
from benchmarks.toy import METRICS, STEPS, Toy
from sweeps.job import Job, Settings
from sweeps.provenance import Provenance
from sweeps.resources import Resources
from sweeps.stages import Stage
from sweeps.sweep import LongestChainFirst, State, Sweep
from sweeps.tracking import MLflowTracker, connect
from sweeps.train import train_stage

STAGES = 40
CORES = 2
LIMIT = 0.5
"""Of the seconds of plain Tune."""
EXPERIMENT = "ours"
STORE = "mlflow.db"


class Silent:
    """A view that shows nothing."""

    def update(self, stage: Stage, state: State, step: int, metrics: dict[str, float], note: str) -> None:
        """Nobody watches."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """This engine against plain Tune, and against training alone."""
    stages = [Stage(name=f"toy {number}", config=Toy(number=number), steps=STEPS, seed=1) for number in range(STAGES)]
    settings = Settings(cache=folder, log_every=1, validate_every=STEPS, checkpoint_every=STEPS)
    empty = folder / STORE
    connect(_store(folder))  # makes it; MLflow takes seconds for a new one
    ways: dict[str, Way] = {
        "ray": partial(_sweep, stages, settings, empty),
        "plain": partial(_plain, stages, empty),
        "bare": partial(_bare, stages, settings),
    }
    _start_ray()
    try:
        seconds = side_by_side(ways, repeats=repeats, folder=folder)
    finally:
        ray.shutdown()
    for repeat in range(repeats):
        for name, experiment in (("ray", EXPERIMENT), ("plain", plain_tune.EXPERIMENT)):
            _require_all(folder / f"{name}-{repeat}", experiment)
    against = {
        "plain": ("plain Tune with MLflowLoggerCallback", LIMIT),
        "bare": ("training alone, untracked", None),
    }
    return [
        Comparison(
            name=f"{STAGES} trivial stages of {STEPS} reports, against {what}",
            ours=seconds["ray"],
            theirs=seconds[name],
            limit=limit,
        )
        for name, (what, limit) in against.items()
    ]


def _start_ray() -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(
        address="local",
        num_cpus=CORES,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )


def _store(place: Path) -> str:
    return f"sqlite:///{place / STORE}"


def _sweep(stages: Sequence[Stage], settings: Settings, empty: Path, place: Path) -> Callable[[], None]:
    shutil.copy(empty, place)
    tracker = MLflowTracker(
        uri=_store(place),
        artifacts=place / "artifacts",
        experiment=EXPERIMENT,
        provenance=Provenance(
            study="toy",
            preset="toy",
            data={},
            fingerprints={},
            owner="benchmark",
            hardware="",
            commit="",
            dirty=False,
            code="",
        ),
        downloads=place / "downloads",
    )

    def run() -> None:
        sweep = Sweep(
            stages=stages,
            tests=(),
            tracker=tracker,
            view=Silent(),
            folder=place / "stages",
            schedule=LongestChainFirst(stages),
            rows={},
        )
        RayEngine(settings, Resources(cpus=1, gpus=0.0, at_once=CORES), place).run(sweep)

    return run


def _plain(stages: Sequence[Stage], empty: Path, place: Path) -> Callable[[], None]:
    shutil.copy(empty, place)
    connect(_store(place))
    numbers = [stage.config.number for stage in stages if isinstance(stage.config, Toy)]
    return partial(plain_tune.run, numbers, uri=_store(place), folder=place)


def _bare(stages: Sequence[Stage], settings: Settings, place: Path) -> Callable[[], None]:
    def run() -> None:
        for stage in stages:
            train_stage(Job(stage=stage, tests=(), folder=place / stage.key), settings, lambda *_: None)

    return run


def _require_all(place: Path, experiment: str, *, stages: int = STAGES) -> None:
    """Each stage has a finished run with all points: else less work was timed than was said.

    Points are counted in the database: a request for each metric of each run takes seconds.
    """
    uri = _store(place)
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found, uri
    runs = client.search_runs([found.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * stages, uri
    with closing(sqlite3.connect(place / STORE)) as store:
        counts = store.execute("SELECT run_uuid, key, COUNT(*) FROM metrics GROUP BY run_uuid, key").fetchall()
    points = {(run, name): count for run, name, count in counts}
    for run in runs:
        assert [points.get((run.info.run_id, f"loss/{name}")) for name in METRICS] == [STEPS] * len(METRICS), uri
