"""The Ray Tune engine: one trial per job, as many at once as the resources allow. The only file that knows Tune.

Tune does the placing, the actors and the restarts after a lost worker. What to run next is the sweep's decision (a
`Searcher` that asks it), and what was done is the sweep's record (a `Callback` that tells it). Resumption is by the
stage's own checkpoints, so no Tune state is ever restored.
"""

import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeps import environment  # noqa: F401  # before Ray

# isort: split
import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.engine import attempt
from sweeps.job import Job, Point, Settings
from sweeps.resources import Resources
from sweeps.sweep import State, Sweep

CLUSTER_AGE = 5.0
"""Seconds."""
RESTARTS = 3
"""How often a trial whose worker died is started again, from the stage's last checkpoint."""
WAITS = 1.0
"""Seconds at least that Tune waits for an event, before it looks around. An event ends the wait."""


class RayEngine:
    """Runs a sweep's jobs as Tune trials. Ray must have been started.

    `files` (a path below the cache: the file) are sent to nodes that do not have them.
    """

    def __init__(
        self, settings: Settings, resources: Resources, folder: Path, files: Mapping[str, Path] | None = None
    ) -> None:
        self._settings, self._resources, self._folder = settings, resources, folder
        self._files = {name: ray.put(path.read_bytes()) for name, path in (files or {}).items()}

    def run(self, sweep: Sweep) -> None:
        """Run all jobs; a stage that raises is failed, the others go on."""
        share = {"CPU": float(self._resources.cpus), "GPU": self._resources.gpus}
        trainable = tune.with_parameters(stage_trial, settings=self._settings, files=self._files)
        with _patience(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Tune's advice on metrics and schedulers that are not in use
            tune.Tuner(
                tune.with_resources(trainable, share),
                tune_config=tune.TuneConfig(
                    search_alg=_StageSearcher(sweep, share),
                    scheduler=_FirstUnplaced(),
                    num_samples=-1,  # until the searcher has finished
                    reuse_actors=True,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=str(self._folder.resolve()),
                    callbacks=[_SweepCallback(sweep)],
                    failure_config=tune.FailureConfig(max_failures=RESTARTS),
                    verbose=0,
                ),
            ).fit()


def stage_trial(config: dict[str, Any], settings: Settings, files: Mapping[str, ray.ObjectRef]) -> None:
    """The trial function. A stage's own failure is a result: only a lost worker is worth another try."""
    job: Job = config["job"]

    def report(step: int, metrics: dict[str, float], earlier: Sequence[Point]) -> None:
        print(f"{job.stage.title}: step {step}", flush=True)  # the dashboard's log of the actor
        tune.report({"step": step, "points": metrics, "earlier": list(earlier)})

    print(f"{job.stage.title}: stage key {job.stage.key}", flush=True)
    _fetch(files, settings.cache)
    tune.report({"failure": attempt(job, settings, report) or ""})


def _fetch(files: Mapping[str, ray.ObjectRef], cache: Path) -> None:
    """Write the files that this node does not have; their names hold their digests."""
    for name, content in files.items():
        path = cache / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as partial:
                (Path(partial) / path.name).write_bytes(ray.get(content))
                os.replace(Path(partial) / path.name, path)


class _PatientManager(RayActorManager):
    """What Tune waits by. It would look around ten times a second, which takes its share of the trials' cores."""

    def next(self, timeout: float | None = None) -> bool:
        return bool(super().next(timeout=timeout and max(timeout, WAITS)))


@contextmanager
def _patience() -> Iterator[None]:
    """For the Tune that is started within; there is no option for it."""
    tune_controller.RayActorManager = _PatientManager
    try:
        yield
    finally:
        tune_controller.RayActorManager = RayActorManager


def _trial_name(trial: Any) -> str:
    return str(trial.config["stage"])


class _Places:
    """How many trials the cluster holds at once. It may grow, but to ask takes milliseconds, and Tune asks often."""

    def __init__(self, share: dict[str, float]) -> None:
        self._share, self._count, self._asked = share, 0, -math.inf

    def count(self) -> int:
        """Not older than CLUSTER_AGE."""
        if time.monotonic() - self._asked > CLUSTER_AGE:
            self._asked = time.monotonic()
            total = ray.cluster_resources()
            fits = [total.get(name, 0.0) / need for name, need in self._share.items() if need]
            self._count = int(min(fits) + 1e-6)  # ten tenths of a GPU are ten
        return self._count


class _FirstUnplaced(FIFOScheduler):
    """The first trial that waits for a process, but none whose process is starting: that one would be given the process
    of a trial that has just ended; its own would be dropped, and another begun for the next."""

    def choose_trial_to_run(self, wrapper: Any) -> Trial | None:
        """For which Tune then finds a process."""
        controller = wrapper._tune_controller  # which shows more than schedulers are meant to ask
        for trial in controller.get_trials():
            actor = controller._trial_to_actor.get(trial)
            if trial.status == Trial.PENDING and not (actor and controller._actor_manager.is_actor_started(actor)):
                return trial
        return None


class _StageSearcher(Searcher):
    """Releases a stage when its parent is done. Suggests only what can run now, so that the sweep's order is kept."""

    def __init__(self, sweep: Sweep, share: dict[str, float]) -> None:
        super().__init__()
        self._sweep, self._places = sweep, _Places(share)
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if self._sweep.over():
            return Searcher.FINISHED
        if len(self._live) >= self._places.count():
            return None
        job = self._sweep.take()
        if job is None:
            return None
        self._live.add(trial_id)
        return {"stage": f"{job.stage.name}-s{job.stage.seed}", "job": job}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep: the store says which stages are done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its parts for a restore that is never done


class _SweepCallback(tune.Callback):
    """Tells the sweep what trials report."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        if "points" in result:
            self._sweep.report(_key(trial), result["step"], result["points"], result["earlier"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._sweep.complete(_key(trial), failure=trial.last_result["failure"] or None)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        if self._sweep.states[_key(trial)] == State.RUNNING:
            self._sweep.complete(
                _key(trial), failure=f"its worker was lost {RESTARTS + 1} times; see {trial.error_file}"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _key(trial: Any) -> str:
    job: Job = trial.config["job"]
    return job.stage.key
