"""OpenVINO IR: version 11, written NCHW as XML and .bin without OpenVINO.

Every layer is of opset1, which every release that reads version 11 has. Biases and fused activations are spelled out
(Add, ReLU, Clamp), which the runtime fuses again.
Source: OpenVINO documentation, Available Operation Sets, opset1.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.graph import Array, Graph, Node, Port, external_shape
from edgecnn.interfaces import Artifact
from edgecnn.shapes import Padding, Shape

from ._channels_first import ChannelsFirstEmitter, kernel_first
from ._ir_xml import Layer, Value, Weights, attribute, document, element, read_info
from ._writing import contract_json, describe, refuse_unknown

SPATIAL_AXES = {4: "H,W", 5: "D,H,W"}
"""Rank of an image -> its spatial axes as a layout names them."""

SILENT = ("Const", "Parameter", "Result")
"""Layers that compute nothing."""


class OpenvinoFormat:
    """The .xml door."""

    name = "openvino"
    suffix = ".xml"
    default_layout: Layout = "NCHW"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the network and its constants."""
        return path, path.with_suffix(".bin")

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a deployed Graph. See interfaces.Writer."""
        refuse_unknown(graph, ROWS.keys() | {ops.Transpose}, self, "Choose another format.")
        emitter = _Emitter(graph)
        emitter.walk(ROWS)
        text = emitter.model(contract_json(graph, self.default_layout))
        path.write_text(text, encoding="utf-8", newline="\n")
        with path.with_suffix(".bin").open("wb") as file:
            emitter.weights.write(file)
        return describe(self, path, Counter(layer.kind for layer in emitter.layers if layer.kind not in SILENT))

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in rt_info. See interfaces.Format."""
        found = read_info(path, CONTRACT_KEY)
        return None if found is None else parse_contract(found, str(path))


class _Emitter(ChannelsFirstEmitter[Value]):
    """Collects layers and constants; every layer has one output."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.layers: list[Layer] = []
        self.weights = Weights()
        self._constants: dict[tuple[str, str, int, tuple[int, ...]], Value] = {}
        self._ports: dict[int, str] = {}
        self._tensors: dict[int, str] = {}
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
        """Add a layer and return its output, whose element type and stored shape are `like`."""
        output = Value(len(self.layers), len(inputs), *like)
        self.layers.append(
            Layer(
                kind=kind,
                name=name,
                data={key: attribute(value) for key, value in data.items()},
                inputs=tuple(inputs),
                output=output,
                layout=layout,
                is_decompression=is_decompression,
            )
        )
        return output

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
        kind, limits = ACTIVATIONS[type(op)]
        return self.add(kind, name, [source], source[2:], **limits(op))

    def stored(self, tensor: str) -> tuple[str, Shape]:
        """Return the element type of a Graph tensor and its shape in the order that it is stored in."""
        known = self.graph.tensors[tensor]
        return element(known.name, known.dtype), external_shape(known.shape, "NCHW" if tensor in self.first else None)

    def free(self, name: str) -> str:
        """Return a layer name that nothing has yet."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def bind(self, tensor: str, handle: Value) -> None:
        """Remember which tensor a layer's output is."""
        super().bind(tensor, handle)
        self._tensors.setdefault(handle.layer, tensor)

    def emit_constant(self, name: str, data: Array, dtype: str) -> Value:
        """Add a Const, and a Convert where it is stored narrower than it computes."""
        stored, offset = element(name, str(data.dtype)), self.weights.add(data)
        key = (name, stored, offset, data.shape)
        if key not in self._constants:
            place: dict[str, Any] = {"element_type": stored, "shape": data.shape, "offset": offset, "size": data.nbytes}
            value = self.add("Const", self.free(name), [], (stored, data.shape), **place)
            self._constants[key] = value if str(data.dtype) == dtype else self._widened(name, value, dtype)
        return self._constants[key]

    def emit_transpose(self, source: Value, permutation: Sequence[int], tensor: str, name: str) -> Value:
        """Add a Transpose."""
        label = name if tensor == name else self.free(name)
        like = (source.element, tuple(source.dims[axis] for axis in permutation))
        return self.add("Transpose", label, [source, self.integers(f"{label}/order", permutation)], like)

    def integers(self, name: str, values: Sequence[int]) -> Value:
        """Add an int64 Const."""
        return self.emit_constant(name, np.asarray(values, np.int64), "int64")

    def model(self, contract: str | None) -> str:
        """Return the XML, after adding the outputs."""
        for port in self.graph.outputs:
            self._show(port)
        taken = set(self._ports.values())
        inner = {layer: name for layer, name in self._tensors.items() if name not in taken}
        info = {} if contract is None else {CONTRACT_KEY: contract}
        return document(self.graph.name, self.layers, {**inner, **self._ports}, info)

    def _parameter(self, port: Port) -> Value:
        kind, dims = self.stored(port.tensor)
        axes = SPATIAL_AXES.get(len(dims))
        layout = "" if axes is None else f"[N,C,{axes}]" if self.port_is_first(port) else f"[N,{axes},C]"
        value = self.add("Parameter", port.name, [], (kind, dims), layout=layout, shape=dims, element_type=kind)
        self._ports[value.layer] = port.name
        return value

    def _widened(self, name: str, source: Value, dtype: str) -> Value:
        kind, label = element(name, dtype), self.free(f"{name}/{dtype}")
        like = (kind, source.dims)
        return self.add("Convert", label, [source], like, is_decompression=True, destination_type=kind)

    def _show(self, port: Port) -> None:
        """Add a Result behind a value that has the port's name, and no other port's."""
        value = self.get(port.tensor, first=self.port_is_first(port))
        if value.layer in self._ports:
            value = self.add("Convert", self.free(port.name), [value], value[2:], destination_type=value.element)
        self._ports[value.layer] = port.name
        self.layers.append(Layer(kind="Result", name=self.free(f"{port.name}/result"), inputs=(value,)))


def _conv(e: _Emitter, node: Node) -> Value:
    op: Any = node.op
    rank = len(op.stride)

    def grouped(data: Array) -> Array:
        kernel = kernel_first(data)
        return kernel if op.groups == 1 else kernel.reshape(op.groups, -1, *kernel.shape[1:])

    kernel: Any = e.constant(node, "kernel", grouped)
    bias = e.constant(node, "bias", lambda data: data.reshape(1, -1, *[1] * rank))
    return e.layer(
        node,
        "Convolution" if op.groups == 1 else "GroupConvolution",
        [e.image(node), kernel],
        bias,
        strides=op.stride,
        dilations=op.dilation,
        **pads(op.padding),
        auto_pad="explicit",
    )


def _dense(e: _Emitter, node: Node) -> Value:
    is_turned = e.graph.constant(node, "kernel") is not None
    kernel: Any = e.constant(node, "kernel", np.transpose if is_turned else None)
    operands, bias = [e.plain(node), kernel], e.constant(node, "bias")
    return e.layer(node, "MatMul", operands, bias, transpose_a=False, transpose_b=is_turned)


def _pool(kind: str, **data: Any) -> Callable[[_Emitter, Node], Value]:
    def emit(e: _Emitter, node: Node) -> Value:
        op: Any = node.op
        return e.layer(
            node,
            kind,
            [e.image(node)],
            kernel=op.kernel_size,
            strides=op.stride,
            **pads(op.padding),
            **data,
            rounding_type="floor",
            auto_pad="explicit",
        )

    return emit


def _mean(e: _Emitter, node: Node) -> Value:
    op: Any = node.op
    source, axes = e.reduced(node, op.axes, keep_dims=op.keep_dims)
    return e.layer(node, "ReduceMean", [source, e.integers(f"{node.name}/axes", axes)], keep_dims=op.keep_dims)


def _elementwise(kind: str) -> Callable[[_Emitter, Node], Value]:
    return lambda e, node: e.layer(node, kind, e.operands(node), auto_broadcast="numpy")


def _activation(e: _Emitter, node: Node) -> Value:
    return e.activation(node.op, e.operands(node)[0], node.name)


def _softmax(e: _Emitter, node: Node) -> Value:
    return e.layer(node, "SoftMax", e.operands(node), axis=e.axis(node.output, len(e.stored(node.output)[1]) - 1))


def _pad(e: _Emitter, node: Node) -> Value:
    op: Any = node.op
    pairs: Any = e.by_axis(node.output, op.padding)
    before = e.integers(f"{node.name}/before", [pair[0] for pair in pairs])
    after = e.integers(f"{node.name}/after", [pair[1] for pair in pairs])
    dtype = e.graph.tensors[node.output].dtype
    value = e.emit_constant(f"{node.name}/value", np.asarray(op.value, dtype), dtype)
    return e.layer(node, "Pad", [e.operands(node)[0], before, after, value], pad_mode="constant")


def _reshape(e: _Emitter, node: Node) -> Value:
    shape = e.graph.tensors[node.output].shape
    sizes = e.integers(f"{node.name}/shape", [-1 if size is None else size for size in shape])
    return e.layer(node, "Reshape", [e.plain(node), sizes], special_zero=False)


def _concat(e: _Emitter, node: Node) -> Value:
    op: Any = node.op
    return e.layer(node, "Concat", e.operands(node), axis=e.axis(node.output, op.axis))


def pads(padding: Padding) -> dict[str, Any]:
    """Return spatial padding as a window layer states it."""
    return {"pads_begin": tuple(before for before, _ in padding), "pads_end": tuple(after for _, after in padding)}


ACTIVATIONS: dict[type[ops.Op], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    ops.ReLU: ("ReLU", lambda op: {}),
    ops.ReLU6: ("Clamp", lambda op: {"min": 0.0, "max": 6.0}),
    ops.Clip: ("Clamp", lambda op: {"min": float(op.minimum), "max": float(op.maximum)}),
    ops.Sigmoid: ("Sigmoid", lambda op: {}),
    ops.Tanh: ("Tanh", lambda op: {}),
}
"""Activation -> layer, and its attributes."""

ROWS: dict[type[ops.Op], Callable[[_Emitter, Node], Value]] = {
    ops.Conv: _conv,
    ops.Dense: _dense,
    ops.MaxPool: _pool("MaxPool"),
    ops.AveragePool: _pool("AvgPool", **{"exclude-pad": True}),
    ops.Mean: _mean,
    ops.Add: _elementwise("Add"),
    ops.Sub: _elementwise("Subtract"),
    ops.Mul: _elementwise("Multiply"),
    ops.ReLU: _activation,
    ops.ReLU6: _activation,
    ops.Sigmoid: _activation,
    ops.Tanh: _activation,
    ops.Clip: _activation,
    ops.Softmax: _softmax,
    ops.Pad: _pad,
    ops.Reshape: _reshape,
    ops.Concat: _concat,
}

OPENVINO = OpenvinoFormat()
