"""What ONNX and OpenVINO share: a Graph held channels first, handed to the format's rows node by node.

`hold_for_format` has decided how each tensor is held, Transposes included; a row finds shapes, axes and constants as
the format stores them, and an operator over channels and positions with the Graph's own attributes. A quantized Graph
comes in its explicit form; constants of integers are spelled where they are added.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Graph, Node, Port, Tensor
from edgecnn.passes import dense_to_convolution, fold_reshape_into_slice
from edgecnn.passes.explicit_quantization import (
    bare_constants,
    drop_implied_clamps,
    dynamic_nodes,
    explicit_activations,
)
from edgecnn.passes.hold_for_format import ChannelsFirst, hold_for_format
from edgecnn.passes.unsigned_activations import signed_kernels
from edgecnn.ports import IMAGE_RANK
from edgecnn.shapes import Padding

from ._stored_integers import Meaning, meaning, of_whole

REFUSED: Mapping[type[ops.Op], str] = {ops.DetectionPostProcess: "Cut the network before it with --outputs."}
"""Operator that neither ONNX nor OpenVINO can carry -> what to do instead."""

NO_END = 2**31 - 1

Handle = TypeVar("Handle")
"""How a format names a value: a string in ONNX, a layer's port in OpenVINO."""


class ChannelsFirstEmitter(ABC, Generic[Handle]):
    """Walks a Graph and keeps the format's value of each held tensor.

    Attributes:
        graph: As it is held, explicit.
        is_quantized: Whether any of its tensors are integers.
        dynamic: Nodes with a kernel of integers right under float activations.
        in_integers: Constants of nodes that compute in integers.
    """

    def __init__(self, graph: Graph) -> None:
        self.is_quantized, self.dynamic = graph.is_quantized, dynamic_nodes(graph)
        if self.is_quantized:
            for tensor in graph.tensors.values():
                if tensor.quantization is not None and not tensor.is_constant:
                    of_whole(tensor)
            graph = drop_implied_clamps(self.suited(bare_constants(graph)))
        for each in (fold_reshape_into_slice, dense_to_convolution):
            graph = each.PASS(graph).graph
        self._ranks = {port.name: len(graph.tensors[port.tensor].shape) for port in (*graph.inputs, *graph.outputs)}
        held = hold_for_format(graph, self.port_is_first, windows_first=True)
        self.in_integers = _in_integers(held)
        self.graph = explicit_activations(held) if self.is_quantized else held
        self._first = {node.name for node in self.graph.nodes if isinstance(node.op, ChannelsFirst)}
        self._handles: dict[str, Handle] = {}

    def suited(self, graph: Graph) -> Graph:
        """Return a quantized Graph in the types and operators that the format's runtime computes in integers."""
        return signed_kernels(graph)

    @abstractmethod
    def emit_constant(self, name: str, data: Array, dtype: str) -> Handle:
        """Add a constant, stored as `data` is (in C order, whatever the order in memory), that computes as `dtype`."""

    @abstractmethod
    def emit_integers(self, name: str, data: Array, means: Meaning) -> Handle:
        """Add a constant of integers, and what turns it into the numbers that they stand for."""

    def port_is_first(self, port: Port) -> bool:
        """Tell whether callers see this port channels first: every picture where nobody chose otherwise."""
        return port.layout == "NCHW" if port.layout is not None else self._ranks[port.name] >= IMAGE_RANK

    def walk(self, rows: Mapping[type[ops.Op], Callable[[Any, Node], Handle | list[Handle]]]) -> None:
        """Emit every node through its row, which returns the value of its output, or a list of one for each.

        The caller has checked that each operator has a row.
        """
        for node in self.graph.nodes:
            op = node.op.op if isinstance(node.op, ChannelsFirst) else node.op
            found = rows[type(op)](self, replace(node, op=op))
            for output, handle in zip(node.outputs, found if isinstance(found, list) else [found], strict=True):
                self.bind(output, handle)

    def bind(self, tensor: str, handle: Handle) -> None:
        """State the value that holds a tensor."""
        self._handles[tensor] = handle

    def value(self, tensor: str) -> Handle:
        """Return the value of a held tensor; a constant is added when it is first asked for."""
        known = self.graph.tensors[tensor]
        if tensor not in self._handles and known.data is not None:
            self._handles[tensor] = self._emit(known, known.data, None)
        return self._handles[tensor]

    def operand(self, node: Node, position: int = 0) -> Handle:
        """Return one operand."""
        return self.value(node.inputs[position])

    def operands(self, node: Node) -> list[Handle]:
        """Return all operands."""
        return [self.value(name) for name in node.inputs]

    def constant(self, node: Node, operand: str, arrange: Callable[[Array], Array] | None = None) -> Handle | None:
        """Return an operand, rearranged for the format where it asks for that; None where it is left out.

        Raises:
            UnsupportedError: When an operand that must be rearranged is computed.
        """
        name = node.operand(operand)
        if name is None:
            return None
        if arrange is None:
            return self.value(name)
        tensor = self.graph.tensors[name]
        if tensor.data is None:
            raise UnsupportedError(
                f"{node.name}: a constant {operand} was wanted; got a computed one. Make it constant."
            )
        return self._emit(tensor, arrange(tensor.data), arrange)

    def _emit(self, tensor: Tensor, data: Array, arrange: Callable[[Array], Array] | None) -> Handle:
        if tensor.quantization is None:
            return self.emit_constant(tensor.name, data, tensor.dtype)
        return self.emit_integers(tensor.name, data, meaning(tensor.quantization, tensor.shape, arrange))

    def channel_axis(self, node: Node) -> int:
        """Return where the channels (the Graph's last axis) of a node's output are held."""
        return 1 if node.name in self._first else len(self.graph.tensors[node.output].shape) - 1

    def sizes(self, tensor: str) -> list[int]:
        """Return the sizes of a held tensor, -1 for a symbolic batch."""
        return [-1 if size is None else size for size in self.graph.tensors[tensor].shape]

    def boxes(self, node: Node) -> list[tuple[int, int, int]]:
        """Return (begin, end, step) of a Slice for each axis; an end beyond any size is the end."""
        op: Any = node.op
        sizes = self.graph.tensors[node.inputs[0]].shape
        ends = [NO_END if end is n is None else int(end or n or 0) for end, n in zip(op.end, sizes, strict=True)]
        return list(zip(op.begin, ends, op.step, strict=True))


def _in_integers(graph: Graph) -> frozenset[str]:
    """Return the constants of the nodes that take or give computed integers.

    A dense layer over 16 bits is none of them: ONNX Runtime has no kernel for it, and from 1.32 on makes of a
    DequantizeLinear before it a product that rounds what it reads to 8 bits.
    """

    def is_integer(name: str) -> bool:
        return graph.tensors[name].quantization is not None and not graph.tensors[name].is_constant

    def is_simulated(node: Node) -> bool:
        return isinstance(node.op, ops.Dense) and graph.tensors[node.inputs[0]].stored_dtype in ("int16", "uint16")

    nodes = [n for n in graph.nodes if any(map(is_integer, (*n.inputs, *n.outputs))) and not is_simulated(n)]
    return frozenset(name for node in nodes for name in node.inputs if graph.tensors[name].is_constant)


def channels_first(rank: int) -> tuple[int, ...]:
    """Return the permutation from N, spatial..., C to N, C, spatial...."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 1 else tuple(range(rank))


def channels_last(rank: int) -> tuple[int, ...]:
    """Return the permutation from N, C, spatial... to N, spatial..., C."""
    return (0, *range(2, rank), 1) if rank > 1 else tuple(range(rank))


def transposed_kernel_first(data: Array, groups: int) -> Array:
    """Return a transposed convolution's kernel (spatial..., in / groups, out) as (groups, in / groups, out / groups,
    spatial...).
    """
    rank = data.ndim - 2
    return data.reshape(*data.shape[:-1], groups, -1).transpose((rank + 1, rank, rank + 2, *range(rank)))


def least_padding(op: ops.ConvTranspose) -> tuple[Padding, tuple[int, ...]]:
    """Return the padding and output padding of a transposed convolution; what is cut and added behind cancels out."""
    both = [min(after, more) for (_, after), more in zip(op.padding, op.output_padding, strict=True)]
    padding = tuple((before, after - n) for (before, after), n in zip(op.padding, both, strict=True))
    return padding, tuple(more - n for more, n in zip(op.output_padding, both, strict=True))


def kernel_first(data: Array) -> Array:
    """Return a kernel (spatial..., in / groups, out) as (out, in / groups, spatial...)."""
    return data.transpose((data.ndim - 1, data.ndim - 2, *range(data.ndim - 2)))
