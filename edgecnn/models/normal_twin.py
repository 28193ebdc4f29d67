"""The normal twin: what a depthwise-separable network would be with normal convolutions.

Each depthwise convolution together with the pointwise one that follows it becomes one normal convolution of the
depthwise kernel's size and stride; what stood between them (BatchNorm, activation) goes, what stood behind stays, and a
squeeze-excite between them moves behind. MobileNet v1: 4,867,293,184 MACs against 568,740,352 (Howard et al.,
arXiv:1704.04861, table 4); v2: 1,224,972,288 against 300,774,272; EfficientNet-B0: 3,023,755,168 against 385,814,752.
The twin is another network with fresh weights, not a rewrite that keeps the outputs.
"""

from edgecnn.builder import Initialiser
from edgecnn.errors import UsageError
from edgecnn.graph import Graph
from edgecnn.models.conv_pairs import ConvPair, follow, is_pointwise, merged
from edgecnn.ops import Conv, is_depthwise
from edgecnn.passes.editor import GraphEditor


def separable_pairs(graph: Graph) -> tuple[ConvPair, ...]:
    """Return every depthwise convolution that one 1x1 convolution follows, in order."""
    editor = GraphEditor(graph)
    depthwise = [node for node in graph.nodes if is_depthwise(node.op, graph.shapes(node.inputs))]
    found = (follow(editor, node) for node in depthwise)
    return tuple(pair for pair in found if pair is not None and _is_separable(editor, pair))


def normal_twin(graph: Graph, initialise: Initialiser) -> Graph:
    """Return the Graph with each separable pair replaced by one normal convolution, named after the pointwise one.

    Raises:
        UsageError: When there is no separable pair.
    """
    pairs = separable_pairs(graph)
    if not pairs:
        raise UsageError(f"{graph.name}: it has no depthwise-separable convolution, so it has no normal twin")
    return merged(graph, pairs, initialise)


def _is_separable(editor: GraphEditor, pair: ConvPair) -> bool:
    op = pair.second.op
    return is_pointwise(editor, pair.second) and isinstance(op, Conv) and set(op.stride) == {1}
