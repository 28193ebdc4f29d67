"""Write two operators in a row that only move data as one: Reshape, Transpose and Slice.

    reshape_b(reshape_a(x)) = reshape_b(x)
    transpose_q(transpose_p(x)) = transpose_r(x),  r[i] = p[q[i]]
    x[b:e:s][c:f:t] = x[b + s c : b + s (f - 1) + 1 : s t]

What undoes the first one goes altogether. The first stays where something else takes it: moving twice from the source
costs no more than moving once from there and once from here. Only a crop that several take is not taken apart: what
they do together (a focus, say) they do to the crop.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgecnn.graph import Node
from edgecnn.ops import Op, Reshape, Slice, Transpose
from edgecnn.passes import remove_identities
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.shapes import Shape


def _reshape(first: Reshape, second: Reshape, source: Shape, output: Shape) -> Op:
    keeps_batch = second.shape[:1] == (None,) and source[:1] == output[:1]
    return second if keeps_batch else Reshape(shape=output)


def _transpose(first: Transpose, second: Transpose, source: Shape, output: Shape) -> Op:
    return Transpose(permutation=tuple(first.permutation[axis] for axis in second.permutation))


def _slice(first: Slice, second: Slice, source: Shape, output: Shape) -> Op:
    ends = zip(first.begin, first.step, first.end, second.end, strict=True)
    starts = zip(first.begin, first.step, second.begin, strict=True)
    return Slice(
        begin=tuple(begin + step * after for begin, step, after in starts),
        end=tuple(end if last is None else begin + step * (last - 1) + 1 for begin, step, end, last in ends),
        step=tuple(one * other for one, other in zip(first.step, second.step, strict=True)),
    )


MERGED: dict[type[Op], Callable[[Any, Any, Shape, Shape], Op]] = {
    Reshape: _reshape,
    Transpose: _transpose,
    Slice: _slice,
}
"""Kind -> (first, second, shape before both, shape behind both) -> the one operator."""


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a node behind one of its own kind."""
    before = editor.producer(node.inputs[0]) if type(node.op) in MERGED else None
    return before is not None and type(before.op) is type(node.op)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why they must stay two."""
    before = editor.producer(node.inputs[0])
    is_crop = before is not None and isinstance(before.op, Slice) and set(before.op.step) == {1}
    return "several take the crop before it" if is_crop and editor.only_consumer(node.inputs[0]) is None else None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Move from the source at once."""
    before = editor.producer(node.inputs[0])
    if before is None:
        return
    source = before.inputs[0]
    shapes = (editor.tensors[source].shape, editor.tensors[node.output].shape)
    merged = replace(node, op=MERGED[type(node.op)](before.op, node.op, *shapes), inputs=(source,))
    editor.put(merged)
    editor.prune(before)
    if remove_identities.match(editor, merged) and remove_identities.check(editor, merged) is None:
        remove_identities.rewrite(editor, merged)


PASS = Pass(name="merge_reshapes", match=match, check=check, rewrite=rewrite)
