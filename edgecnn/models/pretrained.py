"""Pretrained weights: put the parameters of a Keras weight file into a zoo network of the same architecture.

Keras' files name layers as Keras does, or not at all (.weights.h5), so layers are matched by kind and order: the k-th
depthwise convolution of the file is the k-th of the network, and likewise for the other kinds. Zoo networks create
their layers in the order in which Keras Applications creates them, and every shape is checked, so a file of another
architecture is refused with a list of what did not fit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn import ops, registry
from edgecnn.errors import InputFileError, NotThereError
from edgecnn.graph import Array, Graph, Node, Tensor
from edgecnn.ops import elements, is_depthwise
from edgecnn.shapes import show_shape

SHOWN = 5
"""Layers that an error lists before it counts the rest."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LayerWeights:
    """The parameters of one layer of a weight file, arranged as the Graph stores them.

    Attributes:
        name: As the file calls it.
        kind: "conv", "depthwise", "dense" or "batch_norm".
        parameters: Operand ("kernel", "bias", "gamma", ...) -> values.
    """

    name: str
    kind: str
    parameters: dict[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A Graph with pretrained parameters and how they got there.

    Attributes:
        graph: With the file's parameters.
        layers: How many layers took theirs from the file.
        fresh: Layers of the classifier that keep their initial values, since the file has none of that shape.
    """

    graph: Graph
    layers: int
    fresh: tuple[str, ...]


def load_weights(graph: Graph, path: Path) -> Loaded:
    """Return the Graph with the parameters of a Keras weight file (.h5, .weights.h5 or .keras).

    The last layer may differ: a network with other classes keeps its fresh classifier, to be trained.

    Raises:
        InputFileError: When the file is damaged, or of another architecture, with what did not fit.
        MissingError: When h5py is not installed.
    """
    found: Sequence[LayerWeights] = registry.load("converters", "keras").read_weights(path)
    wanted = [(node, kind) for node in graph.nodes if (kind := kind_of(graph, node)) is not None]
    pairs, problems = _matched(wanted, found)
    last = wanted[-1][0].name if wanted else ""
    tensors, fresh, taken = dict(graph.tensors), [], 0
    for node, layer in pairs:
        misfit = _misfit(graph, node, layer)
        if misfit is None and layer is not None:
            tensors.update(_filled(graph, node, layer))
            taken += 1
        elif node.name == last:
            fresh.append(node.name)
        else:
            problems.append(misfit or "")
    if problems or not taken:
        raise InputFileError(
            f"{path}: weights of {graph.name} were wanted; {len(problems)} of {len(wanted)} layers do not fit: "
            f"{_listed(problems)} Is it a file of this network, width and head?"
        )
    return Loaded(graph=replace(graph, tensors=tensors), layers=taken, fresh=tuple(fresh))


def kind_of(graph: Graph, node: Node) -> str | None:
    """Return the kind of a node that has parameters: "conv", "depthwise", "dense", "batch_norm"; else None."""
    if is_depthwise(node.op, graph.shapes(node.inputs)):
        return "depthwise"
    return KINDS.get(type(node.op))


KINDS: dict[type[ops.Op], str] = {ops.Conv: "conv", ops.Dense: "dense", ops.BatchNorm: "batch_norm"}

ORDERS = (("depthwise",), ("conv", "dense"), ("batch_norm",))
"""Kinds that are counted together: a classifier may be a dense layer here and a 1x1 convolution in Keras."""


def _matched(
    wanted: Sequence[tuple[Node, str]], found: Sequence[LayerWeights]
) -> tuple[list[tuple[Node, LayerWeights | None]], list[str]]:
    """Pair each node with the layer of the same kind and place; the second list tells of layers that nothing takes."""
    pairs: list[tuple[Node, LayerWeights | None]] = []
    unused: list[str] = []
    for kinds in ORDERS:
        nodes = [node for node, kind in wanted if kind in kinds]
        layers = _ordered(found, kinds)
        pairs += [(node, layers[place] if place < len(layers) else None) for place, node in enumerate(nodes)]
        unused += [f"'{layer.name}' of the file has no place in the network" for layer in layers[len(nodes) :]]
    return pairs, unused


def _ordered(found: Iterable[LayerWeights], kinds: tuple[str, ...]) -> list[LayerWeights]:
    return [layer for kind in kinds for layer in found if layer.kind == kind]


def _misfit(graph: Graph, node: Node, layer: LayerWeights | None) -> str | None:
    """Return why a layer of the file does not fit a node, or None."""
    if layer is None:
        return f"'{node.name}' finds no layer in the file"
    for operand, tensor in _parameters(graph, node):
        values = layer.parameters.get(operand)
        if values is None:
            return f"'{node.name}' wants a {operand}, which '{layer.name}' of the file has not"
        if _squeezed(values.shape) != _squeezed(tensor.shape):
            wanted, got = show_shape(tensor.shape), show_shape(values.shape)
            return f"'{node.name}' wants a {operand} of {wanted}, '{layer.name}' of the file has {got}"
    extra = layer.parameters.keys() - {operand for operand, _ in _parameters(graph, node)}
    return f"'{layer.name}' of the file has a {min(extra)}, '{node.name}' has none" if extra else None


def _squeezed(shape: Sequence[int | None]) -> tuple[int | None, ...]:
    """Return a shape without its ones: a 1x1 convolution on one position is a dense layer."""
    return tuple(size for size in shape if size != 1)


def _filled(graph: Graph, node: Node, layer: LayerWeights) -> dict[str, Tensor]:
    return {
        tensor.name: replace(
            tensor, data=layer.parameters[operand].reshape([size or 1 for size in tensor.shape]).astype(tensor.dtype)
        )
        for operand, tensor in _parameters(graph, node)
    }


def _parameters(graph: Graph, node: Node) -> list[tuple[str, Tensor]]:
    """Return (operand, constant) for each parameter of a node."""
    names = [operand.rstrip("?") for operand in node.op.operands]
    tensors = [graph.tensors[name] for name in node.inputs]
    return [(operand, t) for operand, t in zip(names, tensors, strict=False) if t.is_constant and elements(t.shape)]


def _listed(problems: Sequence[str]) -> str:
    shown = "; ".join(problems[:SHOWN])
    return f"{shown}; and {len(problems) - SHOWN} more." if len(problems) > SHOWN else f"{shown}."


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Return class names from a text file, one a line in output order.

    Raises:
        NotThereError: When there is no such file.
        InputFileError: When it is no text, or has another number of lines than the network has classes.
    """
    if not path.is_file():
        raise NotThereError(f"{path}: a file with one class name a line was wanted; there is none.")
    try:
        labels = tuple(path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise InputFileError(f"{path}: class names in UTF-8 were wanted: {error}") from None
    if len(labels) != classes:
        raise InputFileError(f"{path}: {classes} class names were wanted, one a line; found {len(labels)}")
    return labels
