"""Rows of the operators that work element by element. Source of the definitions: onnx/onnx, docs/Operators.md."""

from functools import reduce
from math import inf

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.graph import Array

from ._computed_dtype import computed_dtype
from ._onnx_messages import DTYPES
from ._onnx_read_call import Call, Row, require
from ._onnx_read_sizes import check_size
from ._onnx_read_state import Value

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def _joined(op: ops.Op) -> Row:
    """Join any number of inputs pair by pair."""

    def row(call: Call) -> Value:
        first = call.tensor(0)
        others = [call.tensor(position) for position in range(1, len(call.node.inputs))]
        if not others:
            return call.value(0)
        *inner, last = others
        found = reduce(lambda total, each: call.emit(op, total, each, suffix="joined"), inner, first)
        return call.emit(op, found, last)

    return row


def _dtype(call: Call, position: int = 0) -> str:
    return call.dtype_of(call.tensor(position))


def _div(call: Call) -> Value:
    require(_dtype(call) == "float32", "a division of floating-point numbers", _dtype(call))
    return call.emit(ops.Div(), call.tensor(0), call.tensor(1))


def _pow(call: Call) -> Value:
    exponent = call.known(1)
    if exponent is not None and exponent.size == 1 and float(exponent.ravel()[0]) == 2:
        return call.emit(ops.Mul(), call.tensor(0), call.tensor(0))
    power = call.tensor(1)
    if _dtype(call, 1) != _dtype(call):
        require(
            "int" not in _dtype(call) or "int" in _dtype(call, 1), "an exponent of the base's type", _dtype(call, 1)
        )
        power = call.emit(ops.Cast(dtype=_dtype(call)), power, suffix="exponent")
    return call.emit(ops.Pow(), call.tensor(0), power)


def _mean(call: Call) -> Value:
    count = len(call.node.inputs)
    if count == 1:
        return call.value(0)
    total = reduce(
        lambda total, position: call.emit(ops.Add(), total, call.tensor(position), suffix="total"),
        range(1, count),
        call.tensor(0),
    )
    return call.emit(ops.Mul(), total, call.made("share", 1 / count))


def _plain(op: ops.Op, inputs: int = 1) -> Row:
    return lambda call: call.emit(op, *(call.tensor(position) for position in range(inputs)))


def _leaky_relu(call: Call) -> Value:
    return call.emit(ops.LeakyReLU(slope=call.number("alpha", 0.01)), call.tensor(0))


def _elu(call: Call) -> Value:
    return call.emit(ops.ELU(alpha=call.number("alpha", 1.0)), call.tensor(0))


def _selu(call: Call) -> Value:
    x = call.emit(ops.ELU(alpha=call.number("alpha", SELU_ALPHA)), call.tensor(0), suffix="elu")
    return call.emit(ops.Mul(), x, call.made("gamma", call.number("gamma", SELU_GAMMA)))


def _celu(call: Call) -> Value:
    alpha = call.number("alpha", 1.0)
    if alpha == 1:
        return call.emit(ops.ELU(), call.tensor(0))
    factor = call.made("alpha", alpha)
    scaled = call.emit(ops.Div(), call.tensor(0), factor, suffix="scaled")
    return call.emit(ops.Mul(), call.emit(ops.ELU(), scaled, suffix="elu"), factor)


def _hard_sigmoid(call: Call) -> Value:
    op = ops.HardSigmoid(slope=call.number("alpha", 0.2), offset=call.number("beta", 0.5))
    return call.emit(op, call.tensor(0))


def _gelu(call: Call) -> Value:
    return call.emit(ops.GELU(approximate=call.text("approximate", "none") == "tanh"), call.tensor(0))


def _swish(call: Call) -> Value:
    alpha, x = call.number("alpha", 1.0), call.tensor(0)
    if alpha == 1:
        return call.emit(ops.Swish(), x)
    scaled = call.emit(ops.Mul(), x, call.made("alpha", alpha), suffix="scaled")
    return call.emit(ops.Mul(), x, call.emit(ops.Sigmoid(), scaled, suffix="sigmoid"))


def _mish(call: Call) -> Value:
    x = call.tensor(0)
    soft = call.emit(ops.Softplus(), x, suffix="softplus")
    return call.emit(ops.Mul(), x, call.emit(ops.Tanh(), soft, suffix="tanh"))


def _softsign(call: Call) -> Value:
    x = call.tensor(0)
    size = call.emit(ops.Abs(), x, suffix="abs")
    return call.emit(ops.Div(), x, call.emit(ops.Add(), size, call.made("one", 1), suffix="sum"))


def _thresholded_relu(call: Call) -> Value:
    x = call.tensor(0)
    above = call.emit(ops.Greater(), x, call.made("alpha", call.number("alpha", 1.0)), suffix="above")
    return call.emit(ops.Where(), above, x, call.made("zero", 0))


def _reciprocal(call: Call) -> Value:
    return call.emit(ops.Div(), call.made("one", 1), call.tensor(0))


def _clip(call: Call) -> Value:
    low, high = _bound(call, 1, "min", -inf), _bound(call, 2, "max", inf)
    x, dtype = call.tensor(0), _dtype(call)
    if (low, high) == (0, 6) and dtype == "float32":
        return call.emit(ops.ReLU6(), x)
    if (low, high) == (0, inf) and dtype == "float32":
        return call.emit(ops.ReLU(), x)
    if low == -inf and high == inf:
        return call.value(0)
    if low == -inf:
        return call.emit(ops.Minimum(), x, call.made("max", high, dtype))
    if high == inf:
        return call.emit(ops.Maximum(), x, call.made("min", low, dtype))
    # ONNX lets max win where it lies below min.
    return call.emit(ops.Clip(minimum=min(low, high), maximum=high), x)


def _bound(call: Call, position: int, name: str, default: float) -> float:
    """Return a bound of Clip: an attribute before opset 11, an input since; the type's own largest number is none."""
    largest = float(np.finfo(np.float32).max)
    if call.opset < 11:
        found = call.number(name, default)
    else:
        if not call.has(position):
            return default
        values = call.constant(position, name)
        if values.size != 1:
            raise InputFileError(f"one number for {name} was wanted; found {values.shape}")
        found = float(values.ravel()[0])
        largest = float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else largest
    return default if abs(found) >= largest and (found > 0) == (default > 0) else found


def _prelu(call: Call) -> Value:
    rank = len(call.shape())

    def without_batch(slope: Array) -> Array:
        return slope[0] if rank > 1 and slope.ndim == rank and len(slope) == 1 else slope

    slope = call.known(1)
    return call.emit(
        ops.PReLU(),
        call.tensor(0),
        call.tensor(1) if slope is None else call.arranged(1, f"slope {rank}", without_batch),
    )


def _cast(call: Call) -> Value:
    """Read Cast; between floating-point types nothing is left, for the Graph computes in float32."""
    number = call.integer("to", 0)
    require(number in DTYPES, "a type of numbers", f"to={number}")
    dtype = computed_dtype(DTYPES[number])
    is_same = dtype == _dtype(call) and call.tensor(0) not in call.reading.quantized
    return call.value(0) if is_same else call.emit(ops.Cast(dtype=dtype), call.tensor(0))


def _pass_on(call: Call) -> Value:
    return call.value(0)


def _dropout(call: Call) -> Value | tuple[Value, ...]:
    training = call.known(2) if call.has(2) else np.zeros(1, bool)
    require(training is not None and not training.any(), "training_mode=false", "another one")
    if not call.gives(1):
        return call.value(0)
    shape = call.shape()
    require(None not in shape, "a mask of fixed size", "one of the symbolic batch")
    check_size(shape)
    return call.value(0), np.ones([size or 0 for size in shape], bool)


ROWS: dict[str, Row] = {
    **{"Add": _joined(ops.Add()), "Sum": _joined(ops.Add()), "Sub": _joined(ops.Sub()), "Mul": _joined(ops.Mul())},
    **{"Max": _joined(ops.Maximum()), "Min": _joined(ops.Minimum()), "Div": _div, "Pow": _pow, "Mean": _mean},
    **{"Relu": _plain(ops.ReLU()), "Sigmoid": _plain(ops.Sigmoid()), "Tanh": _plain(ops.Tanh())},
    **{"Softplus": _plain(ops.Softplus()), "HardSwish": _plain(ops.HardSwish()), "HardSigmoid": _hard_sigmoid},
    **{"LeakyRelu": _leaky_relu, "Elu": _elu, "Selu": _selu, "Celu": _celu, "Gelu": _gelu, "Swish": _swish},
    **{"Mish": _mish, "Softsign": _softsign, "ThresholdedRelu": _thresholded_relu, "Reciprocal": _reciprocal},
    **{"Clip": _clip, "PRelu": _prelu, "Cast": _cast, "Identity": _pass_on, "Dropout": _dropout},
    **{"Exp": _plain(ops.Exp()), "Log": _plain(ops.Log()), "Sqrt": _plain(ops.Sqrt()), "Abs": _plain(ops.Abs())},
    **{"Neg": _plain(ops.Neg()), "Floor": _plain(ops.Floor()), "Ceil": _plain(ops.Ceil()), "Erf": _plain(ops.Erf())},
    **{"Round": _plain(ops.Round()), "Sin": _plain(ops.Sin()), "Cos": _plain(ops.Cos())},
    **{"Equal": _plain(ops.Equal(), 2), "Greater": _plain(ops.Greater(), 2), "Less": _plain(ops.Less(), 2)},
    **{"GreaterOrEqual": _plain(ops.GreaterOrEqual(), 2), "LessOrEqual": _plain(ops.LessOrEqual(), 2)},
    **{
        "And": _plain(ops.And(), 2),
        "Or": _plain(ops.Or(), 2),
        "Not": _plain(ops.Not()),
        "Where": _plain(ops.Where(), 3),
    },
}
