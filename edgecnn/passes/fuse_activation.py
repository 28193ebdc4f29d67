"""Let a layer apply the activation that follows it: act(layer(x)) = layer_with_act(x).

TFLite and OpenVINO run it in the layer's own loop; ONNX spells it out again, and its runtimes fuse it themselves.
Only activations that TFLite can carry inside an operator are fused (its ActivationFunctionType: RELU, RELU6).
"""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import ReLU, ReLU6
from edgecnn.passes.editor import GraphEditor, Pass, absorb

FUSABLE = (ReLU, ReLU6)


def match(editor: GraphEditor, node: Node) -> bool:
    """Match an activation that follows a node."""
    return isinstance(node.op, FUSABLE) and editor.producer(node.inputs[0]) is not None


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the layer before it may not take the activation over."""
    producer = editor.producer(node.inputs[0])
    if producer is None or not hasattr(producer.op, "activation"):
        return f"{producer.kind if producer else 'a graph input'} cannot carry an activation"
    if producer.op.activation is not None:
        return f"{producer.name} has an activation already"
    if editor.only_consumer(producer.output) is None:
        return f"the output of {producer.name} is used elsewhere too"
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Move the activation into the layer."""
    producer = editor.producer(node.inputs[0])
    if producer is not None:
        absorb(editor, node, producer, replace(producer.op, activation=node.op), producer.inputs)  # type: ignore[call-arg]


PASS = Pass(name="fuse_activation", match=match, check=check, rewrite=rewrite)
