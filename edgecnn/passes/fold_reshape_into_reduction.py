"""Let a reduction keep the axes that a Reshape behind it puts back, or drop those that it takes away.

    reshape(mean(x), (N, 1, 1, C)) = mean_keep_dims(x)        reshape(mean_keep_dims(x), (N, C)) = mean(x)

Keras spells squeeze-and-excite the first way: GlobalAveragePooling2D, then Reshape((1, 1, C)); files with a global
pooling before their classifier come the second way.
"""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import Max, Mean, Min, Prod, Reshape, Sum
from edgecnn.passes.editor import GraphEditor, Pass, absorb


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a Reshape that gives a reduction's result the shape that it has with, or without, the reduced axes."""
    producer = editor.producer(node.inputs[0]) if isinstance(node.op, Reshape) else None
    if producer is None or not isinstance(producer.op, Mean | Sum | Max | Min | Prod):
        return False
    other = replace(producer.op, keep_dims=not producer.op.keep_dims)
    return other.output_shapes([editor.tensors[producer.inputs[0]].shape]) == (editor.tensors[node.output].shape,)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the Reshape must stay."""
    if editor.only_consumer(node.inputs[0]) is None:
        return "the reduced values are used elsewhere too"
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Let the reduction keep or drop its axes and give the Reshape's output."""
    producer = editor.producer(node.inputs[0])
    if producer is not None and isinstance(producer.op, Mean | Sum | Max | Min | Prod):
        absorb(editor, node, producer, replace(producer.op, keep_dims=not producer.op.keep_dims), producer.inputs)


PASS = Pass(name="fold_reshape_into_reduction", match=match, check=check, rewrite=rewrite)
