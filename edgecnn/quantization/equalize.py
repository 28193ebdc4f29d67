"""Cross-layer equalization: scale channels between neighbouring layers, so that one scale fits a whole kernel.

Between two layers lie operators f with f(s x) = s f(x) for every s > 0: ReLU, LeakyReLU, PReLU, pooling, means over
positions, padding with zeros. A factor t_c for each channel then goes in before them and out behind them,

    W2 f(W1 x + b1)  =  (W2 / t) f(t W1 x + t b1)

and the float network computes what it did. With r1_c the largest weight of W1 that gives channel c, and r2_c the
largest of W2 that reads it, t = sqrt(r2 / r1) makes both ranges sqrt(r1 r2): no channel of one kernel is lost under the
scale of another. Links are visited in turn until no factor changes by more than TOLERANCE; where a depthwise layer lies
between two others the fixed point is the closed form for triples, all three ranges (r1 r2 r3)^(1/3).

ReLU6 is not homogeneous: min(t x, 6) is not t min(x, 6). Taking ReLU for it, as the paper does, changes the function
(MobileNet v1 0.25 keeps 53 % of its answers). Two ways are offered that change nothing:

- "keep": a channel that reaches 6 in the calibration keeps t = 1; any other takes t <= 6 / (HEADROOM * largest value
  seen), so that it is clamped neither before nor after. Exact for values up to the largest seen. Without a calibration
  nothing is scaled through ReLU6.
- "minimum": exact for every input. The factors are divided by the largest one (a factor for a whole tensor costs
  integers nothing), so that t <= 1, ReLU6 stays, and a Minimum with the constant 6 t behind it clamps each channel: one
  more operator for each clamp, which not every accelerator takes.

Source: Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv:1906.04721,
section 4.1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node
from edgecnn.passes.channel_scale import refuse_parameters, scaled_before, scaled_behind
from edgecnn.passes.editor import GraphEditor, PassResult
from edgecnn.passes.value_range import RANGES
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.rules import WEIGHTED
from edgecnn.shapes import Shape

Clamp = Literal["keep", "minimum"]

TOLERANCE = 1e-2
"""Relative change of a factor that counts as none."""

ROUNDS = 100
"""At most: each brings the ranges of a chain of layers about four times nearer to each other."""

HEADROOM = 1.25
"""A channel that is scaled up under a kept clamp reaches it at this multiple of the largest value seen, or later."""

LARGEST_FACTOR = 100.0
"""And its inverse the smallest."""


def _has_all_channels(op: Any, before: Shape, after: Shape) -> bool:
    return len(before) - 1 not in op.axes


def _pads_no_channels(op: Any, before: Shape, after: Shape) -> bool:
    return not any(op.padding[-1]) and (op.mode != "constant" or op.value == 0)


def _keeps_order(op: Any, before: Shape, after: Shape) -> bool:
    """Tell whether the channel of each element is still its place in the last axis, modulo the channels."""
    return bool(after) and int(after[-1] or 0) % int(before[-1] or 1) == 0


HOMOGENEOUS: dict[type[ops.Op], Callable[[Any, Shape, Shape], bool]] = {
    **dict.fromkeys((ops.ReLU, ops.LeakyReLU, ops.ReLU6, ops.Identity, ops.Dropout), lambda op, before, after: True),
    **dict.fromkeys((ops.PReLU, ops.MaxPool, ops.AveragePool, ops.Resize), lambda op, before, after: True),
    ops.Clip: lambda op, before, after: bool(op.minimum == 0),
    **dict.fromkeys((ops.Mean, ops.Sum, ops.Max, ops.Min), _has_all_channels),
    ops.Pad: _pads_no_channels,
    ops.Reshape: _keeps_order,
}
"""Operator -> whether factors of channels pass through it: (operator, shape of its input, of its output)."""

CLAMPS = (ops.ReLU6, ops.Clip)
"""Those through which factors pass only with care."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """Two layers with nothing between them that factors cannot pass.

    Attributes:
        first: Name of the layer that gives the channels.
        last: Name of the layer that reads them.
        path: Names of the nodes between them.
        clamp: Name of the one among `first` and `path` that clamps, if any.
        bound: Where it clamps.
    """

    first: str
    last: str
    path: tuple[str, ...] = ()
    clamp: str | None = None
    bound: float = np.inf


def equalize(graph: Graph, *, calibration: Calibration | None = None, clamp: Clamp = "keep") -> PassResult:
    """Scale channels between layers of a deployed float Graph; the network's function stays.

    The tensors between the layers get new names, since they get new values: statistics of them hold no longer.

    Args:
        graph: Without BatchNorm.
        calibration: Of the Graph; tells which channels reach a clamp.
        clamp: What is done about ReLU6; see above.
    """
    editor, links, refused = GraphEditor(graph), [], []
    for node in [each for each in graph.nodes if isinstance(each.op, WEIGHTED)]:
        found = find_link(editor, node)
        reason = found if isinstance(found, str) else _refuse_clamp(editor, found, calibration, clamp)
        if reason is None and isinstance(found, Link):
            links.append(found)
        else:
            refused.append((node.name, reason or ""))
    factors = _settled(editor, links, _limits(editor, links, calibration, clamp))
    for link, factor in zip(links, factors, strict=True):
        is_bounded = link.clamp is not None and clamp == "minimum"
        _apply(editor, link, factor / factor.max() if is_bounded else factor, is_bounded=is_bounded)
    result = editor.finish() if links else graph
    return PassResult(graph=result, applied=tuple(link.first for link in links), refused=tuple(refused))


def find_link(editor: GraphEditor, layer: Node) -> Link | str:
    """Return the link from a layer to the next one, or why there is none."""
    reason = refuse_parameters(editor, layer)
    link, node = Link(first=layer.name, last=layer.name), layer
    while reason is None:
        activation = getattr(node.op, "activation", None)
        for op in ([] if node is layer else [node.op]) + ([] if activation is None else [activation]):
            reason = reason or _refuse(editor, node, op)
            if isinstance(op, CLAMPS):
                reason = reason or (f"{node.name} clamps a second time" if link.clamp else None)
                link = replace(link, clamp=node.name, bound=RANGES[type(op)](op)[1])
        taker = editor.only_consumer(node.output)
        if reason is None and taker is None:
            return f"the output of {node.name} is not read by one layer alone"
        if reason is None and taker is not None and isinstance(taker.op, WEIGHTED):
            is_read = taker.inputs.count(node.output) == 1 and taker.inputs[0] == node.output
            reason = refuse_parameters(editor, taker) if is_read else f"{taker.name} takes it as a parameter"
            return reason or replace(link, last=taker.name)
        if taker is not None:
            link, node = replace(link, path=(*link.path, taker.name)), taker
    return reason


def _refuse(editor: GraphEditor, node: Node, op: ops.Op) -> str | None:
    """Return why factors cannot pass an operator."""
    before, after = (editor.tensors[name].shape for name in (node.inputs[0], node.output))
    passes = HOMOGENEOUS.get(type(op))
    if passes is None or not passes(op, before, after):
        return f"{type(op).__name__} of {node.name} does not let factors of channels pass"
    return None if editor.has_constants(node) else f"the parameters of {node.name} are computed"


def _refuse_clamp(editor: GraphEditor, link: Link, calibration: Calibration | None, clamp: Clamp) -> str | None:
    """Return why nothing can be scaled through a link's clamp."""
    if link.clamp is None or clamp == "minimum":
        return None
    if calibration is None:
        return f"{link.clamp} clamps at {link.bound:g}, and no calibration tells which channels never get there"
    largest = calibration.statistics[editor.nodes[link.clamp].output].maximum
    return f"every channel reaches the clamp of {link.clamp}" if (HEADROOM * largest >= link.bound).all() else None


def _limits(
    editor: GraphEditor, links: list[Link], calibration: Calibration | None, clamp: Clamp
) -> list[tuple[Array, Array]]:
    """Return the smallest and the largest factor that each channel of each link may have."""
    limits = []
    for link in links:
        channels = int(editor.tensors[editor.nodes[link.first].output].shape[-1] or 0)
        least, most = np.full(channels, 1 / LARGEST_FACTOR), np.full(channels, float(LARGEST_FACTOR))
        if link.clamp is not None and clamp == "keep" and calibration is not None:
            largest = calibration.statistics[editor.nodes[link.clamp].output].maximum.astype(np.float64)
            is_near = HEADROOM * largest >= link.bound
            room = np.divide(link.bound, HEADROOM * largest, where=largest > 0, out=most.copy())
            least, most = np.where(is_near, 1.0, least), np.where(is_near, 1.0, np.minimum(most, room))
        limits.append((least, most))
    return limits


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
    groups, inputs = getattr(node.op, "groups", 1), int(editor.tensors[node.inputs[0]].shape[-1] or 0)
    outputs = int(editor.tensors[node.output].shape[-1] or 0)
    tiled = np.tile(numbers, inputs // len(numbers))
    return np.repeat(tiled.reshape(groups, -1).T, outputs // groups, axis=-1)


def _read_ranges(editor: GraphEditor, link: Link, kernel: Array) -> Array:
    """Return the largest weight that reads each channel of a link."""
    channels = int(editor.tensors[editor.nodes[link.first].output].shape[-1] or 0)
    places = _by_weight(editor, link, np.arange(channels)).astype(int)
    largest = np.zeros(channels)
    np.maximum.at(largest, places, np.abs(kernel).reshape(-1, *kernel.shape[-2:]).max(axis=0))
    return largest


def _apply(editor: GraphEditor, link: Link, factor: Array, *, is_bounded: bool) -> None:
    """Write a link's factors into its layers, rename what lies between them, and clamp each channel at its own bound."""
    first, last = editor.nodes[link.first], editor.nodes[link.last]
    zeros = np.zeros_like(factor)
    editor.put(replace(first, inputs=scaled_behind(editor, first, factor, zeros)))
    inputs = int(editor.tensors[last.inputs[0]].shape[-1] or 0)
    tiled = np.tile(1 / factor, inputs // len(factor))
    editor.put(replace(last, inputs=scaled_before(editor, last, tiled, np.zeros_like(tiled))))
    for name in (link.first, *link.path):
        node = editor.nodes[name]
        old, new = node.output, editor.free_name(f"{node.output}/equalized")
        editor.put(replace(node, outputs=(new,)))
        if is_bounded and name == link.clamp:
            new = _clamped(editor, new, link.bound * factor)
        editor.redirect(old, new)


def _clamped(editor: GraphEditor, tensor: str, bounds: Array) -> str:
    """Return the smaller of a tensor and a bound for each channel."""
    name = editor.free_name(f"{tensor}/clamped")
    constant = editor.add_constant(f"{name}/bounds", bounds.astype(np.float32))
    editor.put(Node(name=name, op=ops.Minimum(), inputs=(tensor, constant), outputs=(name,)))
    return name

