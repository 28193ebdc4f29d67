"""The normal twin: what a depthwise-separable network would be with normal convolutions.

Each depthwise convolution together with the pointwise one that follows it becomes one normal convolution of the
depthwise kernel's size and stride; what stood between them (BatchNorm, activation) goes, what stood behind stays.
MobileNet v1: 4,867,293,184 MACs against 568,740,352 (Howard et al., arXiv:1704.04861, table 4); v2: 1,224,972,288
against 300,774,272. The twin is another network with fresh weights, not a rewrite that keeps the outputs.
"""

from dataclasses import dataclass, replace

from edgecnn.builder import Initialiser
from edgecnn.errors import UsageError
from edgecnn.graph import Graph, Node, Tensor
from edgecnn.ops import Activation, BatchNorm, Conv, is_depthwise
from edgecnn.passes.editor import GraphEditor


@dataclass(frozen=True, kw_only=True, slots=True)
class SeparablePair:
    """A depthwise convolution, what stands between, and its pointwise convolution."""

    depthwise: Node
    between: tuple[Node, ...]
    pointwise: Node


def separable_pairs(graph: Graph) -> tuple[SeparablePair, ...]:
    """Return every depthwise convolution that one 1x1 convolution follows, in order."""
    editor = GraphEditor(graph)
    found = (_pair(editor, node) for node in graph.nodes if is_depthwise(node.op, graph.shapes(node.inputs)))
    return tuple(pair for pair in found if pair is not None)


def normal_twin(graph: Graph, initialise: Initialiser) -> Graph:
    """Return the Graph with each separable pair replaced by one normal convolution, named after the pointwise one.

    Raises:
        UsageError: When there is no separable pair.
    """
    editor, pairs = GraphEditor(graph), separable_pairs(graph)
    if not pairs:
        raise UsageError(f"{graph.name}: it has no depthwise-separable convolution, so it has no normal twin")
    for pair in pairs:
        depthwise, pointwise = pair.depthwise, pair.pointwise
        kernel_size = editor.tensors[depthwise.inputs[1]].shape[:-2]
        in_channels = editor.tensors[depthwise.inputs[0]].shape[-1] or 0
        out_channels = editor.tensors[pointwise.inputs[1]].shape[-1] or 0
        shape = (*(size or 0 for size in kernel_size), in_channels, out_channels)
        kernel = pointwise.inputs[1]
        editor.tensors[kernel] = Tensor(name=kernel, shape=shape, data=initialise(pointwise.name, shape))
        for node in (depthwise, *pair.between):
            editor.remove(node)
        op = replace(depthwise.op, groups=1, activation=getattr(pointwise.op, "activation", None))  # type: ignore[call-arg]
        editor.put(replace(pointwise, op=op, inputs=(depthwise.inputs[0], kernel, *pointwise.inputs[2:])))
    return editor.finish()


def _pair(editor: GraphEditor, depthwise: Node) -> SeparablePair | None:
    between: list[Node] = []
    node = editor.only_consumer(depthwise.output)
    while node is not None and isinstance(node.op, BatchNorm | Activation):
        between.append(node)
        node = editor.only_consumer(node.output)
    if node is None or not isinstance(node.op, Conv) or not _is_pointwise(editor, node):
        return None
    return SeparablePair(depthwise=depthwise, between=tuple(between), pointwise=node)


def _is_pointwise(editor: GraphEditor, node: Node) -> bool:
    kernel, op = editor.tensors[node.inputs[1]].shape, node.op
    return isinstance(op, Conv) and op.groups == 1 and set(kernel[:-2]) == {1} and set(op.stride) == {1}
