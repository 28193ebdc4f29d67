"""Remove what changes nothing outside training: Dropout, Identity, and what operands or attributes make the identity.

    x + 0 = x - 0 = x * 1 = x / 1 = x^1 = x     relu(relu6(x)) = relu6(x)

Slice, Resize, Tile, Concat and Split that give their input's shape give their input.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.graph import Node
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.passes.value_range import RANGES, value_range

Same = Callable[[GraphEditor, Node], str | None]
"""(editor, node) -> the operand that the node gives unchanged, if one is known to be of its output's shape and type."""


def _always(editor: GraphEditor, node: Node) -> str | None:
    return node.inputs[0]


def _alone(editor: GraphEditor, node: Node) -> str | None:
    return node.inputs[0] if len(node.inputs) == len(node.outputs) == 1 else None


def _in_order(editor: GraphEditor, node: Node) -> str | None:
    is_ordered = isinstance(node.op, ops.Transpose) and list(node.op.permutation) == sorted(node.op.permutation)
    return node.inputs[0] if is_ordered else None


def _within_its_bounds(editor: GraphEditor, node: Node) -> str | None:
    low, high = RANGES[type(node.op)](node.op)
    lowest, highest = value_range(editor, node.inputs[0])
    return node.inputs[0] if low <= lowest and highest <= high else None


def _neutral(number: float, *, is_commutative: bool) -> Same:
    """Return the rule of an operator that leaves x as it is where the other operand is this number everywhere."""

    def same(editor: GraphEditor, node: Node) -> str | None:
        if getattr(node.op, "activation", None) is not None:
            return None
        for x, other in (node.inputs, node.inputs[::-1]) if is_commutative else (node.inputs,):
            constant = editor.tensors[other]
            if constant.is_constant and bool(np.all(constant.value() == number)):
                return x
        return None

    return same


IDENTITIES: dict[type[ops.Op], Same] = {
    **dict.fromkeys((ops.Dropout, ops.Identity, ops.Reshape, ops.Pad, ops.Slice, ops.Resize, ops.Tile), _always),
    **dict.fromkeys((ops.Concat, ops.Split), _alone),
    **dict.fromkeys((ops.ReLU, ops.ReLU6, ops.Clip), _within_its_bounds),
    ops.Cast: _always,
    ops.Transpose: _in_order,
    ops.Add: _neutral(0, is_commutative=True),
    ops.Sub: _neutral(0, is_commutative=False),
    ops.Mul: _neutral(1, is_commutative=True),
    ops.Div: _neutral(1, is_commutative=False),
    ops.Pow: _neutral(1, is_commutative=False),
}


def _source(editor: GraphEditor, node: Node) -> str | None:
    """Return the operand that the node gives unchanged, or None."""
    rule = IDENTITIES.get(type(node.op))
    source = rule(editor, node) if rule else None
    if source is None:
        return None
    before, after = editor.tensors[source], editor.tensors[node.output]
    kinds = [(tensor.shape, tensor.dtype, tensor.quantization) for tensor in (before, after)]
    return source if kinds[0] == kinds[1] else None


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a node that gives an operand unchanged."""
    return _source(editor, node) is not None


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the node must stay."""
    source = _source(editor, node) or ""
    if node.output not in editor.outputs:
        return None
    if editor.producer(source) is None:
        return "it connects a graph input (or constant) to a graph output"
    if source in editor.outputs:
        return "both its sides are graph outputs"
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Connect what comes before with what comes after; a graph output keeps its tensor's name."""
    source = _source(editor, node) or ""
    producer = editor.producer(source)
    editor.remove(node)
    if node.output in editor.outputs and producer is not None:
        outputs = tuple(node.output if name == source else name for name in producer.outputs)
        editor.put(replace(producer, outputs=outputs))
        editor.redirect(source, node.output)
    else:
        editor.redirect(node.output, source)


PASS = Pass(name="remove_identities", match=match, check=check, rewrite=rewrite)
