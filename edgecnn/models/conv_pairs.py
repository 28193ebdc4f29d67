"""Pairs of convolutions that one could stand for: what a twin network merges, and what `cost --versus` compares.

Merged, a pair becomes one normal convolution with the larger kernel, the first one's input and the second one's output;
what stood between (BatchNorm, activation) goes, what stood behind stays, and a squeeze-excite that stood between moves
behind. The twin is another network with fresh weights, not a rewrite that keeps the outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecnn.builder import Initialiser
from edgecnn.graph import Graph, Node, Tensor
from edgecnn.models.squeeze_excite import Branch, find_squeeze_excite
from edgecnn.ops import Activation, BatchNorm, Conv, Dense, Reshape, known
from edgecnn.passes.editor import GraphEditor
from edgecnn.shapes import explicit_padding


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvPair:
    """Two convolutions of which the second alone takes what the first gives.

    Attributes:
        first: Node.
        between: BatchNorm and activations on the way.
        excite: The squeeze-excite on the way, if there is one.
        second: Node.
    """

    first: Node
    between: tuple[Node, ...]
    excite: Branch | None
    second: Node


def follow(editor: GraphEditor, first: Node) -> ConvPair | None:
    """Return a convolution with the next one behind it, or None where the way forks or holds anything else."""
    between: list[Node] = []
    excite, node = None, first
    while True:
        taker = editor.only_consumer(node.output)
        if taker is None and excite is None and (excite := find_squeeze_excite(editor, node.output)) is not None:
            node = excite.excite
        elif taker is not None and isinstance(taker.op, BatchNorm | Activation):
            between.append(node := taker)
        elif taker is not None and isinstance(taker.op, Conv):
            return ConvPair(first=first, between=tuple(between), excite=excite, second=taker)
        else:
            return None


def is_pointwise(editor: GraphEditor, node: Node) -> bool:
    """Tell whether a node is a 1x1 convolution that mixes all channels."""
    return isinstance(node.op, Conv) and node.op.groups == 1 and set(kernel_size(editor, node)) == {1}


def kernel_size(editor: GraphEditor, node: Node) -> tuple[int, ...]:
    """Return the spatial sizes of a convolution's kernel."""
    return tuple(known(size) for size in editor.tensors[node.inputs[1]].shape[:-2])


def merged(graph: Graph, pairs: Sequence[ConvPair], initialise: Initialiser) -> Graph:
    """Return the Graph with each pair replaced by one normal convolution, which takes the second one's name."""
    editor = GraphEditor(graph)
    for pair in pairs:
        _merge(editor, pair, initialise)
        if pair.excite is not None:
            _excite_behind(editor, pair.second.name, pair.excite, initialise)
    return editor.finish()


def _merge(editor: GraphEditor, pair: ConvPair, initialise: Initialiser) -> None:
    first, second = pair.first, pair.second
    source, kernel = first.inputs[0], second.inputs[1]
    window = max(kernel_size(editor, first), kernel_size(editor, second))
    in_channels, out_channels = known(editor.tensors[source].shape[-1]), known(editor.tensors[kernel].shape[-1])
    shape = (*window, in_channels, out_channels)
    editor.tensors[kernel] = Tensor(name=kernel, shape=shape, data=initialise(second.name, shape))
    op = _merged_op(editor, first, second, window)
    for node in (first, *pair.between, *((*pair.excite.branch, pair.excite.excite) if pair.excite else ())):
        editor.remove(node)
    editor.put(replace(second, op=op, inputs=(source, kernel, *second.inputs[2:])))


def _merged_op(editor: GraphEditor, first: Node, second: Node, window: tuple[int, ...]) -> Conv:
    one: Any = first.op
    two: Any = second.op
    stride = tuple(a * b for a, b in zip(one.stride, two.stride, strict=True))
    spatial = two if is_pointwise(editor, first) else one
    padding = spatial.padding
    if spatial is two and stride != two.stride:  # the window now slides over the larger image before the first stride
        sizes = [known(size) for size in editor.tensors[first.inputs[0]].shape[1:-1]]
        padding = explicit_padding("same", sizes, window, stride, two.dilation)
    return Conv(stride=stride, padding=padding, dilation=spatial.dilation, activation=two.activation)


def _excite_behind(editor: GraphEditor, name: str, excite: Branch, initialise: Initialiser) -> None:
    """Put a squeeze-excite behind a convolution with its BatchNorm and activation, for that many channels."""
    end = editor.nodes[name]
    while (taker := editor.only_consumer(end.output)) is not None and isinstance(taker.op, BatchNorm | Activation):
        end = taker
    takers = editor.consumers(end.output)
    channels = known(editor.tensors[end.output].shape[-1])
    squeeze, *rest = excite.branch
    editor.put(replace(squeeze, inputs=(end.output,)))
    layers = [node for node in rest if isinstance(node.op, Conv | Dense)]
    narrow = range(rest.index(layers[0]), rest.index(layers[-1]))
    for position, node in enumerate(rest):
        if node in layers:
            _resize(editor, node, channels, node is layers[0], node is layers[-1], initialise)
        is_wide = isinstance(node.op, Reshape) and position not in narrow
        editor.put(_with_channels(node, channels) if is_wide else node)
    editor.put(replace(excite.excite, inputs=(end.output, rest[-1].output)))
    for taker in takers:
        inputs = tuple(excite.excite.output if name == end.output else name for name in taker.inputs)
        editor.put(replace(taker, inputs=inputs))


def _with_channels(reshape: Node, channels: int) -> Node:
    op: Any = reshape.op
    return replace(reshape, op=Reshape(shape=(*op.shape[:-1], channels)))


def _resize(
    editor: GraphEditor, node: Node, channels: int, is_first: bool, is_last: bool, initialise: Initialiser
) -> None:
    *window, inner, outer = (known(size) for size in editor.tensors[node.inputs[1]].shape)
    shape = (*window, channels if is_first else inner, channels if is_last else outer)
    kernel = node.inputs[1]
    editor.tensors[kernel] = Tensor(name=kernel, shape=shape, data=initialise(node.name, shape))
    for bias in node.inputs[2:]:
        editor.tensors[bias] = Tensor(name=bias, shape=shape[-1:], data=np.zeros(shape[-1:], np.float32))
