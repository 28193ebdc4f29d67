"""Operators that slide a window over the spatial axes: convolution, its transpose, pooling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgecnn.errors import ShapeError
from edgecnn.ops.op import Activation, Op, check_not_negative, known
from edgecnn.shapes import Padding, Shape, check_shape, effective_kernel_size, output_size, show_shape


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
        _check_groups(self.groups)

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return (N, output sizes..., out_channels)."""
        image, kernel = shapes[0], shapes[1]
        rank = len(self.stride)
        if len(image) != rank + 2 or len(kernel) != rank + 2:
            raise ShapeError(
                f"a {rank}-D convolution takes an input and a kernel of rank {rank + 2}; "
                f"got {show_shape(image)} and {show_shape(kernel)}"
            )
        _check_channels(self.groups, shapes)
        return ((image[0], *window_sizes(image, kernel, self), kernel[-1]),)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvTranspose(Op):
    """Transposed convolution: each input value lays its multiple of the kernel into the output.

    Operands: input (N, spatial..., in_channels), kernel (spatial..., in_channels / groups, out_channels), bias
    (out_channels,). Group g reads the g-th run of in_channels / groups channels and gives the g-th run of outputs.
    One dimension of size n becomes (n - 1) stride + dilation (f - 1) + 1 - before - after + output_padding.

    Attributes:
        padding: Cut from the output, (before, after) for each dimension.
        output_padding: Added behind the output, filled by whatever reaches there.
    """

    operands: ClassVar[tuple[str, ...]] = ("input", "kernel", "bias?")
    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int = 1
    activation: Activation | None = None

    def __post_init__(self) -> None:
        _check_window(self.padding, {"stride": self.stride, "dilation": self.dilation})
        _check_groups(self.groups)
        if len(self.output_padding) != len(self.stride) or min(self.output_padding) < 0:
            raise ShapeError(f"output_padding must be one number >= 0 per dimension; got {self.output_padding}")

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return (N, output sizes..., out_channels)."""
        image, kernel, rank = shapes[0], shapes[1], len(self.stride)
        if len(image) != rank + 2 or len(kernel) != rank + 2:
            raise ShapeError(
                f"a {rank}-D transposed convolution takes an input and a kernel of rank {rank + 2}; "
                f"got {show_shape(image)} and {show_shape(kernel)}"
            )
        _check_channels(self.groups, shapes)
        sizes = tuple(
            (known(n) - 1) * s + effective_kernel_size(known(f), d) - sum(p) + extra
            for n, f, s, d, p, extra in zip(
                image[1:-1], kernel[:rank], self.stride, self.dilation, self.padding, self.output_padding, strict=True
            )
        )
        if min(sizes) < 1:
            raise ShapeError(f"padding must leave an output; got sizes {sizes}")
        return ((image[0], *sizes, kernel[-1]),)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class AveragePool(_Pool):
    """The mean of each window; padding is counted (as zeros) only where `count_include_pad` says so."""

    count_include_pad: bool = False


def _check_window(padding: Padding, positive: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a window whose attributes contradict each other or cannot be."""
    for name, values in positive.items():
        if len(values) not in (1, 2, 3) or len(values) != len(padding):
            raise ShapeError(f"{name} and padding must name the same 1 to 3 dimensions; got {values} and {padding}")
        if min(values) < 1:
            raise ShapeError(f"{name} must be at least 1; got {values}")
    check_not_negative(padding)


def _check_groups(groups: int) -> None:
    if groups < 1:
        raise ShapeError(f"groups must be at least 1; got {groups}")


def _check_channels(groups: int, shapes: Sequence[Shape]) -> None:
    """Refuse a kernel or bias whose channels do not fit the image: (input, kernel[, bias])."""
    image, kernel = shapes[0], shapes[1]
    in_channels, out_channels = known(image[-1]), known(kernel[-1])
    if in_channels % groups:
        raise ShapeError(f"groups must divide in_channels; got in_channels={in_channels}, groups={groups}")
    if out_channels % groups:
        raise ShapeError(f"groups must divide out_channels; got out_channels={out_channels}, groups={groups}")
    check_shape("kernel", kernel, (*kernel[:-2], in_channels // groups, out_channels))
    if len(shapes) > 2:
        check_shape("bias", shapes[2], (out_channels,))


def window_sizes(image: Shape, kernel: Shape, op: "Conv | _Pool") -> tuple[int, ...]:
    """Return the spatial output sizes of a window operator over an image (N, spatial..., C)."""
    dilation = op.dilation if isinstance(op, Conv) else (1,) * len(op.stride)
    return tuple(
        output_size(known(n), known(f), stride=s, padding=p, dilation=d)
        for n, f, s, p, d in zip(image[1:-1], kernel[: len(op.stride)], op.stride, op.padding, dilation, strict=True)
    )


def is_depthwise(op: Op, shapes: Sequence[Shape]) -> bool:
    """Tell whether a node is a depthwise convolution: one group for each of several input channels."""
    return isinstance(op, Conv) and op.groups > 1 and op.groups == shapes[0][-1]
