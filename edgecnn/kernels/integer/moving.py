"""Operators that only move or choose stored integers; their scale is the same on both sides."""

from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.kernels.integer.scales import IntegerKernel, Scales
from edgecnn.kernels.layers import KERNELS as LAYERS
from edgecnn.kernels.moving import KERNELS as MOVING


def _moved(op: ops.Op, scales: Scales, *values: Array) -> Array | tuple[Array, ...]:
    return (MOVING.get(type(op)) or LAYERS[type(op)])(op, *values)


def _pad(op: ops.Pad, scales: Scales, x: Array) -> Array:
    """Pad with the integer that stands for the padding's value: the zero point, usually."""
    value = int(scales.given.quantize(np.asarray(op.value, np.float32)))
    return np.asarray(MOVING[ops.Pad](replace(op, value=value), x))


KERNELS: dict[type[ops.Op], IntegerKernel] = {
    ops.Pad: _pad,
    **dict.fromkeys(
        (
            *(ops.Reshape, ops.Transpose, ops.Concat, ops.Split, ops.Gather, ops.Tile, ops.Slice),
            *(ops.DepthToSpace, ops.SpaceToDepth, ops.Dropout, ops.Identity, ops.Max, ops.Min),
        ),
        _moved,
    ),
}
