"""From an image file to a network's input, by contract."""

from pathlib import Path

import numpy as np

from edgecnn.contract import Contract
from edgecnn.errors import InputFileError, NotThereError
from edgecnn.extras import require
from edgecnn.graph import Array

MODES = {"RGB": "RGB", "BGR": "RGB", "GRAY": "L"}
"""Colour order -> Pillow mode to decode to."""

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


def read_image(path: Path, contract: Contract) -> Array:
    """Return one image as the network's input.

    Args:
        path: Any picture that Pillow reads; the orientation that a camera noted (EXIF) is applied.
        contract: How to crop, resize and scale it.

    Returns:
        (height, width, channels) float32, in channels-last order whatever the artifact's layout is.

    Raises:
        NotThereError: When the file is not there.
        InputFileError: When it is no picture, is cut short, or is unreasonably large.
    """
    image_module = require("PIL.Image", purpose="reading images")
    if not path.is_file():
        raise NotThereError(f"{path}: an image was wanted; there is no such file.")
    try:
        with image_module.open(path) as opened:
            upright = require("PIL.ImageOps", purpose="reading images").exif_transpose(opened)
            return _fit(image_module, upright.convert(MODES[contract.colour_order]), contract)
    except (OSError, ValueError, SyntaxError, image_module.DecompressionBombError) as error:
        raise InputFileError(f"{path}: an image was wanted; Pillow cannot read it: {error}") from None


def from_pixels(pixels: Array, contract: Contract) -> Array:
    """Return pixels (height, width[, channels]) uint8 as the network's input, like `read_image`."""
    image_module = require("PIL.Image", purpose="resizing images")
    return _fit(image_module, image_module.fromarray(pixels).convert(MODES[contract.colour_order]), contract)


def _fit(image_module, image, contract: Contract) -> Array:  # type: ignore[no-untyped-def]
    box = crop_box(image.size, contract)
    image = image.resize((contract.width, contract.height), image_module.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image, np.float32).reshape(contract.height, contract.width, contract.channels)
    if contract.colour_order == "BGR":
        pixels = pixels[:, :, ::-1]
    return (pixels - np.asarray(contract.mean, np.float32)) / np.asarray(contract.std, np.float32)


def crop_box(size: tuple[int, int], contract: Contract) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) of what is kept of an image of (width, height) pixels.

    >>> crop_box((320, 240), Contract(height=224, width=224))
    (55.0, 15.0, 265.0, 225.0)
    """
    width, height = size
    if contract.resize == "stretch":
        return 0.0, 0.0, float(width), float(height)
    scale = min(width / contract.width, height / contract.height) * contract.crop_fraction
    kept_width, kept_height = contract.width * scale, contract.height * scale
    left, top = max(0.0, (width - kept_width) / 2), max(0.0, (height - kept_height) / 2)
    return left, top, min(left + kept_width, float(width)), min(top + kept_height, float(height))
