"""From a prepared float Graph and the ranges that were observed to a quantized Graph.

Tensors keep their names, so that float and integer can be compared at the same point. Where a value is wanted in
another type than the one it is computed in, one Quantize or Dequantize node gives it to all that want it.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from edgecnn.errors import UnsupportedError
from edgecnn.graph import Graph, Node, Port, Tensor, validate
from edgecnn.ops import Dequantize, Quantize
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.parameters import Quantization, as_type
from edgecnn.quantization.precision import Precision
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.rules import WEIGHTED
from edgecnn.quantization.scales import Scales
from edgecnn.quantization.weights import kernel_quantization, layer_integers

FEWEST_WEIGHTS = 1024
"""A smaller kernel stays float where only weights are quantized: it saves nothing. TFLite draws the same line."""

FLOAT = "float32"

WEIGHT_FORMS = ("weight_only", "dynamic")
"""Kinds of precision in which only kernels are integers."""


class _Assigner:
    """Writes the nodes of a float Graph again, each over tensors of the type in which it computes."""

    def __init__(self, graph: Graph, scales: Scales | None, recipe: Recipe) -> None:
        self.graph, self.recipe = graph, recipe
        self._scales = scales
        self._types = scales.types if scales else {node.name: None for node in graph.nodes}
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {port.tensor: graph.tensors[port.tensor] for port in graph.inputs}
        self._computed = {name for node in graph.nodes for name in (node.name, *node.outputs)}
        self._forms: dict[tuple[str, object], str] = {}

    @property
    def scales(self) -> Scales:
        """Return the scales, which static precisions have."""
        if self._scales is None:
            raise UnsupportedError(f"{self.graph.name}: a static precision wants a calibration; there is none")
        return self._scales

    def walk(self) -> None:
        for node in self.graph.nodes:
            dtype = self._types[node.name]
            self._add(node, self._float_inputs(node) if dtype is None else self._integer_inputs(node, dtype), dtype)

    def input(self, port: Port, dtype: str) -> None:
        """State the type in which a port is fed; what is fed in float32 is rounded behind it."""
        known = self.graph.tensors[port.tensor]
        if dtype == FLOAT or known.dtype != FLOAT:
            return
        inner = self.scales.quantization(port.tensor, "int8")
        self.tensors[port.tensor] = replace(known, quantization=as_type(inner, dtype))

    def output(self, port: Port, dtype: str) -> Port:
        """Return the port in the type in which callers get it."""
        if self.graph.tensors[port.tensor].dtype != FLOAT:
            return port
        if dtype == FLOAT:
            return replace(port, tensor=self._as_float(port.tensor))
        found = self.tensors[port.tensor].quantization if port.tensor in self.tensors else None
        inner = found if found is not None and found.dtype == "int8" else self.scales.quantization(port.tensor, "int8")
        return replace(port, tensor=self._as(port.tensor, as_type(inner, dtype)))

    def _add(self, node: Node, inputs: tuple[str, ...], dtype: str | None) -> None:
        self.nodes.append(replace(node, inputs=inputs))
        for name in node.outputs:
            tensor = self.graph.tensors[name]
            is_integer = dtype is not None and tensor.dtype == FLOAT
            found = self.scales.quantization(name, dtype) if is_integer and dtype else None
            self.tensors[name] = replace(tensor, quantization=found)

    def _float_inputs(self, node: Node) -> tuple[str, ...]:
        precision = self.recipe.precision_of(node.name)
        source, *rest = node.inputs
        operands = [self._as_float(name) for name in rest]
        if isinstance(node.op, WEIGHTED) and precision.kind in WEIGHT_FORMS and self._is_worth_it(node):
            operands[0] = self._weights(node, precision)
        return (self._as_float(source), *operands)

    def _is_worth_it(self, node: Node) -> bool:
        kernel = self.graph.constant(node, "kernel")
        return kernel is not None and kernel.value().size >= FEWEST_WEIGHTS

    def _weights(self, node: Node, precision: Precision) -> str:
        """Return a kernel as integers, or the node that turns them into float32."""
        kernel = self.graph.tensors[node.inputs[1]]
        key = (kernel.name, (precision.name, self.recipe.scales))
        if key not in self._forms:
            values = kernel.value()
            found = kernel_quantization(values, precision.weight_limit, is_per_channel=self._is_per_channel(node))
            data = found.quantize(values, low=-precision.weight_limit)
            stored = self._constant(kernel.name, data, found)
            self._forms[key] = stored if precision.kind == "dynamic" else self._converted(stored, Dequantize(), None)
        return self._forms[key]

    def _is_per_channel(self, node: Node) -> bool:
        """Dense layers get one scale: TFLite's specification, and runtimes before LiteRT, know no other."""
        return self.recipe.scales == "channel" and len(self.graph.tensors[node.inputs[1]].shape) > 2

    def _integer_inputs(self, node: Node, dtype: str) -> tuple[str, ...]:
        if isinstance(node.op, WEIGHTED):
            return self._layer_inputs(node, dtype)
        return tuple(
            self._as(name, self.scales.of_operand(node, name, dtype))
            if self.graph.tensors[name].dtype == FLOAT
            else self._as_float(name)
            for name in node.inputs
        )

    def _layer_inputs(self, node: Node, dtype: str) -> tuple[str, ...]:
        precision = self.recipe.precision_of(node.name)
        source = self.scales.quantization(node.inputs[0], dtype)
        kernel, bias = self.graph.tensors[node.inputs[1]], self.graph.constant(node, "bias")
        found = layer_integers(
            kernel.value(),
            None if bias is None else bias.value(),
            source=source,
            output=self.scales.quantization(node.output, dtype),
            limit=precision.weight_limit,
            is_per_channel=self._is_per_channel(node),
        )
        return (
            self._as(node.inputs[0], source),
            self._constant(kernel.name, found.kernel, found.kernel_quantization),
            self._constant(bias.name if bias else f"{node.name}/bias", found.bias, found.bias_quantization),
        )

    def _constant(self, name: str, data: np.ndarray, quantization: Quantization) -> str:
        free = self._free(name)
        self.tensors[free] = Tensor(name=free, shape=data.shape, data=data, quantization=quantization)
        return free

    def _as(self, name: str, wanted: Quantization) -> str:
        """Return a tensor as integers of this quantization."""
        known = self.graph.tensors[name]
        if not known.is_constant and self.tensors[name].quantization == wanted:
            return name
        key = (name, wanted)
        if key not in self._forms:
            self._forms[key] = (
                self._constant(name, wanted.quantize(known.value()), wanted)
                if known.is_constant
                else self._converted(self._between(name, wanted), Quantize(), wanted)
            )
        return self._forms[key]

    def _between(self, name: str, wanted: Quantization) -> str:
        """Return a tensor in int8 on its way from uint8 to int16 or back, for which runtimes have no kernel."""
        found = self.tensors[name].quantization
        if found is None or {found.dtype, wanted.dtype} != {"uint8", "int16"}:
            return name
        return self._converted(name, Quantize(), as_type(found if found.dtype == "uint8" else wanted, "int8"))

    def _as_float(self, name: str) -> str:
        """Return a tensor as the float Graph has it: as numbers, or as positions, which are never quantized."""
        known = self.graph.tensors[name]
        if not known.is_constant and self.tensors[name].quantization is None:
            return name
        key = (name, None)
        if key not in self._forms:
            self._forms[key] = self._kept(known) if known.is_constant else self._converted(name, Dequantize(), None)
        return self._forms[key]

    def _kept(self, constant: Tensor) -> str:
        free = self._free(constant.name)
        self.tensors[free] = replace(constant, name=free)
        return free

    def _converted(self, name: str, op: Quantize | Dequantize, wanted: Quantization | None) -> str:
        output = self._free(f"{name}/{'dequantized' if wanted is None else 'quantized'}")
        self.nodes.append(Node(name=output, op=op, inputs=(name,), outputs=(output,)))
        self.tensors[output] = Tensor(name=output, shape=self.tensors[name].shape, quantization=wanted)
        return output

    def _free(self, name: str) -> str:
        """Return a name that nothing has; a constant of the float Graph gives its name to the first that asks."""
        free, number = name, 1
        while free in self.tensors or free in self._computed or (free != name and free in self.graph.tensors):
            number += 1
            free = f"{name}_{number}"
        return free


def assign(
    graph: Graph,
    calibration: Calibration | None,
    recipe: Recipe,
    *,
    in_float: Collection[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Graph:
    """Return the quantized Graph of a prepared float Graph.

    Args:
        graph: See prepare.prepared.
        calibration: Of that Graph; None where the recipe has no static precision.
        recipe: The precision of each layer.
        in_float: Names of nodes that stay float whatever the recipe says.
        ranges: Tensor -> its range where that is known without observing it: what pixels can become.

    Raises:
        UnsupportedError: When a static precision has no calibration.
    """
    scales = None if calibration is None else Scales(graph, calibration, recipe, in_float=in_float, ranges=ranges)
    assigner = _Assigner(graph, scales, recipe)
    for port in graph.inputs:
        assigner.input(port, recipe.io)
    assigner.walk()
    outputs = tuple(assigner.output(port, recipe.io) for port in graph.outputs)
    quantized = replace(graph, nodes=tuple(assigner.nodes), tensors=assigner.tensors, outputs=outputs)
    validate(quantized)
    return quantized
