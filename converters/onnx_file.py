"""ONNX: written NCHW with the lowest opset that carries the Graph.

Opset 17 with IR version 8 is the floor: ONNX Runtime, its QNN provider and onnxruntime-web all load it. A fused
activation is spelled out (Relu, Clip), which runtimes fuse again.
Source: onnx/onnx, docs/Operators.md and docs/Versioning.md.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import __version__, ops
from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.errors import InputFileError
from edgecnn.extras import require
from edgecnn.graph import Array, Graph, Node, Port, external_shape
from edgecnn.interfaces import Artifact
from edgecnn.shapes import Padding, Shape

from ._channels_first import ChannelsFirstEmitter, kernel_first
from ._writing import contract_json, describe, refuse_unknown

OPSET = 17
IR_VERSION = 8
BATCH = "batch"
"""Name of the symbolic batch."""


class OnnxFormat:
    """The .onnx door."""

    name = "onnx"
    suffix = ".onnx"
    default_layout: Layout = "NCHW"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the file itself: constants are stored inside."""
        return (path,)

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a deployed Graph. See interfaces.Writer."""
        refuse_unknown(graph, ROWS.keys() | {ops.Transpose}, self, "Choose another format.")
        emitter = _Emitter(graph)
        emitter.walk(ROWS)
        model = emitter.model(contract_json(graph, self.default_layout))
        path.write_bytes(model.SerializeToString(deterministic=True))
        return describe(self, path, Counter(node.op_type for node in emitter.nodes))

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in metadata_props. See interfaces.Format."""
        onnx = require("onnx", purpose="reading .onnx files")
        message = importlib.import_module("google.protobuf.message")
        try:
            model = onnx.load(str(path), load_external_data=False)
        except message.DecodeError as error:
            raise InputFileError(f"{path}: an ONNX model was wanted; the file cannot be decoded: {error}") from None
        if not model.ir_version or not model.graph.output:
            raise InputFileError(f"{path}: an ONNX model was wanted; the file holds no graph")
        found = {entry.key: entry.value for entry in model.metadata_props}.get(CONTRACT_KEY)
        return None if found is None else parse_contract(found, str(path))


class _Emitter(ChannelsFirstEmitter[str]):
    """Collects NodeProtos and initializers; values are named by strings."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._helper = require("onnx.helper", purpose="writing .onnx files")
        self._from_array = require("onnx.numpy_helper", purpose="writing .onnx files").from_array
        self.nodes: list[Any] = []
        self._initializers: dict[str, Array] = {}
        self._constants: dict[tuple[str, str, Shape, bytes], str] = {}
        self._taken = {port.name for port in (*graph.inputs, *graph.outputs)}
        self._shown: set[str] = set()
        for port in graph.inputs:
            self.bind(port.tensor, port.name)

    def node(self, kind: str, inputs: Sequence[str | None], name: str, output: str, **attributes: Any) -> str:
        """Add a NodeProto and return its output."""
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
        if isinstance(op, ops.ReLU6 | ops.Clip):
            limits = (0.0, 6.0) if isinstance(op, ops.ReLU6) else (op.minimum, op.maximum)
            return self.node("Clip", [source, *(self.scalar(limit) for limit in limits)], name, output)
        return self.node(ACTIVATIONS[type(op)], [source], name, output)

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
        opset = self._helper.make_opsetid("", OPSET)
        model = self._helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
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


def _conv(e: Any, node: Node) -> str:
    op: Any = node.op
    kernel = e.graph.tensors[node.inputs[1]].shape
    return str(
        e.layer(
            node,
            "Conv",
            [e.image(node), e.constant(node, "kernel", kernel_first), e.constant(node, "bias")],
            kernel_shape=kernel[:-2],
            strides=op.stride,
            dilations=op.dilation,
            group=op.groups,
            pads=pads(op.padding),
        )
    )


def _dense(e: Any, node: Node) -> str:
    x, kernel, bias = e.plain(node), e.constant(node, "kernel"), e.constant(node, "bias")
    if len(e.graph.tensors[node.inputs[0]].shape) == 2:
        return str(e.layer(node, "Gemm", [x, kernel, bias]))
    if bias is None:
        return str(e.layer(node, "MatMul", [x, kernel]))
    product = e.node("MatMul", [x, kernel], f"{node.name}/product", e.free(f"{node.name}/product"))
    return str(e.layer(node, "Add", [product, bias]))


def _pool(kind: str) -> Callable[[Any, Node], str]:
    def emit(e: Any, node: Node) -> str:
        op: Any = node.op
        return str(
            e.layer(node, kind, [e.image(node)], kernel_shape=op.kernel_size, strides=op.stride, pads=pads(op.padding))
        )

    return emit


def _mean(e: Any, node: Node) -> str:
    op: Any = node.op
    x, axes = e.reduced(node, op.axes, keep_dims=op.keep_dims)
    return str(e.layer(node, "ReduceMean", [x], axes=axes, keepdims=int(op.keep_dims)))


def _elementwise(kind: str) -> Callable[[Any, Node], str]:
    return lambda e, node: str(e.layer(node, kind, e.operands(node)))


def _activation(e: Any, node: Node) -> str:
    return str(e.activation(node.op, e.operands(node)[0], node.name, e.value_name(node.output)))


def _softmax(e: Any, node: Node) -> str:
    axis = e.axis(node.output, len(e.graph.tensors[node.output].shape) - 1)
    return str(e.layer(node, "Softmax", e.operands(node), axis=axis))


def _pad(e: Any, node: Node) -> str:
    op: Any = node.op
    pairs = e.by_axis(node.output, op.padding)
    amounts = e.integers(f"{node.name}/padding", pads(pairs))
    return str(e.layer(node, "Pad", [e.operands(node)[0], amounts, e.scalar(op.value)], mode="constant"))


def _reshape(e: Any, node: Node) -> str:
    shape: Shape = e.graph.tensors[node.output].shape
    sizes = e.integers(f"{node.name}/shape", [-1 if size is None else size for size in shape])
    return str(e.layer(node, "Reshape", [e.plain(node), sizes]))


def _concat(e: Any, node: Node) -> str:
    op: Any = node.op
    return str(e.layer(node, "Concat", e.operands(node), axis=e.axis(node.output, op.axis)))


def pads(padding: Padding) -> list[int]:
    """Return padding as ONNX lists it: all the befores, then all the afters."""
    return [before for before, _ in padding] + [after for _, after in padding]


ACTIVATIONS: dict[type[ops.Op], str] = {ops.ReLU: "Relu", ops.Sigmoid: "Sigmoid", ops.Tanh: "Tanh"}

ROWS: dict[type[ops.Op], Callable[[Any, Node], str]] = {
    ops.Conv: _conv,
    ops.Dense: _dense,
    ops.MaxPool: _pool("MaxPool"),
    ops.AveragePool: _pool("AveragePool"),
    ops.Mean: _mean,
    ops.Add: _elementwise("Add"),
    ops.Sub: _elementwise("Sub"),
    ops.Mul: _elementwise("Mul"),
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

ONNX = OnnxFormat()
