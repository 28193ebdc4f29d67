"""What a float network's layers will lose to 8-bit integers, told without an image, part by part.

With a step of width d an even rounding error has the variance d^2 / 12. A layer fed with exact values, rounded only by
its own operands' scales (what layer_errors measures as the layer's own figure), then has the error

    output    d_out^2 / 12              d_out: the predicted range / 255
    input     sum w^2 d_in^2 / 12
    kernel    sum (w - q(w))^2 variance(x)

against the variance of its output, averaged over its channels. No error of a channel is larger than its variance, which
is lost when all of it rounds to one integer; and what is 0, as most of a channel behind a ReLU may be, has none. What a
rounded kernel makes of the mean of x is the same in every image: bias correction takes it out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node
from edgecnn.quantization.layer_moments import by_group, layer_variance, weighed
from edgecnn.quantization.predicted_moments import Moments
from edgecnn.quantization.recipe import Spread
from edgecnn.quantization.rules import FIXED_OUTPUT, INTEGER_OPERATORS, SAME_SCALE, WEIGHTED
from edgecnn.quantization.weights import kernel_quantization

STEPS = 255
"""Of an 8-bit activation."""

LIMIT = 127
"""Largest integer of an 8-bit weight."""

MOST_WEIGHTS = 1 << 21
"""That rounding errors are taken from."""

LOWERED = (ops.Swish, ops.HardSigmoid)
"""Become several operators, see passes.lower_activation; the last one keeps the name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedError:
    """Of one layer.

    Attributes:
        node: Its name.
        snr_db: Its own, in dB.
        parts: Where the error comes from -> its share: "output", "input" and "kernel".
    """

    node: str
    snr_db: float
    parts: Mapping[str, float]


def predicted_errors(
    graph: Graph, moments: Mapping[str, Moments], *, scales: Spread = "channel"
) -> dict[str, PredictedError]:
    """Return what is expected of every node whose inputs and output are, by name.

    Args:
        graph: Deployed float Graph.
        moments: See predicted_moments.
        scales: One for each output channel of a convolution, or one for the whole kernel.
    """
    found = {}
    for node in graph.nodes:
        computed = [name for name in node.inputs if not graph.tensors[name].is_constant]
        is_known = all(name in moments for name in (*computed, node.output))
        if not is_known or type(node.op) not in INTEGER_OPERATORS["int8"] + LOWERED:
            continue
        signal = float(moments[node.output].variance.mean())
        parts = {
            "output": _output_noise(node, moments[node.output]),
            **(
                _layer_noise(graph, node, moments, scales)
                if isinstance(node.op, WEIGHTED)
                else {"input": _input_noise(node, [moments[name] for name in computed], moments[node.output])}
            ),
        }
        total = sum(parts.values())
        if signal > 0 and total > 0:
            shares = {part: noise / total for part, noise in parts.items()}
            found[node.name] = PredictedError(node=node.name, snr_db=10 * np.log10(signal / total), parts=shares)
    return found


def step(moments: Moments) -> float:
    """Return the width of an 8-bit step over a predicted range."""
    low, high = moments.range
    return (high - low) / STEPS


def rounding_noise(moments: Moments, width: float | None = None) -> Array:
    """Return the variance of the error that rounding makes in each channel.

    Args:
        moments: Of the tensor.
        width: Of a step, where it does not follow from the range.
    """
    even = (step(moments) if width is None else width) ** 2 / 12
    return np.minimum(even * (1 - moments.zeros), moments.variance)


def _output_noise(node: Node, output: Moments) -> float:
    fixed = FIXED_OUTPUT.get((type(node.op), "int8"))
    noise = rounding_noise(output, None if fixed is None else fixed.scale[0])
    return 0.0 if isinstance(node.op, SAME_SCALE) else float(noise.mean())


def _input_noise(node: Node, inputs: Sequence[Moments], output: Moments) -> float:
    """Return what rounded inputs make of the output: as much smaller or larger as the signal becomes."""
    gains = GAINS.get(type(node.op), _relative_gain)
    return sum(gain * float(rounding_noise(x).mean()) for gain, x in zip(gains(inputs, output), inputs, strict=True))


def _even_gains(inputs: Sequence[Moments], output: Moments) -> list[float]:
    return [1.0] * len(inputs)


def _product_gains(inputs: Sequence[Moments], output: Moments) -> list[float]:
    """Return the mean square of the other factor for each."""
    squares = [float((np.square(x.mean) + x.variance).mean()) for x in inputs]
    return [squares[1 - place] for place in range(len(squares))] if len(squares) == 2 else [1.0] * len(squares)


def _relative_gain(inputs: Sequence[Moments], output: Moments) -> list[float]:
    given = float(inputs[0].variance.mean()) if inputs else 0.0
    return [float(output.variance.mean()) / given if given else 1.0] * len(inputs)


GAINS: dict[type[ops.Op], Callable[[Sequence[Moments], Moments], list[float]]] = {
    ops.Mul: _product_gains,
    ops.Add: _even_gains,
    ops.Sub: _even_gains,
}
"""Operator -> by how much it multiplies the noise of each of its inputs; others multiply it as they do the signal."""


def _layer_noise(graph: Graph, node: Node, moments: Mapping[str, Moments], scales: Spread) -> dict[str, float]:
    op: Any = node.op
    kernel = graph.constant(node, "kernel")
    if kernel is None or not np.isfinite(kernel.value()).all():
        return {}
    weights, x, groups = kernel.value(), moments[node.inputs[0]], getattr(op, "groups", 1)
    share = 1 / float(np.prod(op.stride)) if isinstance(op, ops.ConvTranspose) else 1.0
    weights = thinned(weights, groups)
    lost = rounding_errors(weights, is_per_channel=scales == "channel" and weights.ndim > 2)
    return {
        "input": share * float(_independent(weights, groups, rounding_noise(x)).mean()),
        "kernel": share * float(layer_variance(lost, groups, x.variance).mean()),
    }


def rounding_errors(weights: Array, *, is_per_channel: bool) -> Array:
    """Return w - q(w) for a kernel (..., out_channels) of 8 bits."""
    found = kernel_quantization(weights, LIMIT, is_per_channel=is_per_channel)
    return np.asarray(weights - found.dequantize(found.quantize(weights)))


def _independent(kernel: Array, groups: int, variance: Array) -> Array:
    """Return sum w^2 variance for each output channel: errors of rounding are not alike, even those of neighbours."""
    rows = by_group(kernel, groups)
    return weighed(np.einsum("pigo,pigo->igo", rows, rows), variance)


def thinned(kernel: Array, groups: int) -> Array:
    """Return a kernel with so many of its output channels that their mean is known and soon found."""
    every = -(-kernel.size // MOST_WEIGHTS) if groups == 1 else 1
    return kernel[..., ::every]
