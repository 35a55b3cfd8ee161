"""Tables against numbers worked out by hand, without a store."""

import dataclasses
import math

import pytest

from analysis.load import StageRun, Sweep
from analysis.tables import PAPER_NOTE, build_tables
from sweeps.record import RowRecord, TableRecord

PSNR = ("CelebA", "psnr")


def run(psnr=None, status="FINISHED", protocol="proto", code="code"):
    metrics = {} if psnr is None else {"test/CelebA/psnr": psnr, "test/CelebA/ssim": 0.5}
    tags = {"whetstone.code_digest": code}
    if protocol:
        tags["whetstone.protocol.CelebA"] = protocol
    return StageRun(run_id="run", status=status, metrics=metrics, tags=tags, tracking_uri="")


def one_row(example, runs, **changes):
    """A sweep of one row over three seeds; `runs` maps a seed to its run."""
    keys = {str(seed): f"key-{seed}" for seed in (1, 2, 3)}
    row = RowRecord(name="row", cells=["Row"], keys=keys, published={"CelebA": {"psnr": 20.5}})
    record = dataclasses.replace(
        example,
        seeds=[1, 2, 3],
        tables=[TableRecord(title="Table 1", caption="One row.", headings=["Model"], rows=[row])],
        **{"comparable": True, **changes},
    )
    return Sweep(record=record, runs={f"key-{seed}": runs.get(seed) for seed in (1, 2, 3)})


def cell(sweep):
    return build_tables(sweep)[0].rows[0].cells[PSNR]


def test_mean_sample_deviation_and_difference_over_seeds(example):
    found = cell(one_row(example, {1: run(20.0), 2: run(21.0), 3: run(25.0)}))
    # Mean 22; squared deviations 4 + 1 + 9 = 14 over n - 1 = 2.
    assert found.mean == pytest.approx(22.0)
    assert found.std == pytest.approx(math.sqrt(7))
    assert (found.n, found.seeds, found.status) == (3, ("1", "2", "3"), "complete")
    assert found.published == 20.5
    assert found.difference == pytest.approx(1.5)


def test_no_difference_where_the_sweep_is_not_comparable(example):
    found = cell(one_row(example, {1: run(20.0), 2: run(21.0), 3: run(25.0)}, comparable=False))
    assert (found.published, found.difference) == (20.5, None)


def test_a_partial_cell_says_so_and_has_no_difference(example):
    found = cell(one_row(example, {1: run(20.0), 3: run(24.0), 2: run(99.0, "FAILED")}))
    assert (found.status, found.n, found.seeds) == ("2/3 seeds, 1 failed", 2, ("1", "3"))
    assert found.mean == pytest.approx(22.0)
    assert found.std == pytest.approx(math.sqrt(8))
    assert found.difference is None


def test_one_finished_seed_has_no_deviation(example):
    found = cell(one_row(example, {2: run(20.0)}))
    assert (found.status, found.mean, found.std) == ("1/3 seeds, 2 missing", 20.0, None)


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ({}, "missing"),
        ({1: run(20.0, "RUNNING")}, "running"),
        ({1: run(20.0, "FAILED")}, "failed"),
        ({1: run(20.0, "KILLED"), 2: run(None, "FAILED")}, "stopped"),
        ({1: run(None, "FAILED"), 2: run(None, "RUNNING")}, "running"),
        ({1: run(None), 2: run(None), 3: run(None)}, "missing"),
        ({1: run(20.0, protocol=None)}, "missing"),
        ({1: run(20.0, protocol="other")}, "stale"),
        ({1: run(20.0, protocol="other"), 2: run(21.0, "FAILED")}, "stale"),
        ({1: run(20.0, protocol="other"), 2: run(21.0, "RUNNING")}, "running"),
        ({1: run(math.nan)}, "not finite"),
        ({1: run(math.inf), 2: run(20.0, "FAILED")}, "not finite"),
    ],
)
def test_a_cell_without_a_number_says_why(example, runs, status):
    found = cell(one_row(example, runs))
    assert (found.status, found.mean, found.std, found.n, found.difference) == (status, None, None, 0, None)


def test_an_untrained_row_counts_once_whatever_the_seeds(example):
    seeds = {"1": "blurred", "2": "blurred"}
    row = RowRecord(name="blurred", cells=["Blurred input"], keys=seeds, published={}, trained=False)
    table = TableRecord(title="Table 1", caption="One row.", headings=["Model"], rows=[row])
    record = dataclasses.replace(example, seeds=[1, 2], tables=[table])
    found = cell(Sweep(record=record, runs={"blurred": run(19.5)}))
    assert (found.status, found.mean, found.std, found.n, found.seeds) == ("complete", 19.5, None, 1, ())


def test_rows_cells_and_notes_keep_the_records_order(example):
    tables = build_tables(Sweep(record=example, runs=dict.fromkeys(all_keys(example))))
    assert [table.title for table in tables] == ["Table 1", "Table 2"]
    assert [row.labels for row in tables[1].rows] == [
        ("Blurred input",),
        ("Content loss",),
        ("+ Perceptual loss",),
        ("+ Adversarial loss",),
    ]
    assert tables[0].rows[3].cells[PSNR].published == 23.04
    assert tables[0].caption == "Quantitative evaluation of the multi-task framework (preset quick)."
    assert example.notes[0] in tables[0].notes


def test_another_protocols_number_is_in_no_mean(example):
    found = cell(one_row(example, {1: run(20.0), 2: run(21.0), 3: run(25.0, protocol="other")}))
    assert (found.status, found.mean, found.n, found.seeds) == ("2/3 seeds, 1 stale", 20.5, 2, ("1", "2"))
    assert found.difference is None


def test_which_protocol_is_stale_is_the_records_choice_not_the_majoritys(example):
    runs = {1: run(20.0), 2: run(21.0), 3: run(25.0, protocol="other")}
    found = cell(one_row(example, runs, fingerprints={"CelebA": "other"}))
    assert (found.status, found.mean, found.seeds) == ("1/3 seeds, 2 stale", 25.0, ("3",))


def test_a_number_that_is_not_finite_is_in_no_mean(example):
    found = cell(one_row(example, {1: run(20.0), 2: run(math.nan), 3: run(math.inf)}))
    assert (found.status, found.mean, found.seeds) == ("1/3 seeds, 2 not finite", 20.0, ("1",))


def test_a_partial_cell_names_every_reason_once(example):
    found = cell(one_row(example, {1: run(20.0), 2: run(None, "FAILED"), 3: run(25.0, protocol="other")}))
    assert found.status == "1/3 seeds, 1 stale, 1 failed"


def test_published_values_of_an_incomparable_sweep_have_a_note(example):
    def notes(**changes):
        return build_tables(one_row(example, {}, **changes))[0].notes

    assert notes(comparable=False).count(PAPER_NOTE) == 1
    assert PAPER_NOTE not in notes(comparable=True)
    # The row's only published value is CelebA's: none is shown.
    assert PAPER_NOTE not in notes(comparable=False, tests=["Own"], fingerprints={"Own": "proto"})


def test_different_code_digests_are_a_footnote(example):
    same = build_tables(one_row(example, {1: run(20.0), 2: run(21.0), 3: run(25.0)}))[0]
    mixed = build_tables(one_row(example, {1: run(20.0), 2: run(21.0), 3: run(25.0, code="newer")}))[0]
    assert mixed.notes[:-1] == same.notes
    assert mixed.notes[-1] == "The rows were computed by different versions of the code (code: Row; newer: Row)."


def test_a_run_continued_with_other_code_is_a_footnote(example):
    runs = {seed: run(20.0, code="code+newer") for seed in (1, 2, 3)}
    note = build_tables(one_row(example, runs))[0].notes[-1]
    assert note == "The rows were computed by different versions of the code (code+newer: Row)."


def all_keys(record):
    return [key for table in record.tables for row in table.rows for key in row.keys.values()]
