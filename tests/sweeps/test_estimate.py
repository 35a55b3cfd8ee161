import math
from dataclasses import dataclass, replace

import pytest
import torch

from sweeps.deblurring.config import DataConfig
from sweeps.deblurring.data import image_counts
from sweeps.deblurring.learner import TrainingLearner
from sweeps.deblurring.protocol import VALIDATION_IMAGES
from sweeps.estimate import Cost, ImageCounts, duration, estimate
from sweeps.job import STATE, WEIGHTS, Job, Settings
from sweeps.learner import Evaluation, Execution
from sweeps.measure import checkpoint_bytes, measure, measure_all
from sweeps.presets import paper, quick
from sweeps.stages import Stage
from sweeps.stand_in import stand_in_data
from sweeps.studies import Inputs, controls, tables
from sweeps.train import train_stage

CPU = Execution()
WARM_UP = 3.0
"""How much longer a learner's first step takes."""
PER_TEST = 0.25


class Work:
    """A clock that goes on only when work is done, and what was done."""

    def __init__(self):
        self.now = 0.0
        self.built, self.steps, self.validations = [], [], 0

    def __call__(self):
        return self.now


WORK = Work()


@pytest.fixture(autouse=True)
def work():
    WORK.__init__()
    return WORK


class FakeLearner:
    def __init__(self, config):
        self.config = config
        self.model = torch.nn.Linear(1, 1)
        self.state = {"model": self.model}
        WORK.built.append(config)

    def step(self):
        first = self.config not in WORK.steps
        WORK.steps.append(self.config)
        WORK.now += self.config.seconds_per_item * self.config.batch * (WARM_UP if first else 1)
        return {"total": torch.zeros(())}

    def validate(self):
        WORK.validations += 1
        return {"psnr": 0.0}

    def evaluate(self, test):
        WORK.now += PER_TEST
        return Evaluation(per_image={"psnr": [1.0] * 5}, metrics=("psnr",), strips={})


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    batch: int = 10
    milliseconds_per_item: int = 10
    weight: float = 1.0
    rates: tuple[float, ...] = (0.1,)

    @property
    def seconds_per_item(self):
        return self.milliseconds_per_item / 1000

    def learner(self, *, seed, execution, cache):
        return FakeLearner(self)

    def smaller(self):
        return replace(self, batch=1), self.batch


def stage(name="a", *, steps=10, parent=None, **config):
    return Stage(name=name, config=FakeConfig(**config), steps=steps, seed=1, parent=parent)


def cost(*, step=0.0, image=0.0, checkpoint=0, kept=0):
    return Cost(seconds_per_step=step, seconds_per_image=image, checkpoint_bytes=checkpoint, kept_bytes=kept)


def measured(config, tmp_path):
    return measure(stage(**config), test=None, execution=CPU, cache=tmp_path, clock=WORK)


def test_a_short_step_is_timed_at_its_full_size_without_its_warm_up(tmp_path, work):
    result = measured({"batch": 10, "milliseconds_per_item": 30}, tmp_path)
    assert result.seconds_per_step == pytest.approx(0.3)
    assert result.seconds_per_image == pytest.approx(PER_TEST / 5)
    assert {config.batch for config in work.steps} == {1, 10}


def test_a_long_step_is_predicted_from_a_small_one(tmp_path, work):
    result = measured({"batch": 100, "milliseconds_per_item": 100}, tmp_path)
    assert result.seconds_per_step == pytest.approx(10)
    assert {config.batch for config in work.steps} == {1}


def test_a_step_that_takes_long_though_small_is_done_once(tmp_path, work):
    measured({"batch": 100, "milliseconds_per_item": 2000}, tmp_path)
    assert len(work.steps) == 1


def test_an_evaluation_only_stage_takes_no_step(tmp_path, work):
    only = measured({}, tmp_path)
    work.steps.clear()
    result = measure(stage(steps=0), test=None, execution=CPU, cache=tmp_path, clock=work)
    assert result.seconds_per_step == 0
    assert not work.steps
    assert result.seconds_per_image == only.seconds_per_image


def test_stages_that_do_the_same_work_are_measured_once(tmp_path, work):
    same = [
        stage("one"),
        stage("other name and steps", steps=99),
        replace(stage("seed"), seed=7),
        stage("weight", weight=0.3),
        stage("rate", rates=(0.5,)),
        stage("child", parent=stage("one")),
    ]
    different = [stage("off", weight=0.0), stage("batch", batch=3), stage("more rates", rates=(0.1, 0.1))]
    costs = measure_all([*same, *different], test=None, execution=CPU, threads=1, cache=tmp_path, clock=work)
    full = [config for config in work.built if config.batch != 1]
    assert len(full) == 1 + len(different)
    assert costs.keys() == {each.key for each in [*same, *different]}
    assert costs[different[1].key].seconds_per_step == pytest.approx(0.03)


def tree():
    """A root of 100 s with two children of 50 and 20 s, and a lone stage of 30 s."""
    root = stage("root", steps=100)
    children = [stage("left", steps=50, parent=root), stage("right", steps=20, parent=root)]
    return [root, *children, stage("lone", steps=30)]


@pytest.mark.parametrize(("places", "seconds"), [(1, 200), (2, 150), (3, 150)])
def test_a_sweep_takes_its_longest_chain_or_its_work_over_the_places(places, seconds):
    stages = tree()
    none = ImageCounts(validate_every=10, validation_images=0, test_images=0)
    whole = estimate(stages, {each.key: cost(step=1.0) for each in stages}, none, places=places)
    assert whole.seconds == seconds


def test_what_the_store_has_already_costs_nothing():
    _, left, right, _ = tree()
    none = ImageCounts(validate_every=10, validation_images=0, test_images=0)
    costs = {each.key: cost(step=1.0) for each in (left, right)}
    assert estimate([left, right], costs, none, places=1).seconds == 70
    assert estimate([left, right], costs, none, places=2).seconds == 50
    assert estimate([], {}, none, places=2).seconds == 0


def test_validations_and_test_images_count():
    images = ImageCounts(validate_every=40, validation_images=8, test_images=100)
    root = stage(steps=100)
    whole = estimate([root], {root.key: cost(step=2.0, image=0.5)}, images, places=1)
    assert whole.stages[0].seconds == 100 * 2 + (3 * 8 + 100) * 0.5


@pytest.mark.parametrize("steps", [1, 4, 5, 8])
def test_the_trainer_validates_as_often_as_is_counted(tmp_path, work, steps):
    settings = Settings(cache=tmp_path, log_every=1, validate_every=4, checkpoint_every=1)
    each = stage(steps=steps)
    train_stage(Job(stage=each, tests=(), folder=tmp_path / "job"), settings, lambda *_: None)
    assert ImageCounts(validate_every=4, validation_images=1, test_images=0).of(each) == work.validations


def test_bytes_of_a_sweep():
    stages = tree()
    sizes = {each.name: size for each, size in zip(stages, (100, 400, 200, 300), strict=True)}
    costs = {each.key: cost(checkpoint=sizes[each.name], kept=sizes[each.name] + 1) for each in stages}
    none = ImageCounts(validate_every=1, validation_images=0, test_images=0)
    whole = estimate(stages, costs, none, places=2)
    assert whole.kept_bytes == 100 + 400 + 200 + 300 + 4
    # Two old checkpoints and the one being written, for the two largest stages that can run at once.
    assert whole.peak_bytes == whole.kept_bytes + 3 * (400 + 300)


def test_bytes_are_those_of_the_files_that_training_writes(tiny_study, cache, settings, tmp_path):
    kept = largest = 0
    start = None
    chain = list(next(row for row in tiny_study.rows if row.name == "loss-adversarial").stages[0].chain())
    for each in chain:
        job = Job(stage=each, tests=(), folder=tmp_path / each.key, start=start)
        train_stage(job, settings, lambda *_: None)
        start = job.result / "model" / STATE
        kept += start.stat().st_size + (job.result / "model" / WEIGHTS).stat().st_size
        largest = max(largest, *(path.stat().st_size for path in job.folder.glob("checkpoint-*.pt")))
    counted = checkpoint_bytes(chain, places=1, cache=cache)
    assert counted == pytest.approx(kept + 3 * largest, rel=0.05)


def study_of(preset, build, folder):
    data = stand_in_data(preset.config.data, {}, preset.config.backbone, folder)
    return build(Inputs(config=preset.config, data=data, seeds=[1], backbone_digest="", caption=""))


def test_bytes_of_the_paper_preset_follow_from_its_parameter_counts(tmp_path):
    stages = {each.name: each for each in study_of(paper(), tables, tmp_path).stages()}
    one_scale = 1_690_755
    upsamplers = 2 * (3 * 3 * 4 * 4 + 3)
    tail = 2 * (64 * 64 * 25 + 64) + 64 * 3 * 25 + 3
    multi_task = one_scale + tail + upsamplers
    channels = [3, 64, 128, 256, 512, 1024]
    convolutions = sum(16 * one * other for one, other in zip(channels, [*channels[1:], 1], strict=True))
    discriminator = convolutions + 2 * sum(channels[2:])
    for name, parameters, generator in (
        ("1 scale · content", one_scale, one_scale),
        ("multi-task · content", multi_task, multi_task),
        ("multi-task · +adversarial", multi_task + discriminator, multi_task),
    ):
        # float32, each with Adam's two moments: three checkpoints and the final state, and the network on its own.
        expected = 4 * (4 * 3 * parameters) + 4 * generator
        assert checkpoint_bytes([stages[name]], places=1, cache=tmp_path) == pytest.approx(expected, rel=0.01), name
    assert checkpoint_bytes([stages["blurred input"]], places=1, cache=tmp_path) == 0


def test_every_stage_of_the_quick_study_steps_on_made_up_data(tmp_path):
    study = study_of(quick(), tables, tmp_path)
    for each in study.stages():
        learner = each.config.learner(seed=1, execution=CPU, cache=tmp_path)
        if each.steps:
            assert all(math.isfinite(value) for value in learner.step().values())
            smaller, factor = each.config.smaller()
            assert smaller == replace(each.config, batch_size=1)
            assert factor == each.config.batch_size
        assert len(learner.evaluate(study.tests[0]).per_image["psnr"]) == 2


def test_made_up_data_have_the_shapes_of_the_preset(tmp_path, monkeypatch):
    """The batch that a step gets is as large as a real one, for either backbone."""
    shapes = []
    losses = TrainingLearner.losses

    def spy(learner, blurred, sharp):
        shapes.append(tuple(sharp.shape))
        return losses(learner, blurred, sharp)

    monkeypatch.setattr(TrainingLearner, "losses", spy)
    for preset in (quick(), paper()):
        config = replace(preset.config, generator=replace(quick().config.generator, width=6, blocks=1), batch_size=2)
        study = study_of(replace(preset, config=config), controls, tmp_path)
        study.rows[-1].stages[0].config.learner(seed=1, execution=CPU, cache=tmp_path).step()
    assert shapes == [(2, 3, 64, 64), (2, 3, 128, 128)]


def test_images_of_the_published_test_sets():
    counts = image_counts(DataConfig(), tests=2, validate_every=1000)
    content = stage(steps=100_000)
    assert counts.of(content) == 100 * VALIDATION_IMAGES + 16_000


def test_a_line_for_each_stage():
    images = ImageCounts(validate_every=1000, validation_images=0, test_images=10)
    trained, only = stage(steps=100_000), stage(steps=0)
    costs = {trained.key: cost(step=0.0594, checkpoint=20 * 2**20), only.key: cost(image=1.0)}
    lines = [str(each) for each in estimate([trained, only], costs, images, places=1).stages]
    assert lines == ["100,000 steps, 1.6 h, state 20.0 MiB", "evaluated only, 10 s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (60, "1 min"), (444, "7 min"), (5.2 * 3600, "5.2 h"), (3.1 * 86400, "3.1 days")],
)
def test_a_duration_is_said_in_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text
