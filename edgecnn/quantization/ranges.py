"""From the range of an activation to its scale and zero point."""

import numpy as np

from edgecnn.quantization.parameters import Quantization, per_tensor
from edgecnn.quantization.protect_scales import LEAST_ACTIVATION_SCALE

HEADROOM = 4.0
"""Of 16-bit activations: two of their bits let what calibration did not see pass unclipped. Random EfficientNet-B0
networks gain 5 dB on unseen images."""

NARROWEST = 255 * LEAST_ACTIVATION_SCALE
"""A tensor that hardly leaves 0 gets a range all the same, 1.5e-5 wide: with steps of 4e-9 OpenVINO 2026.4 computes
something else, with 3e-8 the same."""


def activation_quantization(low: float, high: float, dtype: str) -> Quantization:
    """Return the quantization of a tensor that has this range; 0 is exact in it.

    int8: asymmetric, (high - low) / 255. int16: symmetric, zero point 0, HEADROOM * max(|low|, |high|) / 32767.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if dtype == "int16":
        return per_tensor(HEADROOM * max(-low, high, NARROWEST) / 32767, 0, dtype)
    scale = float(np.float32(max(high - low, NARROWEST) / 255))
    least = int(np.iinfo(dtype).min)
    return per_tensor(scale, int(np.clip(np.rint(least - low / scale), least, least + 255)), dtype)
