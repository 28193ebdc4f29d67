"""Parameters of its own for each Keras layer: files share constants wherever the numbers are equal, layers cannot."""

from dataclasses import replace
from typing import Any

from edgecnn import ops
from edgecnn.graph import Graph, Node
from edgecnn.passes.editor import GraphEditor

LAYERS = (ops.Conv, ops.ConvTranspose, ops.Dense, ops.BatchNorm, ops.LayerNorm, ops.GroupNorm, ops.PReLU)
"""Operators whose constants become a layer's variables."""

Key = tuple[ops.Op, tuple[str, ...]]
"""What two nodes must have in common to be one layer called twice: operator and constants."""


def untied(graph: Graph) -> Graph:
    """Return the Graph where nodes that share some, not all, of what makes them one layer have copies.

    TFLite's converter stores equal constants once, so that unrelated layers share their zero biases.
    """
    owners: dict[str, Key] = {}
    copies: dict[tuple[Key, str], str] = {}
    editor = GraphEditor(graph)
    for node in graph.nodes:
        key = _key(graph, node)
        if key is None:
            continue
        for name in key[1]:
            if owners.setdefault(name, key) != key and (key, name) not in copies:
                tensor = graph.tensors[name]
                copies[key, name] = editor.add_constant(f"{node.name}/{name}", tensor.value(), dtype=tensor.dtype)
        inputs = tuple(copies.get((key, name), name) for name in node.inputs)
        if inputs != node.inputs:
            editor.put(replace(node, inputs=inputs))
    return editor.finish() if copies else graph


def _key(graph: Graph, node: Node) -> Key | None:
    """Return a layer's key; a fused activation is a layer of its own."""
    constants = tuple(name for name in node.inputs[1:] if graph.tensors[name].is_constant)
    if not isinstance(node.op, LAYERS) or not constants:
        return None
    op: Any = node.op
    return (replace(op, activation=None) if hasattr(op, "activation") else op), constants
