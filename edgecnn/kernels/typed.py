"""Kernels of the operators that change the element type, and of Where."""

from collections.abc import Callable

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array


def _arg_max(op: ops.ArgMax, x: Array) -> Array:
    return np.asarray(x.argmax(axis=op.axis, keepdims=op.keep_dims).astype(op.dtype))


KERNELS: dict[type[ops.Op], Callable[..., Array]] = {
    ops.Cast: lambda op, x: x.astype(op.dtype),
    ops.ArgMax: _arg_max,
    ops.Greater: lambda op, a, b: a > b,
    ops.GreaterOrEqual: lambda op, a, b: a >= b,
    ops.Less: lambda op, a, b: a < b,
    ops.LessOrEqual: lambda op, a, b: a <= b,
    ops.Equal: lambda op, a, b: a == b,
    ops.And: lambda op, a, b: a & b,
    ops.Or: lambda op, a, b: a | b,
    ops.Not: lambda op, x: ~x,
    # Both keep the numbers that integers stand for; how they are rounded, the output tensor's quantization says.
    ops.Quantize: lambda op, x: x,
    ops.Dequantize: lambda op, x: x,
    ops.Where: lambda op, condition, a, b: np.asarray(np.where(condition, a, b)),
}
