"""Give the float network that a quantized one stands for: each constant as its numbers, nothing rounded in between.

    value = scale * (integer - zero_point)

Quantize and Dequantize go, and with them what they round. What is stored as float16 stays so.

What integers saturate stays where it is an activation: TensorFlow 1 left out a RELU6 whose output is a uint8 tensor of
the range 0..6, since its integers can stand for nothing else, and a network without its clamps is another one. So a
layer without an activation gets ReLU6 where its integers stand for 0..6 (within a step), ReLU where they begin at 0.
"""

from dataclasses import replace
from typing import Any

from edgecnn.graph import Graph, Node, Tensor, validate
from edgecnn.ops import Activation, Dequantize, Identity, Quantize, ReLU, ReLU6
from edgecnn.quantization.parameters import Quantization


def dequantize(graph: Graph) -> Graph:
    """Return the float equivalent of a Graph, ports included; of a float Graph, the Graph itself.

    A port keeps its name; one that showed a quantized tensor takes or gives the numbers that it stood for.
    """
    if not graph.is_quantized:
        return graph
    nodes: list[Node] = []
    same: dict[str, str] = {}
    shown = {port.tensor for port in graph.outputs}
    computed = {name for node in graph.nodes for name in node.outputs}
    for each in graph.nodes:
        node = replace(each, inputs=tuple(same.get(name, name) for name in each.inputs))
        if not isinstance(node.op, Quantize | Dequantize):
            nodes.append(_with_activation(graph, node))
        elif node.output in shown and node.inputs[0] not in computed:
            nodes.append(replace(node, op=Identity()))
        else:
            same[node.output] = node.inputs[0]
    outputs = tuple(replace(port, tensor=same.get(port.tensor, port.tensor)) for port in graph.outputs)
    used = {port.tensor for port in (*graph.inputs, *outputs)}
    used |= {name for node in nodes for name in (*node.inputs, *node.outputs)}
    tensors = {name: _in_float(tensor) for name, tensor in graph.tensors.items() if name in used}
    found = replace(graph, nodes=tuple(nodes), tensors=tensors, outputs=outputs)
    validate(found)
    return found


def _with_activation(graph: Graph, node: Node) -> Node:
    """Return a layer with the activation that only its output's range states."""
    op: Any = node.op
    if getattr(op, "activation", node) is not None:
        return node
    activation = implied_activation(graph.tensors[node.output].quantization)
    return node if activation is None else replace(node, op=replace(op, activation=activation))


def implied_activation(found: Quantization | None) -> Activation | None:
    """Return the clamp that the range of a quantized tensor is.

    >>> implied_activation(Quantization(scale=(6 / 255,), zero_point=(0,), dtype="uint8"))
    ReLU6()
    """
    if found is None or found.axis is not None or found.range[0] != 0:
        return None
    return ReLU6() if abs(found.range[1] - 6) < found.scale[0] else ReLU()


def _in_float(tensor: Tensor) -> Tensor:
    if tensor.quantization is None:
        return tensor
    return replace(tensor, data=None if tensor.data is None else tensor.value(), quantization=None)
