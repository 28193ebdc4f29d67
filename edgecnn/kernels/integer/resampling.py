"""Integer resizing: positions between pixels, and shares of the pixels, as fractions of few bits."""

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.kernels.integer.rounding import high_product, shifted_right
from edgecnn.kernels.integer.scales import IntegerKernel, Scales
from edgecnn.kernels.moving import KERNELS as MOVING

Places = tuple[Array, Array, Array]
"""For each output position along an axis: the pixel before, the pixel behind, the share of the one behind."""


def _places_in_integers(op: ops.Resize, before: int, after: int) -> Places:
    """Return places with shares of 10 bits; a share below 0 stands between a pixel and itself.

    Source: TensorFlow Lite, kernels/internal/reference/resize_bilinear.h, ResizeBilinearInteger.
    """
    is_aligned = op.coordinates == "align_corners" and after > 1
    first, last = (before - 1, after - 1) if is_aligned else (before, after)
    step = ((first << 10) + last // 2) // last
    found = np.arange(after, dtype=np.int64) * step
    if op.coordinates == "half_pixel":
        found += step // 2 - (1 << 9)
    lower = np.clip(found >> 10, 0, before - 1)
    return lower, np.clip((found + 1023) >> 10, 0, before - 1), found - (lower << 10)


def _places_in_float32(op: ops.Resize, before: int, after: int) -> Places:
    """Return places with shares of 11 bits. Source: XNNPACK, indirection.c, resize_bilinear2d_hwc_q11."""
    gap = int(op.coordinates == "align_corners" and after > 1)
    step = np.float32(before - gap) / np.float32(after - gap)
    shift = np.float32(0.5) * step - np.float32(0.5) if op.coordinates == "half_pixel" else np.float32(0)
    found = np.clip(np.arange(after, dtype=np.float32) * step + shift, 0, np.float32(before - 1))
    lower = found.astype(np.int64)
    share = np.rint((found - lower.astype(np.float32)) * np.float32(2048)).astype(np.int64)
    return lower, np.minimum(lower + 1, before - 1), share


def _resize(op: ops.Resize, scales: Scales, x: Array) -> Array:
    """Pick integers, or weigh the neighbouring ones along each axis and round once."""
    if op.method == "nearest":
        return np.asarray(MOVING[ops.Resize](op, x))
    if scales.is_fixed_point and scales.given.dtype == "uint8":
        # LiteRT's reference kernel interpolates these in float, and rounds halves up.
        found = np.floor(np.asarray(MOVING[ops.Resize](op, x.astype(np.float32))) + np.float32(0.5))
        return scales.finished(found - scales.given.zero_point[0])
    places, bits = (_places_in_integers, 10) if scales.is_fixed_point else (_places_in_float32, 11)
    total = x.astype(np.int64)
    for axis, size in enumerate(op.size, start=1):
        lower, upper, share = places(op, x.shape[axis], size)
        left, right = total.take(lower, axis=axis), total.take(upper, axis=axis)
        share = share.reshape([-1 if each == axis else 1 for each in range(x.ndim)])
        total = (left << bits) + (right - left) * share
    shift = bits * len(op.size)
    found = shifted_right(total, shift) if scales.is_fixed_point else high_product(total, 1, shift)
    return scales.finished(found - scales.given.zero_point[0])


KERNELS: dict[type[ops.Op], IntegerKernel] = {ops.Resize: _resize}
