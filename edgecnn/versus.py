"""Depthwise-separable against normal convolution, pair by pair: the formula and the count beside each other."""

from dataclasses import dataclass

from edgecnn.count import node_macs, separable_ratio
from edgecnn.graph import Graph
from edgecnn.models.normal_twin import separable_pairs
from edgecnn.ops import elements


@dataclass(frozen=True, kw_only=True, slots=True)
class PairCost:
    """One depthwise convolution with its pointwise one, and the normal convolution that would stand for both.

    Attributes:
        depthwise: Node.
        pointwise: Node.
        separable_macs: Of both together, for one image.
        normal_macs: Of the normal convolution.
        predicted_ratio: 1/N + 1/f^2.
        actual_ratio: separable_macs / normal_macs.
    """

    depthwise: str
    pointwise: str
    separable_macs: int
    normal_macs: int
    predicted_ratio: float
    actual_ratio: float


def compare_with_normal(graph: Graph) -> dict[str, PairCost]:
    """Return the comparison for each separable pair, by the pointwise node's name."""
    found = {}
    for pair in separable_pairs(graph):
        kernel_size = tuple(size or 0 for size in graph.tensors[pair.depthwise.inputs[1]].shape[:-2])
        in_channels = graph.tensors[pair.depthwise.inputs[0]].shape[-1] or 0
        out_channels = graph.tensors[pair.pointwise.output].shape[-1] or 0
        positions = elements(graph.tensors[pair.pointwise.output].shape[1:-1])
        separable = (node_macs(graph, pair.depthwise) or 0) + (node_macs(graph, pair.pointwise) or 0)
        normal = elements(kernel_size) * in_channels * out_channels * positions
        found[pair.pointwise.name] = PairCost(
            depthwise=pair.depthwise.name,
            pointwise=pair.pointwise.name,
            separable_macs=separable,
            normal_macs=normal,
            predicted_ratio=separable_ratio(kernel_size, out_channels),
            actual_ratio=separable / normal,
        )
    return found
