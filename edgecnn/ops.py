"""The operator vocabulary: one frozen record per operator, with its shape rule.

Tensors are NHWC everywhere (N, spatial..., C). An operator's attributes are its fields; everything that has a tensor
(input, kernel, bias, statistics) is an operand, named in `operands`; a name that ends in "?" may be left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import ClassVar

from edgecnn.errors import ShapeError
from edgecnn.shapes import Padding, Shape, broadcast_shapes, check_shape, output_size, show_shape


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

    def attributes(self) -> dict[str, object]:
        """Return the fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Activation(Op):
    """An operator that maps each element on its own and can follow another one at no cost."""

    __slots__ = ()


# --- convolution and dense -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Conv(Op):
    """Cross-correlation over 1, 2 or 3 spatial dimensions; depthwise when groups == in_channels.

    Operands: input (N, spatial..., in_channels), kernel (spatial..., in_channels / groups, out_channels), bias
    (out_channels,). Output channels of group g are the g-th run of out_channels / groups.
    """

    operands: ClassVar[tuple[str, ...]] = ("input", "kernel", "bias?")
    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int = 1
    activation: Activation | None = None

    def __post_init__(self) -> None:
        _check_window(self.padding, {"stride": self.stride, "dilation": self.dilation})
        if self.groups < 1:
            raise ShapeError(f"groups must be at least 1; got {self.groups}")

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return (N, output sizes..., out_channels)."""
        image, kernel = shapes[0], shapes[1]
        rank = len(self.stride)
        if len(image) != rank + 2 or len(kernel) != rank + 2:
            raise ShapeError(
                f"a {rank}-D convolution takes an input and a kernel of rank {rank + 2}; "
                f"got {show_shape(image)} and {show_shape(kernel)}"
            )
        in_channels, out_channels = known(image[-1]), known(kernel[-1])
        if in_channels % self.groups:
            raise ShapeError(f"groups must divide in_channels; got in_channels={in_channels}, groups={self.groups}")
        if out_channels % self.groups:
            raise ShapeError(f"groups must divide out_channels; got out_channels={out_channels}, groups={self.groups}")
        check_shape("kernel", kernel, (*kernel[:rank], in_channels // self.groups, out_channels))
        if len(shapes) > 2:
            check_shape("bias", shapes[2], (out_channels,))
        return ((image[0], *window_sizes(image, kernel, self), out_channels),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense(Op):
    """Matrix product over the last axis.

    Operands: input (..., in_features), kernel (in_features, out_features), bias (out_features,).
    """

    operands: ClassVar[tuple[str, ...]] = ("input", "kernel", "bias?")
    activation: Activation | None = None

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return (..., out_features)."""
        check_shape("kernel", shapes[1], (shapes[0][-1], shapes[1][-1] if len(shapes[1]) == 2 else None))
        if len(shapes) > 2:
            check_shape("bias", shapes[2], shapes[1][-1:])
        return ((*shapes[0][:-1], shapes[1][-1]),)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchNorm(Op):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta over the last axis, with stored statistics.

    Operands: input (..., C), gamma, beta, mean, variance (C,). Source: Ioffe and Szegedy, arXiv:1502.03167.
    """

    operands: ClassVar[tuple[str, ...]] = ("input", "gamma", "beta", "mean", "variance")
    statistics: ClassVar[tuple[str, ...]] = ("mean", "variance")
    epsilon: float = 1e-3
    momentum: float = 0.99

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the input's shape."""
        for name, shape in zip(self.operands[1:], shapes[1:], strict=True):
            check_shape(name, shape, shapes[0][-1:])
        return (shapes[0],)


# --- pooling and reduction -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pool(Op):
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    activation: Activation | None = None

    def __post_init__(self) -> None:
        _check_window(self.padding, {"kernel_size": self.kernel_size, "stride": self.stride})
        if any(max(pair) >= size for pair, size in zip(self.padding, self.kernel_size, strict=True)):
            raise ShapeError(f"padding must be smaller than the kernel; got {self.padding} for {self.kernel_size}")

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return (N, output sizes..., C)."""
        (image,) = shapes
        if len(image) != len(self.kernel_size) + 2:
            raise ShapeError(f"pooling over {len(self.kernel_size)} dimensions got an input of {show_shape(image)}")
        return ((image[0], *window_sizes(image, self.kernel_size, self), image[-1]),)


class MaxPool(_Pool):
    """The largest value of each window; padding never wins."""

    __slots__ = ()


class AveragePool(_Pool):
    """The mean of each window; padding is not counted."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean(Op):
    """The mean over axes; over the spatial ones it is global average pooling."""

    axes: tuple[int, ...]
    keep_dims: bool = False

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shape without the axes, or with 1 in their place."""
        (shape,) = shapes
        if any(not 0 <= axis < len(shape) for axis in self.axes):
            raise ShapeError(f"axes must lie in 0..{len(shape) - 1}; got {self.axes}")
        if self.keep_dims:
            return (tuple(1 if axis in self.axes else size for axis, size in enumerate(shape)),)
        return (tuple(size for axis, size in enumerate(shape) if axis not in self.axes),)


# --- elementwise -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Elementwise(Op):
    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    activation: Activation | None = None

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the broadcast of both shapes."""
        return (broadcast_shapes(shapes[0], shapes[1]),)


class Add(_Elementwise):
    """a + b, with NumPy broadcasting."""

    __slots__ = ()


class Sub(_Elementwise):
    """a - b, with NumPy broadcasting."""

    __slots__ = ()


class Mul(_Elementwise):
    """a * b, with NumPy broadcasting."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReLU(Activation):
    """max(x, 0)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReLU6(Activation):
    """min(max(x, 0), 6). Source: Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tanh(Activation):
    """The hyperbolic tangent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip(Activation):
    """min(max(x, minimum), maximum)."""

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if self.minimum > self.maximum:
            raise ShapeError(f"minimum must not exceed maximum; got minimum={self.minimum}, maximum={self.maximum}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Softmax(Op):
    """exp(x) / sum(exp(x)) over the last axis."""


# --- moving data -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Pad(Op):
    """Constant padding: (before, after) for every axis, batch and channels included."""

    padding: Padding
    value: float = 0.0

    def __post_init__(self) -> None:
        _check_not_negative(self.padding)

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the padded shape."""
        (shape,) = shapes
        if len(self.padding) != len(shape):
            raise ShapeError(f"padding must name all {len(shape)} axes; got {len(self.padding)}")
        return (tuple(n if n is None else n + sum(p) for n, p in zip(shape, self.padding, strict=True)),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reshape(Op):
    """The same elements in the same order under another shape; None first keeps the batch."""

    shape: Shape

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the new shape, after checking that the number of elements is kept."""
        (source,) = shapes
        target = (source[0], *self.shape[1:]) if self.shape and self.shape[0] is None else self.shape
        if elements(source) != elements(target) or (None in source) != (None in target):
            raise ShapeError(f"a reshape keeps the elements; got {show_shape(source)} to {show_shape(self.shape)}")
        return (target,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Transpose(Op):
    """Output axis i is input axis permutation[i]."""

    permutation: tuple[int, ...]

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the permuted shape."""
        (shape,) = shapes
        if sorted(self.permutation) != list(range(len(shape))):
            raise ShapeError(f"permutation must order the axes 0..{len(shape) - 1}; got {self.permutation}")
        return (tuple(shape[axis] for axis in self.permutation),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Concat(Op):
    """Join tensors along one axis (0..rank-1)."""

    operands: ClassVar[tuple[str, ...]] = ("inputs...",)
    axis: int

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the joined shape."""
        if not shapes:
            raise ShapeError("at least one input was wanted; got none")
        first, axis = shapes[0], self.axis
        if not 0 <= axis < len(first):
            raise ShapeError(f"axis must lie in 0..{len(first) - 1}; got {axis}")
        for shape in shapes[1:]:
            check_shape(
                "each input", (*shape[:axis], None, *shape[axis + 1 :]), (*first[:axis], None, *first[axis + 1 :])
            )
        return ((*first[:axis], sum(known(shape[axis]) for shape in shapes), *first[axis + 1 :]),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropout(Op):
    """Zeroes a share `rate` of the elements while training; otherwise the identity."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ShapeError(f"rate must lie in [0, 1); got {self.rate}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity(Op):
    """The input itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opaque(Op):
    """An operator that a reader met and does not know: listed and passed by, never converted or executed."""

    operands: ClassVar[tuple[str, ...]] = ("inputs...",)
    kind: str
    shapes: tuple[Shape, ...]

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shapes that the file states."""
        return self.shapes


# --- shape arithmetic shared by the rules ----------------------------------------------------------------------------


def _check_window(padding: Padding, positive: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a window whose attributes contradict each other or cannot be."""
    for name, values in positive.items():
        if len(values) not in (1, 2, 3) or len(values) != len(padding):
            raise ShapeError(f"{name} and padding must name the same 1 to 3 dimensions; got {values} and {padding}")
        if min(values) < 1:
            raise ShapeError(f"{name} must be at least 1; got {values}")
    _check_not_negative(padding)


def _check_not_negative(padding: Padding) -> None:
    if any(number < 0 for pair in padding for number in pair):
        raise ShapeError(f"padding must not be negative; got {padding}")


def window_sizes(image: Shape, kernel: Shape, op: "Conv | _Pool") -> tuple[int, ...]:
    """Return the spatial output sizes of a window operator over an image (N, spatial..., C)."""
    dilation = op.dilation if isinstance(op, Conv) else (1,) * len(op.stride)
    return tuple(
        output_size(known(n), known(f), stride=s, padding=p, dilation=d)
        for n, f, s, p, d in zip(image[1:-1], kernel[: len(op.stride)], op.stride, op.padding, dilation, strict=True)
    )


def known(size: int | None) -> int:
    """Return a size that must be known."""
    if size is None:
        raise ShapeError("only the batch may be symbolic; got a symbolic size in another place")
    return size


def elements(shape: Shape) -> int:
    """Return the number of elements, a symbolic batch counted as one."""
    return prod(size for size in shape if size is not None)


def is_depthwise(op: Op, shapes: Sequence[Shape]) -> bool:
    """Tell whether a node is a depthwise convolution: one group for each of several input channels."""
    return isinstance(op, Conv) and op.groups > 1 and op.groups == shapes[0][-1]
