"""Rows of TFLite's operators that work element by element, types and comparisons included."""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

import numpy as np

from edgecnn import ops
from edgecnn.quantization.axes import moved_scales

from ._tflite_read_call import Call, Row, in_float
from ._tflite_read_network import Constant, Value, is_known


def _plain(make: Callable[[Call], ops.Op], operands: int) -> Row:
    """Return the row of an operator that takes its operands as they are."""
    return lambda call: call.node(make(call), *(call.value(position) for position in range(operands)))


def _always(op: ops.Op, operands: int = 1) -> Row:
    return _plain(lambda call: op, operands)


def _square(call: Call) -> Value:
    return call.node(ops.Mul(), call.value(0), call.value(0))


def _squared_difference(call: Call) -> Value:
    difference = call.step("difference", ops.Sub(), call.value(0), call.value(1))
    return call.node(ops.Mul(), difference, difference)


def _div(call: Call) -> Value:
    if "int" in call.network.dtype(call.value(0)) and not all(is_known(value) for value in call.values()):
        raise call.unsupported("division of computed integers is not read")
    return call.node(ops.Div(), call.value(0), call.value(1))


def _floor_div(call: Call) -> Value:
    """FLOOR_DIV; of computed integers in float32, which is exact below 2^23, as positions in a picture are."""
    a, b = call.value(0), call.value(1)
    if is_known(a) and is_known(b):
        return call.on_known_integers(np.floor_divide)
    dtype = call.network.dtype(a)
    if "int" not in dtype:
        return call.node(ops.Floor(), _quotient(call, a, b))
    return call.node(ops.Cast(dtype=dtype), _whole(call, a, b))


def _floor_mod(call: Call) -> Value:
    """FLOOR_MOD: a - b * floor(a / b)."""
    a, b = call.value(0), call.value(1)
    if is_known(a) and is_known(b):
        return call.on_known_integers(np.remainder)
    if "int" in call.network.dtype(a):
        whole = call.step("times", ops.Cast(dtype=call.network.dtype(a)), _whole(call, a, b))
    else:
        whole = call.step("whole", ops.Floor(), _quotient(call, a, b))
    return call.node(ops.Sub(), a, call.step("below", ops.Mul(), whole, b))


def _quotient(call: Call, a: Value, b: Value) -> Value:
    return call.step("quotient", ops.Div(), a, b)


def _whole(call: Call, a: Value, b: Value) -> Value:
    """Return the floor of a quotient of integers, as float32."""
    a, b = (call.step("float", ops.Cast(dtype="float32"), each) for each in (a, b))
    return call.step("whole", ops.Floor(), _quotient(call, a, b))


def _add_n(call: Call) -> Value:
    first, *middle, last = call.values() if len(call) > 1 else (call.value(0), call.scalar("zero", 0.0))
    total = reduce(lambda total, each: call.step("sum", ops.Add(), total, each), middle, first)
    return call.node(ops.Add(), total, last)


def _prelu(call: Call) -> Value:
    """PRELU: the slopes have no batch, or one of 1."""
    slope, rank = call.value(1), len(call.shape(0))
    if isinstance(slope, Constant) and slope.data.ndim == rank > 1 and len(slope.data) == 1:
        slope = replace(slope, data=slope.data[0], quantization=moved_scales(slope.quantization, -1))
    return call.node(ops.PReLU(), call.value(0), slope)


def _cast(call: Call) -> Value:
    """CAST moves stored integers, whatever they stand for. Source: LiteRT, tflite/kernels/cast.cc."""
    if call.network.quantization(call.value(0)) or call.network.given(call.operator.outputs[0]):
        raise call.unsupported("it changes the type of integers that have a scale, and not what they stand for")
    dtype = call.network.stated_dtype(call.operator.outputs[0])
    return call.node(ops.Cast(dtype=dtype), call.value(0))


def _densify(call: Call) -> Value:
    """DENSIFY: a constant that is stored sparse was made dense when it was read."""
    value = call.value(0)
    if not isinstance(value, Constant):
        raise call.unsupported("a constant was wanted; it is computed")
    return value


def _select(call: Call) -> Value:
    """SELECT: a condition of one axis chooses whole rows. Source: LiteRT, tflite/kernels/select.cc."""
    condition, rank = call.value(0), len(call.shape(1))
    shape = call.network.shape(condition)
    if len(shape) == 1 and rank > 1:
        condition = call.step("rows", ops.Reshape(shape=(*shape, *(1,) * (rank - 1))), condition)
    return _where(call, condition)


def _where(call: Call, condition: Value) -> Value:
    first, second = (_narrowed(call, call.value(position)) for position in (1, 2))
    return call.node(ops.Where(), condition, first, second)


def _narrowed(call: Call, value: Value) -> Value:
    """Return a constant that is one number everywhere as that number, where the condition has the output's shape."""
    if not isinstance(value, Constant) or value.data.ndim == 0 or any(value.data.strides) or not value.data.size:
        return value
    if call.shape(0) != value.data.shape or (value.quantization and value.quantization.axis is not None):
        return value
    return replace(value, data=value.data.reshape(-1)[:1].reshape(()))


def _not_equal(call: Call) -> Value:
    return call.node(ops.Not(), call.step("equal", ops.Equal(), call.value(0), call.value(1)))


ROWS: dict[str, Row] = {
    "ADD": _always(ops.Add(), 2),
    "SUB": _always(ops.Sub(), 2),
    "MUL": _always(ops.Mul(), 2),
    "DIV": _div,
    "FLOOR_DIV": in_float(_floor_div),
    "FLOOR_MOD": in_float(_floor_mod),
    "ADD_N": in_float(_add_n),
    "POW": _always(ops.Pow(), 2),
    "MAXIMUM": _always(ops.Maximum(), 2),
    "MINIMUM": _always(ops.Minimum(), 2),
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": in_float(_squared_difference),
    "RELU": _always(ops.ReLU()),
    "RELU6": _always(ops.ReLU6()),
    "RELU_N1_TO_1": _always(ops.Clip(minimum=-1.0, maximum=1.0)),
    "RELU_0_TO_1": _always(ops.Clip(minimum=0.0, maximum=1.0)),
    "LEAKY_RELU": _plain(lambda call: ops.LeakyReLU(slope=call.option_or("alpha", 0.0)), 1),
    "PRELU": _prelu,
    "ELU": _always(ops.ELU()),
    "LOGISTIC": _always(ops.Sigmoid()),
    "TANH": _always(ops.Tanh()),
    "HARD_SWISH": _always(ops.HardSwish()),
    "GELU": _plain(lambda call: ops.GELU(approximate=bool(call.option_or("approximate", False))), 1),
    "ABS": _always(ops.Abs()),
    "NEG": _always(ops.Neg()),
    "FLOOR": _always(ops.Floor()),
    "CEIL": _always(ops.Ceil()),
    "ROUND": _always(ops.Round()),
    "SIN": _always(ops.Sin()),
    "COS": _always(ops.Cos()),
    "SQRT": _always(ops.Sqrt()),
    "RSQRT": _always(ops.Rsqrt()),
    "EXP": _always(ops.Exp()),
    "LOG": _always(ops.Log()),
    "CAST": _cast,
    "DENSIFY": _densify,
    "EQUAL": _always(ops.Equal(), 2),
    "NOT_EQUAL": _not_equal,
    "GREATER": _always(ops.Greater(), 2),
    "GREATER_EQUAL": _always(ops.GreaterOrEqual(), 2),
    "LESS": _always(ops.Less(), 2),
    "LESS_EQUAL": _always(ops.LessOrEqual(), 2),
    "LOGICAL_AND": _always(ops.And(), 2),
    "LOGICAL_OR": _always(ops.Or(), 2),
    "LOGICAL_NOT": _always(ops.Not()),
    "SELECT": _select,
    "SELECT_V2": lambda call: _where(call, call.value(0)),
}
