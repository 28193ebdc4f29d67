"""Write a mean over all positions that drops its axes as one that keeps them, and a Reshape.

    mean(x, (1, 2)) = reshape(mean(x, (1, 2), keep_dims), (N, C))

ONNX Runtime has no mean in integers but its global average pool, which keeps the axes.
"""

from dataclasses import replace
from typing import Any

from edgecnn.graph import Node
from edgecnn.ops import Mean, Reshape
from edgecnn.passes.editor import GraphEditor, Pass


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a quantized mean over every axis but the first and the last."""
    rank = len(editor.tensors[node.inputs[0]].shape)
    is_quantized = editor.tensors[node.output].quantization is not None
    return isinstance(node.op, Mean) and is_quantized and node.op == Mean(axes=tuple(range(1, rank - 1)))


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the operator must stay."""
    return None if len(editor.tensors[node.inputs[0]].shape) > 2 else "it has no positions"


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Put both in its place; the Reshape gives its output."""
    op: Any = node.op
    given = editor.tensors[node.output]
    kept = editor.free_name(f"{node.output}/kept")
    editor.put(replace(node, op=replace(op, keep_dims=True), outputs=(kept,)))
    editor.tensors[kept] = replace(editor.tensors[kept], quantization=given.quantization)
    name = editor.free_name(f"{node.name}/reshape")
    editor.put(Node(name=name, op=Reshape(shape=given.shape), inputs=(kept,), outputs=node.outputs))


PASS = Pass(name="spatial_mean_in_two_steps", match=match, check=check, rewrite=rewrite)
