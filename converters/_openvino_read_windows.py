"""Rows of layers over space and channels: convolutions, pools, resampling and blocks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.graph import Array
from edgecnn.ops import known
from edgecnn.shapes import Padding, Shape, same_padding

from ._openvino_read_call import Call, Row
from ._resize_positions import OWN_LINEAR, OWN_NEAREST, ROUNDING

METHODS = {"nearest": "nearest", "linear": "bilinear", "linear_onnx": "bilinear"}
LONGEST = 1 << 16
"""Positions of an axis whose rules are compared one by one."""


def _convolution(call: Call) -> str | None:
    """Kernel (out, in, spatial...) or (groups, out / groups, in / groups, spatial...)."""
    is_grouped = call.layer.kind == "GroupConvolution"
    shape, rank = call.shape(1), len(call.shape()) - 2
    if rank not in (1, 2, 3) or len(shape) != rank + 2 + is_grouped:
        return None
    kernel = call.arranged(1, lambda data: _output_last(data, rank))
    if kernel is None:
        return None
    stride, dilation = _window(call, "strides", rank), _window(call, "dilations", rank)
    op = ops.Conv(
        stride=stride,
        dilation=dilation,
        padding=_padding(call, shape[-rank:], stride, dilation),
        groups=known(shape[0]) if is_grouped else 1,
    )
    bias = call.absorbed_bias(_per_channel(call.reading.builder.shape(kernel)[-1], rank))
    return call.channels_first(call.node(op, call.channels_last(), kernel, *bias))


def _output_last(data: Array, rank: int) -> Array:
    """Return ([groups,] out, in, spatial...) as (spatial..., in, groups * out)."""
    return data.reshape(-1, *data.shape[-rank - 1 :]).transpose(*range(2, rank + 2), 1, 0)


def _transposed(call: Call) -> str | None:
    """Kernel (in, out, spatial...) or (groups, in / groups, out / groups, spatial...)."""
    is_grouped = call.layer.kind == "GroupConvolutionBackpropData"
    shape, rank = call.shape(1), len(call.shape()) - 2
    if len(call) > 2 or rank not in (1, 2, 3) or call.text("auto_pad", "explicit") not in ("explicit", "valid"):
        return None
    if len(shape) != rank + 2 + is_grouped:
        return None
    kernel = call.arranged(1, lambda data: _last(data, rank, is_grouped=is_grouped))
    if kernel is None:
        return None
    stride, dilation = _window(call, "strides", rank), _window(call, "dilations", rank)
    op = ops.ConvTranspose(
        stride=stride,
        dilation=dilation,
        padding=_padding(call, shape[-rank:], stride, dilation),
        output_padding=call.numbers("output_padding", (0,) * rank),
        groups=known(shape[0]) if is_grouped else 1,
    )
    bias = call.absorbed_bias(_per_channel(call.reading.builder.shape(kernel)[-1], rank))
    return call.channels_first(call.node(op, call.channels_last(), kernel, *bias))


def _last(data: Array, rank: int, *, is_grouped: bool) -> Array:
    """Return ([groups,] in, out, spatial...) as (spatial..., in, groups * out)."""
    grouped = data if is_grouped else data[np.newaxis]
    turned = grouped.transpose(*range(3, rank + 3), 1, 0, 2)
    return turned.reshape(*turned.shape[:-2], -1)


def _per_channel(channels: int | None, rank: int) -> Callable[[Shape], bool]:
    return lambda shape: shape == (1, channels, *[1] * rank)


def _window(call: Call, name: str, rank: int) -> tuple[int, ...]:
    found = call.numbers(name, (1,) * rank)
    if len(found) != rank or min(found) < 1:
        raise InputFileError(f"{call.where}: {name}: {rank} numbers of at least 1 were wanted; got {found}")
    return found


def _padding(call: Call, size: Shape, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Padding:
    """Return the explicit padding of a window."""
    rule, rank = call.text("auto_pad", "explicit"), len(size)
    if rule == "valid":
        return ((0, 0),) * rank
    if rule not in ("same_upper", "same_lower"):
        pads = call.numbers("pads_begin", (0,) * rank), call.numbers("pads_end", (0,) * rank)
        return tuple(zip(*pads, strict=False))
    pairs = [
        same_padding(known(n), known(f), stride=s, dilation=d)
        for n, f, s, d in zip(call.shape()[2:], size, stride, dilation, strict=False)
    ]
    return tuple(pair if rule == "same_upper" else pair[::-1] for pair in pairs)


def _pool(call: Call) -> str | None:
    rank = len(call.shape()) - 2
    if rank not in (1, 2, 3):
        return None
    size, stride = _window(call, "kernel", rank), _window(call, "strides", rank)
    if set(call.numbers("dilations", (1,))) != {1} or call.is_used(1):
        return None
    padding = _padding(call, size, stride, (1,) * rank)
    rounded = _rounded_up(call, padding, size, stride)
    fields: dict[str, Any] = {"kernel_size": size, "stride": stride, "padding": rounded}
    if call.layer.kind == "MaxPool":
        return call.channels_first(call.node(ops.MaxPool(**fields), call.channels_last()))
    counts = any(map(any, padding)) and not call.flag("exclude-pad", default=False)
    if counts and rounded != padding:
        return None
    return call.channels_first(call.node(ops.AveragePool(**fields, count_include_pad=counts), call.channels_last()))


def _rounded_up(call: Call, padding: Padding, size: tuple[int, ...], stride: tuple[int, ...]) -> Padding:
    """Return the padding that gives, rounded down, what the file rounds up: longer behind, where a window is cut."""
    if not call.text("rounding_type", "floor").startswith("ceil"):
        return padding
    sizes = zip(call.shape()[2:], call.output_shape()[2:], padding, size, stride, strict=True)
    return tuple(
        (before, max(after, (known(m) - 1) * s + f - known(n) - before)) for n, m, (before, after), f, s in sizes
    )


def _interpolate(call: Call) -> str | None:
    """Resample the axes behind the channels, or (models that came from TFLite) those before them."""
    before, after = call.shape(), call.output_shape()
    method: Any = METHODS.get(call.text("mode", ""))
    pads = (*call.numbers("pads_begin", (0,)), *call.numbers("pads_end", (0,)))
    if method is None or any(pads) or call.flag("antialias", default=False) or len(before) not in (3, 4, 5):
        return None
    axes = _resampled(call, before, after)
    if (
        axes is None
        or 0 in (*before, *after)
        or not _scales_fit(call, [known(after[axis]) / known(before[axis]) for axis in axes])
    ):
        return None
    sizes = [(known(before[axis]), known(after[axis])) for axis in axes]
    rule = call.text("coordinate_transformation_mode", "half_pixel")
    coordinates: Any = _same_nearest(call, rule, sizes) if method == "nearest" else _same_linear(rule, sizes)
    if coordinates is None:
        return None
    op = ops.Resize(size=tuple(n for _, n in sizes), method=method, coordinates=coordinates)
    if axes[0] == 1:
        return call.node(op, call.tensor(0))
    return call.channels_first(call.node(op, call.channels_last()))


def _resampled(call: Call, before: Shape, after: Shape) -> tuple[int, ...] | None:
    """Return the spatial axes, 1.. or 2.. and all of them; the last input names them, unless it is left out."""
    rank = len(before)
    named = call.axes(len(call) - 1, rank) if len(call) > 2 and len(call.shape(len(call) - 1)) == 1 else None
    changed = {axis for axis in range(rank) if before[axis] != after[axis]} | set(named or ())
    choices = (tuple(range(2, rank)), tuple(range(1, rank - 1)))
    return next((axes for axes in choices if changed <= set(axes)), None)


def _scales_fit(call: Call, ratios: list[float]) -> bool:
    """Tell whether the factors that the file computes with, where it does, are the ratios of the sizes."""
    if call.text("shape_calculation_mode", "sizes") != "scales":
        return True
    found = [call.known(position) for position in range(1, len(call))]
    given = next((each for each in found if each is not None and each.dtype.kind == "f"), None)
    return given is not None and given.size >= len(ratios) and np.allclose(given.reshape(-1)[-len(ratios) :], ratios)


def _same_linear(rule: str, sizes: list[tuple[int, int]]) -> str | None:
    if rule == "pytorch_half_pixel" and all(n > 1 for _, n in sizes):
        return "half_pixel"
    return rule if rule in OWN_LINEAR else None


def _same_nearest(call: Call, rule: str, sizes: list[tuple[int, int]]) -> str | None:
    """Return the coordinates of the Graph under which every output reads the input that the file's rules name."""
    nearest = ROUNDING.get(call.text("nearest_mode", "round_prefer_floor"))
    place = PLACES.get(rule)
    if nearest is None or place is None or max(map(max, sizes)) > LONGEST:
        return None
    for name, own in OWN_NEAREST.items():
        if all(np.array_equal(nearest(place(m, n)).clip(0, m - 1), own(m, n)) for m, n in sizes):
            return name
    return None


PLACES: dict[str, Callable[[int, int], Array]] = {
    "half_pixel": lambda m, n: (np.arange(n) + 0.5) * m / n - 0.5,
    "pytorch_half_pixel": lambda m, n: (np.arange(n) + 0.5) * m / n - 0.5 if n > 1 else np.zeros(n),
    "asymmetric": lambda m, n: np.arange(n) * m / n,
    "align_corners": lambda m, n: np.arange(n) * (m - 1) / (n - 1) if n > 1 else np.zeros(n),
    "tf_half_pixel_for_nn": lambda m, n: (np.arange(n) + 0.5) * m / n,
}
"""Coordinate rule -> (input size, output size) -> where each output lies. Source: OpenVINO, Interpolate-4."""


def _blocks(call: Call) -> str | None:
    """The order "depth_first" (PyTorch's pixel shuffle) is spelled out as Reshape, Transpose, Reshape."""
    shape, block = call.shape(), call.integer("block_size", 1)
    if len(shape) != 4 or block < 1:
        return None
    is_deeper = call.layer.kind == "SpaceToDepth"
    if call.text("mode", "blocks_first") == "blocks_first":
        op = ops.SpaceToDepth(block=block) if is_deeper else ops.DepthToSpace(block=block)
        return call.channels_first(call.node(op, call.channels_last()))
    batch, channels, height, width = shape[0], *(known(size) for size in shape[1:])
    if is_deeper:
        split: Shape = (batch, channels, height // block, block, width // block, block)
        order = (0, 1, 3, 5, 2, 4)
    else:
        split, order = (batch, channels // block**2, block, block, height, width), (0, 1, 4, 2, 5, 3)
    x = call.step("split", ops.Reshape(shape=split), call.tensor(0))
    x = call.step("turned", ops.Transpose(permutation=order), x)
    return call.node(ops.Reshape(shape=call.output_shape()), x)


ROWS: dict[str, Row] = {
    "Convolution": _convolution,
    "GroupConvolution": _convolution,
    "ConvolutionBackpropData": _transposed,
    "GroupConvolutionBackpropData": _transposed,
    "MaxPool": _pool,
    "AvgPool": _pool,
    "Interpolate": _interpolate,
    "DepthToSpace": _blocks,
    "SpaceToDepth": _blocks,
}
"""Layer type -> how it is read."""
