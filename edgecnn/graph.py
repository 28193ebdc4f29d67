"""The Graph: the one form that every format is read into and written from.

A Graph is data. Nodes are in topological order; tensors are NHWC; a tensor with `data` is a constant. Passes and readers
make new Graphs; nothing is changed in place. A constant may be *stored* narrower than it computes (float16 data in a
float32 tensor): `Tensor.value()` is what the arithmetic sees.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.contract import Contract
from edgecnn.errors import EdgeCNNError, GraphError
from edgecnn.ops import Op
from edgecnn.shapes import Shape, show_shape

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tensor:
    """One value that flows along an edge, or a constant.

    Attributes:
        name: Unique in its Graph; what a person sees in Netron.
        shape: N, spatial..., C; a batch of None is symbolic.
        dtype: NumPy name of the type that the arithmetic sees.
        data: The stored constant, or None for a value that is computed.
    """

    name: str
    shape: Shape
    dtype: str = "float32"
    data: Array | None = None

    @property
    def is_constant(self) -> bool:
        """Tell whether the tensor carries its own data."""
        return self.data is not None

    def value(self) -> Array:
        """Return the constant as the arithmetic sees it (float16 storage widened to dtype)."""
        if self.data is None:
            raise GraphError(f"{self.name}: a constant was wanted; this tensor is computed")
        return self.data.astype(self.dtype, copy=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One operator applied to named tensors."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def output(self) -> str:
        """The only (or first) output."""
        return self.outputs[0]

    @property
    def kind(self) -> str:
        """The operator's name."""
        return type(self.op).__name__

    def operand(self, name: str) -> str | None:
        """Return the tensor bound to an operand ("kernel", "bias"), or None where it was left out."""
        for position, operand in enumerate(self.op.operands):
            if operand.rstrip("?") == name:
                return self.inputs[position] if position < len(self.inputs) else None
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """An input or output of the Graph as the outside knows it.

    Attributes:
        name: The name that callers use.
        tensor: The tensor behind it.
        layout: "NHWC" or "NCHW" where the outside has decided; None takes each format's own.
    """

    name: str
    tensor: str
    layout: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Graph:
    """A network: nodes in topological order, their tensors, and the ports.

    Attributes:
        name: What the artifacts are called.
        nodes: In an order in which each node's inputs are ready.
        tensors: By name; holds constants and every node's outputs.
        inputs: What callers feed.
        outputs: What callers get.
        contract: What an app must know to feed and read it, where that is known.
    """

    name: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    contract: Contract | None = None

    def shapes(self, names: Iterable[str]) -> tuple[Shape, ...]:
        """Return the shapes of several tensors."""
        return tuple(self.tensors[name].shape for name in names)

    def constant(self, node: Node, operand: str) -> Tensor | None:
        """Return the constant bound to an operand, or None where it is left out or computed."""
        name = node.operand(operand)
        tensor = self.tensors[name] if name else None
        return tensor if tensor is not None and tensor.is_constant else None

    def kinds(self) -> Counter[str]:
        """Count the operators by name."""
        return Counter(node.kind for node in self.nodes)


def validate(graph: Graph) -> None:
    """Raise GraphError unless the Graph keeps its rules.

    Checked: unique names, every tensor produced before it is used and only once, shapes that follow from the operators'
    rules, constants whose data have the shape that they state, ports that exist.
    """
    ready = {port.tensor for port in graph.inputs} | {n for n, t in graph.tensors.items() if t.is_constant}
    seen: set[str] = set()
    for port in (*graph.inputs, *graph.outputs):
        if port.tensor not in graph.tensors:
            raise GraphError(f"{graph.name}: port '{port.name}' names tensor '{port.tensor}', which is not there")
    for tensor in graph.tensors.values():
        if tensor.data is not None and tensor.data.shape != tensor.shape:
            raise GraphError(f"{tensor.name}: data of {show_shape(tensor.shape)} was wanted; got {tensor.data.shape}")
    for node in graph.nodes:
        if node.name in seen:
            raise GraphError(f"{node.name}: two nodes have this name")
        seen.add(node.name)
        for name in node.inputs:
            if name not in ready:
                raise GraphError(f"{node.name}: input '{name}' is not ready here: it is unknown, or comes later")
        for name, shape in zip(node.outputs, infer_shapes(node, graph.shapes(node.inputs)), strict=True):
            if name in ready:
                raise GraphError(f"{node.name}: output '{name}' is produced twice")
            if graph.tensors[name].shape != shape:
                found = show_shape(graph.tensors[name].shape)
                raise GraphError(f"{node.name}: output {show_shape(shape)} was wanted; the Graph states {found}")
            ready.add(name)
    for port in graph.outputs:
        if port.tensor not in ready:
            raise GraphError(f"{graph.name}: output '{port.name}' is never produced")


def infer_shapes(node: Node, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Return a node's output shapes; a ShapeError gains the node's name."""
    try:
        return node.op.output_shapes(shapes)
    except EdgeCNNError as error:
        raise type(error)(f"{node.name}: {error}") from None


def with_batch(graph: Graph, batch: int | None) -> Graph:
    """Return the Graph for another batch: a number, or None for a symbolic one.

    Raises:
        GraphError: When an operator ties the batch to a number.
    """
    tensors = dict(graph.tensors)
    for port in graph.inputs:
        tensor = tensors[port.tensor]
        tensors[port.tensor] = replace(tensor, shape=(batch, *tensor.shape[1:]))
    for node in graph.nodes:
        for name, shape in zip(node.outputs, infer_shapes(node, tuple(tensors[i].shape for i in node.inputs)), strict=True):
            tensors[name] = replace(tensors[name], shape=shape)
    return replace(graph, tensors=tensors)


def in_topological_order(nodes: Iterable[Node], ready: Iterable[str]) -> tuple[Node, ...]:
    """Return the nodes in an order in which inputs come first, keeping the given order where it already does.

    Args:
        nodes: In any order.
        ready: Tensors that need no node: inputs and constants.

    Raises:
        GraphError: When nodes form a cycle or use a tensor that nothing produces.
    """
    done, waiting, ordered = set(ready), list(nodes), []
    while waiting:
        blocked = []
        for node in waiting:
            if done.issuperset(node.inputs):
                ordered.append(node)
                done.update(node.outputs)
            else:
                blocked.append(node)
        if len(blocked) == len(waiting):
            missing = sorted(set(blocked[0].inputs) - done)
            raise GraphError(f"{blocked[0].name}: inputs {missing} are produced by no earlier node (a cycle, or missing)")
        waiting = blocked
    return tuple(ordered)


def external_shape(shape: Shape, layout: str | None) -> Shape:
    """Return an NHWC shape as a port with this layout shows it.

    >>> external_shape((1, 224, 160, 3), "NCHW")
    (1, 3, 224, 160)
    """
    return (shape[0], shape[-1], *shape[1:-1]) if layout == "NCHW" else shape


def to_layout(values: Array, layout: str | None) -> Array:
    """Return NHWC values in an external layout (any number of spatial dimensions)."""
    return np.ascontiguousarray(np.moveaxis(values, -1, 1)) if layout == "NCHW" else values


def from_layout(values: Array, layout: str | None) -> Array:
    """Return values of an external layout as NHWC."""
    return np.moveaxis(values, 1, -1) if layout == "NCHW" else values
