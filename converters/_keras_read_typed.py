"""Readers of keras.ops whose operands or results are integers or booleans: comparisons, where, take, argmax, cast.

Keras mixes types by rules of its own; the Graph does not, so operands of several types are refused.
"""

from collections.abc import Callable

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.graph import Array
from edgecnn.ops.typed import NUMBERS

from ._keras_arguments import Source
from ._keras_call import LayerCall
from ._keras_json import show
from ._keras_read_operations import argument, axes_of, flag_of


def read_operands(op: ops.Op, *keys: str, first: int = 0) -> Callable[[LayerCall], str]:
    """Return the reader of an operation of tensors and constants, all of one type.

    Args:
        op: What it is.
        keys: Names of its operands.
        first: Operands before these are booleans.
    """

    def read(call: LayerCall) -> str:
        given = [argument(call, place, key) for place, key in enumerate(keys)]
        inputs = iter(call.inputs)
        names = [next(inputs) if isinstance(each, Source) else None for each in given]
        found = {call.builder.dtype(name) for name in names[first:] if name is not None} or {"float32"}
        if len(found) > 1:
            raise call.refuse("operands of one type", show(sorted(found)))
        dtypes = ["bool"] * first + [*found] * (len(keys) - first)
        return call.node(
            op,
            *(
                _constant(call, key, value, dtype) if name is None else name
                for name, key, value, dtype in zip(names, keys, given, dtypes, strict=True)
            ),
        )

    return read


def _constant(call: LayerCall, key: str, value: object, dtype: str) -> str:
    """Add a constant that this type holds exactly."""
    is_one = isinstance(value, bool | int | float | np.ndarray)
    values = np.asarray(value) if is_one else np.asarray(np.nan)
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise call.refuse("a tensor or a constant of numbers", show(value))
    return call.builder.constant(f"{call.name}/{key}", _exact(call, values, dtype))


def _exact(call: LayerCall, values: Array, dtype: str) -> Array:
    is_float = np.dtype(dtype).kind == "f"
    limits = None if is_float else (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if limits and (values.size and not limits[0] <= values.min() <= values.max() <= limits[1]):
        raise call.refuse(f"a constant that {dtype} holds", show(values.reshape(-1)[:4].tolist()))
    cast = values.astype(dtype)
    if not is_float and not np.array_equal(cast, values):
        raise call.refuse(f"a constant that {dtype} holds", show(values.reshape(-1)[:4].tolist()))
    return cast


def read_cast(call: LayerCall) -> str:
    """Read Cast."""
    dtype = argument(call, 1, "dtype")
    if dtype not in NUMBERS:
        raise call.refuse(f"a type of {', '.join(NUMBERS)}", show(dtype))
    return call.node(ops.Cast(dtype=str(dtype)), call.input)


def read_arg_max(call: LayerCall) -> str:
    """Read Argmax along an axis behind the batch."""
    axis = argument(call, 1, "axis")
    if axis is None:
        raise call.refuse("an axis behind the batch", "all")
    return call.node(
        ops.ArgMax(axis=axes_of(call, axis)[0], keep_dims=flag_of(call, 2, "keepdims"), dtype="int32"), call.input
    )


def read_take(call: LayerCall) -> str:
    """Read Take along a stated axis, at constant or computed positions."""
    source, indices, axis = (argument(call, place, key) for place, key in enumerate(("x", "indices", "axis")))
    inputs = iter(call.inputs)
    x = next(inputs) if isinstance(source, Source) else _constant(call, "table", source, "float32")
    shape = call.builder.shape(x)
    lowest = 1 if isinstance(source, Source) else 0
    if type(axis) is not int or not -len(shape) <= axis < len(shape) or axis % len(shape) < lowest:
        raise call.refuse(f"an axis in {lowest}..{len(shape) - 1}", show(axis))
    axis %= len(shape)
    if isinstance(indices, Source):
        return call.node(ops.Gather(axis=axis), x, next(inputs))
    values = np.asarray(indices)
    size = shape[axis] or 0
    if values.dtype.kind not in "iuf" or not np.array_equal(values, values.astype(np.int64)):
        raise call.refuse("whole numbers as indices", show(indices))
    if values.size and not -size <= values.min() <= values.max() < size:
        raise InputFileError(f"{call.config.where}: indices of {size} positions were wanted; found {show(indices)}")
    positions = values.astype(np.int64)
    name = call.builder.constant(f"{call.name}/indices", np.asarray(positions + size * (positions < 0)))
    return call.node(ops.Gather(axis=axis), x, name)
