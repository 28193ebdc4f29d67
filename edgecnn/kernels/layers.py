"""Kernels of dense layers, normalisation and reductions."""

from collections.abc import Callable

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array


def _dense(op: ops.Dense, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    product = np.asarray(x @ kernel)
    return product if bias is None else product + bias


def _batch_norm(op: ops.BatchNorm, x: Array, gamma: Array, beta: Array, mean: Array, variance: Array) -> Array:
    scale = gamma / np.sqrt(variance + np.float32(op.epsilon))
    return (x - mean) * scale + beta


def _layer_norm(op: ops.LayerNorm, x: Array, gamma: Array, beta: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + np.float32(op.epsilon)) * gamma + beta)


def _group_norm(op: ops.GroupNorm, x: Array, gamma: Array, beta: Array) -> Array:
    runs = x.reshape(*x.shape[:-1], op.groups, -1).astype(np.float64)
    axes = (*range(1, x.ndim - 1), x.ndim)
    centred = runs - runs.mean(axis=axes, keepdims=True)
    normal = centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + op.epsilon)
    return np.asarray(normal.reshape(x.shape).astype(x.dtype) * gamma + beta)


def _l2_normalize(op: ops.L2Normalize, x: Array) -> Array:
    norm = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
    return np.asarray(x / np.maximum(norm, np.asarray(op.epsilon, x.dtype)))


def _lrn(op: ops.LRN, x: Array) -> Array:
    reach, channels = op.size // 2, x.shape[-1]
    squares = np.pad(np.square(x), ((0, 0),) * (x.ndim - 1) + ((reach, reach),))
    total = sum(squares[..., start : start + channels] for start in range(op.size))
    return np.asarray(x / (op.bias + op.alpha * total) ** op.beta)


KERNELS: dict[type[ops.Op], Callable[..., Array]] = {
    ops.Dense: _dense,
    ops.BatchNorm: _batch_norm,
    ops.LayerNorm: _layer_norm,
    ops.LRN: _lrn,
    ops.GroupNorm: _group_norm,
    ops.L2Normalize: _l2_normalize,
    ops.MatMul: lambda op, a, b: np.asarray(a @ b),
    # NumPy adds in order along axes that are not the last, which costs float32 five digits over a large picture.
    ops.Mean: lambda op, x: x.mean(axis=op.axes, keepdims=op.keep_dims, dtype=np.float64).astype(x.dtype),
    ops.Sum: lambda op, x: x.sum(axis=op.axes, keepdims=op.keep_dims, dtype=np.float64).astype(x.dtype),
    ops.Max: lambda op, x: x.max(axis=op.axes, keepdims=op.keep_dims),
    ops.Min: lambda op, x: x.min(axis=op.axes, keepdims=op.keep_dims),
    ops.Prod: lambda op, x: x.prod(axis=op.axes, keepdims=op.keep_dims),
}
