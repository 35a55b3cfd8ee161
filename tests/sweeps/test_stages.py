import json
import math
from dataclasses import replace

import pytest

from sweeps.deblurring.config import DeblurConfig, LossWeights
from sweeps.deblurring.data import planned_data
from sweeps.overrides import apply_overrides
from sweeps.presets import paper, quick
from sweeps.record import SearchRecord, SweepRecord, from_tags, searches_from_tags, to_tags
from sweeps.stages import flat, tuned
from sweeps.studies import STUDIES, Inputs, describe


def build(name, config=None, seeds=(1,), backbone_digest="vgg"):
    config = config or paper().config
    data = planned_data(config.data, {})
    return STUDIES[name](
        Inputs(config=config, data=data, seeds=list(seeds), backbone_digest=backbone_digest, caption="")
    )


def keys(name, config):
    return {stage.name: stage.key for stage in build(name, config).stages()}


@pytest.mark.parametrize("seeds", [1, 3])
def test_tables_share_prefixes_within_a_seed_only(seeds):
    study = build("tables", seeds=range(1, seeds + 1))
    assert len([stage for stage in study.stages() if stage.steps]) == 5 * seeds
    assert study.tree_steps() == 400_000 * seeds
    assert study.flat_steps() == 750_000 * seeds


def test_controls_are_as_long_as_the_loss_rows():
    study = build("controls")
    last = {row.name: row.stages[0].last_step for row in study.rows}
    assert last["control-perceptual"] == last["loss-perceptual"] == 150_000
    assert last["control-adversarial"] == last["loss-adversarial"] == 200_000
    for name in ("control-perceptual", "control-adversarial"):
        stage = next(row for row in study.rows if row.name == name).stages[0]
        assert all(each.config.losses == LossWeights(content=1, structure=1) for each in stage.chain())


def test_the_two_studies_share_their_stages():
    shared = set(keys("tables", paper().config).values()) & set(keys("controls", paper().config).values())
    assert len(shared) == 4  # blurred, content, +perceptual, +adversarial


def test_table_2_has_a_line_for_each_control_above_the_loss_of_its_length():
    seeds = [1, 2]
    found = {name: describe(build(name, seeds=seeds), "paper", seeds) for name in ("tables", "controls")}
    lines = {name: each.tables[-1].rows for name, each in found.items()}
    assert [(row.name, row.optional) for row in lines["tables"]] == [
        ("blurred", False),
        ("multi-task", False),
        ("control-perceptual", True),
        ("loss-perceptual", False),
        ("control-adversarial", True),
        ("loss-adversarial", False),
    ]
    assert not any(row.optional for row in lines["controls"])
    # Under these keys the store has them once `controls` has run.
    assert [(row.keys, row.cells) for row in lines["tables"]] == [(row.keys, row.cells) for row in lines["controls"]]


def test_a_control_that_another_study_trains_is_not_trained_or_counted():
    study = build("tables", seeds=[1, 2])
    optional = {last.key for row in study.optional for last in row.stages}
    assert len(optional) == 4
    assert not optional & {stage.key for stage in study.stages()}
    assert all(study.rows_of(last) == [] for row in study.optional for last in row.stages)
    alone = flat(study)
    assert alone.optional == ()
    assert {line.row for table in alone.tables for line in table.lines} == {row.name for row in study.rows}
    assert alone.flat_steps() == study.flat_steps() == 1_500_000
    describe(alone, "paper", [1, 2])


def test_a_control_follows_what_is_tuned_below_it():
    found = {"multi-task": {"losses.structure": 0.5}, "loss-perceptual": {"losses.perceptual": 0.5}}
    here, there = (tuned(build(name), found, "a search") for name in ("tables", "controls"))
    rows = {row.name: row for row in there.rows}
    for row in here.optional:
        assert row.stages[0].key == rows[row.name].stages[0].key
        assert row.stages[0].key not in {last.key for each in build("tables").optional for last in each.stages}


def test_parents_come_before_their_children():
    seen = set()
    for stage in build("tables", seeds=[1, 2]).stages():
        assert stage.parent is None or stage.parent.key in seen
        seen.add(stage.key)


@pytest.mark.parametrize(
    ("assignment", "changed"),
    [
        ("losses.adversarial=0.5", {"multi-task · +adversarial"}),
        ("losses.perceptual=0.5", {"multi-task · +perceptual", "multi-task · +adversarial"}),
        ("discriminator_width=32", {"multi-task · +adversarial"}),
        ("backbone=vgg16", {"multi-task · +perceptual", "multi-task · +adversarial"}),
        ("schedule.adversarial=7", {"multi-task · +adversarial"}),
        (
            "generator.structure_input=sum",
            {"multi-task · content", "multi-task · +perceptual", "multi-task · +adversarial"},
        ),
        ("losses.structure=2", {"multi-task · content", "multi-task · +perceptual", "multi-task · +adversarial"}),
        (
            "generator.width=32",
            {
                "1 scale · content",
                "2 scales · content",
                "multi-task · content",
                "multi-task · +perceptual",
                "multi-task · +adversarial",
            },
        ),
    ],
)
def test_a_key_changes_with_what_can_change_the_result_and_nothing_else(assignment, changed):
    before = keys("tables", paper().config)
    after = keys("tables", apply_overrides(paper().config, [assignment]))
    assert {name for name in before if before[name] != after[name]} == changed


def test_seeds_have_different_keys_and_the_blurred_input_has_one():
    one, other = keys("tables", None), {s.name: s.key for s in build("tables", seeds=[2]).stages()}
    assert {name for name in one if one[name] == other[name]} == {"blurred input"}


def test_a_loss_of_weight_zero_is_not_computed_and_shares_the_key_of_a_control():
    config = apply_overrides(paper().config, ["losses.perceptual=0"])
    stage = next(row for row in build("controls", config).rows if row.name == "loss-perceptual").stages[0]
    control = next(row for row in build("controls", config).rows if row.name == "control-perceptual").stages[0]
    assert stage.config.backbone is None
    assert stage.key == control.key


def test_overrides_are_typed():
    config = apply_overrides(
        DeblurConfig(),
        [
            "generator.width=32",
            "optimiser.learning_rate=2e-4",
            "generator.initialisation=identity",
            "data.kernel_sizes=[3, 5]",
        ],
    )
    assert config.generator.width == 32
    assert config.optimiser.learning_rate == 2e-4
    assert config.generator.initialisation == "identity"
    assert config.data.kernel_sizes == (3, 5)
    assert replace(config, generator=DeblurConfig().generator).generator == DeblurConfig().generator


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("generator.scales=9", "generator.scales must be less than or equal to 3, got 9"),
        ("generator.width=0", "generator.width must be greater than or equal to 1, got 0"),
        ("generator.width=5", "generator must have a width of at least 6 for the identity, got 5"),
        ("generator.width=-1", "generator.width must be greater than or equal to 1, got -1"),
        ("generator.width=wide", "generator.width must be a valid integer"),
        ("data.kernel_sizes=5,7", r"data.kernel_sizes must be a list, as \[7,9\], got '5,7'"),
        ("losses.perceptual=NaN", "losses.perceptual must be"),
        ("losses.perceptual=Infinity", "losses.perceptual must be"),
        ("losses.adversarial=-1", "losses.adversarial must be greater than or equal to 0, got -1"),
        ("data.kernel_sizes=[4]", r"data.kernel_sizes must be odd sizes, at least one, got \[4\]"),
        (
            "generatr.width=3",
            r"must name a field, got 'generatr.width' \(did you mean generator.width\?\); there are generator.s",
        ),
        ("seed=3", "must name a field, got 'seed'; there are generator.scales, "),
        ("width", "must be FIELD=VALUE"),
    ],
)
def test_a_bad_override_is_one_line_with_rule_and_value(assignment, message):
    with pytest.raises(ValueError, match=message) as error:
        apply_overrides(quick().config, [assignment])
    assert "\n" not in str(error.value)


def test_the_record_says_what_was_asked_and_survives_the_store_s_tags():
    study = build("tables", seeds=range(1, 31))
    record = describe(study, "paper", range(1, 31))
    tags = to_tags(record)
    assert max(map(len, tags.values())) <= 5000
    assert len(tags) > 3
    assert from_tags(tags) == from_tags(tags, "paper") == record == SweepRecord.from_json(record.to_json())
    assert [table.title for table in record.tables] == ["Table 1", "Table 2"]
    assert record.tables[1].rows[5].published["CelebA"] == {"psnr": 23.56, "ssim": 0.871}
    with pytest.raises(ValueError, match=r"one that was swept \(paper\), got 'quick'"):
        from_tags(tags, "quick")


def test_the_record_says_what_numbers_mean_and_what_is_worth_a_look():
    data = replace(planned_data(paper().config.data, {}), licences=("Not for sale.",))
    study = STUDIES["tables"](Inputs(config=paper().config, data=data, seeds=[1], backbone_digest="", caption=""))
    record = describe(study, "paper", [1])
    assert record.licences == ["Not for sale."]
    assert not set(record.licences) & set(record.notes)
    assert [(each.name, each.unit, each.relevant) for each in record.metrics] == [
        ("psnr", "dB", 0.1),
        ("ssim", "", 0.005),
    ]
    assert record.axis.column == "kernel_size"
    corners = {"eyes": [(43, 42), (84, 42)], "mouth": [(47, 84), (83, 84)]}  # of an aligned face, in 128 pixels
    for name, points in corners.items():
        left, top, right, bottom = (128 * share for share in record.zooms[name])
        assert all(left < x < right and top < y < bottom for x, y in points)


def test_a_shorter_record_replaces_a_longer_one():
    long = to_tags(describe(build("tables", seeds=range(1, 31)), "paper", range(1, 31)))
    short = describe(build("tables"), "paper", [1])
    assert from_tags({**long, **to_tags(short)}) == short


def search_record(**changed):
    settings = {
        "id": "s1",
        "study": "tables",
        "preset": "paper",
        "row": "loss-perceptual",
        "metric": "validation/psnr",
        "first_step": 100,
        "rungs": [10, 30],
        "ranges": {"losses.perceptual": (0.0, 1.0)},
        "trials": 4,
        "best": {"losses.perceptual": 0.5},
        "importances": {"losses.perceptual": 1.0},
        "default_key": "0123",
        "defaults": {"losses.perceptual": 0.1},
    }
    return SearchRecord(**{**settings, **changed})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["best", "defaults", "ranges", "importances"])
def test_a_search_s_numbers_are_finite(name, number):
    content = (0.0, number) if name == "ranges" else number
    with pytest.raises(ValueError, match=rf"{name}.*\n.*finite number"):
        search_record(**{name: {"losses.perceptual": content}})


def test_a_search_has_a_rung():
    with pytest.raises(ValueError, match=r"rungs\n.*at least 1 item"):
        search_record(rungs=[])


def test_a_search_of_an_earlier_version_can_be_read_without_its_default():
    record = search_record()
    tag, text = record.to_tag()
    assert searches_from_tags({tag: text}, "paper") == [record]
    earlier = {name: value for name, value in json.loads(text).items() if not name.startswith("default")}
    assert searches_from_tags({tag: json.dumps(earlier)}, "paper") == [search_record(default_key="", defaults={})]


def test_a_sweep_has_a_seed():
    with pytest.raises(ValueError, match=r"seeds\n.*at least 1 item"):
        replace(describe(build("tables"), "paper", [1]), seeds=[])


@pytest.mark.parametrize("same", ["name", "cells"])
def test_two_rows_of_a_table_differ_in_name_and_labels(same):
    table = describe(build("tables"), "paper", [1]).tables[0]
    first, second, *others = table.rows
    alike = replace(second, **{same: getattr(first, same)})
    with pytest.raises(ValueError, match=f"rows must have {'names' if same == 'name' else 'label cells'} of their own"):
        replace(table, rows=[first, alike, *others])


def test_only_the_published_data_and_schedule_are_comparable():
    assert build("tables").comparable
    assert not build("tables", quick().config).comparable
    for change in ("schedule.content=99", "generator.width=8", "batch_size=1", "data.noise=0"):
        assert not build("tables", apply_overrides(paper().config, [change])).comparable
    assert build("tables", apply_overrides(paper().config, ["losses.perceptual=0.1"])).comparable
