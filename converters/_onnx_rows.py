"""One row per operator: what it becomes in ONNX, and which opset that needs."""

from collections.abc import Callable, Mapping

from edgecnn import ops
from edgecnn.graph import Graph, Node

from . import _onnx_layers, _onnx_moving
from ._onnx_emitter import ACTIVATIONS, OnnxEmitter, Place
from ._stored_integers import meaning, of_whole

FLOOR = 17
"""The opset of a Graph that needs no later one."""

BEYOND_THE_FLOOR: dict[type[ops.Op], Callable[[Graph, Node], int]] = {ops.GELU: lambda graph, node: 20}
"""Operator -> the opset that its row needs."""


OF_16_BITS = 21
"""The first opset whose QuantizeLinear gives 16 bits. Source: onnx/onnx, docs/Changelog.md."""


def lowest_opset(graph: Graph) -> int:
    """Return the lowest opset that carries a Graph."""
    nodes = (BEYOND_THE_FLOOR[type(n.op)](graph, n) for n in graph.nodes if type(n.op) in BEYOND_THE_FLOOR)
    is_of_16_bits = any(t.quantization is not None and t.stored_dtype.endswith("16") for t in graph.tensors.values())
    return max(FLOOR, OF_16_BITS if is_of_16_bits else FLOOR, *nodes)


def _elementwise(kind: str) -> Callable[[OnnxEmitter, Node], str]:
    return lambda e, node: e.layer(node, kind, e.operands(node))


def _activation(e: OnnxEmitter, node: Node) -> str:
    (source,) = e.operands(node)
    return e.activation(node.op, Place(source, node.name, e.value_name(node.output), e.dtype(node)))


def _softmax(e: OnnxEmitter, node: Node) -> str:
    return e.layer(node, "Softmax", e.operands(node), axis=e.channel_axis(node))


def _cast(e: OnnxEmitter, node: Node) -> str:
    return e.layer(node, "Cast", e.operands(node), to=e.tensor_type(e.dtype(node)))


def _quantize(e: OnnxEmitter, node: Node) -> str:
    return e.layer(node, "QuantizeLinear", [*e.operands(node), *_parameters(e, node.output)])


def _dequantize(e: OnnxEmitter, node: Node) -> str:
    return e.layer(node, "DequantizeLinear", [*e.operands(node), *_parameters(e, node.inputs[0])])


def _parameters(e: OnnxEmitter, tensor: str) -> list[str]:
    """Return scale and zero point of a computed tensor of integers."""
    stored = e.graph.tensors[tensor]
    return e.parameters(tensor, meaning(of_whole(stored), stored.shape))


ROWS: Mapping[type[ops.Op], Callable[[OnnxEmitter, Node], str | list[str]]] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    **_onnx_layers.ROWS,
    **_onnx_moving.ROWS,
    ops.Add: _elementwise("Add"),
    ops.Sub: _elementwise("Sub"),
    ops.Mul: _elementwise("Mul"),
    ops.Div: _elementwise("Div"),
    ops.Maximum: _elementwise("Max"),
    ops.Minimum: _elementwise("Min"),
    ops.Pow: _elementwise("Pow"),
    ops.PReLU: _elementwise("PRelu"),
    ops.Softmax: _softmax,
    ops.Cast: _cast,
    ops.Quantize: _quantize,
    ops.Dequantize: _dequantize,
    ops.Greater: _elementwise("Greater"),
    ops.GreaterOrEqual: _elementwise("GreaterOrEqual"),
    ops.Less: _elementwise("Less"),
    ops.LessOrEqual: _elementwise("LessOrEqual"),
    ops.Equal: _elementwise("Equal"),
    ops.And: _elementwise("And"),
    ops.Or: _elementwise("Or"),
    ops.Not: _elementwise("Not"),
    ops.Where: _elementwise("Where"),
}
"""Operator -> how it is written."""
