"""TFLite, emitted directly as a flatbuffer.

Every operator has the lowest version that fits, so that runtimes as old as the operator load the file. Explicit padding
that equals SAME or VALID costs nothing, any other costs one PAD. A SignatureDef names inputs and outputs.
Source: LiteRT, tflite/schema/schema.fbs and tflite/tools/versioning/op_version.cc.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Graph, Node, Port, external_shape
from edgecnn.interfaces import Artifact
from edgecnn.shapes import Padding, Shape, same_padding

from ._flatbuffer import AlignedBuffer, opened, pack, schema
from ._writing import contract_json, describe, refuse_unknown

SCHEMA_VERSION = 3
SIGNATURE = "serving_default"


class TfliteFormat:
    """The .tflite door."""

    name = "tflite"
    suffix = ".tflite"
    default_layout: Layout = "NHWC"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the file itself."""
        return (path,)

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a deployed Graph. See interfaces.Writer."""
        refuse_unknown(graph, ROWS.keys(), self, "Choose --to onnx or openvino.")
        emitter = _Emitter(graph)
        for port in graph.inputs:
            emitter.open_port(port)
        for node in graph.nodes:
            ROWS[type(node.op)](emitter, node)
        path.write_bytes(emitter.file(contract_json(graph, self.default_layout)))
        return describe(self, path, emitter.counts)

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in the model's metadata. See interfaces.Format."""
        with opened(path) as model:
            for entry in (model.Metadata(i) for i in range(model.MetadataLength())):
                if entry.Name() == CONTRACT_KEY.encode():
                    return parse_contract(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes(), str(path))
        return None


class _Emitter:
    """Collects tensors, buffers and operators of the one subgraph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.s = schema()
        self.counts: Counter[str] = Counter()
        self._tensors: list[Any] = []
        self._buffers: list[AlignedBuffer] = [AlignedBuffer(None)]
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}
        self._index: dict[str, int] = {}
        self._ports: dict[str, int] = {}

    def tensor(self, name: str, shape: Shape, dtype: str = "float32", data: Array | None = None) -> int:
        """Add a tensor and return its index; a symbolic batch is 1 in the shape and -1 in the signature."""
        buffer = 0
        if data is not None:
            buffer = len(self._buffers)
            self._buffers.append(AlignedBuffer(np.ascontiguousarray(data)))
        signature = [-1 if size is None else size for size in shape] if None in shape else None
        self._tensors.append(
            self.s.TensorT(
                shape=[size or 1 for size in shape], type=getattr(self.s.TensorType, dtype.upper()), buffer=buffer,
                name=name, shapeSignature=signature,
            )  # fmt: skip
        )
        return len(self._tensors) - 1

    def operator(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", version: int = 1,
        **fields: object,
    ) -> None:  # fmt: skip
        """Add an operator; `options` names its option table without "Options", `fields` fill it."""
        self.counts[kind] += 1
        code = self._codes.setdefault((kind, version), len(self._codes))
        operator = self.s.OperatorT(opcodeIndex=code, inputs=list(inputs), outputs=list(outputs))
        if options:
            operator.builtinOptionsType = getattr(self.s.BuiltinOptions, f"{options}Options")
            operator.builtinOptions = getattr(self.s, f"{options}OptionsT")(**fields)
        self._operators.append(operator)

    def value(self, name: str) -> int:
        """Return the tensor index of a Graph tensor; a constant is added when it is first asked for."""
        if name not in self._index:
            tensor = self.graph.tensors[name]
            if tensor.data is None:
                self._index[name] = self.tensor(name, tensor.shape, tensor.dtype)
            else:
                self._index[name] = self.constant(name, tensor.data, tensor.dtype)
        return self._index[name]

    def constant(self, name: str, data: Array, dtype: str) -> int:
        """Add a constant, and a DEQUANTIZE where it is stored as float16."""
        if str(data.dtype) == dtype:
            return self.tensor(name, data.shape, dtype, data)
        stored = self.tensor(f"{name}/{data.dtype}", data.shape, str(data.dtype), data)
        wide = self.tensor(name, data.shape, dtype)
        self.operator("DEQUANTIZE", [stored], [wide], "Dequantize", version=3)
        return wide

    def arranged(self, node: Node, operand: str, arrange: Callable[[Array], Array]) -> int:
        """Return a kernel in the format's own arrangement."""
        tensor = self.graph.constant(node, operand)
        if tensor is None or tensor.data is None:
            raise UnsupportedError(f"{node.name}: tflite wants a constant {operand}; got a computed one")
        return self.constant(tensor.name, arrange(tensor.data), tensor.dtype)

    def bias(self, node: Node, channels: int) -> int:
        """Return the bias, zeros where there is none: operators without one need newer runtimes."""
        name = node.operand("bias")
        return self.value(name) if name else self.constant(f"{node.name}/bias", np.zeros(channels, np.float32), "float32")

    def integers(self, name: str, values: Sequence[int] | Sequence[Sequence[int]]) -> int:
        """Add an int32 constant."""
        return self.constant(name, np.asarray(values, np.int32), "int32")

    def shape(self, name: str) -> Shape:
        """Return the shape of a Graph tensor."""
        return self.graph.tensors[name].shape

    def reshaped(self, source: int, name: str, shape: Shape, into: int | None = None) -> int:
        """Add a RESHAPE and return its output."""
        sizes = [-1 if size is None else size for size in shape]
        output = self.tensor(name, shape) if into is None else into
        self.operator("RESHAPE", [source, self.integers(f"{name}/shape", sizes)], [output], "Reshape", newShape=sizes)
        return output

    def padded(self, source: int, name: str, shape: Shape, padding: Padding) -> int:
        """Add a PAD over all axes of a tensor of this shape and return its output."""
        output = self.tensor(
            f"{name}/padded", tuple(n if n is None else n + sum(p) for n, p in zip(shape, padding, strict=True))
        )
        self.operator("PAD", [source, self.integers(f"{name}/padding", padding)], [output], "Pad")
        return output

    def open_port(self, port: Port) -> None:
        """Add an input; an NCHW one is turned behind it."""
        if port.layout != "NCHW":
            self._ports[port.name] = self.value(port.tensor)
            return
        tensor = self.graph.tensors[port.tensor]
        self._ports[port.name] = self.tensor(f"{port.name}/nchw", external_shape(tensor.shape, "NCHW"), tensor.dtype)
        rank = len(tensor.shape)
        self.transpose(self._ports[port.name], (0, *range(2, rank), 1), self.value(port.tensor), port.tensor)

    def transpose(self, source: int, permutation: Sequence[int], output: int, name: str) -> None:
        """Add a TRANSPOSE."""
        self.operator("TRANSPOSE", [source, self.integers(f"{name}/permutation", permutation)], [output], "Transpose")

    def file(self, contract: str | None) -> bytes:
        """Return the finished file."""
        outputs = [self._output(port) for port in self.graph.outputs]
        inputs = [self._ports[port.name] for port in self.graph.inputs]
        signature = self.s.SignatureDefT(
            inputs=[self._named(port.name, index) for port, index in zip(self.graph.inputs, inputs, strict=True)],
            outputs=[self._named(port.name, index) for port, index in zip(self.graph.outputs, outputs, strict=True)],
            signatureKey=SIGNATURE,
        )
        subgraph = self.s.SubGraphT(
            tensors=self._tensors, inputs=inputs, outputs=outputs, operators=self._operators, name="main"
        )
        model = self.s.ModelT(
            version=SCHEMA_VERSION, operatorCodes=[self._code(*key) for key in self._codes], subgraphs=[subgraph],
            description=f"{self.graph.name}, written by edgecnn", signatureDefs=[signature], buffers=self._buffers,
        )  # fmt: skip
        if contract is not None:
            model.metadata = [self.s.MetadataT(name=CONTRACT_KEY, buffer=len(self._buffers))]
            self._buffers.append(AlignedBuffer(contract.encode()))
        return pack(model, sum(len(buffer.content) for buffer in self._buffers))

    def _output(self, port: Port) -> int:
        index = self.value(port.tensor)
        if port.layout != "NCHW":
            return index
        shape = self.shape(port.tensor)
        turned = self.tensor(f"{port.name}/nchw", external_shape(shape, "NCHW"))
        self.transpose(index, (0, len(shape) - 1, *range(1, len(shape) - 1)), turned, port.name)
        return turned

    def _named(self, name: str, index: int) -> Any:
        return self.s.TensorMapT(name=name, tensorIndex=index)

    def _code(self, kind: str, version: int) -> Any:
        code = getattr(self.s.BuiltinOperator, kind)
        return self.s.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)


# --- windows: convolution and pooling over one or two dimensions become 2-D, over three CONV_3D --------------------------


def _conv(e: _Emitter, node: Node) -> None:
    op = node.op
    assert isinstance(op, ops.Conv)
    if len(op.stride) == 3:
        _conv_3d(e, node, op)
        return
    kernel, channels = e.shape(node.inputs[1]), e.shape(node.inputs[0])[-1]
    flat = _as_2d(op, kernel)
    source, padding = _window_input(e, node, flat, flat[0])
    kernel_size, stride, dilation, _ = flat
    fields: dict[str, object] = {
        "padding": padding, "strideH": stride[0], "strideW": stride[1], "fusedActivationFunction": _fused(e, node),
        "dilationHFactor": dilation[0], "dilationWFactor": dilation[1],
    }  # fmt: skip
    out_channels = kernel[-1] or 0
    depthwise = ops.is_depthwise(op, (e.shape(node.inputs[0]),))
    if depthwise:
        weights = e.arranged(node, "kernel", lambda data: data.reshape(1, *kernel_size, out_channels))
        fields["depthMultiplier"] = out_channels // op.groups
    else:
        weights = e.arranged(
            node, "kernel", lambda data: np.moveaxis(data.reshape(*kernel_size, -1, out_channels), -1, 0)
        )
    inputs = [source, weights, e.bias(node, out_channels)]
    kind, options = ("DEPTHWISE_CONV_2D", "DepthwiseConv2D") if depthwise else ("CONV_2D", "Conv2D")
    _window_output(e, node, kind, inputs, options, _conv_version(op, channels, depthwise=depthwise), fields)


def _conv_version(op: ops.Conv, channels: int | None, *, depthwise: bool) -> int:
    """Return the lowest version: op_version.cc gives dilated depthwise 2 and grouped convolution 6."""
    if depthwise:
        return 2 if set(op.dilation) != {1} else 1
    return 6 if op.groups > 1 and op.groups != channels else 1


def _conv_3d(e: _Emitter, node: Node, op: ops.Conv) -> None:
    if op.groups != 1:
        raise UnsupportedError(f"{node.name}: tflite has no grouped 3-D convolution. Choose --to onnx or openvino.")
    kernel = e.shape(node.inputs[1])
    flat = (tuple(size or 0 for size in kernel[:3]), op.stride, op.dilation, op.padding)
    source, padding = _window_input(e, node, flat, flat[0])
    weights = e.arranged(node, "kernel", lambda data: data)
    fields: dict[str, object] = {"padding": padding, "fusedActivationFunction": _fused(e, node)}
    for axis, step, dilation in zip("DHW", op.stride, op.dilation, strict=True):
        fields |= {f"stride{axis}": step, f"dilation{axis}Factor": dilation}
    e.operator(
        "CONV_3D", [source, weights, e.bias(node, kernel[-1] or 0)], [e.value(node.output)], "Conv3D", **fields
    )


def _pool(kind: str) -> Callable[[_Emitter, Node], None]:
    def emit(e: _Emitter, node: Node) -> None:
        op = node.op
        assert isinstance(op, ops.MaxPool | ops.AveragePool)
        if len(op.stride) == 3:
            raise UnsupportedError(f"{node.name}: tflite has no 3-D pooling. Choose --to onnx or openvino.")
        flat = _as_2d(op, op.kernel_size)
        kernel_size, stride, _, _ = flat
        source, padding = _window_input(e, node, flat, kernel_size)
        fields: dict[str, object] = {
            "padding": padding, "strideH": stride[0], "strideW": stride[1], "filterHeight": kernel_size[0],
            "filterWidth": kernel_size[1], "fusedActivationFunction": _fused(e, node),
        }  # fmt: skip
        _window_output(e, node, kind, [source], "Pool2D", 1, fields)

    return emit


Flat = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Padding]
"""kernel_size, stride, dilation, padding of a window over two dimensions."""


def _as_2d(op: "ops.Conv | ops.MaxPool | ops.AveragePool", kernel: Shape) -> Flat:
    """Return a 1-D window as a 2-D one of height 1."""
    missing = 2 - len(op.stride)
    kernel_size = tuple(size or 0 for size in kernel[: len(op.stride)])
    ones = (1,) * missing
    dilation = op.dilation if isinstance(op, ops.Conv) else (1,) * len(op.stride)
    return (*ones, *kernel_size), (*ones, *op.stride), (*ones, *dilation), ((0, 0),) * missing + op.padding


def _window_input(e: _Emitter, node: Node, flat: Flat, kernel_size: tuple[int, ...]) -> tuple[int, int]:
    """Return (input tensor, TFLite's padding), a RESHAPE and a PAD added where they are needed."""
    name = node.inputs[0]
    shape, source = e.shape(name), e.value(name)
    if len(shape) == 3:
        shape = (shape[0], 1, *shape[1:])
        source = e.reshaped(source, f"{node.name}/as_2d", shape)
    _, stride, dilation, padding = flat
    same = tuple(
        same_padding(n or 0, f, stride=s, dilation=d)
        for n, f, s, d in zip(shape[1:-1], kernel_size, stride, dilation, strict=True)
    )
    if not any(any(pair) for pair in padding):
        return source, e.s.Padding.VALID
    if padding == same:
        return source, e.s.Padding.SAME
    if not isinstance(node.op, ops.Conv):
        raise UnsupportedError(
            f"{node.name}: tflite pools with SAME or VALID padding; got {padding}. Choose --to onnx or openvino."
        )
    return e.padded(source, node.name, shape, ((0, 0), *padding, (0, 0))), e.s.Padding.VALID


def _window_output(
    e: _Emitter, node: Node, kind: str, inputs: list[int], options: str, version: int, fields: dict[str, object]
) -> None:
    shape = e.shape(node.output)
    if len(shape) == 4:
        e.operator(kind, inputs, [e.value(node.output)], options, version, **fields)
        return
    inner = e.tensor(f"{node.name}/from_2d", (shape[0], 1, *shape[1:]))
    e.operator(kind, inputs, [inner], options, version, **fields)
    e.reshaped(inner, node.output, shape, e.value(node.output))


# --- everything else --------------------------------------------------------------------------------------------------


def _dense(e: _Emitter, node: Node) -> None:
    kernel = e.shape(node.inputs[1])
    weights = e.arranged(node, "kernel", lambda data: data.T)
    keep = len(e.shape(node.output)) > 2
    e.operator(
        "FULLY_CONNECTED", [e.value(node.inputs[0]), weights, e.bias(node, kernel[-1] or 0)], [e.value(node.output)],
        "FullyConnected", version=5 if keep else 1, fusedActivationFunction=_fused(e, node), keepNumDims=keep,
    )  # fmt: skip


def _mean(e: _Emitter, node: Node) -> None:
    assert isinstance(node.op, ops.Mean)
    axes = e.integers(f"{node.name}/axes", node.op.axes)
    e.operator("MEAN", [e.value(node.inputs[0]), axes], [e.value(node.output)], "Reducer", keepDims=node.op.keep_dims)


def _elementwise(kind: str) -> Callable[[_Emitter, Node], None]:
    def emit(e: _Emitter, node: Node) -> None:
        inputs = [e.value(name) for name in node.inputs]
        e.operator(kind, inputs, [e.value(node.output)], kind.title(), fusedActivationFunction=_fused(e, node))

    return emit


def _plain(kind: str, options: str = "", **fields: object) -> Callable[[_Emitter, Node], None]:
    """Return the row of an operator that takes its inputs as they are."""
    return lambda e, node: e.operator(
        kind, [e.value(name) for name in node.inputs], [e.value(node.output)], options, **fields
    )


def _clip(e: _Emitter, node: Node) -> None:
    assert isinstance(node.op, ops.Clip)
    source, name = e.value(node.inputs[0]), node.name
    raised = e.tensor(f"{name}/raised", e.shape(node.output))
    low = e.constant(f"{name}/minimum", np.float32([node.op.minimum]).reshape(()), "float32")
    high = e.constant(f"{name}/maximum", np.float32([node.op.maximum]).reshape(()), "float32")
    e.operator("MAXIMUM", [source, low], [raised], "MaximumMinimum")
    e.operator("MINIMUM", [raised, high], [e.value(node.output)], "MaximumMinimum")


def _pad(e: _Emitter, node: Node) -> None:
    assert isinstance(node.op, ops.Pad)
    inputs = [e.value(node.inputs[0]), e.integers(f"{node.name}/padding", node.op.padding)]
    if node.op.value == 0:
        e.operator("PAD", inputs, [e.value(node.output)], "Pad")
        return
    value = e.constant(f"{node.name}/value", np.float32(node.op.value).reshape(()), "float32")
    e.operator("PADV2", [*inputs, value], [e.value(node.output)], "PadV2")


def _reshape(e: _Emitter, node: Node) -> None:
    e.reshaped(e.value(node.inputs[0]), node.output, e.shape(node.output), e.value(node.output))


def _transpose(e: _Emitter, node: Node) -> None:
    assert isinstance(node.op, ops.Transpose)
    e.transpose(e.value(node.inputs[0]), node.op.permutation, e.value(node.output), node.name)


def _concat(e: _Emitter, node: Node) -> None:
    assert isinstance(node.op, ops.Concat)
    inputs = [e.value(name) for name in node.inputs]
    e.operator("CONCATENATION", inputs, [e.value(node.output)], "Concatenation", axis=node.op.axis)


def _fused(e: _Emitter, node: Node) -> int:
    activation = getattr(node.op, "activation", None)
    name = FUSED.get(type(activation))
    if name is None:
        raise UnsupportedError(f"{node.name}: tflite cannot fuse {type(activation).__name__}; fuse only ReLU and ReLU6")
    return int(getattr(e.s.ActivationFunctionType, name))


FUSED = {type(None): "NONE", ops.ReLU: "RELU", ops.ReLU6: "RELU6"}

ROWS: dict[type[ops.Op], Callable[[_Emitter, Node], None]] = {
    ops.Conv: _conv,
    ops.Dense: _dense,
    ops.MaxPool: _pool("MAX_POOL_2D"),
    ops.AveragePool: _pool("AVERAGE_POOL_2D"),
    ops.Mean: _mean,
    ops.Add: _elementwise("ADD"),
    ops.Sub: _elementwise("SUB"),
    ops.Mul: _elementwise("MUL"),
    ops.ReLU: _plain("RELU"),
    ops.ReLU6: _plain("RELU6"),
    ops.Sigmoid: _plain("LOGISTIC"),
    ops.Tanh: _plain("TANH"),
    ops.Clip: _clip,
    ops.Softmax: _plain("SOFTMAX", "Softmax", beta=1.0),
    ops.Pad: _pad,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Concat: _concat,
}

TFLITE = TfliteFormat()
