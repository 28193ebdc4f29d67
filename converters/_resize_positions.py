"""Which positions of its input a resizing reads: the Graph's own rules, and the roundings that ONNX and OpenVINO name.

Source: onnx/onnx, docs/Operators.md (Resize); OpenVINO, Interpolate-4.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from edgecnn.graph import Array

Coordinates = Literal["half_pixel", "asymmetric", "align_corners"]

ROUNDING: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}
"""Name of a nearest rule -> which position a place means."""

OWN_NEAREST: dict[Coordinates, Callable[[int, int], Array]] = {
    "asymmetric": lambda old, new: np.arange(new) * old // new,
    "half_pixel": lambda old, new: (2 * np.arange(new) + 1) * old // (2 * new),
    "align_corners": lambda old, new: (2 * np.arange(new) * (old - 1) + max(new - 1, 1)) // (2 * max(new - 1, 1)),
}
"""The Graph's coordinates -> (old size, new size) -> positions read, as ops.Resize defines them."""

OWN_LINEAR: dict[Coordinates, Callable[[int, int], Array]] = {
    "half_pixel": lambda old, new: ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1),
    "align_corners": lambda old, new: (np.arange(new) * (old - 1) / max(new - 1, 1)).clip(0, old - 1),
    "asymmetric": lambda old, new: (np.arange(new) * old / new).clip(0, old - 1),
}
"""The same for a bilinear one."""
