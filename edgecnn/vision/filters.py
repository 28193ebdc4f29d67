"""Edge filters, and the two things called convolution.

Machine learning's "convolution" is cross-correlation: the filter is not flipped. A mathematician's convolution flips it
in both directions first.
"""

import numpy as np

from edgecnn.graph import Array
from edgecnn.kernels import convolve
from edgecnn.ops import Conv

VERTICAL = np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]], np.float32)
"""Bright left of dark gives positive values. Source: Prewitt, Object enhancement and extraction, 1970."""

HORIZONTAL = VERTICAL.T.copy()
"""Bright above dark gives positive values."""

SOBEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], np.float32)
"""Vertical edges with more weight on the central row. Source: Sobel and Feldman, 1968."""

SCHARR = np.array([[3, 0, -3], [10, 0, -10], [3, 0, -3]], np.float32)
"""Vertical edges, optimised for rotation.

Source: Scharr, Optimale Operatoren in der digitalen Bildverarbeitung, 2000.
"""


def cross_correlate(image: Array, kernel: Array, *, stride: int = 1, padding: int = 0) -> Array:
    """Return the cross-correlation of a grey image with a filter.

    Args:
        image: (height, width).
        kernel: (f, f).
        stride: Step in both directions.
        padding: Zeros on every side.

    Returns:
        (floor((height + 2 padding - f) / stride) + 1, the same for the width).

    >>> cross_correlate(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)).item()
    3.0
    """
    op = Conv(stride=(stride, stride), padding=((padding, padding),) * 2, dilation=(1, 1))
    return convolve(op, image[None, :, :, None], kernel[:, :, None, None])[0, :, :, 0]


def convolve_flipped(image: Array, kernel: Array, *, stride: int = 1, padding: int = 0) -> Array:
    """Return the convolution of mathematics: cross-correlation with the filter flipped in both directions."""
    return cross_correlate(image, kernel[::-1, ::-1], stride=stride, padding=padding)
