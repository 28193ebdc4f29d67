"""Collects the nodes and initializers of an ONNX graph, and spells out activations."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from edgecnn import __version__, ops
from edgecnn.contract import CONTRACT_KEY
from edgecnn.extras import require
from edgecnn.graph import Array, Graph, Node, Port, external_shape
from edgecnn.shapes import Shape

from ._channels_first import ChannelsFirstEmitter

IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9}
"""Opset -> the IR version that came with it. Source: onnx/onnx, docs/Versioning.md."""

AXES_ARE_AN_INPUT = {"ReduceSum": 13, "ReduceMean": 18, "ReduceMax": 18}
"""Reduction -> the opset from which its axes are an input, not an attribute. Source: onnx/onnx, docs/Changelog.md."""

BATCH = "batch"
"""Name of the symbolic batch."""


class OnnxEmitter(ChannelsFirstEmitter[str]):
    """Collects NodeProtos and initializers; values are named by strings."""

    def __init__(self, graph: Graph, opset: int) -> None:
        super().__init__(graph)
        self.opset = opset
        self._helper = require("onnx.helper", purpose="writing .onnx files")
        self._from_array = require("onnx.numpy_helper", purpose="writing .onnx files").from_array
        self.nodes: list[Any] = []
        self._initializers: dict[str, Array] = {}
        self._constants: dict[tuple[str, str, Shape, bytes], str] = {}
        self._taken = {port.name for port in (*graph.inputs, *graph.outputs)}
        self._shown: set[str] = set()
        self._node_names: set[str] = set()
        for port in graph.inputs:
            self.bind(port.tensor, port.name)

    def node(self, kind: str, inputs: Sequence[str | None], name: str, output: str, **attributes: Any) -> str:
        """Add a NodeProto, under a name that no other has, and return its output."""
        while name in self._node_names:
            name += "_"
        self._node_names.add(name)
        names = [value or "" for value in inputs]
        while names and not names[-1]:
            names.pop()
        self.nodes.append(self._helper.make_node(kind, names, [output], name=name, **attributes))
        return output

    def layer(self, node: Node, kind: str, inputs: Sequence[str | None], **attributes: Any) -> str:
        """Add a node's operator and, behind it, its fused activation; return the value of the Graph's tensor."""
        output, activation = self.value_name(node.output), getattr(node.op, "activation", None)
        if activation is None:
            return self.node(kind, inputs, node.name, output, **attributes)
        inner = self.node(kind, inputs, node.name, self.free(f"{node.name}/linear"), **attributes)
        return self.activation(activation, inner, self.free(f"{node.name}/{type(activation).__name__.lower()}"), output)

    def activation(self, op: ops.Op, source: str, name: str, output: str) -> str:
        """Add an elementwise activation."""
        return ACTIVATIONS[type(op)](self, op, source, name, output)

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
            is_shown_as_stored = port.tensor == tensor and self.port_is_first(port) == (tensor in self.first)
            if is_shown_as_stored and port.name not in self._shown:
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
        """Add an initializer (once), and a Cast where it is stored narrower than it computes."""
        key = (name, dtype, data.shape, sha256(data.data).digest())
        if key not in self._constants:
            stored = self._constants[key] = self.free(name)
            self._initializers[stored] = data
            if str(data.dtype) != dtype:
                to = self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
                wide = self.free(f"{stored}/{dtype}")
                self._constants[key] = self.node("Cast", [stored], wide, wide, to=to)
        return self._constants[key]

    def emit_transpose(self, source: str, permutation: Sequence[int], tensor: str, name: str) -> str:
        """Add a Transpose."""
        output = self.value_name(tensor) if name == tensor else self.free(name)
        return self.node("Transpose", [source], name, output, perm=permutation)

    def integers(self, name: str, values: Sequence[int]) -> str:
        """Add an int64 initializer."""
        return self.emit_constant(name, np.asarray(values, np.int64), "int64")

    def model(self, contract: str | None) -> Any:
        """Return the ModelProto."""
        for port in self.graph.outputs:
            self._show(port)
        graph = self._helper.make_graph(
            self.nodes,
            self.graph.name,
            [self._port(port) for port in self.graph.inputs],
            [self._port(port) for port in self.graph.outputs],
            [self._from_array(data, name) for name, data in self._initializers.items()],
        )
        opset = self._helper.make_opsetid("", self.opset)
        model = self._helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSIONS[self.opset])
        model.producer_name, model.producer_version = "edgecnn", __version__
        if contract is not None:
            self._helper.set_model_props(model, {CONTRACT_KEY: contract})
        return model

    def _show(self, port: Port) -> None:
        """Make sure that a value with the port's own name exists."""
        value = self.get(port.tensor, first=self.port_is_first(port))
        if value != port.name:
            self.node("Identity", [value], port.name, port.name)

    def _port(self, port: Port) -> Any:
        tensor = self.graph.tensors[port.tensor]
        shape = external_shape(tensor.shape, "NCHW" if self.port_is_first(port) else None)
        kind = self._helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        return self._helper.make_tensor_value_info(port.name, kind, [BATCH if n is None else n for n in shape])

    def scalar(self, value: float) -> str:
        """Add a float32 scalar."""
        return self.emit_constant(f"scalar_{value:g}", np.asarray(value, np.float32), "float32")


Activate = Callable[[OnnxEmitter, Any, str, str, str], str]
"""(emitter, activation, value that it reads, name of its node, name of its output) -> that output."""


def _single(kind: str, attributes: Callable[[Any], Mapping[str, object]] = lambda op: {}) -> Activate:
    """Return how an activation is written that is one operator of ONNX."""
    return lambda e, op, source, name, output: e.node(kind, [source], name, output, **attributes(op))


def _clip(limits: Callable[[Any], tuple[float, float]]) -> Activate:
    return lambda e, op, source, name, output: e.node(
        "Clip", [source, *(e.scalar(limit) for limit in limits(op))], name, output
    )


def _swish(e: OnnxEmitter, op: ops.Op, source: str, name: str, output: str) -> str:
    gate = e.free(f"{name}/gate")
    return e.node("Mul", [source, e.node("Sigmoid", [source], gate, gate)], name, output)


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
}
"""Activation -> how it is written, alone or behind the operator that carries it."""
