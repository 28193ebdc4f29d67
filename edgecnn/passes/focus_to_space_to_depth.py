"""Write the focus of the YOLO networks as the one operator that it is.

    concat(x[r::b, c::b] for every r and c below b)  =  space_to_depth_b(x), its channels in another order

SpaceToDepth puts row r, column c of a block at the channels (r b + c) C and up. YOLOv5 and YOLOX concatenate columns
outermost: a Gather gives their order, until the convolution behind it takes it over (fold_gather_into_layer). XNNPACK
runs no strided slice. Source: Jocher, YOLOv5, models/common.py, Focus.
"""

from dataclasses import replace

import numpy as np

from edgecnn.graph import Node
from edgecnn.ops import Concat, Gather, Slice, SpaceToDepth, known
from edgecnn.passes.editor import GraphEditor, Pass


def _slices(editor: GraphEditor, node: Node) -> list[Node]:
    """Return the strided slices that a Concat joins, or an empty list where it joins something else too."""
    found = []
    for name in node.inputs:
        before = editor.producer(name)
        step = before.op.step if before is not None and isinstance(before.op, Slice) else ()
        if before is None or len(step) != 4 or step != (1, step[1], step[1], 1) or step[1] == 1:
            return []
        found.append(before)
    return found


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a Concat over channels of strided slices of one picture."""
    if not isinstance(node.op, Concat) or node.op.axis != 3:
        return False
    found = _slices(editor, node)
    return len({each.inputs[0] for each in found}) == 1


def _places(found: list[Node]) -> list[tuple[int, int]]:
    """Return the (row, column) where each slice begins."""
    return [(each.op.begin[1], each.op.begin[2]) for each in found if isinstance(each.op, Slice)]


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the slices must stay."""
    found = _slices(editor, node)
    steps = {each.op.step[1] for each in found if isinstance(each.op, Slice)}
    batch, height, width, channels = editor.tensors[found[0].inputs[0]].shape
    block = min(steps)
    if len(steps) > 1 or sorted(_places(found)) != [(row, column) for row in range(block) for column in range(block)]:
        return "it does not join each position of a block once"
    if known(height) % block or known(width) % block:
        return f"blocks of {block} do not cover {height}x{width}"
    whole = (batch, known(height) // block, known(width) // block, channels)
    return None if all(editor.tensors[n].shape == whole for n in node.inputs) else "its slices leave a part out"


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Put SpaceToDepth in its place, and a Gather behind it where the order differs."""
    found = _slices(editor, node)
    source, block = found[0].inputs[0], max(row for row, _ in _places(found)) + 1
    channels = known(editor.tensors[source].shape[-1])
    order = np.concatenate([(row * block + column) * channels + np.arange(channels) for row, column in _places(found)])
    op = SpaceToDepth(block=block)
    if (order == np.arange(len(order))).all():
        editor.put(replace(node, op=op, inputs=(source,)))
    else:
        blocks = editor.free_name(f"{node.name}/blocks")
        editor.put(Node(name=blocks, op=op, inputs=(source,), outputs=(blocks,)))
        indices = editor.add_constant(f"{node.name}/order", order.astype(np.int64))
        editor.put(replace(node, op=Gather(axis=3), inputs=(blocks, indices)))
    for each in found:
        editor.prune(each)


PASS = Pass(name="focus_to_space_to_depth", match=match, check=check, rewrite=rewrite)
