"""Fold a Mul, Div, Add or Sub with a constant for each channel into the layer before it.

    s (w * x + b) + t  =  (s w) * x + (s b + t)

TFLite files and ONNX exports spell a BatchNorm so. A layer is a convolution (of either direction), a dense layer, or a
normalisation with its own gamma and beta.
"""

from dataclasses import replace
from typing import Any

from edgecnn.graph import Node
from edgecnn.passes.channel_scale import PARAMETERS, channel_scale, refuse_layer_before, scaled_behind
from edgecnn.passes.editor import GraphEditor, Pass, absorb


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a scale or shift of what a layer gives."""
    scale = channel_scale(editor, node)
    layer = editor.producer(scale.source) if scale else None
    return layer is not None and type(layer.op) in PARAMETERS


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the scale must stay."""
    scale = channel_scale(editor, node)
    return refuse_layer_before(editor, node, scale.source) if scale else None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Scale the layer's parameters, and let it give the node's output, activation included."""
    scale = channel_scale(editor, node)
    layer = editor.producer(scale.source) if scale else None
    if scale is not None and layer is not None:
        op: Any = layer.op
        then = getattr(node.op, "activation", None)
        new = op if then is None else replace(op, activation=then)
        absorb(editor, node, layer, new, scaled_behind(editor, layer, scale.scale, scale.shift))


PASS = Pass(name="fold_scale_into_layer", match=match, check=check, rewrite=rewrite)
