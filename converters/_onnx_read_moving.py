"""Rows of the operators that move data: shapes, cutting, joining, padding. Source: onnx/onnx, docs/Operators.md.

They stay in the file's own order of axes; settle_layout turns what stands between channels-last operators.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array
from edgecnn.ops import known
from edgecnn.shapes import Shape, broadcast_shapes

from ._onnx_read_axes import as_slice, slice_bounds, unsqueezed
from ._onnx_read_blocks import moved_by_hand
from ._onnx_read_call import Call, Row, require
from ._onnx_read_layers import flattened
from ._onnx_read_sizes import as_shape, check_size, resolved
from ._onnx_read_state import Value


def _reshaped(call: Call, shape: Shape, tensor: str | None = None, suffix: str = "") -> str:
    x = call.tensor(0) if tensor is None else tensor
    if call.shape_of(x) == shape:
        return x
    before = call.shape_of(x)
    require(None not in before[1:], "a symbolic batch on the first axis", before)
    return call.emit(ops.Reshape(shape=shape), x, suffix=suffix)


def _reshape(call: Call) -> Value:
    keeps_zero = bool(call.integer("allowzero", 0))
    shape = resolved(call.sizes(1, "a shape"), call.shape(), is_zero_kept=keeps_zero)
    idiom = _group_norm(call, shape) or moved_by_hand(call, shape)
    if idiom is not None:
        return idiom
    found = _reshaped(call, shape)
    call.reading.origins.setdefault(found, ("Reshape", (call.tensor(0),)))
    return found


def _group_norm(call: Call, shape: Shape) -> str | None:
    """Return what PyTorch's GroupNorm becomes: Reshape to (N, groups, -1), InstanceNormalization, Reshape back."""
    kind, normal = call.reading.origins.get(call.tensor(0), ("", ()))
    if kind != "InstanceNormalization":
        return None
    grouped, scale, bias, epsilon = normal
    kind, source = call.reading.origins.get(grouped, ("", ()))
    if kind != "Reshape" or call.shape_of(source[0]) != shape or len(shape) < 3 or known(shape[1]) % len(scale):
        return None
    check_size(shape[1:2])
    times = known(shape[1]) // len(scale)
    operands = [call.made(name, np.repeat(values, times)) for name, values in (("gamma", scale), ("beta", bias))]
    return call.layer(ops.GroupNorm(groups=len(scale), epsilon=epsilon), call.last(source[0]), *operands)


def _flatten(call: Call) -> Value:
    shape = call.shape()
    axis = call.integer("axis", 1)
    return _reshaped(call, flattened(shape, axis if axis == len(shape) else call.axis(axis, len(shape))))


def _squeeze(call: Call) -> Value:
    shape = call.shape()
    axes = call.axes(1, len(shape), attribute_until=12)
    gone = {axis for axis, size in enumerate(shape) if size == 1} if axes is None else set(axes)
    if any(shape[axis] != 1 for axis in gone):
        raise InputFileError(f"axes of size 1 were wanted; found {sorted(gone)} of {shape}")
    return _reshaped(call, tuple(size for axis, size in enumerate(shape) if axis not in gone))


def _unsqueeze(call: Call) -> Value:
    shape = unsqueezed(call, call.shape())
    require(None not in shape[1:], "a symbolic batch on the first axis", shape)
    return _reshaped(call, shape)


def _transpose(call: Call) -> Value:
    rank = len(call.shape())
    order = call.several("perm", tuple(reversed(range(rank))))
    if order == tuple(range(rank)):
        return call.value(0)
    found = call.emit(ops.Transpose(permutation=order), call.tensor(0))
    call.reading.origins[found] = ("Transpose", (call.tensor(0), order))
    return found


def _concat(call: Call) -> Value:
    shapes = [call.shape(position) for position in range(len(call.node.inputs))]
    axis = call.axis(call.integer("axis", 1), len(shapes[0]))
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise InputFileError(f"inputs of the same number of axes were wanted; found {shapes}")
    parts = [call.tensor(position) for position, shape in enumerate(shapes) if shape[axis] != 0]
    if not parts:
        return call.value(0)
    return parts[0] if len(parts) == 1 else call.emit(ops.Concat(axis=axis), *parts)


def _split(call: Call) -> Value | tuple[Value, ...]:
    shape, count = call.shape(), len(call.node.outputs)
    axis = call.axis(call.integer("axis", 0), len(shape))
    total = known(shape[axis])
    sizes = call.several("split", ())
    if call.opset >= 13 and call.has(1):
        sizes = call.integers(1, "sizes")
    part = -(-total // count)
    sizes = sizes or tuple(min(part, total - part * place) for place in range(count))
    if len(sizes) != count or sum(sizes) != total or min(sizes) < 0:
        raise InputFileError(f"{count} sizes that add up to {total} were wanted; found {sizes}")
    if count == 1:
        return call.value(0)
    given = [
        name or call.reading.free_name(f"{call.title}/unused")
        for name, size in zip(call.node.outputs, sizes, strict=True)
        if size
    ]
    op = ops.Split(axis=axis, sizes=tuple(size for size in sizes if size))
    found = iter(call.reading.add(call.title, op, (call.tensor(0),), given))
    return tuple(next(found) if size else empty(shape, axis) for size in sizes)


def empty(shape: Shape, axis: int) -> Array:
    """Return what a part of no positions is: known, and of any batch."""
    check_size([size or 1 for size in shape])
    return np.zeros([0 if place == axis else size or 1 for place, size in enumerate(shape)], np.float32)


def _slice(call: Call) -> Value:
    shape = call.shape()
    boxes: dict[int, slice] = {}
    turned: dict[int, range] = {}
    for begin, end, axis, step in zip(*slice_bounds(call, len(shape)), strict=True):
        if begin == 0 and step == 1 and end >= 2**31 - 1:
            continue
        size = known(shape[axis])
        places = range(size)[as_slice(size, begin, end, step)]
        if not places:
            return empty(shape, axis)
        if len(places) == size and step > 0:
            continue
        if step < 0:
            check_size([len(places)])
            turned[axis] = places
        else:
            boxes[axis] = slice(places[0], places[-1] + 1, step)
    return _cut(call, boxes, turned)


def _cut(call: Call, boxes: dict[int, slice], turned: dict[int, range]) -> Value:
    """Slice some axes; a negative step is a Gather of its positions."""
    if not boxes and not turned:
        return call.value(0)
    x = call.tensor(0)
    if boxes:
        x = call.emit(_box(call.shape(), boxes), x, suffix="cut" if turned else "")
    for place, (axis, positions) in enumerate(turned.items(), start=1):
        indices = call.made("positions", positions, "int64")
        x = call.emit(ops.Gather(axis=axis), x, indices, suffix="" if place == len(turned) else "turned")
    return x


def _box(shape: Shape, boxes: dict[int, slice]) -> ops.Slice:
    whole = slice(0, None, 1)
    ranges = [boxes.get(axis, whole if size is None else slice(0, size, 1)) for axis, size in enumerate(shape)]
    return ops.Slice(
        begin=tuple(each.start for each in ranges),
        end=tuple(each.stop for each in ranges),
        step=tuple(each.step for each in ranges),
    )


def _gather(call: Call) -> Value:
    shape = call.shape()
    axis = call.axis(call.integer("axis", 0), len(shape))
    indices = call.known(1)
    if indices is None:
        return call.emit(ops.Gather(axis=axis), call.tensor(0), call.tensor(1))
    if indices.dtype.kind not in "iu":
        raise InputFileError(f"integer indices were wanted; found {indices.dtype}")
    size = known(shape[axis])
    found = np.where(indices < 0, indices + size, indices).astype(np.int64)
    if found.size == 0 or found.min() < 0 or found.max() >= size:
        raise InputFileError(f"indices below {size} were wanted; found {indices.ravel()[:8].tolist()}")
    target = (*shape[:axis], *found.shape, *shape[axis + 1 :])
    # All positions in order, as PyTorch's dynamo exporter writes as_strided, are a Reshape.
    is_whole = np.array_equal(found.ravel(), np.arange(size))
    if found.size > 1 and not is_whole:
        return call.emit(ops.Gather(axis=axis), call.tensor(0), call.made("indices", found, "int64"))
    if size == 1 or is_whole:
        return _reshaped(call, target)
    place = int(found.ravel()[0])
    box = _box(shape, {axis: slice(place, place + 1, 1)})
    if target == (*shape[:axis], 1, *shape[axis + 1 :]):
        return call.emit(box, call.tensor(0))
    return _reshaped(call, target, call.emit(box, call.tensor(0), suffix="cut"))


def _tile(call: Call) -> Value:
    repeats = call.integers(1, "repeats")
    if set(repeats) <= {1}:
        return call.value(0)
    return call.emit(ops.Tile(multiples=repeats), call.tensor(0))


def _expand(call: Call) -> Value:
    before, wanted = call.shape(), as_shape(call.sizes(1, "a shape"))
    target = broadcast_shapes(before, wanted)
    longer = (1,) * (len(target) - len(before)) + before
    x = _reshaped(call, longer, suffix="" if longer == target else "longer")
    if longer == target:
        return x
    return call.emit(ops.Tile(multiples=_times(longer, target)), x)


def _times(before: Shape, after: Shape) -> tuple[int, ...]:
    return tuple(1 if old == new else known(new) for old, new in zip(before, after, strict=True))


PAD_MODES: dict[str, Literal["constant", "reflect", "edge"]] = {
    "constant": "constant",
    "reflect": "reflect",
    "edge": "edge",
}


def _pad(call: Call) -> Value:
    shape = call.shape()
    pads = call.several("pads", ()) if call.opset < 11 else call.integers(1, "pads")
    axes = call.integers(3, "axes") if call.has(3) else tuple(range(len(shape)))
    if len(pads) != 2 * len(axes):
        raise InputFileError(f"two numbers for each of {len(axes)} axes were wanted; found {len(pads)}")
    pairs = [(0, 0)] * len(shape)
    for axis, *pair in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        pairs[call.axis(axis, len(shape))] = (pair[0], pair[1])
    mode = PAD_MODES.get(call.text("mode", "constant"))
    if mode is None:
        raise UnsupportedError(f"mode constant, reflect or edge was wanted; found mode={call.text('mode', '')}")
    x, is_grown = _shrunk(call, pairs), any(max(pair) > 0 for pair in pairs)
    if not is_grown:
        return x
    grown = tuple((max(a, 0), max(b, 0)) for a, b in pairs)
    value = _pad_value(call) if mode == "constant" else 0.0
    return call.emit(ops.Pad(padding=grown, value=value, mode=mode), x)


def _pad_value(call: Call) -> float:
    if call.opset < 11:
        return call.number("value", 0.0)
    if not call.has(2):
        return 0.0
    values = call.constant(2, "a value")
    return float(values.ravel()[0]) if values.size else 0.0


def _shrunk(call: Call, pairs: Sequence[tuple[int, int]]) -> str:
    """Return the input without what negative padding cuts off."""
    shape = call.shape()
    boxes = {
        axis: slice(max(-before, 0), known(shape[axis]) - max(-after, 0), 1)
        for axis, (before, after) in enumerate(pairs)
        if min(before, after) < 0
    }
    if not boxes:
        return call.tensor(0)
    is_all = all(max(pair) <= 0 for pair in pairs)
    return call.emit(_box(shape, boxes), call.tensor(0), suffix="" if is_all else "cut")


ROWS: dict[str, Row] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
