"""What an operator alone tells about the numbers that it gives."""

from collections.abc import Callable
from math import inf
from typing import Any

from edgecnn.ops import (
    Abs,
    Clip,
    Exp,
    HardSigmoid,
    MaxPool,
    Op,
    ReLU,
    ReLU6,
    Reshape,
    Resize,
    Sigmoid,
    Softmax,
    Softplus,
    Transpose,
)
from edgecnn.passes.editor import GraphEditor

Range = tuple[float, float]

RANGES: dict[type[Op], Callable[[Any], Range]] = {
    ReLU: lambda op: (0.0, inf),
    ReLU6: lambda op: (0.0, 6.0),
    Clip: lambda op: (op.minimum, op.maximum),
    Sigmoid: lambda op: (0.0, 1.0),
    HardSigmoid: lambda op: (0.0, 1.0),
    Softmax: lambda op: (0.0, 1.0),
    Softplus: lambda op: (0.0, inf),
    Exp: lambda op: (0.0, inf),
    Abs: lambda op: (0.0, inf),
}
"""Operator -> (lowest, highest) number that it can give."""

CHOOSING = (MaxPool, Reshape, Transpose, Resize)
"""Operators whose numbers are their input's, or lie between two of them."""


def value_range(editor: GraphEditor, tensor: str) -> Range:
    """Return the (lowest, highest) number that a tensor can hold, as far as the operators before it tell."""
    while (node := editor.producer(tensor)) is not None:
        op = getattr(node.op, "activation", None) or node.op
        if type(op) in RANGES:
            return RANGES[type(op)](op)
        if not isinstance(op, CHOOSING):
            break
        tensor = node.inputs[0]
    return -inf, inf
