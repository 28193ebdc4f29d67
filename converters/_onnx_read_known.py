"""Operators on values that are known already, computed at once in NumPy with ONNX's semantics.

These are the chains that exporters write to compute shapes: Shape, Gather, Concat, arithmetic, Reshape. What is not
here (or too large) becomes nodes over constants.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array

from ._computed_dtype import computed_dtype
from ._onnx_messages import DTYPES
from ._onnx_read_axes import as_slice, reduced_axes, slice_bounds, unsqueezed
from ._onnx_read_call import Call
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
    costs = call.node.op_type not in PASSED_ON
    if costs:  # asked first: once a file has spent all, its further operators cost no time
        call.reading.spend(sum(value.size for value in inputs if isinstance(value, np.ndarray)))
    found = computed(call, row, inputs)
    if found is not None and costs:
        call.reading.spend(found.size)
    return found


def computed(call: Call, row: Fold, inputs: Sequence[Any]) -> Array | None:
    """Return what a row of FOLDS makes of known inputs; what NumPy refuses is a file's fault."""
    try:
        with np.errstate(all="ignore"):
            return row(call, *inputs)
    except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError, MemoryError) as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"its constant inputs do not fit together: {error}") from None


def _shape(call: Call) -> Array:
    sizes = sizes_of(call.shape())
    if call.node.op_type == "Size":
        return np.asarray(np.multiply.reduce(sizes)) if len(sizes) else np.asarray(1)
    return sizes[slice(call.integer("start", 0), call.integer("end", len(sizes)))]


def _elementwise(function: Callable[..., Any]) -> Fold:
    """Fold an operator that works element by element on inputs that it broadcasts."""

    def row(call: Call, *values: Array) -> Array | None:
        if prod(np.broadcast_shapes(*(value.shape for value in values))) > LARGEST:
            return None
        return np.asarray(function(*map(widened, values)))

    return row


def _joined(function: Callable[..., Any]) -> Fold:
    """Fold such an operator of any number of inputs, joined pair by pair."""
    pair = _elementwise(function)

    def row(call: Call, *values: Array) -> Array | None:
        found: Array | None = values[0]
        for value in values[1:]:
            found = None if found is None else pair(call, found, value)
        return found

    return row


def _divided(a: Array, b: Array) -> Array:
    """Divide; integers are cut towards zero."""
    if object in (a.dtype, b.dtype):
        return np.asarray(a // b)
    if a.dtype.kind in "iu":
        if not np.all(b):
            raise InputFileError("a divisor that is not 0 was wanted; found 0")
        return np.asarray((a - np.fmod(a, b)) // b)
    return np.asarray(a / b)


def _raised(a: Array, b: Array) -> Array:
    """Raise to a power, of any type; the base states the type of what that gives."""
    return np.asarray(np.power(a, b)).astype(a.dtype, copy=False)


def _mod(call: Call, a: Array, b: Array) -> Array | None:
    return _elementwise(np.fmod if call.integer("fmod", 0) else np.mod)(call, a, b)


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
        box[axis] = as_slice(value.shape[axis], *bounds)
    return value[tuple(box)]


def _squeeze(call: Call, value: Array, *_: Array) -> Array:
    axes = call.axes(1, value.ndim, attribute_until=12)
    return np.squeeze(value, axes)


def _unsqueeze(call: Call, value: Array, *_: Array) -> Array:
    return value.reshape(unsqueezed(call, value.shape))


def _reshape(call: Call, value: Array, wanted: Array) -> Array:
    shape = resolved(as_sizes(wanted), value.shape, is_zero_kept=bool(call.integer("allowzero", 0)))
    return value.reshape([int(size or 0) for size in shape])


def _transpose(call: Call, value: Array) -> Array:
    return value.transpose(call.several("perm", tuple(reversed(range(value.ndim)))))


def _constant_of_shape(call: Call, shape: Array) -> Array:
    if shape.dtype == object:
        raise UnsupportedError("a constant of fixed size was wanted; found one of the symbolic batch")
    check_size(shape.tolist())
    value = call.node.attributes.get("value", np.zeros(1, np.float32))
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise UnsupportedError("one number as value was wanted; found another attribute")
    return np.broadcast_to(value.reshape(()), shape.tolist())


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


def _chosen(condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition.astype(bool), a, b)


def _reduced(function: Callable[..., Any]) -> Fold:
    def row(call: Call, value: Array, *_: Array) -> Array:
        axes = reduced_axes(call)
        if axes is None:
            return value
        wide = widened(value)
        found = np.asarray(function(wide, axis=axes, keepdims=bool(call.integer("keepdims", 1))))
        return found.astype(wide.dtype, copy=False)  # NumPy adds small integers up in larger ones

    return row


PASSED_ON = ("Constant", "ConstantOfShape", "Identity")
"""Operators that cost nothing to fold."""


FOLDS: dict[str, Fold] = {
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "BatchNormalization": standardized,
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Clip": clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": cumulated,
    "Div": _elementwise(_divided),
    "Equal": _elementwise(np.equal),
    "Exp": _elementwise(np.exp),
    "Expand": _expand,
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Identity": lambda call, value: value,
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Max": _joined(np.maximum),
    "Min": _joined(np.minimum),
    "Mod": _mod,
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pow": _elementwise(_raised),
    "Range": _range,
    "ReduceMax": _reduced(np.max),
    "ReduceMean": _reduced(np.mean),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Reshape": _reshape,
    "ScatterND": scatter_nd,
    "Slice": _slice,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(_chosen),
}
