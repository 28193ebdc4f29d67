"""One row per operator: what it becomes in ONNX, and which opset that needs."""

from collections.abc import Callable
from typing import Any

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node
from edgecnn.shapes import Padding

from ._channels_first import kernel_first, transposed_kernel_first
from ._onnx_emitter import ACTIVATIONS, OnnxEmitter

FLOOR = 17
"""The opset of a Graph that needs no later one."""

BEYOND_THE_FLOOR: dict[type[ops.Op], Callable[[Graph, Node], int]] = {
    ops.GELU: lambda graph, node: 20,
    ops.Resize: lambda graph, node: 18 if graph.tensors[node.output].shape[0] is None else FLOOR,
}
"""Operator -> the opset that its row needs; a Resize can leave the batch alone from 18 on (its attribute axes)."""


def lowest_opset(graph: Graph) -> int:
    """Return the lowest opset that carries a Graph."""
    return max(
        (BEYOND_THE_FLOOR[type(n.op)](graph, n) for n in graph.nodes if type(n.op) in BEYOND_THE_FLOOR), default=FLOOR
    )


def _conv(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return _convolution(e, node, "Conv", kernel_first, group=op.groups)


def _conv_transpose(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return _convolution(e, node, "ConvTranspose", transposed_kernel_first, output_padding=op.output_padding)


def _convolution(e: OnnxEmitter, node: Node, kind: str, arrange: Callable[[Array], Array], **own: Any) -> str:
    """Add a convolution of either direction; `own` are the attributes that the other one does not have."""
    op: Any = node.op
    return e.layer(
        node,
        kind,
        [e.image(node), e.constant(node, "kernel", arrange), e.constant(node, "bias")],
        kernel_shape=e.graph.tensors[node.inputs[1]].shape[:-2],
        strides=op.stride,
        dilations=op.dilation,
        pads=pads(op.padding),
        **own,
    )


def _dense(e: OnnxEmitter, node: Node) -> str:
    x, kernel, bias = e.plain(node), e.constant(node, "kernel"), e.constant(node, "bias")
    if len(e.graph.tensors[node.inputs[0]].shape) == 2:
        return e.layer(node, "Gemm", [x, kernel, bias])
    if bias is None:
        return e.layer(node, "MatMul", [x, kernel])
    product = e.node("MatMul", [x, kernel], f"{node.name}/product", e.free(f"{node.name}/product"))
    return e.layer(node, "Add", [product, bias])


def _pool(kind: str) -> Callable[[OnnxEmitter, Node], str]:
    def emit(e: OnnxEmitter, node: Node) -> str:
        op: Any = node.op
        sizes = {"kernel_shape": op.kernel_size, "strides": op.stride, "pads": pads(op.padding)}
        return e.layer(node, kind, [e.image(node)], **sizes)

    return emit


def _reduction(kind: str) -> Callable[[OnnxEmitter, Node], str]:
    def emit(e: OnnxEmitter, node: Node) -> str:
        op: Any = node.op
        source, found = e.reduced(node, op.axes, keep_dims=op.keep_dims)
        inputs, attributes = e.axes(node, kind, found)
        return e.layer(node, kind, [source, *inputs], **attributes, keepdims=int(op.keep_dims))

    return emit


def _layer_norm(e: OnnxEmitter, node: Node) -> str:
    """LayerNormalization where channels come last; where they come first, its definition."""
    op: Any = node.op
    axis, (x, gamma, beta) = e.last_axis(node), e.operands(node)
    if axis == len(e.graph.tensors[node.output].shape) - 1:
        return e.layer(node, "LayerNormalization", [x, gamma, beta], axis=-1, epsilon=op.epsilon)
    inputs, attributes = e.axes(node, "ReduceMean", [axis])
    centred = e.step(node, "Sub", [x, e.step(node, "ReduceMean", [x, *inputs], "mean", **attributes)], "centred")
    square = e.step(node, "Mul", [centred, centred], "square")
    variance = e.step(node, "ReduceMean", [square, *inputs], "variance", **attributes)
    deviation = e.step(node, "Sqrt", [e.step(node, "Add", [variance, e.scalar(op.epsilon)], "raised")], "deviation")
    scaled = e.step(node, "Mul", [e.step(node, "Div", [centred, deviation], "normal"), gamma], "scaled")
    return e.layer(node, "Add", [scaled, beta])


def _lrn(e: OnnxEmitter, node: Node) -> str:
    """ONNX divides its alpha by the size of the window; the Graph does not."""
    op: Any = node.op
    factors = {"alpha": op.alpha * op.size, "beta": op.beta, "bias": op.bias}
    return e.layer(node, "LRN", [e.image(node)], size=op.size, **{key: float(value) for key, value in factors.items()})


def _elementwise(kind: str) -> Callable[[OnnxEmitter, Node], str]:
    return lambda e, node: e.layer(node, kind, e.operands(node))


def _activation(e: OnnxEmitter, node: Node) -> str:
    return e.activation(node.op, e.operands(node)[0], node.name, e.value_name(node.output))


def _softmax(e: OnnxEmitter, node: Node) -> str:
    return e.layer(node, "Softmax", e.operands(node), axis=e.last_axis(node))


def _pad(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    pairs: Any = e.by_axis(node.output, op.padding)
    amounts = e.integers(f"{node.name}/padding", pads(pairs))
    return e.layer(node, "Pad", [e.operands(node)[0], amounts, e.scalar(op.value)], mode="constant")


def _reshape(e: OnnxEmitter, node: Node) -> str:
    source, sizes = e.reshaped(node)
    return e.layer(node, "Reshape", [source, e.integers(f"{node.name}/shape", sizes)])


def _concat(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return e.layer(node, "Concat", e.operands(node), axis=e.axis(node.output, op.axis))


def _slice(e: OnnxEmitter, node: Node) -> str:
    boxes = e.boxes(node)
    columns = {name: [box[place] for box in boxes] for place, name in enumerate(("begin", "end", "step"))}
    columns |= {"axes": list(range(len(boxes)))}
    order = ("begin", "end", "axes", "step")
    inputs = [e.integers(f"{node.name}/{name}", columns[name]) for name in order]
    return e.layer(node, "Slice", [e.operands(node)[0], *inputs])


def _resize(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    batch, *_, channels = e.graph.tensors[node.output].shape
    sizes, attributes = list(op.size), {"coordinate_transformation_mode": op.coordinates}
    if op.method == "nearest":
        attributes["nearest_mode"] = "floor" if op.coordinates == "asymmetric" else "round_prefer_ceil"
    if batch is None:
        axes = {"axes": list(range(2, 2 + len(sizes)))}
    else:
        sizes, axes = [batch, channels or 0, *sizes], {}
    mode = {"nearest": "nearest", "bilinear": "linear"}[op.method]
    wanted = e.integers(f"{node.name}/sizes", sizes)
    return e.layer(node, "Resize", [e.image(node), None, None, wanted], mode=mode, **attributes, **axes)


def _depth_to_space(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return e.layer(node, "DepthToSpace", [e.image(node)], blocksize=op.block, mode="DCR")


def _space_to_depth(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return e.layer(node, "SpaceToDepth", [e.image(node)], blocksize=op.block)


def pads(padding: Padding) -> list[int]:
    """Return padding as ONNX lists it: all the befores, then all the afters."""
    return [before for before, _ in padding] + [after for _, after in padding]


ROWS: dict[type[ops.Op], Callable[[OnnxEmitter, Node], str]] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    ops.Conv: _conv,
    ops.ConvTranspose: _conv_transpose,
    ops.Dense: _dense,
    ops.LayerNorm: _layer_norm,
    ops.LRN: _lrn,
    ops.MaxPool: _pool("MaxPool"),
    ops.AveragePool: _pool("AveragePool"),
    ops.Mean: _reduction("ReduceMean"),
    ops.Sum: _reduction("ReduceSum"),
    ops.Max: _reduction("ReduceMax"),
    ops.Add: _elementwise("Add"),
    ops.Sub: _elementwise("Sub"),
    ops.Mul: _elementwise("Mul"),
    ops.Div: _elementwise("Div"),
    ops.Maximum: _elementwise("Max"),
    ops.Minimum: _elementwise("Min"),
    ops.Pow: _elementwise("Pow"),
    ops.PReLU: _elementwise("PRelu"),
    ops.Softmax: _softmax,
    ops.Pad: _pad,
    ops.Reshape: _reshape,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Resize: _resize,
    ops.DepthToSpace: _depth_to_space,
    ops.SpaceToDepth: _space_to_depth,
}
"""Operator -> how it is written; a Transpose is the emitter's own business."""
