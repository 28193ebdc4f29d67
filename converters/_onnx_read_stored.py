"""Integers that stand for numbers while an ONNX file is read: what carries their scale on, and constants turned.

A file's integers become tensors with a quantization as soon as their scale is known. What only moves them carries it
on; anything else that computes with bare integers is refused, since a Graph computes with what they stand for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.rules import WEIGHTED

CARRYING = (
    *(ops.Reshape, ops.Transpose, ops.Slice, ops.Gather, ops.Split, ops.Concat, ops.Tile, ops.Identity, ops.Dropout),
    *(ops.DepthToSpace, ops.SpaceToDepth, ops.MaxPool, ops.Max, ops.Min, ops.Maximum, ops.Minimum, ops.Pad),
)
"""Operators that mean the same over integers of one scale as over the numbers that these stand for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A constant of integers, in the file's order.

    Attributes:
        name: In the file.
        data: The integers.
        quantization: What they stand for.
        is_direct: Whether an operator takes the integers themselves beside float activations (dynamic range).
    """

    name: str
    data: Array
    quantization: Quantization
    is_direct: bool = False


def rearranged(stored: Stored, arrange: Callable[[Array], Array]) -> Stored | None:
    """Return a constant whose integers are in another arrangement, or None where that is more than an order of them.

    Where each integer goes is seen from where its place goes, and so which axis has the channels then.
    """
    data, quantization = stored.data, stored.quantization
    places = arrange(np.arange(1, data.size + 1, dtype=np.int64).reshape(data.shape))
    if places.size != data.size or not np.array_equal(np.sort(places, axis=None), np.arange(1, data.size + 1)):
        return None
    moved = replace(stored, data=arrange(data))
    if quantization.axis is None:
        return moved
    channels = np.unravel_index(places - 1, data.shape)[quantization.axis]
    for axis in range(channels.ndim):
        one = channels[tuple(slice(None) if each == axis else slice(0, 1) for each in range(channels.ndim))]
        if data.size and np.array_equal(np.broadcast_to(one, channels.shape), channels):
            return replace(moved, quantization=_chosen(quantization, one.ravel().tolist(), axis))
    return None


def _chosen(quantization: Quantization, channels: Sequence[int], axis: int) -> Quantization:
    scale, zero = quantization.scale, quantization.zero_point
    return replace(
        quantization,
        scale=tuple(scale[each] for each in channels),
        zero_point=tuple(zero[each] for each in channels),
        axis=axis,
    )


def carried(op: ops.Op, known: Sequence[Quantization | None]) -> tuple[ops.Op, Quantization | None]:
    """Return an operator as the Graph means it over these operands, and what the integers that it gives stand for.

    Args:
        op: As the file's integers are computed with.
        known: For each operand what its integers stand for; None for one that holds no such integers.

    Raises:
        UnsupportedError: When it computes with integers that stand for other numbers.
    """
    is_dynamic = isinstance(op, WEIGHTED) and not any((*known[:1], *known[2:]))
    if not any(known) or is_dynamic or isinstance(op, ops.Opaque | ops.Dequantize):
        return op, None
    first = known[0]
    numbers = known[:1] if isinstance(op, ops.Gather) else known
    is_clear = isinstance(op, CARRYING) and first is not None and first.axis is None and set(numbers) == {first}
    if first is None or not is_clear:
        raise UnsupportedError(
            "operators over quantized integers that move or choose them, or have scales of their own, were wanted; "
            f"found {type(op).__name__}"
        )
    if isinstance(op, ops.Pad) and op.mode == "constant":
        low, high = first.limits
        if not (low <= op.value <= high and op.value == int(op.value)):
            raise UnsupportedError(f"padding with an integer in {low}..{high} was wanted; found {op.value}")
        op = replace(op, value=float(first.dequantize(np.asarray(int(op.value)))))
    return op, first
