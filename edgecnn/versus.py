"""A network against what it saves: pairs of convolutions beside the one that would stand for both, formula and count.

"normal": a depthwise-separable pair against a normal convolution (Howard et al., arXiv:1704.04861, section 3.1).
"no-bottleneck": a convolution behind a narrowing 1x1 against the same without it (Szegedy et al., arXiv:1409.4842).
"""

from collections.abc import Callable
from dataclasses import dataclass

from edgecnn.builder import no_values
from edgecnn.count import Cost, bottleneck_ratio, count, node_macs, separable_ratio
from edgecnn.graph import Graph
from edgecnn.models.bottleneck_twin import bottleneck_pairs, bottleneck_twin
from edgecnn.models.conv_pairs import ConvPair
from edgecnn.models.normal_twin import normal_twin, separable_pairs
from edgecnn.ops import elements, known


@dataclass(frozen=True, kw_only=True, slots=True)
class PairCost:
    """Two convolutions, and the one that would stand for both.

    Attributes:
        first: Node: the depthwise convolution, or the bottleneck.
        second: Node: the pointwise convolution, or the one behind the bottleneck.
        macs: Of both together, for one image.
        merged_macs: Of the one.
        predicted_ratio: By the formula: 1/N + 1/f^2, or R/(f^2 N) + R/C.
        actual_ratio: macs / merged_macs.
    """

    first: str
    second: str
    macs: int
    merged_macs: int
    predicted_ratio: float
    actual_ratio: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Versus:
    """One comparison.

    Attributes:
        key: Its name in JSON.
        title: What the other network is called.
        column: What one pair's other convolution is called.
        find: Graph -> its pairs.
        twin: Graph -> the other network.
        ratio: (kernel size, C input, R inner, N output channels) -> predicted macs / merged macs.
    """

    key: str
    title: str
    column: str
    find: Callable[[Graph], tuple[ConvPair, ...]]
    twin: Callable[..., Graph]
    ratio: Callable[[tuple[int, ...], int, int, int], float]


def _separable(kernel_size: tuple[int, ...], in_channels: int, inner: int, out_channels: int) -> float:
    return separable_ratio(kernel_size, out_channels)


VERSUS = {
    "normal": Versus(
        key="normal",
        title="normal twin",
        column="normal MACs",
        find=separable_pairs,
        twin=normal_twin,
        ratio=_separable,
    ),
    "no-bottleneck": Versus(
        key="no_bottleneck",
        title="twin without bottlenecks",
        column="MACs without",
        find=bottleneck_pairs,
        twin=bottleneck_twin,
        ratio=bottleneck_ratio,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A network against its twin: the pairs by their second node's name, and what the whole twin costs."""

    versus: Versus
    pairs: dict[str, PairCost]
    twin: Cost


def compare(graph: Graph, name: str) -> Comparison:
    """Return the comparison of that name, "normal" or "no-bottleneck".

    Raises:
        UsageError: When the network has no such pair.
    """
    versus = VERSUS[name]
    twin = count(versus.twin(graph, no_values))
    pairs = {pair.second.name: _pair_cost(graph, pair, versus) for pair in versus.find(graph)}
    return Comparison(versus=versus, pairs=pairs, twin=twin)


def _pair_cost(graph: Graph, pair: ConvPair, versus: Versus) -> PairCost:
    kernels = [graph.tensors[node.inputs[1]].shape[:-2] for node in (pair.first, pair.second)]
    window = tuple(known(size) for size in max(kernels))
    source, inner, output = (
        known(graph.tensors[name].shape[-1]) for name in (pair.first.inputs[0], pair.first.output, pair.second.output)
    )
    macs = (node_macs(graph, pair.first) or 0) + (node_macs(graph, pair.second) or 0)
    merged = elements(window) * source * output * elements(graph.tensors[pair.second.output].shape[1:-1])
    return PairCost(
        first=pair.first.name,
        second=pair.second.name,
        macs=macs,
        merged_macs=merged,
        predicted_ratio=versus.ratio(window, source, inner, output),
        actual_ratio=macs / merged,
    )
