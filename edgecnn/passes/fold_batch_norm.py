"""Fold BatchNorm into the convolution or dense layer before it.

gamma * (w * x + b - mean) / sqrt(variance + epsilon) + beta  =  (g w) * x + (b - mean) g + beta
g = gamma / sqrt(variance + epsilon), one number per output channel
"""

import numpy as np

from edgecnn.graph import Array, Node
from edgecnn.ops import BatchNorm
from edgecnn.passes.channel_scale import refuse_layer_before, scaled_behind
from edgecnn.passes.editor import GraphEditor, Pass, absorb


def match(editor: GraphEditor, node: Node) -> bool:
    """Match every BatchNorm."""
    return isinstance(node.op, BatchNorm)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the BatchNorm may not be folded into what comes before it."""
    reason = refuse_layer_before(editor, node, node.inputs[0])
    if reason is None and not editor.has_constants(node):
        return "its own parameters are computed, not constant"
    return reason


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Scale the kernel, make the bias, and let the layer give the BatchNorm's output."""
    layer = editor.producer(node.inputs[0])
    if layer is not None:
        absorb(editor, node, layer, layer.op, scaled_behind(editor, layer, *scale_and_shift(editor, node)))


def scale_and_shift(editor: GraphEditor, node: Node) -> tuple[Array, Array]:
    """Return a BatchNorm as y = scale * x + shift, in float64."""
    gamma, beta, mean, variance = (editor.tensors[name].value().astype(np.float64) for name in node.inputs[1:])
    epsilon = node.op.epsilon if isinstance(node.op, BatchNorm) else 0.0
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


PASS = Pass(name="fold_batch_norm", match=match, check=check, rewrite=rewrite)
