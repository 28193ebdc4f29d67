"""How each operator is written over inputs that are held in another order of axes: one rule per operator.

A rule returns the turned operator, or None where the operator insists on the order of its own values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Node
from edgecnn.passes.axis_order import Order, channels_first, identity, inverse, turned
from edgecnn.passes.turned_reshape import turned_reshape, with_runs_together

if TYPE_CHECKING:
    from edgecnn.passes.settle_layout import Settler


@dataclass(frozen=True, kw_only=True, slots=True)
class Turned:
    """A node as it is written.

    Attributes:
        op: With turned attributes.
        inputs: Held tensors.
        order: Of its outputs: value = transpose(held, order); None for their own.
    """

    op: ops.Op
    inputs: tuple[str, ...]
    order: Order | None = None


Rule = Callable[["Settler", Node], Turned | None]

TOKEN_RANK = 3


def _elementwise(s: Settler, node: Node) -> Turned | None:
    """Take the order in which most of what is computed is held; broadcasting needs all of the same rank."""
    rank = len(s.shape(node.output))
    computed = [name for name in node.inputs if not s.is_constant(name) and s.shape(name)]
    if not computed or any(len(s.shape(name)) != rank for name in computed):
        return None
    order = _common_order(s, computed)
    inputs = tuple(
        s.broadcast(name, order) if s.is_constant(name) else s.held_as(name, order) if s.shape(name) else name
        for name in node.inputs
    )
    return Turned(op=node.op, inputs=inputs, order=order)


def _common_order(s: Settler, names: Sequence[str]) -> Order:
    """Return the order that leaves the fewest elements to turn.

    Of two equals it is the one that is not the values' own, where convolutions hold pictures; but tokens (N, T, C) are
    what dense layers take, one after the other, as they are.
    """
    held = {s.view(name).order: 0 for name in names}
    for name in dict.fromkeys(names):
        held[s.view(name).order] += ops.elements(s.shape(name))
    is_picture = len(s.shape(names[0])) > TOKEN_RANK
    return max(held, key=lambda order: (held[order], (order != identity(len(order))) == is_picture))


def _unary(s: Settler, node: Node) -> Turned:
    """Take what is held; a shuffled flatten stays shuffled."""
    source = node.inputs[0]
    if source in s.shuffled:
        s.shuffled[node.output] = s.shuffled[source]
    view = s.view(source)
    return Turned(op=node.op, inputs=(s.held_as(source, view.order),), order=view.order)


def _by_axis(*names: str) -> Rule:
    """Return the rule of an operator of one input whose attributes of these names have one entry for each axis."""

    def rule(s: Settler, node: Node) -> Turned:
        view = s.view(node.inputs[0])
        back = inverse(view.order)
        changed = {name: turned(getattr(node.op, name), back) for name in names}
        return Turned(op=replace(node.op, **changed), inputs=(s.held_as(node.inputs[0], view.order),), order=view.order)

    return rule


def _split(s: Settler, node: Node) -> Turned:
    op: Any = node.op
    view = s.view(node.inputs[0])
    inputs = (s.held_as(node.inputs[0], view.order),)
    return Turned(op=replace(op, axis=view.order[op.axis]), inputs=inputs, order=view.order)


def _concat(s: Settler, node: Node) -> Turned | None:
    computed = [name for name in node.inputs if not s.is_constant(name)]
    if not computed:
        return None
    op: Any = node.op
    order = _common_order(s, computed)
    inputs = tuple(s.held_as(name, order) for name in node.inputs)
    return Turned(op=replace(op, axis=order[op.axis]), inputs=inputs, order=order)


def _reduction(s: Settler, node: Node) -> Turned:
    op: Any = node.op
    view = s.view(node.inputs[0])
    inputs, axes = (s.held_as(node.inputs[0], view.order),), tuple(sorted(view.order[axis] for axis in op.axes))
    order = view.order if op.keep_dims else _without(view.order, op.axes)
    return Turned(op=replace(op, axes=axes), inputs=inputs, order=order)


def _arg_max(s: Settler, node: Node) -> Turned:
    op: Any = node.op
    view = s.view(node.inputs[0])
    inputs = (s.held_as(node.inputs[0], view.order),)
    order = view.order if op.keep_dims else _without(view.order, (op.axis,))
    return Turned(op=replace(op, axis=view.order[op.axis]), inputs=inputs, order=order)


def _without(order: Order, axes: Sequence[int]) -> Order:
    """Return the order that is left when axes of the value go.

    >>> _without((0, 3, 1, 2), (2, 3))
    (0, 1)
    """
    left = [order[axis] for axis in range(len(order)) if axis not in axes]
    return inverse(inverse(tuple(left)))


def _gather(s: Settler, node: Node) -> Turned:
    """The axes of the indices take the place of the axis, in the value and in what is held."""
    op: Any = node.op
    view, more = s.view(node.inputs[0]), len(s.shape(node.inputs[1])) - 1
    place = view.order[op.axis]
    moved = [axis + more if axis > place else axis for axis in view.order]
    new = range(place, place + more + 1)
    order = (*moved[: op.axis], *new, *moved[op.axis + 1 :])
    indices = s.held_as(node.inputs[1], identity(more + 1))
    return Turned(op=replace(op, axis=place), inputs=(s.held_as(node.inputs[0], view.order), indices), order=order)


def _over_last_axis(s: Settler, node: Node) -> Turned | None:
    """An operator over the last axis works in any order that leaves that axis the last; its constants are vectors."""
    view = s.view(node.inputs[0])
    if view.order[-1] != len(view.order) - 1 or not all(s.is_constant(name) for name in node.inputs[1:]):
        return None
    vectors = tuple(s.held_as(name, identity(len(s.shape(name)))) for name in node.inputs[1:])
    return Turned(op=node.op, inputs=(s.held_as(node.inputs[0], view.order), *vectors), order=view.order)


def _conv(s: Settler, node: Node) -> Turned | None:
    """A convolution of single positions works in any order of them."""
    op: Any = node.op
    is_pointwise = set(s.shape(node.inputs[1])[:-2]) == set(op.stride) == {1} and not np.any(op.padding)
    keeps_batch = s.view(node.inputs[0]).order[0] == 0
    return _over_last_axis(s, node) if is_pointwise and keeps_batch else None


def _dense(s: Settler, node: Node) -> Turned | None:
    """Behind a shuffled flatten the rows of the kernel are shuffled alike."""
    features = s.shuffled.get(node.inputs[0])
    if features is None:
        return _over_last_axis(s, node)
    kernel, *bias = node.inputs[1:]
    rows = s.shuffled_rows(kernel, features)
    return Turned(op=node.op, inputs=(s.view(node.inputs[0]).held, rows, *(s.held_as(name, (0,)) for name in bias)))


def _batch_norm(s: Settler, node: Node) -> Turned | None:
    features = s.shuffled.get(node.inputs[0])
    if features is None:
        return _over_last_axis(s, node)
    s.shuffled[node.output] = features
    source, *vectors = node.inputs
    return Turned(op=node.op, inputs=(s.view(source).held, *(s.shuffled_rows(name, features) for name in vectors)))


def _reshape(s: Settler, node: Node) -> Turned | None:
    """Reshape what is held; else shuffle the features; else turn it first, so that each run of axes lies together."""
    source, target = node.inputs[0], s.shape(node.output)
    view = s.view(source)
    found = _reshape_over(s, node, view.order)
    if found is not None:
        return found
    if len(target) == 2 and view.order[0] == 0 and target[0] == s.shape(source)[0] and _only_shuffles(s, node.output):
        places = np.arange(ops.elements(target[1:])).reshape([size or 1 for size in s.shape(source)[1:]])
        s.shuffled[node.output] = places.transpose([axis - 1 for axis in inverse(view.order)[1:]]).ravel()
        return Turned(op=node.op, inputs=(view.held,))
    order = with_runs_together(s.shape(source), target, view.order)
    turned_first = None if order is None else turned_reshape(s.shape(source), target, order)
    if order is None or turned_first is None or not _leads_back(s, node.output, turned_first[1]):
        return None
    return _reshape_over(s, node, order)


def _reshape_over(s: Settler, node: Node, order: Order) -> Turned | None:
    """Reshape the input as it is held in this order; None where a run of its axes lies apart there."""
    source = node.inputs[0]
    found = turned_reshape(s.shape(source), s.shape(node.output), order)
    return found and Turned(op=ops.Reshape(shape=found[0]), inputs=(s.held_as(source, order),), order=found[1])


def _leads_back(s: Settler, tensor: str, order: Order) -> bool:
    """Tell whether a tensor, as it is or behind followers, meets an operator that wants it held in this order.

    That is a Transpose that the order makes unnecessary, or one that holds its image channels first.
    """
    waiting, seen = [tensor], {tensor}
    while waiting:
        for taker in s.takers.get(waiting.pop(), ()):
            if isinstance(taker.op, ops.Transpose) and len(taker.op.permutation) == len(order):
                if turned(order, taker.op.permutation) == identity(len(order)):
                    return True
            elif isinstance(taker.op, s.first) and order == inverse(channels_first(len(order))):
                return True
            elif isinstance(taker.op, FOLLOWERS):
                waiting += [name for name in taker.outputs if name not in seen]
                seen.update(taker.outputs)
    return False


def _only_shuffles(s: Settler, tensor: str) -> bool:
    """Tell whether all that takes a flattened tensor can take its features in another order."""
    if any(port.tensor == tensor for port in s.graph.outputs) or not s.takers.get(tensor):
        return False
    for taker in s.takers[tensor]:
        if taker.inputs[0] != tensor or not all(s.is_constant(name) for name in taker.inputs[1:]):
            return False
        is_end = isinstance(taker.op, ops.Dense)
        if not is_end and not (isinstance(taker.op, SHUFFLING) and _only_shuffles(s, taker.output)):
            return False
    return True


SHUFFLING = (ops.Activation, ops.Identity, ops.Dropout, ops.BatchNorm)
"""Operators on features that work in any order of them."""

ELEMENTWISE = (
    *(ops.Add, ops.Sub, ops.Mul, ops.Div, ops.Maximum, ops.Minimum, ops.Pow, ops.PReLU),
    *(ops.Greater, ops.GreaterOrEqual, ops.Less, ops.LessOrEqual, ops.Equal, ops.And, ops.Or, ops.Where),
)
ACTIVATIONS = tuple(each for each in vars(ops).values() if isinstance(each, type) and issubclass(each, ops.Activation))
UNARY = (*ACTIVATIONS, ops.Identity, ops.Dropout, ops.Cast, ops.Not, ops.Quantize, ops.Dequantize)

RULES: dict[type[ops.Op], Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys((ops.Mean, ops.Sum, ops.Max, ops.Min, ops.Prod), _reduction),
    **dict.fromkeys((ops.Softmax, ops.LayerNorm, ops.L2Normalize), _over_last_axis),
    ops.BatchNorm: _batch_norm,
    ops.Conv: _conv,
    ops.Dense: _dense,
    ops.Concat: _concat,
    ops.Split: _split,
    ops.Slice: _by_axis("begin", "end", "step"),
    ops.Pad: _by_axis("padding"),
    ops.Tile: _by_axis("multiples"),
    ops.ArgMax: _arg_max,
    ops.Gather: _gather,
    ops.Reshape: _reshape,
}
"""Operator -> its rule; an operator that is not here insists on its own order."""

FOLLOWERS = (*ELEMENTWISE, *UNARY, ops.Concat, ops.Split, ops.Slice, ops.Pad, ops.Tile)
"""Operators behind which a picture is still a picture."""
