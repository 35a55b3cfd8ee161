"""Galleries against slices of the strips they come from, and strips that a stranger wrote."""

import csv
import hashlib
import io
import itertools
import os
import random
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from analysis.gallery import Shown, build_gallery

HEIGHT, WIDTH = 12, 10
EYES = (0.2, 0.25, 0.7, 0.5)  # columns 2 to 7 of 10, lines 3 to 6 of 12
ZOOMS = {"eyes": EYES, "dot": (1.0, 1.0, 1.0, 1.0)}


def pixels(seed, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def strip(image=0, row=1, **size):
    """Degraded | restored | truth: the first and last are the image's, the middle one is the row's."""
    parts = [pixels((image, part), **size) for part in (0, row + 1, 1)]
    return np.concatenate(parts, axis=1)


def png(array, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", **options)
    return file.getvalue()


def shown(label="Row", row=1, pairs=((0, 0),), **changes):
    strips = {pair: png(strip(pair[0], row)) for pair in pairs}
    return Shown(**{"label": label, "strips": strips, "quality": dict.fromkeys(pairs, 20 + row / 3)} | changes)


def gallery(*rows, **changes):
    settings = {
        "name": "examples",
        "title": "A title",
        "caption": "A caption.",
        "zooms": ZOOMS,
        "degraded": {},
        "metric_label": "PSNR",
        "unit": "dB",
        "decimals": 2,
    }
    return build_gallery(rows=rows, **settings | changes)


def opened(file):
    image = Image.open(io.BytesIO(file))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


def test_tiles_and_zooms_are_the_strips_pixels():
    found = gallery(shown("A", 1), shown("B", 2), degraded_label="Blurred")
    (example,) = found.examples
    expected = [strip()[:, 20:], strip()[:, :10], strip(row=1)[:, 10:20], strip(row=2)[:, 10:20]]
    assert [tile.label for tile in example.tiles] == ["Truth", "Blurred", "A", "B"]
    for tile, part in zip(example.tiles, expected, strict=True):
        assert np.array_equal(opened(tile.png), part)
        eyes, dot = map(opened, tile.zooms)
        assert np.array_equal(eyes, part[3:6, 2:7])
        assert np.array_equal(dot, part[11:, 9:])  # a part without extent still is a pixel
    assert (found.zooms, found.title, found.caption) == (("eyes", "dot"), "A title", "A caption.")
    assert example.title == "Image 0, condition 0"


@pytest.mark.parametrize("seed", range(20))
def test_any_part_is_within_the_image_and_has_a_pixel(seed):
    draw = random.Random(seed)
    part = tuple(draw.choice([0.0, 1.0, draw.random()]) for _ in range(4))
    (example,) = gallery(shown(), zooms={"part": part}).examples
    height, width, _ = opened(example.tiles[0].zooms[0]).shape
    assert 1 <= height <= HEIGHT
    assert 1 <= width <= WIDTH


def test_quality_is_that_of_the_image_under_its_condition():
    pairs = ((3, 1), (3, 0))
    row = shown(pairs=pairs, quality={(3, 0): 20.126, (3, 1): 21.0, (9, 9): 1.0})
    found = gallery(row, shown("B", 2, pairs, quality={}), degraded={(3, 1): 1 / 3})
    assert [example.title for example in found.examples] == ["Image 3, condition 0", "Image 3, condition 1"]
    qualities = [[tile.quality for tile in example.tiles] for example in found.examples]
    assert qualities == [["", "", "20.13 dB", ""], ["", "0.33 dB", "21.00 dB", ""]]
    assert list(csv.reader(io.StringIO(found.csv))) == [
        ["image", "condition", "row", "psnr"],
        ["3", "0", "Row", "20.126"],
        ["3", "1", "Degraded", "0.3333333333"],
        ["3", "1", "Row", "21"],
    ]
    without_unit = gallery(row, unit="", decimals=3)
    assert without_unit.examples[0].tiles[2].quality == "20.126"


def test_images_are_those_that_all_rows_with_any_have():
    first, second = shown("A", 1, [(4, 0), (0, 1), (2, 0)]), shown("B", 2, [(2, 0), (4, 0), (5, 0)])
    found = gallery(first, second, shown("nothing", 3, ()))
    assert [example.title for example in found.examples] == ["Image 2, condition 0", "Image 4, condition 0"]
    assert [tile.label for tile in found.examples[0].tiles] == ["Truth", "Degraded", "A", "B"]
    assert gallery(first, shown("B", 2, [(5, 0)])) is None
    assert gallery() is None
    assert gallery(shown("nothing", 1, ())) is None


@pytest.mark.parametrize(("columns", "seed"), [((0, 10), 8), ((20, 30), 9)])
def test_rows_of_another_protocol_are_named(columns, seed):
    other = strip(row=2).copy()
    other[:, slice(*columns)] = pixels(seed)
    odd = shown("Odd one", strips={(0, 0): png(other)})
    with pytest.raises(ValueError, match=r"image 0, condition 0 in 'Odd one' than in 'A'"):
        gallery(shown("A"), shown("B", 2), odd)
    with pytest.raises(ValueError, match="'Odd one'"):
        gallery(shown("A"), shown("B", strips={(0, 0): png(strip(height=13))}), odd)
    gallery(odd)


def test_rounding_of_another_device_is_no_other_protocol():
    base = strip().clip(2, 253)
    for shifts in ((0, 1), (1, 0)):
        gallery(*(shown(str(shift), strips={(0, 0): png((base + shift).astype(np.uint8))}) for shift in shifts))
    with pytest.raises(ValueError, match="same"):
        gallery(*(shown(str(shift), strips={(0, 0): png((base - shift).astype(np.uint8))}) for shift in (0, 3)))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """A PNG that says it is large, of a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def as_jpeg():
    file = io.BytesIO()
    Image.fromarray(strip()).save(file, "JPEG")
    return file.getvalue()


def text_bomb():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 3_000_000, zip=True)
    return png(strip(), pnginfo=info)


BAD = {
    "empty": b"",
    "text": b"not an image",
    "another format": as_jpeg(),
    "cut off": png(strip())[:-40],
    "damaged": png(strip())[:60] + b"\0\0\0\0" + png(strip())[64:],
    "not three images": png(strip()[:, 1:]),
    "no pixel": bomb(0, 0),
    "too large": png(np.zeros((4100, 4098), np.uint8)),
    "far too large": bomb(30_000, 30_000),
    "a bomb": bomb(2**31 - 1, 2**31 - 1),
    "16 bits": png(strip()[..., 0].astype(np.uint16) * 257),
    "text that unpacks to megabytes": text_bomb(),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_strip_that_is_not_one_is_missing(bad):
    good = shown("A", 1, [(0, 0), (1, 0)])
    assert gallery(shown(strips={(0, 0): bad})) is None
    found = gallery(good, shown("B", 2, strips={(0, 0): bad, (1, 0): png(strip(1, 2))}))
    assert [example.title for example in found.examples] == ["Image 1, condition 0"]


def test_a_strip_of_noise_is_missing_or_shown_but_never_a_crash():
    draw, whole = random.Random(0), png(strip())
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        found = gallery(shown(strips={(0, 0): bytes(damaged[: draw.choice([len(whole), draw.randrange(len(whole))])])}))
        assert found is None or len(found.examples) == 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_other_modes_become_rgb(mode):
    image = Image.fromarray(strip()).convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    (example,) = gallery(shown(strips={(0, 0): file.getvalue()})).examples
    assert np.array_equal(opened(example.tiles[0].png), np.asarray(image.convert("RGB"))[:, 20:])


def test_what_a_file_says_besides_its_pixels_is_dropped():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "who made this")
    (example,) = gallery(shown(strips={(0, 0): png(strip(), pnginfo=info, icc_profile=b"profile")})).examples
    assert example.tiles == gallery(shown()).examples[0].tiles
    assert set(re.findall(rb"IHDR|IDAT|IEND|tEXt|iCCP", example.tiles[0].png)) == {b"IHDR", b"IDAT", b"IEND"}


def images(pdf):
    """Size of each image in a PDF file that is not a mask."""
    objects = re.findall(rb"<< [^\n]*/Subtype /Image[^\n]*", pdf)
    return sorted(
        (int(re.search(rb"/Width (\d+)", each)[1]), int(re.search(rb"/Height (\d+)", each)[1])) for each in objects
    )


def test_the_figure_has_the_original_pixels_of_six_examples():
    pairs = [(index, 0) for index in range(8)]
    found = gallery(shown("A", 1, pairs), shown("B", 2, pairs), zooms={"eyes": EYES})
    assert len(found.examples) == 8
    assert images(found.pdf) == sorted(6 * 4 * [(WIDTH, HEIGHT), (5, 3)])


def test_large_images_are_reduced_in_the_figure_only():
    row = shown(strips={(0, 0): png(strip(height=500, width=1000))})
    found = gallery(row, zooms={})
    assert opened(found.examples[0].tiles[0].png).shape == (500, 1000, 3)
    assert images(found.pdf) == 3 * [(400, 200)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 700), (900, 1)])
def test_images_of_any_shape_have_a_figure(height, width):
    found = gallery(shown(strips={(0, 0): png(strip(height=height, width=width))}))
    box = list(map(float, re.search(rb"/MediaBox \[ (\S+) (\S+) (\S+) (\S+) \]", found.pdf).groups()))
    assert box[2] / 72 < 5
    assert box[3] / 72 < 6


def pdf_text(pdf):
    """All text of a PDF file, without spaces; its font's codes are two bytes of UTF-16."""
    streams = re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL)
    (page,) = [content for content in map(unpacked, streams) if b"\nBT\n" in content]
    blocks = b"".join(re.findall(rb"\nBT\n(.*?)\nET\n", page, re.DOTALL))
    text = b"".join(re.findall(rb"\(((?:[^\\)]|\\.)*)\)", blocks, re.DOTALL))
    return re.sub(rb"\\(.)", rb"\1", text).decode("utf-16-be").replace(" ", "")


def unpacked(stream):
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_the_figure_says_what_it_shows():
    title = "Preset quick: not the paper's numbers"
    rows = (shown("Content loss, as long as + Adversarial", 1, [(7, 3), (8, 4)]), shown("$B$", 2, [(7, 3), (8, 4)]))
    text = pdf_text(gallery(*rows, title=title, degraded={(7, 3): 19.5}).pdf)
    for part in (title.replace(" ", ""), "aslongas+", "$B$", "Truth", "Degraded"):
        assert text.count(part) == 1
    assert text.count("20.33dB") == text.count("20.67dB") == text.count("PSNR") == 2
    assert text.count("19.50dB") == 1
    assert "image7" in text
    assert "condition4" in text


def digest():
    found = gallery(shown("A", 1, [(0, 0), (1, 1)]), shown("B", 2, [(1, 1), (0, 0)]))
    files = [found.pdf, found.csv.encode()]
    files += itertools.chain.from_iterable((tile.png, *tile.zooms) for each in found.examples for tile in each.tiles)
    return hashlib.sha256(b"".join(files)).hexdigest()


def test_the_bytes_are_the_same_in_another_process(tmp_path):
    hostile = tmp_path / "matplotlibrc"
    hostile.write_text("image.interpolation: bicubic\nimage.origin: lower\nfont.size: 30\nfigure.facecolor: red\n")
    environment = os.environ | {
        "MATPLOTLIBRC": str(hostile),
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SOURCE_DATE_EPOCH": "86400",
        "TZ": "Pacific/Kiritimati",
    }
    script = f"import runpy; print(runpy.run_path({__file__!r})['digest']())"
    command = [sys.executable, "-c", script]
    assert (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == digest()
    )
