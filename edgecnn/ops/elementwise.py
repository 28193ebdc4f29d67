"""Operators that work element by element, and Softmax."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgecnn.errors import ShapeError
from edgecnn.ops.op import Activation, Op
from edgecnn.shapes import Shape, broadcast_shapes


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


class Div(_Elementwise):
    """a / b, with NumPy broadcasting."""

    __slots__ = ()


class Maximum(_Elementwise):
    """The larger of a and b, with NumPy broadcasting."""

    __slots__ = ()


class Minimum(_Elementwise):
    """The smaller of a and b, with NumPy broadcasting."""

    __slots__ = ()


class Pow(_Elementwise):
    """a to the power of b, with NumPy broadcasting."""

    __slots__ = ()


class ReLU(Activation):
    """max(x, 0)."""

    __slots__ = ()


class ReLU6(Activation):
    """min(max(x, 0), 6). Source: Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010."""

    __slots__ = ()


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    __slots__ = ()


class Tanh(Activation):
    """The hyperbolic tangent."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip(Activation):
    """min(max(x, minimum), maximum)."""

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if self.minimum > self.maximum:
            raise ShapeError(f"minimum must not exceed maximum; got minimum={self.minimum}, maximum={self.maximum}")


class Softmax(Op):
    """exp(x) / sum(exp(x)) over the last axis."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LeakyReLU(Activation):
    """x where x >= 0, slope * x elsewhere."""

    slope: float = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class PReLU(Op):
    """x where x >= 0, slope * x elsewhere, with learned slopes.

    Operands: input (N, ..., C), slope (broadcasts to the input without its batch). Source: He et al., arXiv:1502.01852.
    """

    operands: ClassVar[tuple[str, ...]] = ("input", "slope")

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the input's shape."""
        if broadcast_shapes(shapes[0], shapes[1]) != shapes[0]:
            raise ShapeError(f"slope must broadcast to the input; got {shapes[1]} for {shapes[0]}")
        return (shapes[0],)


@dataclass(frozen=True, kw_only=True, slots=True)
class ELU(Activation):
    """x where x >= 0, alpha * (exp(x) - 1) elsewhere. Source: Clevert et al., arXiv:1511.07289."""

    alpha: float = 1.0


class Softplus(Activation):
    """log(1 + exp(x))."""

    __slots__ = ()


class Swish(Activation):
    """x * sigmoid(x), also called SiLU. Source: Ramachandran et al., arXiv:1710.05941."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class HardSigmoid(Activation):
    """min(max(slope * x + offset, 0), 1).

    relu6(x + 3) / 6 with the default slope of 1/6. Source: Howard et al., MobileNetV3, arXiv:1905.02244, section 5.2.
    """

    slope: float = 1 / 6
    offset: float = 0.5


class HardSwish(Activation):
    """x * relu6(x + 3) / 6. Source: Howard et al., MobileNetV3, arXiv:1905.02244, section 5.2."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class GELU(Activation):
    """x * Phi(x), with the normal distribution's Phi, or its tanh approximation. Source: arXiv:1606.08415."""

    approximate: bool = False


class Sqrt(Activation):
    """The square root."""

    __slots__ = ()


class Exp(Activation):
    """e to the power of x."""

    __slots__ = ()


class Log(Activation):
    """The natural logarithm."""

    __slots__ = ()


class Rsqrt(Activation):
    """1 / sqrt(x)."""

    __slots__ = ()


class Abs(Activation):
    """The absolute value."""

    __slots__ = ()


class Neg(Activation):
    """-x."""

    __slots__ = ()


class Floor(Activation):
    """The largest integer that is not above x."""

    __slots__ = ()


class Ceil(Activation):
    """The smallest integer that is not below x."""

    __slots__ = ()


class Round(Activation):
    """The nearest integer, halves to the even one."""

    __slots__ = ()


class Sin(Activation):
    """The sine of an angle in radians."""

    __slots__ = ()


class Cos(Activation):
    """The cosine of an angle in radians."""

    __slots__ = ()


class Erf(Activation):
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""

    __slots__ = ()
