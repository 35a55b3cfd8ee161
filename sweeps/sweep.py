"""One sweep as a state machine: which stages can start, which are done, and who is told.

Engines take jobs from a `Sweep` and report back to it; it speaks to the tracker and to the view. What runs next, and
how far, is the schedule's decision. All of it runs in the driver's process.
"""

import json
import math
import shutil
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from sweeps.job import HISTORY, Job, Point, checkpoints
from sweeps.learner import Test
from sweeps.stages import Stage

PATIENCE = 300.0
"""Seconds for which a store that does not answer is tried again before the sweep gives up."""

TELL_EVERY = 10.0
"""Seconds between two messages to the store about a running stage. One per report would keep a distant store, and with
it the driver, too busy for many trials."""


class State(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    PRUNED = "pruned"


class StoreError(OSError):
    """The tracking store did not take or give what it was asked for."""


class Found(Protocol):
    """A stage's finished run in the store."""

    fingerprints: dict[str, str]
    """Protocol fingerprint of each evaluated test set."""

    def state_file(self) -> Path:
        """The stage's final state, on this machine."""


class Tracker(Protocol):
    """Where results go. `find` must not write. Each method raises StoreError where the store does not answer, and can
    then be called again."""

    def find(self, stage: Stage) -> Found | None:
        """The finished run of a stage, if there is one."""

    def start(self, stage: Stage, rows: list[str]) -> int:
        """Open the stage's run, or take up again the one that a killed driver left open; the last global step of its
        curves, -1 where they are empty."""

    def log(self, stage: Stage, points: Sequence[Point]) -> None:
        """Add points to the curves, but for those that are there already."""

    def pause(self, stage: Stage) -> None:
        """The stage stands still, and may go on later."""

    def end(self, stage: Stage, result: Path | None, failure: str | None) -> None:
        """Close the run: finished with a result, failed with a reason, or (neither) stopped before its end."""

    def prune(self, stage: Stage, reason: str) -> None:
        """Close the run of a stage that its schedule will not let go on."""


class View(Protocol):
    """What a person sees while the sweep runs."""

    def update(self, stage: Stage, state: State, step: int, metrics: dict[str, float], note: str) -> None:
        """A stage changed its state or made progress; `step` counts from the stage's own start."""


class Schedule(Protocol):
    """Decides what runs next. It may add stages to the sweep, and is asked again after every change."""

    def next(self, sweep: "Sweep") -> tuple[Stage, int] | None:
        """A stage that can start now, and the step (from its own start) to run it to; None where all must wait.

        Raises:
            StoreError: the store had to be asked, and did not answer.
        """

    def over(self, sweep: "Sweep") -> bool:
        """Whether there will be nothing more to start."""

    def hear(self, stage: Stage, step: int, metrics: dict[str, float]) -> None:
        """What a running stage reports; `step` counts from the stage's own start."""


class LongestChainFirst:
    """Every stage runs to its end; of several that can start, the one with the most steps still to come behind it: the
    longest chain decides when a sweep ends."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._remaining = _longest_paths(stages)

    def next(self, sweep: "Sweep") -> tuple[Stage, int] | None:
        """The first stage of the longest chain."""
        ready = [stage for stage in sweep.all_in(State.WAITING) if sweep.can_start(stage)]
        if not ready:
            return None
        stage = max(ready, key=lambda candidate: self._remaining[candidate.key])
        return stage, stage.steps

    def over(self, sweep: "Sweep") -> bool:
        """Whether no stage waits."""
        return not sweep.all_in(State.WAITING)

    def hear(self, stage: Stage, step: int, metrics: dict[str, float]) -> None:
        """How well a stage does makes no difference."""


class Sweep:
    """Stages on their way through an engine.

    Args:
        stages: what to train and evaluate, parents before their children.
        tests: the test sets that each finished stage is evaluated on.
        tracker: finished stages are looked up here and not trained again.
        view: told of every change.
        folder: checkpoints of unfinished stages live in a subfolder per stage key.
        schedule: what runs next.
        rows: for a stage key, the names of the table rows that are read from it.
        patience: seconds for which a store that does not answer is tried again.
        tell_every: seconds for which a running stage's points are gathered.
    """

    def __init__(
        self,
        *,
        stages: Sequence[Stage],
        tests: Sequence[Test],
        tracker: Tracker,
        view: View,
        folder: Path,
        schedule: Schedule,
        rows: dict[str, list[str]],
        patience: float = PATIENCE,
        tell_every: float = TELL_EVERY,
    ) -> None:
        self.stages: dict[str, Stage] = {}
        self.states: dict[str, State] = {}
        self.executed = 0
        """Steps done by the jobs of this sweep."""
        self.repeated = 0
        """Steps among them that had been done before, but were lost with a worker or a driver. At least: those that a
        killed driver had not yet told are not known."""
        self.evaluated: list[Stage] = []
        self.trained: list[Stage] = []
        self._tests, self._tracker, self._view, self._folder = tests, tracker, view, folder
        self._schedule, self._rows = schedule, rows
        self._patience, self._tell_every = patience, tell_every
        self._found: dict[str, Found] = {}
        self._position: dict[str, int] = {}
        self._how: dict[str, str] = {}
        self._reached: dict[str, int] = {}
        self._until: dict[str, int] = {}
        self._untold: dict[str, dict[int, dict[str, float]]] = {}
        self._told_at: dict[str, float] = {}
        self._silence: dict[str, str] = {}
        self._unrecorded: dict[str, str | None] = {}
        self._silent_since: float | None = None
        for stage in stages:
            self.add(stage)
        self.already_done = self.all_in(State.DONE)

    def add(self, stage: Stage) -> None:
        """One more stage; it is done if the store has it, evaluated on all tests. Its parent may be there only."""
        for each in (stage.parent, stage):
            if each and each.key not in self._found and (found := self._tracker.find(each)):
                self._found[each.key] = found
        self.stages[stage.key] = stage
        self.states[stage.key] = State.WAITING
        if stage.key in self._found and not self._missing_tests(stage):
            self.become(stage, State.DONE, note="already in the store")

    def take(self) -> Job | None:
        """The next job, its stage now marked as running; None where all must wait.

        Raises:
            StoreError: the store has not answered for too long.
        """
        self._record_all()
        if self._unrecorded and self._silent_since is not None:
            return None
        try:
            choice = self._schedule.next(self)
            if choice is None:
                return None
            stage, until = choice
            job = self._job(stage, until)
            self._reached[stage.key] = self._tracker.start(stage, self._rows.get(stage.key, [])) - stage.first_step
        except StoreError as error:
            self._lost_patience(error)
            return None
        self._silent_since = None
        self._until[stage.key] = until
        self._position[stage.key] = 0
        self._untold[stage.key], self._told_at[stage.key], self._silence[stage.key] = {}, -math.inf, ""
        self._how[stage.key] = _how(job)
        self.become(stage, State.RUNNING, note=self._how[stage.key])
        return job

    def over(self) -> bool:
        """Whether no job will come any more."""
        self._record_all()
        return not self._unrecorded and self._schedule.over(self)

    def report(self, key: str, step: int, metrics: dict[str, float], earlier: Sequence[Point] = ()) -> None:
        """Progress of a running stage; `step` is global. No metrics: training begins there, or again after a loss.

        `earlier` are points before it: the store may lack them, if the driver that heard them was killed.
        """
        stage = self.stages[key]
        before, here = self._position[key], step - stage.first_step
        self._position[key] = here
        self._untold[key].update(earlier)
        if not metrics:
            self._view.update(stage, State.RUNNING, here, {}, self._how[key])
            return
        self.executed += here - before
        self.repeated += max(0, min(here, self._reached[key]) - before)
        self._reached[key] = max(self._reached[key], here)
        self._schedule.hear(stage, here, metrics)
        self._untold[key][step] = metrics  # a lost worker's steps come again
        if time.monotonic() - self._told_at[key] >= self._tell_every:
            self._told_at[key] = time.monotonic()  # also of a store that does not answer: each try takes its time
            try:
                self._tell(stage)
                self._silence[key] = ""
            except StoreError as error:
                self._silence[key] = f"not recorded yet: {error}"
        self._view.update(stage, State.RUNNING, here, metrics, self._silence[key])

    def complete(self, key: str, failure: str | None = None) -> None:
        """The job of a stage is over: its result is in its folder, or it is paused there, or it failed."""
        self._unrecorded[key] = failure
        self._record_all()

    def stop(self) -> bool:
        """Close what is still open; True if anything was, or waits: the sweep was interrupted."""
        open_or_waiting = not self.over()
        for stage in self.all_in(State.RUNNING):
            open_or_waiting = True
            try:
                self._tell(stage)
                self._tracker.end(stage, None, None)
            except StoreError:
                break  # the next start closes them
        return open_or_waiting

    def all_in(self, state: State) -> list[Stage]:
        """Stages in a state."""
        return [self.stages[key] for key, current in self.states.items() if current == state]

    def can_start(self, stage: Stage) -> bool:
        """Whether the stage's parent is trained."""
        return stage.key in self._found or stage.parent is None or stage.parent.key in self._found

    def prune(self, stage: Stage, reason: str) -> None:
        """Give up a paused stage; where the store does not answer, the schedule has to ask again."""
        try:
            self._tracker.prune(stage, reason)
        except StoreError:
            return
        for old in checkpoints(self._folder / stage.key)[:-1]:
            old.unlink()
        self.become(stage, State.PRUNED, note=reason)

    def become(self, stage: Stage, state: State, note: str = "") -> None:
        """Change a stage's state, and say so."""
        self.states[stage.key] = state
        step = stage.steps if state == State.DONE else self._position.get(stage.key, 0)
        self._view.update(stage, state, step, {}, note)

    def _missing_tests(self, stage: Stage) -> tuple[Test, ...]:
        found = self._found.get(stage.key)
        has = found.fingerprints if found else {}
        return tuple(test for test in self._tests if has.get(test.name) != test.fingerprint)

    def _job(self, stage: Stage, until: int) -> Job:
        own = self._found.get(stage.key)
        start = own or (self._found[stage.parent.key] if stage.parent else None)
        return Job(
            stage=stage,
            tests=self._missing_tests(stage),
            folder=self._folder / stage.key,
            start=start.state_file() if start and stage.steps else None,
            trained=own is not None,
            until=until if until < stage.steps else None,
        )

    def _tell(self, stage: Stage) -> None:
        self._tracker.log(stage, list(self._untold[stage.key].items()))
        self._untold[stage.key] = {}

    def _record_all(self) -> None:
        """Tell the store of the jobs that are over, unless it does not answer: then later."""
        for key, failure in list(self._unrecorded.items()):
            stage = self.stages[key]
            try:
                self._record(stage, failure)
            except StoreError as error:
                try:
                    self._lost_patience(error)
                except StoreError:
                    folder = self._folder / key
                    self._fail(stage, f"its result in {folder} could not be recorded; run again to do so: {error}")
                else:
                    self._view.update(stage, State.RUNNING, self._position[key], {}, f"waiting for the store: {error}")
                    return
            else:
                self._silent_since = None
            del self._unrecorded[key]

    def _record(self, stage: Stage, failure: str | None) -> None:
        folder = self._folder / stage.key
        paused = self._until[stage.key] < stage.steps
        result = folder if paused else folder / "result"
        if failure is None and not (result / HISTORY).exists():
            failure = f"there is no result in {folder}: --runs must be a folder that all nodes share"
        if failure is not None:
            self._tell(stage)
            self._tracker.end(stage, None, failure)
            self._fail(stage, failure)
            return
        history = json.loads((result / HISTORY).read_text())
        # What a killed driver did not hear it can't hear from a job that had nothing left to do.
        for step, metrics in history:
            self._schedule.hear(stage, step - stage.first_step, metrics)
        self._tracker.log(stage, history)
        if paused:
            self._tracker.pause(stage)
            self.become(stage, State.PAUSED)
            return
        self._tracker.end(stage, result, None)
        found = self._tracker.find(stage)
        assert found is not None
        (self.evaluated if stage.key in self._found or not stage.steps else self.trained).append(stage)
        self._found[stage.key] = found
        shutil.rmtree(folder)
        self.become(stage, State.DONE)

    def _fail(self, stage: Stage, failure: str) -> None:
        self.become(stage, State.FAILED, note=" ".join(failure.split()))
        for other in self.all_in(State.WAITING):
            if any(ancestor.key == stage.key for ancestor in other.chain()):
                self.become(other, State.SKIPPED, note=f"{stage.title} failed")

    def _lost_patience(self, error: StoreError) -> None:
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since >= self._patience:
            raise StoreError(f"the tracking store has not answered for {self._patience:.0f} s: {error}") from error


def _how(job: Job) -> str:
    """What is special about a stage's start, for a person."""
    if job.trained:
        return f"only evaluated, on {', '.join(test.name for test in job.tests)}"
    kept = checkpoints(job.folder)
    return f"going on after step {int(kept[-1].stem.split('-')[1]):,}" if kept else ""


def _longest_paths(stages: Sequence[Stage]) -> dict[str, int]:
    """For each stage, the steps of the longest chain that begins with it."""
    longest = {stage.key: stage.steps for stage in stages}
    for stage in sorted(stages, key=lambda each: -len(list(each.chain()))):
        if stage.parent and stage.parent.key in longest:
            through = stage.parent.steps + longest[stage.key]
            longest[stage.parent.key] = max(longest[stage.parent.key], through)
    return longest
