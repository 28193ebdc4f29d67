"""Cross-layer equalization: scale channels between neighbouring layers, so that one scale fits a whole kernel.

Between two layers lie operators f with f(s x) = s f(x) for every s > 0: ReLU, LeakyReLU, PReLU, pooling, means over
positions, padding with zeros. A factor t_c for each channel then goes in before them and out behind them,

    W2 f(W1 x + b1)  =  (W2 / t) f(t W1 x + t b1)

and the float network computes what it did. With r1_c the largest weight of W1 that gives channel c, and r2_c the
largest of W2 that reads it, t = sqrt(r2 / r1) makes both ranges sqrt(r1 r2): no channel of one kernel is lost under the
scale of another. Links are visited in turn until no factor changes by more than TOLERANCE; where a depthwise layer lies
between two others the fixed point is the closed form for triples, all three ranges (r1 r2 r3)^(1/3).

ReLU6 is not homogeneous: min(t x, 6) is not t min(x, 6). Taking ReLU for it, as the paper does, changes the function
(MobileNet v1 0.25 keeps 53 % of its answers). A Minimum with a constant for each channel behind it does not, but costs
an operator that many accelerators refuse; behind a bias correction it gained no more. So ReLU6 stays, and only channels
that stay away from it in the calibration are scaled: with m the largest value seen, one with HEADROOM * m < 6 takes
t <= 6 / (HEADROOM * m), so that nothing is clamped before or after up to HEADROOM times what was seen. An image that
goes further sees another function. Without a calibration nothing is scaled through ReLU6.

Source: Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv:1906.04721,
section 4.1.
"""

from dataclasses import replace

import numpy as np

from edgecnn.graph import Array, Graph
from edgecnn.passes.channel_scale import scaled_before, scaled_behind
from edgecnn.passes.editor import GraphEditor, PassResult
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.channel_links import (
    HEADROOM,
    Link,
    as_read,
    channels_of,
    far_from_clamp,
    find_link,
    float_layers,
    rename_between,
)

TOLERANCE = 1e-2
"""Relative change of a factor that counts as none."""

ROUNDS = 100
"""At most: each brings the ranges of three layers in a row about four times nearer to each other."""

LARGEST_FACTOR = 100.0
"""And its inverse the smallest: a nearly dead channel is not blown up until its bias drowns the others."""


def equalize(graph: Graph, calibration: Calibration | None = None) -> PassResult:
    """Scale channels between layers of a deployed float Graph; the network's function stays.

    The tensors between the layers get new names, since they get new values: statistics of them hold no longer.

    Args:
        graph: Without BatchNorm.
        calibration: Of the Graph; tells which channels stay away from a clamp.

    Raises:
        UsageError: When the Graph is quantized already.
    """
    editor, links, refused = GraphEditor(graph), [], []
    for node in float_layers(graph, "to equalize"):
        found = find_link(editor, node)
        if isinstance(found, Link) and far_from_clamp(editor, found, calibration).any():
            links.append(found)
        else:
            refused.append((node.name, found if isinstance(found, str) else _clamped(found, calibration)))
    factors = _settled(editor, links, [_limits(editor, link, calibration) for link in links])
    for link, factor in zip(links, factors, strict=True):
        _apply(editor, link, factor)
    result = editor.finish() if links else graph
    return PassResult(graph=result, applied=tuple(link.first for link in links), refused=tuple(refused))


def _clamped(link: Link, calibration: Calibration | None) -> str:
    """Return why nothing is scaled through a clamp."""
    if calibration is None:
        return f"{link.clamp} clamps at {link.bound:g}, and no calibration tells which channels never get there"
    return f"every channel comes near the clamp of {link.clamp} at {link.bound:g}"


def _limits(editor: GraphEditor, link: Link, calibration: Calibration | None) -> tuple[Array, Array]:
    """Return the smallest and the largest factor that each channel of a link may have."""
    channels = channels_of(editor, link)
    least, most = np.full(channels, 1 / LARGEST_FACTOR), np.full(channels, LARGEST_FACTOR)
    if link.clamp is None or calibration is None:
        return least, most
    is_far = far_from_clamp(editor, link, calibration)
    largest = calibration.statistics[editor.nodes[link.clamp].output].maximum.astype(np.float64)
    room = np.divide(link.bound, HEADROOM * largest, where=is_far & (largest > 0), out=most.copy())
    return np.where(is_far, least, 1.0), np.where(is_far, np.minimum(most, room), 1.0)


def _settled(editor: GraphEditor, links: list[Link], limits: list[tuple[Array, Array]]) -> list[Array]:
    """Return the factors (channels,) of each link that no further round would change."""
    weights = {name: _weights(editor, name) for link in links for name in (link.first, link.last)}
    factors = [np.ones(least.shape) for least, _ in limits]
    for _ in range(ROUNDS):
        change = 0.0
        for place, (link, (least, most)) in enumerate(zip(links, limits, strict=True)):
            given = np.abs(weights[link.first]).max(axis=tuple(range(weights[link.first].ndim - 1)))
            read = _read_ranges(editor, link, weights[link.last])
            is_alive = (given > 0) & (read > 0)
            wanted = np.sqrt(np.divide(read, given, where=is_alive, out=np.ones_like(read)))
            new = np.clip(factors[place] * wanted, least, most)
            step, factors[place] = new / factors[place], new
            weights[link.first] = weights[link.first] * step
            weights[link.last] = weights[link.last] / _by_weight(editor, link, step)
            change = max(change, float(np.abs(np.log(step)).max()))
        if change < TOLERANCE:
            break
    return factors


def _weights(editor: GraphEditor, name: str) -> Array:
    """Return a layer's kernel as float64; every link has one, see refuse_parameters."""
    kernel = editor.constant(editor.nodes[name], "kernel")
    return np.zeros((0, 0)) if kernel is None else kernel.value().astype(np.float64)


def _by_weight(editor: GraphEditor, link: Link, numbers: Array) -> Array:
    """Return a number for each channel of a link as (in / groups, out): one for each weight that reads it."""
    node = editor.nodes[link.last]
    groups, outputs = getattr(node.op, "groups", 1), int(editor.tensors[node.output].shape[-1] or 0)
    return np.repeat(as_read(editor, link, numbers).reshape(groups, -1).T, outputs // groups, axis=-1)


def _read_ranges(editor: GraphEditor, link: Link, kernel: Array) -> Array:
    """Return the largest weight that reads each channel of a link."""
    channels = channels_of(editor, link)
    places = _by_weight(editor, link, np.arange(channels))
    largest = np.zeros(channels)
    np.maximum.at(largest, places, np.abs(kernel).reshape(-1, *kernel.shape[-2:]).max(axis=0))
    return largest


def _apply(editor: GraphEditor, link: Link, factor: Array) -> None:
    """Write a link's factors into its layers."""
    first, last = editor.nodes[link.first], editor.nodes[link.last]
    editor.put(replace(first, inputs=scaled_behind(editor, first, factor, np.zeros_like(factor))))
    inverse = as_read(editor, link, 1 / factor)
    editor.put(replace(last, inputs=scaled_before(editor, last, inverse, np.zeros_like(inverse))))
    rename_between(editor, link, "equalized")
