"""Which tensors of a Graph become integers, and in which scale: the rules of TFLite's specification over a whole Graph.

A node that computes in integers takes each operand in the type of its own precision. What has to share a scale
(rules.SAME_SCALE) is joined; the range of a joined set covers the ranges of all that is in it. An operator whose output
scale is fixed keeps it: where it meets others in a Concat its integers are scaled anew.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.graph import Graph, Node
from edgecnn.kernels.quantized import POSITIONS
from edgecnn.passes.editor import GraphEditor
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.ranges import activation_quantization
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.rules import FIXED_OUTPUT, INTEGER_OPERATORS, READS_INTEGERS, SAME_SCALE, WEIGHTED
from edgecnn.quantization.swish_gates import SWISH_REACH, swish_gate
from edgecnn.shapes import Shape, same_padding

SCORES = (ops.Sigmoid, ops.Softmax)

SIGMOID_REACH = 8.0
"""Beyond it a sigmoid is constant within an eighth of its 8-bit step, 1/256."""

Key = tuple[str, str]
"""A tensor in a type: (name, "int8")."""


def _is_volume(op: ops.Op, shape: Shape) -> bool:
    return len(getattr(op, "stride", ())) > 2


def _is_scaled_elu(op: ops.Op, shape: Shape) -> bool:
    return isinstance(op, ops.ELU) and op.alpha != 1


def _leaves_out_odd_padding(op: ops.Op, shape: Shape) -> bool:
    """Tell whether a mean leaves out padding that is neither SAME nor none."""
    if not isinstance(op, ops.AveragePool) or op.count_include_pad or not any(map(any, op.padding)):
        return False
    rows = zip(shape[1:-1], op.kernel_size, op.stride, strict=True)
    return op.padding != tuple(same_padding(size or 0, kernel, stride=step) for size, kernel, step in rows)


WITHOUT_KERNEL: tuple[Callable[[ops.Op, Shape], bool], ...] = (_is_volume, _is_scaled_elu, _leaves_out_odd_padding)
"""(operator, shape of its first operand) -> whether TFLite has no kernel of integers for this form of it."""


class Scales:
    """Decides for each tensor of a Graph, and for each type in which it is wanted, how its integers stand for it."""

    def __init__(
        self,
        graph: Graph,
        calibration: Calibration,
        recipe: Recipe,
        *,
        in_float: Collection[str] = (),
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Join what shares a scale.

        Args:
            graph: Prepared float Graph.
            calibration: Of that Graph.
            recipe: Decides each node's precision.
            in_float: Names of nodes that stay float whatever the recipe says.
            ranges: Tensor -> its range where that is known without observing it: what pixels can become.
        """
        self.graph, self.calibration, self.recipe = graph, calibration, recipe
        self._known = dict(ranges or {})
        self._parents: dict[Key, Key] = {}
        self._fixed: dict[Key, Quantization] = {}
        self._ranges: dict[Key, tuple[float, float]] = {}
        self.types = {node.name: self._type(node, in_float) for node in graph.nodes}
        self._gates = self._read_by_sigmoids_alone()
        self._swishes = self._read_by_swishes_alone()
        self._ends = self._read_by_no_layer()
        for node in graph.nodes:
            if self.types[node.name] is not None:
                self._join(node, self.types[node.name] or "")

    def quantization(self, tensor: str, dtype: str) -> Quantization:
        """Return how integers of a type stand for a tensor."""
        key = self._root((tensor, dtype))
        return self._fixed[key] if key in self._fixed else activation_quantization(*self._range(key), dtype)

    def of_operand(self, node: Node, tensor: str, dtype: str) -> Quantization:
        """Return the same for an operand of a node; one with a fixed scale is scaled anew where all share one."""
        return self.quantization(node.output if isinstance(node.op, SAME_SCALE) else tensor, dtype)

    def _type(self, node: Node, in_float: Collection[str]) -> str | None:
        """Return the type in which a node computes, or None for float."""
        precision = self.recipe.precision_of(node.name)
        is_integer = precision.is_static and node.name not in in_float
        dtype = precision.activation_dtype
        return dtype if is_integer and self._has_integer_form(node, dtype) else None

    def _has_integer_form(self, node: Node, dtype: str) -> bool:
        """Tell whether every format has a kernel of integers for a node."""
        operands = [self.graph.tensors[name] for name in node.inputs]
        numbers = [tensor for place, tensor in enumerate(operands) if place not in POSITIONS.get(type(node.op), ())]
        if not isinstance(node.op, READS_INTEGERS):
            numbers += [self.graph.tensors[name] for name in node.outputs]
        return (
            type(node.op) in INTEGER_OPERATORS.get(dtype, ())
            and all(tensor.dtype == "float32" for tensor in numbers)
            and (not isinstance(node.op, WEIGHTED) or all(tensor.is_constant for tensor in operands[1:]))
            and not any(lacks(node.op, operands[0].shape) for lacks in WITHOUT_KERNEL)
        )

    def _join(self, node: Node, dtype: str) -> None:
        fixed = FIXED_OUTPUT.get((type(node.op), dtype))
        if fixed is not None:
            self._fixed.update({(name, dtype): fixed for name in node.outputs})
        if not isinstance(node.op, SAME_SCALE):
            return
        operands = [(name, dtype) for name in node.inputs if self.graph.tensors[name].dtype == "float32"]
        if isinstance(node.op, ops.Maximum | ops.Minimum):  # a bound beyond the range saturates, and is as good there
            operands = [key for key in operands if not self.graph.tensors[key[0]].is_constant]
        loose = self._loose(node, operands)
        for key in (*(key for key in operands if key not in loose), *((name, dtype) for name in node.outputs)):
            self._unite(key, (node.output, dtype))
        for key in loose:  # the shared range has to hold what is scaled anew into it
            self._widen((node.output, dtype), self._own_range(key))
        if isinstance(node.op, ops.Pad):
            self._widen((node.output, dtype), (node.op.value, node.op.value))

    def _loose(self, node: Node, operands: list[Key]) -> list[Key]:
        """Return the operands with a fixed scale that is not the one of all that a node takes and gives."""
        found = [self._fixed.get(self._root(key)) for key in operands]
        is_mixed = len(set(found)) > 1 or len(operands) < len(node.inputs)
        if isinstance(node.op, ops.Pad) and found[0] is not None:
            low, high = found[0].range
            is_mixed = not low <= node.op.value <= high
        return [key for key, fixed in zip(operands, found, strict=True) if is_mixed and fixed is not None]

    def _read_by_sigmoids_alone(self) -> set[str]:
        """Return the tensors that nothing but integer sigmoids take."""
        gates = [node for node in self.graph.nodes if isinstance(node.op, ops.Sigmoid) and self.types[node.name]]
        others = {name for node in self.graph.nodes if node not in gates for name in node.inputs}
        return {node.inputs[0] for node in gates} - others - {port.tensor for port in self.graph.outputs}

    def _read_by_swishes_alone(self) -> dict[str, float]:
        """Return the tensors that nothing but integer swishes take, and where what lies lower stops to matter.

        A swish is x' sigmoid(s x') here, with s of each channel where activations were equalized.
        """
        editor = GraphEditor(self.graph)
        found = {}
        for node in self.graph.nodes:
            gate = swish_gate(editor, node)
            if gate is None or not (self.types[node.name] and self.types[gate.sigmoid.name]):
                continue
            if {
                each.name for each in editor.consumers(gate.source)
            } <= gate.takers and gate.source not in editor.outputs:
                lowest = self.calibration.statistics[gate.source].minimum
                found[gate.source] = float(np.maximum(lowest, -SWISH_REACH / gate.factors).min(initial=0))
        return found

    def _read_by_no_layer(self) -> set[str]:
        """Return the tensors from which only float operators, scores and output ports are reached.

        Their largest values are the answer: an observer that clips what is rare would clip it.
        """
        inner: set[str] = set()
        for node in reversed(self.graph.nodes):
            is_end = self.types[node.name] is None or isinstance(node.op, SCORES)
            if not is_end and (not isinstance(node.op, SAME_SCALE) or inner.intersection(node.outputs)):
                inner.update(node.inputs)
        return {name for node in self.graph.nodes for name in node.outputs} - inner

    def _root(self, key: Key) -> Key:
        while key in self._parents:
            key = self._parents[key]
        return key

    def _unite(self, one: Key, other: Key) -> None:
        first, second = self._root(one), self._root(other)
        if first == second:
            return
        if second in self._fixed:
            first, second = second, first
        extent = _hull((self._range(first), self._range(second)))
        self._parents[second] = first
        self._ranges[first] = extent

    def _widen(self, key: Key, extent: tuple[float, float]) -> None:
        root = self._root(key)
        self._ranges[root] = _hull((self._range(root), extent))

    def _range(self, root: Key) -> tuple[float, float]:
        return self._ranges[root] if root in self._ranges else self._own_range(root)

    def _own_range(self, key: Key) -> tuple[float, float]:
        """Return what is known or was observed of a tensor, or what a constant holds."""
        name = key[0]
        if name in self._known:
            return self._known[name]
        tensor = self.graph.tensors[name]
        if tensor.is_constant:
            values = tensor.value()
            return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        seen = self.calibration.statistics[name]
        if name in self._ends:
            seen = replace(seen, low=float(seen.minimum.min()), high=float(seen.maximum.max()))
        if key[1] == "int8" and name in self._gates:
            return max(seen.low, -SIGMOID_REACH), min(seen.high, SIGMOID_REACH)
        if key[1] == "int8" and name in self._swishes:
            return max(seen.low, self._swishes[name]), seen.high
        return seen.low, seen.high


def _hull(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)
