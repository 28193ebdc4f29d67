"""The integers of a layer: kernel int8 symmetric around 0, bias in the scale of the products."""

from dataclasses import dataclass

import numpy as np

from edgecnn.graph import Array
from edgecnn.quantization.parameters import Quantization, per_channel, per_tensor
from edgecnn.quantization.protect_scales import protected_scales
from edgecnn.quantization.rules import bias_quantization


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


def kernel_quantization(kernel: Array, limit: int, *, is_per_channel: bool) -> Quantization:
    """Return the scales in which the largest weight of each channel (or of all) is the largest integer.

    Args:
        kernel: (..., out_channels).
        limit: The largest integer; the smallest is its opposite.
        is_per_channel: Whether each output channel gets a scale of its own.
    """
    scales = largest_weights(kernel, is_per_channel=is_per_channel) / limit
    return _symmetric(np.where(scales > 0, scales, 1 / limit), kernel, is_per_channel=is_per_channel)


def largest_weights(kernel: Array, *, is_per_channel: bool) -> Array:
    """Return the largest absolute weight of each output channel (out_channels,), or of all (1,)."""
    return np.atleast_1d(np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)) if is_per_channel else None))


def _symmetric(scales: Array, kernel: Array, *, is_per_channel: bool) -> Quantization:
    return per_channel(scales, axis=kernel.ndim - 1) if is_per_channel else per_tensor(float(scales[0]))


def layer_integers(
    kernel: Array,
    bias: Array | None,
    *,
    source: Quantization,
    output: Quantization,
    limit: int = 127,
    is_per_channel: bool = True,
) -> LayerIntegers:
    """Quantize a layer's constants; no scale vanishes, however small the weights (see protect_scales).

    Args:
        kernel: (..., out_channels) float.
        bias: (out_channels,) float, or None for zeros.
        source: Of the activations that come in.
        output: Of those that go out.
        limit: The largest integer of a weight.
        is_per_channel: Whether each output channel gets a scale of its own.
    """
    numbers = np.zeros(kernel.shape[-1]) if bias is None else bias.astype(np.float64)
    protected = protected_scales(
        largest_weights(kernel, is_per_channel=is_per_channel),
        numbers,
        input_scale=source.scale[0],
        output_scale=output.scale[0],
        limit=limit,
    )
    found = _symmetric(protected, kernel, is_per_channel=is_per_channel)
    offsets = bias_quantization(source, found)
    return LayerIntegers(
        kernel=found.quantize(kernel, low=-limit),
        kernel_quantization=found,
        bias=offsets.quantize(numbers),
        bias_quantization=offsets,
    )
