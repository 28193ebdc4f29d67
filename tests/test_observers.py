"""Observers: the ranges that they choose, against what NumPy says of all the values."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from edgecnn.errors import UsageError
from edgecnn.graph import Array
from edgecnn.quantization.histograms import HALF, SAMPLE, Histogram, sampled
from edgecnn.quantization.observers import BITS, OBSERVERS, Observed, Settings, _divergence

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal(30_000).astype(np.float32)
SHAPES: dict[str, Array] = {
    "normal": NORMAL,
    "shifted": NORMAL + 2,
    "relu": np.maximum(NORMAL, 0),
    "relu6": np.clip(4 * NORMAL, 0, 6),
    "swish": 8 * NORMAL / (1 + np.exp(-8 * NORMAL)),
    "heavy tails": RNG.standard_t(2, 30_000).astype(np.float32),
    "negative": -np.abs(NORMAL),
    "tiny": NORMAL * np.float32(1e-30),
}


def seen(values: Array) -> Observed:
    histogram = Histogram()
    histogram.add(values, float(np.abs(values).max()))
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    return Observed(low=low, high=high, smooth_low=low, smooth_high=high, histogram=histogram)


def chosen(observer: str, values: Array, settings: Settings | None = None) -> tuple[float, float]:
    return OBSERVERS[observer].choose(seen(values), settings or Settings())


def squared_error(values: Array, low: float, high: float, bits: int) -> float:
    """Quantize for real, with zero exactly on a step as integers have it."""
    span = high - low if bits == 8 else 2 * max(-low, high)
    step = span / BITS[bits]
    first = np.rint(low / step) if bits == 8 else -BITS[bits] // 2
    integers = np.clip(np.rint(values.astype(np.float64) / step), first, first + BITS[bits])
    return float(np.square(values - integers * step).mean())


def test_counts_are_numpys() -> None:
    histogram = seen(NORMAL).histogram
    assert histogram is not None
    expected, _ = np.histogram(NORMAL.astype(np.float64), histogram.edges)
    assert_array_equal(histogram.counts, expected)
    assert histogram.counts.sum() == len(NORMAL)
    assert histogram.edges[-1] / 2 <= np.abs(NORMAL).max() < histogram.edges[-1], "half of the bins are used"


@given(st.permutations([1e-6, 0.01, 3.0, 700.0]))
def test_the_order_of_the_images_does_not_matter(largest: list[float]) -> None:
    parts = {scale: NORMAL[:500] / np.abs(NORMAL[:500]).max() * np.float32(scale) for scale in largest}
    histogram, alone = Histogram(), Histogram()
    for scale in largest:
        histogram.add(parts[scale], scale)
    for scale in sorted(largest, reverse=True):  # the widest first: no bins are merged
        alone.add(parts[scale], scale)
    assert_array_equal(histogram.edges, alone.edges)
    assert_array_equal(histogram.counts, alone.counts)


def test_zeros_are_counted_apart() -> None:
    histogram = seen(SHAPES["relu"]).histogram
    assert histogram is not None
    assert histogram.zeros == (SHAPES["relu"] == 0).sum()
    assert histogram.counts[:HALF].sum() == 0
    assert histogram.counts.sum() + histogram.zeros == len(NORMAL)


@pytest.mark.parametrize("shape", [(1, 32, 112, 112), (64, 64, 64), (SAMPLE + 1,), (5,)])
def test_a_sample_meets_every_row_and_column_alike(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    found = sampled(np.arange(size, dtype=np.float32).reshape(shape)).astype(int)
    assert min(size, SAMPLE // 2) <= len(found) <= SAMPLE
    columns = np.bincount(found % shape[-1], minlength=shape[-1])
    assert columns.max() - columns.min() <= max(1, 0.02 * columns.mean())


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("share", [99.0, 99.9])
def test_a_percentile_is_numpys(values: Array, share: float) -> None:
    low, high = chosen("percentile", values, Settings(percentile=share))
    width = float(np.abs(values).max()) / HALF
    least, most = np.percentile(values, [share - 0.01, share + 0.01]).clip(0)
    assert least - 2 * width <= high <= most + 2 * width
    least, most = np.percentile(values, [99.99 - share, 100.01 - share]).clip(max=0)
    assert least - 2 * width <= low <= most + 2 * width


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("bits", [8, 16])
def test_no_range_has_a_much_smaller_squared_error(values: Array, bits: int) -> None:
    low, high = chosen("mean_squared_error", values, Settings(bits=bits))
    found = squared_error(values, low, high, bits)
    least, most = min(0.0, float(values.min())), max(0.0, float(values.max()))
    grid = [squared_error(values, a * least, b * most, bits) for a in STEPS for b in STEPS if a * least < b * most]
    assert found <= 1.05 * min(grid)


STEPS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.85, 0.95, 1.0)


def test_the_squared_error_keeps_a_clamp_and_clips_an_outlier() -> None:
    assert chosen("mean_squared_error", SHAPES["relu6"]) == (0.0, 6.0)
    tails = SHAPES["heavy tails"]
    low, high = chosen("mean_squared_error", tails)
    assert (low, high) != (tails.min(), tails.max())
    assert (np.clip(tails, low, high) != tails).mean() < 1e-3
    assert chosen("mean_squared_error", NORMAL, Settings(bits=16)) == (float(NORMAL.min()), float(NORMAL.max()))


def test_the_divergence_is_that_of_the_definition() -> None:
    counts = np.zeros(2 * HALF, np.int64)
    counts[100:200] = RNG.integers(0, 5, 100)
    first, end, levels = 110, 190, 32
    p = [int(n) for n in counts[first:end]]
    p[0] += int(counts[:first].sum())
    p[-1] += int(counts[end:].sum())
    q = [0.0] * len(p)
    for level in range(levels):
        places = [i for i in range(len(p)) if i * levels // len(p) == level]
        filled = [i for i in places if counts[first + i]]
        for i in filled:
            q[i] = sum(int(counts[first + j]) for j in places) / len(filled)
    total, spread = sum(p), sum(q)
    expected = sum(n / total * np.log(n / total / max(m / spread, 1e-12)) for n, m in zip(p, q, strict=True) if n)
    assert _divergence(counts, first, end, levels) == pytest.approx(expected)


def test_entropy_clips_outliers_and_keeps_what_is_evenly_spread() -> None:
    low, high = chosen("entropy", np.append(NORMAL, np.asarray([60, -60], np.float32)))
    assert -12 < low < -2.5
    assert 2.5 < high < 12
    even = RNG.uniform(-1, 3, 30_000).astype(np.float32)
    low, high = chosen("entropy", even)
    assert low == pytest.approx(-1, abs=0.01)
    assert high == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_a_range_holds_zero_and_nothing_that_was_never_seen(observer: str, values: Array) -> None:
    low, high = chosen(observer, values)
    assert min(0, values.min()) <= low <= 0 <= high <= max(0, values.max())
    assert low < high


@pytest.mark.parametrize("observer", OBSERVERS)
def test_what_is_always_zero_has_the_range_zero(observer: str) -> None:
    assert chosen(observer, np.zeros(100, np.float32)) == (0, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: Settings(percentile=100), "percentile: above 50 and below 100 was wanted; got 100. 100 is min_max."),
        (lambda: Settings(momentum=1), "momentum: 0 or more and below 1 was wanted; got 1"),
        (lambda: Settings(bits=4), "bits: 8 or 16 was wanted; got 4"),
    ],
)
def test_contradictory_settings_are_refused(settings: Callable[[], Settings], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings()
    assert str(caught.value) == message
