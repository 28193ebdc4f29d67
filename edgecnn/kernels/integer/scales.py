"""What an integer kernel knows besides its operands: their scales, the output's, the rounding and the clamp."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.kernels.integer.rounding import half_away
from edgecnn.quantization.parameters import Quantization

Rounding = Literal["float32", "fixed_point"]

ACTIVATION_RANGE: dict[type[ops.Op] | None, tuple[float, float]] = {
    None: (-np.inf, np.inf),
    ops.ReLU: (0.0, np.inf),
    ops.ReLU6: (0.0, 6.0),
}
"""Fused activation -> the real numbers between which it holds its output; others are nodes of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scales:
    """What the integers around one operator stand for.

    Attributes:
        own: Of the operands that are quantized, in order.
        given: Of the first output; per channel only where float numbers are rounded.
        rounding: How results come back to the output's integers.
        activation: The fused one.
    """

    own: tuple[Quantization, ...]
    given: Quantization
    rounding: Rounding
    activation: ops.Activation | None = None

    @property
    def is_fixed_point(self) -> bool:
        """Tell whether results are scaled by integers alone."""
        return self.rounding == "fixed_point"

    def offset(self, position: int, values: Array) -> Array:
        """Return an operand's integers less their zero point, int64."""
        return np.asarray(values.astype(np.int64) - self.own[position].zero_points(values.ndim))

    def limits(self, activation: ops.Op | None = None) -> tuple[int, int]:
        """Return the smallest and the largest integer of the output that the (fused) activation allows."""
        chosen = activation or self.activation
        bounds = np.array(ACTIVATION_RANGE[None if chosen is None else type(chosen)], np.float32)
        (low, high), (least, most) = self.given.limits, half_away(bounds / np.float32(self.given.scale[0]))
        zero = self.given.zero_point[0]
        return int(max(low, zero + least)), int(min(high, zero + most))

    def finished(self, results: Array) -> Array:
        """Return whole multiples of the output's scale as its integers: shifted, clamped, of the stored type."""
        zero = self.given.zero_point[0] if self.given.axis is None else self.given.zero_points(results.ndim)
        shifted = results + zero
        return np.asarray(np.clip(shifted, *self.limits(), out=shifted).astype(self.given.dtype))

    def nearest(self, numbers: Array) -> Array:
        """Return real numbers as the output's integers: halves to even, or away from zero in fixed point."""
        scaled = np.asarray(numbers, np.float32) / self.given.scales(np.ndim(numbers))
        return self.finished(half_away(scaled) if self.is_fixed_point else np.rint(scaled))


IntegerKernel = Callable[..., Array | tuple[Array, ...]]
"""(operator, scales, *stored operands) -> stored output, the fused activation included."""
