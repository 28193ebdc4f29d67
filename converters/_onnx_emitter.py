"""Collects the nodes and initializers of an ONNX graph, and spells out activations."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from edgecnn import __version__, ops
from edgecnn.contract import CONTRACT_KEY
from edgecnn.errors import UnsupportedError
from edgecnn.extras import require
from edgecnn.graph import Array, Graph, Node, Port
from edgecnn.passes import spatial_mean_in_two_steps
from edgecnn.passes.unsigned_activations import unsigned_activations
from edgecnn.shapes import Shape

from ._channels_first import ChannelsFirstEmitter
from ._onnx_stream import write_model
from ._stored_integers import Meaning, meaning

IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10}
"""Opset -> the IR version that came with it. Source: onnx/onnx, docs/Versioning.md."""

AXES_ARE_AN_INPUT = {
    "ReduceSum": 13,
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"), 18),
}
"""Reduction -> the opset from which its axes are an input, not an attribute. Source: onnx/onnx, docs/Changelog.md."""

BATCH = "batch"
"""Name of the symbolic batch."""


class OnnxEmitter(ChannelsFirstEmitter[str]):
    """Collects NodeProtos and initializers; values are named by strings."""

    def __init__(self, graph: Graph, opset: int) -> None:
        super().__init__(graph)
        self.opset = opset
        self._helper = require("onnx.helper", purpose="writing .onnx files")
        self.nodes: list[Any] = []
        self._initializers: dict[str, Array] = {}
        self._constants: dict[tuple[str, np.dtype[Any], Shape, bytes], str] = {}
        self._derived: dict[tuple[str | int | None, ...], str] = {}
        self._taken = {port.name for port in (*graph.inputs, *graph.outputs)}
        self._shown: set[str] = set()
        self._node_names: set[str] = set()
        for port in graph.inputs:
            self.bind(port.tensor, port.name)

    def suited(self, graph: Graph) -> Graph:
        """Return a quantized Graph with unsigned activations, and with means that are pools. See the base class."""
        return unsigned_activations(spatial_mean_in_two_steps.PASS(graph).graph)

    def node(self, kind: str, inputs: Sequence[str | None], name: str, output: str, **attributes: Any) -> str:
        """Add a NodeProto of one output, and return that."""
        self.add(kind, inputs, name, [output], **attributes)
        return output

    def add(
        self, kind: str, inputs: Sequence[str | None], name: str, outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Add a NodeProto, under a name that no other has."""
        while name in self._node_names:
            name += "_"
        self._node_names.add(name)
        names = [value or "" for value in inputs]
        while names and not names[-1]:
            names.pop()
        self.nodes.append(self._helper.make_node(kind, names, outputs, name=name, **attributes))

    def layer(self, node: Node, kind: str, inputs: Sequence[str | None], **attributes: Any) -> str:
        """Add a node's operator and, behind it, its fused activation; return the value of the Graph's tensor."""
        output, activation = self.value_name(node.output), getattr(node.op, "activation", None)
        if activation is None:
            return self.node(kind, inputs, node.name, output, **attributes)
        inner = self.node(kind, inputs, node.name, self.free(f"{node.name}/linear"), **attributes)
        name = self.free(f"{node.name}/{type(activation).__name__.lower()}")
        return self.activation(activation, Place(inner, name, output, self.dtype(node)))

    def activation(self, op: ops.Op, place: "Place") -> str:
        """Add an elementwise activation."""
        return ACTIVATIONS[type(op)](self, op, place)

    def dtype(self, node: Node) -> str:
        """Return the element type of a node's output."""
        return self.graph.tensors[node.output].dtype

    def tensor_type(self, dtype: str) -> int:
        """Return ONNX' number of an element type."""
        return int(self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def step(self, node: Node, kind: str, inputs: Sequence[str | None], label: str, **attributes: Any) -> str:
        """Add one of several operators that a node becomes, and return its inner value."""
        name = self.free(f"{node.name}/{label}")
        return self.node(kind, inputs, name, name, **attributes)

    def axes(self, node: Node, kind: str, axes: Sequence[int]) -> tuple[list[str], dict[str, object]]:
        """Return the axes of a reduction as this opset takes them: more inputs, or attributes."""
        if self.opset >= AXES_ARE_AN_INPUT[kind]:
            return [self.integers(f"{node.name}/axes", axes)], {}
        return [], {"axes": list(axes)}

    def value_name(self, tensor: str) -> str:
        """Return the name of a value that is about to hold a tensor: the output port's that shows it, else its own."""
        for port in self.graph.outputs:
            if port.tensor == tensor and port.name not in self._shown:
                self._shown.add(port.name)
                return port.name
        return self.free(tensor)

    def free(self, name: str) -> str:
        """Return a value name that nothing has yet."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def emit_constant(self, name: str, data: Array, dtype: str) -> str:
        """Add an initializer (equal ones once), and a Cast where it is stored narrower than it computes."""
        key = (dtype, data.dtype, data.shape, sha256(np.asarray(data, order="C").data).digest())
        if key not in self._constants:
            stored = self._constants[key] = self.free(name)
            self._initializers[stored] = data
            if str(data.dtype) != dtype:
                wide = self.free(f"{stored}/{dtype}")
                self._constants[key] = self.node("Cast", [stored], wide, wide, to=self.tensor_type(dtype))
        return self._constants[key]

    def emit_integers(self, name: str, data: Array, means: Meaning) -> str:
        """Add an initializer of integers and its DequantizeLinear; elsewhere than in integer arithmetic, Cast and Mul.

        ONNX Runtime folds a Cast and a Mul when it loads the file. A DequantizeLinear it keeps for what may follow: in
        a float network it would run each time (MobileNet v2 in 15 ms and not 8), and before a MatMul it has what the
        MatMul reads rounded to 8 bits. Nor does it say scales along two axes (of a grouped transposed convolution).
        int64, which nothing takes, is written as the numbers.
        """
        if data.dtype == np.int64:
            return self.emit_constant(name, data.astype(np.float32) * means.scale, "float32")
        stored = self.emit_constant(name, data, str(data.dtype))
        if name in self.in_integers and means.is_along_one_axis:
            return self._once("DequantizeLinear", [stored, *self.parameters(name, means)], axis=means.axis)
        wide = self.emit_constant(name, data, "float32")
        if means.zero_point.any():
            wide = self._once("Sub", [wide, self.emit_constant(f"{name}/zero_point", means.zero_point, "float32")])
        return self._once("Mul", [wide, self.emit_constant(f"{name}/scale", means.scale, "float32")])

    def _once(self, kind: str, inputs: Sequence[str], axis: int | None = None) -> str:
        """Return what an operator over constants gives, from the node that gives it already where there is one."""
        stated = {} if axis is None else {"axis": axis}
        key = (kind, *inputs, axis)
        if key not in self._derived:
            name = self.free(f"{inputs[0]}/{kind.lower()}")
            self._derived[key] = self.node(kind, inputs, name, name, **stated)
        return self._derived[key]

    def bare(self, tensor: str) -> tuple[str, Meaning]:
        """Return a constant of integers as an initializer, and what the integers stand for.

        Raises:
            UnsupportedError: When the tensor is something else.
        """
        known = self.graph.tensors[tensor]
        if known.data is None or known.quantization is None:
            raise UnsupportedError(f"{tensor}: onnx: a constant of integers was wanted. Quantize it again.")
        return (self.emit_constant(tensor, known.data, str(known.data.dtype)), meaning(known.quantization, known.shape))

    def parameters(self, name: str, means: Meaning) -> list[str]:
        """Add a scale and a zero point as QuantizeLinear and DequantizeLinear take them."""
        shape = () if means.axis is None else (-1,)
        pairs = {"scale": means.scale, "zero_point": means.zero_point}
        return [
            self.emit_constant(f"{name}/{label}", data.reshape(shape), str(data.dtype)) for label, data in pairs.items()
        ]

    def integers(self, name: str, values: Sequence[int]) -> str:
        """Add an int64 initializer."""
        return self.emit_constant(name, np.asarray(values, np.int64), "int64")

    def write(self, file: BinaryIO, contract: str | None) -> None:
        """Write the finished model."""
        for port in self.graph.outputs:
            self._show(port)
        graph = self._helper.make_graph(
            self.nodes,
            self.graph.name,
            [self._port(port) for port in self.graph.inputs],
            [self._port(port) for port in self.graph.outputs],
        )
        opset = self._helper.make_opsetid("", self.opset)
        model = self._helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSIONS[self.opset])
        model.producer_name, model.producer_version = "edgecnn", __version__
        if contract is not None:
            self._helper.set_model_props(model, {CONTRACT_KEY: contract})
        write_model(file, model, self._initializers)

    def _show(self, port: Port) -> None:
        """Make sure that a value with the port's own name exists."""
        value = self.value(port.tensor)
        if value != port.name:
            self.node("Identity", [value], port.name, port.name)

    def _port(self, port: Port) -> Any:
        tensor = self.graph.tensors[port.tensor]
        kind = self.tensor_type(tensor.stored_dtype)
        return self._helper.make_tensor_value_info(port.name, kind, [BATCH if n is None else n for n in tensor.shape])

    def scalar(self, value: float, dtype: str) -> str:
        """Add a scalar."""
        return self.emit_constant(f"scalar_{value:g}", np.asarray(value, dtype), dtype)


class Place(NamedTuple):
    """Where an activation stands.

    Attributes:
        source: The value that it reads.
        name: Of its node.
        output: Name of the value that it gives.
        dtype: Element type of both.
    """

    source: str
    name: str
    output: str
    dtype: str


Activate = Callable[[OnnxEmitter, Any, Place], str]
"""(emitter, activation, its place) -> its output."""


def _single(kind: str, attributes: Callable[[Any], Mapping[str, object]] = lambda op: {}) -> Activate:
    """Return how an activation is written that is one operator of ONNX."""
    return lambda e, op, at: e.node(kind, [at.source], at.name, at.output, **attributes(op))


def _clip(limits: Callable[[Any], tuple[float, float]]) -> Activate:
    return lambda e, op, at: e.node(
        "Clip", [at.source, *(e.scalar(limit, at.dtype) for limit in limits(op))], at.name, at.output
    )


def _swish(e: OnnxEmitter, op: ops.Op, at: Place) -> str:
    gate = e.free(f"{at.name}/gate")
    return e.node("Mul", [at.source, e.node("Sigmoid", [at.source], gate, gate)], at.name, at.output)


def _rsqrt(e: OnnxEmitter, op: ops.Op, at: Place) -> str:
    root = e.free(f"{at.name}/root")
    return e.node("Reciprocal", [e.node("Sqrt", [at.source], root, root)], at.name, at.output)


ACTIVATIONS: dict[type[ops.Op], Activate] = {
    ops.ReLU: _single("Relu"),
    ops.ReLU6: _clip(lambda op: (0.0, 6.0)),
    ops.Clip: _clip(lambda op: (op.minimum, op.maximum)),
    ops.LeakyReLU: _single("LeakyRelu", lambda op: {"alpha": float(op.slope)}),
    ops.ELU: _single("Elu", lambda op: {"alpha": float(op.alpha)}),
    ops.Sigmoid: _single("Sigmoid"),
    ops.HardSigmoid: _single("HardSigmoid", lambda op: {"alpha": float(op.slope), "beta": float(op.offset)}),
    ops.HardSwish: _single("HardSwish"),
    ops.Swish: _swish,
    ops.GELU: _single("Gelu", lambda op: {"approximate": "tanh" if op.approximate else "none"}),
    ops.Softplus: _single("Softplus"),
    ops.Tanh: _single("Tanh"),
    ops.Sqrt: _single("Sqrt"),
    ops.Exp: _single("Exp"),
    ops.Log: _single("Log"),
    ops.Rsqrt: _rsqrt,
    ops.Abs: _single("Abs"),
    ops.Neg: _single("Neg"),
    ops.Floor: _single("Floor"),
    ops.Ceil: _single("Ceil"),
    ops.Round: _single("Round"),
    ops.Sin: _single("Sin"),
    ops.Cos: _single("Cos"),
    ops.Erf: _single("Erf"),
}
"""Activation -> how it is written, alone or behind the operator that carries it."""
