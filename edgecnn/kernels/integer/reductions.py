"""Integer means, sums and pools."""

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.kernels.integer.rounding import high_product, multipliers, scaled_in_float32, shifted_right
from edgecnn.kernels.integer.scales import IntegerKernel, Scales
from edgecnn.kernels.windows import KERNELS as WINDOWS
from edgecnn.kernels.windows import pad_spatial, windows


def _mean(op: ops.Mean, scales: Scales, x: Array) -> Array:
    count = int(np.prod([x.shape[axis] for axis in op.axes]))
    if scales.is_fixed_point:
        total = scales.offset(0, x).sum(axis=op.axes, keepdims=op.keep_dims)
        return scales.finished(_mean_in_fixed_point(total, count, scales.own[0].scale[0] / scales.given.scale[0]))
    total = x.sum(axis=op.axes, keepdims=op.keep_dims, dtype=np.int64).astype(np.float32)
    factor = np.float32(scales.own[0].scale[0]) / np.float32(scales.given.scale[0]) / np.float32(count)
    # XNNPACK adds both zero points as one float32, whose precision decides near a half.
    zero = np.float32(scales.given.zero_point[0] - np.float32(scales.own[0].zero_point[0] * count) * factor)
    return scales.finished(np.rint(total * factor + zero) - scales.given.zero_point[0])


def _mean_in_fixed_point(total: Array, count: int, ratio: float) -> Array:
    """Divide the multiplier, not the sum, by the count.

    Source: TensorFlow Lite, kernels/internal/reference/reduce.h, QuantizedMeanOrSum.
    """
    multiplier, shift = (int(each) for each in multipliers(ratio))
    raised = min(count.bit_length() - 1, 32, 31 + shift)
    divided, shift = (multiplier << raised) // count, shift - raised
    return shifted_right(high_product(total << max(shift, 0), divided), max(-shift, 0))


def _sum(op: ops.Sum, scales: Scales, x: Array) -> Array:
    total = scales.offset(0, x).sum(axis=op.axes, keepdims=op.keep_dims)
    ratio = scales.own[0].scale[0] / scales.given.scale[0]
    if not scales.is_fixed_point:
        return scales.finished(scaled_in_float32(total, ratio))
    return scales.finished(_mean_in_fixed_point(total, 1, ratio))


def _max_pool(op: ops.MaxPool, scales: Scales, x: Array) -> Array:
    # float32 holds 16-bit integers, and an infinity that never wins.
    found = WINDOWS[ops.MaxPool](op, x.astype(np.float32))
    return scales.finished(found.astype(np.int64) - scales.given.zero_point[0])


def _average_pool(op: ops.AveragePool, scales: Scales, x: Array) -> Array:
    """Divide the sum of the stored integers, halves away from zero.

    Source: TensorFlow Lite, kernels/internal/reference/integer_ops/pooling.h.
    """
    zero, ones = scales.own[0].zero_point[0], (1,) * len(op.stride)
    wide = pad_spatial(x.astype(np.int64), op.padding, zero if op.count_include_pad else 0)
    inside = pad_spatial(np.ones((1, *x.shape[1:-1], 1), np.int64), op.padding, int(op.count_include_pad))
    total = sum(view for _, view in windows(wide, op.kernel_size, op.stride, ones))
    count = np.asarray(sum(view for _, view in windows(inside, op.kernel_size, op.stride, ones)))
    mean = np.sign(total) * ((np.abs(total) + count // 2) // count)
    return scales.finished(mean - zero)


KERNELS: dict[type[ops.Op], IntegerKernel] = {
    ops.Mean: _mean,
    ops.Sum: _sum,
    ops.MaxPool: _max_pool,
    ops.AveragePool: _average_pool,
}
