"""Swish gates: x sigmoid(x), and what becomes of it where channels are scaled: x' sigmoid(s x')."""

from dataclasses import dataclass

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Node
from edgecnn.passes.channel_scale import channel_scale
from edgecnn.passes.editor import GraphEditor

SWISH_REACH = 6.0
"""Below -6 a swish lies in -0.015..0: what it is there hardly matters."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SwishGate:
    """The parts of a Mul that is a swish.

    Attributes:
        source: The tensor x'.
        sigmoid: The Sigmoid.
        takers: Names of the nodes that read x' for the swish.
        factors: s, (C,) or (1,).
    """

    source: str
    sigmoid: Node
    takers: frozenset[str]
    factors: Array


def swish_gate(editor: GraphEditor, node: Node) -> SwishGate | None:
    """Return the parts of a swish, or None where a node is no Mul of a tensor by its own sigmoid."""
    if not isinstance(node.op, ops.Mul):
        return None
    for name in node.inputs:
        sigmoid = editor.producer(name)
        if sigmoid is None or not isinstance(sigmoid.op, ops.Sigmoid):
            continue
        if sigmoid.inputs[0] in node.inputs:
            takers = frozenset((node.name, sigmoid.name))
            return SwishGate(source=sigmoid.inputs[0], sigmoid=sigmoid, takers=takers, factors=np.ones(1))
        restore = editor.producer(sigmoid.inputs[0])
        scale = None if restore is None or not isinstance(restore.op, ops.Mul) else channel_scale(editor, restore)
        if restore is not None and scale is not None and scale.source in node.inputs and (scale.scale > 0).all():
            takers = frozenset((node.name, restore.name))
            return SwishGate(source=scale.source, sigmoid=sigmoid, takers=takers, factors=scale.scale)
    return None
