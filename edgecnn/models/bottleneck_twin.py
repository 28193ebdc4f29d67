"""The twin without bottlenecks: what a network would cost if no 1x1 convolution narrowed the input of a larger one.

GoogLeNet narrows before each 3x3 and 5x5, ResNet-50 before each 3x3. Merged, the larger convolution sees the wide input
itself: 5x5 over 28x28x192 to 32 channels costs 120,422,400 MACs, through 16 channels 12,443,648.

Source: Szegedy et al., Going deeper with convolutions, arXiv:1409.4842, section 4.
"""

from edgecnn.builder import Initialiser
from edgecnn.errors import UsageError
from edgecnn.graph import Graph
from edgecnn.models.conv_pairs import ConvPair, follow, is_pointwise, kernel_size, merged
from edgecnn.ops import Conv, known
from edgecnn.passes.editor import GraphEditor


def bottleneck_pairs(graph: Graph) -> tuple[ConvPair, ...]:
    """Return every 1x1 convolution that narrows what one larger normal convolution takes, in order."""
    editor = GraphEditor(graph)
    found = (
        follow(editor, node) for node in graph.nodes if is_pointwise(editor, node) and _narrows(editor, node.inputs)
    )
    return tuple(pair for pair in found if pair is not None and _is_bottleneck(editor, pair))


def bottleneck_twin(graph: Graph, initialise: Initialiser) -> Graph:
    """Return the Graph with each bottleneck and its convolution merged, named after the convolution.

    Raises:
        UsageError: When there is no bottleneck.
    """
    pairs = bottleneck_pairs(graph)
    if not pairs:
        raise UsageError(f"{graph.name}: it has no 1x1 bottleneck before a larger convolution to leave out")
    return merged(graph, pairs, initialise)


def _narrows(editor: GraphEditor, inputs: tuple[str, ...]) -> bool:
    *_, in_channels, out_channels = editor.tensors[inputs[1]].shape
    return known(out_channels) < known(in_channels)


def _is_bottleneck(editor: GraphEditor, pair: ConvPair) -> bool:
    op = pair.second.op
    is_larger = max(kernel_size(editor, pair.second)) > 1
    return is_larger and pair.excite is None and isinstance(op, Conv) and op.groups == 1
