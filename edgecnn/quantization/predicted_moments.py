"""What the activations of a float network will be like, told without an image: mean and variance of each channel.

A BatchNorm says it of its own output: beta and gamma^2 (less by variance / (variance + epsilon), which tells the
channels that died in training). Elsewhere it follows from what comes before, each input taken
as Gaussian and independent of the other channels:

    layer       mean' = sum w mean + b        variance' = sum over channels of R, R = (1 - r) sum w^2 + r (sum w)^2
    function f  moments of f(mean + sigma z) over a grid of z
    sum         means and variances add;  product  m1 m2, v1 v2 + v1 m2^2 + v2 m1^2

where the inner sums run over the kernel's window, in which neighbouring values are alike (correlation r). The range is
what lies within SIGMAS standard deviations. Pictures enter with the mean and deviation of photographs.

Source: Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv:1906.04721,
sections 4.1.3 and 4.2.1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.contract import Contract
from edgecnn.graph import Array, Graph, Node, Tensor
from edgecnn.kernels import evaluate_all
from edgecnn.quantization.layer_moments import layer_mean, layer_variance
from edgecnn.quantization.rules import WEIGHTED

SIGMAS = 6.0
"""Standard deviations that a range holds: of the thousands of values of a channel some lie there."""

PIXELS = (117.0, 58.0)
"""Mean and standard deviation of a photograph's pixels. Source: ImageNet's 0.456 and 0.225, times 255."""

LARGEST_MOVED = 1 << 24
"""Elements: what moves more than this is not followed."""

GRID = np.linspace(-SIGMAS, SIGMAS, 97)
DENSITY = np.exp(-np.square(GRID) / 2) / np.exp(-np.square(GRID) / 2).sum()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moments:
    """Of one tensor; each array has a number for each channel (last axis), float64.

    Attributes:
        mean: Over images and positions.
        variance: Over both.
        low: Smallest value to expect.
        high: Largest.
        zeros: Share of values that are 0, which every integer type holds exactly.
    """

    mean: Array
    variance: Array
    low: Array
    high: Array
    zeros: Array | float = 0.0

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value of the whole tensor; 0 lies between."""
        return min(float(self.low.min()), 0.0), max(float(self.high.max()), 0.0)


Rule = Callable[[Any, Sequence[Moments], Sequence[Tensor]], Moments]
"""(operator, moments of its computed operands, its output and operands as tensors) -> moments of its output."""


def predicted_moments(read: Graph, deployed: Graph) -> dict[str, Moments]:
    """Return what is expected of each tensor of a deployed float Graph; what cannot be told is left out.

    Args:
        read: The Graph before deployment, whose BatchNorms say what they give.
        deployed: Tensors that stand for the same value have the same name.
    """
    anchors, found = _anchors(read), {}
    for port in deployed.inputs:
        tensor = deployed.tensors[port.tensor]
        if tensor.dtype == "float32" and tensor.shape:
            found[port.tensor] = _entering(tensor, deployed.contract)
    with np.errstate(all="ignore"):
        for node in deployed.nodes:
            for name, moments in _outputs(deployed, node, found, anchors).items():
                fitting = _fitting(moments, deployed.tensors[name])
                if fitting is not None:
                    found[name] = fitting
    return found


def gaussian(mean: Array, variance: Array) -> Moments:
    """Return the moments of Gaussian channels, whose range is SIGMAS wide to either side."""
    reach = SIGMAS * np.sqrt(variance)
    return Moments(mean=mean, variance=variance, low=mean - reach, high=mean + reach)


def _anchors(read: Graph) -> dict[str, Moments]:
    """Return what BatchNorms say: of their outputs, and, before it acts, of the activation behind each.

    A layer that took both over gives the activation's output and nothing else.
    """
    found: dict[str, Moments] = {}
    for node in read.nodes:
        constants = [read.tensors[name].data is not None for name in node.inputs[1:]]
        if isinstance(node.op, ops.BatchNorm) and all(constants):
            gamma, beta, _, variance = (read.tensors[name].value().astype(np.float64) for name in node.inputs[1:])
            share = variance / np.maximum(variance + node.op.epsilon, np.finfo(np.float32).tiny)
            found[node.output] = gaussian(beta, np.square(gamma) * np.clip(share, 0.0, 1.0))
        elif isinstance(node.op, ops.Activation) and node.inputs[0] in found:
            found[node.output] = found[node.inputs[0]]
    return found


def _entering(tensor: Tensor, contract: Contract | None) -> Moments:
    channels = int(tensor.shape[-1] or 1)
    mean, deviation = np.full(channels, PIXELS[0]), np.full(channels, PIXELS[1])
    low, high = np.zeros(channels), np.full(channels, 255.0)
    if contract is not None and contract.channels == channels:
        offset, scale = np.asarray(contract.mean), np.asarray(contract.std)
    else:
        offset, scale = np.full(channels, 127.5), np.full(channels, 127.5)
    return Moments(
        mean=(mean - offset) / scale,
        variance=np.square(deviation / scale),
        low=(low - offset) / scale,
        high=(high - offset) / scale,
    )


def _outputs(
    graph: Graph, node: Node, found: Mapping[str, Moments], anchors: Mapping[str, Moments]
) -> dict[str, Moments]:
    """Return the moments of a node's outputs, as far as they can be told."""
    tensors = [graph.tensors[name] for name in node.inputs]
    if isinstance(node.op, WEIGHTED) and node.output in anchors:
        return {node.output: activated(anchors[node.output], getattr(node.op, "activation", None))}
    known = [found.get(tensor.name) or _constant(tensor) for tensor in tensors]
    given = [each for each in known if each is not None]
    if len(given) != len(known):
        return {}
    if type(node.op) in MOVERS:
        return _moved(graph, node, given)
    rule = RULES.get(type(node.op)) or (_function if isinstance(node.op, ops.Activation | ops.PReLU) else None)
    if rule is None:
        return {}
    before = rule(node.op, given, tensors)
    return {node.output: activated(before, getattr(node.op, "activation", None))}


def _fitting(moments: Moments, tensor: Tensor) -> Moments | None:
    """Return moments with one finite number for each channel of a tensor, or None where they have no such form."""
    channels = int((tensor.shape[-1] if tensor.shape else 1) or 1)
    parts = [moments.mean, moments.variance, moments.low, moments.high, np.atleast_1d(moments.zeros)]
    if any(part.shape not in {(1,), (channels,)} or not np.isfinite(part).all() for part in parts):
        return None
    mean, variance, low, high, zeros = (np.broadcast_to(part, (channels,)) for part in parts)
    return Moments(mean=mean, variance=variance, low=low, high=high, zeros=zeros)


def _constant(tensor: Tensor) -> Moments | None:
    """Return the moments of a constant: it is the same in every image."""
    if tensor.data is None or not tensor.data.size:
        return None
    rows = _per_channel(tensor.value())
    mean = rows.mean(axis=0)
    return Moments(mean=mean, variance=np.zeros_like(mean), low=rows.min(axis=0), high=rows.max(axis=0))


def activated(before: Moments, activation: ops.Op | None) -> Moments:
    """Return the moments behind an activation that a layer took over, if any."""
    return before if activation is None else _function(activation, [before], [])


def _function(op: Any, given: Sequence[Moments], tensors: Sequence[Tensor]) -> Moments:
    """Return the moments of a function of each element, from its values on a grid."""
    x, *parameters = given
    points = np.clip(x.mean + np.sqrt(x.variance) * GRID[:, None], x.low, x.high)
    values = evaluate_all(op, [points, *(each.mean for each in parameters)])[0].astype(np.float64)
    mean = DENSITY @ values
    variance = np.maximum(DENSITY @ np.square(values) - np.square(mean), 0.0)
    zeros = DENSITY @ (values == 0)
    return Moments(mean=mean, variance=variance, low=values.min(axis=0), high=values.max(axis=0), zeros=zeros)


def _layer(op: Any, given: Sequence[Moments], tensors: Sequence[Tensor]) -> Moments:
    """Return a layer's moments; a transposed convolution has 1 / stride of the kernel under each output."""
    x, kernel, groups = given[0], tensors[1].value(), getattr(op, "groups", 1)
    share = 1 / np.prod(op.stride) if isinstance(op, ops.ConvTranspose) else 1.0
    mean = layer_mean(kernel, groups, x.mean) * share
    bias = given[2].mean if len(given) > 2 else 0.0
    return gaussian(mean + bias, layer_variance(kernel, groups, x.variance) * share)


def _sum(op: Any, given: Sequence[Moments], tensors: Sequence[Tensor]) -> Moments:
    """Return the moments of a + b, or of a - b."""
    a, b = given
    sign = -1.0 if isinstance(op, ops.Sub) else 1.0
    variance = a.variance + b.variance
    ends = (b.high, b.low) if sign < 0 else (b.low, b.high)
    low, high = a.low + sign * ends[0], a.high + sign * ends[1]
    near = gaussian(a.mean + sign * b.mean, variance)
    return Moments(mean=near.mean, variance=variance, low=np.maximum(low, near.low), high=np.minimum(high, near.high))


def _product(op: Any, given: Sequence[Moments], tensors: Sequence[Tensor]) -> Moments:
    a, b = given
    corners = np.stack(np.broadcast_arrays(a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high))
    variance = a.variance * b.variance + a.variance * np.square(b.mean) + b.variance * np.square(a.mean)
    return Moments(mean=a.mean * b.mean, variance=variance, low=corners.min(axis=0), high=corners.max(axis=0))


def _mean(op: Any, given: Sequence[Moments], tensors: Sequence[Tensor]) -> Moments:
    """Return the moments of a mean over positions, most of which are seen to cancel; Sum has as many times them."""
    (x,), (tensor,) = given, tensors
    count = np.prod([tensor.shape[axis] or 1 for axis in op.axes])
    if len(tensor.shape) - 1 in op.axes:
        x = _pooled(x)
    near = gaussian(x.mean, x.variance / min(float(count), MEAN_GAIN))
    times = float(count) if isinstance(op, ops.Sum) else 1.0
    low, high = np.maximum(near.low, x.low) * times, np.minimum(near.high, x.high) * times
    return Moments(mean=x.mean * times, variance=near.variance * times**2, low=low, high=high)


MEAN_GAIN = 8.0
"""How many times smaller the variance of a mean over all positions is, at most: images differ as a whole, too."""


def _pooled(x: Moments) -> Moments:
    """Return one channel that stands for all."""
    mean = x.mean.mean(keepdims=True)
    variance = x.variance.mean(keepdims=True) + np.square(x.mean - mean).mean(keepdims=True)
    return Moments(mean=mean, variance=variance, low=x.low.min(keepdims=True), high=x.high.max(keepdims=True))


def _largest(op: Any, given: Sequence[Moments], tensors: Sequence[Tensor]) -> Moments:
    """Return the moments of the largest of several alike values."""
    x = given[0]
    mean = np.minimum(x.mean + 0.8 * np.sqrt(x.variance), x.high)
    return Moments(mean=mean, variance=x.variance, low=x.low, high=x.high, zeros=x.zeros)


def _softmax(op: Any, given: Sequence[Moments], tensors: Sequence[Tensor]) -> Moments:
    share = np.full_like(given[0].mean, 1 / given[0].mean.size)
    return Moments(mean=share, variance=share * 0.1, low=np.zeros_like(share), high=np.ones_like(share))


MOVERS = (
    *(ops.Concat, ops.Split, ops.Slice, ops.Pad, ops.Tile, ops.Reshape, ops.Transpose, ops.Resize),
    *(ops.DepthToSpace, ops.SpaceToDepth, ops.Identity, ops.Dropout, ops.AveragePool),
)
"""Operators that are applied to the channels' numbers themselves."""

RULES: dict[type[ops.Op], Rule] = {
    **dict.fromkeys(WEIGHTED, _layer),
    **dict.fromkeys((ops.Add, ops.Sub), _sum),
    ops.Mul: _product,
    **dict.fromkeys((ops.Mean, ops.Sum), _mean),
    **dict.fromkeys((ops.MaxPool, ops.Max), _largest),
    ops.Gather: lambda op, given, tensors: _pooled(given[0]),
    ops.Softmax: _softmax,
}


def _moved(graph: Graph, node: Node, given: Sequence[Moments]) -> dict[str, Moments]:
    """Move the numbers of the channels as the operator moves elements; what meets in one channel is averaged."""
    tensors = [graph.tensors[name] for name in node.inputs]
    shapes = [tuple(1 if size is None else size for size in tensor.shape) for tensor in tensors]
    wide = [graph.tensors[name].shape for name in node.outputs]
    if max(float(np.prod([size or 1 for size in shape])) for shape in (*shapes, *wide)) > LARGEST_MOVED:
        return {}
    parts = {
        part: evaluate_all(node.op, [_laid(part, *each) for each in zip(given, shapes, strict=True)])
        for part in ("mean", "variance", "low", "high", "zeros")
    }
    return {
        name: Moments(
            mean=_per_channel(parts["mean"][place]).mean(axis=0),
            variance=_per_channel(parts["variance"][place]).mean(axis=0)
            + _per_channel(parts["mean"][place]).var(axis=0),
            low=_per_channel(parts["low"][place]).min(axis=0),
            high=_per_channel(parts["high"][place]).max(axis=0),
            zeros=_per_channel(parts["zeros"][place]).mean(axis=0),
        )
        for place, name in enumerate(node.outputs)
    }


def _laid(part: str, moments: Moments, shape: tuple[int, ...]) -> Array:
    """Return one number for each channel at every position."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(getattr(moments, part), np.float32), shape))


def _per_channel(values: Array) -> Array:
    return values.astype(np.float64).reshape(-1, values.shape[-1] if values.ndim else 1)
