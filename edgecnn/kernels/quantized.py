"""Kernels over integers that stand for numbers: the golden that every quantized artifact is held against.

There are two roundings. "float32" rounds float32(accumulator) * scale half to even, as XNNPACK and ONNX Runtime do;
"fixed_point" is gemmlowp's doubling high multiply and rounding shift, as LiteRT's reference kernels, tflite-runtime,
microcontrollers and Ethos-U do.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.kernels import evaluate_all
from edgecnn.quantization.parameters import Quantization

Rounding = Literal["float32", "fixed_point"]


def evaluate_quantized(
    op: ops.Op,
    values: Sequence[Array],
    own: Sequence[Quantization | None],
    given: Sequence[Quantization | None],
    rounding: Rounding,
) -> tuple[Array, ...]:
    """Return all outputs of one operator, its fused activation included.

    Args:
        op: The operator.
        values: Of its operands, as stored.
        own: What each operand's integers stand for; None for an operand that is stored as it is.
        given: The same for each output.
        rounding: Of the integer arithmetic.
    """
    numbers = [each if q is None else q.dequantize(each) for each, q in zip(values, own, strict=True)]
    found = evaluate_all(op, numbers)
    return tuple(np.asarray(each) if q is None else q.quantize(each) for each, q in zip(found, given, strict=True))
