"""What every operator is, and the arithmetic that their shape rules share."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import ClassVar

from edgecnn.errors import ShapeError
from edgecnn.shapes import Padding, Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """One operator and its attributes.

    Attributes:
        operands: Names of the inputs, in order; a trailing "?" marks one that may be left out.
        statistics: Operands that training computes but does not learn.
    """

    operands: ClassVar[tuple[str, ...]] = ("input",)
    statistics: ClassVar[tuple[str, ...]] = ()

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shape of each output.

        Args:
            shapes: Shapes of the operands, in order.

        Raises:
            ShapeError: Saying what was wanted and what was found, without the node's name.
        """
        return (shapes[0],)

    def output_dtype(self, dtypes: Sequence[str]) -> str:
        """Return the element type of the outputs.

        Args:
            dtypes: NumPy names of the operands' types, in order.
        """
        return dtypes[0]

    def attributes(self) -> dict[str, object]:
        """Return the fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Activation(Op):
    """An operator that maps each element on its own and can follow another one at no cost."""

    __slots__ = ()


def check_not_negative(padding: Padding) -> None:
    """Refuse negative padding."""
    if any(number < 0 for pair in padding for number in pair):
        raise ShapeError(f"padding must not be negative; got {padding}")


def check_axes(axes: Sequence[int], shape: Shape) -> None:
    """Refuse axes that a shape does not have."""
    if any(not 0 <= axis < len(shape) for axis in axes):
        raise ShapeError(f"axes must lie in 0..{len(shape) - 1}; got {tuple(axes)}")


def known(size: int | None) -> int:
    """Return a size that must be known."""
    if size is None:
        raise ShapeError("only the batch may be symbolic; got a symbolic size in another place")
    return size


def elements(shape: Shape) -> int:
    """Return the number of elements, a symbolic batch counted as one."""
    return prod(size for size in shape if size is not None)
