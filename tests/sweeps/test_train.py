import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sweeps import record
from sweeps.deblurring.config import LossWeights
from sweeps.deblurring.learner import TrainingLearner
from sweeps.job import COSTS, DIGESTS, HISTORY, STATE, WEIGHTS, Job, Settings, checkpoints
from sweeps.learner import Execution
from sweeps.stages import Stage
from sweeps.train import NonFiniteError, load_state, state_digest, train_stage

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


def stage_of(study, row):
    return next(each for each in study.rows if each.name == row).stages[0]


def run(stage, tests, folder, settings, *, start=None, trained=False, kill_at=None):
    """Train a stage by a clock on which whatever is timed takes a second."""
    points = []

    def report(step, metrics, earlier):
        if not metrics:
            return
        points.append((step, metrics))
        if step == kill_at:
            raise Killed

    job = Job(stage=stage, tests=tuple(tests), folder=folder, start=start, trained=trained)
    train_stage(job, settings, report, clock=itertools.count().__next__)
    return job.result, points


def costs(result):
    return json.loads((result / COSTS).read_text())


def run_chain(study, row, folder, settings):
    start = None
    for stage in stage_of(study, row).chain():
        result, points = run(stage, study.tests, folder / stage.key, settings, start=start)
        start = result / "model" / STATE
    return result, points


def flat(state, prefix=""):
    """Every tensor and value of a nested state under its path."""
    if isinstance(state, dict):
        return {name: value for key, part in state.items() for name, value in flat(part, f"{prefix}/{key}").items()}
    if isinstance(state, list | tuple):
        return flat(dict(enumerate(state)), prefix)
    return {prefix: state}


def assert_same_state(one, other):
    assert_same(load_state(one), load_state(other))


def assert_same(one, other):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        assert same, name


@pytest.mark.parametrize("row", ["scales-1", "multi-task", "loss-adversarial"])
def test_a_stage_killed_at_any_step_ends_with_the_same_bits(tiny_study, settings, tmp_path, row):
    *parents, stage = stage_of(tiny_study, row).chain()
    start = None
    for parent in parents:
        start = run(parent, [], tmp_path / parent.key, settings, start=start)[0] / "model" / STATE
    undisturbed, points = run(stage, tiny_study.tests, tmp_path / "whole", settings, start=start)
    for step in range(stage.first_step + 1, stage.last_step):
        with pytest.raises(Killed):
            run(stage, tiny_study.tests, tmp_path / "killed", settings, start=start, kill_at=step)
    resumed, resumed_points = run(stage, tiny_study.tests, tmp_path / "killed", settings, start=start)
    assert_same_state(undisturbed / "model" / STATE, resumed / "model" / STATE)
    for result in (undisturbed, resumed):
        assert [tuple(point) for point in json.loads((result / HISTORY).read_text())] == points
    assert (undisturbed / DIGESTS).read_text() == (resumed / DIGESTS).read_text()
    assert resumed_points == points[-2:]  # the last point before the kill is repeated: its checkpoint came too late
    name = f"per_image/{tiny_study.tests[0].name}.parquet"
    assert pq.read_table(undisturbed / name).equals(pq.read_table(resumed / name))


def test_a_resumed_stage_says_what_its_checkpoint_holds(tiny_study, settings, tmp_path):
    stage = stage_of(tiny_study, "multi-task")
    with pytest.raises(Killed):
        run(stage, [], tmp_path / "killed", settings, kill_at=3)
    heard = []
    job = Job(stage=stage, tests=(), folder=tmp_path / "killed")
    train_stage(job, settings, lambda step, metrics, earlier: heard.append((step, metrics, list(earlier))))
    assert heard[0][:2] == (2, {})  # the checkpoint of step 3 came too late
    history = [tuple(point) for point in json.loads((job.result / HISTORY).read_text())]
    assert heard[0][2] == history[:2]
    assert heard[1:] == [(*point, []) for point in history[2:]]


def test_a_child_goes_on_where_its_parent_ended(tiny_study, settings, tmp_path):
    """One long stage equals two short ones of the same config: weights, moments and random draws are inherited."""
    stage = stage_of(tiny_study, "multi-task")
    first = replace(stage, steps=3)
    second = replace(stage, steps=2, parent=first)
    long = run(replace(stage, steps=5), [], tmp_path / "long", settings)[0]
    start = run(first, [], tmp_path / "first", settings)[0] / "model" / STATE
    short, points = run(second, [], tmp_path / "second", settings, start=start)
    assert [step for step, _ in points] == [4, 5]
    one, other = (load_state(result / "model" / STATE)["state"] for result in (long, short))
    assert_same(one, other)


def test_a_child_has_its_own_learning_rate(tiny_study, settings, tmp_path):
    stage = stage_of(tiny_study, "multi-task")
    start = run(stage, [], tmp_path / "parent", settings)[0] / "model" / STATE
    slower = replace(stage.config, optimiser=replace(stage.config.optimiser, learning_rate=1e-6))
    child = replace(stage, config=slower, parent=stage)
    result, _ = run(child, [], tmp_path / "child", settings, start=start)
    state = load_state(result / "model" / STATE)["state"]["optimiser"]
    assert [group["lr"] for group in state["param_groups"]] == [1e-6]
    assert state["state"][0]["step"] == 2 * stage.steps


def test_a_truncated_checkpoint_gives_way_to_the_one_before(tiny_study, settings, tmp_path):
    stage = stage_of(tiny_study, "scales-2")
    undisturbed, _ = run(stage, [], tmp_path / "whole", settings)
    with pytest.raises(Killed):
        run(stage, [], tmp_path / "cut", settings, kill_at=3)
    newest = checkpoints(tmp_path / "cut")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed, points = run(stage, [], tmp_path / "cut", settings)
    assert [step for step, _ in points] == [2, 3, 4]
    assert_same_state(undisturbed / "model" / STATE, resumed / "model" / STATE)


@pytest.mark.parametrize("content", [b"", b"junk", {"stage": "another", "step": 3, "state": {}}, {"step": 3}])
def test_a_foreign_checkpoint_gives_way_to_the_one_before(tiny_study, settings, tmp_path, content):
    stage = stage_of(tiny_study, "scales-2")
    undisturbed, _ = run(stage, [], tmp_path / "whole", settings)
    with pytest.raises(Killed):
        run(stage, [], tmp_path / "cut", settings, kill_at=3)
    newest = checkpoints(tmp_path / "cut")[-1]
    if isinstance(content, bytes):
        newest.write_bytes(content)
    else:
        torch.save(content, newest)
    resumed, points = run(stage, [], tmp_path / "cut", settings)
    assert [step for step, _ in points] == [2, 3, 4]
    assert_same_state(undisturbed / "model" / STATE, resumed / "model" / STATE)


def test_a_bare_pickle_is_never_run(tiny_study, settings, tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    stage = stage_of(tiny_study, "scales-2")
    torch.save(Bomb(), tmp_path / "checkpoint-00000003.pt")
    torch.save({"stage": stage.key, "step": 2, "state": Bomb()}, tmp_path / "checkpoint-00000002.pt")
    _, points = run(stage, [], tmp_path, settings)
    assert [step for step, _ in points] == [1, 2, 3, 4]
    assert not (tmp_path / "exploded").exists()


def test_a_paused_stage_ends_with_the_same_bits(tiny_study, settings, tmp_path):
    stage = stage_of(tiny_study, "multi-task")
    undisturbed, _ = run(stage, tiny_study.tests, tmp_path / "whole", settings)
    for until in (1, 3):
        job = Job(stage=stage, tests=(), folder=tmp_path / "paused", until=until)
        train_stage(job, settings, lambda *_: None)
        assert not job.result.exists()
        history = json.loads((job.folder / HISTORY).read_text())
        assert [step for step, _ in history] == list(range(1, until + 1))
        assert "validation/psnr" in history[-1][1]
    resumed, points = run(stage, tiny_study.tests, tmp_path / "paused", settings)
    assert [step for step, _ in points] == [4]
    assert (undisturbed / DIGESTS).read_text() == (resumed / DIGESTS).read_text()


def test_a_state_s_digest_is_of_every_bit():
    state = {"a": {"step": 1, "moment": torch.tensor([1.0, 2.0])}, "b": [torch.tensor(1), "text"]}
    reordered = {"b": [torch.tensor(1), "text"], "a": {"moment": torch.tensor([1.0, 2.0]), "step": 1}}
    assert state_digest(state) == state_digest(reordered)
    nudged = torch.tensor([1.0, 2.0]).view(torch.int32).add(torch.tensor([0, 1])).view(torch.float32)
    others = [
        {**state, "a": {"step": 1, "moment": nudged}},
        {**state, "a": {"step": 2, "moment": torch.tensor([1.0, 2.0])}},
        {**state, "a": {"step": 1, "moment": torch.tensor([[1.0, 2.0]])}},
        {**state, "b": [torch.tensor(1, dtype=torch.int32), "text"]},
        {**state, "b": ["text", torch.tensor(1)]},
        {"a": state["a"]},
    ]
    assert len({state_digest(each) for each in [state, *others]}) == len(others) + 1


def test_two_checkpoints_are_kept(tiny_study, settings, tmp_path):
    run(stage_of(tiny_study, "scales-1"), [], tmp_path, settings)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-00000003.pt", "checkpoint-00000004.pt"]


def test_a_test_set_added_later_is_evaluated_without_training(tiny_study, settings, tmp_path):
    stage = stage_of(tiny_study, "scales-1")
    whole, _ = run(stage, tiny_study.tests, tmp_path / "whole", settings)
    later = replace(tiny_study.tests[0], name="Added")
    added, points = run(stage, [later], tmp_path / "added", settings, start=whole / "model" / STATE, trained=True)
    assert points == []
    assert_same_state(whole / "model" / STATE, added / "model" / STATE)
    assert pq.read_table(added / "per_image/Added.parquet").equals(pq.read_table(whole / "per_image/Made up.parquet"))


def test_a_stage_costs_the_seconds_of_all_attempts_up_to_their_checkpoints(tiny_study, settings, tmp_path):
    stage = stage_of(tiny_study, "multi-task")
    whole, _ = run(stage, tiny_study.tests, tmp_path / "whole", settings)
    for step in (2, 4):
        with pytest.raises(Killed):
            run(stage, [], tmp_path / "killed", settings, kill_at=step)
    resumed, _ = run(stage, tiny_study.tests, tmp_path / "killed", settings)
    assert costs(whole) == costs(resumed) == {record.TRAINING_SECONDS: 4, record.EVALUATION_SECONDS: 1}
    for name in ("metrics.json", HISTORY, DIGESTS):
        assert "seconds" not in (whole / name).read_text()


def test_a_checkpoint_of_an_earlier_version_has_cost_nothing(tiny_study, settings, tmp_path):
    stage = stage_of(tiny_study, "multi-task")
    with pytest.raises(Killed):
        run(stage, [], tmp_path, settings, kill_at=4)
    for file in checkpoints(tmp_path):
        content = load_state(file)
        del content["seconds"]
        torch.save(content, file)
    result, points = run(stage, [], tmp_path, settings)
    assert [step for step, _ in points] == [4]
    assert costs(result) == {record.TRAINING_SECONDS: 1, record.EVALUATION_SECONDS: 0}


def test_a_later_evaluation_costs_no_training(tiny_study, settings, tmp_path):
    stage = stage_of(tiny_study, "scales-1")
    whole, _ = run(stage, tiny_study.tests, tmp_path / "whole", settings)
    later = [replace(tiny_study.tests[0], name=name) for name in ("Added", "Also")]
    added, _ = run(stage, later, tmp_path / "added", settings, start=whole / "model" / STATE, trained=True)
    assert costs(added) == {record.EVALUATION_SECONDS: 2}


@pytest.mark.parametrize("row", ["blurred", "multi-task"])
def test_a_strip_s_name_says_which_image_it_is(tiny_study, settings, tmp_path, row):
    result, _ = run(stage_of(tiny_study, row), tiny_study.tests, tmp_path, settings)
    table = pq.read_table(result / "per_image/Made up.parquet")
    psnr = dict(
        zip(
            zip(table["image"].to_pylist(), table["condition"].to_pylist(), strict=True),
            table["psnr"].to_pylist(),
            strict=True,
        )
    )
    files = list((result / record.STRIPS_FOLDER / "Made up").iterdir())
    assert len(files) == 4  # as many as faces
    for file in files:
        with Image.open(file) as image:
            degraded, restored, truth = np.split(np.asarray(image, float) / 255, 3, axis=1)
        assert np.array_equal(degraded, restored) == (row == "blurred")
        shown = -10 * np.log10(np.mean((restored - truth) ** 2))
        assert shown == pytest.approx(psnr[record.strip_of(str(file))], abs=0.05)  # pixels are rounded
    values = sorted(psnr[record.strip_of(str(file))] for file in files)
    assert min(np.diff(values)) > 0.1  # so that no other would do


def test_a_loss_that_is_not_finite_names_stage_and_step(tiny_study, settings, tmp_path, monkeypatch):
    stage = stage_of(tiny_study, "scales-1")
    taken = []
    honest = TrainingLearner.step

    def step(self):
        taken.append(1)
        terms = honest(self)
        return terms if len(taken) < 3 else {name: value * float("nan") for name, value in terms.items()}

    monkeypatch.setattr(TrainingLearner, "step", step)
    with pytest.raises(NonFiniteError, match="1 scale · content · seed 1, steps 3 to 3: loss/total is nan"):
        run(stage, [], tmp_path, settings)
    assert checkpoints(tmp_path) == []
    assert not (tmp_path / "result").exists()


def test_weights_that_are_not_finite_are_no_result(tiny_study, settings, tmp_path, monkeypatch):
    """The last update can spoil the weights after the last loss was read."""
    stage = stage_of(tiny_study, "scales-1")
    honest = TrainingLearner.validate

    def validate(self):
        metrics = honest(self)
        torch.nn.init.constant_(next(self.model.parameters()), float("nan"))
        return metrics

    monkeypatch.setattr(TrainingLearner, "validate", validate)
    settings = replace(settings, validate_every=4)
    with pytest.raises(NonFiniteError, match="test/Made up/psnr is nan"):
        run(stage, tiny_study.tests, tmp_path, settings)
    assert not (tmp_path / "result").exists()


def test_curves_are_means_over_the_interval(tiny_study, cache, tmp_path):
    stage = stage_of(tiny_study, "multi-task")
    _, every = run(stage, [], tmp_path / "1", Settings(cache=cache, log_every=1, validate_every=4, checkpoint_every=4))
    _, pairs = run(stage, [], tmp_path / "2", Settings(cache=cache, log_every=2, validate_every=4, checkpoint_every=4))
    single = [metrics["loss/structure"] for _, metrics in every]
    assert [step for step, _ in pairs] == [2, 4]
    assert [metrics["loss/structure"] for _, metrics in pairs] == pytest.approx(
        [(single[0] + single[1]) / 2, (single[2] + single[3]) / 2]
    )
    assert ["validation/psnr" in metrics for _, metrics in pairs] == [False, True]


def test_checkpoints_must_fall_on_logged_steps(cache):
    with pytest.raises(ValueError, match=r"multiple of log_every \(2\), got 3"):
        Settings(cache=cache, log_every=2, checkpoint_every=3)


def test_terms_are_those_that_are_on(tiny_study, settings, tmp_path):
    _, points = run_chain(tiny_study, "loss-adversarial", tmp_path, settings)
    terms = {name for name in points[-1][1] if name.startswith("loss/")}
    assert terms == {
        f"loss/{name}" for name in ("total", "content", "structure", "perceptual", "adversarial", "discriminator")
    }
    config = stage_of(tiny_study, "loss-adversarial").config
    metrics = points[-1][1]
    weights = {name: getattr(config.losses, name) for name in LossWeights.__dataclass_fields__}
    assert metrics["loss/total"] == pytest.approx(
        sum(weights[name] * metrics[f"loss/{name}"] for name in weights), rel=1e-5
    )


def test_the_written_weights_are_those_that_were_evaluated(tiny_study, settings, tmp_path):
    from sweeps.deblurring.learner import build_generator

    stage = stage_of(tiny_study, "multi-task")
    result, _ = run(stage, tiny_study.tests, tmp_path, settings)
    learner = stage.config.learner(seed=1, execution=Execution(), cache=settings.cache)
    generator = build_generator(stage.config.generator)
    generator.load_state_dict(load_file(result / "model" / WEIGHTS))
    learner.model.load_state_dict(generator.state_dict())
    again = learner.evaluate(tiny_study.tests[0])
    table = pq.read_table(result / "per_image/Made up.parquet").to_pydict()
    assert table == again.per_image


def test_the_trainer_needs_no_ray_mlflow_or_optuna(tmp_path, faces_folder, cache):
    """In a process where importing them fails: train a tiny stage, kill it in the middle, resume, compare the bits."""
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("without_engine.py")),
            str(tmp_path),
            str(faces_folder),
            str(cache),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "bit-identical after a resume at step 2 of 4"


def test_stages_with_the_same_content_have_the_same_key(tiny_study):
    stage = stage_of(tiny_study, "multi-task")
    assert Stage(name="another name", config=stage.config, steps=stage.steps, seed=stage.seed).key == stage.key
