"""Statistics of latency samples: medians, percentiles that the sample count supports, and intervals over rounds.

Samples come in rounds. Inside a round they are neighbours in time and resemble each other, so a round, not a run, is
the unit that chance draws: intervals resample whole rounds, and two artifacts are compared round by round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from edgecnn.errors import UsageError
from edgecnn.graph import Array

CONFIDENCE = 0.95
"""Of every interval here."""

RESAMPLES = 2000
"""Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993: 1000 or more for percentile intervals."""

CHUNK = 1_000_000
"""Resampled values that are held in memory at a time."""

MINIMUM_ROUNDS = 6
"""Fewest rounds that an interval may rest on: the smallest and largest of n values enclose the median with probability
1 - 2 / 2^n, which first exceeds 95 % at n = 6. Source: David and Nagaraja, Order Statistics, 2003, section 7.1."""

MISS_PROBABILITY = 0.01
"""Source: MLPerf Inference rules, early stopping (loadgen/early_stopping.cc): confidence 0.99."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A figure with its 95 % interval.

    Attributes:
        point: The figure itself.
        low: Lower bound, or None where there are too few rounds to tell.
        high: Upper bound, or None likewise.
    """

    point: float
    low: float | None
    high: float | None


def median(samples: Array) -> float:
    """Return the median of all samples.

    >>> median(np.array([[3.0, 1.0], [2.0, 10.0]]))
    2.5
    """
    return float(np.median(samples))


def percentile(samples: Array, percent: float) -> float | None:
    """Return a percentile by linear interpolation, or None where there are too few samples to tell.

    Source: Hyndman and Fan, Sample quantiles in statistical packages, 1996, definition 7.

    >>> percentile(np.arange(101.0), 90)
    90.0
    >>> percentile(np.arange(63.0), 90) is None
    True
    """
    if np.size(samples) < minimum_samples(percent):
        return None
    return float(np.percentile(samples, percent, method="linear"))


def minimum_samples(percent: float) -> int:
    """Return the fewest samples that support a percentile.

    It is the smallest n for which at most one sample beyond the percentile would be an unlikely accident (1 %); the
    lower tail mirrors the upper one. MLPerf takes the same floors: 64 for the 90th percentile, 662 for the 99th.

    Source: MLPerf Inference rules, early stopping (mlcommons/inference, loadgen/early_stopping.cc), one sample over.

    >>> [minimum_samples(percent) for percent in (10, 50, 90, 95, 99)]
    [64, 11, 64, 130, 662]
    """
    if not 0 < percent < 100:
        raise UsageError(f"percentile: a percent between 0 and 100 was wanted; got {percent}")
    tail = min(percent, 100 - percent) / 100
    count = 1
    while sum(comb(count, t) * tail**t * (1 - tail) ** (count - t) for t in (0, 1)) > MISS_PROBABILITY:
        count += 1
    return count


def median_interval(samples: Array, *, seed: int) -> Interval:
    """Return the median of all samples with its 95 % interval.

    Args:
        samples: (rounds, runs), any unit.
        seed: Of the resampling.

    Source: percentile bootstrap, Efron and Tibshirani 1993, chapter 13; whole rounds are resampled because runs of one
    round depend on each other: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.
    """
    return _bootstrap(np.asarray(samples), seed=seed)


def paired_ratio(samples: Array, reference: Array, *, seed: int) -> Interval:
    """Return how many times as long `samples` take as `reference`, with the 95 % interval.

    Both were measured in the same rounds. Each round gives one ratio of medians, so that what slows a whole round down
    cancels out; the figure is the median of these ratios.

    Args:
        samples: (rounds, runs); the number of runs may differ from the reference's.
        reference: (rounds, runs), the same unit.
        seed: Of the resampling.

    Raises:
        UsageError: When the rounds are not the same.

    Source: a ratio of times with its interval, Kalibera and Jones, Rigorous benchmarking in reasonable time, ISMM 2013;
    percentile bootstrap, Efron and Tibshirani 1993, chapter 13.

    >>> paired_ratio(np.full((8, 3), 3.0), np.full((8, 5), 2.0), seed=0)
    Interval(point=1.5, low=1.5, high=1.5)
    """
    return nested_ratio([(samples, reference)], seed=seed)


def nested_ratio(openings: Sequence[tuple[Array, Array]], *, seed: int) -> Interval:
    """Return the paired ratio over several openings of the same two artifacts, with its 95 % interval.

    Where a session's memory lies is chance, and stays for all its rounds: so openings are resampled first, and rounds
    within each of them after. With one opening, this chance is not in the interval.

    Args:
        openings: For each, samples and reference as `paired_ratio` takes them; every opening has as many rounds.
        seed: Of the resampling.

    Raises:
        UsageError: When the rounds are not the same.

    Source: levels of repetition, Kalibera and Jones, ISMM 2013; resampling them from the outermost inwards, Davison and
    Hinkley 1997, section 3.8.
    """
    counts = {len(values) for pair in openings for values in pair}
    if len(counts) != 1:
        raise UsageError(f"a paired ratio: the same number of rounds was wanted everywhere; got {sorted(counts)}")
    ratios = np.stack([np.median(samples, axis=1) / np.median(reference, axis=1) for samples, reference in openings])
    point, shape = median(ratios), (RESAMPLES, *ratios.shape)
    if ratios.size < MINIMUM_ROUNDS:
        return Interval(point=point, low=None, high=None)
    generator = np.random.default_rng(seed)
    chosen = ratios[generator.integers(shape[1], size=(*shape[:2], 1)), generator.integers(shape[2], size=shape)]
    return _interval(point, np.median(chosen, axis=(1, 2)))


def rank_correlation(values: Sequence[float] | Array) -> float:
    """Return Spearman's rank correlation of values with their order: 1 only rises, -1 only falls; ties share a rank.

    Source: Spearman, The proof and measurement of association between two things, 1904.

    >>> rank_correlation([1.0, 2.0, 4.0, 8.0])
    1.0
    """
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return 0.0
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float(round(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1], 12))


def _bootstrap(blocks: Array, *, seed: int) -> Interval:
    """Return the median of all values in `blocks` (rounds, runs) with its interval over resampled rounds."""
    rounds = len(blocks)
    if rounds < MINIMUM_ROUNDS:
        return Interval(point=median(blocks), low=None, high=None)
    drawn = np.random.default_rng(seed).integers(rounds, size=(RESAMPLES, rounds))
    parts = np.array_split(drawn, -(-RESAMPLES * blocks.size // CHUNK))
    medians = np.concatenate([np.median(blocks[part].reshape(len(part), -1), axis=1) for part in parts])
    return _interval(median(blocks), medians)


def _interval(point: float, resampled: Array) -> Interval:
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(resampled, (tail, 100 - tail), method="linear")
    return Interval(point=point, low=float(low), high=float(high))
