"""Fold a Mul, Div, Add or Sub with a constant for each channel into the convolution or dense layer behind it.

    w * (s x + t) + b  =  (w s) * x + (b + w t)

Padding puts zeros beside s x + t, which in x would be -t / s: a shift before a padded layer stays, a scale does not.
The same holds for a transposed convolution, whose borders see only a part of the kernel.
"""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import Conv, ConvTranspose, Dense
from edgecnn.passes.channel_scale import ChannelScale, channel_scale, refuse_parameters, scaled_before
from edgecnn.passes.editor import GraphEditor, Pass


def _scale_before(editor: GraphEditor, node: Node) -> tuple[Node, ChannelScale] | None:
    before = editor.producer(node.inputs[0]) if isinstance(node.op, Conv | ConvTranspose | Dense) else None
    scale = channel_scale(editor, before) if before is not None else None
    return (before, scale) if before is not None and scale is not None else None


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a layer that is given scaled or shifted channels."""
    return _scale_before(editor, node) is not None


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the scale must stay before the layer."""
    found = _scale_before(editor, node)
    if found is None:
        return "nothing is scaled before it"
    before, scale = found
    if getattr(before.op, "activation", None) is not None:
        return f"an activation lies between {before.name} and it"
    if editor.only_consumer(before.output) is None or node.inputs.count(before.output) > 1:
        return f"the output of {before.name} is used elsewhere too"
    if scale.shift.any() and isinstance(node.op, ConvTranspose):
        return f"the borders of a transposed convolution see {before.name} shift only a part of the kernel"
    if scale.shift.any() and isinstance(node.op, Conv) and any(map(any, node.op.padding)):
        return f"{before.name} shifts what it pads with zeros"
    return refuse_parameters(editor, node)


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Fold what stands before the layer, and what stands before that, as far as it goes."""
    found = _scale_before(editor, node)
    while found is not None and check(editor, node) is None:
        before, scale = found
        node = replace(node, inputs=(scale.source, *scaled_before(editor, node, scale.scale, scale.shift)[1:]))
        editor.put(node)
        editor.prune(before)
        found = _scale_before(editor, node)


PASS = Pass(name="fold_scale_before_layer", match=match, check=check, rewrite=rewrite)
