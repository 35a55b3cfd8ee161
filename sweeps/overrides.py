"""`--set FIELD=VALUE`: a typed config with one field changed, or one clear line why not."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sweeps.naming import got

C = TypeVar("C")


def apply_overrides(config: C, assignments: Sequence[str]) -> C:
    """A copy of `config` (nested dataclasses) with `path.to.field=value` assignments applied, in order.

    Values are read as JSON where they are JSON (`true`, `1e-4`, `[7, 9]`), else as text.

    Raises:
        ValueError: one line with the rule, what was received and what would be accepted.
    """
    values = asdict(config)  # type: ignore[call-overload]
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set must be FIELD=VALUE, as generator.width=32, got {assignment[:80]!r}")
        known = field_names(config)
        if path not in known:
            raise ValueError(f"--set must name a field, {got(path, known)}; there are {', '.join(known)}")
        *parents, leaf = path.split(".")
        target = values
        for parent in parents:
            target = target[parent]
        target[leaf] = _read(text)
    try:
        return TypeAdapter(type(config)).validate_python(values)
    except ValidationError as error:
        raise ValueError(one_line(error)) from None


def field_names(config: Any, prefix: str = "") -> list[str]:
    """Dotted names of all leaf fields."""
    names: list[str] = []
    for field in fields(config):
        value = getattr(config, field.name)
        names += field_names(value, f"{prefix}{field.name}.") if is_dataclass(value) else [prefix + field.name]
    return names


def one_line(error: ValidationError) -> str:
    """The first thing wrong: field, rule, and the value received."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    rule = first["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    rule = rule.replace("a valid tuple", "a list, as [7,9]")
    value = "" if "got" in rule or first["type"] == "json_invalid" else f", got {first['input']!r:.80}"
    return f"{where} {rule}{value}"


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, or a number or a nesting beyond all bounds
        return text
