"""Dense layers and normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgecnn.errors import ShapeError
from edgecnn.ops.op import Activation, Op, known
from edgecnn.shapes import Shape, broadcast_shapes, check_shape, show_shape


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


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerNorm(Op):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, with mean and variance over the last axis of each position.

    Operands: input (..., C), gamma, beta (C,). Source: Ba et al., arXiv:1607.06450.
    """

    operands: ClassVar[tuple[str, ...]] = ("input", "gamma", "beta")
    epsilon: float = 1e-3

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the input's shape."""
        for name, shape in zip(self.operands[1:], shapes[1:], strict=True):
            check_shape(name, shape, shapes[0][-1:])
        return (shapes[0],)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupNorm(Op):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, with mean and variance over a group of channels.

    The channels are cut into `groups` runs of the same size; each image has one mean for each run, over the run's
    channels and all positions. groups == C is instance normalisation, groups == 1 normalises the whole image.
    Operands: input (N, spatial..., C), gamma, beta (C,). Source: Wu and He, arXiv:1803.08494.
    """

    operands: ClassVar[tuple[str, ...]] = ("input", "gamma", "beta")
    groups: int
    epsilon: float = 1e-5

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the input's shape."""
        if len(shapes[0]) < 3:
            raise ShapeError(f"an input (N, spatial..., C) was wanted; got {show_shape(shapes[0])}")
        channels = known(shapes[0][-1])
        if self.groups < 1 or channels % self.groups:
            raise ShapeError(f"groups must divide the channels; got groups={self.groups}, channels={channels}")
        for name, shape in zip(self.operands[1:], shapes[1:], strict=True):
            check_shape(name, shape, (channels,))
        return (shapes[0],)


@dataclass(frozen=True, kw_only=True, slots=True)
class L2Normalize(Op):
    """x / max(||x||, epsilon), with the Euclidean norm over the last axis of each position.

    Source: PyTorch, torch.nn.functional.normalize; TFLite L2_NORMALIZATION has epsilon 1e-6.
    """

    epsilon: float = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class MatMul(Op):
    """Matrix product of the last two axes of two computed tensors; the axes before them broadcast.

    Operands: a (..., M, K), b (..., K, N). A product with a constant matrix is a Dense.
    """

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return (..., M, N)."""
        a, b = shapes
        if len(a) < 2 or len(b) < 2:
            raise ShapeError(
                f"two matrices (..., M, K) and (..., K, N) were wanted; got {show_shape(a)}, {show_shape(b)}"
            )
        check_shape("b", b[-2:], (a[-1], b[-1]))
        return ((*broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1]),)


@dataclass(frozen=True, kw_only=True, slots=True)
class LRN(Op):
    """Local response normalisation: x / (bias + alpha * sum of squares of `size` neighbouring channels) ** beta.

    alpha multiplies the plain sum (as in the paper and TFLite; ONNX divides its own by `size`). Source: Krizhevsky et
    al., ImageNet classification with deep convolutional neural networks, 2012, section 3.3.

    Attributes:
        size: Channels of the window, odd.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 2.0

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise ShapeError(f"size must be odd and positive; got {self.size}")
