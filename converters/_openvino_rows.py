"""One row per operator: which layers it becomes in OpenVINO."""

from collections.abc import Callable, Mapping

from edgecnn import ops
from edgecnn.graph import Node
from edgecnn.passes.hold_for_format import ChannelsFirst
from edgecnn.quantization.rules import WEIGHTED

from . import _openvino_layers, _openvino_moving
from ._ir_xml import Value
from ._openvino_emitter import ACTIVATIONS, OpenvinoEmitter
from ._stored_integers import meaning, of_whole


def _elementwise(kind: str) -> Callable[[OpenvinoEmitter, Node], Value]:
    return lambda e, node: e.layer(node, kind, e.operands(node), auto_broadcast="numpy")


def _prelu(e: OpenvinoEmitter, node: Node) -> Value:
    """Give a constant slope the input's rank: a vector would be taken for one number per axis 1."""
    x, slope = e.operands(node)
    ones = (1,) * (len(x.dims) - len(slope.dims))
    if ones and e.graph.constant(node, "slope") is not None:
        return e.layer(
            node, "PReLU", [x, e.constant(node, "slope", lambda data: data.reshape(ones + data.shape)) or slope]
        )
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


def _quantize(e: OpenvinoEmitter, node: Node) -> Value:
    """FakeQuantize to the numbers that the integers stand for, and to the integers themselves for a port of them."""
    found, x = of_whole(e.graph.tensors[node.output]), e.operand(node)
    least, most = found.limits
    is_port = any(port.tensor == node.output for port in e.graph.outputs)
    if any(node.output in taker.inputs for taker in e.graph.nodes) or not is_port:
        e.rounded[node.output] = _rounded(e, node, node.output, "rounded", x, found.range)
    if not is_port:
        return e.rounded[node.output]
    like = e.stored(node.output)
    integers = _rounded(e, node, node.output, "integers", x, (least, most))
    return e.layer(node, "Convert", [integers], destination_type=like[0])


def _rounded(e: OpenvinoEmitter, node: Node, tensor: str, label: str, x: Value, after: tuple[float, float]) -> Value:
    """Round numbers to those that a tensor's integers stand for, and give them in another range."""
    found = of_whole(e.graph.tensors[tensor])
    levels = found.limits[1] - found.limits[0] + 1
    names = ("input_low", "input_high", "output_low", "output_high")
    limits = [e.scalar(f"{node.name}/{name}", limit) for name, limit in zip(names, (*found.range, *after), strict=True)]
    return e.step(node, "FakeQuantize", [x, *limits], label, levels=levels, auto_broadcast="numpy")


def _dequantize(e: OpenvinoEmitter, node: Node) -> Value:
    """What FakeQuantize gave already; of a port, Convert, Subtract and Multiply.

    A FakeQuantize behind a Subtract changes nothing, but without one OpenVINO 2026.4 computes the first layer in float.
    """
    (source,) = node.inputs
    if source in e.rounded:
        return e.rounded[source]
    known = e.graph.tensors[source]
    found = of_whole(known)
    value = e.dequantized(node.name, e.operand(node), meaning(found, known.shape))
    is_rounded = any(found.zero_point) and _feeds_layer(e, node.output)
    return _rounded(e, node, source, "again", value, found.range) if is_rounded else value


def _feeds_layer(e: OpenvinoEmitter, tensor: str) -> bool:
    """Tell whether a layer with a kernel takes a tensor, maybe padded or with its axes in another order."""
    takers = [node for node in e.graph.nodes if tensor in node.inputs]
    unwrapped = [(node, node.op.op if isinstance(node.op, ChannelsFirst) else node.op) for node in takers]
    return any(isinstance(op, WEIGHTED) for _, op in unwrapped) or any(
        _feeds_layer(e, node.output) for node, op in unwrapped if isinstance(op, ops.Transpose | ops.Pad | ops.Reshape)
    )


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
    ops.Quantize: _quantize,
    ops.Dequantize: _dequantize,
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
