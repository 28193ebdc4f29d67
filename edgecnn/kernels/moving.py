"""Kernels of the operators that move data: padding, reshaping, joining, cutting, resizing."""

from collections.abc import Callable
from itertools import accumulate

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array


def _reshape(op: ops.Reshape, x: Array) -> Array:
    return x.reshape(tuple(len(x) if size is None else size for size in op.shape))


def _pad(op: ops.Pad, x: Array) -> Array:
    if op.mode == "constant":
        return np.pad(x, op.padding, constant_values=op.value)
    return np.pad(x, op.padding, mode=op.mode)


def _split(op: ops.Split, x: Array) -> tuple[Array, ...]:
    return tuple(np.split(x, list(accumulate(op.sizes[:-1])), axis=op.axis))


def _slice(op: ops.Slice, x: Array) -> Array:
    return x[tuple(slice(*box) for box in zip(op.begin, op.end, op.step, strict=True))]


def _resize(op: ops.Resize, x: Array) -> Array:
    for axis, size in enumerate(op.size, start=1):
        x = _nearest(op, x, axis, size) if op.method == "nearest" else _linear(op, x, axis, size)
    return x


def _nearest(op: ops.Resize, x: Array, axis: int, size: int) -> Array:
    """Pick positions along one axis, in integers; align_corners rounds half up, as TFLite does."""
    before, place = x.shape[axis], np.arange(size)
    if op.coordinates == "align_corners":
        last = max(size - 1, 1)
        found = (2 * place * (before - 1) + last) // (2 * last)
    else:
        shift = 1 if op.coordinates == "half_pixel" else 0
        found = (2 * place + shift) * before // (2 * size)
    return np.asarray(x.take(found, axis=axis))


def _linear(op: ops.Resize, x: Array, axis: int, size: int) -> Array:
    """Interpolate along one axis."""
    before, place = x.shape[axis], np.arange(size)
    found = {
        "half_pixel": (place + 0.5) * before / size - 0.5,
        "asymmetric": place * before / size,
        "align_corners": place * (before - 1) / max(size - 1, 1),
    }[op.coordinates].clip(0, before - 1)
    lower = found.astype(np.int64)
    share = (found - lower).astype(x.dtype).reshape([-1 if each == axis else 1 for each in range(x.ndim)])
    left, right = x.take(lower, axis=axis), x.take(np.minimum(lower + 1, before - 1), axis=axis)
    return np.asarray(left + (right - left) * share)


def _depth_to_space(op: ops.DepthToSpace, x: Array) -> Array:
    batch, height, width, _ = x.shape
    blocks = x.reshape(batch, height, width, op.block, op.block, -1).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, height * op.block, width * op.block, -1)


def _space_to_depth(op: ops.SpaceToDepth, x: Array) -> Array:
    batch, height, width, channels = (*x.shape[:1], x.shape[1] // op.block, x.shape[2] // op.block, x.shape[3])
    blocks = x.reshape(batch, height, op.block, width, op.block, channels).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, height, width, -1)


KERNELS: dict[type[ops.Op], Callable[..., Array | tuple[Array, ...]]] = {
    ops.Pad: _pad,
    ops.Reshape: _reshape,
    ops.Transpose: lambda op, x: x.transpose(op.permutation),
    ops.Concat: lambda op, *xs: np.concatenate(xs, axis=op.axis),
    ops.Split: _split,
    ops.Gather: lambda op, x, indices: x.take(indices, axis=op.axis),
    ops.Tile: lambda op, x: np.tile(x, op.multiples),
    ops.Slice: _slice,
    ops.Resize: _resize,
    ops.DepthToSpace: _depth_to_space,
    ops.SpaceToDepth: _space_to_depth,
    ops.Dropout: lambda op, x: x,
    ops.Identity: lambda op, x: x,
}
