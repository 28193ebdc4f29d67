"""Let a convolution or dense layer take its channels in another order, or give them so: no Gather is left to do it.

    w * x[..., p]    =  w' * x,           w'[..., p[i], :] = w[..., i, :]
    (w * x + b)[..., p]  =  w[..., p] * x + b[p]

for a permutation p, with one group. Activations and poolings in between treat every channel alike, so p passes them.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgecnn.graph import Array, Node
from edgecnn.ops import Activation, AveragePool, Conv, ConvTranspose, Dense, Gather, MaxPool, Resize
from edgecnn.passes.channel_scale import refuse_parameters
from edgecnn.passes.editor import GraphEditor, Pass

ALIKE = (Activation, MaxPool, AveragePool, Resize)
"""Operators of one input that treat every channel alike."""


def _order(editor: GraphEditor, node: Node) -> Array | None:
    """Return the permutation of the last axis that a Gather is, or None."""
    shape = editor.tensors[node.inputs[0]].shape
    indices = editor.constant(node, "indices") if isinstance(node.op, Gather) else None
    if indices is None or indices.shape != shape[-1:] or not isinstance(node.op, Gather):
        return None
    order = indices.value()
    return order if node.op.axis == len(shape) - 1 and (np.sort(order) == np.arange(len(order))).all() else None


def _behind(editor: GraphEditor, node: Node) -> Iterator[Node]:
    """Give the nodes that the Gather's channels pass, one after another, each the only taker of the one before."""
    taker = editor.only_consumer(node.output)
    while taker is not None:
        yield taker
        taker = editor.only_consumer(taker.output) if isinstance(taker.op, ALIKE) else None


def _before(editor: GraphEditor, node: Node) -> Iterator[Node]:
    """Give the nodes that the Gather's channels come from, the nearest first, each taken by the next one only."""
    name = node.inputs[0]
    while (giver := editor.producer(name)) is not None and editor.only_consumer(name) is not None:
        yield giver
        if not isinstance(giver.op, ALIKE):
            return
        name = giver.inputs[0]


def _layer_behind(editor: GraphEditor, node: Node) -> tuple[Node, ...]:
    """Return the path to a layer that can take the channels in any order, or nothing."""
    return _path(editor, tuple(_behind(editor, node)), (Conv, ConvTranspose, Dense))


def _layer_before(editor: GraphEditor, node: Node) -> tuple[Node, ...]:
    """Return the path back to a layer that can give the channels in any order, or nothing."""
    return _path(editor, tuple(_before(editor, node)), (Conv, ConvTranspose, Dense))


def _path(editor: GraphEditor, path: tuple[Node, ...], layers: tuple[type, ...]) -> tuple[Node, ...]:
    if not path or not isinstance(path[-1].op, layers) or getattr(path[-1].op, "groups", 1) > 1:
        return ()
    return path if refuse_parameters(editor, path[-1]) is None else ()


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a Gather that puts the channels into another order."""
    return _order(editor, node) is not None


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the Gather must stay."""
    if _layer_behind(editor, node) or _layer_before(editor, node):
        return None
    return "no convolution or dense layer of one group and constant parameters stands next to it"


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Reorder the inputs of the layer behind, or the outputs of the layer before."""
    order = _order(editor, node)
    if order is None:
        return
    behind = _layer_behind(editor, node)
    if behind:
        _reorder_inputs(editor, node, behind, np.argsort(order))
    else:
        _reorder_outputs(editor, node, _layer_before(editor, node), order)


def _reorder_inputs(editor: GraphEditor, node: Node, path: tuple[Node, ...], inverse: Array) -> None:
    *passed, layer = path
    tensor = node.inputs[0]
    for each in path:
        editor.remove(each)
    editor.remove(node)
    for each in passed:
        name = editor.free_name(f"{each.output}/in_order")
        editor.put(replace(each, inputs=(tensor, *each.inputs[1:]), outputs=(name,)))
        tensor = name
    kernel = _taken(editor, layer, 1, inverse, axis=-2)
    editor.put(replace(layer, inputs=(tensor, kernel, *layer.inputs[2:])))


def _reorder_outputs(editor: GraphEditor, node: Node, path: tuple[Node, ...], order: Array) -> None:
    *passed, layer = path
    for each in (node, *path):
        editor.remove(each)
    parameters = tuple(_taken(editor, layer, at, order, axis=-1) for at in range(1, len(layer.inputs)))
    layer = replace(layer, inputs=(layer.inputs[0], *parameters))
    tensor = ""
    for each in (layer, *reversed(passed)):
        name = node.output if each.output == node.inputs[0] else editor.free_name(f"{each.output}/in_order")
        inputs = (tensor or each.inputs[0], *each.inputs[1:])
        editor.put(replace(each, inputs=inputs, outputs=(name,)))
        tensor = name


def _taken(editor: GraphEditor, layer: Node, operand: int, order: Array, *, axis: int) -> str:
    """Add one of a layer's parameters in another order along an axis."""
    tensor = editor.tensors[layer.inputs[operand]]
    data = np.zeros(()) if tensor.data is None else np.ascontiguousarray(tensor.data.take(order, axis=axis))
    return editor.add_constant(f"{tensor.name}_in_order", data, dtype=tensor.dtype)


PASS = Pass(name="fold_gather_into_layer", match=match, check=check, rewrite=rewrite)
