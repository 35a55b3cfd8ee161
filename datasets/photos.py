"""Image files, decoded."""

import os
from pathlib import Path

from PIL import Image, ImageOps

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


def as_text(path: Path) -> str:
    """A path as text that can be stored anywhere: bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(path).decode(errors="replace")


def decode_photo(path: Path, *, upright: bool) -> Image.Image:
    """An image file of 8 bits per channel as RGB, turned as its EXIF orientation says if `upright`.

    Raises ValueError, whose message is the reason alone, for a file that isn't such an image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"8 bits per channel are needed, this image is of mode {image.mode}")
            return (ImageOps.exif_transpose(image) if upright else image).convert("RGB")
    except Exception as error:  # a decoder fed with a broken file raises almost anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
