"""What the weights alone tell about a network's future in integers: one function for each cause."""

from collections.abc import Callable, Iterator
from math import prod, sqrt

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node
from edgecnn.ops import is_depthwise
from edgecnn.quantization.finding import Examined, Finding, Severity, Victim
from edgecnn.quantization.layer_moments import layer_mean
from edgecnn.quantization.predicted_errors import LIMIT, rounding_errors, thinned
from edgecnn.quantization.predicted_moments import SIGMAS
from edgecnn.quantization.reasons import WIDE_SPREAD
from edgecnn.quantization.rules import WEIGHTED
from edgecnn.quantization.weights import largest_weights

OUTLIER = 20.0
"""Largest weight of a channel over its root mean square: 127 levels leave the usual one 6 then."""

FEWEST = 64
"""Weights of a channel from which on an outlier can be told from chance."""

DEAD = float(np.finfo(np.float32).eps)
"""Weights of a channel over the kernel's largest: its products vanish in the sum."""

HIGH_BIAS = 2.0
"""Mean of a channel over all that its input moves: its range holds little else."""

SHIFTED = 0.1
"""Standard deviations by which means move in all: 0.2 costs MobileNet v1 0.25 a third of its answers, 0.04 (ResNet-8,
VWW, MobileFaceNet) costs nothing."""

SAME_INITIALISER = 0.02
"""Relative deviation of a trained kernel's spread from an initialiser's formula is far above it."""

FEWEST_RANDOM = 4096
"""Weights of a kernel whose spread is known within 1 %."""

ONE_SCALE = "--scales channel; where the target takes none, --equalize --bias-correction empirical"

INITIALISERS: dict[str, Callable[[float, float], float]] = {
    "he": lambda fan_in, fan_out: sqrt(2 / fan_in),
    "lecun": lambda fan_in, fan_out: sqrt(1 / fan_in),
    "glorot": lambda fan_in, fan_out: sqrt(2 / (fan_in + fan_out)),
    "pytorch": lambda fan_in, fan_out: sqrt(1 / (3 * fan_in)),
}
"""Name -> standard deviation of fresh weights. Source: keras.initializers; torch.nn.Conv2d.reset_parameters."""


def kernels(graph: Graph) -> Iterator[tuple[Node, Array]]:
    """Yield the layers whose kernel is a constant of finite numbers, with it: (..., out_channels)."""
    for node, kernel in _constant_kernels(graph):
        if np.isfinite(kernel).all():
            yield node, kernel


def _constant_kernels(graph: Graph) -> Iterator[tuple[Node, Array]]:
    for node in graph.nodes:
        found = graph.constant(node, "kernel") if isinstance(node.op, WEIGHTED) else None
        if found is not None and found.data is not None and found.data.size:
            yield node, found.value()


def broken_weights(examined: Examined) -> Iterator[Finding]:
    """Weights that are infinite or no number at all have no integers."""
    found = [node for node, kernel in _constant_kernels(examined.read) if not np.isfinite(kernel).all()]
    if found:
        yield Finding(
            severity="will fail",
            cause="weights that are no numbers",
            what="A kernel holds infinities or NaN: the float network is broken already.",
            victims=tuple(Victim(node=node.name, figure="not finite") for node in found),
            remedy="train it again from a checkpoint whose weights are finite",
        )


def weight_spread(examined: Examined) -> Iterator[Finding]:
    """Under one scale for a kernel the channels with small weights keep few steps."""
    spreads = []
    for node, kernel in kernels(examined.graph):
        largest = largest_weights(kernel, is_per_channel=True)
        ratio = channel_spread(largest)
        if ratio > WIDE_SPREAD / 2:
            spreads.append((ratio, node))
    spreads.sort(key=lambda pair: -pair[0])
    alone = [(ratio, node) for ratio, node in spreads if examined.scales == "tensor" or _is_dense(node)]
    if alone:
        yield Finding(
            severity=_spread_severity(examined, alone),
            cause="one scale for unlike channels",
            what="The channel with the largest weights sets the step for all channels of the kernel.",
            victims=tuple(_spread_victim(examined, ratio, node) for ratio, node in alone),
            remedy=ONE_SCALE if examined.scales == "tensor" else examined.in_float(node for _, node in alone),
        )
    rest = [(ratio, node) for ratio, node in spreads if (ratio, node) not in alone]
    if rest:
        yield Finding(
            severity="worth knowing",
            cause="channels of unlike weights",
            what="One scale for each channel holds them; a target that takes one for a kernel would not.",
            victims=tuple(_spread_victim(examined, ratio, node) for ratio, node in rest),
            remedy="--scales channel (the default); else --scales tensor --equalize --bias-correction empirical",
        )


def channel_spread(largest: Array) -> float:
    """Return the largest over the median of the channels that are alive.

    Args:
        largest: Absolute weight of each channel (out_channels,).
    """
    alive = largest[largest > largest.max() * DEAD]
    return float(largest.max() / np.median(alive)) if alive.size else 1.0


def _is_dense(node: Node) -> bool:
    return isinstance(node.op, ops.Dense)


def _spread_severity(examined: Examined, spreads: list[tuple[float, Node]]) -> Severity:
    """Return what the predicted errors say, at least that accuracy is lost where channels keep too few steps."""
    predicted = examined.severity(node.name for _, node in spreads)
    is_wide = any(ratio > WIDE_SPREAD for ratio, _ in spreads)
    return "will lose accuracy" if predicted == "worth knowing" and is_wide else predicted


def _spread_victim(examined: Examined, ratio: float, node: Node) -> Victim:
    kind = "depthwise, " if is_depthwise(node.op, examined.graph.shapes(node.inputs)) else ""
    steps = LIMIT / ratio
    return Victim(node=node.name, figure=f"{kind}1:{ratio:.0f}: the median channel would keep {steps:.0f} of 127 steps")


def outliers(examined: Examined) -> Iterator[Finding]:
    """One weight far from the others widens the step of its channel."""
    found = []
    for node, kernel in kernels(examined.graph):
        rows = kernel.reshape(-1, kernel.shape[-1])
        spread = np.sqrt(np.einsum("ro,ro->o", rows, rows) / len(rows))
        peaks = np.divide(np.abs(rows).max(axis=0), spread, where=spread > 0, out=np.zeros_like(spread))
        if len(rows) >= FEWEST and float(peaks.max()) > OUTLIER:
            text = f"a weight {peaks.max():.0f} times its channel's usual one; {int((peaks > OUTLIER).sum())} channels"
            found.append((float(peaks.max()), node, text))
    if found:
        found.sort(key=lambda each: -each[0])
        nodes = [node for _, node, _ in found]
        yield Finding(
            severity=examined.severity(node.name for node in nodes),
            cause="outlier weights",
            what="The largest weight sets its channel's step; the others share what is left.",
            victims=tuple(Victim(node=node.name, figure=text) for _, node, text in found),
            remedy=f"--bias-correction empirical (the default); or {examined.in_float(nodes)}",
        )


def dead_channels(examined: Examined) -> Iterator[Finding]:
    """A channel without weights gives the same number in every image."""
    victims, total = [], 0
    for node, kernel in kernels(examined.graph):
        largest = largest_weights(kernel, is_per_channel=True)
        dead = int((largest <= largest.max() * DEAD).sum())
        if dead:
            total += dead
            victims.append((dead, Victim(node=node.name, figure=f"{dead} of {len(largest)} channels have no weights")))
    if victims:
        victims.sort(key=lambda pair: -pair[0])
        yield Finding(
            severity="worth knowing",
            cause="dead channels",
            what=f"{total} channels cost time and say nothing; their scales are kept from vanishing.",
            victims=tuple(victim for _, victim in victims),
            remedy="none is needed; prune them before training goes on",
        )


def high_bias(examined: Examined) -> Iterator[Finding]:
    """A bias far larger than what the input moves widens the range for nothing that varies."""
    found = []
    for node, _ in kernels(examined.graph):
        bias, moments = examined.graph.constant(node, "bias"), examined.moments.get(node.output)
        if bias is None or moments is None:
            continue
        moved = SIGMAS * np.sqrt(moments.variance)
        reach = np.maximum(np.abs(moments.low), np.abs(moments.high))
        still = np.abs(moments.mean) > HIGH_BIAS * moved
        width = examined.width(node.output)
        others = float(reach[~still].max(initial=0.0))
        if still.any() and 0 < others < width / 2 < float(reach[still].max()):
            text = f"a channel stays near {float(reach[still].max()):.3g}; the others need half of that range"
            found.append((node, text))
    if found:
        nodes = [node for node, _ in found]
        is_linked = any(node.name in examined.linked.values() for node in nodes)
        yield Finding(
            severity="worth knowing",
            cause="large biases",
            what="What a channel always holds takes up the range that all channels share.",
            victims=tuple(Victim(node=node.name, figure=text) for node, text in found),
            remedy="--absorb-bias, which moves it into the next layer" if is_linked else examined.in_float(nodes),
        )


def mean_shift(examined: Examined) -> Iterator[Finding]:
    """Rounding errors of weights do not cancel where inputs have a mean: each channel's output is shifted."""
    found = []
    for node, kernel in kernels(examined.graph):
        x, y = examined.moments.get(node.inputs[0]), examined.moments.get(node.output)
        if x is not None and y is not None and y.variance.any():
            groups = getattr(node.op, "groups", 1)
            part = thinned(kernel, groups)
            lost = rounding_errors(part, is_per_channel=examined.scales == "channel" and kernel.ndim > 2)
            moved = layer_mean(lost, groups, x.mean)
            found.append((sqrt(float(np.square(moved).mean() / y.variance.mean())), node))
    total = sqrt(sum(shift**2 for shift, _ in found))
    if total > SHIFTED:
        found.sort(key=lambda pair: -pair[0])
        yield Finding(
            severity="worth knowing",
            cause="rounded weights shift means",
            what=f"By {total:.2f} standard deviations in all; without a correction that alone costs answers.",
            victims=tuple(
                Victim(node=node.name, figure=f"shifted by {shift:.2f} standard deviations")
                for shift, node in found
                if shift > total / 4
            ),
            remedy="--bias-correction empirical (the default)",
        )


def random_weights(examined: Examined) -> Iterator[Finding]:
    """Weights spread as an initialiser spreads them were never trained."""
    large = [
        (kernel.shape, float(kernel.std())) for _, kernel in kernels(examined.read) if kernel.size >= FEWEST_RANDOM
    ]
    deviations = {name: [_deviation(*each, name) for each in large] for name in INITIALISERS}
    fits = [name for name, found in deviations.items() if found and float(np.median(found)) < SAME_INITIALISER]
    if fits:
        count = sum(deviation < SAME_INITIALISER for deviation in deviations[fits[0]])
        yield Finding(
            severity="worth knowing",
            cause="random weights",
            what=f"{count} of {len(large)} kernels have the spread of fresh {fits[0]} weights: accuracy and predicted "
            "errors of an untrained network mean nothing.",
            remedy="diagnose it again once it is trained, or give --weights",
        )


def _deviation(shape: tuple[int, ...], spread: float, name: str) -> float:
    """Return how far, relatively, a kernel's spread is from an initialiser's, in the order of axes of either format."""
    places = prod(shape[:-2])
    return abs(spread / INITIALISERS[name](places * shape[-2], places * shape[-1]) - 1)


def unfolded_batch_norms(examined: Examined) -> Iterator[Finding]:
    """A BatchNorm that no layer took over is a multiplication and a sum, each rounded."""
    if examined.unfolded:
        yield Finding(
            severity="worth knowing",
            cause="BatchNorm on its own",
            what="It stays as a product and a sum, each with a range and a rounding of its own.",
            victims=tuple(Victim(node=node, figure=reason) for node, reason in examined.unfolded.items()),
            remedy="place it right behind a convolution, before training",
        )
