import numpy as np
import pytest
from PIL import Image

from sweeps.deblur import main
from sweeps.deblurring.restore import open_photo

ORIENTATION = 0x0112


def halves():
    """A 48x32 picture (width x height): red on the left, blue on the right."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :24, 0] = pixels[:, 24:, 2] = 255
    return Image.fromarray(pixels)


def test_a_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored so that a viewer has to turn it clockwise by 90 degrees
    halves().save(tmp_path / "phone.jpg", quality=95, exif=exif)
    photo = np.asarray(open_photo(tmp_path / "phone.jpg")).astype(int)
    assert photo.shape == (48, 32, 3)
    np.testing.assert_allclose(photo[4, 16], (255, 0, 0), atol=8)  # left has become top
    np.testing.assert_allclose(photo[-4, 16], (0, 0, 255), atol=8)


def test_grey_and_transparent_photos_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P"):
        halves().convert(mode).save(tmp_path / f"{mode}.png")
        assert open_photo(tmp_path / f"{mode}.png").mode == "RGB"


def test_a_photo_that_cannot_be_read_is_one_line(tmp_path):
    halves().save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "text.png").write_text("hello")
    halves().save(tmp_path / "exif.png", exif=b"Exif\0\0neither big nor little")
    Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(tmp_path / "deep.png")
    reasons = {"truncated.jpg": "[Tt]runcated", "text.png": "identify", "exif.png": "TIFF", "deep.png": "8 bits"}
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=rf"PHOTO must be a readable image, got .*{name}: .*{reason}") as error:
            open_photo(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_missing_photo(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got .*nowhere\.png, which is none"):
        open_photo(tmp_path / "nowhere.png")


def test_a_photo_is_not_written_over(tmp_path):
    halves().save(tmp_path / "photo.png")
    (tmp_path / "link.png").symlink_to("photo.png")
    before = (tmp_path / "photo.png").read_bytes()
    for name in ("photo.png", "link.png"):
        arguments = [str(tmp_path / "photo.png"), "--out", str(tmp_path / name), "--runs", str(tmp_path)]
        with pytest.raises(ValueError, match=rf"--out must be another file than PHOTO, got .*{name}"):
            main(arguments, standalone_mode=False)
    assert (tmp_path / "photo.png").read_bytes() == before
