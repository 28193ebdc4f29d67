"""Functions of 16-bit integers as LiteRT's reference kernels compute them: by lines between the points of a table.

Source: TensorFlow Lite, kernels/internal/reference/integer_ops (logistic.h, tanh.h), reference/softmax.h
(SoftmaxInt16), kernels/internal/common.h (gen_lut, sigmoid_table_uint16).
"""

from collections.abc import Callable

import numpy as np

from edgecnn.graph import Array
from edgecnn.kernels.integer.rounding import half_away, scaled_in_fixed_point
from edgecnn.kernels.integer.scales import Scales


def _sigmoid_points() -> Array:
    """Return 256 points of the sigmoid, 1/24 apart, in 65536ths: moved as those of `_table` are, the last one full."""
    here, middle, following = (65536 / (1 + np.exp(-(np.arange(255) + shift) / 24)) for shift in (0, 0.5, 1))
    return np.append(np.rint(here - ((here + following) / 2 - middle) / 2), 65535).astype(np.int64)


SIGMOID = _sigmoid_points()


def sigmoid_16(scales: Scales, x: Array) -> Array:
    """Return the sigmoid in 32768ths."""
    places = _twelfths(scales, x)
    size = np.abs(places)
    below = np.minimum(size >> 9, 255)
    ends = SIGMOID[below], SIGMOID[np.minimum(below + 1, 255)]
    line = np.where(below == 255, 0x7FFF << 10, (ends[0] << 9) + (size & 511) * (ends[1] - ends[0]))
    return np.asarray(np.where(places >= 0, line + 512, (1 << 25) - line + 511) >> 10)


def tanh_16(scales: Scales, x: Array) -> Array:
    """Return the hyperbolic tangent, 2 sigmoid(2x) - 1, in 32768ths."""
    places = _twelfths(scales, x)
    size = np.abs(places)
    below = np.minimum(size >> 8, 255)
    ends = SIGMOID[below], SIGMOID[np.minimum(below + 1, 255)]
    line = np.where(below == 255, 0xFFFF << 8, (ends[0] << 8) + (size & 255) * (ends[1] - ends[0]))
    return np.asarray(np.where(places >= 0, line - (1 << 23) + 128, -line + (1 << 23) + 127) >> 8)


def _twelfths(scales: Scales, x: Array) -> Array:
    """Return what integers stand for in 12288ths: 1/512 of the table's step for the sigmoid."""
    # Beyond 1024, every integer but 0 lies beyond the table.
    scale = min(float(np.float32(scales.own[0].scale[0])), 1024.0)
    factor, shift = scale * 4096 * 3, 0
    power = np.log2(scale) + 12
    if power in (0, 1):
        return np.asarray(x.astype(np.int64) * (3 << int(power)))
    while factor <= 32767 / 2 and shift <= 30:
        factor, shift = factor * 2, shift + 1
    return np.asarray((x.astype(np.int64) * int(factor) + ((1 << shift) >> 1)) >> shift)


def softmax_16(scales: Scales, x: Array) -> Array:
    """Return exponentials over their sum in 32768ths, the reciprocal of the sum looked up as well."""
    behind = x.astype(np.int64) - x.max(axis=-1, keepdims=True)
    steps = scaled_in_fixed_point(behind, float(np.float32(scales.own[0].scale[0])) / (10 / 65535))
    powers = _between(EXPONENTIAL, np.clip(steps + 32767, -32768, 32767))
    total = powers.sum(axis=-1, keepdims=True)
    headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    mantissa = ((total << (headroom - 1)) + (1 << 13)) >> 14
    reciprocal = _between(RECIPROCAL, np.clip(mantissa - (1 << 15) - (1 << 16), -32768, 32767))
    shift = 31 - headroom
    return np.asarray(np.clip((powers * reciprocal + (np.int64(1) << (shift - 1))) >> shift, 0, 32767))


def _table(function: Callable[[Array], Array], low: float, high: float) -> Array:
    """Return 513 points in 32768ths, each one moved by half of what a line to the next would miss in the middle."""
    step = (high - low) / 512
    places = low + np.arange(512) * step
    here, middle, following = (function(places + shift) * 32768 for shift in (0, step / 2, step))
    missed = half_away((following + half_away(here)) / 2) - half_away(middle)
    points = np.append(half_away(here) - half_away(missed / 2), half_away(function(np.array(high)) * 32768))
    return np.asarray(np.clip(points, -32768, 32767), np.int64)


def _between(table: Array, places: Array) -> Array:
    """Return the table at 16-bit places: 9 bits choose the point, 7 the share of the line to the next."""
    point = 256 + (places >> 7)
    return np.asarray(table[point] + (((table[point + 1] - table[point]) * (places & 127) + 64) >> 7))


EXPONENTIAL = _table(np.exp, -10.0, 0.0)
RECIPROCAL = _table(lambda x: 1 / (1 + x), 0.0, 1.0)
