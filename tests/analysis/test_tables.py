"""Tables against numbers worked out by hand, without a store."""

import dataclasses
import math

import pytest

from analysis.load import StageRun, Sweep
from analysis.tables import build_tables
from sweeps.record import RowRecord, TableRecord

PSNR = ("CelebA", "psnr")


def run(psnr=None, status="FINISHED", protocol="proto", code="code", run_id="run"):
    metrics = {} if psnr is None else {"test/CelebA/psnr": psnr, "test/CelebA/ssim": 0.5}
    tags = {"whetstone.protocol.CelebA": protocol, "whetstone.code_digest": code}
    return StageRun(run_id=run_id, status=status, metrics=metrics, tags=tags, tracking_uri="")


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
    assert (found.status, found.n, found.seeds) == ("2/3 seeds", 2, ("1", "3"))
    assert found.mean == pytest.approx(22.0)
    assert found.std == pytest.approx(math.sqrt(8))
    assert found.difference is None


def test_one_finished_seed_has_no_deviation(example):
    found = cell(one_row(example, {2: run(20.0)}))
    assert (found.status, found.mean, found.std) == ("1/3 seeds", 20.0, None)


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ({}, "missing"),
        ({1: run(20.0, "RUNNING")}, "running"),
        ({1: run(20.0, "FAILED")}, "failed"),
        ({1: run(20.0, "KILLED"), 2: run(None, "FAILED")}, "stopped"),
        ({1: run(None, "FAILED"), 2: run(None, "RUNNING")}, "running"),
        ({1: run(None), 2: run(None), 3: run(None)}, "missing"),
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


def test_mixed_protocols_in_one_table_are_refused_by_run(example):
    runs = {1: run(20.0, run_id="a"), 2: run(21.0, run_id="b"), 3: run(25.0, protocol="other", run_id="c")}
    rule = r"Table 1 must show CelebA numbers of one protocol, got other: row \(c\); proto: row \(a\), row \(b\)"
    with pytest.raises(ValueError, match=rule):
        build_tables(one_row(example, runs))


def test_the_protocol_of_a_run_that_shows_no_number_does_not_matter(example):
    runs = {1: run(20.0), 2: run(21.0, "FAILED", protocol="other"), 3: run(None, protocol="other")}
    assert cell(one_row(example, runs)).status == "1/3 seeds"


def test_different_code_digests_are_a_footnote(example):
    same = build_tables(one_row(example, {1: run(20.0), 2: run(21.0), 3: run(25.0)}))[0]
    mixed = build_tables(one_row(example, {1: run(20.0), 2: run(21.0), 3: run(25.0, code="newer")}))[0]
    assert mixed.notes[:-1] == same.notes
    assert mixed.notes[-1] == "The rows were computed by different versions of the code (code: Row; newer: Row)."


def all_keys(record):
    return [key for table in record.tables for row in table.rows for key in row.keys.values()]
