"""Why a layer loses more than others: one row for each cause that can be told from the Graph and from what was seen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.rules import FIXED_OUTPUT, WEIGHTED

MOST_SATURATED = 1e-3
"""Share of clipped integers from which on saturation is named."""

WIDE_SPREAD = 30.0
"""Largest over median range of the channels that share one scale: 8 bits leave the median channel 8 steps then."""

FEW_STEPS = 8
"""So many steps for what matters are named as too few."""

SWISH_MINIMUM = -0.2785
"""Of x * sigmoid(x), at x = -1.2785."""


@dataclass(kw_only=True, slots=True)
class Seen:
    """What was seen of a layer's output while it ran.

    Attributes:
        low: Smallest float value of each channel.
        high: Largest of each channel.
        clipped: How many numbers the integers could not hold.
        total: How many there were.
    """

    low: Array = field(default_factory=lambda: np.array(np.inf))
    high: Array = field(default_factory=lambda: np.array(-np.inf))
    clipped: int = 0
    total: int = 0

    def add(self, exact: Array, found: Array, known: Quantization | None) -> None:
        """Take some images (n, ..., channels) in: the float values, and the integers that stand for them."""
        axes = tuple(range(exact.ndim - 1))
        self.low, self.high = np.minimum(self.low, exact.min(axis=axes)), np.maximum(self.high, exact.max(axis=axes))
        if known is not None:
            least, most = known.range
            self.clipped += int(((exact < least - known.scale[0]) | (exact > most + known.scale[0])).sum())
        self.total += exact.size

    @property
    def saturated(self) -> float:
        """Share of numbers beyond the range of the integers."""
        return self.clipped / self.total if self.total else 0.0


Cause = Callable[[Graph, Graph, Node, Mapping[str, Seen]], str]
"""(float Graph, quantized Graph, node, what was seen of each) -> the cause in words, or empty."""


def _saturation(reference: Graph, quantized: Graph, node: Node, seen: Mapping[str, Seen]) -> str:
    share = seen[node.name].saturated
    return f"{100 * share:.1f} % of its output lies beyond its range" if share > MOST_SATURATED else ""


def _weight_spread(reference: Graph, quantized: Graph, node: Node, seen: Mapping[str, Seen]) -> str:
    """One scale for all channels of a kernel leaves the small ones few steps."""
    kernel = quantized.constant(node, "kernel") if isinstance(node.op, WEIGHTED) else None
    if kernel is None or kernel.quantization is None or kernel.quantization.axis is not None:
        return ""
    largest = np.abs(kernel.value()).max(axis=tuple(range(len(kernel.shape) - 1)))
    spread = float(largest.max() / max(float(np.median(largest)), 1e-12))
    return f"one scale for a kernel whose channels span 1:{spread:.0f}" if spread > WIDE_SPREAD else ""


def _swish(reference: Graph, quantized: Graph, node: Node, seen: Mapping[str, Seen]) -> str:
    """The lobe of a swish below 0 is narrow; large outputs leave it few steps."""
    producers = {name: each for each in quantized.nodes for name in each.outputs}
    factors = [producers.get(name) for name in node.inputs]
    is_swish = isinstance(node.op, ops.Mul) and any(
        each is not None and isinstance(each.op, ops.Sigmoid) and each.inputs[0] in node.inputs for each in factors
    )
    known = quantized.tensors[node.output].quantization
    if not is_swish or known is None:
        return ""
    steps = -SWISH_MINIMUM / known.scale[0]
    return f"a swish up to {known.range[1]:.0f}: its lobe below 0 has {steps:.0f} steps" if steps < FEW_STEPS else ""


def _mixed_concat(reference: Graph, quantized: Graph, node: Node, seen: Mapping[str, Seen]) -> str:
    known = quantized.tensors[node.output].quantization
    if not isinstance(node.op, ops.Concat) or known is None:
        return ""
    makers = {each.output: each.name for each in quantized.nodes}
    spans = [float(np.ptp(_extent(seen[makers[name]]))) for name in node.inputs if makers.get(name) in seen]
    if not spans or min(spans) / known.scale[0] >= FEW_STEPS**2:
        return ""
    return f"one scale for parts whose ranges are 1:{max(spans) / max(min(spans), 1e-12):.0f}"


def _extent(seen: Seen) -> tuple[float, float]:
    return float(seen.low.min()), float(seen.high.max())


def _channel_spread(reference: Graph, quantized: Graph, node: Node, seen: Mapping[str, Seen]) -> str:
    if (type(node.op), "int8") in FIXED_OUTPUT:
        return ""
    spans = np.atleast_1d(seen[node.name].high - seen[node.name].low)
    middle = float(np.median(spans))
    spread = float(spans.max()) / max(middle, 1e-12)
    return f"channels whose ranges span 1:{spread:.0f} share one scale" if middle and spread > WIDE_SPREAD / 2 else ""


def _outliers(reference: Graph, quantized: Graph, node: Node, seen: Mapping[str, Seen]) -> str:
    known = quantized.tensors[node.output].quantization
    low, high = _extent(seen[node.name])
    if known is None or known.dtype != "int8":
        return ""
    used = (high - low) / (known.range[1] - known.range[0])
    return f"its images use {100 * used:.0f} % of a range that others share or widen" if used < 1 / 4 else ""


CAUSES: tuple[Cause, ...] = (_saturation, _weight_spread, _swish, _mixed_concat, _channel_spread, _outliers)
"""In the order in which they are named."""


def reason(reference: Graph, quantized: Graph, node: Node, seen: Mapping[str, Seen]) -> str:
    """Return what explains a layer's error, or nothing."""
    return "; ".join(filter(None, (cause(reference, quantized, node, seen) for cause in CAUSES)))
