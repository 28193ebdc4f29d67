"""Sizes that a file computes while it runs: integers, and the symbolic batch times a number.

An array of sizes that holds a Batch has dtype object, so NumPy's own arithmetic, joining and cutting work on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError, ShapeError, UnsupportedError
from edgecnn.graph import Array
from edgecnn.shapes import Shape, show_shape

LARGEST = 1 << 24
"""Elements that a value known while reading may have; a file asks for more only to exhaust memory."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The symbolic batch times a factor; it equals no number, and what it cannot express is refused."""

    factor: int = 1

    def __mul__(self, other: object) -> "Batch":
        if isinstance(other, int | np.integer):
            return Batch(self.factor * int(other))
        raise UnsupportedError("a product of the symbolic batch with a number was wanted; found another one")

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> "int | Batch":
        if isinstance(other, Batch) and other.factor and self.factor % other.factor == 0:
            return self.factor // other.factor
        if isinstance(other, int | np.integer) and other and self.factor % int(other) == 0:
            return Batch(self.factor // int(other))
        raise UnsupportedError(f"a quotient of the symbolic batch without remainder was wanted; divided by {other}")

    __truediv__ = __floordiv__

    def __add__(self, other: object) -> "Batch":
        if isinstance(other, int | np.integer) and other == 0:
            return self
        if isinstance(other, Batch):
            return Batch(self.factor + other.factor)
        raise UnsupportedError("the symbolic batch was wanted as it is or multiplied; found a sum with it")

    __radd__ = __add__


def sizes_of(shape: Shape) -> Array:
    """Return a shape as the array that ONNX's Shape gives."""
    if None in shape:
        found = np.empty(len(shape), object)
        found[:] = [Batch() if size is None else size for size in shape]
        return found
    return np.array(shape, np.int64)


def as_sizes(values: Array) -> tuple[int | Batch, ...]:
    """Return a known array as sizes."""
    if values.dtype.kind not in "iubO":
        raise InputFileError(f"integers were wanted; found {values.dtype}")
    return tuple(size if isinstance(size, Batch) else int(size) for size in values.ravel().tolist())


def as_shape(sizes: Sequence[int | Batch]) -> Shape:
    """Return sizes as a shape of the Graph.

    Raises:
        UnsupportedError: When the symbolic batch is not first, or is multiplied.
    """
    if any(isinstance(size, Batch) and (axis or size != Batch()) for axis, size in enumerate(sizes)):
        raise UnsupportedError("a symbolic batch that stays the first axis was wanted; found it mixed with others")
    return tuple(None if isinstance(size, Batch) else size for size in sizes)


def product(sizes: Sequence[int | Batch]) -> int | Batch:
    """Return the product of sizes, at most one of them the symbolic batch."""
    found: int | Batch = 1
    for size in sizes:
        found = found * size
    return found


def resolved(wanted: Sequence[int | Batch], source: Shape, *, is_zero_kept: bool = False) -> Shape:
    """Return the shape that a Reshape gives: 0 copies the source's size (unless it is kept), -1 takes what is left.

    Source: onnx/onnx, docs/Operators.md, Reshape.
    """
    before = as_sizes(sizes_of(source))
    if any(size == 0 and axis >= len(source) for axis, size in enumerate(wanted)) and not is_zero_kept:
        raise InputFileError(f"a shape that copies existing sizes was wanted; found {tuple(wanted)}")
    sizes = [before[axis] if size == 0 and not is_zero_kept else size for axis, size in enumerate(wanted)]
    if sizes.count(-1) > 1 or any(isinstance(size, int) and size < -1 for size in sizes):
        raise InputFileError(f"a shape with at most one -1 was wanted; found {tuple(wanted)}")
    if -1 in sizes:
        sizes[sizes.index(-1)] = _left([size for size in sizes if size != -1], before)
    return as_shape(sizes)


def _left(rest: Sequence[int | Batch], before: Sequence[int | Batch]) -> int | Batch:
    """Return the size that -1 stands for: all elements over those of the other sizes."""
    total, given = _amount(before), _amount(rest)
    if given[1] == 0 or total[1] % given[1] or not 0 <= total[0] - given[0] <= 1:
        raise ShapeError(f"a shape that keeps the elements was wanted; found {tuple(rest)} of {tuple(before)}")
    count = total[1] // given[1]
    return Batch(count) if total[0] > given[0] else count


def _amount(sizes: Sequence[int | Batch]) -> tuple[int, int]:
    """Return (how often the batch is a factor, product of the numbers)."""
    batches = [size for size in sizes if isinstance(size, Batch)]
    return len(batches), prod(size.factor if isinstance(size, Batch) else size for size in sizes)


def check_size(shape: Sequence[Any]) -> None:
    """Refuse to make a value that is larger than any that a network needs to be known while it is read."""
    if prod(int(size) for size in shape) > LARGEST:
        raise UnsupportedError(
            f"a known value of at most {LARGEST} elements was wanted; found {show_shape(tuple(shape))}"
        )
