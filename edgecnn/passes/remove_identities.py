"""Remove what changes nothing outside training: Dropout, Identity, and what its attributes make the identity."""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import Dropout, Identity, Pad, Reshape, Transpose
from edgecnn.passes.editor import GraphEditor, Pass


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a node that gives its input unchanged."""
    op = node.op
    if isinstance(op, Dropout | Identity):
        return True
    if isinstance(op, Reshape):
        return editor.tensors[node.inputs[0]].shape == editor.tensors[node.output].shape
    if isinstance(op, Transpose):
        return op.permutation == tuple(range(len(op.permutation)))
    return isinstance(op, Pad) and not any(any(pair) for pair in op.padding)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the node must stay."""
    if node.output not in editor.outputs:
        return None
    if editor.producer(node.inputs[0]) is None:
        return "it connects a graph input (or constant) to a graph output"
    if node.inputs[0] in editor.outputs:
        return "both its sides are graph outputs"
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Connect what comes before with what comes after; a graph output keeps its tensor's name."""
    source = node.inputs[0]
    producer = editor.producer(source)
    editor.remove(node)
    if node.output in editor.outputs and producer is not None:
        outputs = tuple(node.output if name == source else name for name in producer.outputs)
        editor.put(replace(producer, outputs=outputs))
        editor.redirect(source, node.output)
    else:
        editor.redirect(node.output, source)


PASS = Pass(name="remove_identities", match=match, check=check, rewrite=rewrite)
