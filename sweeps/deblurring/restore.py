"""Load a trained row's network and restore a photo with it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn.functional import pad

from datasets.photos import decode_photo
from model_zoo.generator import Generator
from sweeps.deblurring.config import TrainingStage
from sweeps.deblurring.learner import build_generator
from sweeps.job import CONFIG, WEIGHTS
from sweeps.overrides import one_line


def load_restorer(folder: Path) -> Generator:
    """The network of a final model's folder (weights and config).

    Raises:
        ValueError: the folder's files are not those of a model.
        FileNotFoundError: the folder does not have them.
    """
    try:
        config = TypeAdapter(TrainingStage).validate_json((folder / CONFIG).read_bytes())
        generator = build_generator(config.generator)
        generator.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, ValueError, RuntimeError) as error:  # RuntimeError: of another network
        reason = one_line(error) if isinstance(error, ValidationError) else str(error)
        raise ValueError(f"the row's files must be those of its model, got {folder}: {reason[:300]}") from error
    return generator.eval()


@torch.inference_mode()
def restore_photo(generator: Generator, photo: Image.Image) -> Image.Image:
    """Restore an RGB image of any size.

    The network has seen faces of its training size that fill the frame; a photo is best cropped to the face and
    brought to that size first.
    """
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
    height, width = pixels.shape[-2:]
    multiple = 2 ** (generator.scales - 1)
    padded = pad(pixels, (0, -width % multiple, 0, -height % multiple), mode="replicate")
    restored = generator(padded)[0, :, :height, :width].clamp(0, 1)
    return Image.fromarray((restored * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def open_photo(photo: Path) -> Image.Image:
    """An image file as RGB, turned upright as its EXIF orientation says.

    Raises:
        ValueError: the file is not a readable image of 8 bits per channel.
        FileNotFoundError: there is no such file.
    """
    if not photo.is_file():
        raise FileNotFoundError(f"PHOTO must be an image file, got {photo}, which is none")
    try:
        return decode_photo(photo, upright=True)
    except ValueError as error:
        raise ValueError(f"PHOTO must be a readable image, got {photo}: {error}") from error
