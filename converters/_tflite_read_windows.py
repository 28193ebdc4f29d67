"""Rows of TFLite's operators that slide a window: convolutions, their transpose, pools."""

import struct
from typing import Any

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.ops import known
from edgecnn.shapes import Padding

from ._tflite_read_call import SAME, Call, Row, in_float
from ._tflite_read_network import Value

OUT_FIRST = (1, 2, 3, 0)
"""A kernel (out, height, width, in) as (height, width, in, out)."""


def _conv(call: Call) -> Value:
    """CONV_2D: kernel (out, height, width, in / groups)."""
    kernel = call.turned(call.value(1), OUT_FIRST, "kernel")
    shape = call.network.shape(kernel)
    channels, own = known(call.ranked(0, 4)[-1]), known(shape[2])
    if own < 1 or channels % own:
        raise InputFileError(f"{call.where}: kernel channels that divide {channels} were wanted; got {own}")
    return _convolution(call, kernel, "HW", channels // own)


def _depthwise(call: Call) -> Value:
    """DEPTHWISE_CONV_2D: kernel (1, height, width, channels * multiplier), as (height, width, 1, the same)."""
    kernel = call.turned(call.value(1), (1, 2, 0, 3), "kernel")
    return _convolution(call, kernel, "HW", known(call.ranked(0, 4)[-1]))


def _conv_3d(call: Call) -> Value:
    """CONV_3D: kernel (depth, height, width, in / groups, out)."""
    channels, own = known(call.ranked(0, 5)[-1]), known(call.ranked(1, 5)[-2])
    return _convolution(call, call.value(1), "DHW", channels // max(own, 1))


def _convolution(call: Call, kernel: Value, axes: str, groups: int) -> Value:
    stride = tuple(call.option(f"stride{axis}") for axis in axes)
    dilation = tuple(call.option_or(f"dilation{axis}Factor", 1) for axis in axes)
    size = tuple(known(n) for n in call.network.shape(kernel)[: len(axes)])
    padding = call.window_padding(call.shape(0), size, stride, dilation)
    op = ops.Conv(stride=stride, padding=padding, dilation=dilation, groups=groups)
    x = call.value(0)
    return call.node(op, x, kernel, *call.bias(2, x, kernel))


def _conv_transpose(call: Call) -> Value:
    """TRANSPOSE_CONV: sizes of the output, kernel (out, height, width, in), input, bias."""
    return _laid(call, call.turned(call.value(1), OUT_FIRST, "kernel"), "HW")


def _conv_3d_transpose(call: Call) -> Value:
    """CONV_3D_TRANSPOSE: sizes of the output, kernel (depth, height, width, out, in), input, bias."""
    return _laid(call, call.turned(call.value(1), (0, 1, 2, 4, 3), "kernel"), "DHW")


def _laid(call: Call, kernel: Value, axes: str) -> Value:
    """Read a transposed convolution whose kernel is the Graph's.

    Of what the kernel lays, `cut` positions go, the smaller half before; where the output is larger, it ends in zeros.
    Source: LiteRT, tflite/kernels/transpose_conv.cc and padding.h.
    """
    rank, sizes = len(axes), call.sizes(0)
    stride = tuple(call.option(f"stride{axis}") for axis in axes)
    if len(sizes) != rank + 2 or min(sizes[1:-1]) < 1 or min(stride) < 1:
        raise InputFileError(
            f"{call.where}: {rank + 2} sizes and positive strides were wanted; got {sizes} and {stride}"
        )
    padding, extra = [], []
    spatial, window = call.ranked(2, rank + 2)[1:-1], call.network.shape(kernel)[:rank]
    for n, f, s, size in zip(spatial, window, stride, sizes[1:-1], strict=True):
        windows = -(-size // s) if call.option("padding") == SAME else max((size + s - known(f)) // s, 1)
        before = max((windows - 1) * s + known(f) - size, 0) // 2
        after = (known(n) - 1) * s + known(f) - before - size
        padding.append((before, max(after, 0)))
        extra.append(max(-after, 0))
    x = call.value(2)
    return _transposed(call, stride, tuple(padding), tuple(extra), (x, kernel, *call.bias(3, x, kernel)))


def _transposed(
    call: Call, stride: tuple[int, ...], padding: Padding, extra: tuple[int, ...], operands: tuple[Value, ...]
) -> Value:
    op = ops.ConvTranspose(stride=stride, padding=padding, dilation=(1,) * len(stride), output_padding=extra)
    return call.node(op, *operands)


def _conv_transpose_bias(call: Call) -> Value:
    """MediaPipe's Convolution2DTransposeBias: input, kernel (out, height, width, in), bias.

    Its options are the bytes of TfLiteTransposeConvParams: padding (1 SAME, 2 VALID), stride across, stride down.
    Source: MediaPipe, mediapipe/util/tflite/operations/transpose_conv_bias.cc.
    """
    if len(call.operator.custom) < 12:
        raise InputFileError(f"{call.where}: 12 bytes of options were wanted; got {len(call.operator.custom)}")
    kind, across, down = struct.unpack_from("<3i", call.operator.custom)
    if kind not in (1, 2) or min(across, down) < 1:
        raise InputFileError(f"{call.where}: padding 1 or 2 and positive strides were wanted; got {kind, down, across}")
    kernel = call.turned(call.value(1), OUT_FIRST, "kernel")
    padding = []
    for n, f, s in zip(call.ranked(0, 4)[1:3], call.network.shape(kernel)[:2], (down, across), strict=True):
        cut = max(known(f) - (known(n) - 1) % s - 1, 0) if kind == 1 else 0
        padding.append((cut // 2, cut - cut // 2))
    x = call.value(0)
    return _transposed(call, (down, across), tuple(padding), (0, 0), (x, kernel, *call.bias(2, x, kernel)))


def _pool(kind: type[ops.MaxPool] | type[ops.AveragePool]) -> Row:
    def read(call: Call) -> Value:
        return call.node(_pool_op(call, kind), call.value(0))

    return read


def _pool_op(call: Call, kind: Any) -> ops.Op:
    size = (call.option("filterHeight"), call.option("filterWidth"))
    stride = (call.option("strideH"), call.option("strideW"))
    padding = call.window_padding(call.ranked(0, 4), size, stride, (1, 1))
    op: ops.Op = kind(kernel_size=size, stride=stride, padding=padding)
    return op


def _l2_pool(call: Call) -> Value:
    """The square root of the mean of squares."""
    x = call.value(0)
    mean = call.step("mean", _pool_op(call, ops.AveragePool), call.step("square", ops.Mul(), x, x))
    return call.node(ops.Sqrt(), mean)


def _resize(kind: str) -> Row:
    def read(call: Call) -> Value:
        sizes = call.integers(1)
        half, aligned = call.option_or("halfPixelCenters", False), call.option_or("alignCorners", False)
        if half and aligned:
            raise call.unsupported("halfPixelCenters and alignCorners contradict each other")
        coordinates: Any = "half_pixel" if half else "align_corners" if aligned else "asymmetric"
        if len(sizes) != 2 or min(sizes) < 1:
            raise InputFileError(f"{call.where}: a height and a width were wanted; got {sizes}")
        method: Any = kind
        return call.node(ops.Resize(size=tuple(sizes), method=method, coordinates=coordinates), call.value(0))

    return read


def _blocks(kind: type[ops.DepthToSpace] | type[ops.SpaceToDepth]) -> Row:
    return lambda call: call.node(kind(block=call.option("blockSize")), call.value(0))


ROWS: dict[str, Row] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "CONV_3D": _conv_3d,
    "CONV_3D_TRANSPOSE": _conv_3d_transpose,
    "TRANSPOSE_CONV": _conv_transpose,
    "MAX_POOL_2D": _pool(ops.MaxPool),
    "AVERAGE_POOL_2D": _pool(ops.AveragePool),
    "L2_POOL_2D": in_float(_l2_pool),
    "RESIZE_BILINEAR": _resize("bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "DEPTH_TO_SPACE": _blocks(ops.DepthToSpace),
    "SPACE_TO_DEPTH": _blocks(ops.SpaceToDepth),
}

CUSTOM: dict[str, Row] = {"Convolution2DTransposeBias": _conv_transpose_bias}
