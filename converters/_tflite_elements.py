"""What the elements of a TFLite tensor are: numbers of a named type, or integers that stand for numbers."""

from dataclasses import replace
from typing import Any

import numpy as np

from edgecnn.errors import UnsupportedError
from edgecnn.graph import Tensor
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.rules import bias_quantization

Elements = str | Quantization
"""NumPy name of the type, or how the integers stand for numbers."""


def elements_of(tensor: Tensor) -> Elements:
    """Return what a Graph tensor holds."""
    return tensor.dtype if tensor.quantization is None else tensor.quantization


def stored(elements: Elements) -> str:
    """Return the NumPy name of the type that is stored."""
    return elements if isinstance(elements, str) else elements.dtype


def lowest(elements: Elements) -> float:
    """Return the lowest number that a tensor with one scale can hold."""
    return float(np.finfo(elements).min) if isinstance(elements, str) else elements.range[0]


def exactly(value: float, elements: Elements) -> Elements:
    """Return what holds one number (not 0) exactly, in the type that others have."""
    if isinstance(elements, str):
        return elements
    low, high = elements.limits
    middle = (low + high + 1) // 2
    return Quantization(
        scale=(float(np.float32(abs(value) / (high - middle))),), zero_point=(middle,), dtype=elements.dtype
    )


def times(factor: float, elements: Elements) -> Elements:
    """Return what the same integers stand for when each number is `factor` times as large."""
    if isinstance(elements, str):
        return elements
    return replace(elements, scale=tuple(float(np.float32(factor * scale)) for scale in elements.scale))


def of_channels(own: Quantization | None, rank: int, axis: int, part: slice, where: str) -> Quantization | None:
    """Return the quantization of some output channels of a constant, arranged as TFLite has it.

    Args:
        own: Of the Graph's constant, whose last axis is that of the output channels.
        rank: Axes of the Graph's constant.
        axis: Where the output channels lie afterwards. Source: schema.fbs, QuantizationParameters.
        part: Which of them.
        where: Name of the constant.
    """
    if own is None or own.axis is None:
        return own
    if own.axis != rank - 1:
        raise UnsupportedError(
            f"{where}: tflite wants one scale for each output channel; got one along axis {own.axis}"
        )
    return replace(own, scale=own.scale[part], zero_point=own.zero_point[part], axis=axis)


def of_bias(image: Elements, kernel: Elements) -> Elements:
    """Return what a bias holds: integers of scale image * kernel, 64 bits behind 16-bit images."""
    if isinstance(image, str) or isinstance(kernel, str):
        return "float32"
    return bias_quantization(image, kernel)


def table(elements: Elements, schema: Any) -> Any:
    """Return the schema's QuantizationParameters; None for numbers that are stored as they are."""
    if isinstance(elements, str):
        return None
    return schema.QuantizationParametersT(
        scale=np.asarray(elements.scale, np.float32),
        zeroPoint=np.asarray(elements.zero_point, np.int64),
        quantizedDimension=elements.axis or 0,
    )
