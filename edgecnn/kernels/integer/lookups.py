"""Functions of one 8-bit integer, looked up in a table of 256; Softmax and HardSwish in LiteRT's own arithmetic."""

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.kernels.elementwise import KERNELS as ELEMENTWISE
from edgecnn.kernels.integer.interpolated import sigmoid_16, softmax_16, tanh_16
from edgecnn.kernels.integer.rounding import high_product, multipliers, shifted_right
from edgecnn.kernels.integer.scales import IntegerKernel, Scales

LOOKED_UP = (
    *(ops.Sigmoid, ops.Tanh, ops.ELU, ops.GELU, ops.Swish, ops.HardSigmoid, ops.Softplus, ops.Exp, ops.Log, ops.Sqrt),
    *(ops.Rsqrt, ops.Abs, ops.Neg, ops.Floor, ops.Ceil, ops.Round, ops.Sin, ops.Cos, ops.Erf, ops.Clip),
)
"""Operators of which each element's result depends on that element alone."""

IN_16_BITS = {ops.Sigmoid: sigmoid_16, ops.Tanh: tanh_16, ops.Softmax: softmax_16}
"""Operators that fixed point computes by another way where the integers have 16 bits; their output is in 32768ths."""


def _looked_up(op: ops.Op, scales: Scales, x: Array) -> Array:
    """Evaluate the float kernel once for each integer that the type has."""
    if scales.is_fixed_point and scales.given.dtype == "int16" and type(op) in IN_16_BITS:
        return scales.finished(IN_16_BITS[type(op)](scales, x))
    low, high = scales.own[0].limits
    numbers = scales.own[0].dequantize(np.arange(low, high + 1))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        table = scales.nearest(np.nan_to_num(ELEMENTWISE[type(op)](op, numbers)))
    return np.asarray(table[x.astype(np.int64) - low])


def _softmax(op: ops.Softmax, scales: Scales, x: Array) -> Array:
    """Divide float32 exponentials by their sum, as LiteRT's kernel does behind its table of 256 of them.

    Source: TensorFlow Lite, kernels/internal/optimized/optimized_ops.h, Softmax over 8-bit integers.
    """
    if scales.is_fixed_point and scales.given.dtype == "int16":
        return scales.finished(softmax_16(scales, x))
    behind = (x.max(axis=-1, keepdims=True).astype(np.int64) - x).astype(np.float32)
    powers = np.exp(behind * -np.float32(scales.own[0].scale[0]))
    total = powers.sum(axis=-1, keepdims=True, dtype=np.float32)
    return scales.nearest(powers / total)


def _hard_swish(op: ops.HardSwish, scales: Scales, x: Array) -> Array:
    if not scales.is_fixed_point or scales.given.dtype == "int16":
        return _looked_up(op, scales, x)
    return scales.finished(_hard_swish_in_fixed_point(scales, scales.offset(0, x)))


def _hard_swish_in_fixed_point(scales: Scales, values: Array) -> Array:
    """Multiply x, on the output's scale, by relu6(x + 3) / 6, in 16 bits.

    Source: TensorFlow Lite, kernels/internal/reference/hard_swish.h, kernels/activations.cc.
    """
    fine = np.float32(1 / 128) * np.float32(scales.own[0].scale[0])
    onto_output, output_shift = _narrow(fine / np.float32(scales.given.scale[0]))
    onto_gate, gate_shift = _narrow(fine / np.float32(3 / 32768))
    raised = values << 7
    gate = _saturated(raised << max(gate_shift - 1, 0))
    gate = _saturated(high_product(gate, onto_gate, 15))
    gate = _saturated(gate << 1) if gate_shift > 0 else shifted_right(gate, -gate_shift)
    gate = (gate + (1 << 15)) >> 1
    product = gate * _saturated(high_product(raised, onto_output, 15))
    # SaturatingDoublingHighMul cuts toward zero.
    product = np.sign(product) * (np.abs(product) >> 15)
    return shifted_right(product, -output_shift)


def _narrow(factor: np.float32) -> tuple[int, int]:
    """Return a factor as (16-bit multiplier, shift)."""
    multiplier, shift = (int(each) for each in multipliers(float(factor)))
    return min((multiplier + (1 << 15)) >> 16, 32767), shift


def _saturated(values: Array) -> Array:
    return np.clip(values, -32768, 32767)


KERNELS: dict[type[ops.Op], IntegerKernel] = {
    **dict.fromkeys(LOOKED_UP, _looked_up),
    ops.Softmax: _softmax,
    ops.HardSwish: _hard_swish,
}
