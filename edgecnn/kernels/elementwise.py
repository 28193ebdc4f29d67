"""Kernels of the operators that work element by element, and of Softmax."""

from collections.abc import Callable
from functools import reduce

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array

ERFC = (
    *(0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807),
    *(-0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223),
)
"""Polynomial of the complementary error function, highest power first; its relative error is below 1.2e-7 everywhere.
Source: Press et al., Numerical Recipes in C, second edition, section 6.2, erfcc."""


def _softmax(op: ops.Softmax, x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _sigmoid(op: ops.Op, x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + decay), decay / (1 + decay)).astype(x.dtype)


def _gelu(op: ops.GELU, x: Array) -> Array:
    if op.approximate:
        return np.asarray(x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi).astype(x.dtype) * (x + 0.044715 * x**3))))
    return (x * _complementary_error(-x.astype(np.float64) / np.sqrt(2)) / 2).astype(x.dtype)


def _complementary_error(z: Array) -> Array:
    """Return 1 - erf(z), element by element, in float64."""
    t = 1 / (1 + np.abs(z) / 2)
    tail = t * np.exp(-z * z + reduce(lambda total, factor: total * t + factor, ERFC, np.zeros_like(t)))
    return np.where(z >= 0, tail, 2 - tail)


def _elu(op: ops.ELU, x: Array) -> Array:
    return np.where(x >= 0, x, op.alpha * np.expm1(np.minimum(x, 0)))


KERNELS: dict[type[ops.Op], Callable[..., Array]] = {
    ops.Add: lambda op, a, b: a + b,
    ops.Sub: lambda op, a, b: a - b,
    ops.Mul: lambda op, a, b: a * b,
    ops.Div: lambda op, a, b: a / b,
    ops.Maximum: lambda op, a, b: np.maximum(a, b),
    ops.Minimum: lambda op, a, b: np.minimum(a, b),
    ops.Pow: lambda op, a, b: np.power(a, b),
    ops.ReLU: lambda op, x: np.maximum(x, 0),
    ops.ReLU6: lambda op, x: np.clip(x, 0, 6),
    ops.Sigmoid: _sigmoid,
    ops.Tanh: lambda op, x: np.tanh(x),
    ops.Clip: lambda op, x: np.clip(x, op.minimum, op.maximum),
    ops.Softmax: _softmax,
    ops.LeakyReLU: lambda op, x: np.where(x >= 0, x, op.slope * x),
    ops.PReLU: lambda op, x, slope: np.where(x >= 0, x, slope * x),
    ops.ELU: _elu,
    ops.Softplus: lambda op, x: np.logaddexp(x, np.zeros((), x.dtype)),
    ops.Swish: lambda op, x: x * _sigmoid(op, x),
    ops.HardSigmoid: lambda op, x: np.clip(op.slope * x + op.offset, 0, 1),
    ops.HardSwish: lambda op, x: x * (np.clip(x + 3, 0, 6) / 6),
    ops.GELU: _gelu,
    ops.Sqrt: lambda op, x: np.sqrt(x),
    ops.Exp: lambda op, x: np.exp(x),
    ops.Log: lambda op, x: np.log(x),
    ops.Rsqrt: lambda op, x: 1 / np.sqrt(x),
    ops.Abs: lambda op, x: np.abs(x),
    ops.Neg: lambda op, x: -x,
    ops.Floor: lambda op, x: np.floor(x),
    ops.Ceil: lambda op, x: np.ceil(x),
    ops.Round: lambda op, x: np.rint(x),
    ops.Sin: lambda op, x: np.sin(x),
    ops.Cos: lambda op, x: np.cos(x),
    ops.Erf: lambda op, x: (1 - _complementary_error(x.astype(np.float64))).astype(x.dtype),
}
