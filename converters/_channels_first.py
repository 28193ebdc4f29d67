"""NHWC tensors for formats that store channels first, without a Transpose where none is needed.

The Graph stays NHWC; a channels-first format *stores* some of its tensors as (N, C, spatial...). Which ones is decided
once, in topological order: windows (convolution, pooling, resizing) need channels first, elementwise operators follow
their inputs, and what depends on the order of elements (reshape, dense layers over sequences) needs the
Graph's own order. Where two of them meet, a Transpose is emitted once for each tensor; constants are turned offline.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Graph, Node, Port
from edgecnn.passes import dense_to_convolution, flatten_channels_first

WINDOWS = (
    *(ops.Conv, ops.ConvTranspose, ops.MaxPool, ops.AveragePool, ops.LRN),
    *(ops.Resize, ops.DepthToSpace, ops.SpaceToDepth),
)
"""Operators over space and channels, which the formats define channels first only."""

FOLLOWERS = (
    *(ops.Add, ops.Sub, ops.Mul, ops.Div, ops.Maximum, ops.Minimum, ops.Pow),
    *(ops.Activation, ops.PReLU, ops.Softmax, ops.BatchNorm, ops.LayerNorm),
    *(ops.Mean, ops.Sum, ops.Max, ops.Pad, ops.Concat, ops.Slice),
)
"""Operators that work in any order of axes."""

NO_END = 2**31 - 1
IMAGE_RANK = 4
"""Ports of this rank or more are images, whose external layout is channels first unless somebody chose otherwise."""

Handle = TypeVar("Handle")
"""How a format names a value: a string in ONNX, a layer's port in OpenVINO."""


class ChannelsFirstEmitter(ABC, Generic[Handle]):
    """Walks a Graph and hands the operands of each node to its row in the form that the row asks for."""

    def __init__(self, graph: Graph) -> None:
        self.graph = dense_to_convolution.PASS(flatten_channels_first.PASS(graph).graph).graph
        self.first: set[str] = {port.tensor for port in graph.inputs if self.port_is_first(port)}
        self._handles: dict[tuple[str, bool], Handle] = {}

    @abstractmethod
    def emit_constant(self, name: str, data: Array, dtype: str) -> Handle:
        """Add a constant, stored as it is in `data`, that computes as `dtype`."""

    @abstractmethod
    def emit_transpose(self, source: Handle, permutation: Sequence[int], tensor: str, name: str) -> Handle:
        """Add a Transpose of a Graph tensor's stored form; `name` is the new value's."""

    def port_is_first(self, port: Port) -> bool:
        """Tell whether callers see this port channels first."""
        if port.layout is not None:
            return port.layout == "NCHW"
        return len(self.graph.tensors[port.tensor].shape) >= IMAGE_RANK

    def walk(self, rows: Mapping[type[ops.Op], Callable[[Any, Node], Handle]]) -> None:
        """Emit every node through its row; the caller has checked that each has one."""
        for node in self.graph.nodes:
            if isinstance(node.op, ops.Transpose):
                self._turn(node, node.op)
                continue
            if self._gives_first(node):
                self.first.add(node.output)
            self.bind(node.output, rows[type(node.op)](self, node))

    def bind(self, tensor: str, handle: Handle) -> None:
        """State the value that holds a tensor in its stored form."""
        self._handles[tensor, tensor in self.first] = handle

    def get(self, tensor: str, *, first: bool) -> Handle:
        """Return a tensor channels first, or in the Graph's order; what is not there yet is emitted."""
        known = self.graph.tensors[tensor]
        key = (tensor, first and len(known.shape) > 2)
        if key not in self._handles:
            order = channels_first(len(known.shape)) if key[1] else channels_last(len(known.shape))
            if known.data is None:
                source = self._handles[tensor, not key[1]]
                self._handles[key] = self.emit_transpose(
                    source, order, tensor, f"{tensor}/{'nchw' if key[1] else 'nhwc'}"
                )
            else:
                data = known.data.transpose(order) if key[1] else known.data
                self._handles[key] = self.emit_constant(tensor, np.ascontiguousarray(data), known.dtype)
        return self._handles[key]

    def image(self, node: Node) -> Handle:
        """Return the first operand channels first."""
        return self.get(node.inputs[0], first=True)

    def plain(self, node: Node, position: int = 0) -> Handle:
        """Return an operand in the Graph's order."""
        return self.get(node.inputs[position], first=False)

    def operands(self, node: Node) -> list[Handle]:
        """Return all operands in the form that the output is stored in, lower ranks padded for broadcasting."""
        first, rank = node.output in self.first, len(self.graph.tensors[node.output].shape)
        return [self._broadcast(name, rank) if first else self.get(name, first=False) for name in node.inputs]

    def constant(self, node: Node, operand: str, arrange: Callable[[Array], Array] | None = None) -> Handle | None:
        """Return an operand, rearranged for the format where it asks for that; None where it is left out.

        Raises:
            UnsupportedError: When an operand that must be rearranged is computed.
        """
        name = node.operand(operand)
        if name is None:
            return None
        data, dtype = self.graph.tensors[name].data, self.graph.tensors[name].dtype
        if arrange is None:
            return self.get(name, first=False)
        if data is None:
            raise UnsupportedError(
                f"{node.name}: a constant {operand} was wanted; got a computed one. Make it constant."
            )
        return self.emit_constant(name, np.ascontiguousarray(arrange(data)), dtype)

    def reduced(self, node: Node, axes: Sequence[int], *, keep_dims: bool) -> tuple[Handle, list[int]]:
        """Return what a reduction reads and its axes there: the stored form, where what is left keeps its order."""
        source = node.inputs[0]
        order = channels_first(len(self.graph.tensors[source].shape))
        left = [axis for axis in order if axis not in axes]
        if source in self.first and (keep_dims or left == sorted(left)):
            return self.get(source, first=True), sorted(order.index(axis) for axis in axes)
        return self.get(source, first=False), sorted(axes)

    def reshaped(self, node: Node) -> tuple[Handle, list[int]]:
        """Return what a Reshape reads and the sizes that it gives, -1 for a symbolic batch, in their stored forms."""
        source, shape = node.inputs[0], self.graph.tensors[node.output].shape
        sizes = [-1 if size is None else size for size in shape]
        order = channels_first(len(shape)) if node.output in self.first else range(len(shape))
        handle = self.get(source, first=source in self.first and self._is_one_vector(source))
        return handle, [sizes[axis] for axis in order]

    def axis(self, tensor: str, axis: int) -> int:
        """Return where a Graph axis lies in the stored form."""
        rank = len(self.graph.tensors[tensor].shape)
        return channels_first(rank).index(axis) if tensor in self.first else axis

    def last_axis(self, node: Node) -> int:
        """Return where the last Graph axis of a node's output lies in the stored form."""
        return self.axis(node.output, len(self.graph.tensors[node.output].shape) - 1)

    def boxes(self, node: Node) -> list[tuple[int, int, int]]:
        """Return (begin, end, step) of a Slice for each axis of the stored form; an end beyond any size is the end."""
        op: Any = node.op
        shape = self.graph.tensors[node.inputs[0]].shape
        ends = [
            NO_END if end is None and size is None else end or size for end, size in zip(op.end, shape, strict=True)
        ]
        found: Any = self.by_axis(node.output, list(zip(op.begin, ends, op.step, strict=True)))
        return list(found)

    def by_axis(self, tensor: str, values: Sequence[object]) -> list[object]:
        """Return one value per Graph axis in the order of the stored form."""
        order = channels_first(len(values)) if tensor in self.first else tuple(range(len(values)))
        return [values[axis] for axis in order]

    def _broadcast(self, name: str, rank: int) -> Handle:
        tensor = self.graph.tensors[name]
        if tensor.data is None or not 0 < len(tensor.shape) < rank:
            return self.get(name, first=True)
        data = tensor.data.reshape((1,) * (rank - tensor.data.ndim) + tensor.data.shape)
        return self.emit_constant(name, np.ascontiguousarray(data.transpose(channels_first(rank))), tensor.dtype)

    def _gives_first(self, node: Node) -> bool:
        if isinstance(node.op, WINDOWS):
            return True
        if isinstance(node.op, ops.Reshape):
            return self._is_one_vector(node.output)
        computed = [self.graph.tensors[name] for name in node.inputs if not self.graph.tensors[name].is_constant]
        rank = len(self.graph.tensors[node.output].shape)
        if not isinstance(node.op, FOLLOWERS) or any(len(tensor.shape) != rank for tensor in computed):
            return False
        return any(tensor.name in self.first for tensor in computed)

    def _is_one_vector(self, tensor: str) -> bool:
        """Tell whether an image has one position or one channel, so that both forms hold the same order of elements."""
        shape = self.graph.tensors[tensor].shape
        return len(shape) >= IMAGE_RANK and (set(shape[1:-1]) == {1} or shape[-1] == 1)

    def _turn(self, node: Node, op: ops.Transpose) -> None:
        """Emit what is left of a Transpose between two stored forms: often nothing."""
        source = node.inputs[0]
        rank = len(op.permutation)
        stored = channels_first(rank) if source in self.first else tuple(range(rank))
        for first in (False, True):
            wanted = channels_first(rank) if first else tuple(range(rank))
            left = tuple(stored.index(op.permutation[axis]) for axis in wanted)
            if left == tuple(range(rank)):
                self.first |= {node.output} if first else set()
                self.bind(node.output, self.get(source, first=source in self.first))
                return
        left = tuple(stored.index(axis) for axis in op.permutation)
        handle = self.get(source, first=source in self.first)
        self.bind(node.output, self.emit_transpose(handle, left, node.output, node.output))


def channels_first(rank: int) -> tuple[int, ...]:
    """Return the permutation from N, spatial..., C to N, C, spatial...."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 1 else tuple(range(rank))


def channels_last(rank: int) -> tuple[int, ...]:
    """Return the permutation from N, C, spatial... to N, spatial..., C."""
    return (0, *range(2, rank), 1) if rank > 1 else tuple(range(rank))


def transposed_kernel_first(data: Array) -> Array:
    """Return a transposed convolution's kernel (spatial..., in, out) as (in, out, spatial...)."""
    return data.transpose((data.ndim - 2, data.ndim - 1, *range(data.ndim - 2)))


def kernel_first(data: Array) -> Array:
    """Return a kernel (spatial..., in / groups, out) as (out, in / groups, spatial...)."""
    return data.transpose((data.ndim - 1, data.ndim - 2, *range(data.ndim - 2)))
