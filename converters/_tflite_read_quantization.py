"""How integers in a .tflite file stand for numbers: the tables, int4's packing, and which operators may mix the two.

Source: LiteRT, tflite/schema/schema.fbs, table QuantizationParameters, and tflite/core/interpreter_builder.cc.
"""

from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import GraphError, InputFileError, UnsupportedError
from edgecnn.graph import Array, Graph, Node, Tensor
from edgecnn.quantization.parameters import ACTIVATIONS, Quantization
from edgecnn.quantization.rules import WEIGHTED, bias_quantization

KINDS = {"INT4": "int8", **{name: name.lower() for name in ("INT8", "UINT8", "INT16", "INT32", "INT64")}}
"""TensorType whose integers may stand for numbers -> NumPy's name of what is stored here."""

CALCULATING = (*WEIGHTED, ops.MatMul, ops.AveragePool, ops.Add, ops.Sub, ops.Mul, ops.Softmax, ops.Activation)

CHANGING = (
    *(ops.Quantize, ops.Dequantize, ops.Opaque, ops.DetectionPostProcess, ops.ArgMax, ops.Cast),
    *(ops.Greater, ops.GreaterOrEqual, ops.Less, ops.LessOrEqual, ops.Equal),
)
"""Operators whose output is not what their operands are: integers, numbers, positions, truths."""

APART: dict[type[ops.Op], int] = {ops.Gather: 1, ops.Where: 0}
"""Operator -> the operand that is no number: positions, a condition."""

HYBRID, KERNEL = (*WEIGHTED, ops.MatMul), 1
"""Operators that take float activations with an integer kernel, and which operand that is."""


def quantization(table: Any, kind: str, shape: tuple[int, ...]) -> Quantization | None:
    """Return what a tensor's integers stand for, or None where they are integers or the tensor is float.

    Args:
        table: The tensor's.
        kind: Its TensorType, by name.
        shape: Its sizes.

    Raises:
        InputFileError: When scales, zero points and shape do not fit one another.
        UnsupportedError: When the scales are not one for the tensor or one for each channel.
    """
    found = table.Quantization()
    if found is None or kind not in KINDS:
        return None
    if found.DetailsType():
        raise UnsupportedError("one scale, or one for each channel, was wanted; it has blocks or a scheme of its own")
    scales, zeros = _floats(found.ScaleAsNumpy()), _floats(found.ZeroPointAsNumpy())
    if not scales:
        return None
    zeros = zeros or [0]
    axis = found.QuantizedDimension() if len(scales) > 1 else None
    if axis is not None and (not 0 <= axis < len(shape) or shape[axis] != len(scales)):
        raise InputFileError(f"one scale for each channel of axis {axis} of {shape} was wanted; got {len(scales)}")
    if len(zeros) == 1:
        zeros *= len(scales)
    try:
        return Quantization(scale=tuple(scales), zero_point=tuple(map(int, zeros)), dtype=KINDS[kind], axis=axis)
    except GraphError as error:
        raise InputFileError(str(error)) from None


def _floats(numbers: Any) -> list[Any]:
    return [] if isinstance(numbers, int) else list(numbers.tolist())


def unpacked(stored: Array, size: int) -> Array:
    """Return int4 numbers, two in each byte and the first in its lower half, as int8.

    >>> unpacked(np.array([0x2F, 0x08], np.uint8), 3)
    array([-1,  2, -8], dtype=int8)
    """
    halves = np.stack([stored << 4, stored], axis=-1).view(np.int8).reshape(-1)
    return np.asarray(halves[:size] >> 4)


def bias_scales(x: Quantization, kernel: Quantization, dtype: str) -> Quantization | None:
    """Return the scales of the products that a layer sums up; None where its input has a scale for each channel.

    Source: LiteRT, tflite/kernels/kernel_util.cc, GetQuantizedConvolutionMultipler.
    """
    return None if x.axis is not None else bias_quantization(x, kernel, dtype)


def check_agreement(path: Path, graph: Graph) -> None:
    """Raise InputFileError where an operator's operands and outputs are part integers with a scale, part not.

    Float activations may meet an integer kernel: it stands for its numbers (dynamic range). Only kernels and biases
    have a scale for each channel.
    """
    for node in graph.nodes:
        reason = _disagreement(graph, node)
        if reason:
            raise InputFileError(f"{path}: '{node.name}' ({node.kind}): {reason}")


def _disagreement(graph: Graph, node: Node) -> str:
    tensors = [graph.tensors[name] for name in (*node.inputs, *node.outputs)]
    is_quantized = [tensor.quantization is not None for tensor in tensors]
    if isinstance(node.op, ops.Quantize | ops.Dequantize):
        place = -1 if isinstance(node.op, ops.Quantize) else 0
        return "" if is_quantized[place] else f"a scale was wanted; tensor '{tensors[place].name}' has none"
    if isinstance(node.op, CHANGING):
        return ""
    bare = [each.name for each in tensors if each.dtype in ACTIVATIONS]
    if bare and isinstance(node.op, CALCULATING):
        return f"integers with a scale were wanted; tensor '{bare[0]}' has none"
    aside = APART.get(type(node.op))
    if isinstance(node.op, HYBRID) and not is_quantized[0]:
        aside = KERNEL
    agreeing = [each for place, each in enumerate(is_quantized) if place != aside]
    if any(agreeing) and not all(agreeing):
        odd = next(each.name for place, each in enumerate(tensors) if place != aside and not is_quantized[place])
        return f"operands and outputs that all have a scale were wanted; tensor '{odd}' has none"
    return _misplaced(node, tensors)


def _misplaced(node: Node, tensors: list[Tensor]) -> str:
    """Return what is wrong with scales by channel: only kernels, by output, and biases have them."""
    for place, tensor in enumerate(tensors):
        if tensor.quantization is None or tensor.quantization.axis is None:
            continue
        if not (isinstance(node.op, WEIGHTED) and 1 <= place < len(node.inputs)):
            return f"one scale for the whole of tensor '{tensor.name}' was wanted; it has one for each channel"
        if tensor.quantization.axis != len(tensor.shape) - 1:
            return f"one scale for each output channel was wanted; kernel '{tensor.name}' has them by another axis"
    return ""
