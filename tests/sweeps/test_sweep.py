"""The state machine, with a store in memory and a trainer that only notes what it was asked to do."""

import itertools
import math
import random
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
from tiny import Silent

from sweeps.engine import InProcessEngine, attempt
from sweeps.job import HISTORY, STATE
from sweeps.sweep import LongestChainFirst, State, StoreError, Sweep


@dataclass
class MemoryRun:
    fingerprints: dict
    file: object

    def state_file(self):
        return self.file


@dataclass
class MemoryTracker:
    """A store without a file: keeps the state files that results hold."""

    folder: object
    finished: dict = field(default_factory=dict)
    events: list = field(default_factory=list)
    points: dict = field(default_factory=dict)

    def find(self, stage):
        return self.finished.get(stage.key)

    def start(self, stage, rows):
        self.events.append(("start", stage.name))
        return max(self.points.get(stage.key, []), default=-1)

    def log(self, stage, points):
        logged = self.points.setdefault(stage.key, [])
        logged += [step for step, _ in points if step not in logged]

    def end(self, stage, result, failure):
        self.events.append(("failed" if failure else "end" if result else "stopped", stage.name))
        if result is None:
            return
        kept = self.folder / f"{stage.key}.pt"
        if (result / "model" / STATE).exists():
            kept.write_bytes((result / "model" / STATE).read_bytes())
        old = self.finished[stage.key].fingerprints if stage.key in self.finished else {}
        new = {path.stem: self.fingerprint for path in (result / "per_image").glob("*.parquet")}
        self.finished[stage.key] = MemoryRun({**old, **new}, kept)

    fingerprint: str = ""


def make(study, tmp_path):
    tracker = MemoryTracker(tmp_path)
    tracker.fingerprint = study.tests[0].fingerprint

    def sweep(changed=study, patience=0.0, tell_every=0.0):
        stages = changed.stages()
        return Sweep(
            stages=stages,
            tests=changed.tests,
            tracker=tracker,
            view=Silent(),
            folder=tmp_path / "stages",
            schedule=LongestChainFirst(stages),
            rows={},
            patience=patience,
            tell_every=tell_every,
        )

    return tracker, sweep


def names_in(sweep, state):
    return [stage.name for stage in sweep.all_in(state)]


def test_every_stage_runs_once_and_after_its_parent(tiny_study, settings, tmp_path):
    tracker, sweep = make(tiny_study, tmp_path)
    first = sweep()
    InProcessEngine(settings).run(first)
    ended = [name for event, name in tracker.events if event == "end"]
    assert sorted(ended) == sorted(stage.name for stage in tiny_study.stages())
    assert (
        ended.index("multi-task · content")
        < ended.index("multi-task · +perceptual")
        < ended.index("multi-task · +adversarial")
    )
    for stage in tiny_study.stages():
        expected = list(range(stage.first_step + 1, stage.last_step + 1))
        assert tracker.points.get(stage.key, []) == expected
    assert not any((tmp_path / "stages").iterdir())

    again = sweep()
    assert again.over()
    assert again.take() is None
    assert len(again.already_done) == 6


def test_the_longest_chain_starts_first(tiny_study, tmp_path):
    _, sweep = make(tiny_study, tmp_path)
    state = sweep()
    assert state.take().stage.name == "multi-task · content"
    assert {state.take().stage.name for _ in range(3)} == {"1 scale · content", "2 scales · content", "blurred input"}
    assert state.take() is None
    assert not state.over()


def test_a_failed_stage_skips_its_descendants_and_nothing_else(tiny_study, tmp_path):
    _tracker, sweep = make(tiny_study, tmp_path)
    state = sweep()
    job = state.take()
    state.complete(job.stage.key, failure="NonFiniteLossError: loss/total is nan")
    assert names_in(state, State.FAILED) == ["multi-task · content"]
    assert names_in(state, State.SKIPPED) == ["multi-task · +perceptual", "multi-task · +adversarial"]
    others = [state.take().stage.name for _ in range(3)]
    assert len(set(others)) == 3
    assert state.over()
    retry = sweep()
    assert retry.take().stage.name == "multi-task · content"


def test_a_stage_that_raises_is_failed_and_the_others_go_on(tiny_study, settings, tmp_path):
    broken = next(row for row in tiny_study.rows if row.name == "multi-task").stages[0]
    missing = replace(broken.config, data=replace(broken.config.data, kernels="0123456789abcdef"))
    rows = tuple(
        replace(row, stages=(replace(broken, config=missing),)) if row.name == "multi-task" else row
        for row in tiny_study.rows
        if not row.name.startswith("loss-")
    )
    study = replace(tiny_study, rows=rows)
    _tracker, sweep = make(study, tmp_path)
    state = sweep(study)
    InProcessEngine(settings).run(state)
    assert names_in(state, State.FAILED) == ["multi-task · content"]
    assert (len(state.trained), len(state.evaluated)) == (2, 1)


def test_a_result_that_cannot_be_recorded_is_kept_for_the_next_sweep(tiny_study, settings, tmp_path, monkeypatch):
    tracker, sweep = make(tiny_study, tmp_path)

    def refuse(stage, result, failure):
        raise StoreError("the store is gone")

    state = sweep()
    with monkeypatch.context() as patch:
        patch.setattr(tracker, "end", refuse)
        InProcessEngine(settings).run(state)
    failed = state.all_in(State.FAILED)
    assert len(failed) == 4
    assert len(state.all_in(State.SKIPPED)) == 2
    points = dict(tracker.points)
    InProcessEngine(settings).run(sweep())
    assert len(tracker.finished) == 6
    for stage in failed:  # evaluated and recorded, not trained again
        assert tracker.points.get(stage.key) == points.get(stage.key)


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_comes_and_goes_loses_nothing(tiny_study, settings, tmp_path, seed, monkeypatch):
    """Every other call fails, before or after it took effect."""
    tracker, sweep = make(tiny_study, tmp_path)
    chance = random.Random(seed)

    def unreliable(real):
        def call(*args):
            if chance.random() < 0.25:
                raise StoreError("no answer")
            answer = real(*args)
            if chance.random() < 0.25:
                raise StoreError("the answer was lost")
            return answer

        return call

    state = sweep(patience=math.inf)
    for name in ("start", "log", "end", "find"):
        monkeypatch.setattr(tracker, name, unreliable(getattr(tracker, name)))
    while not state.over():
        if job := state.take():
            state.complete(job.stage.key, attempt(job, settings, partial(state.report, job.stage.key)))
    assert names_in(state, State.DONE) == [stage.name for stage in tiny_study.stages()]
    assert state.executed == tiny_study.tree_steps()
    for stage in tiny_study.stages():
        assert sorted(tracker.points.get(stage.key, [])) == list(range(stage.first_step + 1, stage.last_step + 1))


def test_a_store_that_is_gone_ends_the_sweep(tiny_study, tmp_path, monkeypatch):
    tracker, sweep = make(tiny_study, tmp_path)
    state = sweep()

    def refuse(stage, rows):
        raise StoreError("no answer")

    monkeypatch.setattr(tracker, "start", refuse)
    with pytest.raises(StoreError, match="has not answered for 0 s: no answer"):
        state.take()
    assert state.stop()


def test_steps_lost_with_a_worker_are_counted(tiny_study, tmp_path):
    _tracker, sweep = make(tiny_study, tmp_path)
    state = sweep()
    stage = state.take().stage
    state.report(stage.key, 0, {})
    for step in (1, 2, 3):
        state.report(stage.key, step, {"loss/total": 1.0})
    state.report(stage.key, 1, {})  # its worker died; the last checkpoint was of step 1
    for step in (2, 3, 4):
        state.report(stage.key, step, {"loss/total": 1.0})
    assert (state.executed, state.repeated) == (6, 2)


def test_what_a_killed_driver_had_not_told_comes_before_what_follows(tiny_study, tmp_path, monkeypatch):
    tracker, sweep = make(tiny_study, tmp_path)
    told = []
    monkeypatch.setattr(tracker, "log", lambda stage, points: told.extend(step for step, _ in points))
    state = sweep()
    stage = state.take().stage
    state.report(stage.key, 3, {}, [(step, {"loss/total": 1.0}) for step in (1, 2, 3)])  # from its checkpoint
    state.report(stage.key, 4, {"loss/total": 1.0})
    assert told == [1, 2, 3, 4]
    assert state.executed == 1


def test_a_store_that_does_not_answer_is_not_asked_at_every_report(tiny_study, tmp_path, monkeypatch):
    """Each try can take many seconds, for which the driver hears nobody."""
    tracker, sweep = make(tiny_study, tmp_path)
    tries = []

    def refuse(stage, points):
        tries.append(stage)
        raise StoreError("no answer")

    monkeypatch.setattr(tracker, "log", refuse)
    state = sweep(tell_every=math.inf)
    stage = state.take().stage
    for step in (1, 2, 3):
        state.report(stage.key, step, {"loss/total": 1.0})
    assert len(tries) == 1


@pytest.mark.parametrize("ends", ["stopped", "failed"])
def test_points_are_gathered_and_told_once_at_the_latest_when_the_stage_ends(tiny_study, tmp_path, ends, monkeypatch):
    tracker, sweep = make(tiny_study, tmp_path)
    messages = []
    monkeypatch.setattr(tracker, "log", lambda stage, points: messages.append(points))
    state = sweep(tell_every=math.inf)
    stage = state.take().stage
    for step in (1, 2, 3, 2, 3, 4):  # its worker died after step 3; the last checkpoint was of step 1
        state.report(stage.key, step, {"loss/total": float(step)})
    assert messages == [[(1, {"loss/total": 1.0})]]
    if ends == "failed":
        state.complete(stage.key, failure="broken")
    else:
        state.stop()
    assert messages[1:] == [[(step, {"loss/total": float(step)}) for step in (2, 3, 4)]]
    assert tracker.events[-1] == (ends, stage.name)


def test_an_interrupted_sweep_closes_its_open_runs(tiny_study, tmp_path):
    tracker, sweep = make(tiny_study, tmp_path)
    state = sweep()
    state.take()
    assert state.stop()
    assert tracker.events == [("start", "multi-task · content"), ("stopped", "multi-task · content")]


def test_a_new_test_set_is_evaluated_on_finished_stages_without_training(tiny_study, settings, tmp_path):
    tracker, sweep = make(tiny_study, tmp_path)
    InProcessEngine(settings).run(sweep())
    steps = dict(tracker.points)
    wider = replace(tiny_study, tests=(*tiny_study.tests, replace(tiny_study.tests[0], name="Second")))
    state = sweep(wider)
    jobs = [state.take() for _ in range(6)]
    assert all(job.trained and [test.name for test in job.tests] == ["Second"] for job in jobs)
    InProcessEngine(settings).run(sweep(wider))
    assert tracker.points == steps
    assert all(set(run.fingerprints) == {"Made up", "Second"} for run in tracker.finished.values())


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_no_order_of_completion_loses_a_stage(tiny_study, tmp_path, order):
    """Stages that run at once may end in any order."""
    _tracker, sweep = make(tiny_study, tmp_path)
    state = sweep()
    live, taken = [], 0
    while not state.over() or live:
        while len(live) < 3 and (job := state.take()):
            live.append(job)
            taken += 1
        job = live.pop(order[taken % 3] % len(live))
        job.result.mkdir(parents=True)
        (job.result / HISTORY).write_text("[]")
        state.complete(job.stage.key)
    assert taken == 6
    assert all(current == State.DONE for current in state.states.values())
