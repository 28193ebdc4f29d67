"""Operators that move data: padding, reshaping, joining, cutting, resizing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from edgecnn.errors import ShapeError
from edgecnn.ops.op import Op, check_axes, check_not_negative, elements, known
from edgecnn.shapes import Padding, Shape, check_shape, show_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Pad(Op):
    """Padding: (before, after) for every axis, batch and channels included.

    Attributes:
        padding: (before, after) for each axis.
        value: What "constant" pads with.
        mode: "constant"; "reflect" mirrors at the first and last position, which is not repeated; "edge" repeats it.
    """

    padding: Padding
    value: float = 0.0
    mode: Literal["constant", "reflect", "edge"] = "constant"

    def __post_init__(self) -> None:
        check_not_negative(self.padding)

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the padded shape."""
        (shape,) = shapes
        if len(self.padding) != len(shape):
            raise ShapeError(f"padding must name all {len(shape)} axes; got {len(self.padding)}")
        if self.mode == "reflect" and any(
            max(pair) >= known(n) for n, pair in zip(shape, self.padding, strict=True) if any(pair)
        ):
            raise ShapeError(
                f"reflected padding must be smaller than the axis; got {self.padding} for {show_shape(shape)}"
            )
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
class Split(Op):
    """Cut a tensor into runs along one axis (0..rank-1), one output for each size."""

    axis: int
    sizes: tuple[int, ...]

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shape of each run."""
        (shape,) = shapes
        check_axes((self.axis,), shape)
        if not self.sizes or min(self.sizes) < 1 or sum(self.sizes) != known(shape[self.axis]):
            raise ShapeError(f"sizes must add up to axis {self.axis} of {show_shape(shape)}; got {self.sizes}")
        return tuple((*shape[: self.axis], size, *shape[self.axis + 1 :]) for size in self.sizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gather(Op):
    """Take positions of one axis (0..rank-1): output[..., i, ...] = input[..., indices[i], ...].

    Operands: input, indices (integers >= 0, any shape, which takes the axis' place).
    """

    operands: ClassVar[tuple[str, ...]] = ("input", "indices")
    axis: int

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the input's shape with the indices' shape in place of the axis."""
        shape, indices = shapes
        check_axes((self.axis,), shape)
        return ((*shape[: self.axis], *indices, *shape[self.axis + 1 :]),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile(Op):
    """Repeat a tensor: axis i holds its content multiples[i] times."""

    multiples: tuple[int, ...]

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the repeated shape."""
        (shape,) = shapes
        if len(self.multiples) != len(shape) or min(self.multiples, default=1) < 1:
            raise ShapeError(f"one multiple >= 1 for each of {len(shape)} axes was wanted; got {self.multiples}")
        return (tuple(n if times == 1 else known(n) * times for n, times in zip(shape, self.multiples, strict=True)),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice(Op):
    """Cut a box out: along axis i the positions begin[i], begin[i] + step[i], ... below end[i].

    The batch, where it is symbolic, is kept whole: begin 0, end None, step 1.
    """

    begin: tuple[int, ...]
    end: tuple[int | None, ...]
    step: tuple[int, ...]

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the sizes of the box."""
        (shape,) = shapes
        if not len(shape) == len(self.begin) == len(self.end) == len(self.step):
            raise ShapeError(f"begin, end and step must name all {len(shape)} axes; got {self}")
        return (tuple(self._size(axis, size) for axis, size in enumerate(shape)),)

    def _size(self, axis: int, size: int | None) -> int | None:
        begin, end, step = self.begin[axis], self.end[axis], self.step[axis]
        if (begin, end, step) == (0, None, 1):
            return size
        stop = known(size) if end is None else end
        if not 0 <= begin < stop <= known(size) or step < 1:
            raise ShapeError(f"axis {axis} of size {size} must hold [{begin}:{stop}:{step}], which must not be empty")
        return -(-(stop - begin) // step)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize(Op):
    """Resample the spatial axes to `size`.

    An output position i of n, over an input of m positions, reads the input at: (i + 0.5) m / n - 0.5 ("half_pixel"),
    i m / n ("asymmetric"), i (m - 1) / (n - 1) ("align_corners"). "nearest" takes floor(i m / n) for asymmetric and
    floor((i + 0.5) m / n) for half_pixel; "bilinear" interpolates, positions outside clamped to the edge.
    Source: TFLite ResizeBilinear and ResizeNearestNeighbor; ONNX Resize.
    """

    size: tuple[int, ...]
    method: Literal["nearest", "bilinear"]
    coordinates: Literal["half_pixel", "asymmetric", "align_corners"] = "half_pixel"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ShapeError(f"size must be at least 1; got {self.size}")

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return (N, size..., C)."""
        (shape,) = shapes
        if len(shape) != len(self.size) + 2:
            raise ShapeError(f"resizing {len(self.size)} dimensions got an input of {show_shape(shape)}")
        return ((shape[0], *self.size, shape[-1]),)


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthToSpace(Op):
    """(N, H, W, block * block * C) -> (N, block H, block W, C): channel (r block + c) C + k goes to row r, column c.

    TFLite's DEPTH_TO_SPACE and ONNX's DepthToSpace in mode DCR.
    """

    block: int

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return (N, block H, block W, C)."""
        batch, height, width, channels = _image(shapes[0])
        if self.block < 1 or channels % (self.block * self.block):
            raise ShapeError(f"block * block must divide the channels; got block={self.block}, channels={channels}")
        return ((batch, height * self.block, width * self.block, channels // (self.block * self.block)),)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceToDepth(Op):
    """(N, block H, block W, C) -> (N, H, W, block * block * C), the inverse of DepthToSpace."""

    block: int

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return (N, H, W, block * block * C)."""
        batch, height, width, channels = _image(shapes[0])
        if self.block < 1 or height % self.block or width % self.block:
            raise ShapeError(f"block must divide height and width; got block={self.block} for {height}x{width}")
        return ((batch, height // self.block, width // self.block, channels * self.block * self.block),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropout(Op):
    """Zeroes a share `rate` of the elements while training; otherwise the identity."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ShapeError(f"rate must lie in [0, 1); got {self.rate}")


class Identity(Op):
    """The input itself."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Opaque(Op):
    """An operator that a reader met and does not know: listed and passed by, never converted or executed."""

    operands: ClassVar[tuple[str, ...]] = ("inputs...",)
    kind: str
    shapes: tuple[Shape, ...]

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shapes that the file states."""
        return self.shapes

    def output_dtype(self, dtypes: Sequence[str]) -> str:
        """Return the first operand's type; float32 where there is none."""
        return dtypes[0] if dtypes else "float32"


def _image(shape: Shape) -> tuple[int | None, int, int, int]:
    if len(shape) != 4:
        raise ShapeError(f"an image (N, height, width, C) was wanted; got {show_shape(shape)}")
    return shape[0], known(shape[1]), known(shape[2]), known(shape[3])
