"""Names and numbers in the lines that a person reads."""

from collections.abc import Collection
from difflib import get_close_matches


def got(name: str, known: Collection[str]) -> str:
    """The name that was received, and the likeliest that was meant, if any is likely."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"got {name[:80]!r}" + (f" (did you mean {close[0]}?)" if close else "")


def counted(count: int, noun: str) -> str:
    """`1 stage`, `1,000 stages`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
