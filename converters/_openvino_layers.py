"""Rows of OpenVINO: convolutions, pools, dense layers, normalisation and reductions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Node
from edgecnn.ops import elements, known
from edgecnn.shapes import Padding, Shape

from ._channels_first import kernel_first, transposed_kernel_first
from ._ir_xml import Value
from ._openvino_emitter import OpenvinoEmitter

ZERO_KEPT: dict[str, Any] = {"special_zero": True}
"""Of a Reshape whose size 0 is the batch, whatever that is."""


def _conv(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    rank, padding = len(op.stride), op.padding
    kernel = e.graph.tensors[node.inputs[1]]
    zero = 0 if kernel.quantization is None or kernel.quantization.axis is not None else kernel.quantization.zero_point
    is_widened = _loses_padding(op, kernel.shape[:rank])
    if is_widened:
        padding = (*padding[:-1], (padding[-1][0], padding[-1][1] + 1))

    def grouped(data: Array) -> Array:
        if is_widened:
            data = np.pad(data, ((0, 0),) * (rank - 1) + ((0, 1), (0, 0), (0, 0)), constant_values=zero)
        first = kernel_first(data)
        return first if op.groups == 1 else first.reshape(op.groups, -1, *first.shape[1:])

    return _convolution(e, node, "Convolution", grouped, **pads(padding))


def _convolution(e: OpenvinoEmitter, node: Node, kind: str, arrange: Callable[[Array], Array], **own: Any) -> Value:
    """Add a convolution of either direction; `own` are the attributes that differ."""
    op: Any = node.op
    kernel: Any = e.constant(node, "kernel", arrange)
    bias = e.constant(node, "bias", lambda data: data.reshape(1, -1, *[1] * len(op.stride)))
    shared = {"strides": op.stride, "dilations": op.dilation, "auto_pad": "explicit"}
    kind = kind if op.groups == 1 else f"Group{kind}"
    return e.layer(node, kind, [e.operand(node), kernel], bias, **shared, **own)


def _loses_padding(op: Any, kernel_size: Shape) -> bool:
    """Tell whether OpenVINO would pass by the padding of a convolution.

    OpenVINO 2026.4 moves the stride of one with kernel size 1 towards the input without regard to its padding: wrong
    numbers, or a shape error in 3-D. A kernel of size 2 that ends in zeros, with one more row of padding, stays.
    """
    return set(kernel_size) == {1} and max(op.stride) > 1 and any(map(any, op.padding))


def _conv_transpose(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op

    def arrange(data: Array) -> Array:
        kernel = transposed_kernel_first(data, op.groups)
        return kernel[0] if op.groups == 1 else kernel

    own = {**pads(op.padding), "output_padding": op.output_padding}
    return _convolution(e, node, "ConvolutionBackpropData", arrange, **own)


def _dense(e: OpenvinoEmitter, node: Node) -> Value:
    is_turned = e.graph.constant(node, "kernel") is not None
    kernel: Any = e.constant(node, "kernel", np.transpose if is_turned else None)
    operands, bias = [e.operand(node), kernel], e.constant(node, "bias")
    return e.layer(node, "MatMul", operands, bias, transpose_a=False, transpose_b=is_turned)


def _mat_mul(e: OpenvinoEmitter, node: Node) -> Value:
    return e.layer(node, "MatMul", e.operands(node), transpose_a=False, transpose_b=False)


def _max_pool(e: OpenvinoEmitter, node: Node) -> Value:
    return e.layer(node, "MaxPool", [e.operand(node)], **_window(node.op))


def _average_pool(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    return e.layer(node, "AvgPool", [e.operand(node)], **_window(op, {"exclude-pad": not op.count_include_pad}))


def _window(op: Any, own: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Return what a pool states, its own attributes behind its window."""
    sizes = {"kernel": op.kernel_size, "strides": op.stride, **pads(op.padding)}
    return {**sizes, **(own or {}), "rounding_type": "floor", "auto_pad": "explicit"}


def _reduction(kind: str) -> Callable[[OpenvinoEmitter, Node], Value]:
    def emit(e: OpenvinoEmitter, node: Node) -> Value:
        op: Any = node.op
        inputs = [e.operand(node), e.integers(f"{node.name}/axes", op.axes)]
        return e.layer(node, kind, inputs, keep_dims=op.keep_dims)

    return emit


def _arg_max(e: OpenvinoEmitter, node: Node) -> Value:
    """TopK of one, stable so that the first of equals wins, without the axis where it goes."""
    op: Any = node.op
    source, axis = e.operand(node), op.axis
    element, shape = e.stored(node.output)
    kept = (*source.dims[:axis], 1, *source.dims[axis + 1 :])
    data: dict[str, Any] = {"axis": axis, "mode": "max", "sort": "value", "index_element_type": element, "stable": True}
    name = node.name if op.keep_dims else e.free(f"{node.name}/kept")
    likes = [(source.element, kept), (element, kept)]
    _, found = e.add_of("TopK", name, [source, e.integer(f"{node.name}/one", 1)], likes, **data)
    if op.keep_dims:
        return found
    return e.add("Squeeze", node.name, [found, e.integers(f"{node.name}/axis", [axis])], (element, shape))


def _layer_norm(e: OpenvinoEmitter, node: Node) -> Value:
    axis, x, rank = e.channel_axis(node), e.operand(node), len(e.graph.tensors[node.output].shape)
    ones = [1] * (rank - 1 - axis)
    vectors: Any = [e.constant(node, name, lambda data: data.reshape(-1, *ones)) for name in ("gamma", "beta")]
    normal = _normalized(e, node, x, [axis])
    return e.layer(node, "Multiply", [normal, vectors[0]], vectors[1], auto_broadcast="numpy")


def _group_norm(e: OpenvinoEmitter, node: Node) -> Value:
    """MVN over each group, then scale and shift.

    GroupNormalization would say it in one layer, but the CPU plugin (of 2026.4) crashes while it compiles a residual
    block that has two of them.
    """
    op: Any = node.op
    x = e.operand(node)
    channels, spread = x.dims[1], [1] * (len(x.dims) - 2)
    vectors: Any = [e.constant(node, name, lambda data: data.reshape(-1, *spread)) for name in ("gamma", "beta")]
    if op.groups in (1, channels):
        normal = _normalized(e, node, x, range(1 if op.groups == 1 else 2, len(x.dims)))
    else:
        size = elements(x.dims[1:]) // op.groups
        sizes = e.integers(f"{node.name}/groups", [0, op.groups, size])
        grouped = e.add("Reshape", e.free(f"{node.name}/grouped"), [x, sizes], _like(x, op.groups, size), **ZERO_KEPT)
        sizes = e.integers(f"{node.name}/shape", [0, *map(known, x.dims[1:])])
        normal = _normalized(e, node, grouped, [2])
        normal = e.add("Reshape", e.free(f"{node.name}/apart"), [normal, sizes], x[2:], **ZERO_KEPT)
    return e.layer(node, "Multiply", [normal, vectors[0]], vectors[1], auto_broadcast="numpy")


def _like(x: Value, *sizes: int) -> tuple[str, Shape]:
    """Return x's element type, and a shape of its batch and of these sizes."""
    return x.element, (x.dims[0], *sizes)


def _normalized(e: OpenvinoEmitter, node: Node, x: Value, axes: Sequence[int]) -> Value:
    """Return x with mean 0 and variance 1 over these axes."""
    op: Any = node.op
    inputs = [x, e.integers(f"{node.name}/axes", axes)]
    return e.step(node, "MVN", inputs, "normal", normalize_variance=True, eps=float(op.epsilon), eps_mode="inside_sqrt")


def _l2_normalize(e: OpenvinoEmitter, node: Node) -> Value:
    """NormalizeL2, whose eps is the least sum of squares."""
    op: Any = node.op
    axes = e.integers(f"{node.name}/axes", [e.channel_axis(node)])
    return e.layer(node, "NormalizeL2", [*e.operands(node), axes], eps=float(op.epsilon) ** 2, eps_mode="max")


def _lrn(e: OpenvinoEmitter, node: Node) -> Value:
    """OpenVINO divides its alpha by the size of the window; the Graph does not.

    Its CPU plugin (of 2026.4) cuts the bias to a whole number, so that any other is taken out of the power:
    (bias + alpha s) ** -beta = bias ** -beta (1 + alpha / bias s) ** -beta.
    """
    op: Any = node.op
    is_whole = float(op.bias).is_integer()
    bias, alpha = (op.bias, op.alpha) if is_whole else (1.0, op.alpha / op.bias)
    data = {"alpha": float(alpha * op.size), "beta": float(op.beta), "bias": float(bias), "size": op.size}
    inputs = [e.operand(node), e.integers(f"{node.name}/axes", [1])]
    if is_whole:
        return e.add("LRN", node.name, inputs, e.stored(node.output), **data)
    factor = e.scalar(f"{node.name}/factor", op.bias**-op.beta)
    return e.layer(node, "Multiply", [e.step(node, "LRN", inputs, "of_bias_1", **data), factor], auto_broadcast="numpy")


def pads(padding: Padding) -> dict[str, Any]:
    """Return spatial padding as a window layer states it."""
    return {"pads_begin": tuple(before for before, _ in padding), "pads_end": tuple(after for _, after in padding)}


ROWS: dict[type[ops.Op], Callable[[OpenvinoEmitter, Node], Value]] = {
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
    ops.Mean: _reduction("ReduceMean"),
    ops.Sum: _reduction("ReduceSum"),
    ops.Max: _reduction("ReduceMax"),
    ops.Min: _reduction("ReduceMin"),
    ops.Prod: _reduction("ReduceProd"),
    ops.ArgMax: _arg_max,
}
"""Operator -> how it is written."""
