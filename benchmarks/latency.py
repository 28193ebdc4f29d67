"""Measure how long bound invocations take: warm-up until steady, then randomised interleaved rounds.

The timed region is the invocation alone. In each round every artifact has one turn, in an order drawn anew, for about
the same time: what disturbs the machine for a while meets all of them, and their ratio within a round stays meaningful.

Source: Google Benchmark's random interleaving (docs/random_interleaving.md).
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from edgecnn.errors import UsageError
from edgecnn.graph import Array

from .cautions import Caution, sample_cautions
from .statistics import median, percentile

Clock = Callable[[], int]
"""Nanoseconds from any start, monotonic."""

WINDOWS = 3
"""This many neighbouring windows must agree before a warm-up ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How to measure.

    Attributes:
        rounds: In each of them every artifact has its turn.
        slice_s: Seconds that one turn is meant to take.
        minimum_runs: Fewest timed runs in a turn, however slow the artifact is.
        maximum_runs: Most of them, however fast it is.
        warmup_runs: Fewest runs of the warm-up.
        warmup_s: Shortest warm-up in seconds.
        warmup_limit_s: Where a warm-up ends at the latest, if it had its fewest runs.
        steadiness: The warm-up ends when the medians of WINDOWS windows lie within this share of each other.
        seed: Of the order of the turns.

    Source of the warm-up: the floors of LiteRT's benchmark_model (0.5 s) and five runs of its Python successor.
    """

    rounds: int = 20
    slice_s: float = 0.03
    minimum_runs: int = 4
    maximum_runs: int = 1000
    warmup_runs: int = 5
    warmup_s: float = 0.5
    warmup_limit_s: float = 3.0
    steadiness: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 1 <= self.minimum_runs <= self.maximum_runs or self.slice_s <= 0:
            raise UsageError(
                f"latency: at least one round, one run and a positive slice were wanted; got rounds={self.rounds}, "
                f"minimum_runs={self.minimum_runs}, maximum_runs={self.maximum_runs}, slice_s={self.slice_s}"
            )

    def runs(self, run_s: float) -> int:
        """Return how many runs fill a turn when one takes so many seconds."""
        return min(self.maximum_runs, max(self.minimum_runs, round(self.slice_s / run_s)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LatencyResult:
    """What was measured of one artifact; seconds per invocation.

    Attributes:
        name: Of the artifact.
        samples_s: (rounds, runs), every timed run; nothing is left out.
        median_s: Of all samples.
        p10_s: 10th percentile, or None where there are too few samples.
        p90_s: 90th percentile, likewise.
        warmup_runs: Runs before the first round.
        is_steady: Whether the warm-up ended because the times were steady.
        cautions: What to know before trusting the figures.
    """

    name: str
    samples_s: Array
    median_s: float
    p10_s: float | None
    p90_s: float | None
    warmup_runs: int
    is_steady: bool
    cautions: tuple[Caution, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Warm:
    runs: int
    is_steady: bool
    run_s: float


def measure(
    invocations: Mapping[str, Callable[[], object]],
    plan: Plan,
    *,
    report: Callable[[], None] | None = None,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, LatencyResult]:
    """Measure bound invocations against each other.

    A turn begins with one untimed run, which brings the artifact's own weights back into the caches. Python's garbage
    collector rests from the warm-up to the last round.

    Args:
        invocations: Name -> what `Session.bind` returned.
        plan: Rounds, slices and warm-up.
        report: Called after each round.
        clock: For tests.
    """
    with _garbage_collector_off():
        timer_s = _timer_s(clock)
        warm = {name: _warm_up(invoke, plan, clock) for name, invoke in invocations.items()}
        runs = {name: plan.runs(state.run_s) for name, state in warm.items()}
        samples: dict[str, list[Array]] = {name: [] for name in invocations}
        generator = np.random.default_rng(plan.seed)
        names = list(invocations)
        for _ in range(plan.rounds):
            for index in generator.permutation(len(names)):
                name = names[index]
                invocations[name]()
                samples[name].append(_timed(invocations[name], runs[name], clock))
            if report is not None:
                report()
    return {name: _result(name, np.stack(samples[name]), warm[name], timer_s) for name in names}


def _result(name: str, samples_s: Array, warm: _Warm, timer_s: float) -> LatencyResult:
    return LatencyResult(
        name=name,
        samples_s=samples_s,
        median_s=median(samples_s),
        p10_s=percentile(samples_s, 10),
        p90_s=percentile(samples_s, 90),
        warmup_runs=warm.runs,
        is_steady=warm.is_steady,
        cautions=sample_cautions(samples_s, is_steady=warm.is_steady, timer_s=timer_s),
    )


def _warm_up(invoke: Callable[[], object], plan: Plan, clock: Clock) -> _Warm:
    """Run until the times are steady or the limit is reached; the run time is the last window's median."""
    medians: list[float] = []
    started, runs, window_s = clock(), 0, plan.warmup_s / (WINDOWS + 2)
    while True:
        window = _window(invoke, plan.minimum_runs, window_s, clock)
        runs += window.size
        medians.append(median(window))
        elapsed_s = (clock() - started) / 1e9
        recent = medians[-WINDOWS:]
        is_steady = len(recent) == WINDOWS and max(recent) <= min(recent) * (1 + plan.steadiness)
        is_enough = runs >= plan.warmup_runs and elapsed_s >= plan.warmup_s
        if (is_enough and is_steady) or (runs >= plan.warmup_runs and elapsed_s >= plan.warmup_limit_s):
            return _Warm(runs=runs, is_steady=is_steady, run_s=max(medians[-1], 1e-9))


def _window(invoke: Callable[[], object], minimum_runs: int, window_s: float, clock: Clock) -> Array:
    """Return the times of one window of the warm-up, in seconds."""
    started = clock()
    samples = [_timed(invoke, minimum_runs, clock)]
    while (clock() - started) / 1e9 < window_s:
        samples.append(_timed(invoke, 1, clock))
    return np.concatenate(samples)


def _timed(invoke: Callable[[], object], runs: int, clock: Clock) -> Array:
    """Return the seconds that each of so many runs took."""
    edges = np.empty((runs, 2), np.int64)
    for row in range(runs):
        before = clock()
        invoke()
        after = clock()
        edges[row] = before, after
    return np.asarray((edges[:, 1] - edges[:, 0]) / 1e9)


def _timer_s(clock: Clock) -> float:
    """Return what an empty timed region takes."""
    return float(np.median(_timed(lambda: None, 200, clock)))


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
