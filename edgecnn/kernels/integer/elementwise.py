"""Integer arithmetic element by element: sums, products, slopes, and integers of one scale as those of another.

Fixed point follows LiteRT's reference kernels. For sums, slopes and rescaling XNNPACK, too, multiplies by integers, of
fewer bits, and shifts with halves rounded up; "float32" does as it does.
Source: TensorFlow Lite, kernels/internal/reference (add.h, sub.h, mul.h, leaky_relu.h, prelu.h, requantize.h); XNNPACK,
microparams-init.c (qs8_add_minmax, qs8_mul_minmax_fp32, qs8_lrelu, qs8_cvt).
"""

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.kernels.integer.rounding import high_product, scaled_in_fixed_point, scaled_in_float32
from edgecnn.kernels.integer.scales import IntegerKernel, Scales
from edgecnn.quantization.rules import SUM_RATIOS

LEFT_SHIFT = {"int8": 20, "uint8": 20, "int16": 15}
"""Bits by which a sum's operands are raised before they meet. Source: TensorFlow Lite, kernels/add.cc."""


def _ratio(scales: Scales, position: int = 0) -> float:
    """Return operand scale / output scale, in float32."""
    return float(np.float32(scales.own[position].scale[0]) / np.float32(scales.given.scale[0]))


def _scaled(scales: Scales, values: Array, factor: float) -> Array:
    return scaled_in_fixed_point(values, factor) if scales.is_fixed_point else scaled_in_float32(values, factor)


def _sum(sign: int) -> IntegerKernel:
    """Return the kernel of a + b or a - b."""

    def kernel(op: ops.Op, scales: Scales, a: Array, b: Array) -> Array:
        operands = scales.offset(0, a), sign * scales.offset(1, b)
        ratios = np.array([_ratio(scales, 0), _ratio(scales, 1)])
        is_taken = SUM_RATIOS[0] <= ratios.min() and ratios.max() < SUM_RATIOS[1]
        if scales.is_fixed_point or scales.given.dtype == "int16" or not is_taken:
            return scales.finished(_sum_in_fixed_point(scales, *operands))
        # The larger multiplier has 21 bits.
        shift = 21 - int(np.frexp(ratios.max())[1])
        first, second = (int(each) for each in np.rint(ratios * 2.0**shift))
        return scales.finished(high_product(operands[0] * first + operands[1] * second, 1, shift))

    return kernel


def _sum_in_fixed_point(scales: Scales, a: Array, b: Array) -> Array:
    """Raise both operands, bring them to twice the larger scale, add, and bring the sum to the output's scale."""
    raised = LEFT_SHIFT[scales.given.dtype]
    own = [float(np.float32(q.scale[0])) for q in scales.own]
    shared = 2 * max(own)
    total = sum(scaled_in_fixed_point(x << raised, scale / shared) for x, scale in zip((a, b), own, strict=True))
    return scaled_in_fixed_point(np.asarray(total), shared / ((1 << raised) * scales.given.scale[0]))


def _product(op: ops.Mul, scales: Scales, a: Array, b: Array) -> Array:
    first, second, given = (np.float32(q.scale[0]) for q in (*scales.own, scales.given))
    return scales.finished(_scaled(scales, scales.offset(0, a) * scales.offset(1, b), float(first * second / given)))


def _chosen(op: ops.Maximum | ops.Minimum, scales: Scales, a: Array, b: Array) -> Array:
    """Choose between integers of one scale."""
    choose = np.maximum if isinstance(op, ops.Maximum) else np.minimum
    return scales.finished(choose(a, b).astype(np.int64) - scales.given.zero_point[0])


def _rescaled(scales: Scales, values: Array, factor: float) -> Array:
    """Return values times a factor of either sign; in XNNPACK's 256ths between 8-bit integers of one type."""
    is_coarse = scales.own[0].dtype == scales.given.dtype != "int16" and 2**-8 <= abs(factor) <= 2**7
    if is_coarse and not scales.is_fixed_point:
        return high_product(values, int(np.rint(256 * factor)), 8)
    return _scaled(scales, values, factor)


def _leaky_relu(op: ops.LeakyReLU, scales: Scales, x: Array) -> Array:
    values, ratio = scales.offset(0, x), _ratio(scales)
    slope = float(np.float32(scales.own[0].scale[0]) * np.float32(op.slope) / np.float32(scales.given.scale[0]))
    return scales.finished(np.where(values >= 0, _rescaled(scales, values, ratio), _rescaled(scales, values, slope)))


def _prelu(op: ops.PReLU, scales: Scales, x: Array, slope: Array) -> Array:
    values = scales.offset(0, x)
    first, second, given = (np.float32(q.scale[0]) for q in (*scales.own, scales.given))
    below = _scaled(scales, values * scales.offset(1, slope), float(first * second / given))
    return scales.finished(np.where(values >= 0, _scaled(scales, values, _ratio(scales)), below))


def _relu(op: ops.ReLU | ops.ReLU6, scales: Scales, x: Array) -> Array:
    """Bring the integers to the output's scale, then clamp them as a fused activation would."""
    scaled = scales.finished(_scaled(scales, scales.offset(0, x), _ratio(scales)))
    return np.clip(scaled, *scales.limits(op))


def _quantize(op: ops.Quantize, scales: Scales, x: Array) -> Array:
    """Bring integers to another scale."""
    factor = scales.own[0].scale[0] / scales.given.scale[0]
    return scales.finished(_rescaled(scales, scales.offset(0, x), factor))


KERNELS: dict[type[ops.Op], IntegerKernel] = {
    ops.Add: _sum(1),
    ops.Sub: _sum(-1),
    ops.Mul: _product,
    ops.Maximum: _chosen,
    ops.Minimum: _chosen,
    ops.LeakyReLU: _leaky_relu,
    ops.PReLU: _prelu,
    ops.ReLU: _relu,
    ops.ReLU6: _relu,
    ops.Quantize: _quantize,
}
