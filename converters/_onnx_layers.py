"""Rows of ONNX: convolutions, pools, dense layers, normalisation and reductions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Node
from edgecnn.shapes import Padding

from ._channels_first import kernel_first, least_padding, transposed_kernel_first
from ._onnx_emitter import OnnxEmitter

Row = Callable[[OnnxEmitter, Node], str]


def _conv(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return _convolution(e, node, "Conv", kernel_first, op.padding, group=op.groups)


def _conv_transpose(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op

    def arrange(data: Array) -> Array:
        kernel = transposed_kernel_first(data, op.groups)
        return kernel.reshape(-1, *kernel.shape[2:])

    padding, extra = least_padding(op)
    if any(more >= max(pair) for more, pair in zip(extra, zip(op.stride, op.dilation, strict=True), strict=True)):
        raise UnsupportedError(
            f"{node.name}: onnx: an output_padding below the larger of stride and dilation was wanted; got {extra}. "
            "Choose another format."
        )
    return _convolution(e, node, "ConvTranspose", arrange, padding, group=op.groups, output_padding=extra)


def _convolution(
    e: OnnxEmitter, node: Node, kind: str, arrange: Callable[[Array], Array], padding: Padding, **own: Any
) -> str:
    """Add a convolution of either direction; `own` are the attributes that differ."""
    op: Any = node.op
    if node.name in e.dynamic:
        raise UnsupportedError(
            f"{node.name}: onnx: a convolution in float or of calibrated ranges was wanted; got one whose ranges are "
            "found while it runs, in which ONNX Runtime is half as fast as in float. Choose --recipe weight_only_w8 "
            "or static_w8_a8, or --to tflite."
        )
    return e.layer(
        node,
        kind,
        [e.operand(node), e.constant(node, "kernel", arrange), e.constant(node, "bias")],
        kernel_shape=e.graph.tensors[node.inputs[1]].shape[:-2],
        strides=op.stride,
        dilations=op.dilation,
        pads=pads(padding),
        **own,
    )


def _dense(e: OnnxEmitter, node: Node) -> str:
    if node.name in e.dynamic:
        return _dynamic_dense(e, node)
    x, kernel, bias = e.operand(node), e.constant(node, "kernel"), e.constant(node, "bias")
    if _is_float_behind_integers(e, node):
        product = {"equation": "...i,io->...o"}
        if bias is None:
            return e.layer(node, "Einsum", [x, kernel], **product)
        return e.layer(node, "Add", [e.step(node, "Einsum", [x, kernel], "product", **product), bias])
    if len(e.graph.tensors[node.inputs[0]].shape) == 2:
        return e.layer(node, "Gemm", [x, kernel, bias])
    if bias is None:
        return e.layer(node, "MatMul", [x, kernel])
    return e.layer(node, "Add", [e.step(node, "MatMul", [x, kernel], "product"), bias])


def _is_float_behind_integers(e: OnnxEmitter, node: Node) -> bool:
    """Tell whether a dense layer computes in float what was integers before.

    ONNX Runtime (WeightBiasQuantization, and MatMulNBits from 1.32 on) computes a Gemm or MatMul in 8 bits there, even
    where the integers before it have 16; an Einsum it leaves alone.
    """
    before = [each for each in e.graph.nodes if node.inputs[0] in each.outputs]
    return any(isinstance(each.op, ops.Dequantize) for each in before) and node.inputs[1] not in e.in_integers


def _dynamic_dense(e: OnnxEmitter, node: Node) -> str:
    """MatMulInteger of what DynamicQuantizeLinear makes of the input, in the order that ONNX Runtime fuses."""
    kernel, means = e.bare(node.inputs[1])
    names = [e.free(f"{node.name}/{label}") for label in ("integers", "scale", "zero_point")]
    e.add("DynamicQuantizeLinear", [e.operand(node)], f"{node.name}/quantize", names)
    zero_point = e.parameters(node.inputs[1], means)[1]
    product = e.step(node, "MatMulInteger", [names[0], kernel, names[2], zero_point], "product")
    wide = e.step(node, "Cast", [product], "wide", to=e.tensor_type("float32"))
    scale = e.step(node, "Mul", [names[1], e.parameters(node.inputs[1], means)[0]], "scales")
    bias = e.constant(node, "bias")
    if bias is None:
        return e.layer(node, "Mul", [wide, scale])
    return e.layer(node, "Add", [e.step(node, "Mul", [wide, scale], "numbers"), bias])


def _mat_mul(e: OnnxEmitter, node: Node) -> str:
    return e.layer(node, "MatMul", e.operands(node))


def _max_pool(e: OnnxEmitter, node: Node) -> str:
    return e.layer(node, "MaxPool", [e.operand(node)], **_window(node.op))


def _average_pool(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    counted = {"count_include_pad": 1} if op.count_include_pad else {}
    return e.layer(node, "AveragePool", [e.operand(node)], **_window(op), **counted)


def _window(op: Any) -> dict[str, Any]:
    return {"kernel_shape": op.kernel_size, "strides": op.stride, "pads": pads(op.padding)}


def _mean(e: OnnxEmitter, node: Node) -> str:
    """In a quantized network, a mean over all positions is the pool that ONNX Runtime has in integers."""
    op: Any = node.op
    rank = len(e.graph.tensors[node.inputs[0]].shape)
    if e.is_quantized and rank > 2 and op.keep_dims and op.axes == tuple(range(2, rank)):
        return e.layer(node, "GlobalAveragePool", [e.operand(node)])
    return _reduction("ReduceMean")(e, node)


def _reduction(kind: str) -> Row:
    def emit(e: OnnxEmitter, node: Node) -> str:
        op: Any = node.op
        inputs, attributes = e.axes(node, kind, op.axes)
        return e.layer(node, kind, [e.operand(node), *inputs], **attributes, keepdims=int(op.keep_dims))

    return emit


def _arg_max(e: OnnxEmitter, node: Node) -> str:
    """Write ArgMax, which gives int64 in ONNX."""
    op: Any = node.op
    source = e.operand(node)
    attributes = {"axis": op.axis, "keepdims": int(op.keep_dims)}
    if op.dtype == "int64":
        return e.layer(node, "ArgMax", [source], **attributes)
    return e.layer(node, "Cast", [e.step(node, "ArgMax", [source], "int64", **attributes)], to=e.tensor_type(op.dtype))


def _layer_norm(e: OnnxEmitter, node: Node) -> str:
    """LayerNormalization where channels come last; where they come first, its definition."""
    op: Any = node.op
    axis, x, rank = e.channel_axis(node), e.operand(node), len(e.graph.tensors[node.output].shape)
    if axis == rank - 1:
        return e.layer(node, "LayerNormalization", e.operands(node), axis=-1, epsilon=op.epsilon)
    ones = [1] * (rank - 2)
    gamma, beta = (e.constant(node, name, lambda data: data.reshape(-1, *ones)) for name in ("gamma", "beta"))
    inputs, attributes = e.axes(node, "ReduceMean", [axis])
    centred = e.step(node, "Sub", [x, e.step(node, "ReduceMean", [x, *inputs], "mean", **attributes)], "centred")
    square = e.step(node, "Mul", [centred, centred], "square")
    variance = e.step(node, "ReduceMean", [square, *inputs], "variance", **attributes)
    raised = e.step(node, "Add", [variance, e.scalar(op.epsilon, e.dtype(node))], "raised")
    deviation = e.step(node, "Sqrt", [raised], "deviation")
    scaled = e.step(node, "Mul", [e.step(node, "Div", [centred, deviation], "normal"), gamma], "scaled")
    return e.layer(node, "Add", [scaled, beta])


def _group_norm(e: OnnxEmitter, node: Node) -> str:
    """InstanceNormalization; with fewer groups than channels, of each group laid out as one channel.

    GroupNormalization has a scale and bias for each channel from opset 21 on only (for each group before).
    """
    op: Any = node.op
    batch, channels, *sizes = e.sizes(node.output)
    if op.groups == channels:
        operands = [e.operand(node), e.constant(node, "gamma"), e.constant(node, "beta")]
        return e.layer(node, "InstanceNormalization", operands, epsilon=op.epsilon)
    runs = e.step(node, "Reshape", [e.operand(node), e.integers(f"{node.name}/runs", [0, op.groups, -1])], "cut")
    each = [e.emit_constant(f"{node.name}/{n}", np.full(op.groups, n, np.float32), e.dtype(node)) for n in (1, 0)]
    normal = e.step(node, "InstanceNormalization", [runs, *each], "normal", epsilon=op.epsilon)
    shape = e.integers(f"{node.name}/shape", [batch, channels, *sizes])
    image = e.step(node, "Reshape", [normal, shape], "joined")

    def column(data: Array) -> Array:
        return data.reshape(-1, *[1] * len(sizes))

    scaled = e.step(node, "Mul", [image, e.constant(node, "gamma", column)], "scaled")
    return e.layer(node, "Add", [scaled, e.constant(node, "beta", column)])


def _l2_normalize(e: OnnxEmitter, node: Node) -> str:
    """X / max(||x||, epsilon), spelled out: LpNormalization has no epsilon."""
    op: Any = node.op
    (x,) = e.operands(node)
    inputs, attributes = e.axes(node, "ReduceL2", [e.channel_axis(node)])
    norm = e.step(node, "ReduceL2", [x, *inputs], "norm", **attributes, keepdims=1)
    return e.layer(node, "Div", [x, e.step(node, "Clip", [norm, e.scalar(op.epsilon, e.dtype(node))], "divisor")])


def _lrn(e: OnnxEmitter, node: Node) -> str:
    """ONNX divides its alpha by the size of the window; the Graph does not."""
    op: Any = node.op
    factors = {"alpha": op.alpha * op.size, "beta": op.beta, "bias": op.bias}
    return e.layer(
        node, "LRN", [e.operand(node)], size=op.size, **{key: float(value) for key, value in factors.items()}
    )


def pads(padding: Padding) -> list[int]:
    """Return padding as ONNX lists it: all the befores, then all the afters."""
    return [before for before, _ in padding] + [after for _, after in padding]


ROWS: dict[type[ops.Op], Row] = {
    ops.Conv: _conv,
    ops.ConvTranspose: _conv_transpose,
    ops.Dense: _dense,
    ops.MatMul: _mat_mul,
    ops.LayerNorm: _layer_norm,
    ops.GroupNorm: _group_norm,
    ops.L2Normalize: _l2_normalize,
    ops.LRN: _lrn,
    ops.MaxPool: _max_pool,
    ops.AveragePool: _average_pool,
    ops.Mean: _mean,
    ops.Sum: _reduction("ReduceSum"),
    ops.Max: _reduction("ReduceMax"),
    ops.Min: _reduction("ReduceMin"),
    ops.Prod: _reduction("ReduceProd"),
    ops.ArgMax: _arg_max,
}
"""Operator -> how it is written."""
