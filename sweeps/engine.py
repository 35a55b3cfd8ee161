"""Engines run the jobs of a sweep. This one runs them one after another in the driver's own process."""

from functools import partial
from typing import Protocol

from sweeps.sweep import Sweep
from sweeps.train import Settings, train_stage


class Engine(Protocol):
    """Takes jobs from a sweep until none is left, and reports back to it."""

    def run(self, sweep: Sweep) -> None:
        """Return when the sweep is over."""


class InProcessEngine:
    """No workers and no scheduler: for tests, for a debugger, and for machines without Ray."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self, sweep: Sweep) -> None:
        """Run each job as soon as it can start; a stage that raises is failed, the others go on."""
        while job := sweep.take():
            key = job.stage.key
            try:
                train_stage(job, self._settings, partial(sweep.report, key))
            except Exception as error:
                sweep.complete(key, failure=describe(error))
            else:
                sweep.complete(key)


def describe(error: Exception) -> str:
    """One line that says why a stage failed."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
