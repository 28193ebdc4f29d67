"""Operators that move numbers, or choose among them, and compute none: over integers they do the same."""

import numpy as np

from edgecnn import ops
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.rules import SAME_SCALE

MOVING = tuple(each for each in SAME_SCALE if each is not ops.AveragePool)
"""Operators whose output consists of elements of their inputs; of Resize and Pad see `only_moves`."""

LIMITING = (ops.ReLU, ops.ReLU6, ops.Clip)
TURNING = (ops.Transpose, ops.Reshape)


def only_moves(op: ops.Op, given: Quantization, *, is_rounded: bool = False) -> bool:
    """Tell whether an operator's output consists of elements of its inputs, or of numbers that the integers hold.

    Args:
        op: The operator.
        given: What its integers stand for.
        is_rounded: Whether the output is rounded to these integers anyway.
    """
    if not isinstance(op, MOVING) or getattr(op, "activation", None) is not None:
        return False
    if isinstance(op, ops.Resize):
        return op.method == "nearest"
    if isinstance(op, ops.Pad) and op.mode == "constant" and not is_rounded:
        value = np.asarray(op.value, np.float32)
        return bool(given.axis is None and given.dequantize(given.quantize(value)) == value)
    return True
