"""Rows of layers that work element by element, matrix products and reductions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.shapes import Shape

from ._computed_dtype import computed_dtype
from ._openvino_read_call import Call, Known, Row
from ._openvino_read_integers import converted

ELEMENTS = {
    **{"f32": "float32", "f16": "float16", "f64": "float64", "bf16": "float32", "boolean": "bool"},
    **{"i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8", "u8": "uint8"},
}
"""Element type -> NumPy's name of what the Graph computes it in."""


def _plain(op: ops.Op) -> Row:
    return lambda call: call.node(op, call.tensor(0))


def _pair(op: ops.Op) -> Row:
    def read(call: Call) -> str | None:
        if call.layer.number in call.reading.absorbed:
            return next(value for value in (call.value(0), call.value(1)) if isinstance(value, str))
        if call.text("auto_broadcast", "numpy") not in ("numpy", "none"):
            return None
        return call.node(op, call.tensor(0), call.tensor(1))

    return read


def _squared_difference(call: Call) -> str:
    difference = call.step("difference", ops.Sub(), call.tensor(0), call.tensor(1))
    return call.node(ops.Mul(), difference, difference)


def _clamp(call: Call) -> str:
    low, high = call.number("min", 0.0), call.number("max", 0.0)
    return call.node(ops.ReLU6() if (low, high) == (0, 6) else ops.Clip(minimum=low, maximum=high), call.tensor(0))


def _swish(call: Call) -> str:
    """Multiply by sigmoid(beta x), with a beta of 1 where it is left out."""
    beta = call.known(1)
    if len(call) < 2 or (beta is not None and beta.size == 1 and float(beta.reshape(())) == 1):
        return call.node(ops.Swish(), call.tensor(0))
    gate = call.step("gate", ops.Sigmoid(), call.step("scaled", ops.Mul(), call.tensor(0), call.tensor(1)))
    return call.node(ops.Mul(), call.tensor(0), gate)


def _hard_sigmoid(call: Call) -> str | None:
    slope, offset = call.known(1), call.known(2)
    if slope is None or offset is None or slope.size != 1 or offset.size != 1:
        return None
    return call.node(ops.HardSigmoid(slope=float(slope.reshape(())), offset=float(offset.reshape(()))), call.tensor(0))


def _gelu(call: Call) -> str:
    return call.node(ops.GELU(approximate=call.text("approximation_mode", "erf") == "tanh"), call.tensor(0))


def _round(call: Call) -> str | None:
    return call.node(ops.Round(), call.tensor(0)) if call.text("mode", "half_to_even") == "half_to_even" else None


def _prelu(call: Call) -> str | None:
    """A vector of slopes belongs to axis 1 where it has one for each channel; otherwise slopes broadcast."""
    slope, shape = call.known(1), call.shape()
    if slope is None:
        return None
    if slope.size == 1:
        return call.node(ops.LeakyReLU(slope=float(slope.reshape(()))), call.tensor(0))
    is_vector = slope.ndim == 1 and len(shape) > 1 and slope.size == shape[1]
    target = (slope.size, *[1] * (len(shape) - 2)) if is_vector else slope.shape
    arranged = call.arranged(1, lambda data: data.reshape(target))
    return None if arranged is None else call.node(ops.PReLU(), call.tensor(0), arranged)


def _convert(call: Call) -> str | None:
    wanted = ELEMENTS.get(call.text("destination_type", ""))
    if wanted is None:
        return None
    stored = converted(call)
    if stored is not None:
        return stored
    dtype = computed_dtype(wanted)
    source = call.tensor(0)
    if dtype == call.reading.dtype(call.value(0)):
        return source
    return call.node(ops.Cast(dtype=dtype), source)


def _softmax(call: Call) -> str:
    rank = len(call.shape())
    axis = call.axis(call.integer("axis", 1), rank)
    order = (*(each for each in range(rank) if each != axis), axis)
    y = call.node(ops.Softmax(), call.turned(call.tensor(0), order, "last"))
    return call.turned(y, [order.index(each) for each in range(rank)], "back")


def _matmul(call: Call) -> str | None:
    """A product with a constant matrix is a Dense; an Add of one number per output behind it is its bias."""
    ranks = len(call.shape(0)), len(call.shape(1))
    if min(ranks) < 2:
        return None
    a = _flipped(call, call.tensor(0), ranks[0], "a") if call.flag("transpose_a", default=False) else call.tensor(0)
    is_turned = call.flag("transpose_b", default=False)
    if isinstance(call.value(1), Known) and ranks[1] == 2:
        kernel: Any = call.arranged(1, lambda data: data.T if is_turned else data)
        features = call.reading.builder.shape(kernel)[-1]
        return call.node(ops.Dense(), a, kernel, *call.absorbed_bias(_of_features(features, ranks[0])))
    b = _flipped(call, call.tensor(1), ranks[1], "b") if is_turned else call.tensor(1)
    return call.node(ops.MatMul(), a, b)


def _of_features(features: int | None, rank: int) -> Callable[[Shape], bool]:
    return lambda shape: len(shape) <= rank and shape[-1:] == (features,) and set(shape[:-1]) <= {1}


def _flipped(call: Call, tensor: str, rank: int, label: str) -> str:
    return call.turned(tensor, (*range(rank - 2), rank - 1, rank - 2), label)


def _reduction(kind: Callable[..., ops.Op]) -> Row:
    def read(call: Call) -> str | None:
        axes = call.axes(1, len(call.shape()))
        if axes is None:
            return None
        return call.node(kind(axes=axes, keep_dims=call.flag("keep_dims", default=False)), call.tensor(0))

    return read


def _norm(call: Call) -> str | None:
    """ReduceL2: the root of the sum of squares."""
    axes = call.axes(1, len(call.shape()))
    if axes is None:
        return None
    squares = call.step("squares", ops.Mul(), call.tensor(0), call.tensor(0))
    total = call.step("sum", ops.Sum(axes=axes, keep_dims=call.flag("keep_dims", default=False)), squares)
    return call.node(ops.Sqrt(), total)


def _where(call: Call) -> str:
    return call.node(ops.Where(), call.tensor(0), call.tensor(1), call.tensor(2))


def _shape_of(call: Call) -> str | None:
    shape = call.shape()
    dtype = ELEMENTS.get(call.text("output_type", "i64"), "int64")
    return None if None in shape else call.constant("shape", np.asarray(shape, dtype))


PAIRS: dict[str, ops.Op] = {
    **{"Add": ops.Add(), "Subtract": ops.Sub(), "Multiply": ops.Mul(), "Divide": ops.Div(), "Power": ops.Pow()},
    **{"Maximum": ops.Maximum(), "Minimum": ops.Minimum(), "Equal": ops.Equal()},
    **{"Greater": ops.Greater(), "GreaterEqual": ops.GreaterOrEqual()},
    **{"Less": ops.Less(), "LessEqual": ops.LessOrEqual()},
    **{"LogicalAnd": ops.And(), "LogicalOr": ops.Or()},
}
PLAIN: dict[str, ops.Op] = {
    **{"ReLU": ops.ReLU(), "Sigmoid": ops.Sigmoid(), "HSwish": ops.HardSwish(), "HSigmoid": ops.HardSigmoid()},
    **{"SoftPlus": ops.Softplus(), "Tanh": ops.Tanh(), "Sqrt": ops.Sqrt(), "Exp": ops.Exp(), "Log": ops.Log()},
    **{"Abs": ops.Abs(), "Negative": ops.Neg(), "Floor": ops.Floor(), "Ceiling": ops.Ceil()},
    **{"Sin": ops.Sin(), "Cos": ops.Cos(), "Erf": ops.Erf(), "LogicalNot": ops.Not()},
}
ROWS: dict[str, Row] = {
    **{kind: _pair(op) for kind, op in PAIRS.items()},
    **{kind: _plain(op) for kind, op in PLAIN.items()},
    "SquaredDifference": _squared_difference,
    "Clamp": _clamp,
    "Elu": lambda call: call.node(ops.ELU(alpha=call.number("alpha", 1.0)), call.tensor(0)),
    "Swish": _swish,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Round": _round,
    "PReLU": _prelu,
    "Convert": _convert,
    "SoftMax": _softmax,
    "MatMul": _matmul,
    "ReduceMean": _reduction(ops.Mean),
    "ReduceSum": _reduction(ops.Sum),
    "ReduceMax": _reduction(ops.Max),
    "ReduceMin": _reduction(ops.Min),
    "ReduceProd": _reduction(ops.Prod),
    "ReduceL2": _norm,
    "Select": _where,
    "ShapeOf": _shape_of,
}
"""Layer type -> how it is read."""
