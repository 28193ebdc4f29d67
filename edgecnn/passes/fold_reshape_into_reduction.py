"""Let a reduction keep the axes that a Reshape behind it puts back: reshape(mean(x), (N, 1, 1, C)) = mean_keep_dims(x).

Keras spells squeeze-and-excite so: GlobalAveragePooling2D, then Reshape((1, 1, C)).
"""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import Max, Mean, Reshape, Sum
from edgecnn.passes.editor import GraphEditor, Pass, absorb


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a Reshape that gives a reduction's result the shape that it would have kept."""
    producer = editor.producer(node.inputs[0])
    if producer is None or not isinstance(node.op, Reshape) or not isinstance(producer.op, Mean | Sum | Max):
        return False
    kept = replace(producer.op, keep_dims=True).output_shapes([editor.tensors[producer.inputs[0]].shape])
    return not producer.op.keep_dims and kept == (editor.tensors[node.output].shape,)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the Reshape must stay."""
    if editor.only_consumer(node.inputs[0]) is None:
        return "the reduced values are used elsewhere too"
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Let the reduction keep its axes and give the Reshape's output."""
    producer = editor.producer(node.inputs[0])
    if producer is not None and isinstance(producer.op, Mean | Sum | Max):
        absorb(editor, node, producer, replace(producer.op, keep_dims=True), producer.inputs)


PASS = Pass(name="fold_reshape_into_reduction", match=match, check=check, rewrite=rewrite)
