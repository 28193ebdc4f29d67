"""TFLite, emitted directly as a flatbuffer.

Every operator has the lowest version that fits, so that runtimes as old as the operator load the file. Explicit padding
that equals SAME or VALID costs nothing, any other costs one PAD. A SignatureDef names inputs and outputs.
Source: LiteRT, tflite/schema/schema.fbs and tflite/tools/versioning/op_version.cc.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecnn import ops
from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.graph import Graph, Node
from edgecnn.interfaces import Artifact

from ._flatbuffer import opened
from ._tflite_emitter import Spec, TfliteEmitter
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
    kernel, keep = e.shape(node.inputs[1]), len(e.shape(node.output)) > 2
    weights = e.arranged(node, "kernel", lambda data: data.T)
    fields = {"fusedActivationFunction": e.fused(node), "keepNumDims": keep}
    spec = Spec(kind="FULLY_CONNECTED", options="FullyConnected", fields=fields, version=5 if keep else 1)
    e.operator(spec, [e.value(node.inputs[0]), weights, e.bias(node, kernel[-1] or 0)], [e.value(node.output)])


def _mean(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    spec = Spec(kind="MEAN", options="Reducer", fields={"keepDims": op.keep_dims})
    e.operator(spec, [e.value(node.inputs[0]), e.integers(f"{node.name}/axes", op.axes)], [e.value(node.output)])


def _elementwise(kind: str) -> Callable[[TfliteEmitter, Node], None]:
    def emit(e: TfliteEmitter, node: Node) -> None:
        spec = Spec(kind=kind, options=kind.title(), fields={"fusedActivationFunction": e.fused(node)})
        e.operator(spec, [e.value(name) for name in node.inputs], [e.value(node.output)])

    return emit


def _plain(spec: Spec) -> Callable[[TfliteEmitter, Node], None]:
    """Return the row of an operator that takes its inputs as they are."""
    return lambda e, node: e.operator(spec, [e.value(name) for name in node.inputs], [e.value(node.output)])


def _clip(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    raised = e.tensor(f"{node.name}/raised", e.shape(node.output))
    low = e.scalar(f"{node.name}/minimum", op.minimum)
    high = e.scalar(f"{node.name}/maximum", op.maximum)
    e.operator(Spec(kind="MAXIMUM", options="MaximumMinimum"), [e.value(node.inputs[0]), low], [raised])
    e.operator(Spec(kind="MINIMUM", options="MaximumMinimum"), [raised, high], [e.value(node.output)])


def _pad(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    inputs = [e.value(node.inputs[0]), e.integers(f"{node.name}/padding", op.padding)]
    if op.value == 0:
        e.operator(Spec(kind="PAD", options="Pad"), inputs, [e.value(node.output)])
        return
    inputs.append(e.scalar(f"{node.name}/value", op.value))
    e.operator(Spec(kind="PADV2", options="PadV2"), inputs, [e.value(node.output)])


def _reshape(e: TfliteEmitter, node: Node) -> None:
    e.reshaped(e.value(node.inputs[0]), node.output, e.shape(node.output), e.value(node.output))


def _transpose(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    e.transpose(e.value(node.inputs[0]), op.permutation, e.value(node.output), node.name)


def _concat(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    spec = Spec(kind="CONCATENATION", options="Concatenation", fields={"axis": op.axis})
    e.operator(spec, [e.value(name) for name in node.inputs], [e.value(node.output)])


ROWS: dict[type[ops.Op], Callable[[TfliteEmitter, Node], None]] = {
    ops.Conv: conv,
    ops.Dense: _dense,
    ops.MaxPool: pool("MAX_POOL_2D"),
    ops.AveragePool: pool("AVERAGE_POOL_2D"),
    ops.Mean: _mean,
    ops.Add: _elementwise("ADD"),
    ops.Sub: _elementwise("SUB"),
    ops.Mul: _elementwise("MUL"),
    ops.ReLU: _plain(Spec(kind="RELU")),
    ops.ReLU6: _plain(Spec(kind="RELU6")),
    ops.Sigmoid: _plain(Spec(kind="LOGISTIC")),
    ops.Tanh: _plain(Spec(kind="TANH")),
    ops.Clip: _clip,
    ops.Softmax: _plain(Spec(kind="SOFTMAX", options="Softmax", fields={"beta": 1.0})),
    ops.Pad: _pad,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Concat: _concat,
}

TFLITE = TfliteFormat()
