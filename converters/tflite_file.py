"""TFLite, emitted directly as a flatbuffer.

Every operator has the lowest version that fits, so that runtimes as old as the operator load the file. Explicit padding
that equals SAME or VALID costs nothing, any other costs one PAD. A SignatureDef names inputs and outputs.
Source: LiteRT, tflite/schema/schema.fbs and tflite/tools/versioning/op_version.cc.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgecnn import ops
from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.graph import Graph, Node
from edgecnn.interfaces import Artifact

from ._flatbuffer import opened
from ._tflite_emitter import TfliteEmitter
from ._tflite_windows import conv, pool
from ._writing import contract_json, describe, refuse_unknown


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
        emitter = TfliteEmitter(graph)
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


def _dense(e: TfliteEmitter, node: Node) -> None:
    kernel = e.shape(node.inputs[1])
    weights = e.arranged(node, "kernel", lambda data: data.T)
    keep = len(e.shape(node.output)) > 2
    e.operator(
        "FULLY_CONNECTED",
        [e.value(node.inputs[0]), weights, e.bias(node, kernel[-1] or 0)],
        [e.value(node.output)],
        "FullyConnected",
        version=5 if keep else 1,
        fusedActivationFunction=e.fused(node),
        keepNumDims=keep,
    )


def _mean(e: TfliteEmitter, node: Node) -> None:
    assert isinstance(node.op, ops.Mean)
    axes = e.integers(f"{node.name}/axes", node.op.axes)
    e.operator("MEAN", [e.value(node.inputs[0]), axes], [e.value(node.output)], "Reducer", keepDims=node.op.keep_dims)


def _elementwise(kind: str) -> Callable[[TfliteEmitter, Node], None]:
    def emit(e: TfliteEmitter, node: Node) -> None:
        inputs = [e.value(name) for name in node.inputs]
        e.operator(kind, inputs, [e.value(node.output)], kind.title(), fusedActivationFunction=e.fused(node))

    return emit


def _plain(kind: str, options: str = "", **fields: object) -> Callable[[TfliteEmitter, Node], None]:
    """Return the row of an operator that takes its inputs as they are."""
    return lambda e, node: e.operator(
        kind, [e.value(name) for name in node.inputs], [e.value(node.output)], options, **fields
    )


def _clip(e: TfliteEmitter, node: Node) -> None:
    assert isinstance(node.op, ops.Clip)
    source, name = e.value(node.inputs[0]), node.name
    raised = e.tensor(f"{name}/raised", e.shape(node.output))
    low = e.constant(f"{name}/minimum", np.float32([node.op.minimum]).reshape(()), "float32")
    high = e.constant(f"{name}/maximum", np.float32([node.op.maximum]).reshape(()), "float32")
    e.operator("MAXIMUM", [source, low], [raised], "MaximumMinimum")
    e.operator("MINIMUM", [raised, high], [e.value(node.output)], "MaximumMinimum")


def _pad(e: TfliteEmitter, node: Node) -> None:
    assert isinstance(node.op, ops.Pad)
    inputs = [e.value(node.inputs[0]), e.integers(f"{node.name}/padding", node.op.padding)]
    if node.op.value == 0:
        e.operator("PAD", inputs, [e.value(node.output)], "Pad")
        return
    value = e.constant(f"{node.name}/value", np.float32(node.op.value).reshape(()), "float32")
    e.operator("PADV2", [*inputs, value], [e.value(node.output)], "PadV2")


def _reshape(e: TfliteEmitter, node: Node) -> None:
    e.reshaped(e.value(node.inputs[0]), node.output, e.shape(node.output), e.value(node.output))


def _transpose(e: TfliteEmitter, node: Node) -> None:
    assert isinstance(node.op, ops.Transpose)
    e.transpose(e.value(node.inputs[0]), node.op.permutation, e.value(node.output), node.name)


def _concat(e: TfliteEmitter, node: Node) -> None:
    assert isinstance(node.op, ops.Concat)
    inputs = [e.value(name) for name in node.inputs]
    e.operator("CONCATENATION", inputs, [e.value(node.output)], "Concatenation", axis=node.op.axis)


ROWS: dict[type[ops.Op], Callable[[TfliteEmitter, Node], None]] = {
    ops.Conv: conv,
    ops.Dense: _dense,
    ops.MaxPool: pool("MAX_POOL_2D"),
    ops.AveragePool: pool("AVERAGE_POOL_2D"),
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
