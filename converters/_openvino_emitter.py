"""Collects the layers and constants of an OpenVINO model, and spells out activations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.contract import CONTRACT_KEY
from edgecnn.graph import Array, Graph, Node, Port
from edgecnn.shapes import Shape

from ._channels_first import ChannelsFirstEmitter
from ._ir_xml import Layer, Value, Weights, attribute, document, element
from ._stored_integers import Meaning

EXACT = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Keeps a dense layer of stored integers from rounding its float activations to 8 bits, as the CPU plug-in would.
Source: OpenVINO documentation, Dynamic Quantization; so in 2026.4."""

SPATIAL_AXES = {4: "H,W", 5: "D,H,W"}
"""Rank of an image -> its spatial axes as a layout names them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelled:
    """How an activation is written.

    Attributes:
        kind: The layer's type.
        data: Its attributes.
        scalars: Name -> number, for each constant that it takes as a further input.
    """

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)


class OpenvinoEmitter(ChannelsFirstEmitter[Value]):
    """Collects layers and constants.

    Attributes:
        layers: In topological order.
        weights: The constants.
        rounded: Tensor of integers -> the numbers that they stand for, where a layer gave these at once.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.layers: list[Layer] = []
        self.weights = Weights()
        self._constants: dict[tuple[str, str, int, tuple[int, ...]], Value] = {}
        self._dequantized: dict[tuple[object, ...], Value] = {}
        self._ports: dict[Value, str] = {}
        self._tensors: dict[Value, str] = {}
        self.rounded: dict[str, Value] = {}
        self._names = {node.name for node in self.graph.nodes} | {port.name for port in graph.inputs}
        for port in graph.inputs:
            self.bind(port.tensor, self._parameter(port))

    def add(
        self,
        kind: str,
        name: str,
        inputs: Sequence[Value],
        like: tuple[str, Shape],
        *,
        layout: str = "",
        is_decompression: bool = False,
        **data: Any,
    ) -> Value:
        """Add a layer of one output and return that; its element type and stored shape are `like`."""
        (output,) = self.add_of(kind, name, inputs, [like], layout=layout, is_decompression=is_decompression, **data)
        return output

    def add_of(
        self,
        kind: str,
        name: str,
        inputs: Sequence[Value],
        likes: Sequence[tuple[str, Shape]],
        *,
        layout: str = "",
        is_decompression: bool = False,
        **data: Any,
    ) -> list[Value]:
        """Add a layer and return its outputs, whose element types and stored shapes are `likes`."""
        outputs = [Value(len(self.layers), port, *like) for port, like in enumerate(likes, start=len(inputs))]
        self.layers.append(
            Layer(
                kind=kind,
                name=name,
                data={key: attribute(value) for key, value in data.items()},
                inputs=tuple(inputs),
                outputs=tuple(outputs),
                layout=layout,
                is_decompression=is_decompression,
            )
        )
        return outputs

    def layer(self, node: Node, kind: str, inputs: Sequence[Value], bias: Value | None = None, **data: Any) -> Value:
        """Add a node's layer and, behind it, its bias and its fused activation."""
        like, activation = self.stored(node.output), getattr(node.op, "activation", None)
        value = self.add(kind, node.name, inputs, like, **data)
        if bias is not None:
            value = self.add("Add", self.free(f"{node.name}/add"), [value, bias], like, auto_broadcast="numpy")
        if activation is not None:
            value = self.activation(activation, value, self.free(f"{node.name}/{type(activation).__name__.lower()}"))
        return value

    def activation(self, op: ops.Op, source: Value, name: str) -> Value:
        """Add an elementwise activation."""
        spelled = ACTIVATIONS[type(op)](op)
        extra = [self.scalar(f"{name}/{key}", value) for key, value in spelled.scalars.items()]
        return self.add(spelled.kind, name, [source, *extra], source[2:], **spelled.data)

    def step(self, node: Node, kind: str, inputs: Sequence[Value], label: str, **data: Any) -> Value:
        """Add one of several layers that a node becomes; its output is stored like its first input."""
        return self.add(kind, self.free(f"{node.name}/{label}"), inputs, inputs[0][2:], **data)

    def scalar(self, name: str, value: float) -> Value:
        """Add a float32 Const of rank 0."""
        return self.emit_constant(name, np.asarray(value, np.float32), "float32")

    def stored(self, tensor: str) -> tuple[str, Shape]:
        """Return the element type of a held tensor and its shape."""
        known = self.graph.tensors[tensor]
        return element(known.name, known.stored_dtype), known.shape

    def free(self, name: str) -> str:
        """Return a layer name that nothing has yet."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def bind(self, tensor: str, handle: Value) -> None:
        """Remember which tensor a layer's output is."""
        super().bind(tensor, handle)
        self._tensors.setdefault(handle, tensor)

    def emit_constant(self, name: str, data: Array, dtype: str) -> Value:
        """Add a Const, and a Convert where it is stored narrower than it computes."""
        stored, offset = element(name, str(data.dtype)), self.weights.add(data)
        key = (name, stored, offset, data.shape)
        if key not in self._constants:
            place: dict[str, Any] = {"element_type": stored, "shape": data.shape, "offset": offset, "size": data.nbytes}
            value = self.add("Const", self.free(name), [], (stored, data.shape), **place)
            self._constants[key] = value if str(data.dtype) == dtype else self._widened(name, value, dtype)
        return self._constants[key]

    def emit_integers(self, name: str, data: Array, means: Meaning) -> Value:
        """Add a Const of integers, and the Convert, Subtract and Multiply that the runtime knows it by."""
        stored = self.emit_constant(name, data, str(data.dtype))
        key = (stored, means.scale.shape, means.scale.tobytes(), means.zero_point.tobytes())
        if key not in self._dequantized:
            self._dequantized[key] = self.dequantized(name, stored, means)
        return self._dequantized[key]

    def dequantized(self, name: str, stored: Value, means: Meaning) -> Value:
        """Add what turns integers into the numbers that they stand for."""
        like = (element(name, "float32"), stored.dims)
        value = self.add("Convert", self.free(f"{name}/convert"), [stored], like, destination_type=like[0])
        if means.zero_point.any():
            value = self._scaled(name, "Subtract", value, means.zero_point.astype(np.float32), "zero_point")
        return self._scaled(name, "Multiply", value, means.scale, "scale")

    def _scaled(self, name: str, kind: str, value: Value, by: Array, label: str) -> Value:
        other = self.emit_constant(f"{name}/{label}", by, "float32")
        return self.add(kind, self.free(f"{name}/{kind.lower()}"), [value, other], value[2:], auto_broadcast="numpy")

    def integers(self, name: str, values: Sequence[int]) -> Value:
        """Add an int64 Const."""
        return self.emit_constant(name, np.asarray(values, np.int64), "int64")

    def integer(self, name: str, value: int) -> Value:
        """Add an int64 Const of rank 0."""
        return self.emit_constant(name, np.asarray(value, np.int64), "int64")

    def model(self, contract: str | None) -> str:
        """Return the XML, after adding the outputs."""
        for port in self.graph.outputs:
            self._show(port)
        taken = set(self._ports.values())
        inner = {value: name for value, name in self._tensors.items() if name not in taken}
        info = {} if contract is None else {CONTRACT_KEY: contract}
        options = EXACT if self.is_quantized else {}
        return document(self.graph.name, self.layers, {**inner, **self._ports}, info, options)

    def _parameter(self, port: Port) -> Value:
        kind, dims = self.stored(port.tensor)
        axes = SPATIAL_AXES.get(len(dims))
        layout = "" if axes is None else f"[N,C,{axes}]" if self.port_is_first(port) else f"[N,{axes},C]"
        value = self.add("Parameter", port.name, [], (kind, dims), layout=layout, shape=dims, element_type=kind)
        self._ports[value] = port.name
        return value

    def _widened(self, name: str, source: Value, dtype: str) -> Value:
        kind, label = element(name, dtype), self.free(f"{name}/{dtype}")
        like = (kind, source.dims)
        return self.add("Convert", label, [source], like, is_decompression=True, destination_type=kind)

    def _show(self, port: Port) -> None:
        """Add a Result behind a value that has the port's name, and no other port's."""
        value = self.value(port.tensor)
        if value in self._ports:
            value = self.add("Convert", self.free(port.name), [value], value[2:], destination_type=value.element)
        self._ports[value] = port.name
        self.layers.append(Layer(kind="Result", name=self.free(f"{port.name}/result"), inputs=(value,)))


def _plain(kind: str) -> Callable[[Any], Spelled]:
    return lambda op: Spelled(kind=kind)


def _hard_sigmoid(op: Any) -> Spelled:
    """HSigmoid, which the runtime computes in its fast loop, is the one with the default slope and offset."""
    if op == ops.HardSigmoid():
        return Spelled(kind="HSigmoid")
    return Spelled(kind="HardSigmoid", scalars={"alpha": op.slope, "beta": op.offset})


ACTIVATIONS: dict[type[ops.Op], Callable[[Any], Spelled]] = {
    ops.ReLU: _plain("ReLU"),
    ops.ReLU6: lambda op: Spelled(kind="Clamp", data={"min": 0.0, "max": 6.0}),
    ops.Clip: lambda op: Spelled(kind="Clamp", data={"min": float(op.minimum), "max": float(op.maximum)}),
    ops.LeakyReLU: lambda op: Spelled(kind="PReLU", scalars={"slope": op.slope}),
    ops.ELU: lambda op: Spelled(kind="Elu", data={"alpha": float(op.alpha)}),
    ops.Sigmoid: _plain("Sigmoid"),
    ops.HardSigmoid: _hard_sigmoid,
    ops.HardSwish: _plain("HSwish"),
    ops.Swish: _plain("Swish"),
    ops.GELU: lambda op: Spelled(kind="Gelu", data={"approximation_mode": "TANH" if op.approximate else "ERF"}),
    ops.Softplus: _plain("SoftPlus"),
    ops.Tanh: _plain("Tanh"),
    ops.Sqrt: _plain("Sqrt"),
    ops.Exp: _plain("Exp"),
    ops.Log: _plain("Log"),
    ops.Rsqrt: lambda op: Spelled(kind="Power", data={"auto_broadcast": "numpy"}, scalars={"exponent": -0.5}),
    ops.Neg: _plain("Negative"),
    ops.Floor: _plain("Floor"),
    ops.Ceil: _plain("Ceiling"),
    ops.Round: lambda op: Spelled(kind="Round", data={"mode": "half_to_even"}),
    ops.Sin: _plain("Sin"),
    ops.Cos: _plain("Cos"),
    ops.Erf: _plain("Erf"),
}
"""Activation -> how it is written, alone or behind the layer that carries it."""
