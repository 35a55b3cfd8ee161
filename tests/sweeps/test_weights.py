"""From what a search found to rows that are trained with it."""

import json

import pytest

from sweeps import record
from sweeps.stages import tuned, with_values
from sweeps.weights import Found, RowFound

PERCEPTUAL = RowFound(
    values={"losses.perceptual": 0.002}, metric="validation/psnr", value=23.5, trials=16, search="abc"
)
ADVERSARIAL = RowFound(
    values={"losses.perceptual": 0.004, "losses.adversarial": 0.1},
    metric="validation/psnr",
    value=23,
    trials=8,
    search="d",
    settings=("generator.width=12", "batch_size=2"),
)


def last(study, row):
    return next(each for each in study.rows if each.name == row).stages[0]


def test_a_tuned_row_changes_its_own_stage_and_what_follows_on_it(tiny_study):
    study = tuned(tiny_study, {"loss-perceptual": {"losses.perceptual": 0.002}}, "a search")
    for row in ("blurred", "scales-1", "scales-2", "multi-task"):
        assert last(study, row) == last(tiny_study, row)
    perceptual, adversarial = last(study, "loss-perceptual"), last(study, "loss-adversarial")
    assert perceptual.config.losses.perceptual == 0.002
    assert perceptual.parent == last(tiny_study, "multi-task")
    assert perceptual.labels == ((record.LABEL_WEIGHTS, "a search"),)
    assert adversarial.config == last(tiny_study, "loss-adversarial").config
    assert adversarial.parent == perceptual
    assert adversarial.key != last(tiny_study, "loss-adversarial").key
    assert len(study.stages()) == len(tiny_study.stages())


def test_a_trial_and_the_row_that_takes_its_values_are_one_training(tiny_study):
    values = {"losses.perceptual": 0.1 + 0.2, "losses.adversarial": 1e-7 / 3}
    base = last(tiny_study, "loss-adversarial")
    trial = with_values(base, values, labels=(("trial", "7"),), name="trial 7")
    study = Found(preset="quick", seed=1, rows={}).with_row(
        "loss-adversarial", RowFound(values=values, metric="m", value=1.0, trials=2, search="s")
    )
    assert last(study.apply(tiny_study), "loss-adversarial").key == trial.key


def test_the_file_says_all_and_gives_it_back(tiny_study, tmp_path):
    found = Found(preset="quick", seed=1, rows={"loss-perceptual": PERCEPTUAL, "loss-adversarial": ADVERSARIAL})
    file = tmp_path / "search" / "tables-quick.json"
    found.write(file)
    assert json.loads(file.read_text())["rows"]["loss-adversarial"]["values"]["losses.adversarial"] == 0.1
    assert Found.read(file, "quick") == found
    [note] = set(found.apply(tiny_study).notes) - set(tiny_study.notes)
    for part in (
        "loss-perceptual: losses.perceptual = 0.002",
        "of 16 trials, search abc)",
        "of 8 trials, search d, which had generator.width=12, batch_size=2)",
        "seed 1",
    ):
        assert part in note


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "JSON"),
        ("{}", "preset"),
        ('{"preset": "quick", "seed": 1, "rows": {"a": {"values": {"x": "much"}}}}', "rows.a"),
        ('{"preset": "paper", "seed": 1, "rows": {}}', "of preset 'quick', got one of preset 'paper'"),
    ],
)
def test_another_file_is_refused(tmp_path, content, part):
    file = tmp_path / "weights.json"
    file.write_text(content)
    with pytest.raises(ValueError, match="--weights must be") as error:
        Found.read(file, "quick")
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_or_field_that_does_not_exist_is_refused(tiny_study):
    with pytest.raises(ValueError, match=r"--weights must name rows of study 'tables' .*scales-1.* got 'none'"):
        tuned(tiny_study, {"none": {}}, "")
    with pytest.raises(ValueError, match=r"losses\.perceptual"):
        tuned(tiny_study, {"loss-perceptual": {"losses.percptual": 1.0}}, "")
    with pytest.raises(ValueError, match="got -1"):
        tuned(tiny_study, {"loss-perceptual": {"losses.perceptual": -1.0}}, "")
