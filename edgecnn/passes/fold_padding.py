"""Move zero padding into the convolutions behind it: conv_p(pad_q(x)) = conv_{p+q}(x), position by position."""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import Conv, Pad
from edgecnn.passes.editor import GraphEditor, Pass


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a Pad that feeds a convolution."""
    return isinstance(node.op, Pad) and any(isinstance(taker.op, Conv) for taker in editor.consumers(node.output))


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the padding must stay."""
    op = node.op
    if not isinstance(op, Pad) or op.mode != "constant":
        return "it repeats the picture instead of padding with zeros"
    if op.value != 0:
        return "it pads with another value than zero"
    if any((*op.padding[0], *op.padding[-1])):
        return "it pads the batch or the channels"
    if node.output in editor.outputs:
        return "its output is a graph output"
    others = [taker.name for taker in editor.consumers(node.output) if not _pads_only_its_image(taker, node.output)]
    return f"{others[0]} uses it too, and is no convolution over it" if others else None


def _pads_only_its_image(taker: Node, tensor: str) -> bool:
    return isinstance(taker.op, Conv) and taker.inputs[0] == tensor and tensor not in taker.inputs[1:]


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Add the padding to each convolution's own."""
    if not isinstance(node.op, Pad):
        return
    extra = node.op.padding[1:-1]
    for taker in editor.consumers(node.output):
        if isinstance(taker.op, Conv):
            padding = tuple((b + c, a + d) for (b, a), (c, d) in zip(taker.op.padding, extra, strict=True))
            editor.put(
                replace(taker, op=replace(taker.op, padding=padding), inputs=(node.inputs[0], *taker.inputs[1:]))
            )
    editor.remove(node)


PASS = Pass(name="fold_padding", match=match, check=check, rewrite=rewrite)
