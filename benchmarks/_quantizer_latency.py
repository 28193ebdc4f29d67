"""Our integer artifact against each tool's own: the same runtime, one thread, interleaved, opened several times."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecnn import registry
from edgecnn.feeding import artifact_exterior
from edgecnn.graph import Array, to_layout
from edgecnn.interfaces import SessionOptions
from edgecnn.source import format_of

from ._quantizer_peers import RUNTIMES
from .latency import LatencyResult, Plan, measure
from .statistics import Interval, median, nested_ratio

BUDGET = 1.03
"""Largest point of a ratio; its interval must reach 1.00. Source: the project's latency budget."""

OPENINGS = 4
PLAN = Plan(rounds=8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """One artifact's times.

    Attributes:
        median_s: Of one invocation with one image.
        ratio: Ours / its own, by openings and rounds; None for ours.
    """

    median_s: float
    ratio: Interval | None

    @property
    def is_within_budget(self) -> bool:
        """Tell whether ours is as fast: the interval reaches 1.00 or lies below, and the point is at most BUDGET."""
        ratio = self.ratio
        return ratio is None or (ratio.low is not None and ratio.low <= 1.0 and ratio.point <= BUDGET)


def times(artifacts: Mapping[str, Path], ours: str, image: Array) -> dict[str, Times]:
    """Return the times of artifacts of one format.

    Args:
        artifacts: Name -> file, each with one input.
        ours: The name of ours.
        image: (1, height, width, channels) float32, preprocessed.
    """
    turns = [_opening(artifacts, image, replace(PLAN, seed=turn)) for turn in range(OPENINGS)]

    def ratio(name: str) -> Interval | None:
        samples = [(turn[ours].samples_s, turn[name].samples_s) for turn in turns]
        return None if name == ours else nested_ratio(samples, seed=PLAN.seed)

    return {name: Times(median_s=_median_s([turn[name] for turn in turns]), ratio=ratio(name)) for name in artifacts}


def _opening(artifacts: Mapping[str, Path], image: Array, plan: Plan) -> dict[str, LatencyResult]:
    """Open all artifacts, in an order of this opening's own, measure them against each other, and close them."""
    names = list(artifacts)
    first = plan.seed % len(names)
    with ExitStack() as stack:
        bound = {}
        for name in names[first:] + names[:first]:
            path = artifacts[name]
            form = format_of(path)
            target = registry.load("targets", RUNTIMES[form.name])
            session = stack.enter_context(closing(target.open(path, SessionOptions(threads=1))))
            ((port, shape),) = session.input_shapes.items()
            exterior = artifact_exterior(path, form.default_layout)
            stored = exterior.to_stored(port, image, session.input_dtypes[port])
            bound[name] = session.bind({port: to_layout(stored, exterior.of_input(port, image.shape, shape))})
        return measure(bound, plan)


def _median_s(results: Sequence[LatencyResult]) -> float:
    return median(np.concatenate([each.samples_s.ravel() for each in results]))
