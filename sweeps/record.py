"""What a tracking store holds: the names that `sweeps` writes and `analysis` reads.

A store has one experiment per study and one run per stage. What the last sweep of each preset asked for (its tables,
their rows and the stage keys behind each row) is an experiment tag, a `SweepRecord` as JSON, so that a report can show
a row whose run is missing.
"""

import json
import re
from dataclasses import asdict
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from sweeps.overrides import one_line

SCHEMA = "1"

# Run tags.
TAG_SCHEMA = "whetstone.schema"
TAG_STAGE_KEY = "whetstone.stage_key"
TAG_STAGE = "whetstone.stage"
TAG_PARENT_KEY = "whetstone.parent_key"
TAG_ROWS = "whetstone.rows"
TAG_STUDY = "whetstone.study"
TAG_PRESET = "whetstone.preset"
TAG_SEED = "whetstone.seed"
TAG_COMMIT = "whetstone.commit"
TAG_DIRTY = "whetstone.dirty"
TAG_CODE_DIGEST = "whetstone.code_digest"
TAG_DATA_PREFIX = "whetstone.data."
TAG_PROTOCOL_PREFIX = "whetstone.protocol."
TAG_FAILURE = "whetstone.failure"
TAG_PRUNED = "whetstone.pruned"
TAG_DIGEST_PREFIX = "whetstone.digest."
TAG_OWNER = "whetstone.owner"
TAG_HARDWARE = "whetstone.hardware"
TAG_DEVICES = "whetstone.devices"
"""What a stage had to itself, a number and a unit: `2 cores`, `0.5 GPU`."""
TAG_VERSIONS = "whetstone.versions"
"""Versions of Python and of the packages that compute, such as `python 3.11.9, torch 2.15.0`."""

# Labels of a stage, see `label_tag`: a trial's search, its number and values; where a row's values are from.
LABEL_SEARCH = "search"
LABEL_TRIAL = "trial"
LABEL_VALUES = "values"
LABEL_WEIGHTS = "weights"

# Experiment tags. A tag's value is short of 5,000 characters in every store, so a record is cut into chunks.
TAG_LATEST_PRESET = "whetstone.latest_preset"
TAG_SWEEP_PREFIX = "whetstone.sweep."
TAG_SEARCH_PREFIX = "whetstone.search."
CHUNK = 4000

# Metrics of a run beside its losses, its validations and its tests.
TRAINING_SECONDS = "cost/training_seconds"
EVALUATION_SECONDS = "cost/evaluation_seconds"

# Artifacts of a run.
PER_IMAGE_FOLDER = "per_image"
STRIPS_FOLDER = "strips"
HISTORY_FILE = "history.json"
"""The curves of a finished run once more, as a list of [global step, {name: value}]: of many runs, files are read
faster than MLflow is asked."""
DIFF_FILE = "uncommitted.diff"
"""How tracked files of the first dirty checkout that had a part in the run differ from their commit: a patch for
`git apply`, in bytes of no one encoding."""
# Columns of a per-image file beside one column per metric.
COLUMN_IMAGE = "image"
COLUMN_CONDITION = "condition"


def test_metric(test: str, metric: str) -> str:
    """Name of the final metric of one test set, such as `test/CelebA/psnr`."""
    return f"test/{test}/{metric}"


def per_image_file(test: str) -> str:
    """Artifact path of the per-image metrics of one test set."""
    return f"{PER_IMAGE_FOLDER}/{test}.parquet"


def strip_file(test: str, image: int, condition: int) -> str:
    """Artifact path of an image strip (degraded | restored | truth) of one test set; the numbers are those of the
    per-image file."""
    return f"{STRIPS_FOLDER}/{test}/image-{image:04d}-condition-{condition:04d}.png"


def strip_of(path: str) -> tuple[int, int] | None:
    """Image and condition of a path that `strip_file` made; None for any other."""
    found = re.search(r"(?:^|/)image-(\d{4,9})-condition-(\d{4,9})\.png$", path)
    return (int(found[1]), int(found[2])) if found else None


def search_experiment(study: str) -> str:
    """Name of the experiment that holds the trials of a study's searches."""
    return f"{study}-search"


def protocol_tag(test: str) -> str:
    """Run tag with the fingerprint of how one test set's numbers were computed."""
    return TAG_PROTOCOL_PREFIX + test


def label_tag(name: str) -> str:
    """Run tag of a stage's label, such as `whetstone.search`."""
    return f"whetstone.{name}"


def data_tag(name: str) -> str:
    """Run tag with the digest of a set of data; a folder's name may have what MLflow refuses in a tag's."""
    return TAG_DATA_PREFIX + re.sub(r"[^\w .-]", "_", name)[:200]


KNOWN_FIELDS_ONLY = ConfigDict(extra="forbid")
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config=KNOWN_FIELDS_ONLY)
class Metric:
    """A metric shown in tables, the larger the better: its name in the store, its label, decimals and unit ("dB").

    `relevant` is in the metric's unit: a difference whose whole interval is smaller than this is called not relevant.
    """

    name: str
    label: str
    decimals: Annotated[int, Field(ge=0, le=10)]
    unit: str = ""
    relevant: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


@dataclass(frozen=True, kw_only=True, config=KNOWN_FIELDS_ONLY)
class Axis:
    """A column of the per-image files that metrics are drawn against, and its label."""

    column: str
    label: str


@dataclass(frozen=True, kw_only=True, config=KNOWN_FIELDS_ONLY)
class RowRecord:
    """A table line: its label cells, the stage key per seed, and the published numbers.

    `cells` has one text per label column of the table. `keys` maps a seed (as text: JSON) to the key of the row's last
    stage. `published` maps a test set to {metric: value}. An untrained row (the degraded input) has `trained` False and
    the one seed-independent key under every seed. An `optional` row is of another study: shown where the store has it.
    """

    name: str
    cells: list[str]
    keys: dict[str, str]
    published: dict[str, dict[str, float]]
    trained: bool = True
    optional: bool = False


@dataclass(frozen=True, kw_only=True, config=KNOWN_FIELDS_ONLY)
class TableRecord:
    """A table: its title ("Table 1"), caption, label column headings and rows in order, the full model last."""

    title: str
    caption: str
    headings: Annotated[list[str], Field(min_length=1)]
    rows: Annotated[list[RowRecord], Field(min_length=1)]

    @model_validator(mode="after")
    def _rows_fit(self) -> "TableRecord":
        if any(len(row.cells) != len(self.headings) for row in self.rows):
            raise ValueError(f"rows must have a label cell for each of {len(self.headings)} headings")
        if len({row.name for row in self.rows}) < len(self.rows):
            raise ValueError("rows must have names of their own")
        if len({tuple(row.cells) for row in self.rows}) < len(self.rows):
            raise ValueError("rows must have label cells of their own")
        return self


@dataclass(frozen=True, kw_only=True, config=KNOWN_FIELDS_ONLY)
class SweepRecord:
    """What one sweep asked for.

    `fingerprints` maps a test set to its protocol's fingerprint: a run with another one for that test set is stale.
    `comparable` says whether the data and the training are the published ones, so that a difference to a published
    number means something. `notes` are sentences that belong under every table (preset, data), `licences` those of the
    data. `axis` is what metrics are drawn against, `curve` the metric of the learning curves. `zooms` names parts of an
    image worth a closer look: left, top, right and bottom as shares of its size.
    """

    study: str
    preset: str
    seeds: Annotated[list[int], Field(min_length=1)]
    tests: list[str]
    fingerprints: dict[str, str]
    metrics: Annotated[list[Metric], Field(min_length=1)]
    tables: Annotated[list[TableRecord], Field(min_length=1)]
    comparable: bool
    notes: list[str]
    licences: list[str] = Field(default_factory=list)
    axis: Axis | None = None
    curve: str = "validation/psnr"
    zooms: dict[str, tuple[Share, Share, Share, Share]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fingerprint_of_each_test(self) -> "SweepRecord":
        if missing := set(self.tests) - self.fingerprints.keys():
            raise ValueError(f"fingerprints must be of all tests, got none of {min(missing)[:80]!r}")
        return self

    def to_json(self) -> str:
        """The record as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "SweepRecord":
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is not a record of this schema.
        """
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise ValueError(f"the store's sweep record is not of schema {SCHEMA}: {one_line(error)}") from error


def to_tags(record: SweepRecord) -> dict[str, str]:
    """Experiment tags that hold a record: how many chunks there are, and each chunk."""
    text = record.to_json()
    chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    prefix = TAG_SWEEP_PREFIX + record.preset
    tags = {f"{prefix}.{index}": chunk for index, chunk in enumerate(chunks)}
    return {**tags, f"{prefix}.count": str(len(chunks)), TAG_LATEST_PRESET: record.preset}


def from_tags(tags: dict[str, str], preset: str | None = None) -> SweepRecord:
    """The record that `to_tags` wrote, of `preset` or of the latest one.

    Raises:
        ValueError: the tags hold no record of that preset.
    """
    prefix = TAG_SWEEP_PREFIX + (preset or tags.get(TAG_LATEST_PRESET, ""))
    if f"{prefix}.count" not in tags:
        counts = [tag for tag in tags if tag.startswith(TAG_SWEEP_PREFIX) and tag.endswith(".count")]
        known = sorted(tag.removeprefix(TAG_SWEEP_PREFIX).removesuffix(".count") for tag in counts)
        raise ValueError(f"preset must be one that was swept ({', '.join(known) or 'none yet'}), got {preset!r}")
    try:
        text = "".join(tags[f"{prefix}.{index}"] for index in range(int(tags[f"{prefix}.count"])))
    except (KeyError, ValueError) as error:
        raise ValueError(f"the store's sweep record must be whole, and is not: {error}") from error
    return SweepRecord.from_json(text)


@dataclass(frozen=True, kw_only=True, config=KNOWN_FIELDS_ONLY)
class SearchRecord:
    """A search that ended: what it varied, and what came out.

    `metric` is the validation metric that trials are compared by, `first_step` the global step at which they start.
    `importances` maps a field to its share of the variance at the first rung; empty where there are too few trials.
    Trial 0 is the row as it was, whose run carries no trial label: `default_key` is its stage key and `defaults` its
    values; empty in records of earlier versions.
    """

    id: str
    study: str
    preset: str
    row: str
    metric: str
    first_step: int
    rungs: Annotated[list[int], Field(min_length=1)]
    ranges: dict[str, tuple[Finite, Finite]]
    trials: int
    best: dict[str, Finite]
    importances: dict[str, Finite]
    default_key: str = ""
    defaults: dict[str, Finite] = Field(default_factory=dict)

    def to_tag(self) -> tuple[str, str]:
        """Experiment tag that holds the record: its name and value."""
        return TAG_SEARCH_PREFIX + self.id, json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


def searches_from_tags(tags: dict[str, str], preset: str) -> list[SearchRecord]:
    """The searches of a preset that an experiment's tags hold, by row and id.

    Raises:
        ValueError: a tag's value is not such a record.
    """
    found = []
    for tag, text in tags.items():
        if tag.startswith(TAG_SEARCH_PREFIX):
            try:
                found.append(TypeAdapter(SearchRecord).validate_json(text))
            except ValidationError as error:
                raise ValueError(f"the store's search record is not of schema {SCHEMA}: {one_line(error)}") from error
    return sorted((each for each in found if each.preset == preset), key=lambda each: (each.row, each.id))
