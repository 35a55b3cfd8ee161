"""Where a report's numbers come from: what its runs say of code, data, hardware and versions, with links."""

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

from analysis.document import Column, Fact, Grid, Text
from analysis.lines import Line
from analysis.load import FINISHED, StageRun, Sweep
from sweeps import record

LOCAL_UI = "http://127.0.0.1:5000"
"""Where `make ui` shows a local store."""


def facts(sweep: Sweep, runs: Sequence[StageRun]) -> list[Fact]:
    """What the sweep asked for, and what its finished runs were made of: distinct values, some with links."""
    asked, finished = sweep.record, [run for run in runs if run.status == FINISHED]
    tests = {record.data_tag(f"test {test}") for test in asked.tests}  # runs know earlier sweeps' too
    data = sorted(
        {
            tag
            for run in finished
            for tag in run.tags
            if tag in tests or (tag.startswith(record.TAG_DATA_PREFIX) and not tag.startswith(record.data_tag("test ")))
        }
    )

    def tag(name: str) -> Callable[[StageRun], str]:
        return lambda run: run.tags.get(name, "")

    return [
        _plain("Study", asked.study),
        _plain("Preset", asked.preset),
        _plain("Seeds", ", ".join(map(str, asked.seeds))),
        *(_plain(f"Protocol of {test}", asked.fingerprints[test]) for test in asked.tests),
        _distinct("Commit", finished, _commit),
        _changes([run for run in finished if _dirty(run)]),
        _distinct("Code digest", finished, tag(record.TAG_CODE_DIGEST)),
        *(_distinct(f"Data: {name.removeprefix(record.TAG_DATA_PREFIX)}", finished, tag(name)) for name in data),
        Fact(name="Licences", values=tuple((licence, "") for licence in asked.licences) or (("none stated", ""),)),
        _distinct("Hardware", finished, tag(record.TAG_HARDWARE)),
        _distinct("Devices of a stage", finished, tag(record.TAG_DEVICES)),
        _distinct("Versions", finished, tag(record.TAG_VERSIONS)),
    ]


def runs_grid(sweep: Sweep, lines: Sequence[Line]) -> Grid:
    """Every run behind the tables, with a link to its page in MLflow."""
    rows = [
        (
            Text(text=line.label),
            Text(text=seed or "–"),
            Text(
                text=run.status.lower() if run else "missing", tone="" if run and run.status == FINISHED else "warning"
            ),
            Text(text=run.run_id if run else "–", link=run_link(run) if run else ""),
        )
        for line in lines
        for seed, run in sweep.row_runs(line.row).items()
    ]
    return Grid(
        name="runs",
        title="Runs",
        caption="The MLflow run behind each row and seed; the links need MLflow's page (`make ui` for a local store).",
        columns=tuple(Column(heading=heading, numeric=False) for heading in ("Row", "Seed", "Status", "Run")),
        labels=2,
        rows=tuple(rows),
    )


def run_link(run: StageRun) -> str:
    """Address of a run's page in MLflow."""
    server = run.tracking_uri.rstrip("/") if run.tracking_uri.startswith("http") else LOCAL_UI
    return f"{_without_credentials(server)}/#/experiments/{quote(run.experiment_id)}/runs/{quote(run.run_id)}"


def _without_credentials(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _dirty(run: StageRun) -> bool:
    return run.tags.get(record.TAG_DIRTY) == "true"


def _commit(run: StageRun) -> str:
    commit = run.tags.get(record.TAG_COMMIT, "")
    return f"{commit} (modified)" if commit and _dirty(run) else commit


def _changes(dirty: Sequence[StageRun]) -> Fact:
    """Each distinct difference to a commit, with a link to it in one of its runs."""
    found: dict[bytes | None, tuple[str, str]] = {}
    for run in sorted(dirty, key=lambda each: each.run_id):
        name, diff = f"{record.DIFF_FILE} of run {run.run_id}", run.file(record.DIFF_FILE)
        link = f"{run_link(run)}/artifacts/{record.DIFF_FILE}"
        found.setdefault(diff, (name, link) if diff is not None else ("not recorded, as of untracked files", ""))
    return Fact(name="Uncommitted changes", values=tuple(found.values()) or (("none", ""),))


def _plain(name: str, value: str) -> Fact:
    return Fact(name=name, values=((value, ""),))


def _distinct(
    name: str,
    runs: Iterable[StageRun],
    value: Callable[[StageRun], str],
) -> Fact:
    found = sorted({value(run) for run in runs} - {""})
    return Fact(name=name, values=tuple((each, "") for each in found) or (("not recorded", ""),))
