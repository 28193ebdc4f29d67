"""Operators that reduce axes to one value."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgecnn.ops.op import Op, check_axes
from edgecnn.shapes import Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reduction(Op):
    axes: tuple[int, ...]
    keep_dims: bool = False

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shape without the axes, or with 1 in their place."""
        (shape,) = shapes
        check_axes(self.axes, shape)
        if self.keep_dims:
            return (tuple(1 if axis in self.axes else size for axis, size in enumerate(shape)),)
        return (tuple(size for axis, size in enumerate(shape) if axis not in self.axes),)


class Mean(_Reduction):
    """The mean over axes; over the spatial ones it is global average pooling."""

    __slots__ = ()


class Sum(_Reduction):
    """The sum over axes."""

    __slots__ = ()


class Max(_Reduction):
    """The largest value over axes; over the spatial ones it is global max pooling."""

    __slots__ = ()


class Min(_Reduction):
    """The smallest value over axes."""

    __slots__ = ()


class Prod(_Reduction):
    """The product over axes."""

    __slots__ = ()
