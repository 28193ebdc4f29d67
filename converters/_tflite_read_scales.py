"""Rows of TFLite's operators between numbers and the integers that stand for them: QUANTIZE, DEQUANTIZE, FAKE_QUANT."""

from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.quantization.parameters import per_tensor

from ._tflite_read_call import Call, Row
from ._tflite_read_network import Constant, Value


def _quantize(call: Call) -> Value:
    """QUANTIZE of numbers, or of integers of another scale."""
    if call.network.dtype(call.value(0)) != "float32":
        raise InputFileError(f"{call.where}: float32 was wanted; got {call.network.dtype(call.value(0))}")
    return call.node(ops.Quantize(), call.value(0))


def _dequantize(call: Call) -> Value:
    """DEQUANTIZE: a constant of float16 is stored narrower than it computes, one of integers waits for its taker."""
    value = call.value(0)
    is_half = call.network.dtype(value) == "float16"
    if not is_half and call.network.quantization(value) is None:
        raise InputFileError(
            f"{call.where}: float16, or integers with a scale, were wanted; got {call.network.dtype(value)}"
        )
    if isinstance(value, Constant):
        return replace(value, name=call.name, dtype="float32", stored_name="" if is_half else value.name)
    return call.node(ops.Cast(dtype="float32") if is_half else ops.Dequantize(), value)


def _fake_quantize(call: Call) -> Value:
    """FAKE_QUANT: numbers rounded to one of 2^bits steps of a range that is moved until 0 is a step.

    Source: LiteRT, tflite/kernels/fake_quant.cc and tflite/kernels/internal/quantization_util.cc,
    NudgeQuantizationRange.
    """
    bits, low, high = call.option("numBits"), call.option("min"), call.option("max")
    if not (2 <= bits <= 16 and np.isfinite([low, high]).all() and low <= 0 <= high and low < high):
        raise InputFileError(f"{call.where}: 2 to 16 bits of a range around 0 were wanted; got {bits}, {low}..{high}")
    least, most = int(bool(call.option_or("narrowRange", False))), 2**bits - 1
    scale = np.float32(high - low) / np.float32(most - least)
    zero = int(np.clip(np.floor(least - np.float32(low) / scale + np.float32(0.5)), least, most))
    scales = per_tensor(float(scale), zero, "uint8" if bits <= 8 else "uint16")
    x, last = call.value(0), np.iinfo(scales.dtype).max
    if (least, most) != (0, last):
        bounds = (float(scale * np.float32(end - zero)) for end in (least, most))
        x = call.step("in_range", ops.Clip(minimum=next(bounds), maximum=next(bounds)), x)
    stored = call.step("stored", ops.Quantize(), x)
    if isinstance(stored, str):
        call.network.keep(stored, scales)
    return call.node(ops.Dequantize(), stored)


ROWS: dict[str, Row] = {"QUANTIZE": _quantize, "DEQUANTIZE": _dequantize, "FAKE_QUANT": _fake_quantize}
