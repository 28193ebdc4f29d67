"""Operators on known values that are no shape arithmetic: what exporters leave of weights, masks and paddings."""

import numpy as np

from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array

from ._onnx_read_call import Call


def widened(value: Array) -> Array:
    """Return values in the type that they compute in."""
    return value.astype(np.float32) if value.dtype == np.float16 else value


def clip(call: Call, value: Array, *limits: Array | None) -> Array | None:
    """Limit values (opset 11 on); sizes that are clipped make padding SAME."""
    if call.opset < 11 or value.dtype == object or any(limit is not None and limit.size != 1 for limit in limits):
        return None
    low, high = (*limits, None, None)[:2]
    for limit, choose in ((low, np.maximum), (high, np.minimum)):
        value = value if limit is None else choose(value, limit.ravel()[0])
    return np.asarray(value)


def cumulated(call: Call, value: Array, axis: Array) -> Array | None:
    """Sum along an axis, as position embeddings count."""
    if value.dtype == object or call.integer("exclusive", 0) or call.integer("reverse", 0):
        return None
    return np.cumsum(value, call.axis(int(axis.ravel()[0]), value.ndim), dtype=value.dtype)


def standardized(call: Call, value: Array, scale: Array, shift: Array, *_: Array) -> Array | None:
    """Normalise by the values' own statistics, as timm standardises the weights of ResNetV2, NFNet and NF-RegNet."""
    if not call.integer("training_mode", 0) or value.ndim < 2 or not {scale.shape, shift.shape} <= {value.shape[1:2]}:
        return None
    value, spread = widened(value), [1] * (value.ndim - 2)
    axes = (0, *range(2, value.ndim))
    centred = value - value.mean(axes, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axes, keepdims=True) + np.float32(call.number("epsilon", 1e-5)))
    return np.asarray(centred / deviation * scale.reshape(-1, *spread) + shift.reshape(-1, *spread))


def scatter_nd(call: Call, value: Array, indices: Array, updates: Array) -> Array:
    """Write parts of a constant, as PyTorch exports an assignment to a slice (Swin's attention masks)."""
    if call.text("reduction", "none") != "none":
        raise UnsupportedError(f"parts that are written were wanted; found reduction={call.text('reduction', '')}")
    if indices.ndim == 0 or updates.shape != (*indices.shape[:-1], *value.shape[indices.shape[-1] :]):
        raise InputFileError(f"updates for each of the indices {indices.shape} were wanted; found {updates.shape}")
    found = np.array(value)
    found[tuple(np.moveaxis(indices.astype(np.int64), -1, 0))] = updates
    return found
