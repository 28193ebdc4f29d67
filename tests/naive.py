"""Operators as plain loops over single numbers, from their definitions: what the NumPy kernels are held against."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product

import numpy as np

from edgecnn.graph import Array

Pairs = Sequence[tuple[int, int]]


def positions(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every index of an array of these sizes."""
    return product(*(range(size) for size in sizes))


def out_sizes(
    image: Array, kernel_size: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int]
) -> list[int]:
    """Count, along each dimension, the starts from which the whole kernel fits the padded input."""
    return [
        len([p for p in range(0, n + a + b, s) if p + d * (f - 1) < n + a + b])
        for n, f, s, (a, b), d in zip(image.shape[1:-1], kernel_size, stride, padding, dilation, strict=True)
    ]


def met(
    image: Array,
    start: Sequence[int],
    offset: Sequence[int],
    stride: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
) -> tuple[int, ...] | None:
    """Return the input position that a kernel position meets, or None where that is padding."""
    found = tuple(
        p * s + o * d - before for p, o, s, (before, _), d in zip(start, offset, stride, padding, dilation, strict=True)
    )
    inside = all(0 <= p < n for p, n in zip(found, image.shape[1:-1], strict=True))
    return found if inside else None


def conv(
    image: Array,
    kernel: Array,
    bias: Array,
    *,
    stride: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """Cross-correlate group by group; output channel o belongs to group o // (out_channels / groups)."""
    kernel_size, (group_inputs, out_channels) = kernel.shape[:-2], kernel.shape[-2:]
    result = np.zeros((len(image), *out_sizes(image, kernel_size, stride, padding, dilation), out_channels))
    for n, *start, o in positions(result.shape):
        first = o // (out_channels // groups) * group_inputs
        total = float(bias[o])
        for *offset, i in positions((*kernel_size, group_inputs)):
            where = met(image, start, offset, stride, padding, dilation)
            if where is not None:
                total += float(image[(n, *where, first + i)]) * float(kernel[(*offset, i, o)])
        result[(n, *start, o)] = total
    return result


def pool(image: Array, *, kernel_size: Sequence[int], stride: Sequence[int], padding: Pairs, is_max: bool) -> Array:
    """Take the largest, or the mean, of what lies inside the image under each window."""
    ones = [1] * len(kernel_size)
    result = np.zeros((len(image), *out_sizes(image, kernel_size, stride, padding, ones), image.shape[-1]))
    for n, *start, c in positions(result.shape):
        seen = [
            float(image[(n, *where, c)])
            for offset in positions(kernel_size)
            if (where := met(image, start, offset, stride, padding, ones)) is not None
        ]
        result[(n, *start, c)] = max(seen) if is_max else sum(seen) / len(seen)
    return result


def conv_transpose(
    image: Array,
    kernel: Array,
    bias: Array,
    *,
    stride: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> Array:
    """Lay input value times kernel at every place that lies inside the output."""
    kernel_size, (_, out_channels) = kernel.shape[:-2], kernel.shape[-2:]
    sizes = [
        (n - 1) * s + d * (f - 1) + 1 - a - b + extra
        for n, s, f, d, (a, b), extra in zip(
            image.shape[1:-1], stride, kernel_size, dilation, padding, output_padding, strict=True
        )
    ]
    result = np.zeros((len(image), *sizes, out_channels)) + bias
    for n, *start, i in positions(image.shape):
        for *offset, o in positions((*kernel_size, out_channels)):
            where = tuple(
                p * s + f * d - before
                for p, s, f, d, (before, _) in zip(start, stride, offset, dilation, padding, strict=True)
            )
            if all(0 <= p < size for p, size in zip(where, sizes, strict=True)):
                result[(n, *where, o)] += float(image[(n, *start, i)]) * float(kernel[(*offset, i, o)])
    return result


def resize(image: Array, sizes: Sequence[int], *, method: str, coordinates: str) -> Array:
    """Read the image at each output position's place, in exact fractions."""
    result = np.zeros((len(image), *sizes, image.shape[-1]))
    before = image.shape[1:-1]
    for n, *place, c in positions(result.shape):
        found = [_read_at(i, m, size, coordinates) for i, m, size in zip(place, before, sizes, strict=True)]
        if method == "nearest":
            half = Fraction(1, 2)
            picked = [math.floor(at if coordinates == "asymmetric" else at + half) for at in found]
            result[(n, *place, c)] = image[(n, *picked, c)]
            continue
        for corner in product((0, 1), repeat=len(found)):
            inside = [min(max(at, Fraction(0)), Fraction(m - 1)) for at, m in zip(found, before, strict=True)]
            lower = [math.floor(at) for at in inside]
            weight = math.prod(at - p if k else 1 - (at - p) for at, p, k in zip(inside, lower, corner, strict=True))
            where = [min(p + k, m - 1) for p, k, m in zip(lower, corner, before, strict=True)]
            result[(n, *place, c)] += float(weight) * float(image[(n, *where, c)])
    return result


def _read_at(i: int, m: int, n: int, coordinates: str) -> Fraction:
    if coordinates == "align_corners":
        return Fraction(i * (m - 1), max(n - 1, 1))
    return Fraction(i * m, n) if coordinates == "asymmetric" else Fraction((2 * i + 1) * m, 2 * n) - Fraction(1, 2)


def lrn(x: Array, *, size: int, alpha: float, beta: float, bias: float) -> Array:
    """Divide each number by the power of its neighbours' squares."""
    result = np.zeros(x.shape)
    for *where, c in positions(x.shape):
        near = range(max(0, c - size // 2), min(x.shape[-1], c + size // 2 + 1))
        total = sum(float(x[(*where, k)]) ** 2 for k in near)
        result[(*where, c)] = float(x[(*where, c)]) / (bias + alpha * total) ** beta
    return result


def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Normalise each vector along the last axis."""
    result = np.zeros(x.shape)
    for where in positions(x.shape[:-1]):
        row = [float(value) for value in x[where]]
        mean = sum(row) / len(row)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / len(row) + epsilon)
        for c, value in enumerate(row):
            result[(*where, c)] = float(gamma[c]) * (value - mean) / deviation + float(beta[c])
    return result


def group_norm(x: Array, gamma: Array, beta: Array, groups: int, epsilon: float) -> Array:
    """Normalise each image's run of channels over all positions."""
    result, run = np.zeros(x.shape), x.shape[-1] // groups
    for n, *where, c in positions(x.shape):
        own = range(c // run * run, c // run * run + run)
        values = [float(x[(n, *place, k)]) for place in positions(x.shape[1:-1]) for k in own]
        mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values) + epsilon)
        result[(n, *where, c)] = float(gamma[c]) * (float(x[(n, *where, c)]) - mean) / deviation + float(beta[c])
    return result


Box = tuple[float, float, float, float]


def decode(offset: Array, anchor: Array, scales: Sequence[float]) -> Box:
    """Return (top, left, bottom, right) of an SSD box."""
    y, x, height, width = (float(value) / scale for value, scale in zip(offset, scales, strict=True))
    centre_y, centre_x = y * float(anchor[2]) + float(anchor[0]), x * float(anchor[3]) + float(anchor[1])
    half_height, half_width = math.exp(height) * float(anchor[2]) / 2, math.exp(width) * float(anchor[3]) / 2
    return centre_y - half_height, centre_x - half_width, centre_y + half_height, centre_x + half_width


def overlap(a: Box, b: Box) -> float:
    """Return intersection / union of two boxes."""
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0) * max(width, 0)
    return shared / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared)


def suppress(boxes: Sequence[Box], scores: Sequence[float], least: float, most_overlap: float) -> list[int]:
    """Go through the boxes from the best on, and keep each that overlaps no kept one."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if scores[index] >= least and all(overlap(boxes[index], boxes[each]) <= most_overlap for each in kept):
            kept.append(index)
    return kept
