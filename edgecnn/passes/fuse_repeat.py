"""Write a repetition of each position, spelled with an axis of its own, as a nearest neighbour Resize.

    reshape(tile(x[..., n, 1, ...], k), [..., k n, ...])  =  resize(x, k n)

keras.ops.repeat, and with it Keras' UpSampling layers, expand so, one axis after the other; Resizes in a row that
repeat along different axes become one.
"""

from dataclasses import replace
from typing import Any

from edgecnn.graph import Node
from edgecnn.ops import Reshape, Resize, Tile, known
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.shapes import Shape

MOST_AXES = 4
"""Of an image over two dimensions: what every format resizes."""


def match(editor: GraphEditor, node: Node) -> bool:
    """Match the Reshape that joins the repetitions with their positions."""
    return _repeated(editor, node) is not None


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why it must stay."""
    tile = editor.producer(node.inputs[0])
    return "the repetitions are used elsewhere too" if tile and editor.only_consumer(tile.output) is None else None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Resize the source, together with the Resize before it where that repeats along other axes."""
    tile, axis = editor.producer(node.inputs[0]), _repeated(editor, node)
    if tile is None or axis is None:
        return
    output = editor.tensors[node.output].shape
    expanded = editor.producer(tile.inputs[0])
    source = _source(editor, tile, axis)
    before = editor.producer(source)
    size = tuple(known(n) for n in output[1:-1])
    if before is not None and _may_join(editor, before, expanded, axis):
        source = before.inputs[0]
    editor.put(replace(node, op=Resize(size=size, method="nearest", coordinates="asymmetric"), inputs=(source,)))
    editor.prune(tile)


def _repeated(editor: GraphEditor, node: Node) -> int | None:
    """Return the spatial axis that a Reshape of a Tile repeats, or None."""
    tile = editor.producer(node.inputs[0]) if isinstance(node.op, Reshape) else None
    if tile is None or not isinstance(tile.op, Tile):
        return None
    shape, output = editor.tensors[tile.inputs[0]].shape, editor.tensors[node.output].shape
    axes = [axis for axis, times in enumerate(tile.op.multiples) if times > 1]
    if len(axes) != 1 or not 2 <= axes[0] < len(shape) - 1 or len(shape) - 1 > MOST_AXES or shape[axes[0]] != 1:
        return None
    rest = list(_without(shape, axes[0]))
    rest[axes[0] - 1] = known(rest[axes[0] - 1]) * tile.op.multiples[axes[0]]
    return axes[0] - 1 if tuple(rest) == output else None


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


def _source(editor: GraphEditor, tile: Node, axis: int) -> str:
    """Return what is repeated, without the axis for the repetitions."""
    shape = _without(editor.tensors[tile.inputs[0]].shape, axis + 1)
    before = editor.producer(tile.inputs[0])
    if before is not None and isinstance(before.op, Reshape) and editor.tensors[before.inputs[0]].shape == shape:
        return before.inputs[0]
    name = editor.free_name(f"{tile.name}/once")
    editor.put(Node(name=name, op=Reshape(shape=shape), inputs=(tile.inputs[0],), outputs=(name,)))
    return name


def _may_join(editor: GraphEditor, before: Node, taker: Node | None, axis: int) -> bool:
    """Tell whether a Resize repeats along other axes only, for nothing but this one."""
    op: Any = before.op
    if not isinstance(op, Resize) or (op.method, op.coordinates) != ("nearest", "asymmetric"):
        return False
    source, output = editor.tensors[before.inputs[0]].shape, editor.tensors[before.output].shape
    is_alone = taker is not None and editor.only_consumer(before.output) == taker
    return is_alone and source[axis] == output[axis]


PASS = Pass(name="fuse_repeat", match=match, check=check, rewrite=rewrite)
