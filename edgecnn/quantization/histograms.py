"""How often a tensor takes which values, in bins that grow with its range: constant memory, any number of images.

The bins lie symmetrically about 0 and reach to a power of two. A value beyond it doubles the reach: pairs of bins merge
into one, which is exact, so that the counts do not depend on the order of the images. Zeros are counted apart: a ReLU
gives many, and every integer type represents 0 exactly.
"""

from math import frexp, gcd

import numpy as np

from edgecnn.graph import Array

HALF = 4096
"""Bins on each side of 0; a range uses more than half of those of its larger side."""

SAMPLE = 1 << 15
"""At most about so many values are counted at a time: over 32 images a million of each tensor."""

SMALLEST_EXPONENT = -100
"""Reaches below 2^-100 would make the bins' inverse width overflow float32."""

EMPTY = -(1 << 30)


class Histogram:
    """Counts of one tensor's values.

    Attributes:
        counts: (2 * HALF,) int64, of values that are not 0; the first HALF are of negative ones.
        zeros: How many values were 0.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * HALF, np.int64)
        self.zeros = 0
        self._exponent = EMPTY

    @property
    def edges(self) -> Array:
        """(2 * HALF + 1,) float64 borders of the bins, from -reach to reach."""
        return np.linspace(-1, 1, 2 * HALF + 1) * (0.0 if self._exponent == EMPTY else 2.0**self._exponent)

    def add(self, values: Array, largest: float) -> None:
        """Count values.

        Args:
            values: Finite float32, any shape.
            largest: No absolute value is larger.
        """
        if largest > 0:
            self._reach(max(SMALLEST_EXPONENT, frexp(largest)[1]))
        flat = sampled(values)
        zeros = flat.size - int(np.count_nonzero(flat))
        self.zeros += zeros
        if zeros == flat.size:
            return
        # Exact: bins are powers of two wide, and frexp's power of two lies above the largest value.
        places = np.floor(flat * np.float32(HALF / 2.0**self._exponent)).astype(np.intp)
        found = np.bincount(places + HALF, minlength=2 * HALF)
        found[HALF] -= zeros
        self.counts += found

    def _reach(self, exponent: int) -> None:
        """Merge pairs of bins until they reach to 2^exponent."""
        if self._exponent == EMPTY:
            self._exponent = exponent
        while self._exponent < exponent:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, HALF // 2)
            self._exponent += 1


def sampled(values: Array) -> Array:
    """Return about SAMPLE of the values, evenly spread, flat; all where there are no more.

    The step has no factor in common with the number of values, so that it does not meet the same column or channel
    again and again.
    """
    flat = values.reshape(-1)
    step = -(-flat.size // SAMPLE)
    while step > 1 and gcd(step, flat.size) > 1:
        step += 1
    return flat[::step]
