"""What is kept of one tensor while images pass: extremes, sums of values and squares per channel, and a histogram."""

from math import isfinite

import numpy as np

from edgecnn.errors import CheckFailedError
from edgecnn.graph import Array
from edgecnn.quantization.calibration import Statistics
from edgecnn.quantization.histograms import Histogram
from edgecnn.quantization.observers import Observed, Observer, Settings


class Moments:
    """Statistics of one tensor so far; its size does not depend on how many images it has seen.

    Attributes:
        low: Smallest value so far; 0 where none is negative.
        high: Largest value so far; 0 where none is positive.
    """

    def __init__(self, name: str, observer: Observer, settings: Settings) -> None:
        self._name, self._observer, self._settings = name, observer, settings
        self._histogram = Histogram() if observer.needs_histogram else None
        self._minimum = self._maximum = self._sum = self._squares = np.zeros(0)
        self._count = self._runs = 0
        self._smooth_low = self._smooth_high = 0.0
        self.low = self.high = 0.0

    def add(self, values: Array, channel_axis: int) -> None:
        """Take the values of one image (or of a batch that cannot be parted).

        Args:
            values: float32, any rank.
            channel_axis: 1 for N, C, spatial...; -1 for N, spatial..., C.

        Raises:
            CheckFailedError: When one of them is not a finite number.
        """
        if not values.size:
            return
        rows = _channels(values, channel_axis)
        axis = 1 if channel_axis == 1 else 0
        minimum, maximum = rows.min(axis=axis), rows.max(axis=axis)
        low, high = float(minimum.min()), float(maximum.max())
        if not (isfinite(low) and isfinite(high)):
            raise CheckFailedError(
                f"{self._name}: finite values were wanted to calibrate on; image {self._runs + 1} gives "
                f"{low if not isfinite(low) else high}. Is its range what the network was trained on?"
            )
        self._take(minimum, maximum, *_sums(rows, axis), rows.shape[axis])
        self._smooth(low, high)
        if self._histogram is not None:
            self._histogram.add(values, max(-low, high))

    def statistics(self) -> Statistics:
        """Return what was seen, with the range that the observer chooses."""
        grown = 1 - self._settings.momentum**self._runs or 1.0
        seen = Observed(
            low=self.low,
            high=self.high,
            smooth_low=self._smooth_low / grown,
            smooth_high=self._smooth_high / grown,
            histogram=self._histogram,
        )
        low, high = self._observer.choose(seen, self._settings)
        mean = self._sum / max(self._count, 1)
        return Statistics(
            low=float(low),
            high=float(high),
            minimum=self._minimum,
            maximum=self._maximum,
            mean=mean,
            variance=np.maximum(self._squares / max(self._count, 1) - np.square(mean), 0),
        )

    def _take(self, minimum: Array, maximum: Array, sums: Array, squares: Array, count: int) -> None:
        if not self._count:
            self._minimum, self._maximum, self._sum, self._squares = minimum, maximum, sums, squares
        else:
            self._minimum, self._maximum = np.minimum(self._minimum, minimum), np.maximum(self._maximum, maximum)
            self._sum, self._squares = self._sum + sums, self._squares + squares
        self._count += count
        self._runs += 1

    def _smooth(self, low: float, high: float) -> None:
        """Widen the range, and move the averages of its ends; zero lies in each."""
        low, high, momentum = min(low, 0.0), max(high, 0.0), self._settings.momentum
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._smooth_low = momentum * self._smooth_low + (1 - momentum) * low
        self._smooth_high = momentum * self._smooth_high + (1 - momentum) * high


def _channels(values: Array, channel_axis: int) -> Array:
    """Return values as (channels, positions) where channels come second, and as (positions, channels) otherwise.

    An image alone is not copied: reductions along what lies together in memory are what makes this fast.
    """
    if channel_axis == 1:
        first = values[0] if len(values) == 1 else np.moveaxis(values, 1, 0)
        return first.reshape(len(first), -1)
    return values.reshape(-1, values.shape[-1] if values.ndim else 1)


def _sums(rows: Array, axis: int) -> tuple[Array, Array]:
    """Return the sum of the values and of their squares for each channel, float64; BLAS and SIMD add up in float32."""
    if axis == 1:  # a product with ones would wake BLAS' threads, which then keep a core from the runtime
        total, squares = np.einsum("ij->i", rows), np.matmul(rows[:, None, :], rows[:, :, None])[:, 0, 0]
    else:
        total, squares = np.ones(len(rows), rows.dtype) @ rows, np.einsum("ij,ij->j", rows, rows)
    return total.astype(np.float64), squares.astype(np.float64)
