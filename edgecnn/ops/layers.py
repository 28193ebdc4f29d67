"""Dense layers and normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgecnn.errors import ShapeError
from edgecnn.ops.op import Activation, Op
from edgecnn.shapes import Shape, check_shape


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
