"""Count multiply-accumulates, parameters and bytes; the arithmetic of normal against depthwise-separable convolution.

One MAC is one multiply with its add. Convolution and dense layers count; biases, normalisation, activations, pooling
and additions count 0; an operator that we do not know is listed as unknown (None), never as 0.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from edgecnn import ops
from edgecnn.graph import Graph, Node
from edgecnn.ops import elements, known
from edgecnn.passes import fold_batch_norm, lower_batch_norm
from edgecnn.passes.editor import GraphEditor
from edgecnn.shapes import Shape

# --- one layer, as the notes teach it --------------------------------------------------------------------------------


def conv_parameters(kernel_size: tuple[int, ...], in_channels: int, out_channels: int, *, use_bias: bool = True) -> int:
    """Return the parameters of a normal convolution layer.

    >>> conv_parameters((3, 3), 3, 10)
    280
    """
    return (prod(kernel_size) * in_channels + use_bias) * out_channels


def normal_macs(
    kernel_size: tuple[int, ...], in_channels: int, out_channels: int, output_sizes: tuple[int, ...]
) -> int:
    """Return the MACs of a normal convolution: filter parameters x filter positions x filters.

    >>> normal_macs((3, 3), 3, 5, (4, 4))
    2160
    """
    return prod(kernel_size) * in_channels * prod(output_sizes) * out_channels


def separable_macs(
    kernel_size: tuple[int, ...], in_channels: int, out_channels: int, output_sizes: tuple[int, ...]
) -> tuple[int, int]:
    """Return the MACs of a depthwise-separable convolution: (depthwise, pointwise).

    >>> separable_macs((3, 3), 3, 5, (4, 4))
    (432, 240)
    """
    positions = prod(output_sizes)
    return prod(kernel_size) * positions * in_channels, in_channels * positions * out_channels


def separable_ratio(kernel_size: tuple[int, ...], out_channels: int) -> float:
    """Return separable / normal MACs: 1/N + 1/f^2, with N output channels and an f x f kernel.

    Source: Howard et al., MobileNets, arXiv:1704.04861, section 3.1.

    >>> round(separable_ratio((3, 3), 5), 4) == round(672 / 2160, 4)
    True
    """
    return 1 / out_channels + 1 / prod(kernel_size)


def bottleneck_macs(
    kernel_size: tuple[int, ...],
    in_channels: int,
    reduced_channels: int,
    out_channels: int,
    output_sizes: tuple[int, ...],
) -> tuple[int, int]:
    """Return the MACs of a convolution behind a 1x1 convolution that narrows its input: (1x1, convolution).

    The notes' example, 5x5 over 28x28x192 to 32 channels through 16: 12.4 M multiplications for 120 M.

    Source: Szegedy et al., Going deeper with convolutions, arXiv:1409.4842, section 4.

    >>> normal_macs((5, 5), 192, 32, (28, 28))
    120422400
    >>> bottleneck_macs((5, 5), 192, 16, 32, (28, 28))
    (2408448, 10035200)
    >>> sum(bottleneck_macs((5, 5), 192, 16, 32, (28, 28)))
    12443648
    """
    positions = prod(output_sizes)
    return in_channels * positions * reduced_channels, prod(kernel_size) * reduced_channels * positions * out_channels


def bottleneck_ratio(kernel_size: tuple[int, ...], in_channels: int, reduced_channels: int, out_channels: int) -> float:
    """Return MACs with / without the 1x1 bottleneck: R/(f^2 N) + R/C, narrowing C input channels to R, N outputs.

    >>> round(bottleneck_ratio((5, 5), 192, 16, 32), 4) == round(12443648 / 120422400, 4)
    True
    """
    return reduced_channels / (prod(kernel_size) * out_channels) + reduced_channels / in_channels


# --- a whole Graph ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """What one node costs for one image.

    Attributes:
        name: The node.
        kind: Its operator; a depthwise convolution says so.
        output_shape: Of its first output.
        macs: Multiply-accumulates, or None where the operator is unknown.
        trainable: Parameters that training learns.
        statistics: Parameters that training only computes (BatchNorm mean and variance).
        bytes_moved: Inputs, parameters and outputs, each read or written once at the stored width.
    """

    name: str
    kind: str
    output_shape: Shape
    macs: int | None
    trainable: int
    statistics: int
    bytes_moved: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a whole Graph costs for one image.

    Attributes:
        layers: One row per node, in order.
        macs: Sum of the known MACs.
        unknown: Names of the nodes whose MACs are unknown.
        trainable: Parameters that training learns.
        total: With BatchNorm statistics, as Keras counts.
        deployed: After BatchNorm is folded away, or written as scale and shift where it cannot be.
        bytes_moved: Sum over the layers.
    """

    layers: tuple[LayerCost, ...]
    macs: int
    unknown: tuple[str, ...]
    trainable: int
    total: int
    deployed: int
    bytes_moved: int


def count(graph: Graph) -> Cost:
    """Count a Graph, layer by layer. A parameter that several nodes share counts once."""
    seen: set[str] = set()
    layers = tuple(_layer(graph, node, seen) for node in graph.nodes)
    total = sum(layer.trainable + layer.statistics for layer in layers)
    editor = GraphEditor(graph)
    return Cost(
        layers=layers,
        macs=sum(layer.macs or 0 for layer in layers),
        unknown=tuple(layer.name for layer in layers if layer.macs is None),
        trainable=sum(layer.trainable for layer in layers),
        total=total,
        deployed=total + sum(_deploying(editor, node) for node in graph.nodes),
        bytes_moved=sum(layer.bytes_moved for layer in layers),
    )


def node_macs(graph: Graph, node: Node) -> int | None:
    """Return a node's MACs for one image, or None where its operator is unknown."""
    if isinstance(node.op, ops.Opaque):
        return None
    rule = MACS.get(type(node.op))
    if rule is None:
        return 0
    image, kernel = graph.shapes(node.inputs[:2])
    return rule(image, kernel, graph.tensors[node.output].shape)


def _kernel_at_each_output(image: Shape, kernel: Shape, output: Shape) -> int:
    return elements(kernel) * elements(output[1:-1])


def _kernel_at_each_input(image: Shape, kernel: Shape, output: Shape) -> int:
    return elements(kernel) * elements(image[1:-1])


MACS: dict[type[ops.Op], Callable[[Shape, Shape, Shape], int]] = {
    ops.Conv: _kernel_at_each_output,
    ops.ConvTranspose: _kernel_at_each_input,
    ops.Dense: _kernel_at_each_output,
    ops.MatMul: lambda a, b, output: known(a[-1]) * elements(output),
}
"""Operator -> (input, kernel, output shape) -> MACs for one image; operators that are not in it count 0."""


def _layer(graph: Graph, node: Node, seen: set[str]) -> LayerCost:
    trainable = statistics = 0
    for position, name in enumerate(node.inputs):
        tensor = graph.tensors[name]
        if not tensor.is_constant or name in seen or not tensor.dtype.startswith("float"):
            continue
        seen.add(name)
        operand = node.op.operands[min(position, len(node.op.operands) - 1)]
        if operand in node.op.statistics:
            statistics += elements(tensor.shape)
        else:
            trainable += elements(tensor.shape)
    kind = "DepthwiseConv" if ops.is_depthwise(node.op, graph.shapes(node.inputs)) else node.kind
    return LayerCost(
        name=node.name,
        kind=kind,
        output_shape=graph.tensors[node.output].shape,
        macs=node_macs(graph, node),
        trainable=trainable,
        statistics=statistics,
        bytes_moved=_bytes(graph, (*node.inputs, *node.outputs)),
    )


def _bytes(graph: Graph, names: Iterable[str]) -> int:
    tensors = [graph.tensors[name] for name in names]
    widths = [np.dtype(t.stored_dtype).itemsize if t.data is None else t.data.itemsize for t in tensors]
    return sum(elements(t.shape[1:] if t.data is None else t.shape) * w for t, w in zip(tensors, widths, strict=True))


def _deploying(editor: GraphEditor, node: Node) -> int:
    """Return by how many parameters deployment changes the total: a BatchNorm's four vectors go, up to two come."""
    if not lower_batch_norm.match(editor, node) or lower_batch_norm.check(editor, node) is not None:
        return 0
    channels = elements(editor.tensors[node.inputs[1]].shape)
    if fold_batch_norm.check(editor, node) is not None:
        return 2 * channels - 4 * channels
    producer = editor.producer(node.inputs[0])
    return (0 if producer and producer.operand("bias") else channels) - 4 * channels
