"""What TFLite's kernels ask of integers: which types each operator takes, and whose scales must agree or are fixed.

A kernel that does not ask itself computes something else where a rule is broken; so the writer asks before. The types
are those that LiteRT 2.3 and tflite-runtime 2.14 both take, which was tried. Source: LiteRT, tflite/kernels.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Graph, Node, Tensor
from edgecnn.passes.unsigned_activations import signed_activations, unsigned_kernels
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.rules import FIXED_OUTPUT, SAME_SCALE, WEIGHTED

from ._tflite_elements import elements_of, of_bias

BYTES, ALL = ("int8", "uint8"), ("int8", "uint8", "int16")

TYPES: dict[type[ops.Op], tuple[str, ...]] = {
    **dict.fromkeys((*WEIGHTED, ops.MaxPool, ops.AveragePool, ops.Mean, ops.Max, ops.Min), ALL),
    **dict.fromkeys((ops.Add, ops.Sub, ops.Mul, ops.Maximum, ops.Minimum, ops.Where), ALL),
    **dict.fromkeys((ops.Concat, ops.Split, ops.Slice, ops.Gather, ops.Pad, ops.Reshape, ops.Transpose), ALL),
    **dict.fromkeys((ops.Resize, ops.Identity, ops.Dropout, ops.Quantize, ops.Dequantize), ALL),
    **dict.fromkeys((ops.ReLU, ops.ReLU6, ops.LeakyReLU, ops.Clip, ops.HardSigmoid), ALL),
    **dict.fromkeys((ops.Sigmoid, ops.Tanh, ops.Softmax), ALL),
    **dict.fromkeys((ops.DepthToSpace, ops.SpaceToDepth, ops.Tile, ops.Sum, ops.ArgMax, ops.L2Normalize), BYTES),
    **dict.fromkeys((ops.PReLU, ops.HardSwish, ops.GELU), BYTES),
    **dict.fromkeys((ops.Greater, ops.GreaterOrEqual, ops.Less, ops.LessOrEqual, ops.Equal), BYTES),
    **dict.fromkeys((ops.MatMul, ops.Abs, ops.Exp, ops.Prod), ("int8", "int16")),
    **dict.fromkeys((ops.ELU, ops.Rsqrt), ("int8",)),
    **dict.fromkeys((ops.Div, ops.DetectionPostProcess), ("uint8",)),
}
"""Operator -> types of the integers that its kernel takes."""

MIXED = (ops.Quantize, ops.Dequantize, ops.DetectionPostProcess)
"""Operators between integers and float numbers."""

FREE_IN_UINT8 = (ops.Concat,)
"""Operators that move or choose, whose uint8 kernels bring their inputs to the scale of the output."""

KERNELS = {"int8": "int8", "uint8": "uint8", "int16": "int8", "float32": "int8"}
"""Type of the activations -> type of the kernel."""

BIASES = {"int8": ("int32",), "uint8": ("int32",), "int16": ("int64", "int32"), "float32": ("float32",)}
"""Type of the activations -> types of the bias."""

MOST_APART = 0.02
"""Of the output's scale, how far a bias's scale may lie from input * kernel. Source: kernels/kernel_util.cc,
GetQuantizedConvolutionMultipler."""

LEAST_SCALE_OF_RELU6 = 6 / 2**31
"""6 divided by the scale must be an int32. Source: kernels/kernel_util.cc, no_integer_overflow_from_quantization."""

IN_FLOAT = "Keep it in float, between a Dequantize and a Quantize."

INSTEAD: dict[type[ops.Op], str] = {ops.Swish: "Write it as Sigmoid and Mul."}
"""Operator without a kernel for integers -> what to do, where that is not to keep it in float."""


def suited(graph: Graph) -> Graph:
    """Return the Graph with the types that TFLite multiplies, where it has others: int8 by int8, or uint8 by uint8.

    ONNX's runtimes want uint8 (and uint16) activations over int8 kernels, whatever they were. Activations become signed
    again, unless a kernel has a zero point, which TFLite takes in uint8 only.
    """
    kernels = [graph.tensors[node.inputs[1]] for node in graph.nodes if _is_mixed(graph, node)]
    is_wide = any(_is_stored(tensor, "uint16") for tensor in graph.tensors.values())
    if any(each.quantization is not None and any(each.quantization.zero_point) for each in kernels):
        return unsigned_kernels(graph)
    return signed_activations(graph) if is_wide or kernels else graph


def _is_mixed(graph: Graph, node: Node) -> bool:
    taken = [graph.tensors[name] for name in node.inputs[:2]]
    return isinstance(node.op, WEIGHTED) and _is_stored(taken[0], "uint8") and _is_stored(taken[1], "int8")


def _is_stored(tensor: Tensor, dtype: str) -> bool:
    return tensor.quantization is not None and tensor.quantization.dtype == dtype


def check_integers(graph: Graph) -> None:
    """Raise UnsupportedError naming the first node whose integers TFLite's kernels would refuse or take for others."""
    for node in graph.nodes:
        tensors = [graph.tensors[name] for name in (*node.inputs, *node.outputs)]
        if any(tensor.quantization is not None for tensor in tensors):
            for rule in RULES:
                reason = rule(graph, node)
                if reason is not None:
                    raise UnsupportedError(f"{node.name}: {reason}")


def _activations(graph: Graph, node: Node) -> list[Tensor]:
    """Return the tensors of numbers that a node takes and gives, but for kernel and bias."""
    taken = node.inputs[:1] if isinstance(node.op, WEIGHTED) else node.inputs
    found = [graph.tensors[name] for name in (*taken, *node.outputs)]
    return [tensor for tensor in found if tensor.dtype == "float32"]


def _quantizations(graph: Graph, node: Node) -> list[Quantization]:
    return [each.quantization for each in _activations(graph, node) if each.quantization is not None]


def _types(graph: Graph, node: Node) -> str | None:
    op: Any = node.op
    if isinstance(op, WEIGHTED) and not _quantizations(graph, node):
        return None
    taken = TYPES.get(type(op), ())
    if len(getattr(op, "stride", ())) == 3 or (isinstance(op, ops.ELU) and op.alpha != 1):
        taken = ()
    wrong = sorted({each.dtype for each in _quantizations(graph, node)} - {*taken})
    if not wrong:
        return None
    wanted = " or ".join(taken) if taken else "float numbers"
    return f"tflite wants {wanted} for this {node.kind}; got {wrong[0]}. {INSTEAD.get(type(op), IN_FLOAT)}"


def _all_or_none(graph: Graph, node: Node) -> str | None:
    """Refuse float numbers beside integers, and integers of two types."""
    found = _activations(graph, node)
    types = sorted({each.stored_dtype for each in found})
    if len(types) > 1 and not isinstance(node.op, MIXED):
        got = " and ".join(types)
        return f"tflite wants numbers of one type for this {node.kind}; got {got}. Put a (De)Quantize between."
    several = [each.name for each in found if each.quantization is not None and each.quantization.axis is not None]
    if several and not isinstance(node.op, MIXED):
        return f"tflite wants one scale for {several[0]}; got one for each channel. {IN_FLOAT}"
    return None


def _zero_points(graph: Graph, node: Node) -> str | None:
    wrong = [
        each.zero_point[0] for each in _quantizations(graph, node) if each.dtype == "int16" and any(each.zero_point)
    ]
    return f"tflite wants int16 with zero point 0; got {wrong[0]}. Quantize it symmetrically." if wrong else None


def _kernel(graph: Graph, node: Node) -> str | None:
    if not isinstance(node.op, WEIGHTED):
        return None
    image, kernel = (graph.tensors[name] for name in node.inputs[:2])
    own, wanted = kernel.quantization, KERNELS.get(image.stored_dtype)
    if own is None and image.quantization is None:
        return None
    if own is None or own.dtype != wanted:
        remedy = "Store it so, or in float behind a Dequantize."
        return f"tflite wants a kernel of {wanted} for {image.stored_dtype}; got {kernel.stored_dtype}. {remedy}"
    if own.dtype == "int8" and any(own.zero_point):
        return "tflite wants an int8 kernel with zero point 0; got another one. Store it as uint8, or in float."
    if own.dtype == "uint8" and own.axis is not None:
        return "tflite wants one scale for a kernel of uint8; got one for each channel. Store it as int8."
    return None


def _bias(graph: Graph, node: Node) -> str | None:
    """The kernels take the bias for integers of scale input * kernel, whatever its own scale is."""
    name = node.operand("bias")
    if not isinstance(node.op, WEIGHTED) or not name:
        return None
    image, kernel = (elements_of(graph.tensors[each]) for each in node.inputs[:2])
    bias, output = graph.tensors[name], graph.tensors[node.output].quantization
    wanted = BIASES[graph.tensors[node.inputs[0]].stored_dtype]
    if bias.stored_dtype not in wanted:
        return f"tflite wants a bias of {' or '.join(wanted)}; got {bias.stored_dtype}. {IN_FLOAT}"
    product = of_bias(image, kernel)
    if bias.quantization is None or isinstance(product, str) or output is None:
        return None
    apart = np.abs(np.asarray(bias.quantization.scale) - np.asarray(product.scale)).max()
    if apart > MOST_APART * output.scale[0] or any(bias.quantization.zero_point):
        found = _show(bias.quantization)
        return f"tflite wants a bias of scale {product.scale[0]:.6g} (input * kernel); got {found}. Quantize it so."
    return None


def _same_scale(graph: Graph, node: Node) -> str | None:
    if not isinstance(node.op, (*SAME_SCALE, ops.Where)):
        return None
    found = _quantizations(graph, node)
    if found[0].dtype == "uint8" and isinstance(node.op, FREE_IN_UINT8):
        return None
    other = next((each for each in found if each != found[0]), None)
    if other is None:
        return None
    return (
        f"tflite wants one scale for all that {node.kind} takes and gives; got {_show(found[0])} and {_show(other)}. "
        "Put a Quantize before it."
    )


def _fixed_output(graph: Graph, node: Node) -> str | None:
    output = graph.tensors[node.output].quantization
    wanted = _fixed(type(node.op), output.dtype) if output else None
    if wanted is None or wanted == output or output is None:
        return None
    return f"tflite wants {node.kind} to give {_show(wanted)}; got {_show(output)}. Put a Quantize behind it."


def _fixed(kind: type[ops.Op], dtype: str) -> Quantization | None:
    """Return what an operator must give; uint8 is int8 with 128 more."""
    own = FIXED_OUTPUT.get((kind, "int8" if dtype == "uint8" else dtype))
    if own is None or dtype != "uint8":
        return own
    return replace(own, zero_point=(own.zero_point[0] + 128,), dtype=dtype)


def _range(graph: Graph, node: Node) -> str | None:
    output = graph.tensors[node.output].quantization
    is_cut = isinstance(getattr(node.op, "activation", None) or node.op, ops.ReLU6)
    if not is_cut or output is None or output.scale[0] >= LEAST_SCALE_OF_RELU6:
        return None
    least = f"{LEAST_SCALE_OF_RELU6:.3g} (6 / 2^31)"
    return f"tflite wants an output scale of at least {least}; got {output.scale[0]:.3g}. Widen its range."


def _show(found: Quantization) -> str:
    return f"scale {found.scale[0]:.6g} with zero point {found.zero_point[0]}"


RULES: Sequence[Callable[[Graph, Node], str | None]] = (
    *(_types, _all_or_none, _zero_points, _kernel, _bias, _same_scale, _fixed_output, _range),
)
"""Each returns why a node may not be written, or None."""
