"""Tables against numbers worked out by hand, without a store."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from stores import around, example_record, parquet, stage_run, sweep_of

from analysis.lines import distinct_lines
from analysis.load import read_per_image
from analysis.tables import PAPER_NOTE, build_tables
from sweeps.record import RowRecord, TableRecord

PSNR = ("CelebA", "psnr")
SEEDS = (1, 2, 3)


def row_record(name, published=None, **changes):
    keys = {str(seed): f"{name}-{seed}" for seed in SEEDS}
    return RowRecord(name=name, cells=[name.capitalize()], keys=keys, published=published or {}, **changes)


def sweep(rows, runs, **changes):
    """A sweep of one table over three seeds; `runs` maps a row's name to its run per seed."""
    asked = dataclasses.replace(
        example_record(SEEDS),
        tables=[TableRecord(title="Table 1", caption="Some rows.", headings=["Model"], rows=rows)],
        **{"comparable": True, **changes},
    )
    keys = {key for row in rows for key in row.keys.values()}
    found = {f"{name}-{seed}": run for name, of in runs.items() for seed, run in of.items()}
    return sweep_of(asked, {key: found.get(key) for key in keys})


def one_row(runs, **changes):
    return sweep([row_record("row", {"CelebA": {"psnr": 20.5}})], {"row": runs}, **changes)


def table(found):
    return build_tables(found)[0]


def compared(found, family, metric="psnr"):
    """Comparisons of one metric with the row above or the full model."""
    return [each for each in found.comparisons[family] if each.metric.name == metric]


def cell(found):
    return table(found).rows[0].cells[PSNR]


def states(found):
    return [(problem.seed, problem.state) for problem in found.problems]


def test_mean_sample_deviation_and_difference_over_seeds():
    found = cell(one_row({1: stage_run(20.0), 2: stage_run(21.0), 3: stage_run(25.0)}))
    # Mean 22; squared deviations 4 + 1 + 9 = 14 over n - 1 = 2.
    assert found.mean == pytest.approx(22.0)
    assert found.std == pytest.approx(math.sqrt(7))
    assert (found.n, found.seeds, found.status, found.sound) == (3, ("1", "2", "3"), "complete", True)
    assert found.published == 20.5
    assert found.difference == pytest.approx(1.5)


def test_no_difference_where_the_sweep_is_not_comparable():
    found = cell(one_row({1: stage_run(20.0), 2: stage_run(21.0), 3: stage_run(25.0)}, comparable=False))
    assert (found.published, found.difference) == (20.5, None)


def test_a_partial_cell_says_so_and_has_no_difference():
    failed = stage_run(99.0, "FAILED", run_id="f", failure="ValueError:\n no luck")
    found = cell(one_row({1: stage_run(20.0), 3: stage_run(24.0), 2: failed}))
    assert (found.status, found.n, found.seeds) == ("2/3", 2, ("1", "3"))
    assert found.mean == pytest.approx(22.0)
    assert found.std == pytest.approx(math.sqrt(8))
    assert found.difference is None
    assert [problem.sentence() for problem in found.problems] == ["seed 2 failed: ValueError: no luck (run f)"]


def test_one_finished_seed_has_no_deviation():
    found = cell(one_row({2: stage_run(20.0)}))
    assert (found.status, found.mean, found.std) == ("1/3", 20.0, None)
    assert states(found) == [("1", "missing"), ("3", "missing")]


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ({}, "missing"),
        ({1: stage_run(20.0, "RUNNING")}, "running"),
        ({1: stage_run(20.0, "SCHEDULED")}, "paused"),
        ({1: stage_run(20.0, "FAILED")}, "failed"),
        ({1: stage_run(20.0, "KILLED"), 2: stage_run(None, "FAILED")}, "stopped"),
        ({1: stage_run(20.0, "KILLED", pruned="rung 1")}, "pruned"),
        ({1: stage_run(None, "FAILED"), 2: stage_run(None, "RUNNING")}, "running"),
        ({1: stage_run(None), 2: stage_run(None), 3: stage_run(None)}, "missing"),
        ({1: stage_run(20.0, protocol=None)}, "missing"),
        ({1: stage_run(20.0, protocol="other")}, "stale"),
        ({1: stage_run(20.0, protocol="other"), 2: stage_run(21.0, "FAILED")}, "stale"),
        ({1: stage_run(20.0, protocol="other"), 2: stage_run(21.0, "RUNNING")}, "running"),
        ({1: stage_run(math.nan)}, "not finite"),
        ({1: stage_run(math.inf), 2: stage_run(20.0, "FAILED")}, "not finite"),
    ],
)
def test_a_cell_without_a_number_says_why(runs, status):
    found = cell(one_row(runs))
    assert (found.status, found.mean, found.std, found.n, found.difference) == (status, None, None, 0, None)
    assert (len(found.problems), found.sound, found.best) == (3, False, False)


def test_an_untrained_row_counts_once_whatever_the_seeds():
    row = row_record("blurred", trained=False)
    found = cell(
        sweep([dataclasses.replace(row, keys=dict.fromkeys("123", "blurred-1"))], {"blurred": {1: stage_run(19.5)}})
    )
    assert (found.status, found.mean, found.std, found.n, found.seeds) == ("complete", 19.5, None, 1, ())


def test_an_optional_row_is_shown_where_the_store_has_it():
    rows = [row_record("own"), row_record("other", optional=True)]
    alone = table(sweep(rows, {}))
    assert [row.name for row in alone.rows] == ["own"]
    note = "Not here, as another study trains them and it has not: Other."
    assert note in alone.notes
    found = table(sweep(rows, {"other": {2: stage_run(20.0)}}))
    assert [row.name for row in found.rows] == ["own", "other"]
    assert found.rows[1].cells[PSNR].status == "1/3"
    assert note not in found.notes


def test_rows_cells_and_notes_keep_the_records_order(example):
    keys = [key for each in example.tables for row in each.rows for key in row.keys.values()]
    tables = build_tables(sweep_of(example, dict.fromkeys(keys)))
    assert [each.title for each in tables] == ["Table 1", "Table 2"]
    assert [row.labels for row in tables[1].rows] == [
        ("Blurred input",),
        ("Content loss",),
        ("+ Perceptual loss",),
        ("+ Adversarial loss",),
    ]
    assert tables[0].rows[3].cells[PSNR].published == 23.04
    assert tables[0].caption == "Quantitative evaluation of the multi-task framework (preset quick)."
    assert example.notes[0] in tables[0].notes


def test_another_protocols_number_is_in_no_mean():
    found = cell(one_row({1: stage_run(20.0), 2: stage_run(21.0), 3: stage_run(25.0, protocol="other", run_id="r")}))
    assert (found.status, found.mean, found.n, found.seeds) == ("2/3", 20.5, 2, ("1", "2"))
    assert found.problems[0].sentence() == "seed 3 stale: of protocol other, not proto (run r)"
    assert found.difference is None


def test_which_protocol_is_stale_is_the_records_choice_not_the_majoritys():
    runs = {1: stage_run(20.0), 2: stage_run(21.0), 3: stage_run(25.0, protocol="other")}
    found = cell(one_row(runs, fingerprints={"CelebA": "other"}))
    assert (found.status, found.mean, found.seeds) == ("1/3", 25.0, ("3",))
    assert states(found) == [("1", "stale"), ("2", "stale")]


def test_a_number_that_is_not_finite_is_in_no_mean():
    found = cell(one_row({1: stage_run(20.0), 2: stage_run(math.nan), 3: stage_run(math.inf)}))
    assert (found.status, found.mean, found.seeds) == ("1/3", 20.0, ("1",))
    assert states(found) == [("2", "not finite"), ("3", "not finite")]


def test_published_values_of_an_incomparable_sweep_have_a_note():
    def notes(**changes):
        return table(one_row({}, **changes)).notes

    assert notes(comparable=False).count(PAPER_NOTE) == 1
    assert PAPER_NOTE not in notes(comparable=True)
    # The row's only published value is CelebA's: none is shown.
    assert PAPER_NOTE not in notes(comparable=False, tests=["Own"], fingerprints={"Own": "proto"})


def three_rows(**changed):
    """Rows of about 20, 21 and 22 dB; `changed` replaces the runs of a row."""
    names = {"first": 20.0, "second": 21.0, "third": 22.0}
    runs = {
        name: {seed: stage_run(psnr + 0.01 * seed * index, run_id=f"{name}{seed}") for seed in SEEDS}
        for index, (name, psnr) in enumerate(names.items())
    }
    return sweep([row_record(name) for name in names], {**runs, **changed})


def best(found):
    return [row.name for row in table(found).rows if row.cells[PSNR].best]


def test_the_best_that_is_better_than_every_other_is_best():
    assert best(three_rows()) == ["third"]


def test_a_best_within_the_spread_of_the_seeds_is_not():
    close = {seed: stage_run(21.0 + offset) for seed, offset in zip(SEEDS, (0.3, -0.2, 0.1), strict=True)}
    assert best(three_rows(third=close)) == []


def test_two_seeds_make_no_best():
    found = three_rows()
    found = dataclasses.replace(found, record=dataclasses.replace(found.record, seeds=[1, 2]))
    assert best(found) == []
    verdicts = {each.verdict for some in table(found).comparisons.values() for each in some}
    assert verdicts == {"underpowered"}


@pytest.mark.parametrize("row", ["first", "second", "third"])
@pytest.mark.parametrize(
    ("run", "state", "detail"),
    [
        (None, "missing", ""),
        (stage_run(None, "FAILED", run_id="x", failure="out of memory"), "failed", ": out of memory (run x)"),
        (stage_run(20.0, "KILLED", run_id="x", pruned="third of 3"), "pruned", ": third of 3 (run x)"),
        (stage_run(20.0, "RUNNING", run_id="x"), "running", " (run x)"),
        (stage_run(math.nan, run_id="x"), "not finite", " (run x)"),
        (stage_run(20.0, protocol="old", run_id="x"), "stale", ": of protocol old, not proto (run x)"),
        (stage_run(20.0, code_digest="older", run_id="a"), "stale", ": code older, the newest run's is code (run a)"),
        (
            stage_run(20.0, code_digest="older+code", run_id="a"),
            "doubtful",
            ": code changed while it was computed (older+code) (run a)",
        ),
        (
            stage_run(20.0, run_id="a", **{"data.train faces": "old"}),
            "stale",
            ": data train old, the newest run's is train new (run a)",
        ),
        (
            stage_run(20.0, run_id="a", **{"data.train faces": "new", "data.test CelebA": "t"}),
            "stale",
            ": data test t, train new, the newest run's is train new (run a)",
        ),
    ],
    ids=["missing", "failed", "pruned", "running", "nan", "protocol", "code", "continued", "data", "test data"],
)
def test_a_seed_that_can_not_be_defended_is_named_and_nothing_is_best(row, run, state, detail):
    found = three_rows()
    data = {"data.train faces": "new"} if "train" in detail else {}
    runs = dict(found.runs)
    if data:
        runs = {
            key: each and dataclasses.replace(each, tags={**each.tags, "whetstone.data.train faces": "new"})
            for key, each in runs.items()
        }
    runs[f"{row}-2"] = run
    result = table(dataclasses.replace(found, runs=runs))
    assert result.problems() == [f"Table 1, {row.capitalize()}, CelebA: seed 2 {state}{detail}"]
    assert not any(each.cells[PSNR].best for each in result.rows)
    cells = {each.name: each.cells[PSNR] for each in result.rows}
    assert not cells[row].sound
    for each in (*compared(result, "row above"), *compared(result, "full model")):
        touched = row in (each.row, each.against)
        assert (each.verdict == "not compared") == touched
        assert (each.difference is None) == touched
        if touched:
            assert each.reason == f"{row.capitalize()} is {state}"


def test_a_stale_code_still_shows_its_number():
    old = {seed: stage_run(21.0, run_id="a", code_digest="old") for seed in SEEDS}
    found = table(three_rows(second=old)).rows[1].cells[PSNR]
    assert (found.status, found.mean, found.n) == ("complete", 21.0, 3)
    assert states(found) == [("1", "stale"), ("2", "stale"), ("3", "stale")]


def test_the_newest_run_says_what_is_stale():
    new = {seed: stage_run(22.0, code_digest="new", start_time=5) for seed in SEEDS}
    rows = table(three_rows(third=new)).rows
    assert [row.cells[PSNR].sound for row in rows] == [False, False, True]


def test_the_names_of_data_are_their_users():
    moved = {seed: stage_run(22.0, **{"data.train elsewhere": "same"}) for seed in SEEDS}
    runs = {
        name: {seed: stage_run(20.0, **{"data.train here": "same"}) for seed in SEEDS} for name in ("first", "second")
    }
    assert table(three_rows(third=moved, **runs)).problems() == []


def test_an_untrained_row_does_not_depend_on_training_data():
    rows = [row_record("blurred", trained=False), row_record("row")]
    runs = {
        "blurred": {1: stage_run(19.0, **{"data.train a": "x", "data.test CelebA": "t"})},
        "row": {seed: stage_run(20.0, **{"data.train b": "y", "data.test CelebA": "t"}) for seed in SEEDS},
    }
    assert table(sweep(rows, runs)).problems() == []


def test_a_comparison_is_the_paired_test_of_the_seeds_where_images_agree():
    """All images of a run differ from another's alike, so that only seeds are left to differ."""
    a, b = (21.0, 21.5, 21.1), (20.0, 20.1, 20.2)
    runs = {
        "low": {seed: stage_run(value) for seed, value in zip(SEEDS, b, strict=True)},
        "high": {seed: stage_run(value) for seed, value in zip(SEEDS, a, strict=True)},
    }
    found = table(sweep([row_record("low"), row_record("high")], runs))
    [above] = compared(found, "row above")
    expected = ttest_1samp(np.subtract(a, b), 0.0)
    assert (above.row, above.against) == ("high", "low")
    assert above.difference.mean == pytest.approx(np.subtract(a, b).mean())
    assert above.p == pytest.approx(expected.pvalue, rel=1e-6)  # one comparison: nothing to adjust
    assert (above.difference.low, above.difference.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert above.wins == 1.0
    assert above.verdict == ("better" if expected.pvalue < 0.05 else "underpowered")
    [full] = compared(found, "full model")
    assert (full.row, full.against, full.difference.mean) == ("low", "high", pytest.approx(-above.difference.mean))


def noisy_rows():
    """Four rows whose differences are of all sizes, in steps of a tenth of a dB, around spreads over seeds."""
    offsets = {"a": (0.0, 0.0, 0.0), "b": (0.1, 0.14, 0.12), "c": (0.2, 0.3, 0.16), "d": (0.5, 0.3, 0.44)}
    runs = {
        name: {seed: stage_run(20.0 + each) for seed, each in zip(SEEDS, of, strict=True)}
        for name, of in offsets.items()
    }
    return sweep([row_record(name) for name in offsets], runs), offsets


@pytest.mark.parametrize("family", ["row above", "full model"])
def test_p_values_are_adjusted_over_the_rows_as_statsmodels_would(family):
    """The step-down product by hand: the k-th smallest of n times n - k + 1, never below one before it."""
    found, offsets = noisy_rows()
    pairs = {"row above": ["ba", "cb", "dc"], "full model": ["ad", "bd", "cd"]}[family]
    raw = [ttest_1samp(np.subtract(offsets[a], offsets[b]), 0.0).pvalue for a, b in pairs]
    comparisons = compared(table(found), family)
    assert [each.row + each.against for each in comparisons] == pairs
    expected, largest = {}, 0.0
    for rank, index in enumerate(np.argsort(raw)):
        largest = max(largest, min(1.0, (len(raw) - rank) * raw[index]))
        expected[index] = largest
    assert [each.p for each in comparisons] == pytest.approx([expected[index] for index in range(3)], rel=1e-6)
    assert [each.p for each in comparisons] != pytest.approx(raw, rel=1e-3)


def test_the_best_must_hold_against_all_others_together():
    """Each of three differences alone has p = 0.03; three times that is no claim."""
    level = next(
        step / 1e5 for step in range(1, 10**5) if ttest_1samp([step / 1e5, 0.1, 0.2 - step / 1e5], 0.0).pvalue < 0.03
    )
    values = (level, 0.1, 0.2 - level)
    runs = {name: {seed: stage_run(20.0) for seed in SEEDS} for name in "abc"}
    runs["top"] = {seed: stage_run(20.0 + each) for seed, each in zip(SEEDS, values, strict=True)}
    assert best(sweep([row_record("a"), row_record("top")], {"a": runs["a"], "top": runs["top"]})) == ["top"]
    assert best(sweep([row_record(name) for name in ("a", "b", "c", "top")], runs)) == []


@pytest.mark.parametrize(
    ("offsets", "verdict"),
    [
        ((0.02, 0.025, 0.021), "better"),
        ((0.01, -0.01, 0.0), "no relevant difference"),
        ((0.5, -0.4, 0.1), "underpowered"),
    ],
)
def test_verdicts(offsets, verdict):
    runs = {
        "low": {seed: stage_run(20.0) for seed in SEEDS},
        "high": {seed: stage_run(20.0 + offset) for seed, offset in zip(SEEDS, offsets, strict=True)},
    }
    found = table(sweep([row_record("low"), row_record("high")], runs))
    [above] = compared(found, "row above")
    assert above.verdict == verdict


def changed_chain(found, key, **tags):
    """The same sweep where the run of a key goes on from another."""
    parent = stage_run(10.0, run_id="parent", **{"stage": "content", **tags})
    runs = dict(found.runs)
    runs[key] = dataclasses.replace(runs[key], tags={**runs[key].tags, "whetstone.parent_key": "before"})
    return dataclasses.replace(found, runs={**runs, "before": parent})


def test_the_stages_before_count_too():
    assert table(changed_chain(three_rows(), "second-2")).problems() == []
    old = table(changed_chain(three_rows(), "second-2", code_digest="ancient"))
    assert old.problems() == [
        "Table 1, Second, CelebA: seed 2 stale: code of its stage content ancient, the newest run's is code "
        "(run second2)"
    ]
    assert not any(row.cells[PSNR].best for row in old.rows)


def test_code_that_changed_in_all_runs_alike_is_a_problem_all_the_same():
    runs = {
        name: {seed: stage_run(20.0, code_digest="old+new") for seed in SEEDS} for name in ("first", "second", "third")
    }
    found = table(three_rows(**runs))
    assert len(found.problems()) == 9
    assert all("code changed while it was computed (old+new)" in each for each in found.problems())
    assert {each.verdict for each in compared(found, "row above")} == {"not compared"}


def test_code_that_was_not_recorded_is_a_problem():
    runs = {name: {seed: stage_run(20.0, code_digest="") for seed in SEEDS} for name in ("first", "second", "third")}
    assert all("doubtful: code not recorded" in each for each in table(three_rows(**runs)).problems())


def test_a_number_that_its_images_contradict_is_a_problem():
    found = three_rows()

    def per_image(run, test):
        columns = around({"psnr": 19.0 if run.run_id == "second2" else run.metrics["test/CelebA/psnr"], "ssim": 0.5})
        return read_per_image(parquet(columns), ["psnr", "ssim"], "kernel_size")

    result = table(dataclasses.replace(found, per_image=per_image))
    assert result.problems() == [
        "Table 1, Second, CelebA: seed 2 doubtful: its per-image metrics have another mean, 19 (run second2)"
    ]
    assert best(dataclasses.replace(found, per_image=per_image)) == []


def test_data_named_twice_are_the_same_data():
    twice = {seed: stage_run(20.0, **{"data.train here": "d", "data.train there": "d"}) for seed in SEEDS}
    once = {seed: stage_run(21.0, **{"data.train here": "d"}) for seed in SEEDS}
    assert table(three_rows(first=twice, second=once, third=once)).problems() == []


def test_a_run_that_was_not_evaluated_makes_no_other_stale():
    tested = {"data.test CelebA": "t"}
    runs = {name: {seed: stage_run(20.0, **tested) for seed in SEEDS} for name in ("first", "second", "third")}
    runs["third"][2] = stage_run(None, run_id="new", protocol=None, start_time=9)
    assert table(three_rows(**runs)).problems() == [
        "Table 1, Third, CelebA: seed 2 missing: not evaluated on CelebA (run new)"
    ]


def test_rows_with_one_first_label_are_told_apart():
    rows = [
        RowRecord(
            name=name, cells=["Multi-task", loss], keys={str(seed): f"{name}-{seed}" for seed in SEEDS}, published={}
        )
        for name, loss in (("plain", "Content"), ("more", "+ Adversarial"))
    ]
    asked = dataclasses.replace(
        example_record(SEEDS),
        tables=[TableRecord(title="Table 1", caption="Two.", headings=["Model", "Loss"], rows=rows)],
    )
    runs = {f"{name}-{seed}": stage_run(psnr) for name, psnr in (("plain", 20.0), ("more", 21.0)) for seed in SEEDS}
    found = sweep_of(asked, runs)
    result = table(found)
    assert [result.short(row) for row in result.rows] == ["Multi-task, Content", "Multi-task, + Adversarial"]
    assert [line.label for line in distinct_lines(found, [result])] == [
        "Multi-task, Content",
        "Multi-task, + Adversarial",
    ]


def test_per_image_files_of_other_images_are_an_error_that_names_the_runs():
    found = three_rows()

    def per_image(run, test):
        columns = around({"psnr": 20.0, "ssim": 0.5})
        if run.run_id == "second2":
            columns["image"] = columns["image"] + 1
        return read_per_image(parquet(columns), ["psnr", "ssim"], "kernel_size")

    with pytest.raises(
        ValueError, match="must be of the same images, got different ones on CelebA in runs first1 and second2"
    ):
        build_tables(dataclasses.replace(found, per_image=per_image))


def test_a_run_without_per_image_metrics_is_shown_and_not_compared():
    found = three_rows()

    def per_image(run, test):
        return None if run.run_id == "second2" else found.per_image(run, test)

    result = table(dataclasses.replace(found, per_image=per_image))
    assert result.rows[1].cells[PSNR].mean == pytest.approx(21.02)
    assert result.problems() == ["Table 1, Second, CelebA: seed 2 doubtful: no finite per-image metrics (run second2)"]
    assert not any(row.cells[PSNR].best for row in result.rows)
