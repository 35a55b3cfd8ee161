"""What a person reads in the store's own pages, in Markdown: of experiments, runs and registered models."""

from collections.abc import Sequence

from sweeps import record
from sweeps.job import CONFIG, WEIGHTS
from sweeps.provenance import Provenance
from sweeps.stages import Stage

EXPERIMENT = (
    f"A run for each stage of a study, or for each trial of its searches. Its tag `{record.TAG_ROWS}` names the rows "
    "of the tables that are read from it; `analysis report` makes the tables."
)
BEST = "best"
"""Alias of the version of a row's model that is the best of the latest sweep."""


def best_of(preset: str) -> str:
    """Alias of the version that is the best of a preset's latest sweep."""
    return f"{BEST}-{preset}"


def of_run(stage: Stage, rows: Sequence[str], provenance: Provenance) -> str:
    """What the stage does, what it is part of, on which data, and how to get at its model."""
    points = [
        f"{_rows(rows)} `{provenance.study}`, preset `{provenance.preset}`",
        _loading(rows[0]) if is_registered(stage) and rows else "",
        f"Data: {', '.join(provenance.data)}" if provenance.data else "",
        *provenance.licences,
    ]
    return f"**{stage.title}**: {_task(stage)}\n\n" + "\n".join(f"- {point}" for point in points if point)


def of_model(row: str, metric: str) -> str:
    """What the versions of a row's registered model are, and which of them the aliases are for."""
    return (
        f"Row `{row}`: a version for each of its runs, with `{WEIGHTS}` and `{CONFIG}`.\n\n"
        f"- `{BEST}`: of the latest sweep, the seed with the largest `{metric}`; `{best_of('PRESET')}`: of the latest "
        "sweep of that preset. No test image had a say.\n"
        f"- {_loading(row)}"
    )


def of_version(stage: Stage, provenance: Provenance) -> str:
    """Which training a version comes from, and the terms of its data; tables show it as it stands, so without marks."""
    return "\n\n".join([f"{stage.title}: {_task(stage)}", *provenance.licences])


def is_registered(stage: Stage) -> bool:
    """Whether the model of a row's last stage is worth a name: not where nothing is trained, nor a second time."""
    return bool(stage.steps) and not stage.copy


def _task(stage: Stage) -> str:
    if not stage.steps:
        return "nothing is trained, only evaluated."
    start = f"on from {stage.parent.title}" if stage.parent else "from fresh weights"
    return f"steps {stage.first_step + 1:,} to {stage.last_step:,}, {start}."


def _loading(row: str) -> str:
    call = f'mlflow.artifacts.download_artifacts("models:/{row}@{BEST}")'
    return f"Files of the row's best model, where MLFLOW_TRACKING_URI is this store: `{call}`"


def _rows(rows: Sequence[str]) -> str:
    listed = ", ".join(f"`{row}`" for row in rows)
    return f"{'Row' if len(rows) == 1 else 'Rows'} {listed} of study" if rows else "Study"
