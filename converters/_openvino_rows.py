"""One row per operator: which layers it becomes in OpenVINO."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Node
from edgecnn.shapes import Padding

from ._channels_first import kernel_first, transposed_kernel_first
from ._ir_xml import Value
from ._openvino_emitter import ACTIVATIONS, OpenvinoEmitter


def _conv(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    rank = len(op.stride)

    def grouped(data: Array) -> Array:
        kernel = kernel_first(data)
        return kernel if op.groups == 1 else kernel.reshape(op.groups, -1, *kernel.shape[1:])

    kernel: Any = e.constant(node, "kernel", grouped)
    bias = e.constant(node, "bias", lambda data: data.reshape(1, -1, *[1] * rank))
    return e.layer(
        node,
        "Convolution" if op.groups == 1 else "GroupConvolution",
        [e.image(node), kernel],
        bias,
        strides=op.stride,
        dilations=op.dilation,
        **pads(op.padding),
        auto_pad="explicit",
    )


def _conv_transpose(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    kernel: Any = e.constant(node, "kernel", transposed_kernel_first)
    bias = e.constant(node, "bias", lambda data: data.reshape(1, -1, *[1] * len(op.stride)))
    return e.layer(
        node,
        "ConvolutionBackpropData",
        [e.image(node), kernel],
        bias,
        strides=op.stride,
        dilations=op.dilation,
        **pads(op.padding),
        output_padding=op.output_padding,
        auto_pad="explicit",
    )


def _dense(e: OpenvinoEmitter, node: Node) -> Value:
    is_turned = e.graph.constant(node, "kernel") is not None
    kernel: Any = e.constant(node, "kernel", np.transpose if is_turned else None)
    operands, bias = [e.plain(node), kernel], e.constant(node, "bias")
    return e.layer(node, "MatMul", operands, bias, transpose_a=False, transpose_b=is_turned)


def _pool(kind: str, **data: Any) -> Callable[[OpenvinoEmitter, Node], Value]:
    def emit(e: OpenvinoEmitter, node: Node) -> Value:
        op: Any = node.op
        return e.layer(
            node,
            kind,
            [e.image(node)],
            kernel=op.kernel_size,
            strides=op.stride,
            **pads(op.padding),
            **data,
            rounding_type="floor",
            auto_pad="explicit",
        )

    return emit


def _reduction(kind: str) -> Callable[[OpenvinoEmitter, Node], Value]:
    def emit(e: OpenvinoEmitter, node: Node) -> Value:
        op: Any = node.op
        source, axes = e.reduced(node, op.axes, keep_dims=op.keep_dims)
        return e.layer(node, kind, [source, e.integers(f"{node.name}/axes", axes)], keep_dims=op.keep_dims)

    return emit


def _layer_norm(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    x, gamma, beta = e.operands(node)
    axes = e.integers(f"{node.name}/axes", [e.last_axis(node)])
    data: dict[str, Any] = {"normalize_variance": True, "eps": float(op.epsilon), "eps_mode": "inside_sqrt"}
    normal = e.step(node, "MVN", [x, axes], "normal", **data)
    return e.layer(node, "Multiply", [normal, gamma], beta, auto_broadcast="numpy")


def _lrn(e: OpenvinoEmitter, node: Node) -> Value:
    """OpenVINO divides its alpha by the size of the window; the Graph does not.

    Its CPU plugin (of 2026.4) cuts the bias to a whole number, so that any other is taken out of the power:
    (bias + alpha s) ** -beta = bias ** -beta (1 + alpha / bias s) ** -beta.
    """
    op: Any = node.op
    is_whole = float(op.bias).is_integer()
    bias, alpha = (op.bias, op.alpha) if is_whole else (1.0, op.alpha / op.bias)
    data = {"alpha": float(alpha * op.size), "beta": float(op.beta), "bias": float(bias), "size": op.size}
    inputs = [e.image(node), e.integers(f"{node.name}/axes", [1])]
    if is_whole:
        return e.add("LRN", node.name, inputs, e.stored(node.output), **data)
    factor = e.scalar(f"{node.name}/factor", op.bias**-op.beta)
    return e.layer(node, "Multiply", [e.step(node, "LRN", inputs, "of_bias_1", **data), factor], auto_broadcast="numpy")


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
    return e.activation(node.op, e.operands(node)[0], node.name)


def _softmax(e: OpenvinoEmitter, node: Node) -> Value:
    return e.layer(node, "SoftMax", e.operands(node), axis=e.last_axis(node))


def _pad(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    pairs: Any = e.by_axis(node.output, op.padding)
    before = e.integers(f"{node.name}/before", [pair[0] for pair in pairs])
    after = e.integers(f"{node.name}/after", [pair[1] for pair in pairs])
    dtype = e.graph.tensors[node.output].dtype
    value = e.emit_constant(f"{node.name}/value", np.asarray(op.value, dtype), dtype)
    return e.layer(node, "Pad", [e.operands(node)[0], before, after, value], pad_mode="constant")


def _reshape(e: OpenvinoEmitter, node: Node) -> Value:
    source, sizes = e.reshaped(node)
    return e.layer(node, "Reshape", [source, e.integers(f"{node.name}/shape", sizes)], special_zero=False)


def _concat(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    return e.layer(node, "Concat", e.operands(node), axis=e.axis(node.output, op.axis))


def _slice(e: OpenvinoEmitter, node: Node) -> Value:
    columns = zip(*e.boxes(node), strict=True)
    inputs = [
        e.integers(f"{node.name}/{name}", list(c)) for name, c in zip(("begin", "end", "step"), columns, strict=True)
    ]
    zeros = (0,) * len(e.graph.tensors[node.output].shape)
    masks: dict[str, Any] = {f"{name}_mask": zeros for name in ("begin", "end", "new_axis", "shrink_axis", "ellipsis")}
    return e.layer(node, "StridedSlice", [e.operands(node)[0], *inputs], **masks)


def _resize(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    rank, x = len(op.size), e.image(node)
    sizes, axes = e.integers(f"{node.name}/sizes", op.size), e.integers(f"{node.name}/axes", range(2, 2 + rank))
    before = e.graph.tensors[node.inputs[0]].shape[1:-1]
    ratios = np.asarray([size / (n or 1) for size, n in zip(op.size, before, strict=True)], np.float32)
    return e.layer(
        node,
        "Interpolate",
        [x, sizes, e.emit_constant(f"{node.name}/scales", ratios, "float32"), axes],
        mode={"nearest": "nearest", "bilinear": "linear_onnx"}[op.method],
        shape_calculation_mode="sizes",
        coordinate_transformation_mode=op.coordinates,
        nearest_mode="floor" if op.coordinates == "asymmetric" else "round_prefer_ceil",
        antialias=False,
        pads_begin=(0,) * (rank + 2),
        pads_end=(0,) * (rank + 2),
        cube_coeff=-0.75,
    )


def _blocks(kind: str) -> Callable[[OpenvinoEmitter, Node], Value]:
    def emit(e: OpenvinoEmitter, node: Node) -> Value:
        op: Any = node.op
        return e.layer(node, kind, [e.image(node)], mode="blocks_first", block_size=op.block)

    return emit


def pads(padding: Padding) -> dict[str, Any]:
    """Return spatial padding as a window layer states it."""
    return {"pads_begin": tuple(before for before, _ in padding), "pads_end": tuple(after for _, after in padding)}


ROWS: dict[type[ops.Op], Callable[[OpenvinoEmitter, Node], Value]] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    ops.Conv: _conv,
    ops.ConvTranspose: _conv_transpose,
    ops.Dense: _dense,
    ops.LayerNorm: _layer_norm,
    ops.LRN: _lrn,
    ops.MaxPool: _pool("MaxPool"),
    ops.AveragePool: _pool("AvgPool", **{"exclude-pad": True}),
    ops.Mean: _reduction("ReduceMean"),
    ops.Sum: _reduction("ReduceSum"),
    ops.Max: _reduction("ReduceMax"),
    ops.Add: _elementwise("Add"),
    ops.Sub: _elementwise("Subtract"),
    ops.Mul: _elementwise("Multiply"),
    ops.Div: _elementwise("Divide"),
    ops.Maximum: _elementwise("Maximum"),
    ops.Minimum: _elementwise("Minimum"),
    ops.Pow: _elementwise("Power"),
    ops.PReLU: _prelu,
    ops.Softmax: _softmax,
    ops.Pad: _pad,
    ops.Reshape: _reshape,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Resize: _resize,
    ops.DepthToSpace: _blocks("DepthToSpace"),
    ops.SpaceToDepth: _blocks("SpaceToDepth"),
}
"""Operator -> how it is written; a Transpose is the emitter's own business."""
