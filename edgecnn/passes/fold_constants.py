"""Compute now what depends on constants only."""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.kernels import KERNELS, evaluate_all
from edgecnn.ops import elements
from edgecnn.passes.editor import GraphEditor, Pass

MAX_GROWTH_BYTES = 1 << 20
"""A folded constant may be this much larger than what it was made from: a file must not grow for nothing."""


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a node whose operands are all constants."""
    return bool(node.inputs) and all(editor.tensors[name].is_constant for name in node.inputs)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the node must stay."""
    if type(node.op) not in KERNELS:
        return f"{node.kind} cannot be executed"
    if any(name in editor.outputs for name in node.outputs):
        return "its output is a graph output"
    before = sum(elements(editor.tensors[name].shape) for name in node.inputs) * 4
    after = sum(elements(editor.tensors[name].shape) for name in node.outputs) * 4
    if after - before > MAX_GROWTH_BYTES:
        return f"the constant would grow from {before} to {after} bytes"
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Give the node's outputs their values and let the node go."""
    found = evaluate_all(node.op, [editor.tensors[name].value() for name in node.inputs])
    editor.remove(node)
    for name, data in zip(node.outputs, found, strict=True):
        output = editor.tensors[name]
        editor.tensors[name] = replace(output, data=data.astype(output.dtype, copy=False))


PASS = Pass(name="fold_constants", match=match, check=check, rewrite=rewrite)
