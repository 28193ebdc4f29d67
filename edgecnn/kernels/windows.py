"""Kernels of convolution, its transpose and pooling.

They add up one kernel position at a time, which needs no im2col copy and leaves the work to BLAS.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.shapes import Padding, effective_kernel_size, output_size

CACHED_BYTES = 1 << 17
"""Of outputs of a depthwise convolution that are made at a time."""


def pad_spatial(image: Array, padding: Padding, value: float = 0.0) -> Array:
    """Pad the spatial axes of (N, spatial..., C)."""
    if not any(sum(pair) for pair in padding):
        return image
    return np.pad(image, ((0, 0), *padding, (0, 0)), constant_values=value)


def spans(
    sizes: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Return, for each kernel position, the position and the spatial places that it meets in windows of these counts.

    Args:
        sizes: Windows along each dimension.
        kernel_size: Kernel positions along each dimension.
        stride: Step between windows.
        dilation: Step between kernel positions.
    """
    found = []
    for position in product(*(range(size) for size in kernel_size)):
        starts = [p * d for p, d in zip(position, dilation, strict=True)]
        places = (slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, sizes, stride, strict=True))
        found.append((position, (slice(None), *places)))
    return found


def windows(
    padded: Array, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[tuple[int, ...], Array]]:
    """Return, for each kernel position, the position and the view of the input that it meets: (N, outputs..., C)."""
    sizes = [
        output_size(n, f, stride=s, dilation=d)
        for n, f, s, d in zip(padded.shape[1:-1], kernel_size, stride, dilation, strict=True)
    ]
    return [(position, padded[places]) for position, places in spans(sizes, kernel_size, stride, dilation)]


def convolve(op: ops.Conv, image: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Return the cross-correlation (N, outputs..., out_channels)."""
    rank, padded = len(op.stride), pad_spatial(image, op.padding)
    if op.groups == kernel.shape[-1] == image.shape[-1]:
        total = _depthwise(op, padded, kernel[..., 0, :])
        return total if bias is None else total + bias
    (position, view), *others = windows(padded, kernel.shape[:rank], op.stride, op.dilation)
    total = _grouped(view, kernel[position], op.groups)
    for position, view in others:
        total += _grouped(view, kernel[position], op.groups)
    return total if bias is None else total + bias


def _depthwise(op: ops.Conv, padded: Array, weights: Array) -> Array:
    """Multiply each channel with its own weights, a few rows of outputs at a time, which stay in the cache."""
    kernel_size = weights.shape[:-1]
    sizes = [
        output_size(n, f, stride=s, dilation=d)
        for n, f, s, d in zip(padded.shape[1:-1], kernel_size, op.stride, op.dilation, strict=True)
    ]
    result = np.zeros((len(padded), *sizes, weights.shape[-1]), np.result_type(padded, weights))
    count = max(1, CACHED_BYTES // max(1, result[:1, :1].nbytes))
    span, step = effective_kernel_size(kernel_size[0], op.dilation[0]), op.stride[0]
    for place, row in product(range(len(padded)), range(0, sizes[0], count)):
        total = result[place : place + 1, row : row + count]
        rows = padded[place : place + 1, row * step : (row + total.shape[1] - 1) * step + span]
        for position, view in windows(rows, kernel_size, op.stride, op.dilation):
            total += view * weights[position]
    return result


def _grouped(view: Array, weights: Array, groups: int) -> Array:
    """Multiply one view (..., in_channels) with (in_channels / groups, out_channels), group by group."""
    if groups == 1:
        if not view.flags.c_contiguous:
            return np.asarray(view @ weights)
        # NumPy would make a product of every row of a picture.
        return np.asarray(view.reshape(-1, view.shape[-1]) @ weights).reshape(*view.shape[:-1], weights.shape[-1])
    if groups == view.shape[-1]:
        multiplier = weights.shape[-1] // groups
        return np.asarray((view if multiplier == 1 else np.repeat(view, multiplier, axis=-1)) * weights[0])
    inputs, outputs = np.split(view, groups, axis=-1), np.split(weights, groups, axis=-1)
    return np.concatenate([x @ w for x, w in zip(inputs, outputs, strict=True)], axis=-1)


def _convolve_transposed(op: ops.ConvTranspose, image: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Lay the kernel, times each input value, into an output that is cut to size afterwards."""
    sizes, kernel_size = image.shape[1:-1], kernel.shape[:-2]
    full = [
        (n - 1) * s + effective_kernel_size(f, d) + extra
        for n, f, s, d, extra in zip(sizes, kernel_size, op.stride, op.dilation, op.output_padding, strict=True)
    ]
    laid = np.zeros((len(image), *full, kernel.shape[-1]), image.dtype)
    for position, places in spans(sizes, kernel_size, op.stride, op.dilation):
        laid[places] += _grouped(image, kernel[position], op.groups)
    cut = laid[(slice(None), *(slice(before, n - after) for n, (before, after) in zip(full, op.padding, strict=True)))]
    return cut if bias is None else cut + bias


def _max_pool(op: ops.MaxPool, image: Array) -> Array:
    padded = pad_spatial(image, op.padding, -np.inf)
    parts = [view for _, view in windows(padded, op.kernel_size, op.stride, (1,) * len(op.stride))]
    return reduce(np.maximum, parts)


def _average_pool(op: ops.AveragePool, image: Array) -> Array:
    ones = (1,) * len(op.stride)
    inside = pad_spatial(np.ones((1, *image.shape[1:-1], 1), image.dtype), op.padding, float(op.count_include_pad))
    total = sum(view for _, view in windows(pad_spatial(image, op.padding), op.kernel_size, op.stride, ones))
    counted = sum(view for _, view in windows(inside, op.kernel_size, op.stride, ones))
    return np.asarray(total / counted)


KERNELS: dict[type[ops.Op], Callable[..., Array]] = {
    ops.Conv: convolve,
    ops.ConvTranspose: _convolve_transposed,
    ops.MaxPool: _max_pool,
    ops.AveragePool: _average_pool,
}
