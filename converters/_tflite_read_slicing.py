"""Rows of TFLite's operators that cut and pick: SLICE, STRIDED_SLICE, SPLIT, UNPACK, GATHER, GATHER_ND, REVERSE_V2."""

from dataclasses import dataclass
from math import prod

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.ops import known
from edgecnn.shapes import Shape, show_shape

from ._tflite_read_call import Call, Row
from ._tflite_read_network import BATCH, HINT, Constant, Value

OPEN_END = (1 << 31) - 1
"""What converters write as the end of an axis that they do not know."""

WHOLE = (0, None, 1)
"""begin, end, step of an axis that is kept."""


def _slice(call: Call) -> Value:
    """SLICE: begin and size, -1 up to the end."""
    shape, begin, size = call.shape(0), call.integers(1), call.sizes(2)
    if not len(shape) == len(begin) == len(size):
        raise InputFileError(f"{call.where}: begin and size of {len(shape)} axes were wanted; got {begin} and {size}")
    boxes: list[tuple[int, int | None, int]] = []
    for length, first, count in zip(shape, begin, size, strict=True):
        if length is None and (first, count) not in ((0, -1), (0, BATCH)):
            raise call.unsupported(f"it cuts the batch, which is open. {HINT}")
        if length is None:
            boxes.append(WHOLE)
            continue
        boxes.append((first, None if count == -1 else first + count, 1))
    return call.node(_box(boxes), call.value(0))


def _box(boxes: list[tuple[int, int | None, int]]) -> ops.Slice:
    begin, end, step = zip(*boxes, strict=True) if boxes else ((), (), ())
    return ops.Slice(begin=begin, end=end, step=step)


@dataclass(kw_only=True, slots=True)
class _Cut:
    """What STRIDED_SLICE does, axis by axis of its input.

    Attributes:
        boxes: begin, end, step, all positive.
        backwards: Axis -> positions, falling, for negative steps.
        shape: Of the output: None for an axis of the box' own size, 1 for a new one; those that shrink are left out.
    """

    boxes: list[tuple[int, int | None, int]]
    backwards: dict[int, range]
    kept: list[int | None]


def _strided_slice(call: Call) -> Value:
    """STRIDED_SLICE with all masks; a negative step becomes a Gather of the positions.

    Source: TensorFlow, core/util/strided_slice_op.cc.
    """
    cut = _cut(call)
    x = call.value(0)
    for axis, positions in cut.backwards.items():
        x = call.picked(x, axis, positions)
    is_reshaped = cut.kept != list(range(len(cut.boxes)))
    if not is_reshaped:
        return call.node(_box(cut.boxes), x)
    x = call.step("box", _box(cut.boxes), x)
    sizes = call.network.shape(x)
    shape: Shape = tuple(1 if axis is None else sizes[axis] for axis in cut.kept)
    if None in shape[1:] or (None in sizes) != (None in shape):
        raise call.unsupported(f"it moves or cuts the batch, which is open. {HINT}")
    return call.node(ops.Reshape(shape=shape), x)


def _cut(call: Call) -> _Cut:
    shape, cut = call.shape(0), _Cut(boxes=[], backwards={}, kept=[])
    begin, end, step = (call.integers(1), call.sizes(2), call.integers(3))
    if not len(begin) == len(end) == len(step):
        raise InputFileError(f"{call.where}: begin, end and step of one length were wanted; got {begin}, {end}, {step}")
    bits = {name: call.option_or(f"{name}Mask", 0) for name in ("begin", "end", "ellipsis", "newAxis", "shrinkAxis")}
    if call.option_or("offset", False):
        end = [first + length for first, length in zip(begin, end, strict=True)]
    dense = [place for place in range(len(begin)) if not (bits["newAxis"] | bits["ellipsis"]) >> place & 1]
    for place in range(len(begin)):
        if bits["ellipsis"] >> place & 1:
            _keep(cut, len(shape) - len(dense))
        elif bits["newAxis"] >> place & 1:
            cut.kept.append(None)
        else:
            is_open = (bool(bits["begin"] >> place & 1), bool(bits["end"] >> place & 1))
            bounds = (None if is_open[0] else begin[place], None if is_open[1] else end[place], step[place])
            _add(call, cut, bounds, is_shrunk=bool(bits["shrinkAxis"] >> place & 1))
    _keep(cut, len(shape) - len(cut.boxes))
    return cut


def _keep(cut: _Cut, axes: int) -> None:
    for _ in range(axes):
        cut.kept.append(len(cut.boxes))
        cut.boxes.append(WHOLE)


def _add(call: Call, cut: _Cut, bounds: tuple[int | None, int | None, int], *, is_shrunk: bool) -> None:
    """Add one axis: what Python's slice of these bounds takes."""
    axis, (begin, end, step) = len(cut.boxes), bounds
    if axis >= len(call.shape(0)):
        raise InputFileError(f"{call.where}: bounds of at most {len(call.shape(0))} axes were wanted; got more")
    size = call.shape(0)[axis]
    if size is None:
        if begin or step != 1 or is_shrunk or end not in (None, BATCH, OPEN_END):
            raise call.unsupported(f"it cuts the batch, which is open. {HINT}")
        _keep(cut, 1)
        return
    if is_shrunk:
        place = (begin or 0) + (size if (begin or 0) < 0 else 0)
        cut.boxes.append((place, place + 1, 1))
        return
    cut.kept.append(axis)
    if step == 0:
        raise InputFileError(f"{call.where}: steps other than 0 were wanted; got {step}")
    taken = range(*slice(begin, end, step).indices(size))
    if step < 0:
        cut.backwards[axis] = taken
        cut.boxes.append(WHOLE)
    else:
        cut.boxes.append((taken.start, taken.stop, step))


def _split(call: Call) -> tuple[Value, ...]:
    """SPLIT: axis, input; runs of one size."""
    axis, count = call.axis(call.integer(0), len(call.shape(1))), len(call.operator.outputs)
    size = known(call.shape(1)[axis])
    if size % count:
        raise InputFileError(f"{call.where}: {count} equal runs were wanted of {show_shape(call.shape(1))}")
    return _runs(call, call.value(1), axis, (size // count,) * count)


def _split_v(call: Call) -> tuple[Value, ...]:
    """SPLIT_V: input, sizes (one may be -1), axis."""
    sizes, axis = call.integers(1), call.axis(call.integer(2), len(call.shape(0)))
    rest = known(call.shape(0)[axis]) - sum(size for size in sizes if size != -1)
    return _runs(call, call.value(0), axis, tuple(rest if size == -1 else size for size in sizes))


def _runs(call: Call, x: Value, axis: int, sizes: tuple[int, ...]) -> tuple[Value, ...]:
    names = [call.network.name(number) for number in call.operator.outputs]
    return call.network.nodes(call.name, ops.Split(axis=axis, sizes=sizes), (x,), names)


def _unpack(call: Call) -> tuple[Value, ...]:
    """UNPACK: runs of one position, without their axis."""
    shape, count = call.shape(0), len(call.operator.outputs)
    axis = call.axis(call.option_or("axis", 0), len(shape))
    if shape[axis] != count:
        raise InputFileError(f"{call.where}: {count} positions along axis {axis} were wanted; got {show_shape(shape)}")
    rest = (*shape[:axis], *shape[axis + 1 :])
    inner = [call.network.inner_name(f"{call.name}/run") for _ in range(count)]
    runs = call.network.nodes(inner[0], ops.Split(axis=axis, sizes=(1,) * count), (call.value(0),), inner)
    names = (call.network.name(number) for number in call.operator.outputs)
    return tuple(
        call.network.nodes(name, ops.Reshape(shape=rest), (run,), (name,))[0]
        for name, run in zip(names, runs, strict=True)
    )


def _gather(call: Call) -> Value:
    if call.option_or("batchDims", 0):
        raise call.unsupported("batchDims other than 0 are not read")
    shape, indices = call.shape(0), call.value(1)
    axis = call.axis(call.option_or("axis", 0), len(shape))
    if shape[axis] is None:
        raise call.unsupported(f"it picks from the batch, which is open. {HINT}")
    if "int" not in call.network.dtype(indices):
        raise InputFileError(f"{call.where}: positions were wanted; got {call.network.dtype(indices)}")
    if isinstance(indices, Constant):
        low, high = call.network.bounds(indices)
        if low < 0 or high >= known(shape[axis]):
            wanted = f"positions in 0..{known(shape[axis]) - 1}"
            raise InputFileError(f"{call.where}: {wanted} were wanted; got {low}..{high}")
    return call.node(ops.Gather(axis=axis), call.value(0), indices)


def _gather_nd(call: Call) -> Value:
    """GATHER_ND: the last axis of the indices is a position along the first axes, which become one."""
    shape, indices = call.shape(0), call.vector(1)
    count = known(call.shape(1)[-1])
    if not 1 <= count <= len(shape):
        raise InputFileError(f"{call.where}: positions of 1 to {len(shape)} axes were wanted; got {count}")
    if None in shape[:count]:
        raise call.unsupported(f"it picks from the batch, which is open. {HINT}")
    if call.network.dtype(indices) not in ("int32", "int64"):
        raise InputFileError(f"{call.where}: int32 or int64 positions were wanted; got {call.network.dtype(indices)}")
    sizes = tuple(map(known, shape[:count]))
    strides = np.asarray([prod(sizes[axis + 1 :]) for axis in range(count)], call.network.dtype(indices))
    if isinstance(indices, Constant):
        if (indices.data < 0).any() or (indices.data >= sizes).any():
            raise InputFileError(f"{call.where}: positions within {show_shape(sizes)} were wanted; got others")
        places: Value = call.constant("places", np.asarray((indices.data * strides).sum(-1), strides.dtype))
    else:
        weighted = call.step("weighted", ops.Mul(), indices, call.constant("strides", strides))
        places = call.step("places", ops.Sum(axes=(len(call.shape(1)) - 1,), keep_dims=False), weighted)
    flat = call.step("flat", ops.Reshape(shape=(prod(sizes), *shape[count:])), call.value(0))
    return call.node(ops.Gather(axis=0), flat, places)


def _reverse(call: Call) -> Value:
    x = call.value(0)
    for number in call.integers(1):
        axis = call.axis(number, len(call.shape(0)))
        if call.shape(0)[axis] is None:
            raise call.unsupported(f"it turns the batch round, which is open. {HINT}")
        x = call.picked(x, axis, range(known(call.shape(0)[axis]))[::-1])
    return x


ROWS: dict[str, Row] = {
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "UNPACK": _unpack,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "REVERSE_V2": _reverse,
}
