"""One row per operator: which layers it becomes in OpenVINO."""

from collections.abc import Callable, Mapping

from edgecnn import ops
from edgecnn.graph import Node

from . import _openvino_layers, _openvino_moving
from ._ir_xml import Value
from ._openvino_emitter import ACTIVATIONS, OpenvinoEmitter


def _elementwise(kind: str) -> Callable[[OpenvinoEmitter, Node], Value]:
    return lambda e, node: e.layer(node, kind, e.operands(node), auto_broadcast="numpy")


def _prelu(e: OpenvinoEmitter, node: Node) -> Value:
    """Give a constant slope the input's rank: a vector would be taken for one number per axis 1."""
    x, slope = e.operands(node)
    known, rank = e.graph.constant(node, "slope"), len(x.dims)
    if known is not None and known.data is not None and len(slope.dims) < rank:
        data = known.data.reshape((1,) * (rank - known.data.ndim) + known.data.shape)
        slope = e.emit_constant(known.name, data, known.dtype)
    return e.layer(node, "PReLU", [x, slope])


def _activation(e: OpenvinoEmitter, node: Node) -> Value:
    return e.activation(node.op, e.operand(node), node.name)


def _abs(e: OpenvinoEmitter, node: Node) -> Value:
    """The larger of x and -x: OpenVINO 2026.4 moves Abs in front of a MaxPool, as if it never fell."""
    x = e.operand(node)
    return e.layer(node, "Maximum", [x, e.step(node, "Negative", [x], "negated")], auto_broadcast="numpy")


def _softmax(e: OpenvinoEmitter, node: Node) -> Value:
    return e.layer(node, "SoftMax", e.operands(node), axis=e.channel_axis(node))


def _unary(kind: str) -> Callable[[OpenvinoEmitter, Node], Value]:
    return lambda e, node: e.layer(node, kind, e.operands(node))


def _cast(e: OpenvinoEmitter, node: Node) -> Value:
    return e.layer(node, "Convert", e.operands(node), destination_type=e.stored(node.output)[0])


ROWS: Mapping[type[ops.Op], Callable[[OpenvinoEmitter, Node], Value | list[Value]]] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    **_openvino_layers.ROWS,
    **_openvino_moving.ROWS,
    ops.Add: _elementwise("Add"),
    ops.Sub: _elementwise("Subtract"),
    ops.Mul: _elementwise("Multiply"),
    ops.Div: _elementwise("Divide"),
    ops.Maximum: _elementwise("Maximum"),
    ops.Minimum: _elementwise("Minimum"),
    ops.Pow: _elementwise("Power"),
    ops.PReLU: _prelu,
    ops.Abs: _abs,
    ops.Softmax: _softmax,
    ops.Cast: _cast,
    ops.Greater: _elementwise("Greater"),
    ops.GreaterOrEqual: _elementwise("GreaterEqual"),
    ops.Less: _elementwise("Less"),
    ops.LessOrEqual: _elementwise("LessEqual"),
    ops.Equal: _elementwise("Equal"),
    ops.And: _elementwise("LogicalAnd"),
    ops.Or: _elementwise("LogicalOr"),
    ops.Not: _unary("LogicalNot"),
    ops.Where: _elementwise("Select"),
}
"""Operator -> how it is written."""
