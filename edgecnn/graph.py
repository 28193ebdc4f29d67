"""The Graph: the one form that every format is read into and written from.

A Graph is data. Nodes are in topological order; tensors are NHWC; a tensor with `data` is a constant. Passes and
readers make new Graphs; nothing is changed in place. A constant may be *stored* narrower than it computes (float16 data
in a float32 tensor): `Tensor.value()` is what the arithmetic sees.

A quantized Graph is a Graph whose tensors have a `quantization`: integers are stored, and stand for float32 numbers, so
that every shape rule and every pass that only moves data holds for it as it is. A node whose operands and outputs are
quantized computes in integers; one whose activations are float and whose kernel is quantized computes in float with
what the kernel's integers stand for. Quantize and Dequantize nodes stand where a value changes from one to the other.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.contract import Contract
from edgecnn.errors import EdgeCNNError, GraphError, ShapeError, UnsupportedError
from edgecnn.ops import Op, Opaque, Reshape, Slice, elements
from edgecnn.quantization.parameters import Quantization
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
        quantization: How the stored integers stand for numbers of `dtype`; None where numbers are stored as they are.
    """

    name: str
    shape: Shape
    dtype: str = "float32"
    data: Array | None = None
    quantization: Quantization | None = None

    @property
    def is_constant(self) -> bool:
        """Tell whether the tensor carries its own data."""
        return self.data is not None

    def value(self) -> Array:
        """Return the constant as the arithmetic sees it: float16 widened to dtype, integers as what they stand for."""
        if self.data is None:
            raise GraphError(f"{self.name}: a constant was wanted; this tensor is computed")
        numbers = self.data if self.quantization is None else self.quantization.dequantize(self.data)
        return numbers.astype(self.dtype, copy=False)

    @property
    def stored_dtype(self) -> str:
        """NumPy name of the type in which the tensor's elements pass between operators."""
        return self.dtype if self.quantization is None else self.quantization.dtype


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
        is_auxiliary: Marks an output that only training reads; passes.remove_auxiliary_heads drops it.
    """

    name: str
    tensor: str
    layout: str | None = None
    is_auxiliary: bool = False


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

    @property
    def is_quantized(self) -> bool:
        """Tell whether any tensor is stored as integers that stand for other numbers."""
        return any(tensor.quantization is not None for tensor in self.tensors.values())


def validate(graph: Graph) -> None:
    """Raise GraphError unless the Graph keeps its rules.

    Checked: unique names, every tensor produced before it is used and only once, shapes that follow from the operators'
    rules, constants whose data have the shape that they state, ports that exist.

    Raises:
        ShapeError: When the inputs of a node do not fit its operator, with the node's name.
    """
    _check_names(graph)
    _check_tensors(graph)
    ready = {port.tensor for port in graph.inputs} | {n for n, t in graph.tensors.items() if t.is_constant}
    for node in graph.nodes:
        missing = [name for name in node.inputs if name not in ready]
        if missing:
            raise GraphError(f"{node.name}: input '{missing[0]}' is not ready here: it is unknown, or comes later")
        _check_outputs(graph, node, ready)
        ready.update(node.outputs)
    for port in graph.outputs:
        if port.tensor not in ready:
            raise GraphError(f"{graph.name}: output '{port.name}' is never produced")


def _check_names(graph: Graph) -> None:
    for what, names in (
        ("nodes", [node.name for node in graph.nodes]),
        ("inputs", [port.name for port in graph.inputs]),
        ("outputs", [port.name for port in graph.outputs]),
    ):
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise GraphError(f"{graph.name}: two {what} are named '{twice[0]}'")


def _check_tensors(graph: Graph) -> None:
    for port in (*graph.inputs, *graph.outputs):
        if port.tensor not in graph.tensors:
            raise GraphError(f"{graph.name}: port '{port.name}' names tensor '{port.tensor}', which is not there")
    for tensor in graph.tensors.values():
        if tensor.data is not None and tensor.data.shape != tensor.shape:
            found = show_shape(tensor.data.shape)
            raise GraphError(f"{tensor.name}: data of shape {show_shape(tensor.shape)} were wanted; got {found}")
        if tensor.quantization is not None:
            stored = None if tensor.data is None else str(tensor.data.dtype)
            tensor.quantization.refuse_misfit(tensor.name, tensor.shape, tensor.dtype, stored)


def _check_outputs(graph: Graph, node: Node, ready: Container[str]) -> None:
    shapes = infer_shapes(node, graph.shapes(node.inputs))
    if len(node.outputs) != len(shapes):
        raise GraphError(f"{node.name}: {len(shapes)} outputs were wanted; got {len(node.outputs)}")
    dtype = node.op.output_dtype([graph.tensors[name].dtype for name in node.inputs])
    for name, shape in zip(node.outputs, shapes, strict=True):
        if name in ready:
            raise GraphError(f"{node.name}: output '{name}' is produced twice")
        if name not in graph.tensors:
            raise GraphError(f"{node.name}: output '{name}' names a tensor that is not there")
        tensor = graph.tensors[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            found = f"{show_shape(tensor.shape)} {tensor.dtype}"
            raise GraphError(f"{node.name}: output {show_shape(shape)} {dtype} was wanted; the Graph states {found}")


def infer_shapes(node: Node, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Return a node's output shapes; a ShapeError gains the node's name."""
    operands = node.op.operands
    if not operands[0].endswith("..."):
        needed = sum(not operand.endswith("?") for operand in operands)
        if not needed <= len(shapes) <= len(operands):
            raise ShapeError(f"{node.name}: {node.kind} takes {', '.join(operands)}; got {len(shapes)} inputs")
    try:
        return node.op.output_shapes(shapes)
    except EdgeCNNError as error:
        raise type(error)(f"{node.name}: {error}") from None


def with_batch(graph: Graph, batch: int | None) -> Graph:
    """Return the Graph for another batch: a number, or None for a symbolic one.

    A Reshape or Slice that only states the batch that the file was made for takes the new one.

    Raises:
        ShapeError: When an operator ties the batch to a number.
        UnsupportedError: When an operator's shape rule is not known.
    """
    tensors, nodes = dict(graph.tensors), []
    for port in graph.inputs:
        tensor = tensors[port.tensor]
        tensors[port.tensor] = replace(tensor, shape=(batch, *tensor.shape[1:]))
    for node in graph.nodes:
        if isinstance(node.op, Opaque):
            raise UnsupportedError(f"{node.name}: the batch cannot be changed behind the operator {node.op.kind}")
        nodes.append(node := replace(node, op=_of_any_batch(node.op, graph.shapes(node.inputs))))
        shapes = infer_shapes(node, tuple(tensors[name].shape for name in node.inputs))
        for name, shape in zip(node.outputs, shapes, strict=True):
            tensors[name] = replace(tensors[name], shape=shape)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _of_any_batch(op: Op, shapes: tuple[Shape, ...]) -> Op:
    """Return an operator that keeps its input's first axis whole without the number that it states for it."""
    first, rest = (shapes[0][:1], shapes[0][1:]) if shapes else ((), ())
    if isinstance(op, Reshape) and op.shape[:1] == first and elements(op.shape[1:]) == elements(rest):
        return replace(op, shape=(None, *op.shape[1:]))
    if isinstance(op, Slice) and (op.begin[:1], op.end[:1], op.step[:1]) == ((0,), first, (1,)):
        return replace(op, end=(None, *op.end[1:]))
    return op


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
            names = ", ".join(f"'{name}'" for name in missing)
            raise GraphError(f"{blocked[0].name}: no earlier node produces {names} (a cycle, or missing)")
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
