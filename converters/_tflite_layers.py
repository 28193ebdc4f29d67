"""Rows of TFLite's dense layers, matrix products and reductions."""

from collections.abc import Callable
from typing import Any

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Node

from ._tflite_emitter import Spec, TfliteEmitter

HYBRID_VERSION = 9
"""Of FULLY_CONNECTED over float numbers with an int8 kernel, which gives the integers of each row of the input a zero
point. Behind a ReLU that halves the error (512 features: 0.34 % of the output, 0.67 % without), XNNPACK does it always.
Source: LiteRT, op_version.cc."""


def _dense(e: TfliteEmitter, node: Node) -> None:
    keep = len(e.shape(node.output)) > 2
    weights = e.kernel(node, lambda data: data.T)
    source = e.value(node.inputs[0])
    fields = {"fusedActivationFunction": e.fused(node), "keepNumDims": keep}
    version = 5 if keep else 1
    if e.dtype(source) == "float32" != e.dtype(weights):
        fields, version = fields | {"asymmetricQuantizeInputs": True}, HYBRID_VERSION
    spec = Spec(kind="FULLY_CONNECTED", options="FullyConnected", fields=fields, version=version)
    e.operator(spec, [source, weights, e.bias(node, weights)], [e.value(node.output)])


def _reduction(kind: str) -> Callable[[TfliteEmitter, Node], None]:
    def emit(e: TfliteEmitter, node: Node) -> None:
        op: Any = node.op
        spec = Spec(kind=kind, options="Reducer", fields={"keepDims": op.keep_dims})
        e.operator(spec, [e.value(node.inputs[0]), e.integers(f"{node.name}/axes", op.axes)], [e.value(node.output)])

    return emit


def _matmul(e: TfliteEmitter, node: Node) -> None:
    if max(map(len, e.graph.shapes(node.inputs))) > 5:
        raise UnsupportedError(f"{node.name}: tflite multiplies matrices of at most 5 axes. Choose --to onnx.")
    spec = Spec(kind="BATCH_MATMUL", options="BatchMatMul")
    e.operator(spec, [e.value(name) for name in node.inputs], [e.value(node.output)])


ROWS: dict[type[ops.Op], Callable[[TfliteEmitter, Node], None]] = {
    ops.Dense: _dense,
    ops.MatMul: _matmul,
    ops.Mean: _reduction("MEAN"),
    ops.Sum: _reduction("SUM"),
    ops.Max: _reduction("REDUCE_MAX"),
    ops.Min: _reduction("REDUCE_MIN"),
    ops.Prod: _reduction("REDUCE_PROD"),
}
