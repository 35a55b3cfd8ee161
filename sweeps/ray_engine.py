"""The Ray Tune engine: one trial per job, as many at once as the resources allow. The only file that knows Ray.

Tune does the placing, the actors and the restarts after a lost worker. What to run next is the sweep's decision (a
`Searcher` that asks it), and what was done is the sweep's record (a `Callback` that tells it). Resumption is by the
stage's own checkpoints, so no Tune state is ever restored.
"""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",  # with verbose=0 the only way to a silent Tune
    RAY_CHDIR_TO_TRIAL_DIR="0",
    TUNE_DISABLE_SIGINT_HANDLER="1",  # it waits for trials to save, which ours do by themselves
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_MAX_PENDING_TRIALS_PG="4",  # the default starts short trials one by one
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
)

import ray
from ray import tune
from ray.tune.search import Searcher

from sweeps.engine import attempt
from sweeps.resources import Resources
from sweeps.sweep import State, Sweep
from sweeps.train import Job, Settings

RESTARTS = 3
"""How often a trial whose worker died is started again, from the stage's last checkpoint."""


def start_ray(folder: Path) -> str | None:
    """Start a local Ray and return the dashboard's address, without `http://`."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    context = ray.init(
        address="local",  # never another Ray that happens to run on this machine
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
        object_store_memory=200 * 2**20,
        **_session_folder(folder),
    )
    return context.dashboard_url or None


def _session_folder(folder: Path) -> dict[str, str]:
    # Ray's sockets lie below its session folder, and the name of a Unix socket is at most 107 bytes long.
    inside = folder.resolve() / "ray"
    return {"_temp_dir": str(inside)} if len(str(inside)) <= 40 else {}


def token_hint() -> str:
    """How a person gets past the dashboard's question for a token."""
    if os.environ.get("RAY_AUTH_MODE", "token") == "disabled":
        return ""
    return f"token: cat {os.environ.get('RAY_AUTH_TOKEN_PATH', '~/.ray/auth_token')}"


class RayEngine:
    """Runs a sweep's jobs as Tune trials. Ray must have been started."""

    def __init__(self, settings: Settings, resources: Resources, folder: Path) -> None:
        self._settings, self._resources, self._folder = settings, resources, folder

    def run(self, sweep: Sweep) -> None:
        """Run all jobs; a stage that raises is failed, the others go on."""
        share = {"CPU": float(self._resources.cpus), "GPU": self._resources.gpus}
        trainable = tune.with_resources(tune.with_parameters(stage_trial, settings=self._settings), share)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Tune's advice on metrics and schedulers that are not in use
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=_StageSearcher(sweep, share),
                    num_samples=len(sweep.stages),
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


def stage_trial(config: dict[str, Any], settings: Settings) -> None:
    """The trial function. A stage's own failure is a result: only a lost worker is worth another try."""
    job: Job = config["job"]

    def report(step: int, metrics: dict[str, float]) -> None:
        print(f"{job.stage.title}: step {step}", flush=True)  # the dashboard's log of the actor
        tune.report({"step": step, "points": metrics})

    print(f"{job.stage.title}: stage key {job.stage.key}", flush=True)
    tune.report({"failure": attempt(job, settings, report) or ""})


def _trial_name(trial: Any) -> str:
    return str(trial.config["stage"])


def _places(share: dict[str, float]) -> int:
    """How many trials the cluster holds at once."""
    total = ray.cluster_resources()
    fits = [total.get(name, 0.0) / need for name, need in share.items() if need]
    return int(min(fits) + 1e-6)  # ten tenths of a GPU are ten


class _StageSearcher(Searcher):
    """Releases a stage when its parent is done. Suggests only what can run now, so that the sweep's order is kept."""

    def __init__(self, sweep: Sweep, share: dict[str, float]) -> None:
        super().__init__()
        self._sweep, self._share = sweep, share
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if self._sweep.over():
            return Searcher.FINISHED
        if len(self._live) >= _places(self._share):
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
            self._sweep.report(_key(trial), result["step"], result["points"])

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
