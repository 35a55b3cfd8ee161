"""One sweep as a state machine: which stages can start, which are done, and who is told.

Engines take jobs from a `Sweep` and report back to it; it speaks to the tracker and to the view. All of it runs in the
driver's process.
"""

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from sweeps.stages import Stage, Study
from sweeps.train import Job, checkpoints


class State(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class Found(Protocol):
    """A stage's finished run in the store."""

    fingerprints: dict[str, str]
    """Protocol fingerprint of each evaluated test set."""

    def state_file(self) -> Path:
        """The stage's final state, on this machine."""


class Tracker(Protocol):
    """Where results go. `find` must not write."""

    def find(self, stage: Stage) -> Found | None:
        """The finished run of a stage, if there is one."""

    def start(self, stage: Stage, rows: list[str]) -> None:
        """Open the stage's run, or take up again the one that a killed driver left open."""

    def log(self, stage: Stage, step: int, metrics: dict[str, float]) -> None:
        """Add points to the curves, unless they are there already."""

    def end(self, stage: Stage, result: Path | None, failure: str | None) -> None:
        """Close the run: finished with a result, failed with a reason, or (neither) stopped before its end."""


class View(Protocol):
    """What a person sees while the sweep runs."""

    def update(self, stage: Stage, state: State, step: int, metrics: dict[str, float], note: str) -> None:
        """A stage changed its state or made progress; `step` counts from the stage's own start."""


class Sweep:
    """The stages of a study on their way through an engine.

    Args:
        study: what to train and evaluate.
        tracker: finished stages are looked up here and not trained again.
        view: told of every change.
        folder: checkpoints of unfinished stages live in a subfolder per stage key.
    """

    def __init__(self, study: Study, tracker: Tracker, view: View, folder: Path) -> None:
        self.stages = {stage.key: stage for stage in study.stages()}
        self.states: dict[str, State] = dict.fromkeys(self.stages, State.WAITING)
        self._study, self._tracker, self._view, self._folder = study, tracker, view, folder
        self._trained: dict[str, Found] = {}
        self._steps: dict[str, int] = {}
        wanted = {test.name: test.fingerprint for test in study.tests}
        for key, stage in self.stages.items():
            if found := tracker.find(stage):
                self._trained[key] = found
                if wanted.items() <= found.fingerprints.items():
                    self._become(stage, State.DONE, note="already in the store")
        self.already_done = self._in(State.DONE)
        self._only_evaluated = {key for key, stage in self.stages.items() if key in self._trained or not stage.steps}
        self._remaining = _longest_paths(list(self.stages.values()))

    def take(self) -> Job | None:
        """The next stage that can start, now marked as running; None where all must wait.

        Of several, the one with the most steps still to come behind it: the longest chain decides when a sweep ends.
        """
        ready = [
            stage for key, stage in self.stages.items() if self.states[key] == State.WAITING and self._can_start(stage)
        ]
        if not ready:
            return None
        stage = max(ready, key=lambda candidate: self._remaining[candidate.key])
        job = self._job(stage)
        self._become(stage, State.RUNNING, note=_how(job))
        self._tracker.start(stage, self._study.rows_of(stage))
        return job

    def over(self) -> bool:
        """Whether no stage will be ready any more."""
        return State.WAITING not in self.states.values()

    def report(self, key: str, step: int, metrics: dict[str, float]) -> None:
        """Progress of a running stage; `step` is global."""
        stage = self.stages[key]
        self._tracker.log(stage, step, metrics)
        self._steps[key] = step - stage.first_step
        self._view.update(stage, State.RUNNING, self._steps[key], metrics, "")

    def complete(self, key: str, failure: str | None = None) -> None:
        """The stage's result is in its folder, or it failed; then its descendants are skipped."""
        stage = self.stages[key]
        folder = self._folder / key
        try:
            self._tracker.end(stage, folder / "result" if failure is None else None, failure)
            found = self._tracker.find(stage)
        except Exception as error:  # a store that is gone raises its own
            failure = failure or f"its result is in {folder}, but could not be recorded; run again to do so: {error}"
        if failure is not None:
            self._become(stage, State.FAILED, note=" ".join(failure.split()))
            self._skip_descendants(stage)
            return
        assert found is not None
        self._trained[key] = found
        shutil.rmtree(folder)
        self._become(stage, State.DONE)

    def stop(self) -> bool:
        """Close what is still open; True if anything was, or waits: the sweep was interrupted."""
        for key in self._in(State.RUNNING):
            self._tracker.end(self.stages[key], None, None)
        return any(state in (State.RUNNING, State.WAITING) for state in self.states.values())

    def failed(self) -> list[Stage]:
        """Stages that failed."""
        return [self.stages[key] for key in self._in(State.FAILED)]

    def skipped(self) -> list[Stage]:
        """Stages that could not start because an ancestor failed."""
        return [self.stages[key] for key in self._in(State.SKIPPED)]

    def trained_here(self) -> list[Stage]:
        """Stages that this sweep trained to their end."""
        return [stage for stage in self._done_here() if stage.key not in self._only_evaluated]

    def evaluated_here(self) -> list[Stage]:
        """Stages that this sweep only evaluated: untrained ones, and trained ones on a further test set."""
        return [stage for stage in self._done_here() if stage.key in self._only_evaluated]

    def _done_here(self) -> list[Stage]:
        return [self.stages[key] for key in self._in(State.DONE) if key not in self.already_done]

    def _in(self, state: State) -> list[str]:
        return [key for key, current in self.states.items() if current == state]

    def _can_start(self, stage: Stage) -> bool:
        return stage.key in self._trained or stage.parent is None or stage.parent.key in self._trained

    def _job(self, stage: Stage) -> Job:
        own = self._trained.get(stage.key)
        start = own or (self._trained[stage.parent.key] if stage.parent else None)
        has = own.fingerprints if own else {}
        return Job(
            stage=stage,
            tests=tuple(test for test in self._study.tests if has.get(test.name) != test.fingerprint),
            folder=self._folder / stage.key,
            start=start.state_file() if start and stage.steps else None,
            trained=own is not None,
        )

    def _skip_descendants(self, failed: Stage) -> None:
        for stage in self.stages.values():
            if (
                any(ancestor.key == failed.key for ancestor in stage.chain())
                and self.states[stage.key] == State.WAITING
            ):
                self._become(stage, State.SKIPPED, note=f"{failed.title} failed")

    def _become(self, stage: Stage, state: State, note: str = "") -> None:
        self.states[stage.key] = state
        step = stage.steps if state == State.DONE else self._steps.get(stage.key, 0)
        self._view.update(stage, state, step, {}, note)


def _how(job: Job) -> str:
    """What is special about a stage's start, for a person."""
    if job.trained:
        return f"only evaluated, on {', '.join(test.name for test in job.tests)}"
    kept = checkpoints(job.folder)
    return f"going on after step {int(kept[-1].stem.split('-')[1]):,}" if kept else ""


def _longest_paths(stages: list[Stage]) -> dict[str, int]:
    """For each stage, the steps of the longest chain that begins with it."""
    longest = {stage.key: stage.steps for stage in stages}
    for stage in sorted(stages, key=lambda each: -len(list(each.chain()))):
        if stage.parent and stage.parent.key in longest:
            through = stage.parent.steps + longest[stage.key]
            longest[stage.parent.key] = max(longest[stage.parent.key], through)
    return longest
