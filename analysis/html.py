"""A report as one page that needs nothing else: no network, no other file, and to be read not even its own script."""

import json
import re
import struct
from base64 import b64encode
from collections.abc import Iterable

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.document import Document, Note

PIXELS_SHOW = 192
"""Images up to this width are drawn with sharp pixels; to smooth them would blur what a report on sharpness shows."""
FORBIDDEN = [
    *(code for code in range(0x20) if chr(code) not in "\t\n\r"),
    *range(0x7F, 0xA0),
    *range(0xD800, 0xE000),
    *range(0xFDD0, 0xFDF0),
    *(plane + low for plane in range(0, 0x110000, 0x10000) for low in (0xFFFE, 0xFFFF)),
]
REPLACED = dict.fromkeys(FORBIDDEN, "\N{REPLACEMENT CHARACTER}")
"""Control characters, surrogates and the like may not stand in HTML, not even escaped."""


def render_html(document: Document) -> str:
    """The page: the same document gives the same text."""
    return _environment().get_template("page.html.j2").render(document=document)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=lambda value: value.translate(REPLACED) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(anchors=_anchors, data_uri=_data_uri, size=_size)
    environment.filters["number"] = json.dumps  # as JavaScript reads them, infinities too
    # Another address could make the browser do something, `javascript:` for one.
    environment.tests["address"] = lambda link: re.match("(https?|file)://", link) is not None
    environment.globals["pixels_show"] = PIXELS_SHOW
    return environment


def _anchors(notes: Iterable[Note], place: str) -> dict[str, str]:
    """Where the note of each mark is."""
    return {note.mark: f"{place}-note-{number}" for number, note in enumerate(notes, 1) if note.mark}


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _size(png: bytes) -> tuple[int, int]:
    """Width and height, from the header: with them the page does not jump while it loads."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
