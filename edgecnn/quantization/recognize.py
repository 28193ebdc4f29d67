"""Tell of a network that somebody quantized how its numbers are stored, and which precision that is."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgecnn import ops
from edgecnn.graph import Graph, Node, Tensor
from edgecnn.quantization.rules import WEIGHTED

HALF = "float16"


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """How the numbers of a network are stored.

    Attributes:
        precision: What most of the layers that are not float32 have, so that a network that keeps its first and last
            layer in float is called by the others; "float32" where there are none.
        layers: Precision -> how many layers with a kernel have it.
        kernels: "int8 per channel", "uint8 per tensor", "float32" -> how many kernels are stored so.
        biases: Type -> how many.
        activations: Type -> how many computed tensors, the inputs among them.
    """

    precision: str
    layers: Mapping[str, int]
    kernels: Mapping[str, int]
    biases: Mapping[str, int]
    activations: Mapping[str, int]


def recognize(graph: Graph) -> Storage:
    """Return how the numbers of a Graph are stored."""
    kernels, biases, layers = Counter[str](), Counter[str](), Counter[str]()
    waiting = {node.output: node for node in graph.nodes if isinstance(node.op, ops.Dequantize)}
    for node in graph.nodes:
        if not isinstance(node.op, WEIGHTED):
            continue
        kernel, behind = _stored(graph, waiting, node.inputs[1])
        bias = node.operand("bias")
        kernels[_described(kernel)] += 1
        biases.update([] if bias is None else [_type(_stored(graph, waiting, bias)[0])])
        layers[_precision(graph.tensors[node.inputs[0]], kernel, is_behind=behind)] += 1
    computed = [tensor.stored_dtype for tensor in graph.tensors.values() if tensor.data is None]
    return Storage(
        precision=next((name for name, _ in layers.most_common() if name != "float32"), "float32"),
        layers=dict(layers.most_common()),
        kernels=dict(kernels.most_common()),
        biases=dict(biases.most_common()),
        activations=dict(Counter(computed).most_common()),
    )


def _stored(graph: Graph, waiting: Mapping[str, Node], name: str) -> tuple[Tensor, bool]:
    """Return the tensor whose integers an operand is made of, and whether a Dequantize node lies between."""
    node = waiting.get(name)
    if node is None or not graph.tensors[node.inputs[0]].is_constant:
        return graph.tensors[name], False
    return graph.tensors[node.inputs[0]], True


def _type(tensor: Tensor) -> str:
    return tensor.stored_dtype if tensor.data is None else str(tensor.data.dtype)


def _described(tensor: Tensor) -> str:
    if tensor.quantization is None:
        return _type(tensor)
    return f"{_type(tensor)} per {'tensor' if tensor.quantization.axis is None else 'channel'}"


def _precision(x: Tensor, kernel: Tensor, *, is_behind: bool) -> str:
    """Return the precision of one layer by what it takes."""
    if kernel.quantization is None:
        return HALF if _type(kernel) == HALF else "float32"
    if x.quantization is not None:
        return f"static_w8_a{16 if x.stored_dtype == 'int16' else 8}"
    return "weight_only_w8" if is_behind else "dynamic_w8"
