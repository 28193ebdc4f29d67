"""Kernels over integers that stand for numbers: the golden that every quantized artifact is held against.

There are two roundings. "float32" rounds float32(accumulator) * scale half to even, as XNNPACK and ONNX Runtime do;
"fixed_point" is gemmlowp's doubling high multiply and rounding shift, as LiteRT's reference kernels, tflite-runtime,
microcontrollers and Ethos-U do. Where the first two differ (LeakyReLU, another scale, a bilinear resize, halves of an
average pool) "float32" is what LiteRT gives; for 16-bit activations, which XNNPACK does not take, it is ONNX Runtime's.
"""

from collections.abc import Sequence

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.kernels import evaluate_all
from edgecnn.kernels.integer import KERNELS
from edgecnn.kernels.integer.scales import ACTIVATION_RANGE, Rounding, Scales
from edgecnn.quantization.parameters import ACTIVATIONS, Quantization
from edgecnn.quantization.rules import SAME_SCALE, WEIGHTED

__all__ = ["Rounding", "evaluate_quantized"]

POSITIONS: dict[type[ops.Op], tuple[int, ...]] = {ops.Gather: (1,)}
"""Operator -> operands that are positions, not numbers: they have no quantization."""


def evaluate_quantized(
    op: ops.Op,
    values: Sequence[Array],
    own: Sequence[Quantization | None],
    given: Sequence[Quantization | None],
    rounding: Rounding,
) -> tuple[Array, ...]:
    """Return all outputs of one operator, its fused activation included.

    What has no integer form here (a float activation under a quantized kernel, integers of different scales under an
    operator that only moves) is computed in float on what the integers stand for, and rounded.

    Args:
        op: The operator.
        values: Of its operands, as stored.
        own: What each operand's integers stand for; None for an operand that is stored as it is.
        given: The same for each output.
        rounding: Of the integer arithmetic.
    """
    scales = _scales(op, values, own, given, rounding)
    if scales is not None:
        found = KERNELS[type(op)](op, scales, *values)
        return found if isinstance(found, tuple) else (found,)
    numbers = [each if q is None else q.dequantize(each) for each, q in zip(values, own, strict=True)]
    floats = evaluate_all(op, numbers)
    return tuple(
        np.asarray(each) if q is None else Scales(own=(), given=q, rounding=rounding).nearest(each)
        for each, q in zip(floats, given, strict=True)
    )


def _scales(
    op: ops.Op,
    values: Sequence[Array],
    own: Sequence[Quantization | None],
    given: Sequence[Quantization | None],
    rounding: Rounding,
) -> Scales | None:
    """Return the scales of an operator that has an integer form with them, or None."""
    activation = getattr(op, "activation", None)
    if type(op) not in KERNELS or (activation is not None and type(activation) not in ACTIVATION_RANGE):
        return None
    numbers = [q for place, q in enumerate(own) if place not in POSITIONS.get(type(op), ())]
    known, onto = [q for q in numbers if q is not None], [q for q in given if q is not None]
    if len(onto) < len(given) or len(known) < len(numbers) or not _fits(op, values, known, onto):
        return None
    return Scales(own=tuple(known), given=onto[0], rounding=rounding, activation=activation)


def _fits(op: ops.Op, values: Sequence[Array], own: Sequence[Quantization], given: Sequence[Quantization]) -> bool:
    """Tell whether the integer kernel holds for these quantizations."""
    if type(op) in SAME_SCALE and len({*own, *given}) > 1:
        return False
    if given[0].dtype not in ACTIVATIONS or (own[0].dtype != given[0].dtype and not isinstance(op, ops.Quantize)):
        return False
    axes = [q.axis for q in (*own, *given)]
    if isinstance(op, WEIGHTED):
        return axes[0] is axes[-1] is None and axes[1] in (None, values[1].ndim - 1)
    return not any(axis is not None for axis in axes)
