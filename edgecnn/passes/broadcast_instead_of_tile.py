"""Let an elementwise operator repeat its operand by broadcasting, instead of a Tile before it.

    tile(w) * x  =  w * x

where each axis that the Tile repeats has size 1. PyTorch's expand_as, as squeeze-and-excitation spells it, exports a
Tile; XNNPACK runs none, and it hides the layout of what it repeats.
"""

from typing import Any

from edgecnn.errors import ShapeError
from edgecnn.graph import Node
from edgecnn.ops import Add, Div, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Maximum, Minimum, Mul, Sub, Tile
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.shapes import broadcast_shapes

BROADCASTING = (Add, Sub, Mul, Div, Maximum, Minimum, Greater, GreaterOrEqual, Less, LessOrEqual, Equal)


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a Tile that repeats axes of size 1 for elementwise operators only."""
    op: Any = node.op
    if not isinstance(op, Tile) or node.output in editor.outputs:
        return False
    shape, takers = editor.tensors[node.inputs[0]].shape, editor.consumers(node.output)
    repeats_ones = all(size == 1 or times == 1 for size, times in zip(shape, op.multiples, strict=True))
    return repeats_ones and bool(takers) and all(isinstance(taker.op, BROADCASTING) for taker in takers)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the Tile must stay."""
    for taker in editor.consumers(node.output):
        a, b = (node.inputs[0] if name == node.output else name for name in taker.inputs)
        try:
            found = broadcast_shapes(editor.tensors[a].shape, editor.tensors[b].shape)
        except ShapeError:
            found = ()
        if found != editor.tensors[taker.output].shape:
            return f"{taker.name} has no other operand of the repeated shape"
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Give the operators what the Tile takes."""
    editor.redirect(node.output, node.inputs[0])
    editor.remove(node)


PASS = Pass(name="broadcast_instead_of_tile", match=match, check=check, rewrite=rewrite)
