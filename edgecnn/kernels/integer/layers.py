"""Integer convolutions and dense layers: sums of products, exact, through the matrix products of floats.

A sum of integers in a float is exact in any order while no partial sum exceeds the float's mantissa. A partial sum is
at most max|x| * sum|w| + |bias|: below 2^24 (518 products of 255 * 127, say) float32 is exact, and float64 always.
Patches are made for a few rows at a time, so that memory stays bounded and they stay in the cache.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.kernels.integer.rounding import scaled_in_fixed_point, scaled_in_float32, scaled_in_one_step, scaled_wide
from edgecnn.kernels.integer.scales import IntegerKernel, Scales
from edgecnn.kernels.windows import KERNELS as WINDOWS
from edgecnn.kernels.windows import windows
from edgecnn.shapes import effective_kernel_size, output_size

CHUNK = 1 << 20
"""Elements of the patches that are made at a time, one row of outputs at least."""


def _exact(scales: Scales, kernel: Array, bias: Array | None) -> tuple[Array, Array | None]:
    """Return the kernel less its zero points, and the bias, in the narrowest float that holds every sum."""
    low, high = scales.own[0].limits
    zero = scales.own[0].zero_point[0]
    weights = scales.offset(1, kernel)
    most = max(high - zero, zero - low) * int(np.abs(weights).reshape(-1, weights.shape[-1]).sum(axis=0).max())
    most += 0 if bias is None else int(np.abs(bias.astype(np.int64)).max())
    exact = np.float32 if most <= 2**24 else np.float64
    return weights.astype(exact), None if bias is None else bias.astype(exact)


def _factor(scales: Scales) -> Array:
    """Return input scale * kernel scale / output scale, one for each output channel, in the runtimes' own precision.

    XNNPACK computes it in float32. LiteRT's kernels use float64, but for the product of two scales of uint8 tensors.
    """
    of_input, of_output = (np.float32(q.scale[0]) for q in (scales.own[0], scales.given))
    of_kernel = np.asarray(scales.own[1].scale, np.float32)
    if not scales.is_fixed_point:
        return np.asarray(of_input * of_kernel / of_output)
    is_legacy = scales.given.dtype == "uint8" and scales.own[1].axis is None
    product = of_input * of_kernel if is_legacy else np.float64(of_input) * of_kernel.astype(np.float64)
    return np.asarray(product.astype(np.float64) / np.float64(of_output))


def _finish(op: ops.Op, scales: Scales, sums: Array, factor: Array) -> Array:
    """Return sums of products as the output's integers."""
    if not scales.is_fixed_point:
        return scales.finished(scaled_in_float32(sums, factor))
    if isinstance(op, ops.Dense):
        scaled = scaled_in_one_step
    else:
        scaled = scaled_wide if scales.given.dtype == "int16" else scaled_in_fixed_point
    return scales.finished(scaled(sums.astype(np.int64), factor))


def _chunks(images: int, rows: int, row_size: int) -> Iterator[tuple[slice, slice]]:
    """Yield (images, output rows) whose patches have at most CHUNK elements."""
    rows_at_once = max(1, CHUNK // row_size)
    images_at_once, step = max(1, rows_at_once // rows), min(rows, rows_at_once)
    for image in range(0, images, images_at_once):
        for row in range(0, rows, step):
            yield slice(image, image + images_at_once), slice(row, min(row + step, rows))


def _convolve(op: ops.Conv, scales: Scales, image: Array, kernel: Array, bias: Array | None = None) -> Array:
    weights, offset = _exact(scales, kernel, bias)
    factor, zero = _factor(scales), scales.own[0].zero_point[0]
    padded = np.pad(image, ((0, 0), *op.padding, (0, 0)), constant_values=zero) if np.any(op.padding) else image
    rank = len(op.stride)
    sizes = [
        output_size(n, f, stride=s, dilation=d)
        for n, f, s, d in zip(padded.shape[1:-1], kernel.shape[:rank], op.stride, op.dilation, strict=True)
    ]
    result = np.empty((len(image), *sizes, kernel.shape[-1]), scales.given.dtype)
    span, step = effective_kernel_size(kernel.shape[0], op.dilation[0]), op.stride[0]
    row_size = int(np.prod(sizes[1:])) * max(int(np.prod(kernel.shape[:-1])) * op.groups, kernel.shape[-1])
    for images, rows in _chunks(len(image), sizes[0], row_size):
        part = padded[images, rows.start * step : (rows.stop - 1) * step + span].astype(weights.dtype) - zero
        sums = _sums(op, part, weights)
        result[images, rows] = _finish(op, scales, sums if offset is None else sums + offset, factor)
    return result


def _sums(op: ops.Conv, part: Array, weights: Array) -> Array:
    """Return the cross-correlation of padded rows."""
    if op.groups > 1:
        return WINDOWS[ops.Conv](replace(op, padding=((0, 0),) * len(op.stride), activation=None), part, weights)
    views = [view for _, view in windows(part, weights.shape[: len(op.stride)], op.stride, op.dilation)]
    patches = np.concatenate(views, axis=-1) if len(views) > 1 else views[0]
    products = np.asarray(patches.reshape(-1, patches.shape[-1]) @ weights.reshape(-1, weights.shape[-1]))
    return products.reshape(*patches.shape[:-1], weights.shape[-1])


def _convolve_transposed(
    op: ops.ConvTranspose, scales: Scales, image: Array, kernel: Array, bias: Array | None = None
) -> Array:
    weights, offset = _exact(scales, kernel, bias)
    factor, zero = _factor(scales), scales.own[0].zero_point[0]

    def convolved(one: Array) -> Array:
        sums = WINDOWS[ops.ConvTranspose](op, one[None].astype(weights.dtype) - zero, weights)
        return _finish(op, scales, sums if offset is None else sums + offset, factor)

    return np.concatenate([convolved(one) for one in image])


def _dense(op: ops.Dense, scales: Scales, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    weights, offset = _exact(scales, kernel, bias)
    sums = np.asarray((x.astype(weights.dtype) - scales.own[0].zero_point[0]) @ weights)
    return _finish(op, scales, sums if offset is None else sums + offset, _factor(scales))


def _mat_mul(op: ops.MatMul, scales: Scales, a: Array, b: Array) -> Array:
    sums = scales.offset(0, a).astype(np.float64) @ scales.offset(1, b).astype(np.float64)
    return _finish(op, scales, sums, _factor(scales))


KERNELS: dict[type[ops.Op], IntegerKernel] = {
    ops.Conv: _convolve,
    ops.ConvTranspose: _convolve_transposed,
    ops.Dense: _dense,
    ops.MatMul: _mat_mul,
}
