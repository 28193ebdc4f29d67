"""Observers: which range of a tensor's values the integers should stand for.

A wide range holds every value and has coarse steps; a narrow one has fine steps and clips what lies outside. Zero lies
in every range, because padding and ReLU need it exactly; a tensor that is always zero gets 0..0. An observer is a
function from what was seen of one tensor to (low, high) and a row of OBSERVERS: a new one is one function and one row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgecnn.errors import UsageError
from edgecnn.graph import Array
from edgecnn.quantization.histograms import HALF, Histogram

CANDIDATES = 256
"""Ends of a range that the mean squared error tries on each side: 2.5 % apart, down to 1/512 of what was seen."""

THRESHOLDS = 128
"""Ranges that the entropy tries."""

TINY = 1e-12
"""Share that stands for none in a logarithm."""

BITS = {8: 255, 16: 65534}
"""Bits of the integers -> steps of the range: int8 from -128 to 127, int16 (symmetric) from -32767 to 32767."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What an observer may be told.

    Attributes:
        percentile: Share of the values in percent, in (50, 100), that lies below `high`, and above `low`.
        momentum: Weight of the past in a moving average, in [0, 1).
        bits: Of the integers, 8 (asymmetric) or 16 (symmetric).
    """

    percentile: float = 99.99
    momentum: float = 0.9
    bits: int = 8

    def __post_init__(self) -> None:
        if not 50 < self.percentile < 100:
            raise UsageError(f"percentile: above 50 and below 100 was wanted; got {self.percentile}. 100 is min_max.")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum: 0 or more and below 1 was wanted; got {self.momentum}")
        if self.bits not in BITS:
            raise UsageError(f"bits: {' or '.join(map(str, BITS))} was wanted; got {self.bits}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Observed:
    """What was seen of one tensor, over all images.

    Attributes:
        low: Smallest value, or 0 where none is negative.
        high: Largest value, or 0 where none is positive.
        smooth_low: Moving average of each image's smallest value.
        smooth_high: Of each image's largest value.
        histogram: Where the observer asks for one.
    """

    low: float
    high: float
    smooth_low: float
    smooth_high: float
    histogram: Histogram | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Observer:
    """One way to choose a range.

    Attributes:
        choose: Returns (low, high).
        reads: The settings that it reads, by name.
        needs_histogram: Whether it reads `Observed.histogram`.
    """

    choose: Callable[[Observed, Settings], tuple[float, float]]
    reads: tuple[str, ...] = ()
    needs_histogram: bool = False


def min_max(seen: Observed, settings: Settings) -> tuple[float, float]:
    """Return the range of all values: nothing is clipped, and one outlier makes every step coarse."""
    return seen.low, seen.high


def moving_average(seen: Observed, settings: Settings) -> tuple[float, float]:
    """Return the moving average of each image's range: m = momentum * m + (1 - momentum) * new, freed of its start 0.

    About half of the images reach beyond it: it was made for training, where many thousand steps smooth it.
    Source: Jacob et al., arXiv:1712.05877, section 3.1; the correction of the start is Adam's (arXiv:1412.6980, section
    3), without which 32 images would hardly leave 0.
    """
    return seen.smooth_low, seen.smooth_high


def percentile(seen: Observed, settings: Settings) -> tuple[float, float]:
    """Return the values below and above which the given share of all values lies.

    Source: McKinstry et al., arXiv:1809.04191, section 3.2; Wu et al., arXiv:2004.09602, section 5.2.
    """
    counts, edges, zeros = _histogram(seen)
    below = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    # The zeros are a step at 0, between the edge of the last negative bin and that of the first positive one.
    below = np.concatenate([below[: HALF + 1], below[HALF:] + zeros])
    places = np.concatenate([edges[: HALF + 1], edges[HALF:]])
    share = settings.percentile / 100 * below[-1]
    return _within(seen, _crossing(below, places, below[-1] - share), _crossing(below, places, share))


def entropy(seen: Observed, settings: Settings) -> tuple[float, float]:
    """Return the range whose integers lose least information: the least KL(P || Q) over thresholds T.

    P is the histogram clipped to -T..T (or to where values end), what lies outside added to the outermost bins. Q is
    the histogram inside, its bins joined into as many groups as there are integers and each group's count spread evenly
    over those of its bins that are not empty. KL(P || Q) = sum of p log(p / q). Zeros take no part.
    Source: Migacz, 8-bit inference with TensorRT, GTC 2017, which has |x|, 2048 bins and 128 groups.
    """
    counts, edges, _ = _histogram(seen)
    used = np.flatnonzero(counts)
    if not used.size:
        return 0.0, 0.0
    first, end = min(int(used[0]), HALF), max(int(used[-1]) + 1, HALF)
    levels = BITS[settings.bits] + 1
    tried = np.unique(np.linspace(min(levels, HALF), max(HALF - first, end - HALF), THRESHOLDS).astype(int))
    ranges = [(max(first, HALF - bins), min(end, HALF + bins)) for bins in tried.tolist()]
    best = min(reversed(ranges), key=lambda pair: _divergence(counts, pair[0], pair[1], levels))
    low, high = (edges[place] for place in best)
    return _within(seen, seen.low if best[0] == first else low, seen.high if best[1] == end else high)


def mean_squared_error(seen: Observed, settings: Settings) -> tuple[float, float]:
    """Return the range with the least mean squared error of quantizing to it.

    A value x outside low..high costs (x - low)^2 or (x - high)^2; one inside costs step^2 / 12 on average, the variance
    of rounding; zeros cost nothing. Sums over all bins beyond an edge are differences of running sums of the counts,
    times x and x^2, so that all pairs of ends are tried at once.
    Source: Sung et al., arXiv:1511.06488; Banner et al., arXiv:1810.05723, section 3 (in closed form for a Laplacian).
    """
    counts, edges, _ = _histogram(seen)
    lows, highs = -_ends(-seen.low, edges)[:, None], _ends(seen.high, edges)
    centres = (edges[:-1] + edges[1:]) / 2
    below_low, clipped_low = _clipped(counts[:HALF][::-1], -centres[:HALF][::-1], edges, -lows)
    above_high, clipped_high = _clipped(counts[HALF:], centres[HALF:], edges, highs)
    inside = int(counts.sum()) - below_low - above_high
    spans = highs - lows if settings.bits == 8 else 2 * np.maximum(highs, -lows)
    error = clipped_low + clipped_high + inside * np.square(spans / BITS[settings.bits]) / 12
    low, high = np.unravel_index(int(np.argmin(error)), error.shape)
    return _within(seen, float(lows[low, 0]), float(highs[high]))


OBSERVERS: dict[str, Observer] = {
    "min_max": Observer(choose=min_max),
    "moving_average": Observer(choose=moving_average, reads=("momentum",)),
    "percentile": Observer(choose=percentile, reads=("percentile",), needs_histogram=True),
    "entropy": Observer(choose=entropy, reads=("bits",), needs_histogram=True),
    "mean_squared_error": Observer(choose=mean_squared_error, reads=("bits",), needs_histogram=True),
}
"""Name -> observer."""


def _histogram(seen: Observed) -> tuple[Array, Array, int]:
    """Return (counts, edges, zeros)."""
    histogram = seen.histogram or Histogram()
    return histogram.counts, histogram.edges, histogram.zeros


def _within(seen: Observed, low: float, high: float) -> tuple[float, float]:
    """Return a range with zero in it and nothing that was never seen."""
    return min(0.0, max(low, seen.low)), max(0.0, min(high, seen.high))


def _crossing(below: Array, places: Array, share: float) -> float:
    """Return where a running count reaches a share, straight between two places."""
    at = max(1, int(np.searchsorted(below, share)))
    if at >= len(below) or below[at] == below[at - 1]:
        return float(places[min(at, len(places) - 1)])
    part = (share - below[at - 1]) / (below[at] - below[at - 1])
    return float(places[at - 1] + part * (places[at] - places[at - 1]))


def _ends(extreme: float, edges: Array) -> Array:
    """Return the ends of ranges to try on one side, in falling order: the extreme itself, then edges of bins.

    Args:
        extreme: The largest value of this side, 0 or more.
        edges: Of the bins.
    """
    width = edges[HALF + 1]
    if extreme <= 0 or width <= 0:
        return np.zeros(1)
    bins = np.unique(np.ceil(np.geomspace(extreme / 512, extreme, CANDIDATES) / width))[:-1]
    return np.concatenate([[extreme], bins[::-1] * width])


def _clipped(counts: Array, centres: Array, edges: Array, ends: Array) -> tuple[Array, Array]:
    """Return how many values of one side lie beyond each end, and the sum of their squared distances from it.

    Args:
        counts: (HALF,) outwards from 0.
        centres: (HALF,) of the bins, positive.
        edges: Of all bins.
        ends: Positive, of any shape; the first is the extreme, beyond which there is nothing.
    """
    sums = [np.append(np.cumsum((counts * centres**power)[::-1])[::-1], 0) for power in range(3)]
    width = edges[HALF + 1] or 1.0
    places = np.rint(ends / width).astype(int)
    places.flat[0] = HALF
    number, first, second = (each[places] for each in sums)
    return number, second - 2 * ends * first + np.square(ends) * number


def _divergence(counts: Array, first: int, end: int, levels: int) -> float:
    """Return KL(P || Q) of one range of bins; see `entropy`."""
    inside = counts[first:end].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[end:].sum()
    groups = np.arange(len(inside)) * min(levels, len(inside)) // len(inside)
    filled = inside > 0
    sums, sizes = np.bincount(groups, weights=inside), np.bincount(groups, weights=filled)
    spread = np.where(filled, (sums / np.maximum(sizes, 1))[groups], 0)
    if not spread.any():
        return np.inf
    p, q = clipped / clipped.sum(), np.maximum(spread / spread.sum(), TINY)
    shown = p > 0
    return float((p[shown] * np.log(p[shown] / q[shown])).sum())
