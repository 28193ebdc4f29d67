"""The lowest version of each operator that takes what its tensors hold; too high a one is refused by older runtimes.

Source: LiteRT, tflite/tools/versioning/op_version.cc. What an operator's options ask for, its row knows.
"""

from collections.abc import Callable, Mapping, Sequence

from edgecnn.quantization.parameters import Quantization

from ._tflite_elements import Elements, stored

_INT8, _EITHER, _BOTH, _IN_TURN = {"int8": 2}, {"int8": 2, "int16": 2}, {"int8": 2, "int16": 3}, {"int8": 2, "int16": 4}

VERSIONS: dict[str, dict[str, int]] = {
    **dict.fromkeys(("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SUM", "GREATER", "LESS_EQUAL"), _INT8),
    **dict.fromkeys(("L2_NORMALIZATION", "TRANSPOSE_CONV"), _INT8),
    **dict.fromkeys(("EXP", "LOG", "REDUCE_PROD"), _EITHER),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D", "TANH", "LOGISTIC", "CONCATENATION", "BATCH_MATMUL"), _BOTH),
    **dict.fromkeys(("SOFTMAX", "MEAN", "REDUCE_MAX", "REDUCE_MIN", "RELU6", "RSQRT", "LESS", "GREATER_EQUAL"), _BOTH),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "MAXIMUM", "MINIMUM", "SLICE", "EQUAL"), _IN_TURN),
    "PAD": {**_BOTH, "bool": 5},
    "PADV2": _BOTH,
    "CONV_2D": {"int8": 3},
    "DEPTHWISE_CONV_2D": {"int8": 3},
    "ABS": {"int8": 2, "uint8": 2, "int16": 3, "int32": 5},
    "ADD": {**_BOTH, "int64": 4},
    "ARG_MAX": {"int8": 2, "bool": 3},
    "DEQUANTIZE": {"int8": 2, "int16": 3, "float16": 3},
    "FULLY_CONNECTED": {"int8": 4},
    "GATHER": {"int8": 2, "bool": 3, "int16": 4},
    "GELU": {"int8": 2, "uint8": 2},
    "LEAKY_RELU": {"int16": 2},
    "MUL": {"int8": 2, "int16": 4, "int64": 5},
    "RELU": {"int8": 2, "uint8": 2, "int16": 3},
    "SPLIT": {"int8": 2, "int32": 3, "int16": 4},
    "STRIDED_SLICE": {"int8": 2, "bool": 3},
    "SUB": {"int8": 2, "int16": 5, "int64": 4},
    "TILE": {"int8": 3},
    "TRANSPOSE": {"int8": 2, "bool": 3, "int16": 5},
}
"""Operator -> type of its data -> version."""

DATA = {"SPLIT": 1, "TRANSPOSE_CONV": 2}
"""Operator whose data are not its first input -> which one they are."""


def version_for(kind: str, inputs: Sequence[Elements], outputs: Sequence[Elements]) -> int:
    """Return the lowest version of an operator over tensors of these elements."""
    data = inputs[DATA.get(kind, 0)] if inputs else "float32"
    of_scales = BY_SCALES.get(kind)
    version = of_scales(inputs, outputs) if of_scales else 1
    return max(version, VERSIONS.get(kind, {}).get(stored(data), 1))


def _has_channels(elements: Elements) -> bool:
    return isinstance(elements, Quantization) and elements.axis is not None


def _quantize(inputs: Sequence[Elements], outputs: Sequence[Elements]) -> int:
    return 3 if any(map(_has_channels, (*inputs, *outputs))) else 2 if stored(outputs[0]) == "int16" else 1


def _dequantize(inputs: Sequence[Elements], outputs: Sequence[Elements]) -> int:
    return 5 if _has_channels(inputs[0]) else 1


def _product(inputs: Sequence[Elements], outputs: Sequence[Elements]) -> int:
    """Return 3 where a step of the product is one of the result or more."""
    first, second, result = (
        each.scale[0] if isinstance(each, Quantization) else 0.0 for each in (*inputs[:2], outputs[0])
    )
    return 3 if result and first * second >= result else 1


def _conv(inputs: Sequence[Elements], outputs: Sequence[Elements]) -> int:
    """Return 2 for an int8 kernel over float numbers, 5 where it has a scale for each channel."""
    is_hybrid = inputs[0] == "float32" and stored(inputs[1]) == "int8"
    return (5 if _has_channels(inputs[1]) else 2) if is_hybrid else 1


def _dense(inputs: Sequence[Elements], outputs: Sequence[Elements]) -> int:
    """Return 12 for a kernel with a scale for each channel: older kernels read the first scale for all.

    op_version.cc asks for it over float numbers only; over integers the version keeps old kernels from being wrong.
    """
    return 12 if _has_channels(inputs[1]) else 1


BY_SCALES: Mapping[str, Callable[[Sequence[Elements], Sequence[Elements]], int]] = {
    "CONV_2D": _conv,
    "DEQUANTIZE": _dequantize,
    "FULLY_CONNECTED": _dense,
    "MUL": _product,
    "QUANTIZE": _quantize,
}
"""Operator -> the version that the scales of its tensors ask for."""
