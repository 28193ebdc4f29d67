"""The integers of a layer: kernel int8 symmetric around 0, bias in the scale of the products."""

from dataclasses import dataclass

import numpy as np

from edgecnn.graph import Array
from edgecnn.quantization.parameters import Quantization, per_channel, per_tensor

LARGEST_BIAS = 2.0**30
"""Of an int32 bias: the sums of products need the rest. tflite-runtime 2.14 refuses models that could overflow."""

SMALLEST_MULTIPLIER = 2.0**-24
"""Of input scale * kernel scale / output scale: what vanishes below it is rounded away in any case."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LayerIntegers:
    """What a layer's constants become.

    Attributes:
        kernel: int8, in the Graph's order.
        kernel_quantization: Per output channel (last axis) or for the whole kernel.
        bias: int32, or int64 beside 16-bit activations.
        bias_quantization: Of scale input * kernel; per output channel where the kernel is.
    """

    kernel: Array
    kernel_quantization: Quantization
    bias: Array
    bias_quantization: Quantization


def kernel_quantization(kernel: Array, limit: int, *, is_per_channel: bool, floor: Array | float = 0.0) -> Quantization:
    """Return the scales in which the largest weight of each channel (or of all) is the largest integer.

    Args:
        kernel: (..., out_channels).
        limit: The largest integer; the smallest is its opposite.
        is_per_channel: Whether each output channel gets a scale of its own.
        floor: No scale is smaller: (out_channels,) or a number.
    """
    axes = tuple(range(kernel.ndim - 1)) if is_per_channel else None
    largest = np.abs(kernel).max(axis=axes)
    scales = np.maximum(largest / limit, np.asarray(floor))
    scales = np.where(scales > 0, scales, 1 / limit)
    if is_per_channel:
        return per_channel(np.broadcast_to(scales, kernel.shape[-1:]), axis=kernel.ndim - 1)
    return per_tensor(float(scales.max()))


def layer_integers(
    kernel: Array,
    bias: Array | None,
    *,
    source: Quantization,
    output: Quantization,
    limit: int = 127,
    is_per_channel: bool = True,
) -> LayerIntegers:
    """Quantize a layer's constants.

    A channel whose weights all but vanish keeps a scale with which its bias fits int32 and its multiplier is no
    denormal: s_w >= max(|b| / (s_x 2^30), 2^-24 s_y / s_x).

    Args:
        kernel: (..., out_channels) float.
        bias: (out_channels,) float, or None for zeros.
        source: Of the activations that come in.
        output: Of those that go out.
        limit: The largest integer of a weight.
        is_per_channel: Whether each output channel gets a scale of its own.
    """
    numbers = np.zeros(kernel.shape[-1]) if bias is None else bias.astype(np.float64)
    (scale,) = source.scale
    least = np.maximum(np.abs(numbers) / LARGEST_BIAS, SMALLEST_MULTIPLIER * output.scale[0]) / scale
    found = kernel_quantization(kernel, limit, is_per_channel=is_per_channel, floor=least)
    dtype = "int64" if source.dtype == "int16" else "int32"
    scales = np.float32(scale) * np.asarray(found.scale, np.float32)
    offsets = per_channel(scales, axis=0, dtype=dtype) if is_per_channel else per_tensor(scales[0], dtype=dtype)
    return LayerIntegers(
        kernel=np.maximum(found.quantize(kernel), np.int8(-limit)),
        kernel_quantization=found,
        bias=offsets.quantize(numbers),
        bias_quantization=offsets,
    )
