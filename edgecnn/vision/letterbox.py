"""Letterbox: the whole picture in a square, its aspect ratio kept, the rest filled."""

import numpy as np

from edgecnn.extras import require
from edgecnn.graph import Array


def letterbox(pixels: Array, side: int, *, fill: int) -> tuple[Array, float]:
    """Return a picture scaled into the top left corner of a square, and the scale.

    Args:
        pixels: (height, width, channels) uint8.
        side: Of the square, in pixels.
        fill: Pixel value of what is left.

    Returns:
        (side, side, channels) uint8, and output pixels for each pixel of the picture.

    >>> square, scale = letterbox(np.zeros((100, 200, 3), np.uint8), 50, fill=114)
    >>> square.shape, scale, int(square[24, 0, 0]), int(square[25, 0, 0])
    ((50, 50, 3), 0.25, 0, 114)
    """
    image_module = require("PIL.Image", purpose="resizing images")
    height, width, channels = pixels.shape
    scale = min(side / height, side / width)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    scaled = np.asarray(image_module.fromarray(pixels).resize(size, image_module.Resampling.BILINEAR))
    square = np.full((side, side, channels), fill, np.uint8)
    square[: size[1], : size[0]] = scaled
    return square, scale
