"""Readers of keras.ops in functional models: arithmetic with constants, reductions, slices and the like.

An operation's parameters stand in its configuration or among its call's arguments. Source: Keras 3,
keras/src/ops/numpy.py, nn.py, image.py; the class names are those of the operations there.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.graph import Array

from ._keras_arguments import Source
from ._keras_call import LARGEST, LONGEST, LayerCall
from ._keras_json import show
from ._keras_read_moving import METHODS, reshaped

PAD_MODES = ("constant", "reflect", "edge")

EPSILON = 1e-7
"""Of keras.ops.normalize where none is stated: keras.config.epsilon()."""


def argument(call: LayerCall, position: int, key: str, default: Any = None) -> Any:
    """Return a parameter: from the configuration, the keywords, or the position among the arguments."""
    for values in (call.config.values, call.arguments.keywords):
        if values.get(key) is not None:
            return values[key]
    positional = call.arguments.positional
    return positional[position] if len(positional) > position else default


def _integers(call: LayerCall, what: str, value: object, *, minimum: int = -LONGEST) -> tuple[int, ...]:
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if len(values) > LONGEST or any(type(each) is not int or not minimum <= each <= LARGEST for each in values):
        raise InputFileError(f"{call.config.where}: {what}: integers were wanted; found {show(value)}")
    return tuple(values)


def axes_of(call: LayerCall, value: object) -> tuple[int, ...]:
    """Return axes counted from 0, never the batch."""
    rank = len(call.shape)
    axes = _integers(call, "axis", value)
    if any(not -rank <= axis < rank or axis % rank == 0 for axis in axes):
        raise call.refuse(f"axes in 1..{rank - 1}", show(value))
    return tuple(axis % rank for axis in axes)


def flag_of(call: LayerCall, position: int, key: str) -> bool:
    """Return a parameter that is true or false."""
    value = argument(call, position, key, default=False)
    if not isinstance(value, bool):
        raise InputFileError(f"{call.config.where}: {key}: true or false was wanted; found {show(value)}")
    return value


def read_binary(op: type[ops.Op]) -> Callable[[LayerCall], str]:
    """Return the reader of an operation of two tensors, one of which may be a constant."""

    def read(call: LayerCall) -> str:
        operands = (argument(call, 0, "x1", argument(call, 0, "x")), argument(call, 1, "x2", argument(call, 1, "y")))
        inputs = iter(call.inputs)
        names = [
            next(inputs) if isinstance(each, Source) else call.constant(f"operand_{index}", _constant(call, each))
            for index, each in enumerate(operands)
        ]
        return call.node(op(), *names)

    return read


def _constant(call: LayerCall, value: object) -> Array:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    values = np.asarray(value, np.float32) if is_number or isinstance(value, np.ndarray) else None
    if values is None or not np.isfinite(values).all():
        raise call.refuse("a tensor or a constant of numbers", show(value))
    return values


def read_with(op: ops.Op, *, constant: float, is_first: bool = False) -> Callable[[LayerCall], str]:
    """Return the reader of an operation that is an operator with a fixed constant."""

    def read(call: LayerCall) -> str:
        pair = (call.input, call.constant("operand_1", constant))
        return call.node(op, *(reversed(pair) if is_first else pair))

    return read


def read_square(call: LayerCall) -> str:
    """Read Square."""
    return call.node(ops.Mul(), call.input, call.input)


def read_clip(call: LayerCall) -> str:
    """Read Clip."""
    low, high = (float(_constant(call, argument(call, n, key)).reshape(())) for n, key in ((1, "x_min"), (2, "x_max")))
    return call.node(ops.Clip(minimum=low, maximum=high), call.input)


def read_leaky_relu(call: LayerCall) -> str:
    """Read LeakyRelu."""
    return call.node(ops.LeakyReLU(slope=call.config.number("negative_slope", 0.2)), call.input)


def read_elu(call: LayerCall) -> str:
    """Read Elu."""
    return call.node(ops.ELU(alpha=call.config.number("alpha", 1.0)), call.input)


def read_gelu(call: LayerCall) -> str:
    """Read Gelu."""
    return call.node(ops.GELU(approximate=call.config.flag("approximate", default=True)), call.input)


def read_softmax(call: LayerCall) -> str:
    """Read Softmax over the last axis."""
    if axes_of(call, argument(call, 1, "axis", -1)) != (len(call.shape) - 1,):
        raise call.refuse("the last axis", show(argument(call, 1, "axis")))
    return call.node(ops.Softmax(), call.input)


def read_reduction(
    op: type[ops.Mean] | type[ops.Sum] | type[ops.Max] | type[ops.Min] | type[ops.Prod],
) -> Callable[[LayerCall], str]:
    """Return the reader of a reduction over axes behind the batch."""

    def read(call: LayerCall) -> str:
        axes = argument(call, 1, "axis")
        if axes is None:
            raise call.refuse("axes behind the batch", "all")
        for key in ("initial", "dtype"):
            if call.config.values.get(key) is not None:
                raise call.refuse(f"no {key}", show(call.config.values[key]))
        return call.node(op(axes=axes_of(call, axes), keep_dims=flag_of(call, 2, "keepdims")), call.input)

    return read


def read_reshape(call: LayerCall) -> str:
    """Read Reshape; the first size is the batch."""
    shape = _integers(call, "newshape", argument(call, 1, "newshape", argument(call, 1, "shape")), minimum=-1)
    if not shape or shape[0] not in (-1, call.shape[0]):
        raise call.refuse("a first axis that stays the batch", show(shape))
    return call.node(reshaped(call, shape[1:]), call.input)


def read_transpose(call: LayerCall) -> str:
    """Read Transpose."""
    axes = _integers(call, "axes", argument(call, 1, "axes"))
    if axes[0] != 0:
        raise call.refuse("axes that leave the batch first", show(axes))
    return call.node(ops.Transpose(permutation=tuple(axis % len(call.shape) for axis in axes)), call.input)


def read_expand_dims(call: LayerCall) -> str:
    """Read ExpandDims."""
    shape = list(call.shape)
    for axis in _integers(call, "axis", argument(call, 1, "axis")):
        place = axis % (len(shape) + 1)
        if place == 0:
            raise call.refuse("an axis behind the batch", show(axis))
        shape.insert(place, 1)
    return call.node(ops.Reshape(shape=tuple(shape)), call.input)


def read_squeeze(call: LayerCall) -> str:
    """Read Squeeze of stated axes."""
    axes = axes_of(call, argument(call, 1, "axis"))
    if any(call.shape[axis] != 1 for axis in axes):
        raise InputFileError(f"{call.config.where}: axes of size 1 were wanted; found {show(axes)} of {call.shape}")
    return call.node(ops.Reshape(shape=tuple(n for axis, n in enumerate(call.shape) if axis not in axes)), call.input)


def read_concatenate(call: LayerCall) -> str:
    """Read Concatenate."""
    rank = len(call.builder.shape(call.inputs[0])) if call.inputs else 0
    axes = _integers(call, "axis", argument(call, 1, "axis", 0))
    if len(axes) != 1 or not -rank <= axes[0] < rank or axes[0] % rank == 0:
        raise call.refuse(f"an axis in 1..{rank - 1}", show(axes))
    return call.node(ops.Concat(axis=axes[0] % rank), *call.inputs)


def read_pad(call: LayerCall) -> str:
    """Read Pad."""
    mode = argument(call, 2, "mode", "constant")
    if mode not in PAD_MODES:
        raise call.refuse(f"a mode of {', '.join(PAD_MODES)}", show(mode))
    rows = argument(call, 1, "pad_width")
    pairs = [_integers(call, "pad_width", row, minimum=0) for row in rows] if isinstance(rows, list | tuple) else []
    if len(pairs) != len(call.shape) or any(len(pair) != 2 for pair in pairs) or any(pairs[0]):
        raise call.refuse("(before, after) for every axis, (0, 0) for the batch", show(rows))
    value = float(_constant(call, argument(call, 3, "constant_values", 0.0)).reshape(()))
    return call.node(ops.Pad(padding=tuple((a, b) for a, b in pairs), value=value, mode=mode), call.input)


def read_get_item(call: LayerCall) -> str:
    """Read x[...]: slices with positive steps, and integers, which drop their axis."""
    key = argument(call, 1, "key")
    keys = list(key) if isinstance(key, tuple) else [key]
    rank = len(call.shape)
    if Ellipsis in keys:
        place = keys.index(Ellipsis)
        keys[place : place + 1] = [slice(None)] * (rank - len(keys) + 1)
    keys += [slice(None)] * (rank - len(keys))
    if len(keys) != rank or any(type(each) not in (slice, int) for each in keys) or keys[0] != slice(None):
        raise call.refuse("slices and integers behind a whole batch", show(keys))
    boxes = [_box(call, each, size or 0) for each, size in zip(keys[1:], call.shape[1:], strict=True)]
    begin, end, step = zip((0, None, 1), *boxes, strict=True)
    dropped = [axis for axis, each in enumerate(keys) if type(each) is int]
    x = call.node(ops.Slice(begin=begin, end=end, step=step), call.input, suffix="/slice" if dropped else "")
    if not dropped:
        return x
    kept = tuple(size for axis, size in enumerate(call.builder.shape(x)) if axis not in dropped)
    return call.node(ops.Reshape(shape=kept), x)


def _box(call: LayerCall, key: slice | int, size: int) -> tuple[int, int, int]:
    if isinstance(key, int):
        place = key + size if key < 0 else key
        key = slice(place, place + 1)
    if key.step is not None and key.step < 1:
        raise call.refuse("a positive step", show(key))
    return key.indices(size)


def read_split(call: LayerCall) -> tuple[str, ...]:
    """Read Split into equal parts, or at stated places."""
    (axis,) = axes_of(call, argument(call, 2, "axis", 0))
    places = argument(call, 1, "indices_or_sections")
    size = call.sizes[axis - 1]
    if isinstance(places, int):
        if not 0 < places <= size or size % places:
            raise InputFileError(f"{call.config.where}: parts that divide {size} were wanted; found {show(places)}")
        sizes = (size // places,) * places
    else:
        bounds = [0, *_integers(call, "indices_or_sections", places, minimum=0), size]
        sizes = tuple(end - begin for begin, end in pairwise(bounds))
    outputs = [f"{call.name}/{index}" for index in range(len(sizes))]
    return call.builder.nodes(call.name, ops.Split(axis=axis, sizes=sizes), (call.input,), outputs)


def read_tile(call: LayerCall) -> str:
    """Read Tile; repeats of fewer axes are of the last ones."""
    repeats = _integers(call, "repeats", argument(call, 1, "repeats"), minimum=1)
    multiples = (1,) * (len(call.shape) - len(repeats)) + repeats
    if len(multiples) != len(call.shape) or multiples[0] != 1:
        raise call.refuse("a batch that is not repeated", show(repeats))
    return call.node(ops.Tile(multiples=multiples), call.input)


def read_round(call: LayerCall) -> str:
    """Read Round to whole numbers."""
    if argument(call, 1, "decimals", 0) != 0:
        raise call.refuse("decimals=0", show(argument(call, 1, "decimals")))
    return call.node(ops.Round(), call.input)


def read_normalize(call: LayerCall) -> str:
    """Read Normalize by the Euclidean norm over the last axis."""
    if axes_of(call, argument(call, 1, "axis", -1)) != (len(call.shape) - 1,) or argument(call, 2, "order", 2) != 2:
        raise call.refuse("the last axis and order=2", show(dict(call.config.values)))
    epsilon = argument(call, 3, "epsilon", EPSILON)
    if not isinstance(epsilon, float) or not 0 < epsilon < np.inf:
        raise call.refuse("a positive epsilon", show(epsilon))
    return call.node(ops.L2Normalize(epsilon=epsilon), call.input)


def read_resize(call: LayerCall) -> str:
    """Read image.Resize."""
    for key in ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio"):
        if call.config.flag(key, default=False):
            raise call.refuse(f"{key}=False", f"{key}=True")
    method = call.config.text("interpolation", "bilinear")
    if method not in METHODS or call.config.values.get("data_format") not in (None, "channels_last"):
        raise call.refuse(f"one of the interpolations {', '.join(METHODS)}, channels last", show(method))
    return call.node(ops.Resize(size=_integers(call, "size", argument(call, 1, "size")), method=method), call.input)  # type: ignore[arg-type]


def read_matmul(call: LayerCall) -> str:
    """Read Matmul: with a constant matrix on the right a Dense layer without bias, else a product of two tensors."""
    kernel = argument(call, 1, "x2")
    if len(call.inputs) == 2:
        return call.node(ops.MatMul(), *call.inputs)
    if not isinstance(kernel, np.ndarray) or kernel.ndim != 2:
        raise call.refuse("two tensors, or a constant matrix on the right", show(kernel))
    return call.node(ops.Dense(), call.input, call.constant("kernel", kernel))
