"""The trivial stages as one would run them with Ray Tune and its `MLflowLoggerCallback`."""

from pathlib import Path
from typing import Any

from ray import tune

from benchmarks.toy import STEPS, ToyLearner

EXPERIMENT = "plain"


def trial(config: dict[str, Any]) -> None:
    """Train a stage; report each step."""
    learner = ToyLearner(config["number"])
    for _ in range(STEPS):
        tune.report({f"loss/{name}": float(value) for name, value in learner.step().items()})


def run(numbers: list[int], *, uri: str, folder: Path) -> None:
    """One trial per number, a core each. Actors are reused: without that each trial would start a process."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback  # not above: workers have no use for MLflow

    results = tune.Tuner(
        tune.with_resources(trial, {"CPU": 1}),
        param_space={"number": tune.grid_search(numbers)},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            callbacks=[MLflowLoggerCallback(tracking_uri=uri, experiment_name=EXPERIMENT)],
            verbose=0,
        ),
    ).fit()
    assert not results.errors
