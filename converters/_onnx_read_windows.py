"""Rows of the operators that slide a window: convolutions and pools.

Source: onnx/onnx, docs/Operators.md (Conv, ConvTranspose, MaxPool, AveragePool), and ONNX Runtime for what it leaves
open: with ceil_mode, a last window that would start behind the picture is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.graph import Array
from edgecnn.ops import known
from edgecnn.shapes import Padding, effective_kernel_size, same_padding

from ._onnx_read_call import Call, Row, require
from ._onnx_read_sizes import check_size

WIDEST = 256
"""Positions that the dilated windows of a pool may have: each becomes a node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The attributes that all window operators share, one number for each spatial dimension."""

    sizes: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Padding

    @property
    def spans(self) -> tuple[int, ...]:
        """Input positions that the dilated kernel spans."""
        return tuple(effective_kernel_size(f, d) for f, d in zip(self.kernel_size, self.dilation, strict=True))


def read_window(call: Call, kernel_size: Sequence[int]) -> Window:
    """Return the window of an operator over the first input, auto_pad resolved (but not for ConvTranspose)."""
    shape = call.shape(0)
    rank = len(kernel_size)
    if len(shape) != rank + 2 or not 1 <= rank <= 3:
        raise InputFileError(f"an input of {rank} spatial dimensions (1 to 3) was wanted; found the shape {shape}")
    sizes = tuple(known(size) for size in shape[2:])
    stride, dilation = call.several("strides", (1,) * rank), call.several("dilations", (1,) * rank)
    if min((*stride, *dilation, *kernel_size)) < 1:
        raise InputFileError(
            f"strides, dilations and kernel sizes of at least 1 were wanted; found {stride}, {dilation}"
        )
    pads = call.several("pads", (0,) * (2 * rank))
    padding: Padding = tuple(zip(pads[:rank], pads[rank:], strict=True))
    rule = call.text("auto_pad", "NOTSET")
    if rule in ("SAME_UPPER", "SAME_LOWER") and call.node.op_type != "ConvTranspose":
        found = (
            same_padding(n, f, stride=s, dilation=d)
            for n, f, s, d in zip(sizes, kernel_size, stride, dilation, strict=True)
        )
        padding = tuple(pair if rule == "SAME_UPPER" else pair[::-1] for pair in found)
    elif rule == "VALID":
        padding = ((0, 0),) * rank
    return Window(sizes=sizes, kernel_size=tuple(kernel_size), stride=stride, dilation=dilation, padding=padding)


def _kernel_shape(call: Call, position: int = 1) -> tuple[int, ...]:
    """Return the spatial sizes of constant weights, after comparing them with the attribute."""
    weights = call.constant(position, "weights")
    sizes = weights.shape[2:]
    if not sizes or call.several("kernel_shape", sizes) != sizes:
        raise InputFileError(f"weights with the kernel_shape of the attribute were wanted; found {weights.shape}")
    return sizes


def _conv(call: Call) -> str:
    window = read_window(call, _kernel_shape(call))
    op = ops.Conv(
        stride=window.stride, padding=window.padding, dilation=window.dilation, groups=call.integer("group", 1)
    )
    return with_bias(call, op, call.arranged(1, "conv", kernel_last))


def kernel_last(weights: Array) -> Array:
    """Return weights (out, in / groups, spatial...) as (spatial..., in / groups, out), a view."""
    return weights.transpose((*range(2, weights.ndim), 1, 0))


def with_bias(call: Call, op: ops.Op, kernel: str) -> str:
    """Add a convolution with its bias; one that is computed is added behind it."""
    if not call.has(2) or call.known(2) is not None:
        bias = (call.tensor(2),) if call.has(2) else ()
        return call.layer(op, call.image(), kernel, *bias)
    plain = call.emit(op, call.image(), kernel, suffix="product")
    return call.layer(ops.Add(), plain, call.tensor(2))


def _conv_transpose(call: Call) -> str:
    window = read_window(call, _kernel_shape(call))
    groups = call.integer("group", 1)
    padding, extra = _transposed_padding(call, window)
    op = ops.ConvTranspose(
        stride=window.stride, padding=padding, dilation=window.dilation, output_padding=extra, groups=groups
    )
    if groups < 1 or call.constant(1, "weights").shape[0] % groups:
        raise InputFileError(f"a group that divides the input channels was wanted; found {groups}")

    def kernel(weights: Array) -> Array:
        """(in, out / groups, spatial...) -> (spatial..., in / groups, out)."""
        runs = weights.reshape(groups, -1, *weights.shape[1:])
        last = runs.transpose((*range(3, runs.ndim), 1, 0, 2))
        return last.reshape(*last.shape[:-2], -1)

    return with_bias(call, op, call.arranged(1, f"transposed_{groups}", kernel))


def _transposed_padding(call: Call, window: Window) -> tuple[Padding, tuple[int, ...]]:
    """Return padding and output_padding; output_shape and auto_pad say what is left of the full output."""
    rank = len(window.sizes)
    extra = call.several("output_padding", (0,) * rank)
    rule = call.text("auto_pad", "NOTSET")
    wanted = call.several("output_shape", ())
    if not wanted and rule not in ("SAME_UPPER", "SAME_LOWER"):
        return window.padding, extra
    targets = wanted[-rank:] or tuple(n * s for n, s in zip(window.sizes, window.stride, strict=True))
    pairs, added = [], []
    for n, f, s, d, e, target in zip(
        window.sizes, window.kernel_size, window.stride, window.dilation, extra, targets, strict=True
    ):
        total = (n - 1) * s + effective_kernel_size(f, d) + e - target
        cut = max(total, 0)
        small, large = cut // 2, cut - cut // 2
        pairs.append((small, large) if rule == "SAME_UPPER" else (large, small))
        added.append(e + max(-total, 0))
    return tuple(pairs), tuple(added)


def _max_pool(call: Call) -> str:
    require(not call.gives(1), "one output", "the positions of the largest values, too")
    window = read_window(call, call.several("kernel_shape", ()))
    if set(window.dilation) != {1}:
        return pool_dilated(call, window, ops.Maximum(), float(np.finfo(np.float32).min))
    padding = tuple((a, b + c) for (a, b), c in zip(window.padding, _overhang(call, window), strict=True))
    op = ops.MaxPool(kernel_size=window.kernel_size, stride=window.stride, padding=padding)
    return call.layer(op, call.image())


def _overhang(call: Call, window: Window) -> tuple[int, ...]:
    """Return how far the last windows reach beyond the padded picture, where ceil_mode lets them."""
    if not call.integer("ceil_mode", 0):
        return (0,) * len(window.sizes)
    found = []
    for n, f, s, (before, after) in zip(window.sizes, window.spans, window.stride, window.padding, strict=True):
        last = -(-(n + before + after - f) // s)
        last -= last * s >= n + before
        found.append(max(last * s + f - (n + before + after), 0))
    return tuple(found)


def _average_pool(call: Call) -> str:
    window = read_window(call, call.several("kernel_shape", ()))
    if set(window.dilation) != {1}:
        return _dilated_mean(call, window)
    overhang, x = _overhang(call, window), call.image()
    is_counted = bool(call.integer("count_include_pad", 0)) and any(map(any, window.padding))
    padding = window.padding
    if is_counted and any(overhang):
        # The file's padding counts, what ceil_mode adds behind it does not: the first becomes a Pad.
        x = call.emit(ops.Pad(padding=((0, 0), *padding, (0, 0))), x, suffix="padded")
        padding, is_counted = ((0, 0),) * len(padding), False
    padding = tuple((a, b + c) for (a, b), c in zip(padding, overhang, strict=True))
    op = ops.AveragePool(
        kernel_size=window.kernel_size, stride=window.stride, padding=padding, count_include_pad=is_counted
    )
    return call.layer(op, x)


def pool_dilated(call: Call, window: Window, join: ops.Op, fill: float, *, suffix: str = "") -> str:
    """Join the positions of a dilated window, one axis after the other, in the file's order."""
    size = sum(window.kernel_size)
    require(size <= WIDEST, f"a dilated window of at most {WIDEST} rows and columns", size)
    padding = tuple((a, b + c) for (a, b), c in zip(window.padding, _overhang(call, window), strict=True))
    x = call.emit(ops.Pad(padding=((0, 0), (0, 0), *padding), value=fill), call.tensor(0), suffix="padded")
    rank = len(call.shape())
    for axis, (f, s, d) in enumerate(zip(window.kernel_size, window.stride, window.dilation, strict=True), start=2):
        span = (known(call.shape_of(x)[axis]) - effective_kernel_size(f, d)) // s * s + 1
        parts = []
        for position in range(f):
            begin, end, step = [0] * rank, list(call.shape_of(x)), [1] * rank
            begin[axis], end[axis], step[axis] = position * d, position * d + span, s
            op = ops.Slice(begin=tuple(begin), end=tuple(end), step=tuple(step))
            parts.append(call.emit(op, x, suffix="part"))
        x = reduce(lambda total, part: call.emit(join, total, part, suffix="joined"), parts)
    return call.emit(ops.Identity(), x, suffix=suffix)


def _dilated_mean(call: Call, window: Window) -> str:
    """Read AveragePool with dilation: the sum of each window over how many of its positions count."""
    total = pool_dilated(call, window, ops.Add(), 0.0, suffix="total")
    is_counted = bool(call.integer("count_include_pad", 0))
    check_size(call.shape_of(total)[2:])
    counts = np.ones(())
    for n, f, s, d, (before, after), out in zip(
        *(window.sizes, window.kernel_size, window.stride, window.dilation, window.padding),
        call.shape_of(total)[2:],
        strict=True,
    ):
        places = np.arange(known(out))[:, None] * s + np.arange(f) * d
        low, high = (0, before + n + after) if is_counted else (before, before + n)
        counts = counts[..., None] * ((places >= low) & (places < high)).sum(axis=1).clip(1)
    return call.emit(ops.Mul(), total, call.made("share", 1 / counts))


def _global(reduction: type[ops.Mean] | type[ops.Max]) -> Row:
    def row(call: Call) -> str:
        axes = tuple(range(2, len(call.shape())))
        return call.emit(reduction(axes=axes, keep_dims=True), call.tensor(0))

    return row


ROWS: dict[str, Row] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global(ops.Mean),
    "GlobalMaxPool": _global(ops.Max),
    "MaxPool": _max_pool,
}
