"""The arithmetic of output sizes: padding, stride, dilation, valid and same.

With input size n, kernel size f, padding p on each side, stride s and dilation d, one spatial dimension becomes

    floor((n + 2p - (d (f - 1) + 1)) / s) + 1

(The course notes print floor((n + 2p - f + 1) / s) in one place; that is one too few unless s divides n + 2p - f + 1:
7 positions under a kernel of 3 with stride 2 would give 2, not 3. Their later formula, floor((n + 2p - f) / s + 1), is
the one above.)
"""

from collections.abc import Sequence

from edgecnn.errors import ShapeError

Shape = tuple[int | None, ...]
"""Sizes in the order N, spatial..., C; only the batch may be None (symbolic)."""

Padding = tuple[tuple[int, int], ...]
"""(before, after) for each spatial dimension: ((top, bottom), (left, right)) for images."""


def effective_kernel_size(kernel_size: int, dilation: int = 1) -> int:
    """Return the input positions that a dilated kernel spans: dilation * (kernel_size - 1) + 1.

    >>> effective_kernel_size(3, dilation=2)
    5
    """
    return dilation * (kernel_size - 1) + 1


def output_size(
    size: int, kernel_size: int, *, stride: int = 1, padding: tuple[int, int] = (0, 0), dilation: int = 1
) -> int:
    """Return the output size of a convolution or pooling along one dimension.

    Args:
        size: Input positions.
        kernel_size: Kernel positions.
        stride: Step between outputs, in input positions.
        padding: Positions added before and after.
        dilation: Distance between kernel positions.

    Raises:
        ShapeError: When the kernel is larger than the padded input.

    >>> output_size(7, 3, stride=2)
    3
    """
    span = effective_kernel_size(kernel_size, dilation)
    padded = size + sum(padding)
    if padded < span:
        raise ShapeError(f"the kernel must fit the padded input; got a kernel of {span} over {padded} positions")
    return (padded - span) // stride + 1


def same_padding(size: int, kernel_size: int, *, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Return the (before, after) padding for which the output has ceil(size / stride) positions.

    The odd one goes after, as in TensorFlow and TFLite. For stride 1 and odd kernels this is p = (f - 1) / 2.
    Source: TensorFlow, tf.nn.convolution, notes on padding.

    >>> same_padding(224, 3, stride=2)
    (0, 1)
    """
    total = max((-(-size // stride) - 1) * stride + effective_kernel_size(kernel_size, dilation) - size, 0)
    return total // 2, total - total // 2


def explicit_padding(
    padding: str | Padding,
    sizes: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Padding:
    """Return explicit numbers for "same", "valid" or numbers that are explicit already."""
    if padding == "valid":
        return tuple((0, 0) for _ in sizes)
    if padding == "same":
        return tuple(
            same_padding(n, f, stride=s, dilation=d)
            for n, f, s, d in zip(sizes, kernel_size, stride, dilation, strict=True)
        )
    if isinstance(padding, str):
        raise ShapeError(f"padding must be 'same', 'valid' or explicit numbers; got {padding!r}")
    return padding


def check_shape(what: str, found: Shape, wanted: Shape) -> None:
    """Raise ShapeError unless both shapes agree; None agrees with every size."""
    agrees = len(found) == len(wanted) and all(
        f is None or w is None or f == w for f, w in zip(found, wanted, strict=False)
    )
    if not agrees:
        raise ShapeError(f"{what} must have shape {show_shape(wanted)}; got {show_shape(found)}")


def broadcast_shapes(a: Shape, b: Shape) -> Shape:
    """Return the NumPy broadcast of two shapes; a symbolic batch meets only itself or 1, and stays symbolic.

    >>> show_shape(broadcast_shapes((None, 7, 7, 320), (320,)))
    'Nx7x7x320'
    """
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    pairs = list(zip(longer, (1,) * (len(longer) - len(shorter)) + shorter, strict=True))
    if any(x != y and 1 not in (x, y) for x, y in pairs):
        raise ShapeError(f"shapes must broadcast; got {show_shape(a)} and {show_shape(b)}")
    return tuple(y if x == 1 else x for x, y in pairs)


def show_shape(shape: Shape) -> str:
    """Return a shape for people: 1x224x224x3, N for a symbolic batch.

    >>> show_shape((None, 7, 7, 320))
    'Nx7x7x320'
    """
    return "x".join("N" if size is None else str(size) for size in shape) or "scalar"
