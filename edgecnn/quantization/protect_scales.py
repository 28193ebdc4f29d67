"""Scales that no runtime's arithmetic overflows on, however small the numbers are that they were made for.

A channel whose weights are all (nearly) zero would get a scale near zero. Three things then leave their 32 bits:

- its bias is stored in steps of in * w, so |b| / (in w) must stay below 2^30: the sum of products is added to it;
- the accumulator is multiplied by in * w / out, a fixed-point number with at most 31 leading zeros;
- the bounds of a fused ReLU6 are 6 / out in integers (TFLite refuses the model where that leaves int32).

A larger scale costs such a channel nothing: what it rounds away is far below one step of the output.

Source: TensorFlow, lite/kernels/kernel_util.cc, PopulateConvolutionQuantizationParams and
CalculateActivationRangeQuantized (no_integer_overflow_from_quantization); lite/kernels/internal/quantization_util.cc,
QuantizeMultiplier.
"""

import numpy as np

from edgecnn.graph import Array

LARGEST_BIAS = 2**30
"""In steps, so that the products' sum can be added without overflow."""

LEAST_MULTIPLIER = 2.0**-30
"""Of in * w / out; below 2^-31 no fixed-point multiplier stands for it."""

LEAST_ACTIVATION_SCALE = 2.0**-24
"""Of a whole tensor, 6e-8: 6 / scale stays below 2^27."""


def protected_scales(
    largest: Array, bias: Array | None, *, input_scale: float, output_scale: float, limit: int = 127
) -> Array:
    """Return a scale for each channel's weights that holds them, and keeps bias and multiplier within 32 bits.

    Args:
        largest: Largest absolute weight of each channel (channels,), or of the whole kernel (1,).
        bias: (out_channels,) or None.
        input_scale: Of the layer's input.
        output_scale: Of its output.
        limit: Largest integer of a weight.

    Returns:
        As many scales as `largest` has numbers, float32, all positive.

    >>> protected_scales(np.array([1.27, 0.0]), np.array([0.0, 3.0]), input_scale=0.1, output_scale=0.1).tolist()
    [0.009999999776482582, 2.7939677238464355e-08]
    """
    offsets = np.zeros(1) if bias is None else np.abs(bias.astype(np.float64))
    offsets = offsets.max(keepdims=True) if largest.size == 1 else offsets
    for_bias = offsets / (input_scale * LARGEST_BIAS)
    for_multiplier = LEAST_MULTIPLIER * output_scale / input_scale
    return np.maximum(np.maximum(largest / limit, for_bias), for_multiplier).astype(np.float32)
