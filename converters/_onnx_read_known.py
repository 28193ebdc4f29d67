"""Operators on values that are known already, computed at once in NumPy with ONNX's semantics.

These are the chains that exporters write to compute shapes: Shape, Gather, Concat, arithmetic, Reshape. What is not
here (or too large) becomes nodes over constants.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array

from ._onnx_messages import DTYPES
from ._onnx_read_call import Call, computed_dtype
from ._onnx_read_known_values import clip, cumulated, scatter_nd, standardized, widened
from ._onnx_read_sizes import LARGEST, Batch, as_sizes, check_size, resolved, sizes_of

Fold = Callable[..., Array | None]
"""(call, *known inputs) -> value, or None where it is not folded after all."""


def fold(call: Call) -> Array | None:
    """Return the value of an operator whose inputs are all known, or None where its row has to read it."""
    if call.node.op_type in ("Shape", "Size"):
        return _shape(call)
    row = FOLDS.get(call.node.op_type)
    inputs = [call.value(place) if call.has(place) else None for place in range(len(call.node.inputs))]
    needed = inputs[:1] if call.node.op_type in ("Slice", "Clip") else inputs
    is_whole = all(value is not None for value in needed)
    if row is None or not is_whole or any(isinstance(value, str) for value in inputs):
        return None
    try:
        with np.errstate(all="ignore"):
            found = row(call, *inputs)
    except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError, MemoryError) as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"its constant inputs do not fit together: {error}") from None
    return found


def _shape(call: Call) -> Array:
    sizes = sizes_of(call.shape())
    if call.node.op_type == "Size":
        return np.asarray(np.multiply.reduce(sizes)) if len(sizes) else np.asarray(1)
    return sizes[slice(call.integer("start", 0), call.integer("end", len(sizes)))]


def _broadcast(function: Callable[..., Any]) -> Fold:
    """Fold an elementwise operator of any number of inputs, joined pair by pair."""

    def row(call: Call, *values: Array) -> Array | None:
        if prod(np.broadcast_shapes(*(value.shape for value in values))) > LARGEST:
            return None
        found, *rest = (widened(value) for value in values)
        for value in rest:
            found = np.asarray(function(found, value))
        return np.asarray(found if rest else function(found))

    return row


def _divided(a: Array, b: Array) -> Array:
    """Divide; integers are cut towards zero."""
    if object in (a.dtype, b.dtype):
        return np.asarray(a // b)
    if a.dtype.kind in "iu":
        if not np.all(b):
            raise InputFileError("a divisor that is not 0 was wanted; found 0")
        return np.asarray(np.trunc(a / b).astype(a.dtype))
    return np.asarray(a / b)


def _mod(call: Call, a: Array, b: Array) -> Array:
    return np.asarray(np.fmod(a, b) if call.integer("fmod", 0) else np.mod(a, b))


def _constant(call: Call) -> Array:
    for name, dtype in (
        ("value_float", "float32"),
        ("value_floats", "float32"),
        ("value_int", "int64"),
        ("value_ints", "int64"),
    ):
        if name in call.node.attributes:
            return np.asarray(call.node.attributes[name], dtype)
    value = call.node.attributes.get("value")
    if not isinstance(value, np.ndarray):
        raise UnsupportedError(f"a constant of numbers was wanted; found {', '.join(call.node.attributes)}")
    return value


def _cast(call: Call, value: Array) -> Array | None:
    number = call.integer("to", 0)
    if number not in DTYPES:
        return None
    dtype = computed_dtype(DTYPES[number])
    if value.dtype == object or (value.dtype == np.float16 and dtype == "float32"):
        return value
    return value.astype(dtype, copy=False)


def _concat(call: Call, *values: Array) -> Array | None:
    if sum(value.size for value in values) > LARGEST:
        return None
    axis = call.axis(call.integer("axis", 0), values[0].ndim)
    return np.concatenate(
        [_as_objects(value) for value in values] if any(v.dtype == object for v in values) else values, axis
    )


def _as_objects(value: Array) -> Array:
    return value if value.dtype == object else np.array(value.tolist(), object).reshape(value.shape)


def _gather(call: Call, value: Array, indices: Array) -> Array | None:
    return (
        np.asarray(value.take(indices.astype(np.int64), axis=call.integer("axis", 0)))
        if value.size * max(indices.size, 1) <= LARGEST
        else None
    )


def _slice(call: Call, value: Array, *_: Array) -> Array:
    begin, end, axes, step = slice_bounds(call, value.ndim)
    box = [slice(None)] * value.ndim
    for axis, *bounds in zip(axes, begin, end, step, strict=True):
        low, high, stride = bounds
        box[axis] = slice(low, None if stride < 0 and high < -value.shape[axis] else high, stride)
    return value[tuple(box)]


def slice_bounds(call: Call, rank: int) -> tuple[tuple[int, ...], ...]:
    """Return (starts, ends, axes, steps) of a Slice, from its attributes (opset 9) or its inputs."""
    if call.opset < 10:
        begin, end = call.several("starts", ()), call.several("ends", ())
        axes = call.several("axes", ()) or tuple(range(len(begin)))
        step = (1,) * len(begin)
    else:
        begin, end = call.integers(1, "starts"), call.integers(2, "ends")
        axes = call.integers(3, "axes") if call.has(3) else tuple(range(len(begin)))
        step = call.integers(4, "steps") if call.has(4) else (1,) * len(begin)
    if not len(begin) == len(end) == len(axes) == len(step) or 0 in step:
        raise InputFileError(f"a start, an end and a step that is not 0 for each axis were wanted; found {step}")
    return begin, end, tuple(call.axis(axis, rank) for axis in axes), step


def _squeeze(call: Call, value: Array, *_: Array) -> Array:
    axes = call.axes(1, value.ndim, attribute_until=12)
    return np.squeeze(value, axes)


def _unsqueeze(call: Call, value: Array, *_: Array) -> Array:
    return value.reshape(unsqueezed(call, value.shape))


def unsqueezed(call: Call, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a shape with ones at an Unsqueeze's axes, which count in the new shape."""
    found = call.several("axes", ()) if call.opset < 13 else call.integers(1, "axes")
    rank, left = len(shape) + len(found), iter(shape)
    axes = {call.axis(axis, rank) for axis in found}
    if len(axes) != len(found):
        raise InputFileError(f"different axes were wanted; found {found}")
    return tuple(1 if axis in axes else next(left) for axis in range(rank))


def _reshape(call: Call, value: Array, wanted: Array) -> Array:
    return value.reshape([int(size or 0) for size in resolved(as_sizes(wanted), value.shape)])


def _transpose(call: Call, value: Array) -> Array:
    return value.transpose(call.several("perm", tuple(reversed(range(value.ndim)))))


def _constant_of_shape(call: Call, shape: Array) -> Array:
    if shape.dtype == object:
        raise UnsupportedError("a constant of fixed size was wanted; found one of the symbolic batch")
    check_size(shape.tolist())
    value = call.node.attributes.get("value", np.zeros(1, np.float32))
    return np.full([int(size) for size in shape.tolist()], np.ravel(value)[0])


def _range(call: Call, start: Array, limit: Array, delta: Array) -> Array:
    low, high, step = (np.ravel(value)[0] for value in (start, limit, delta))
    if any(isinstance(value, Batch) for value in (low, high, step)) or not step:
        raise UnsupportedError(
            "a range of fixed numbers was wanted; found one of the symbolic batch, or without a step"
        )
    check_size([max(0, int((float(high) - float(low)) / float(step)) + 1)])
    return np.arange(low, high, step, dtype=start.dtype)


def _expand(call: Call, value: Array, wanted: Array) -> Array | None:
    if wanted.dtype == object:
        return None
    shape = np.broadcast_shapes(value.shape, tuple(int(size) for size in wanted.tolist()))
    check_size(shape)
    return np.broadcast_to(value, shape)


def _tile(call: Call, value: Array, repeats: Array) -> Array | None:
    if repeats.dtype == object:
        return None
    check_size([value.size, *repeats.tolist()])
    return np.tile(value, repeats.tolist())


def _where(call: Call, condition: Array, a: Array, b: Array) -> Array:
    return np.asarray(np.where(condition.astype(bool), a, b))


def _reduced(function: Callable[..., Any]) -> Fold:
    def row(call: Call, value: Array, *_: Array) -> Array:
        until = 12 if call.node.op_type == "ReduceSum" else 17
        axes = call.axes(1, value.ndim, attribute_until=until)
        return np.asarray(function(value, axis=axes, keepdims=bool(call.integer("keepdims", 1))))

    return row


FOLDS: dict[str, Fold] = {
    "Add": _broadcast(np.add),
    "And": _broadcast(np.logical_and),
    "BatchNormalization": standardized,
    "Cast": _cast,
    "Ceil": _broadcast(np.ceil),
    "Clip": clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": cumulated,
    "Div": _broadcast(_divided),
    "Equal": _broadcast(np.equal),
    "Exp": _broadcast(np.exp),
    "Expand": _expand,
    "Floor": _broadcast(np.floor),
    "Gather": _gather,
    "Greater": _broadcast(np.greater),
    "GreaterOrEqual": _broadcast(np.greater_equal),
    "Identity": lambda call, value: value,
    "Less": _broadcast(np.less),
    "LessOrEqual": _broadcast(np.less_equal),
    "Max": _broadcast(np.maximum),
    "Min": _broadcast(np.minimum),
    "Mod": _mod,
    "Mul": _broadcast(np.multiply),
    "Neg": _broadcast(np.negative),
    "Not": _broadcast(np.logical_not),
    "Or": _broadcast(np.logical_or),
    "Pow": _broadcast(np.power),
    "Range": _range,
    "ReduceMax": _reduced(np.max),
    "ReduceMean": _reduced(np.mean),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Reshape": _reshape,
    "ScatterND": scatter_nd,
    "Slice": _slice,
    "Sqrt": _broadcast(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _broadcast(np.subtract),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
