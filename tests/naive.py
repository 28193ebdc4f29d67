"""Operators as plain loops over single numbers, from their definitions: what the NumPy kernels are held against."""

from collections.abc import Iterator, Sequence
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
