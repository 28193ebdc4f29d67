"""Rows of TFLite's window operators: over one or two dimensions they become 2-D, over three CONV_3D."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Node
from edgecnn.shapes import Padding, Shape, same_padding

from ._tflite_emitter import Spec, TfliteEmitter


def conv(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    if len(op.stride) == 3:
        _conv_3d(e, node, op)
        return
    kernel, channels = e.shape(node.inputs[1]), e.shape(node.inputs[0])[-1]
    flat = _as_2d(op, kernel)
    source, padding = _window_input(e, node, flat, flat[0])
    kernel_size, stride, dilation, _ = flat
    fields: dict[str, object] = {
        "padding": padding,
        "strideH": stride[0],
        "strideW": stride[1],
        "fusedActivationFunction": e.fused(node),
        "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1],
    }
    out_channels = kernel[-1] or 0
    depthwise = ops.is_depthwise(op, (e.shape(node.inputs[0]),))
    if depthwise:
        weights = e.arranged(node, "kernel", lambda data: data.reshape(1, *kernel_size, out_channels))
        fields["depthMultiplier"] = out_channels // op.groups
    else:
        weights = e.arranged(
            node, "kernel", lambda data: np.moveaxis(data.reshape(*kernel_size, -1, out_channels), -1, 0)
        )
    inputs = [source, weights, e.bias(node, out_channels)]
    kind, options = ("DEPTHWISE_CONV_2D", "DepthwiseConv2D") if depthwise else ("CONV_2D", "Conv2D")
    version = _conv_version(op, channels, depthwise=depthwise)
    _window_output(e, node, Spec(kind=kind, options=options, fields=fields, version=version), inputs)


def _conv_version(op: ops.Conv, channels: int | None, *, depthwise: bool) -> int:
    """Return the lowest version: op_version.cc gives dilated depthwise 2 and grouped convolution 6."""
    if depthwise:
        return 2 if set(op.dilation) != {1} else 1
    return 6 if op.groups > 1 and op.groups != channels else 1


def _conv_3d(e: TfliteEmitter, node: Node, op: ops.Conv) -> None:
    if op.groups != 1:
        raise UnsupportedError(f"{node.name}: tflite has no grouped 3-D convolution. Choose --to onnx or openvino.")
    kernel = e.shape(node.inputs[1])
    flat = (tuple(size or 0 for size in kernel[:3]), op.stride, op.dilation, op.padding)
    source, padding = _window_input(e, node, flat, flat[0])
    weights = e.arranged(node, "kernel", lambda data: data)
    fields: dict[str, object] = {"padding": padding, "fusedActivationFunction": e.fused(node)}
    for axis, step, dilation in zip("DHW", op.stride, op.dilation, strict=True):
        fields |= {f"stride{axis}": step, f"dilation{axis}Factor": dilation}
    spec = Spec(kind="CONV_3D", options="Conv3D", fields=fields)
    e.operator(spec, [source, weights, e.bias(node, kernel[-1] or 0)], [e.value(node.output)])


def pool(kind: str) -> Callable[[TfliteEmitter, Node], None]:
    def emit(e: TfliteEmitter, node: Node) -> None:
        op: Any = node.op
        if len(op.stride) == 3:
            raise UnsupportedError(f"{node.name}: tflite has no 3-D pooling. Choose --to onnx or openvino.")
        flat = _as_2d(op, op.kernel_size)
        kernel_size, stride, _, _ = flat
        source, padding = _window_input(e, node, flat, kernel_size)
        fields: dict[str, object] = {
            "padding": padding,
            "strideH": stride[0],
            "strideW": stride[1],
            "filterHeight": kernel_size[0],
            "filterWidth": kernel_size[1],
            "fusedActivationFunction": e.fused(node),
        }
        _window_output(e, node, Spec(kind=kind, options="Pool2D", fields=fields), [source])

    return emit


Flat = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Padding]
"""kernel_size, stride, dilation, padding of a window over two dimensions."""


def _as_2d(op: "ops.Conv | ops.MaxPool | ops.AveragePool", kernel: Shape) -> Flat:
    """Return a 1-D window as a 2-D one of height 1."""
    missing = 2 - len(op.stride)
    kernel_size = tuple(size or 0 for size in kernel[: len(op.stride)])
    ones = (1,) * missing
    dilation = op.dilation if isinstance(op, ops.Conv) else (1,) * len(op.stride)
    return (*ones, *kernel_size), (*ones, *op.stride), (*ones, *dilation), ((0, 0),) * missing + op.padding


def _window_input(e: TfliteEmitter, node: Node, flat: Flat, kernel_size: tuple[int, ...]) -> tuple[int, int]:
    """Return (input tensor, TFLite's padding), a RESHAPE and a PAD added where they are needed."""
    name = node.inputs[0]
    shape, source = e.shape(name), e.value(name)
    if len(shape) == 3:
        shape = (shape[0], 1, *shape[1:])
        source = e.reshaped(source, f"{node.name}/as_2d", shape)
    _, stride, dilation, padding = flat
    same = tuple(
        same_padding(n or 0, f, stride=s, dilation=d)
        for n, f, s, d in zip(shape[1:-1], kernel_size, stride, dilation, strict=True)
    )
    if not any(any(pair) for pair in padding):
        return source, e.s.Padding.VALID
    if padding == same:
        return source, e.s.Padding.SAME
    if not isinstance(node.op, ops.Conv):
        raise UnsupportedError(
            f"{node.name}: tflite pools with SAME or VALID padding; got {padding}. Choose --to onnx or openvino."
        )
    return e.padded(source, node.name, shape, ((0, 0), *padding, (0, 0))), e.s.Padding.VALID


def _window_output(e: TfliteEmitter, node: Node, spec: Spec, inputs: list[int]) -> None:
    shape = e.shape(node.output)
    if len(shape) == 4:
        e.operator(spec, inputs, [e.value(node.output)])
        return
    inner = e.tensor(f"{node.name}/from_2d", (shape[0], 1, *shape[1:]))
    e.operator(spec, inputs, [inner])
    e.reshaped(inner, node.output, shape, e.value(node.output))
