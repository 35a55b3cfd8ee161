"""The file that a search leaves and `python -m sweeps.ablation --weights` takes: what was found for each row."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sweeps.overrides import one_line
from sweeps.record import KNOWN_FIELDS_ONLY
from sweeps.stages import Study, Values, tuned


@dataclass(frozen=True, kw_only=True, config=KNOWN_FIELDS_ONLY)
class RowFound:
    """The best setting of a row: its values, the metric there, and how many trials it is the best of."""

    values: Values
    metric: str
    value: float
    trials: int
    search: str
    """The search's digest: the same in the tag `whetstone.search` of its trials' runs."""
    settings: tuple[str, ...] = ()
    """The search's `--set`: what is best with these may not be with others."""


@dataclass(frozen=True, kw_only=True, config=KNOWN_FIELDS_ONLY)
class Found:
    """What searches found for the rows of a study."""

    preset: str
    seed: int
    rows: dict[str, RowFound]

    @classmethod
    def read(cls, path: Path, preset: str) -> "Found":
        """Read what `write` wrote.

        Raises:
            ValueError: no such file, one of another kind, or one of another preset.
        """
        rule = f"--weights must be a file of `python -m sweeps.search`, got {path}"
        try:
            found = TypeAdapter(cls).validate_json(path.read_bytes())
        except OSError as error:
            raise ValueError(f"{rule}: {error.strerror}") from None
        except ValidationError as error:
            raise ValueError(f"{rule}: {one_line(error)}") from None
        if found.preset != preset:
            raise ValueError(f"--weights must be of preset {preset!r}, got one of preset {found.preset!r}: {path}")
        return found

    def require_unset(self, assignments: Iterable[str]) -> None:
        """Refuse `--set` of a field that some rows have from here: they would have this value, the others that one.

        Raises:
            ValueError: naming the fields.
        """
        tuned = {field for row in self.rows.values() for field in row.values}
        if both := sorted(tuned & {assignment.partition("=")[0] for assignment in assignments}):
            raise ValueError(f"--set must name a field that --weights does not give, got {', '.join(both)}")

    def write(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TypeAdapter(type(self)).dump_json(self, indent=2))

    def apply(self, study: Study) -> Study:
        """The study trained with these values, saying so in its notes.

        Raises:
            ValueError: a row that the study does not have.
        """
        if not self.rows:
            return study
        study = tuned(study, {name: row.values for name, row in self.rows.items()}, self._label())
        return replace(study, notes=(*study.notes, self._note()))

    def with_row(self, row: str, found: RowFound) -> "Found":
        """The same, with what was found for a further row."""
        return replace(self, rows={**self.rows, row: found})

    def without(self, rows: Collection[str]) -> "Found":
        """The same, but for some rows."""
        return replace(self, rows={name: row for name, row in self.rows.items() if name not in rows})

    def _label(self) -> str:
        searches = ", ".join(f"{name}: search {row.search}" for name, row in self.rows.items())
        return f"tuned on seed {self.seed} ({searches})"

    def _note(self) -> str:
        rows = "; ".join(
            f"{name}: {', '.join(f'{field} = {value:.3g}' for field, value in row.values.items())} "
            f"(best {row.metric} of {row.trials} trials, search {row.search}{_with(row.settings)})"
            for name, row in self.rows.items()
        )
        return f"Loss weights tuned on validation data of seed {self.seed}: {rows}."


def _with(settings: tuple[str, ...]) -> str:
    return f", which had {', '.join(settings)}" if settings else ""
