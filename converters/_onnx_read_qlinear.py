"""Rows of the operators that hold Dequantize, a float operator and Quantize in one (QOperator format).

    QLinearX(x, x_scale, x_zero, ..., y_scale, y_zero) = Quantize(X(Dequantize(x), ...))

Source: onnx/onnx, docs/Operators.md; microsoft/onnxruntime, docs/ContribOperators.md.
"""

from dataclasses import dataclass, replace

import numpy as np

from edgecnn.errors import InputFileError, UnsupportedError

from . import _onnx_read_elementwise, _onnx_read_layers, _onnx_read_moving, _onnx_read_reductions, _onnx_read_windows
from ._onnx_read_call import Call, Row, require
from ._onnx_read_quantized import MICROSOFT, dequantized, quantization_of, quantized, stated
from ._onnx_read_state import Value
from ._onnx_read_stored import Stored

FLOAT_ROWS: dict[str, Row] = {
    **_onnx_read_windows.ROWS,
    **_onnx_read_layers.ROWS,
    **_onnx_read_elementwise.ROWS,
    **_onnx_read_moving.ROWS,
    **_onnx_read_reductions.ROWS,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelled:
    """An operator that holds Dequantize, a float operator and Quantize.

    Attributes:
        kind: The float operator.
        operands: Positions of (integers, scale, zero point) of its operands.
        given: Positions of (scale, zero point) of the output.
        axis: Of the channels of the second operand, where it may have several scales.
        bias: Position of an int32 bias, whose scale is the product of the operands' scales.
        version: Opset whose rules the float operator's attributes follow; None for the file's own.
    """

    kind: str
    operands: tuple[tuple[int, int, int], ...]
    given: tuple[int, int]
    axis: int = 0
    bias: int | None = None
    version: int | None = None


def _unary(kind: str, version: int | None = None) -> Row:
    return _row(Spelled(kind=kind, operands=((0, 1, 2),), given=(3, 4), version=version))


def _binary(kind: str, given: tuple[int, int] = (6, 7), bias: int | None = None, axis: int = 0) -> Row:
    return _row(Spelled(kind=kind, operands=((0, 1, 2), (3, 4, 5)), given=given, axis=axis, bias=bias))


def _row(spelled: Spelled) -> Row:
    def row(call: Call) -> Value:
        require(not call.integer("channels_last", 0), "channels first", "channels_last=1")
        inputs = [
            dequantized(call, position, (scale, zero), spelled.axis if place == 1 else 0)
            for place, (position, scale, zero) in enumerate(spelled.operands)
        ]
        if spelled.bias is not None and call.has(spelled.bias):
            inputs.append(_bias(call, spelled, spelled.bias))
        return _finished(call, spelled, inputs)

    return row


def _finished(call: Call, spelled: Spelled, inputs: list[str]) -> Value:
    """Read the float operator over these tensors, and quantize what it gives where the operator does."""
    scale, zero = spelled.given
    is_float = not call.has(scale)
    name = call.output if is_float else call.reading.free_name(f"{call.output}/float")
    call.reading.values.update({each: each for each in inputs})
    node = replace(call.node, op_type=spelled.kind, domain="", inputs=tuple(inputs), outputs=(name,))
    found = FLOAT_ROWS[spelled.kind](replace(call, node=node, version=spelled.version))
    if not isinstance(found, str):
        raise UnsupportedError(f"a computed result of {spelled.kind} was wanted; found a known one")
    if is_float:
        return found
    dtype = str(call.constant(zero, "zero points").dtype) if call.has(zero) else "uint8"
    rounding = replace(call, title=call.reading.free_name(f"{call.title}/quantize"))
    return quantized(rounding, found, stated(call, spelled.given, dtype, call.shape_of(found), 0))


def _bias(call: Call, spelled: Spelled, position: int) -> str:
    """Return a bias of int32, whose scale the operator does not state: that of the products."""
    scales = [call.constant(scale, "scales").astype(np.float32).ravel() for _, scale, _ in spelled.operands]
    product = scales[0] * scales[1] * np.float32(call.number("alpha", 1.0))
    data = call.constant(position, "bias")
    if data.dtype != np.int32:
        raise InputFileError(f"a bias of int32 was wanted; found {data.dtype}")
    found = quantization_of(product, None, "int32", data.shape, -1)
    stored = Stored(name=call.node.inputs[position], data=data, quantization=found)
    return call.reading.store(stored, is_arranged=False)


def _gemm(call: Call) -> Value | tuple[Value, ...]:
    """Read com.microsoft.QGemm: the channels of its second matrix are rows or columns."""
    axis = 0 if call.integer("transB", 0) else 1
    return _binary("Gemm", (7, 8), bias=6, axis=axis)(call)


def _softmax(call: Call) -> Value | tuple[Value, ...]:
    return _unary("Softmax", call.integer("opset", 13))(call)


def _concat(call: Call) -> Value | tuple[Value, ...]:
    """Read com.microsoft.QLinearConcat: (y_scale, y_zero, then x, x_scale, x_zero of each input)."""
    operands = tuple((place, place + 1, place + 2) for place in range(2, len(call.node.inputs), 3))
    return _row(Spelled(kind="Concat", operands=operands, given=(0, 1)))(call)


ROWS: dict[str, Row] = {
    "QLinearConv": _binary("Conv", bias=8),
    "QLinearMatMul": _binary("MatMul", axis=-1),
    f"{MICROSOFT}QGemm": _gemm,
    f"{MICROSOFT}QLinearAdd": _binary("Add"),
    f"{MICROSOFT}QLinearAveragePool": _unary("AveragePool"),
    f"{MICROSOFT}QLinearConcat": _concat,
    f"{MICROSOFT}QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    f"{MICROSOFT}QLinearLeakyRelu": _unary("LeakyRelu"),
    f"{MICROSOFT}QLinearMul": _binary("Mul"),
    f"{MICROSOFT}QLinearReduceMean": _unary("ReduceMean", 13),
    f"{MICROSOFT}QLinearSigmoid": _unary("Sigmoid"),
    f"{MICROSOFT}QLinearSoftmax": _softmax,
}
"""Operator, with its domain where that is not ONNX's own -> its row."""
