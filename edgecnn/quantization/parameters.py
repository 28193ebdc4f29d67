"""How integers stand for real numbers: value = scale * (integer - zero_point)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import GraphError

BYTES = ("int8", "uint8")
"""Types of 8-bit activations and kernels."""

ACTIVATIONS = (*BYTES, "int16")
"""Types of activations that integer kernels take."""

NARROW = (*ACTIVATIONS, "uint16")
"""Types whose integers usually stand for real numbers at a port; wider ones are indices, counts and biases."""

INTEGERS = (*NARROW, "int32", "int64")


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """How a tensor's integers stand for real numbers, for the whole tensor or for each channel of one axis.

    Attributes:
        scale: One positive number, exact in float32, or one for each channel.
        zero_point: The integer that stands for 0: as many as there are scales.
        dtype: NumPy name of the type that is stored.
        axis: The axis of the channels; None where one scale holds for the whole tensor.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    dtype: str
    axis: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in INTEGERS:
            raise GraphError(f"quantization: a type of {', '.join(INTEGERS)} was wanted; got {self.dtype!r}")
        if len(self.scale) != len(self.zero_point) or not self.scale or (self.axis is None and len(self.scale) > 1):
            raise GraphError(
                f"quantization: as many zero points as scales, and one of each without an axis, were wanted; "
                f"got {len(self.scale)} and {len(self.zero_point)}"
            )
        if not all(0 < scale < float("inf") for scale in self.scale):
            raise GraphError(f"quantization: finite scales above 0 were wanted; got {min(self.scale)}")
        low, high = self.limits
        if not all(low <= zero <= high for zero in self.zero_point):
            raise GraphError(f"quantization: zero points in {low}..{high} were wanted; got {self.zero_point[0]}")

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer of the type."""
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest real number that a tensor with one scale can hold."""
        (scale,), (zero,), (low, high) = self.scale, self.zero_point, self.limits
        return scale * (low - zero), scale * (high - zero)

    def scales(self, rank: int) -> NDArray[Any]:
        """Return the scales as float32 that broadcast to a tensor of this rank."""
        return np.asarray(self.scale, np.float32).reshape(self._spread(rank))

    def zero_points(self, rank: int) -> NDArray[Any]:
        """Return the zero points as int64 that broadcast to a tensor of this rank."""
        return np.asarray(self.zero_point, np.int64).reshape(self._spread(rank))

    def quantize(self, values: NDArray[Any], *, low: int | None = None) -> NDArray[Any]:
        """Return the nearest integers, half to even, saturated.

        Args:
            values: Real numbers.
            low: The smallest integer to use instead of the type's own: -127 keeps int8 weights symmetric.
        """
        least, most = self.limits
        # Rounded before the zero point comes: an odd one would turn half to even into half to odd.
        nearest = np.rint(values / self.scales(values.ndim)) + self.zero_points(values.ndim)
        return np.asarray(np.clip(nearest, least if low is None else low, most).astype(self.dtype))

    def dequantize(self, integers: NDArray[Any]) -> NDArray[Any]:
        """Return the real numbers that integers stand for, as float32."""
        wide = integers.astype(np.int64) - self.zero_points(integers.ndim)
        return np.asarray(wide.astype(np.float32) * self.scales(integers.ndim))

    def refuse_misfit(self, name: str, shape: tuple[int | None, ...], dtype: str, stored: str | None) -> None:
        """Raise GraphError where a tensor cannot hold these integers.

        Args:
            name: Of the tensor.
            shape: N, spatial..., C.
            dtype: NumPy name of the type that its arithmetic sees.
            stored: NumPy name of the type of its data; None for a value that is computed.
        """
        if dtype != "float32":
            raise GraphError(f"{name}: quantized float32 numbers were wanted; got {dtype}")
        if stored not in (None, self.dtype):
            raise GraphError(f"{name}: {self.dtype} data were wanted; got {stored}")
        if self.axis is None:
            return
        size = shape[self.axis] if 0 <= self.axis < len(shape) else None
        if size != len(self.scale):
            raise GraphError(
                f"{name}: one scale for each of {size} channels of axis {self.axis} was wanted; got {len(self.scale)}"
            )

    def _spread(self, rank: int) -> tuple[int, ...]:
        """Return the shape in which one number for each channel broadcasts to a tensor."""
        return () if self.axis is None else tuple(-1 if axis == self.axis else 1 for axis in range(rank))


def as_type(quantization: Quantization, dtype: str) -> Quantization:
    """Return the same grid of numbers in the signed or unsigned type of as many bits.

    >>> as_type(per_tensor(0.5, -128), "uint8").zero_point
    (0,)
    """
    shift = int(np.iinfo(dtype).min) - int(np.iinfo(quantization.dtype).min)
    return replace(quantization, dtype=dtype, zero_point=tuple(zero + shift for zero in quantization.zero_point))


def per_tensor(scale: float, zero_point: int = 0, dtype: str = "int8") -> Quantization:
    """Return the quantization of a whole tensor; the scale is rounded to float32."""
    return Quantization(scale=(float(np.float32(scale)),), zero_point=(int(zero_point),), dtype=dtype)


def per_channel(scales: Sequence[float] | NDArray[Any], axis: int, dtype: str = "int8") -> Quantization:
    """Return a symmetric quantization with one scale for each channel; the scales are rounded to float32."""
    rounded = tuple(np.asarray(scales, np.float32).tolist())
    return Quantization(scale=rounded, zero_point=(0,) * len(rounded), dtype=dtype, axis=axis)
