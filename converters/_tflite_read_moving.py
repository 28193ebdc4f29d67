"""Rows of TFLite's operators that move data: padding, reshaping, joining, repeating, and the shapes that they use."""

from dataclasses import replace
from math import prod

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.graph import Array
from edgecnn.ops import known
from edgecnn.shapes import Padding, Shape, broadcast_shapes, show_shape

from ._tflite_read_call import Call, Row
from ._tflite_read_network import BATCH, HINT, MOST_KNOWN, Constant, Value

REFLECT = 0
"""MirrorPadMode; 1 is SYMMETRIC. Source: schema.fbs."""


def _padding(call: Call) -> Padding:
    numbers, rank = call.integers(1), len(call.shape(0))
    if len(numbers) != 2 * rank:
        raise InputFileError(f"{call.where}: two numbers for each of {rank} axes were wanted; got {len(numbers)}")
    if None in call.shape(0) and any(numbers[:2]):
        raise call.unsupported(f"it pads the batch, which is open. {HINT}")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _pad(call: Call) -> Value:
    value = 0.0
    if call.has(2):
        filled = call.value(2)
        if not isinstance(filled, Constant) or filled.data.size != 1:
            raise call.unsupported("the value that it pads with must be one constant")
        value = float(filled.numbers().reshape(-1)[0])
    return call.node(ops.Pad(padding=_padding(call), value=value), call.value(0))


def _mirror_pad(call: Call) -> Value:
    """MIRROR_PAD; SYMMETRIC by one position repeats the edge, by more it picks each position."""
    padding = _padding(call)
    if call.option_or("mode", REFLECT) == REFLECT:
        return call.node(ops.Pad(padding=padding, mode="reflect"), call.value(0))
    if max((max(pair) for pair in padding), default=0) <= 1:
        return call.node(ops.Pad(padding=padding, mode="edge"), call.value(0))
    x = call.value(0)
    for axis, (before, after) in enumerate(padding):
        if before or after:
            size = known(call.shape(0)[axis])
            if max(before, after) > size:
                raise InputFileError(f"{call.where}: padding of at most {size} was wanted; got {before}, {after}")
            x = call.picked(x, axis, range(before - 1, -1, -1), range(size), range(size - 1, size - after - 1, -1))
    return x


def _reshape(call: Call) -> Value:
    """RESHAPE: sizes from the second operand, else from the options; old files write [0] for a scalar."""
    x = call.value(0)
    sizes = call.sizes(1) if call.has(1) else call.option_integers("newShape")
    if sizes == [0]:
        sizes = []
    return call.node(ops.Reshape(shape=call.target(x, sizes)), x)


def _squeeze(call: Call) -> Value:
    shape, rank = call.shape(0), len(call.shape(0))
    axes = {call.axis(axis, rank) for axis in call.option_integers("squeezeDims")}
    axes = axes or {axis for axis, size in enumerate(shape) if size == 1}
    if any(shape[axis] != 1 for axis in axes):
        raise InputFileError(f"{call.where}: axes of size 1 were wanted; got {sorted(axes)} of {show_shape(shape)}")
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return call.node(ops.Reshape(shape=kept), call.value(0))


def _expand_dims(call: Call) -> Value:
    shape = call.shape(0)
    axis = call.axis(call.integer(1), len(shape) + 1)
    return call.node(ops.Reshape(shape=_expanded(call, shape, axis)), call.value(0))


def _expanded(call: Call, shape: Shape, axis: int) -> Shape:
    if axis == 0 and None in shape:
        raise call.unsupported(f"it puts an axis before the batch, which is open. {HINT}")
    return (*shape[:axis], 1, *shape[axis:])


def _pack(call: Call) -> Value:
    """PACK: each operand gains the axis along which they are joined."""
    parts, shape = call.values(), call.shape(0)
    axis = call.axis(call.option_or("axis", 0), len(shape) + 1)
    op = ops.Reshape(shape=_expanded(call, shape, axis))
    return call.node(ops.Concat(axis=axis), *(call.step("part", op, part) for part in parts))


def _concat(call: Call) -> Value:
    axis = call.axis(call.option_or("axis", 0), len(call.shape(0)))
    return call.node(ops.Concat(axis=axis), *call.values())


def _transpose(call: Call) -> Value:
    rank = len(call.shape(0))
    order = tuple(call.axis(axis, rank) for axis in call.integers(1))
    if None in call.shape(0) and order[:1] != (0,):
        raise call.unsupported(f"it moves the batch, which is open. {HINT}")
    return call.node(ops.Transpose(permutation=order), call.value(0))


def _tile(call: Call) -> Value:
    return call.node(ops.Tile(multiples=tuple(call.integers(1))), call.value(0))


def _broadcast_to(call: Call) -> Value:
    """BROADCAST_TO: axes of 1 in front, then each axis of 1 repeated."""
    x, sizes, shape = call.value(0), call.sizes(1), call.shape(0)
    missing = len(sizes) - len(shape)
    if missing < 0:
        raise InputFileError(f"{call.where}: at least {len(shape)} sizes were wanted; got {len(sizes)}")
    if missing:
        x = call.step("wider", ops.Reshape(shape=(*(1,) * missing, *shape)), x)
    pairs = list(zip((*(1,) * missing, *shape), sizes, strict=True))
    if any(wanted == BATCH and size is not None for size, wanted in pairs):
        raise call.unsupported(f"it repeats something for the batch, which is open. {HINT}")
    if any(size not in (1, wanted) and wanted != BATCH for size, wanted in pairs):
        raise InputFileError(f"{call.where}: {show_shape(shape)} cannot be broadcast to {sizes}")
    return call.node(ops.Tile(multiples=tuple(wanted if size == 1 else 1 for size, wanted in pairs)), x)


def _shape_of(call: Call) -> Value:
    """SHAPE: known at once; the symbolic batch is BATCH."""
    dtype = "int64" if call.network.stated_dtype(call.operator.outputs[0]) == "int64" else "int32"
    sizes = [BATCH if size is None else size for size in call.shape(0)]
    return Constant(name=call.name, data=np.asarray(sizes, dtype), dtype=dtype)


def _rank(call: Call) -> Value:
    return Constant(name=call.name, data=np.asarray(len(call.shape(0)), np.int32), dtype="int32")


def _range(call: Call) -> Value:
    start, limit, step = (call.integer(position) for position in range(3))
    dtype = call.network.dtype(call.value(0))
    if step == 0 or (limit - start) // step > MOST_KNOWN:
        raise InputFileError(f"{call.where}: at most {MOST_KNOWN} steps were wanted; got {start}, {limit}, {step}")
    return Constant(name=call.name, data=np.arange(start, limit, step, dtype=dtype), dtype=dtype)


def _fill(call: Call) -> Value:
    """FILL with one constant."""
    sizes, value = call.integers(0), call.value(1)
    if not isinstance(value, Constant) or value.data.size != 1 or min(sizes, default=0) < 0:
        raise call.unsupported("it is read for known sizes and one constant only")
    return replace(_filled(call, value.data, tuple(sizes), value.dtype), quantization=value.quantization)


def _zeros_like(call: Call) -> Value:
    shape, dtype = call.shape(0), call.network.dtype(call.value(0))
    if None in shape:
        raise call.unsupported(f"it gives zeros for the batch, which is open. {HINT}")
    return _filled(call, np.zeros((), dtype), tuple(map(known, shape)), dtype)


def _filled(call: Call, value: Array, sizes: tuple[int, ...], dtype: str) -> Constant:
    """Return a constant that is one number in memory."""
    call.network.spend(prod(sizes))
    return Constant(name=call.name, data=np.broadcast_to(value.reshape(()), sizes), dtype=dtype)


def _broadcast_args(call: Call) -> Value:
    """BROADCAST_ARGS: the shape that two shapes broadcast to."""
    shape = broadcast_shapes(tuple(call.integers(0)), tuple(call.integers(1)))
    dtype = call.network.dtype(call.value(0))
    return Constant(name=call.name, data=np.asarray(shape, dtype), dtype=dtype)


ROWS: dict[str, Row] = {
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _mirror_pad,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand_dims,
    "PACK": _pack,
    "CONCATENATION": _concat,
    "TRANSPOSE": _transpose,
    "TILE": _tile,
    "BROADCAST_TO": _broadcast_to,
    "SHAPE": _shape_of,
    "RANK": _rank,
    "RANGE": _range,
    "FILL": _fill,
    "ZEROS_LIKE": _zeros_like,
    "BROADCAST_ARGS": _broadcast_args,
}
