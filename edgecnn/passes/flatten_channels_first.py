"""Flatten images channels-first, so that an NCHW format needs no Transpose before the dense layer.

    flatten_nhwc(x) @ W  =  flatten_nchw(transpose(x)) @ P W

P orders the rows of W (one for each input) by channel, then position. In a channels-first format the transpose is how
the tensor is stored already, so nothing of it is left in the file.
"""

from dataclasses import replace

import numpy as np

from edgecnn.graph import Node
from edgecnn.ops import Dense, Reshape, Transpose, elements, known
from edgecnn.passes.editor import GraphEditor, Pass


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a flatten (N, spatial..., C) -> (N, features) of more than one position and channel."""
    before = editor.tensors[node.inputs[0]].shape
    return (
        isinstance(node.op, Reshape)
        and len(editor.tensors[node.output].shape) == 2
        and len(before) > 2
        and before[0] == editor.tensors[node.output].shape[0]
        and before[-1] != 1
        and any(size != 1 for size in before[1:-1])
    )


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the order must stay."""
    producer, takers = editor.producer(node.inputs[0]), editor.consumers(node.output)
    if producer is not None and producer.op == channels_first(len(editor.tensors[node.inputs[0]].shape)):
        return "it flattens channels-first already"
    if node.output in editor.outputs or not takers:
        return "its output is a graph output"
    for taker in takers:
        kernel = editor.constant(taker, "kernel") if isinstance(taker.op, Dense) else None
        if kernel is None or taker.inputs[0] != node.output:
            return f"{taker.name} is no dense layer with a constant kernel"
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Insert the transpose before the flatten and reorder the rows of each dense kernel."""
    shape = editor.tensors[node.inputs[0]].shape
    turned = editor.free_name(f"{node.name}/channels_first")
    editor.put(Node(name=turned, op=channels_first(len(shape)), inputs=(node.inputs[0],), outputs=(turned,)))
    order = np.moveaxis(np.arange(elements(shape[1:])).reshape(*map(known, shape[1:])), -1, 0).ravel()
    for taker in editor.consumers(node.output):
        kernel = editor.constant(taker, "kernel")
        if kernel is not None and kernel.data is not None:
            data = np.ascontiguousarray(kernel.data[order])
            name = editor.add_constant(f"{taker.name}/kernel_channels_first", data, dtype=kernel.dtype)
            editor.put(replace(taker, inputs=(taker.inputs[0], name, *taker.inputs[2:])))
    editor.put(replace(node, inputs=(turned,)))


def channels_first(rank: int) -> Transpose:
    """Return the transpose (N, spatial..., C) -> (N, C, spatial...)."""
    return Transpose(permutation=(0, rank - 1, *range(1, rank - 1)))


PASS = Pass(name="flatten_channels_first", match=match, check=check, rewrite=rewrite)
