"""Sharing prefixes changes nothing: the tree against every row trained from scratch."""

from mlflow import MlflowClient
from tiny import Silent

from sweeps import record
from sweeps.engine import InProcessEngine
from sweeps.provenance import Provenance
from sweeps.stages import flat
from sweeps.sweep import LongestChainFirst, Sweep
from sweeps.tracking import MLflowTracker


def run(study, folder, settings):
    """Train a study; the steps it took and the digests of each row's last stage."""
    tracker = MLflowTracker(
        uri=f"sqlite:///{folder / 'mlflow.db'}",
        artifacts=folder / "artifacts",
        experiment=study.name,
        provenance=Provenance(
            study=study.name,
            preset="tiny",
            data={},
            fingerprints={test.name: test.fingerprint for test in study.tests},
            owner="here",
            hardware="",
            commit="",
            dirty=False,
            code="code",
        ),
        downloads=folder / "downloads",
    )
    stages = study.stages()
    sweep = Sweep(
        stages=stages,
        tests=study.tests,
        tracker=tracker,
        view=Silent(),
        folder=folder / "stages",
        schedule=LongestChainFirst(stages),
        rows={},
    )
    InProcessEngine(settings).run(sweep)
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name(study.name).experiment_id])
    tags = {each.data.tags[record.TAG_STAGE_KEY]: each.data.tags for each in runs}
    digests = {
        (row.name, last.seed): {
            name: value for name, value in tags[last.key].items() if name.startswith(record.TAG_DIGEST_PREFIX)
        }
        for row in study.rows
        for last in row.stages
    }
    return sweep.executed, digests, runs


def test_the_tree_and_rows_from_scratch_end_with_the_same_bits(tiny_study, settings, tmp_path):
    steps, tree, runs = run(tiny_study, tmp_path / "tree", settings)
    # content 4, + perceptual 2, + adversarial 2, and two more content stages.
    assert steps == tiny_study.tree_steps() == 3 * 4 + 2 + 2
    assert len(runs) == 6
    separate = flat(tiny_study)
    steps, scratch, runs = run(separate, tmp_path / "flat", settings)
    assert steps == separate.tree_steps() == 3 * 4 + (4 + 2) + (4 + 2 + 2)
    assert len(runs) == 1 + 3 + 2 + 3
    assert tree == scratch
    assert set(tree["loss-adversarial", 1]) == {
        record.TAG_DIGEST_PREFIX + name
        for name in (
            "generator",
            "optimiser",
            "draws",
            "discriminator",
            "discriminator_optimiser",
            "per_image.Made up",
        )
    }
    trained = [digests[record.TAG_DIGEST_PREFIX + "generator"] for row, digests in tree.items() if row[0] != "blurred"]
    assert len(set(trained)) == 5
