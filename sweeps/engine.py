"""Engines run the jobs of a sweep. This one runs them one after another in the driver's own process."""

import os
import time
import traceback
from functools import partial
from typing import Protocol

from sweeps.imports import importing
from sweeps.job import Job, Report, Settings
from sweeps.sweep import Sweep

TRACEBACK = "error.txt"


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
        while not sweep.over():
            if job := sweep.take():
                key = job.stage.key
                sweep.complete(key, failure=attempt(job, self._settings, partial(sweep.report, key)))
            else:  # the store does not answer
                time.sleep(1)


def attempt(job: Job, settings: Settings, report: Report) -> str | None:
    """Train a stage; None, or one line that says why it failed and where the traceback is.

    Under WHETSTONE_DEBUG=1 the exception goes through, for a debugger.
    """
    with importing("torch"):  # a driver that trains nothing itself can do without it
        from sweeps.train import train_stage

    try:
        train_stage(job, settings, report)
    except Exception as error:
        if os.environ.get("WHETSTONE_DEBUG"):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            file = job.folder / TRACEBACK
            file.write_text(traceback.format_exc())
        except OSError:  # the disk may be what failed
            return reason
        return f"{reason} (traceback: {file})"
    return None
