"""Give every activation but ReLU and ReLU6 a node of its own, whose input then has a range of its own.

Integer layers clamp for nothing, and can do nothing else behind their sum.
"""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import ReLU, ReLU6
from edgecnn.passes.editor import GraphEditor, Pass

CLAMPS = (ReLU, ReLU6)


def _match(editor: GraphEditor, node: Node) -> bool:
    activation = getattr(node.op, "activation", None)
    return activation is not None and not isinstance(activation, CLAMPS)


def _rewrite(editor: GraphEditor, node: Node) -> None:
    activation, attributes = getattr(node.op, "activation"), {"activation": None}  # noqa: B009
    linear = editor.free_name(f"{node.output}/linear")
    editor.put(replace(node, op=replace(node.op, **attributes), outputs=(linear,)))
    name = editor.free_name(f"{node.name}/{type(activation).__name__.lower()}")
    editor.put(Node(name=name, op=activation, inputs=(linear,), outputs=node.outputs))


PASS = Pass(name="unfuse_activation", match=_match, check=lambda editor, node: None, rewrite=_rewrite)
