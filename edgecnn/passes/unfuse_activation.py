"""Give every activation but ReLU and ReLU6 a node of its own, whose input then has a range of its own.

Integer layers clamp for nothing, and can do nothing else behind their sum.
"""

from dataclasses import replace
from typing import Any

from edgecnn.graph import Node
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.passes.fuse_activation import FUSABLE


def _match(editor: GraphEditor, node: Node) -> bool:
    activation = getattr(node.op, "activation", None)
    return activation is not None and not isinstance(activation, FUSABLE)


def _rewrite(editor: GraphEditor, node: Node) -> None:
    op: Any = node.op
    linear = editor.free_name(f"{node.output}/linear")
    editor.put(replace(node, op=replace(op, activation=None), outputs=(linear,)))
    name = editor.free_name(f"{node.name}/{type(op.activation).__name__.lower()}")
    editor.put(Node(name=name, op=op.activation, inputs=(linear,), outputs=node.outputs))


PASS = Pass(name="unfuse_activation", match=_match, check=lambda editor, node: None, rewrite=_rewrite)
