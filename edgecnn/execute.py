"""Run a Graph in NumPy: the reference that every artifact is held against, in float and in integers."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgecnn.errors import UsageError
from edgecnn.graph import Array, Graph, Node, Port, Tensor
from edgecnn.kernels import evaluate_all
from edgecnn.kernels.quantized import Rounding, evaluate_quantized
from edgecnn.ops import BatchNorm
from edgecnn.shapes import check_shape

Apply = Callable[[Node, Sequence[Array]], tuple[Array, ...]]
"""(node, values of its operands) -> values of its outputs."""


def execute(
    graph: Graph,
    inputs: Mapping[str, Array],
    *,
    fetch: Iterable[str] = (),
    rounding: Rounding = "float32",
    stored: bool = False,
) -> dict[str, Array]:
    """Run a Graph on values.

    Args:
        graph: Any validated Graph, training-time nodes included.
        inputs: Port name -> values (N, spatial..., C), whatever the port's external layout is. A quantized port takes
            its integers, or float numbers, which are quantized first.
        fetch: Names of inner tensors that are wanted besides the outputs.
        rounding: How integer arithmetic rounds; see kernels.quantized.
        stored: Whether quantized tensors are returned as their integers, and not as the numbers that they stand for.

    Returns:
        Port name -> values, and tensor name -> values for what was fetched, which comes first where a port has the name
        of another tensor. Each tensor is freed after its last use.

    Raises:
        UsageError: When an input is missing or does not have the port's shape (any batch goes, though), or when no
            tensor has the name of one that is wanted.
    """
    fetch = tuple(fetch)
    wanted = {*fetch, *(port.tensor for port in graph.outputs)}
    unknown = sorted(wanted - graph.tensors.keys())
    if unknown:
        raise UsageError(f"{graph.name}: no tensor is named '{unknown[0]}'")

    def apply(node: Node, operands: Sequence[Array]) -> tuple[Array, ...]:
        known = [graph.tensors[name].quantization for name in (*node.inputs, *node.outputs)]
        if not any(known):
            return evaluate_all(node.op, operands)
        own, given = known[: len(operands)], known[len(operands) :]
        return evaluate_quantized(node.op, operands, own, given, rounding)

    values = _run(graph, inputs, wanted, apply)
    found = {name: _shown(graph.tensors[name], values.get(name), stored=stored) for name in wanted}
    return {**{port.name: found[port.tensor] for port in graph.outputs}, **{name: found[name] for name in fetch}}


def _run(graph: Graph, inputs: Mapping[str, Array], wanted: Container[str], apply: Apply) -> dict[str, Array]:
    """Apply every node in order and return the values of the wanted tensors; each other one goes after its last use."""
    last_use = {name: node.name for node in graph.nodes for name in node.inputs}
    values = {port.tensor: _fed(graph, port, inputs) for port in graph.inputs}
    for node in graph.nodes:
        operands = [values[name] if name in values else _stored(graph.tensors[name]) for name in node.inputs]
        values.update(zip(node.outputs, apply(node, operands), strict=True))
        for name in node.inputs:
            if last_use[name] == node.name and name not in wanted:
                values.pop(name, None)
    return values


def _fed(graph: Graph, port: Port, inputs: Mapping[str, Array]) -> Array:
    if port.name not in inputs:
        raise UsageError(f"{graph.name}: input '{port.name}' was wanted; got {sorted(inputs)}")
    values, tensor = inputs[port.name], graph.tensors[port.tensor]
    check_shape(f"{graph.name}: input '{port.name}'", values.shape, (None, *tensor.shape[1:]))
    if tensor.quantization is not None and values.dtype.kind == "f":
        return tensor.quantization.quantize(values)
    return values.astype(tensor.stored_dtype, copy=False)


def _stored(tensor: Tensor) -> Array:
    """Return a constant as operators take it: integers that stand for numbers as they are."""
    return tensor.value() if tensor.quantization is None or tensor.data is None else tensor.data


def _shown(tensor: Tensor, values: Array | None, *, stored: bool) -> Array:
    """Return what a caller gets of a tensor."""
    values = _stored(tensor) if values is None else values
    return values if stored or tensor.quantization is None else tensor.quantization.dequantize(values)


def with_image_statistics(graph: Graph, inputs: Mapping[str, Array]) -> Graph:
    """Return the Graph with each BatchNorm's mean and variance taken from what reaches it on these inputs.

    A freshly initialised network has statistics 0 and 1, behind which activations grow or vanish with depth; nothing
    should be measured on it. Real images (16 or more) give each BatchNorm what training would have given it.

    Args:
        graph: A Graph with BatchNorm nodes.
        inputs: Port name -> images (N, spatial..., C).
    """
    tensors = dict(graph.tensors)

    def measure(node: Node, operands: Sequence[Array]) -> tuple[Array, ...]:
        if isinstance(node.op, BatchNorm):
            x = operands[0].astype(np.float64)
            axes = tuple(range(x.ndim - 1))
            operands = (*operands[:3], x.mean(axes).astype(np.float32), x.var(axes).astype(np.float32))
            for name, data in zip(node.inputs[3:], operands[3:], strict=True):
                tensors[name] = replace(tensors[name], data=data)
        return evaluate_all(node.op, operands)

    _run(graph, inputs, (), measure)
    return replace(graph, tensors=tensors)
