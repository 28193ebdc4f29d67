"""Rows of the quantized operators: scales and integers become Quantize and Dequantize nodes around float operators.

passes.implicit_quantization makes operators over integers of them.
Source: onnx/onnx, docs/Operators.md; microsoft/onnxruntime, docs/ContribOperators.md.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array
from edgecnn.quantization.parameters import INTEGERS, Quantization
from edgecnn.shapes import Shape

from ._onnx_messages import DTYPES
from ._onnx_read_call import Call, Row, require
from ._onnx_read_known import FOLDS, computed
from ._onnx_read_state import Value
from ._onnx_read_stored import Stored, rearranged

MICROSOFT = "com.microsoft."

ORDERING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity")
"""Operators that exporters put between a kernel's DequantizeLinear and its layer."""


def quantization_of(scale: Array, zero: Array | None, dtype: str, shape: Shape, axis: int) -> Quantization:
    """Return what a file's scale and zero point say about a tensor.

    Args:
        scale: One number, or one for each position of the axis.
        zero: Integers of the tensor's own type, as many, or one for all; None where they are left out: 0.
        dtype: Type of the tensor's integers.
        shape: Of the tensor, in the file's order.
        axis: Of the channels, where there are several scales.

    Raises:
        InputFileError: When they contradict each other.
        UnsupportedError: When there is a scale for each block, or a type that the Graph does not have.
    """
    require(dtype in INTEGERS, f"integers of a type of {', '.join(INTEGERS)}", dtype)
    require(scale.ndim < 2 or scale.size == 1, "a scale for the tensor or for each channel", "one for each block")
    if scale.dtype.kind != "f" or scale.size == 0 or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise InputFileError(f"finite scales above 0 were wanted; found {scale.dtype} {scale.ravel()[:4].tolist()}")
    zero = np.zeros((), dtype) if zero is None else zero
    zero = np.broadcast_to(zero, scale.shape) if zero.ndim == 0 else zero
    if str(zero.dtype) != dtype or zero.size != scale.size:
        raise InputFileError(
            f"zero points of type {dtype}, as many as the {scale.size} scales, were wanted; "
            f"found {zero.size} of {zero.dtype}"
        )
    is_single = scale.size == 1
    if not is_single and not -len(shape) <= axis < len(shape):
        raise InputFileError(f"an axis in {-len(shape)}..{len(shape) - 1} was wanted; found {axis}")
    if not is_single and shape[axis] != scale.size:
        raise InputFileError(
            f"a scale for each of {shape[axis]} channels of axis {axis} was wanted; found {scale.size}"
        )
    return Quantization(
        scale=tuple(scale.astype(np.float32).ravel().tolist()),
        zero_point=tuple(zero.ravel().tolist()),
        dtype=dtype,
        axis=None if is_single else axis % len(shape),
    )


def stated(call: Call, places: tuple[int, int], dtype: str, shape: Shape, axis: int) -> Quantization:
    """Return what the scale and the zero point at two inputs say."""
    scale, zero = places
    known_zero = call.constant(zero, "zero points") if call.has(zero) else None
    return quantization_of(call.constant(scale, "scales"), known_zero, dtype, shape, axis)


def _axis(call: Call) -> int:
    require(not call.integer("block_size", 0), "a scale for the tensor or for each channel", "block_size")
    return call.integer("axis", 1)


def _integer_dtype(call: Call, position: int) -> str:
    """Return the type of an input's integers."""
    value = call.value(position)
    if not isinstance(value, str):
        return str(value.dtype)
    known = call.reading.quantized.get(value)
    return call.dtype_of(value) if known is None else known.dtype


def dequantized(call: Call, position: int, places: tuple[int, int], axis: int, *, is_direct: bool = False) -> str:
    """Return the float tensor that an input's integers stand for, made once where they are computed.

    Args:
        call: The operator.
        position: Of the integers.
        places: Of their scale and their zero point.
        axis: Of the channels, where there are several scales.
        is_direct: Whether what takes a constant takes its integers themselves.
    """
    reading, value, name = call.reading, call.value(position), call.node.inputs[position]
    found = stated(call, places, _integer_dtype(call, position), call.shape(position), axis)
    if not isinstance(value, str):
        stored = Stored(name=name, data=value, quantization=found, is_direct=is_direct)
        return reading.store(stored, is_arranged=False)
    _check_same(call, position, found)
    if value not in reading.numbers:
        free = reading.free_name(f"{name}/dequantized")
        reading.numbers[value] = _widened(replace(call, title=free, node=replace(call.node, outputs=(free,))), value)
    return reading.numbers[value]


def _check_same(call: Call, position: int, found: Quantization) -> None:
    if call.reading.quantized.get(call.tensor(position)) != found:
        name = call.node.inputs[position]
        raise UnsupportedError(f"the scale and zero point with which '{name}' was quantized were wanted; found others")


def _widened(call: Call, integers: str) -> str:
    """Return what computed integers stand for, channels-last where they are, in the file's order."""
    turned = call.reading.twins.get(integers)
    number = call.emit(ops.Dequantize(), turned or integers)
    return number if turned is None else call.first(number)


def _dequantize_linear(call: Call) -> Value:
    value = call.value(0)
    if not isinstance(value, str):
        return dequantized(call, 0, (1, 2), _axis(call))
    _check_same(call, 0, stated(call, (1, 2), _integer_dtype(call, 0), call.shape(), _axis(call)))
    return _widened(call, value)


def ordered(call: Call) -> str | None:
    """Return a constant of integers that an operator only puts into another order, or None where it is none."""
    stored = call.reading.stored.get(str(call.value(0))) if call.node.op_type in ORDERING and call.has(0) else None
    rest = [call.value(place) for place in range(1, len(call.node.inputs)) if call.has(place)]
    if stored is None or any(isinstance(value, str) for value in rest):
        return None
    call.reading.spend(stored.data.size)
    moved = rearranged(stored, lambda data: _ordered(call, data, rest))
    return None if moved is None else call.reading.store(replace(moved, name=call.output), is_arranged=False)


def _ordered(call: Call, data: Array, rest: Sequence[Value]) -> Array:
    found = computed(call, FOLDS[call.node.op_type], (data, *rest))
    if found is None:
        raise UnsupportedError(f"known operands of {call.node.op_type} were wanted; found others")
    return found


def _quantize_linear(call: Call) -> Value:
    dtype = DTYPES.get(call.integer("output_dtype", 0), "uint8")
    if call.has(2):
        dtype = str(call.constant(2, "zero points").dtype)
    found = stated(call, (1, 2), dtype, call.shape(), _axis(call))
    known = call.known(0)
    return quantized(call, call.tensor(0), found) if known is None else _rounded(known, found)


def _rounded(values: Array, found: Quantization) -> Array:
    """Return known numbers as integers: saturate(round_half_to_even(x / scale) + zero_point)."""
    rank = values.ndim
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values.astype(np.float32) / found.scales(rank)) + found.zero_points(rank)
    return np.asarray(np.clip(scaled, *found.limits).astype(found.dtype))


def quantized(call: Call, tensor: str, found: Quantization) -> str:
    """Return a float tensor as integers, channels-last where it is, in the file's order."""
    require(call.dtype_of(tensor) == "float32", "float numbers to quantize", call.dtype_of(tensor))
    require(tensor not in call.reading.quantized, "float numbers to quantize", "quantized integers")
    require(found.axis is None, "one scale for the whole of a computed tensor", "one for each channel")
    turned = call.reading.twins.get(tensor)
    made = call.emit(ops.Quantize(), turned or tensor)
    call.reading.quantized[made] = found
    return made if turned is None else call.first(made)


ROWS: dict[str, Row] = {
    "DequantizeLinear": _dequantize_linear,
    "QuantizeLinear": _quantize_linear,
    f"{MICROSOFT}DequantizeLinear": _dequantize_linear,
    f"{MICROSOFT}QuantizeLinear": _quantize_linear,
}
"""Operator, with its domain where that is not ONNX's own -> its row."""
