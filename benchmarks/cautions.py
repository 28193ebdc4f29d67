"""What may be wrong with a measurement: a closed list, each with its next step."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from edgecnn.graph import Array

from .environment import Environment
from .statistics import MINIMUM_ROUNDS, minimum_samples, rank_correlation

DRIFT_Z = 2.58
"""Spearman's rho of n values without a trend has variance 1 / (n - 1): beyond 2.58 standard deviations, a trend is an
accident in 1 % of the cases. Source: Kendall and Gibbons, Rank Correlation Methods, 1990."""

DRIFT_CHANGE = 0.02
"""A trend counts where the last third of the rounds differs from the first by more than this share."""

SPREAD = 0.10
"""Source: pyperf's check of a benchmark, which warns where the standard deviation reaches 10 % of the mean."""

TIMER_SHARE = 0.01
"""An empty timed region may cost at most this share of the median."""


class CautionKind(StrEnum):
    """What may be wrong."""

    UNSTEADY = "unsteady"
    DRIFT = "drift"
    SPREAD = "spread"
    FEW_SAMPLES = "few_samples"
    FEW_ROUNDS = "few_rounds"
    TIMER = "timer"
    BUSY = "busy"
    GOVERNOR = "governor"


NEXT_STEP = {
    CautionKind.UNSTEADY: "Close other programs, or let the device cool down, and measure again.",
    CautionKind.DRIFT: "The machine's speed changed on the way: trust the ratios, not the medians, or measure again.",
    CautionKind.SPREAD: "Something else ran: close other programs, and compare by the ratio's interval.",
    CautionKind.FEW_SAMPLES: "Raise --rounds.",
    CautionKind.FEW_ROUNDS: "Raise --rounds.",
    CautionKind.TIMER: "The artifact is too fast for its median to be exact: use it for comparisons only.",
    CautionKind.BUSY: "Wait until the other programs are done, or take fewer --threads.",
    CautionKind.GOVERNOR: "Set the governor to performance (sudo cpupower frequency-set -g performance).",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Caution:
    """Something to know before trusting a figure.

    Attributes:
        kind: One of the closed list.
        detail: What was found.
    """

    kind: CautionKind
    detail: str

    @property
    def next_step(self) -> str:
        """What to do about it."""
        return NEXT_STEP[self.kind]


def sample_cautions(samples: Array, *, is_steady: bool, timer_s: float) -> tuple[Caution, ...]:
    """Return what is wrong with one artifact's samples.

    Args:
        samples: (rounds, runs) in seconds.
        is_steady: Whether the warm-up ended because the times were steady.
        timer_s: Seconds that an empty timed region takes.
    """
    rounds, needed = len(samples), minimum_samples(90)
    spread = float(np.std(samples) / np.mean(samples))
    timer = timer_s / float(np.median(samples))
    found = {
        CautionKind.UNSTEADY: (not is_steady, "the warm-up reached its limit before the times were steady"),
        CautionKind.SPREAD: (spread >= SPREAD, f"the standard deviation is {spread:.0%} of the mean"),
        CautionKind.FEW_SAMPLES: (
            samples.size < needed,
            f"p10 and p90 need {needed} samples; there are {samples.size}",
        ),
        CautionKind.FEW_ROUNDS: (
            rounds < MINIMUM_ROUNDS,
            f"an interval needs {MINIMUM_ROUNDS} rounds; there are {rounds}",
        ),
        CautionKind.TIMER: (timer > TIMER_SHARE, f"reading the clock takes {timer:.1%} of the median"),
    }
    drift = _drift(np.median(samples, axis=1))
    return (*(Caution(kind=kind, detail=text) for kind, (holds, text) in found.items() if holds), *drift)


def environment_cautions(environment: Environment, *, threads: int) -> tuple[Caution, ...]:
    """Return what is wrong with the machine before a measurement with so many threads begins."""
    found = []
    load, governor = environment.load_average, environment.governor
    if load is not None and load + threads > environment.cores:
        text = f"load average {load:.2f} and {threads} threads share {environment.cores:g} cores"
        found.append(Caution(kind=CautionKind.BUSY, detail=text))
    if governor not in (None, "performance"):
        found.append(Caution(kind=CautionKind.GOVERNOR, detail=f"the CPU frequency governor is {governor}"))
    return tuple(found)


def _drift(round_medians: Array) -> tuple[Caution, ...]:
    count = len(round_medians)
    third = count // 3
    if third == 0 or abs(rank_correlation(round_medians)) * (count - 1) ** 0.5 <= DRIFT_Z:
        return ()
    change = float(np.median(round_medians[-third:]) / np.median(round_medians[:third])) - 1
    if abs(change) <= DRIFT_CHANGE:
        return ()
    return (
        Caution(kind=CautionKind.DRIFT, detail=f"the last third of the rounds took {change:+.0%} of the first's time"),
    )
