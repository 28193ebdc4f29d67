"""Operators whose output has another element type than their input, and Where, which reads booleans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from edgecnn.errors import ShapeError
from edgecnn.ops.op import Op, check_axes
from edgecnn.shapes import Shape, broadcast_shapes

NUMBERS = ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cast(Op):
    """The same values in another type; float to integer cuts the fraction off.

    Attributes:
        dtype: NumPy name of the new type.
    """

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in NUMBERS:
            raise ShapeError(f"dtype must be one of {', '.join(NUMBERS)}; got {self.dtype!r}")

    def output_dtype(self, dtypes: Sequence[str]) -> str:
        """Return the new type."""
        return self.dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class ArgMax(Op):
    """The position of the largest value along one axis, the first of equals."""

    axis: int
    keep_dims: bool = False
    dtype: Literal["int32", "int64"] = "int64"

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shape without the axis, or with 1 in its place."""
        (shape,) = shapes
        check_axes((self.axis,), shape)
        return ((*shape[: self.axis], *((1,) if self.keep_dims else ()), *shape[self.axis + 1 :]),)

    def output_dtype(self, dtypes: Sequence[str]) -> str:
        """Return the type of positions."""
        return self.dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class _Comparison(Op):
    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the broadcast of both shapes."""
        return (broadcast_shapes(shapes[0], shapes[1]),)

    def output_dtype(self, dtypes: Sequence[str]) -> str:
        """Return bool."""
        return "bool"


class Greater(_Comparison):
    """a > b, with NumPy broadcasting."""

    __slots__ = ()


class GreaterOrEqual(_Comparison):
    """a >= b, with NumPy broadcasting."""

    __slots__ = ()


class Less(_Comparison):
    """a < b, with NumPy broadcasting."""

    __slots__ = ()


class LessOrEqual(_Comparison):
    """a <= b, with NumPy broadcasting."""

    __slots__ = ()


class Equal(_Comparison):
    """a == b, with NumPy broadcasting."""

    __slots__ = ()


class And(_Comparison):
    """Both of two booleans, with NumPy broadcasting."""

    __slots__ = ()


class Or(_Comparison):
    """One of two booleans or both, with NumPy broadcasting."""

    __slots__ = ()


class Not(Op):
    """The other boolean."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Where(Op):
    """a where the condition is true, b elsewhere, with NumPy broadcasting."""

    operands: ClassVar[tuple[str, ...]] = ("condition", "a", "b")

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the broadcast of the three shapes."""
        return (broadcast_shapes(shapes[0], broadcast_shapes(shapes[1], shapes[2])),)

    def output_dtype(self, dtypes: Sequence[str]) -> str:
        """Return the type of what is chosen from."""
        return dtypes[1]


class Quantize(Op):
    """Float numbers, or integers of another scale, as the integers that the output tensor's quantization states."""

    __slots__ = ()


class Dequantize(Op):
    """The float numbers that integers stand for."""

    __slots__ = ()
