"""Rows of TFLite's dense layers, normalisation and reductions."""

from collections.abc import Callable
from typing import Any

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Node

from ._tflite_emitter import Spec, TfliteEmitter


def _dense(e: TfliteEmitter, node: Node) -> None:
    kernel, keep = e.shape(node.inputs[1]), len(e.shape(node.output)) > 2
    weights = e.arranged(node, "kernel", lambda data: data.T)
    fields = {"fusedActivationFunction": e.fused(node), "keepNumDims": keep}
    spec = Spec(kind="FULLY_CONNECTED", options="FullyConnected", fields=fields, version=5 if keep else 1)
    e.operator(spec, [e.value(node.inputs[0]), weights, e.bias(node, kernel[-1] or 0)], [e.value(node.output)])


def _reduction(kind: str) -> Callable[[TfliteEmitter, Node], None]:
    def emit(e: TfliteEmitter, node: Node) -> None:
        op: Any = node.op
        spec = Spec(kind=kind, options="Reducer", fields={"keepDims": op.keep_dims})
        e.operator(spec, [e.value(node.inputs[0]), e.integers(f"{node.name}/axes", op.axes)], [e.value(node.output)])

    return emit


def _layer_norm(e: TfliteEmitter, node: Node) -> None:
    """TFLite has no operator for it: its definition, with the reciprocal square root."""
    op: Any = node.op
    shape, (x, gamma, beta) = e.shape(node.output), map(e.value, node.inputs)
    narrow, axes = (*shape[:-1], 1), e.integers(f"{node.name}/axes", [len(shape) - 1])
    mean_of = Spec(kind="MEAN", options="Reducer", fields={"keepDims": True})
    add, mul = Spec(kind="ADD", options="Add"), Spec(kind="MUL", options="Mul")

    mean = e.step(f"{node.name}/mean", narrow, mean_of, [x, axes])
    squared = Spec(kind="SQUARED_DIFFERENCE", options="SquaredDifference")
    variance = e.step(f"{node.name}/squares", shape, squared, [x, mean])
    variance = e.step(f"{node.name}/variance", narrow, mean_of, [variance, axes])
    raised = e.step(f"{node.name}/raised", narrow, add, [variance, e.scalar(f"{node.name}/epsilon", op.epsilon)])
    factor = e.step(f"{node.name}/factor", narrow, Spec(kind="RSQRT"), [raised])
    centred = e.step(f"{node.name}/centred", shape, Spec(kind="SUB", options="Sub"), [x, mean])
    normal = e.step(f"{node.name}/normal", shape, mul, [centred, factor])
    scaled = e.step(f"{node.name}/scaled", shape, mul, [normal, gamma])
    e.operator(add, [scaled, beta], [e.value(node.output)])


def _lrn(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    if len(e.shape(node.output)) != 4:
        raise UnsupportedError(f"{node.name}: tflite normalises images (N, height, width, C) locally; got another rank")
    fields = {"radius": op.size // 2, "bias": op.bias, "alpha": op.alpha, "beta": op.beta}
    spec = Spec(kind="LOCAL_RESPONSE_NORMALIZATION", options="LocalResponseNormalization", fields=fields)
    e.operator(spec, [e.value(node.inputs[0])], [e.value(node.output)])


ROWS: dict[type[ops.Op], Callable[[TfliteEmitter, Node], None]] = {
    ops.Dense: _dense,
    ops.LayerNorm: _layer_norm,
    ops.LRN: _lrn,
    ops.Mean: _reduction("MEAN"),
    ops.Sum: _reduction("SUM"),
    ops.Max: _reduction("REDUCE_MAX"),
}
