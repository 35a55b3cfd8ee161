"""A search of trials with known curves, through the real trainer and a real MLflow store."""

import math
import pkgutil
import random
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from mlflow import MlflowClient
from tiny import Silent

from sweeps import record
from sweeps.engine import InProcessEngine, attempt
from sweeps.job import Settings
from sweeps.provenance import Provenance
from sweeps.stages import Range, Space, Stage
from sweeps.suggest import suggest
from sweeps.sweep import LongestChainFirst, State, StoreError, Sweep
from sweeps.tracking import MLflowTracker
from sweeps.tuning import Search, current_values

METRIC = "validation/psnr"
SPACE = Space(row="toy", ranges=(Range(field="quality", low=0.0, high=100.0),))
STEPS = 9


class Counter:
    """Counts steps, and notes those of all learners."""

    executed = 0

    def __init__(self):
        self.steps = 0

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class ToyLearner:
    model = None

    def __init__(self, quality):
        self.quality, self.counter = quality, Counter()
        self.state = {"counter": self.counter}

    def step(self):
        self.counter.steps += 1
        Counter.executed += 1
        return {"total": torch.tensor(1.0)}

    def validate(self):
        return {"psnr": self.quality + math.log(self.counter.steps)}


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A config whose curve is known: quality + log(step); curves do not cross."""

    quality: float

    def learner(self, *, seed, execution, cache):
        return ToyLearner(self.quality)

    def idle_fields(self):
        return frozenset()


class Killed(BaseException):
    """The end of the process."""


BASE = Stage(name="toy", config=Toy(quality=-1.0), steps=STEPS, seed=1)
SETTINGS = Settings(cache=None, log_every=1, validate_every=3, checkpoint_every=1)


def open_store(folder):
    nothing = Provenance(
        study="toy",
        preset="toy",
        data={},
        fingerprints={},
        owner="here",
        hardware="",
        commit="",
        dirty=False,
        code="code",
    )
    return MLflowTracker(
        uri=f"sqlite:///{folder / 'mlflow.db'}",
        artifacts=folder / "artifacts",
        experiment="toy-search",
        provenance=nothing,
        downloads=folder / "downloads",
    )


def make(folder, trials, monkeypatch=None, qualities=None):
    """A search as a newly started driver has it; with `qualities`, its trials are these and not Optuna's."""
    tracker = open_store(folder)
    if qualities:
        drawn = iter(qualities)
        monkeypatch.setattr("sweeps.tuning.suggest", lambda *_: {"quality": next(drawn)})
    search = Search(base=BASE, space=SPACE, trials=trials, rungs=(1, 3, 9), factor=3, metric=METRIC, history=tracker)
    sweep = Sweep(
        stages=search.stages,
        tests=(),
        tracker=tracker,
        view=Silent(),
        folder=folder / "stages",
        schedule=search,
        rows={},
        patience=math.inf,
    )
    return search, sweep


ORDERS = {
    "best first": sorted(map(float, range(10, 20)), reverse=True),
    "worst first": sorted(map(float, range(10, 20))),
    "shuffled": random.Random(0).sample(list(map(float, range(10, 20))), 10),
}


@pytest.mark.parametrize("order", ORDERS)
def test_ten_trials_in_any_order_keep_the_best_for_the_same_steps(tmp_path, monkeypatch, order):
    search, sweep = make(tmp_path, 11, monkeypatch, ORDERS[order])
    Counter.executed = 0
    InProcessEngine(SETTINGS).run(sweep)
    assert search.best(sweep).values == {"quality": 19.0}
    assert Counter.executed == sweep.executed == STEPS + 10 * 1 + 4 * 2 + 2 * 6
    done = {trial.values["quality"] for trial in search.trials if sweep.states[trial.stage.key] == State.DONE}
    assert done == {-1.0, 19.0, 18.0}  # the row's own values are the worst of all, and ran to their end

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("toy-search").experiment_id])
    assert len(runs) == 11
    pruned = [run for run in runs if record.TAG_PRUNED in run.data.tags]
    assert len(pruned) == 8
    assert {run.info.status for run in pruned} == {"KILLED"}
    assert {run.info.status for run in runs if run not in pruned} == {"FINISHED"}
    assert "not among the best 4 of 10" in str([run.data.tags[record.TAG_PRUNED] for run in pruned])


@pytest.mark.parametrize("order", ORDERS)
def test_ten_table_rows_all_run_to_their_end(tmp_path, order):
    stages = [replace(BASE, config=Toy(quality=quality), name=str(quality)) for quality in ORDERS[order]]
    sweep = Sweep(
        stages=stages,
        tests=(),
        tracker=open_store(tmp_path),
        view=Silent(),
        folder=tmp_path / "stages",
        schedule=LongestChainFirst(stages),
        rows={},
    )
    InProcessEngine(SETTINGS).run(sweep)
    assert len(sweep.all_in(State.DONE)) == 10
    assert sweep.executed == 10 * STEPS


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    search, sweep = make(tmp_path_factory.mktemp("whole"), 9)
    InProcessEngine(SETTINGS).run(sweep)
    assert sweep.executed == STEPS + 8 * 1 + 3 * 2 + 1 * 6
    return search, sweep


@pytest.mark.parametrize("kill_at", [3, 12, 20, 28])
def test_a_search_killed_at_any_step_ends_as_an_undisturbed_one(tmp_path, kill_at, monkeypatch, undisturbed):
    undisturbed, whole = undisturbed
    search, sweep = make(tmp_path / "cut", 9)
    Counter.executed = 0
    step = ToyLearner.step

    def die(self):
        if Counter.executed == kill_at:
            raise Killed
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(ToyLearner, "step", die)
        with pytest.raises(Killed):
            InProcessEngine(SETTINGS).run(sweep)
    search, sweep = make(tmp_path / "cut", 9)
    InProcessEngine(SETTINGS).run(sweep)
    assert [trial.values for trial in search.trials] == [trial.values for trial in undisturbed.trials]
    assert [trial.measured for trial in search.trials] == [trial.measured for trial in undisturbed.trials]
    assert search.best(sweep).number == undisturbed.best(whole).number
    assert Counter.executed == whole.executed  # every step was checkpointed
    client = MlflowClient(f"sqlite:///{tmp_path / 'cut' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("toy-search").experiment_id])
    assert len(runs) == 9
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}
    for run in runs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss/total")]
        assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sweeps.train", "_write_checkpoint"),
        ("sweeps.train", "_write_result"),
        ("sweeps.sweep.Sweep", "report"),
        ("sweeps.sweep.Sweep", "complete"),
        ("sweeps.tracking.MLflowTracker", "start"),
        ("sweeps.tracking.MLflowTracker", "log"),
        ("sweeps.tracking.MLflowTracker", "prune"),
        ("sweeps.tracking.MLflowTracker", "end"),
    ],
)
def test_a_search_killed_between_any_two_acts_ends_as_an_undisturbed_one(
    tmp_path, module, name, monkeypatch, undisturbed
):
    """The driver dies right before and right after some of the calls of something it does."""
    undisturbed, whole = undisturbed
    real = getattr(pkgutil.resolve_name(module), name)
    calls = 0
    while True:
        search, sweep = make(tmp_path, 9)
        if sweep.over():
            break

        def die(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls in (1, 4, 9):
                raise Killed
            answer = real(*args, **kwargs)
            if calls in (2, 6, 12):
                raise Killed
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", die)
            try:
                InProcessEngine(SETTINGS).run(sweep)
            except Killed:
                continue
    assert calls >= 3
    assert [trial.values for trial in search.trials] == [trial.values for trial in undisturbed.trials]
    assert [trial.measured for trial in search.trials] == [trial.measured for trial in undisturbed.trials]
    assert search.best(sweep).number == undisturbed.best(whole).number
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("toy-search").experiment_id])
    assert len(runs) == 9
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}
    for run in runs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss/total")]
        assert steps == list(range(1, len(steps) + 1))


def test_a_store_that_comes_and_goes_changes_nothing(tmp_path, monkeypatch, undisturbed):
    undisturbed, whole = undisturbed
    chance = random.Random(0)

    def unreliable(real):
        def call(*args):
            if chance.random() < 0.2:
                raise StoreError("no answer")
            answer = real(*args)
            if chance.random() < 0.2:
                raise StoreError("the answer was lost")
            return answer

        return call

    search, sweep = make(tmp_path, 9)
    for name in ("start", "log", "end", "find", "pause", "prune", "curve"):
        monkeypatch.setattr(MLflowTracker, name, unreliable(getattr(MLflowTracker, name)))
    while not sweep.over():
        if job := sweep.take():
            sweep.complete(job.stage.key, attempt(job, SETTINGS, partial(sweep.report, job.stage.key)))
    assert [trial.values for trial in search.trials] == [trial.values for trial in undisturbed.trials]
    assert [trial.measured for trial in search.trials] == [trial.measured for trial in undisturbed.trials]
    assert search.best(sweep).number == undisturbed.best(whole).number


def test_two_searches_of_one_stage_share_no_trial(tmp_path):
    _, sweep = make(tmp_path, 4)
    InProcessEngine(SETTINGS).run(sweep)
    other = Search(
        base=BASE, space=SPACE, trials=4, rungs=(3, 9), factor=2, metric=METRIC, history=open_store(tmp_path)
    )
    drawn = other._varied(suggest(SPACE, [], other.id))
    assert drawn.stage.key not in sweep.stages
    assert len(make(tmp_path, 4)[0].trials) == 4


def test_a_search_that_is_over_does_nothing_and_more_trials_go_on_from_it(tmp_path):
    search, sweep = make(tmp_path, 6)
    InProcessEngine(SETTINGS).run(sweep)
    before = [trial.values for trial in search.trials]
    again, sweep = make(tmp_path, 6)
    assert sweep.over()
    assert [trial.values for trial in again.trials] == before
    more, sweep = make(tmp_path, 12)
    assert not sweep.over()
    Counter.executed = 0
    InProcessEngine(SETTINGS).run(sweep)
    assert [trial.values for trial in more.trials[:6]] == before
    assert len(more.trials) == 12
    # Eleven are halved: eleven reach the first rung, four the second, two the end. None of them twice.
    assert Counter.executed < STEPS + 11 * 1 + 4 * 2 + 2 * 6 - 6


def test_a_failing_trial_is_out_and_the_others_go_on(tmp_path, monkeypatch):
    search, sweep = make(tmp_path, 7, monkeypatch, [math.nan, 1.0, 2.0, 3.0, 4.0, 5.0])
    InProcessEngine(SETTINGS).run(sweep)
    assert [trial.number for trial in search.trials if sweep.states[trial.stage.key] == State.FAILED] == [1]
    assert search.best(sweep).values == {"quality": 5.0}


@pytest.mark.parametrize("field", ["seed", "quality.x", "name"])
def test_a_field_that_is_no_number_of_the_config_is_refused(field):
    space = Space(row="toy", ranges=(Range(field=field, low=0.0, high=1.0),))
    with pytest.raises(ValueError, match=r"a search must vary a real-valued field .* row 'toy' \(quality\); got"):
        current_values(BASE, space)
