"""Spell a quantized Graph as float operators between Quantize and Dequantize nodes, as ONNX and OpenVINO say it.

An operator over integers, y = op(x, w, b), becomes

    y = Quantize(op(Dequantize(x), Dequantize(w), Dequantize(b)))

and every tensor keeps its name, its integers and what they stand for: runtimes find the pattern and compute in integers
again. A Quantize from integers to integers reads what a Dequantize gives. A fused ReLU or ReLU6 goes where the range of
the output clamps alike.
"""

from collections.abc import Container
from dataclasses import replace
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Graph, Node
from edgecnn.passes.editor import GraphEditor
from edgecnn.passes.fuse_activation import FUSABLE
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.rules import WEIGHTED

SIX = np.float32(6)
"""Where ReLU6 ends."""


def explicit_quantization(graph: Graph) -> Graph:
    """Return the Graph in its explicit form; ports keep their types.

    A kernel of integers under float activations (TFLite's dynamic range) stays as it is: what it computes with is
    rounded while it runs, which no pair of nodes says.
    """
    dynamic = dynamic_nodes(graph)
    return explicit_constants(explicit_activations(drop_implied_clamps(graph)), dynamic)


def dynamic_nodes(graph: Graph) -> frozenset[str]:
    """Return the names of the nodes with a kernel of integers right under float activations."""
    tensors = graph.tensors
    return frozenset(
        node.name
        for node in graph.nodes
        if isinstance(node.op, WEIGHTED)
        and tensors[node.inputs[1]].quantization is not None
        and tensors[node.inputs[0]].quantization is None
    )


def drop_implied_clamps(graph: Graph) -> Graph:
    """Return the quantized Graph without the fused activations that the ranges of its tensors imply."""
    nodes = [_without_implied_clamp(node, graph.tensors[node.output].quantization) for node in graph.nodes]
    return replace(graph, nodes=tuple(nodes))


def _without_implied_clamp(node: Node, given: Quantization | None) -> Node:
    """Return a node without an activation whose limits are the smallest and the largest integer of its output."""
    op: Any = node.op
    activation = getattr(op, "activation", None)
    if given is None or given.axis is not None or not isinstance(activation, FUSABLE):
        return node
    least, most = given.limits
    is_clamped = given.zero_point[0] == least
    if isinstance(activation, ops.ReLU6):
        is_clamped = is_clamped and int(given.quantize(np.asarray(SIX))) == most
    return replace(node, op=replace(op, activation=None)) if is_clamped else node


def explicit_activations(graph: Graph) -> Graph:
    """Return the Graph with every computed tensor of integers between a Quantize and a Dequantize; constants stay."""
    editor = GraphEditor(graph)
    for node in graph.nodes:
        if isinstance(node.op, ops.Dequantize):
            continue
        inputs = tuple(_as_numbers(editor, name) for name in node.inputs)
        if isinstance(node.op, ops.Quantize):
            editor.put(replace(node, inputs=inputs))
            continue
        named = [(name, _before_rounding(editor, name)) for name in node.outputs]
        editor.put(replace(node, inputs=inputs, outputs=tuple(number for _, number in named)))
        for stored, number in named:
            if stored != number:
                name = editor.free_name(f"{stored}/quantize")
                editor.put(Node(name=name, op=ops.Quantize(), inputs=(number,), outputs=(stored,)))
    return editor.finish()


def _as_numbers(editor: GraphEditor, name: str) -> str:
    """Return what a computed tensor's integers stand for; anything else is returned as it is."""
    tensor = editor.tensors[name]
    return name if tensor.is_constant or tensor.quantization is None else _dequantized(editor, name)


def _before_rounding(editor: GraphEditor, name: str) -> str:
    return name if editor.tensors[name].quantization is None else editor.free_name(f"{name}/float")


def _dequantized(editor: GraphEditor, name: str) -> str:
    """Return the output of the one Dequantize of ours behind a tensor."""
    number = f"{name}/dequantized"
    known = editor.producer(number)
    if known is None or known.inputs != (name,) or not isinstance(known.op, ops.Dequantize):
        number = editor.free_name(number)
        editor.put(Node(name=number, op=ops.Dequantize(), inputs=(name,), outputs=(number,)))
    return number


def explicit_constants(graph: Graph, kept: Container[str] = ()) -> Graph:
    """Return the Graph with a Dequantize behind every constant of integers.

    Args:
        graph: Its activations are explicit.
        kept: Names of nodes that keep their operands.
    """
    editor = GraphEditor(graph)
    for node in graph.nodes:
        if isinstance(node.op, ops.Dequantize) or node.name in kept:
            continue
        is_stored = [editor.tensors[n].is_constant and editor.tensors[n].quantization is not None for n in node.inputs]
        if any(is_stored):
            pairs = zip(node.inputs, is_stored, strict=True)
            editor.put(replace(node, inputs=tuple(_dequantized(editor, n) if stored else n for n, stored in pairs)))
    return editor.finish()


def bare_constants(graph: Graph) -> Graph:
    """Return the Graph without the Dequantize nodes behind constants: takers read the integers, which they know of.

    So layout passes find kernels where they look for them, and a format's writer spells every constant in one place.
    """
    editor = GraphEditor(graph)
    for node in graph.nodes:
        if isinstance(node.op, ops.Dequantize) and editor.tensors[node.inputs[0]].is_constant:
            editor.redirect(node.output, node.inputs[0])
            editor.prune(node)
    return editor.finish()
