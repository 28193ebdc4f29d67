"""Write a Slice of channels that were cut into groups before, and joined behind, as one Slice with a step.

    reshape(reshape(x, (N, spatial..., C / 2, 2))[..., 0], (N, spatial..., C / 2)) = x[..., 0::2]

ShuffleNet v2 takes every other channel so; in a channels-first format each of its three operators would be turned.
"""

import numpy as np

from edgecnn.graph import Array, Node
from edgecnn.ops import Reshape, Slice, elements, known
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.shapes import Shape


def match(editor: GraphEditor, node: Node) -> bool:
    """Match the Reshape behind a Slice of reshaped channels that keeps all positions."""
    return isinstance(node.op, Reshape) and _found(editor, node) is not None


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the operators must stay."""
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Let the Slice read what comes before the Reshapes; they go where nothing else needs them."""
    found, cut = _found(editor, node), editor.producer(node.inputs[0])
    if found is None or cut is None:
        return
    source, op = found
    editor.put(Node(name=node.name, op=op, inputs=(source,), outputs=node.outputs))
    editor.prune(cut)


def _found(editor: GraphEditor, node: Node) -> tuple[str, Slice] | None:
    """Return the tensor before the Reshapes and the Slice of it, or None where there is none."""
    cut = editor.producer(node.inputs[0])
    if cut is None or not isinstance(cut.op, Slice):
        return None
    source = cut.inputs[0]
    while (before := editor.producer(source)) is not None and isinstance(before.op, Reshape):
        source = before.inputs[0]
    shape, wanted = editor.tensors[source].shape, editor.tensors[node.output].shape
    if source == cut.inputs[0] or len(shape) < 3 or shape[:-1] != wanted[:-1]:
        return None
    places = _channels(editor.tensors[cut.inputs[0]].shape, cut.op, known(shape[-1]))
    if places is None or len(places) != wanted[-1]:
        return None
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if step < 1 or not np.array_equal(places, places[0] + step * np.arange(len(places))):
        return None
    begin, end = (*(0,) * (len(shape) - 1), int(places[0])), (*shape[:-1], int(places[-1]) + 1)
    return source, Slice(begin=begin, end=end, step=(*(1,) * (len(shape) - 1), step))


def _channels(shape: Shape, op: Slice, channels: int) -> Array | None:
    """Return the channels that a Slice of (positions..., groups...) takes, or None where it cuts anything else."""
    first = next((axis for axis in range(1, len(shape)) if elements(shape[axis:]) == channels), None)
    if first is None or None in shape[first:]:
        return None
    boxes = list(zip(op.begin, op.end, op.step, strict=True))
    if any(box not in ((0, None, 1), (0, size, 1)) for box, size in zip(boxes[:first], shape[:first], strict=True)):
        return None
    return np.arange(channels).reshape([n or 0 for n in shape[first:]])[tuple(slice(*b) for b in boxes[first:])].ravel()


PASS = Pass(name="fold_reshape_into_slice", match=match, check=check, rewrite=rewrite)
