"""Rows of TFLite's window operators: over one or two dimensions they become 2-D, over three CONV_3D."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Node
from edgecnn.ops import known
from edgecnn.shapes import Padding, Shape, same_padding

from ._tflite_elements import lowest
from ._tflite_emitter import Spec, TfliteEmitter
from ._tflite_pieces import every


def conv(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    if len(op.stride) == 3:
        _conv_3d(e, node, op)
        return
    flat = _as_2d(op, e.shape(node.inputs[1]))
    source, padding = _window_input(e, node, flat)
    convolve(e, node, flat, source, padding)


def convolve(
    e: TfliteEmitter,
    node: Node,
    flat: "Flat",
    source: int,
    padding: int,
    turn: Callable[[Array], Array] = lambda kernel: kernel,
) -> None:
    """Emit the 2-D convolution of a node, depthwise where it is that.

    Args:
        e: The emitter.
        node: A Conv, or a ConvTranspose whose input was spread.
        flat: The window, over two dimensions.
        source: The image, padded.
        padding: TFLite's number for SAME or VALID.
        turn: Turns the kernel (spatial..., in_channels / groups, out_channels).
    """
    op: Any = node.op
    kernel_size, stride, dilation, _ = flat
    channels, out_channels = e.shape(node.inputs[0])[-1], known(e.shape(node.inputs[1])[-1])
    fields: dict[str, object] = {
        "padding": padding,
        "strideH": stride[0],
        "strideW": stride[1],
        "fusedActivationFunction": e.fused(node),
        "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1],
    }
    depthwise = op.groups > 1 and op.groups == channels
    if depthwise:
        # Over float numbers, XNNPACK takes no depthwise convolution with an int8 kernel, but one made float while
        # it loads. MobileNet v2, one thread of an AVX-512 CPU: 60.2 and 21.4 ms; 25.5 ms with float kernels throughout.
        weights = e.kernel(node, lambda data: turn(data).reshape(1, *kernel_size, out_channels), axis=3, is_wide=True)
        fields["depthMultiplier"] = out_channels // op.groups
    else:
        weights = e.kernel(node, lambda data: np.moveaxis(turn(data).reshape(*kernel_size, -1, out_channels), -1, 0))
    inputs = [source, weights, e.bias(node, weights)]
    kind, options = ("DEPTHWISE_CONV_2D", "DepthwiseConv2D") if depthwise else ("CONV_2D", "Conv2D")
    version = _conv_version(op, depthwise=depthwise)
    _window_output(e, node, Spec(kind=kind, options=options, fields=fields, version=version), inputs)


def _conv_version(op: ops.Conv | ops.ConvTranspose, *, depthwise: bool) -> int:
    """Return the lowest version: op_version.cc gives dilated depthwise 2 and grouped convolution 6."""
    if depthwise:
        return 2 if set(op.dilation) != {1} else 1
    return 6 if op.groups > 1 else 1


def _conv_3d(e: TfliteEmitter, node: Node, op: ops.Conv) -> None:
    if op.groups != 1:
        raise UnsupportedError(f"{node.name}: tflite has no grouped 3-D convolution. Choose --to onnx or openvino.")
    kernel = e.shape(node.inputs[1])
    flat = (tuple(size or 0 for size in kernel[:3]), op.stride, op.dilation, op.padding)
    source, padding = _window_input(e, node, flat)
    weights = e.kernel(node, lambda data: data, axis=4, is_wide=True)
    fields: dict[str, object] = {"padding": padding, "fusedActivationFunction": e.fused(node)}
    for axis, step, dilation in zip("DHW", op.stride, op.dilation, strict=True):
        fields |= {f"stride{axis}": step, f"dilation{axis}Factor": dilation}
    spec = Spec(kind="CONV_3D", options="Conv3D", fields=fields)
    e.operator(spec, [source, weights, e.bias(node, weights)], [e.value(node.output)])


def max_pool(e: TfliteEmitter, node: Node) -> None:
    """MAX_POOL_2D; XNNPACK takes none that looks at one position and skips others."""
    op: Any = node.op
    source, step = e.value(node.inputs[0]), op.stride[0]
    every_one = ops.MaxPool(kernel_size=(1, 1), stride=(step, step), padding=((0, 0), (0, 0)))
    if step > 1 and op == every_one and e.dtype(source) != "int16":
        every(e, source, (0, 0, 0, 0), step, e.value(node.output), node.name)
        return
    flat, source, shape = _pooled(e, node)
    padding = _free_padding(e, shape, flat)
    if padding is None:
        value = 0.0 if is_never_negative(e, node.inputs[0]) else lowest(e.elements(source))
        source, padding = e.padded(source, node.name, shape, ((0, 0), *flat[3], (0, 0)), value), e.s.Padding.VALID
    _window_output(e, node, _pool_spec("MAX_POOL_2D", flat, padding, e.fused(node)), [source])


def average_pool(e: TfliteEmitter, node: Node) -> None:
    """Where the padding costs a PAD, its zeros are counted; if they must not be, a factor per position makes good."""
    op: Any = node.op
    flat, source, shape = _pooled(e, node)
    padding = _free_padding(e, shape, flat)
    if op.count_include_pad and padding != e.s.Padding.VALID:
        source, padding = e.padded(source, node.name, shape, ((0, 0), *flat[3], (0, 0))), e.s.Padding.VALID
    if padding is not None:
        _window_output(e, node, _pool_spec("AVERAGE_POOL_2D", flat, padding, e.fused(node)), [source])
        return
    if e.dtype(source) != "float32":
        raise UnsupportedError(
            f"{node.name}: tflite wants padding that equals SAME for a mean over {e.dtype(source)} that leaves it out; "
            f"got {op.padding}. Keep it in float, between a Dequantize and a Quantize."
        )
    source = e.padded(source, node.name, shape, ((0, 0), *flat[3], (0, 0)))
    output = e.shape(node.output)
    shape = output if len(output) == 4 else (output[0], 1, *output[1:])
    share = _share_inside(e.shape(node.inputs[0])[1:-1], output[1:-1], op).reshape(1, *map(known, shape[1:3]), 1)
    spec = _pool_spec("AVERAGE_POOL_2D", flat, e.s.Padding.VALID, e.s.ActivationFunctionType.NONE)
    counted = e.step(f"{node.name}/counted", shape, spec, [source])
    factor = e.constant(f"{node.name}/factor", (1 / share).astype(np.float32), "float32")
    spec = Spec(kind="MUL", options="Mul", fields={"fusedActivationFunction": e.fused(node)})
    _window_output(e, node, spec, [counted, factor])


def _pooled(e: TfliteEmitter, node: Node) -> tuple["Flat", int, Shape]:
    op: Any = node.op
    return _as_2d(op, op.kernel_size), *as_image(e, node)


def _pool_spec(kind: str, flat: "Flat", padding: int, activation: int) -> Spec:
    kernel_size, stride, _, _ = flat
    fields: dict[str, object] = {
        "padding": padding,
        "strideH": stride[0],
        "strideW": stride[1],
        "filterHeight": kernel_size[0],
        "filterWidth": kernel_size[1],
        "fusedActivationFunction": activation,
    }
    return Spec(kind=kind, options="Pool2D", fields=fields)


def _share_inside(sizes: Shape, outputs: Shape, op: Any) -> Array:
    """Return, for each output position, the share of its window that lies inside the image."""
    shares = []
    for n, m, f, s, (before, _) in zip(sizes, outputs, op.kernel_size, op.stride, op.padding, strict=True):
        starts = np.arange(known(m)) * s - before
        shares.append((np.minimum(starts + f, known(n)) - np.maximum(starts, 0)) / f)
    return np.asarray(reduce(np.multiply.outer, shares))


def is_never_negative(e: TfliteEmitter, tensor: str) -> bool:
    """Tell whether a computed tensor is known to hold no negative number: it comes from a ReLU or the like."""
    node = e.producer(tensor)
    if node is None:
        return False
    activation = getattr(node.op, "activation", None)
    if isinstance(activation or node.op, NOT_NEGATIVE):
        return True
    if isinstance(node.op, ops.Pad) and node.op.value < 0:
        return False
    return activation is None and isinstance(node.op, KEEP_SIGN) and all(is_never_negative(e, i) for i in node.inputs)


NOT_NEGATIVE = (ops.ReLU, ops.ReLU6, ops.Sigmoid, ops.HardSigmoid, ops.Softmax, ops.Softplus, ops.Exp)
"""Operators that give no negative number."""

KEEP_SIGN = (ops.MaxPool, ops.AveragePool, ops.Max, ops.Mean, ops.Pad, ops.Concat, ops.Reshape, ops.Slice, ops.LRN)
"""Operators that give no negative number where they get none."""

Flat = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Padding]
"""kernel_size, stride, dilation, padding of a window over two dimensions."""


def _as_2d(op: "ops.Conv | ops.MaxPool | ops.AveragePool", kernel: Shape) -> Flat:
    """Return a 1-D window as a 2-D one of height 1."""
    missing = 2 - len(op.stride)
    kernel_size = tuple(size or 0 for size in kernel[: len(op.stride)])
    ones = (1,) * missing
    dilation = op.dilation if isinstance(op, ops.Conv) else (1,) * len(op.stride)
    return (*ones, *kernel_size), (*ones, *op.stride), (*ones, *dilation), ((0, 0),) * missing + op.padding


def as_image(e: TfliteEmitter, node: Node) -> tuple[int, Shape]:
    """Return the first operand as (N, height, width, C) and that shape: over one dimension the height is 1."""
    name = node.inputs[0]
    shape, source = e.shape(name), e.value(name)
    if len(shape) != 3:
        return source, shape
    shape = (shape[0], 1, *shape[1:])
    return e.reshaped(source, f"{node.name}/as_2d", shape), shape


def _free_padding(e: TfliteEmitter, shape: Shape, flat: Flat) -> int | None:
    """Return the TFLite padding that equals the window's own, or None where there is none."""
    kernel_size, stride, dilation, padding = flat
    if not any(any(pair) for pair in padding):
        return int(e.s.Padding.VALID)
    same = tuple(
        same_padding(n or 0, f, stride=s, dilation=d)
        for n, f, s, d in zip(shape[1:-1], kernel_size, stride, dilation, strict=True)
    )
    return int(e.s.Padding.SAME) if padding == same else None


def _window_input(e: TfliteEmitter, node: Node, flat: Flat) -> tuple[int, int]:
    """Return (input tensor, TFLite's padding), a RESHAPE and a PAD added where they are needed."""
    source, shape = as_image(e, node)
    padding = _free_padding(e, shape, flat)
    if padding is not None:
        return source, padding
    return e.padded(source, node.name, shape, ((0, 0), *flat[3], (0, 0))), e.s.Padding.VALID


def _window_output(e: TfliteEmitter, node: Node, spec: Spec, inputs: list[int]) -> None:
    from_image(e, node, lambda output: e.operator(spec, inputs, [output]))


def from_image(e: TfliteEmitter, node: Node, emit: Callable[[int], None]) -> None:
    """Let `emit` fill the node's output, through an image of height 1 where the output has one dimension."""
    shape = e.shape(node.output)
    if len(shape) != 3:
        emit(e.value(node.output))
        return
    inner = e.tensor(f"{node.name}/from_2d", (shape[0], 1, *shape[1:]), e.elements(e.value(node.output)))
    emit(inner)
    e.reshaped(inner, node.output, shape, e.value(node.output))
