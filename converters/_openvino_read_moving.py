"""Rows of layers that move data: shapes, cuts, joins, padding, choosing."""

from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.ops import known

from ._openvino_read_call import UNUSED, Call, Row

PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge"}
Box = tuple[int | None, int | None, int]
LONGEST = 1 << 16
"""Positions that are taken one by one."""


def _reshape(call: Call) -> str:
    """Take the shape that the file states for the output, however it is computed there."""
    return call.node(ops.Reshape(shape=call.output_shape()), call.tensor(0))


def _transpose(call: Call) -> str | None:
    order = call.integers(1)
    rank = len(call.shape())
    if order is None:
        return None
    permutation = tuple(call.axis(axis, rank) for axis in order) or tuple(reversed(range(rank)))
    return call.node(ops.Transpose(permutation=permutation), call.tensor(0))


def _concat(call: Call) -> str:
    axis = call.axis(call.integer("axis", 0), len(call.shape()))
    return call.node(ops.Concat(axis=axis), *(call.tensor(position) for position in range(len(call))))


def _split(call: Call) -> tuple[str, ...] | None:
    axes = call.integers(1)
    pieces = len(call.layer.outputs)
    if axes is None or len(axes) != 1 or not pieces:
        return None
    axis = call.axis(axes[0], len(call.shape()))
    size = known(call.shape()[axis])
    if call.layer.kind == "Split":
        sizes = [size // pieces] * pieces
    else:
        lengths = call.integers(2) or []
        rest = size - sum(length for length in lengths if length != -1)
        sizes = [rest if length == -1 else length for length in lengths]
    if len(sizes) != pieces:
        return None
    names = [call.name, *(call.reading.free(f"{call.name}/{number}") for number in range(1, len(sizes)))]
    return call.reading.builder.nodes(call.name, ops.Split(axis=axis, sizes=tuple(sizes)), (call.tensor(0),), names)


def _strided_slice(call: Call) -> str | None:
    """A bit of a mask that is 1 takes the number out of force; an axis that shrinks is cut to one position, then goes.

    Source: OpenVINO, StridedSlice-1.
    """
    columns = [call.integers(position) for position in (1, 2)]
    rank = len(call.shape())
    begins, ends = columns
    if begins is None or ends is None or len(begins) != len(ends) or len(begins) > rank:
        return None
    steps = call.integers(3) if len(call) > 3 else [1] * len(begins)
    masks = {
        name: _mask(call, f"{name}_mask", rank) for name in ("begin", "end", "new_axis", "shrink_axis", "ellipsis")
    }
    if steps is None or len(steps) != len(begins) or any(masks["new_axis"]) or any(masks["ellipsis"]):
        return None
    boxes: dict[int, Box] = {}
    for axis, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        if masks["shrink_axis"][axis]:
            place = call.axis(0 if masks["begin"][axis] else begin, known(call.shape()[axis]))
            boxes[axis] = (place, place + 1, 1)
        else:
            boxes[axis] = (None if masks["begin"][axis] else begin, None if masks["end"][axis] else end, step)
    return _cut(call, boxes, reshapes=any(masks["shrink_axis"]))


def _mask(call: Call, name: str, rank: int) -> list[int]:
    found = list(call.numbers(name, ()))[:rank]
    return found + [0] * (rank - len(found))


def _slice(call: Call) -> str | None:
    begins, ends, steps = (call.integers(position) for position in (1, 2, 3))
    if begins is None or ends is None or steps is None or not len(begins) == len(ends) == len(steps):
        return None
    axes = call.integers(4) if len(call) > 4 else list(range(len(begins)))
    if axes is None or len(axes) != len(begins):
        return None
    rank = len(call.shape())
    places = [call.axis(axis, rank) for axis in axes]
    return _cut(call, dict(zip(places, zip(begins, ends, steps, strict=True), strict=True)), reshapes=False)


def _cut(call: Call, boxes: dict[int, Box], *, reshapes: bool) -> str | None:
    """Cut (begin, end, step) out of some axes, as Python does; a negative step is a Gather of its positions."""
    x, forward = call.tensor(0), []
    for axis, size in enumerate(call.shape()):
        low, high, step = boxes.get(axis, (None, None, 1))
        if size is None and (low or step != 1 or (high is not None and high < 2**31 - 1)):
            return None
        taken = range(size or 0)[slice(low, high, step)] if step else range(0)
        if step < 0 and 0 < len(taken) <= LONGEST:
            indices = call.constant("positions", np.array(taken, np.int64))
            x, taken = call.step("backwards", ops.Gather(axis=axis), x, indices), range(len(taken))
        if taken.step < 1 or (size is not None and not taken):
            return None
        is_whole = size is None or taken == range(size)
        forward.append((0, None, 1) if is_whole else (taken.start, taken.stop, taken.step))
    begin, end, steps = zip(*forward, strict=True) if forward else ((), (), ())
    op = ops.Slice(begin=begin, end=end, step=steps)
    if not reshapes:
        return call.node(op, x)
    return call.node(ops.Reshape(shape=call.output_shape()), call.step("cut", op, x))


def _pad(call: Call) -> str | None:
    before, after = call.integers(1), call.integers(2)
    mode: Any = PAD_MODES.get(call.text("pad_mode", "constant"))
    value = call.known(3) if len(call) > 3 else np.zeros(())
    if before is None or after is None or mode is None or value is None or value.size != 1:
        return None
    if len(before) != len(after) or min((*before, *after), default=0) < 0:
        return None
    op = ops.Pad(padding=tuple(zip(before, after, strict=True)), value=float(value.reshape(())), mode=mode)
    return call.node(op, call.tensor(0))


def _gather(call: Call) -> str | None:
    """Positions must be constant, so that those counted from the end can be turned."""
    indices, axes, shape = call.known(1), call.integers(2), call.shape()
    if (
        indices is None
        or axes is None
        or len(axes) != 1
        or call.integer("batch_dims", 0)
        or indices.dtype.kind not in "iu"
    ):
        return None
    axis = call.axis(axes[0], len(shape))
    size = known(shape[axis])
    if indices.size and not -size <= int(indices.min()) <= int(indices.max()) < size:
        return None
    places = call.constant("indices", np.where(indices < 0, indices + size, indices).astype(np.int64))
    return call.node(ops.Gather(axis=axis), call.tensor(0), places)


def _tile(call: Call) -> str | None:
    repeats, rank = call.integers(1), len(call.shape())
    if repeats is None or len(repeats) > rank:
        return None
    return call.node(ops.Tile(multiples=(*[1] * (rank - len(repeats)), *repeats)), call.tensor(0))


def _broadcast(call: Call) -> str | None:
    before, after = call.shape(), call.output_shape()
    if len(before) != len(after) or call.text("mode", "numpy") not in ("numpy", "bidirectional"):
        return None
    multiples = tuple(1 if m == n else known(n) for m, n in zip(before, after, strict=True))
    return call.node(ops.Tile(multiples=multiples), call.tensor(0))


def _top(call: Call) -> tuple[str, ...] | None:
    """The largest value along an axis and its place: what a TopK of one is."""
    count = call.integers(1)
    if count != [1] or call.text("mode", "max") != "max":
        return None
    axis = call.axis(call.integer("axis", 0), len(call.shape()))
    dtype: Any = {"i32": "int32", "i64": "int64"}.get(call.text("index_element_type", "i32"), "int32")
    largest, place = ops.Max(axes=(axis,), keep_dims=True), ops.ArgMax(axis=axis, keep_dims=True, dtype=dtype)
    return (
        call.step("largest", largest, call.tensor(0)) if call.is_used(0) else UNUSED,
        call.node(place, call.tensor(0)) if call.is_used(1) else UNUSED,
    )


ROWS: dict[str, Row] = {
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "VariadicSplit": _split,
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Tile": _tile,
    "Broadcast": _broadcast,
    "TopK": _top,
}
"""Layer type -> how it is read."""

SHAPED = frozenset(("Reshape", "Squeeze", "Unsqueeze", "Broadcast", "Interpolate"))
"""Layers whose output's shape the file states, so that only their first input is computed with."""
