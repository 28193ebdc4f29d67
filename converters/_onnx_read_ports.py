"""What the integers of an ONNX file's inputs stand for: the operator that dequantizes them says it, further on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgecnn.errors import EdgeCNNError
from edgecnn.graph import Array
from edgecnn.quantization.parameters import NARROW, Quantization

from ._onnx_read_model import OnnxModel, OnnxNode
from ._onnx_read_quantized import quantization_of

MOVING = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool", "Slice", "Pad", "Concat")
"""Operators behind which integers still mean the same."""

PLACES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "DequantizeLinear": ((0, 1, 2),),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm"), ((0, 1, 2), (3, 4, 5))),
    **dict.fromkeys(("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearSigmoid"), ((0, 1, 2),)),
    **dict.fromkeys(("QLinearLeakyRelu", "QLinearSoftmax", "QLinearReduceMean"), ((0, 1, 2),)),
}
"""Operator -> positions of (integers, scale, zero point)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """Who takes a file's values, and its constants."""

    takers: Mapping[str, list[OnnxNode]]
    constants: Mapping[str, Array]


def port_quantizations(model: OnnxModel) -> dict[str, Quantization]:
    """Return the quantization of each input of integers that is dequantized; plain integers are not among them."""
    inputs = [value for value in model.inputs if value.dtype in NARROW]
    if not inputs:
        return {}
    takers: dict[str, list[OnnxNode]] = {}
    for node in model.nodes:
        for name in dict.fromkeys(node.inputs):
            takers.setdefault(name, []).append(node)
    file = _File(takers=takers, constants={**model.initializers, **_constants(model.nodes)})
    found = {value.name: _found(file, value.name, value.dtype) for value in inputs}
    return {name: quantization for name, quantization in found.items() if quantization is not None}


def _constants(nodes: Iterable[OnnxNode]) -> dict[str, Array]:
    constant = [node for node in nodes if node.op_type == "Constant" and node.arrays and node.outputs]
    return {node.outputs[0]: node.arrays[0] for node in constant}


def _found(file: _File, name: str, dtype: str) -> Quantization | None:
    """Follow a value's integers to the first operator that says what they stand for."""
    waiting, seen = [name], {name}
    while waiting:
        value = waiting.pop(0)
        for node in file.takers.get(value, ()):
            for integers, *places in _places(node):
                names = [node.inputs[place] if place < len(node.inputs) else "" for place in (integers, *places)]
                scale = file.constants.get(names[1])
                if names[0] == value and scale is not None and scale.size == 1:
                    return _stated(scale, file.constants.get(names[2]), dtype)
            if node.op_type in MOVING and not node.domain:
                new = [each for each in node.outputs if each not in seen]
                waiting += new
                seen.update(new)
    return None


def _places(node: OnnxNode) -> tuple[tuple[int, int, int], ...]:
    """Return where an operator takes integers, their scale and their zero point."""
    if node.op_type == "QLinearConcat":
        return tuple((place, place + 1, place + 2) for place in range(2, len(node.inputs), 3))
    return PLACES.get(node.op_type, ())


def _stated(scale: Array, zero: Array | None, dtype: str) -> Quantization | None:
    """Return what the operator says, or None where it contradicts itself: its own row names that."""
    try:
        return quantization_of(scale, zero, dtype, (), 0)
    except EdgeCNNError:
        return None
