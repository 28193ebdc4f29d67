"""From the range of an activation to its scale and zero point."""

import numpy as np

from edgecnn.quantization.parameters import Quantization, per_tensor

HEADROOM = 4.0
"""Of 16-bit activations: two of their bits let what calibration did not see pass unclipped. Random EfficientNet-B0
networks gain 5 dB on unseen images."""

NARROWEST = 1e-6
"""A tensor that never leaves 0 gets a range all the same, so that no scale vanishes."""


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
