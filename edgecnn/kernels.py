"""One NumPy kernel per operator, float: what every converter is held against.

A kernel takes the node and the values of its operands and returns its output. Convolutions add up one kernel position
at a time, which needs no im2col copy and leaves the work to BLAS.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array
from edgecnn.shapes import Padding, output_size

Kernel = Callable[..., Array]


def evaluate(op: ops.Op, values: Sequence[Array]) -> Array:
    """Return the output of one operator, its fused activation included.

    Raises:
        UnsupportedError: When there is no kernel for the operator (an Opaque one, say).
    """
    if type(op) not in KERNELS:
        raise UnsupportedError(f"{op.attributes().get('kind', type(op).__name__)}: this operator cannot be executed")
    result = KERNELS[type(op)](op, *values)
    activation = getattr(op, "activation", None)
    return result if activation is None else evaluate(activation, (result,))


def pad_spatial(image: Array, padding: Padding, value: float = 0.0) -> Array:
    """Pad the spatial axes of (N, spatial..., C)."""
    if not any(sum(pair) for pair in padding):
        return image
    return np.pad(image, ((0, 0), *padding, (0, 0)), constant_values=value)


def windows(
    padded: Array, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[tuple[int, ...], Array]]:
    """Return, for each kernel position, the position and the view of the input that it meets: (N, outputs..., C)."""
    sizes = [
        output_size(n, f, stride=s, dilation=d)
        for n, f, s, d in zip(padded.shape[1:-1], kernel_size, stride, dilation, strict=True)
    ]
    views = []
    for position in product(*(range(size) for size in kernel_size)):
        spans = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(position, dilation, sizes, stride, strict=True)
        )
        views.append((position, padded[(slice(None), *spans)]))
    return views


def convolve(op: ops.Conv, image: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Return the cross-correlation (N, outputs..., out_channels)."""
    rank, padded = len(op.stride), pad_spatial(image, op.padding)
    (position, view), *others = windows(padded, kernel.shape[:rank], op.stride, op.dilation)
    total = _grouped(view, kernel[position], op.groups)
    for position, view in others:
        total += _grouped(view, kernel[position], op.groups)
    return total if bias is None else total + bias


def _grouped(view: Array, weights: Array, groups: int) -> Array:
    """Multiply one view (..., in_channels) with (in_channels / groups, out_channels), group by group."""
    if groups == 1:
        return np.asarray(view @ weights)
    if groups == view.shape[-1]:
        multiplier = weights.shape[-1] // groups
        return np.asarray((view if multiplier == 1 else np.repeat(view, multiplier, axis=-1)) * weights[0])
    inputs, outputs = np.split(view, groups, axis=-1), np.split(weights, groups, axis=-1)
    return np.concatenate([x @ w for x, w in zip(inputs, outputs, strict=True)], axis=-1)


def _max_pool(op: ops.MaxPool, image: Array) -> Array:
    padded = pad_spatial(image, op.padding, -np.inf)
    parts = [view for _, view in windows(padded, op.kernel_size, op.stride, (1,) * len(op.stride))]
    return np.asarray(np.maximum.reduce(parts))


def _average_pool(op: ops.AveragePool, image: Array) -> Array:
    ones = (1,) * len(op.stride)
    inside = pad_spatial(np.ones((1, *image.shape[1:-1], 1), image.dtype), op.padding)
    total = sum(view for _, view in windows(pad_spatial(image, op.padding), op.kernel_size, op.stride, ones))
    counted = sum(view for _, view in windows(inside, op.kernel_size, op.stride, ones))
    return np.asarray(total / counted)


def _batch_norm(op: ops.BatchNorm, x: Array, gamma: Array, beta: Array, mean: Array, variance: Array) -> Array:
    scale = gamma / np.sqrt(variance + np.float32(op.epsilon))
    return (x - mean) * scale + beta


def _dense(op: ops.Dense, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    product = np.asarray(x @ kernel)
    return product if bias is None else product + bias


def _softmax(op: ops.Softmax, x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _sigmoid(op: ops.Sigmoid, x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + decay), decay / (1 + decay)).astype(x.dtype)


def _reshape(op: ops.Reshape, x: Array) -> Array:
    return x.reshape(tuple(len(x) if size is None else size for size in op.shape))


KERNELS: dict[type[ops.Op], Kernel] = {
    ops.Conv: convolve,
    ops.Dense: _dense,
    ops.BatchNorm: _batch_norm,
    ops.MaxPool: _max_pool,
    ops.AveragePool: _average_pool,
    ops.Mean: lambda op, x: x.mean(axis=op.axes, keepdims=op.keep_dims),
    ops.Add: lambda op, a, b: a + b,
    ops.Sub: lambda op, a, b: a - b,
    ops.Mul: lambda op, a, b: a * b,
    ops.ReLU: lambda op, x: np.maximum(x, 0),
    ops.ReLU6: lambda op, x: np.clip(x, 0, 6),
    ops.Sigmoid: _sigmoid,
    ops.Tanh: lambda op, x: np.tanh(x),
    ops.Clip: lambda op, x: np.clip(x, op.minimum, op.maximum),
    ops.Softmax: _softmax,
    ops.Pad: lambda op, x: np.pad(x, op.padding, constant_values=op.value),
    ops.Reshape: _reshape,
    ops.Transpose: lambda op, x: x.transpose(op.permutation),
    ops.Concat: lambda op, *xs: np.concatenate(xs, axis=op.axis),
    ops.Dropout: lambda op, x: x,
    ops.Identity: lambda op, x: x,
}
