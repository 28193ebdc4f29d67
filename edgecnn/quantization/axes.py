"""What becomes of a constant's scales where its axes are turned, gain or lose leading ones, or its rows are picked."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.quantization.parameters import Quantization


def turned_scales(found: Quantization | None, permutation: tuple[int, ...]) -> Quantization | None:
    """Return the quantization of what a Transpose makes of a tensor.

    >>> turned_scales(Quantization(scale=(1.0, 2.0), zero_point=(0, 0), dtype="int8", axis=0), (1, 2, 0)).axis
    2
    """
    return found if found is None or found.axis is None else replace(found, axis=permutation.index(found.axis))


def moved_scales(found: Quantization | None, axes: int) -> Quantization | None:
    """Return the quantization of a tensor that gains leading axes of size 1, or, below 0, loses so many."""
    if found is None or found.axis is None:
        return found
    axis = found.axis + axes
    return replace(found, axis=None if axis < 0 else axis)


def picked_scales(found: Quantization | None, places: NDArray[Any]) -> Quantization | None:
    """Return the quantization of a tensor of which positions along the first axis are picked."""
    if found is None or found.axis != 0:
        return found
    scale, zero_point = (tuple(np.asarray(each)[places].tolist()) for each in (found.scale, found.zero_point))
    return replace(found, scale=scale, zero_point=zero_point)
