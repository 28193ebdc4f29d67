"""Which tensors of a Graph become integers, and in which scale: the rules of TFLite's specification over a whole Graph.

A node that computes in integers takes each operand in the type of its own precision. What has to share a scale
(rules.SAME_SCALE) is joined; the range of a joined set covers the ranges of all that is in it. An operator whose output
scale is fixed keeps it: where it meets others in a Concat its integers are scaled anew.
"""

from collections.abc import Collection, Iterable, Mapping

from edgecnn import ops
from edgecnn.graph import Graph, Node
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.ranges import activation_quantization
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.rules import FIXED_OUTPUT, INTEGER_OPERATORS, READS_INTEGERS, SAME_SCALE, WEIGHTED

Key = tuple[str, str]
"""A tensor in a type: (name, "int8")."""


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
        self.homes = {name: self.types[node.name] for node in graph.nodes for name in node.outputs}
        for node in graph.nodes:
            if self.types[node.name] is not None:
                self._join(node, self.types[node.name] or "")

    def quantization(self, tensor: str, dtype: str) -> Quantization:
        """Return how integers of a type stand for a tensor."""
        key = self._root((tensor, dtype))
        return self._fixed[key] if key in self._fixed else activation_quantization(*self._range(key), dtype)

    def is_loose(self, node: Node, tensor: str) -> bool:
        """Tell whether an operand of a node that shares one scale has a fixed one, so that it is scaled anew."""
        dtype = self.types[node.name] or ""
        return self._shares(node) and self._root((tensor, dtype)) != self._root((node.output, dtype))

    def _type(self, node: Node, in_float: Collection[str]) -> str | None:
        """Return the type in which a node computes, or None for float."""
        precision = self.recipe.precision_of(node.name)
        dtype = precision.activation_dtype
        is_known = type(node.op) in INTEGER_OPERATORS.get(dtype, ())
        if not precision.is_static or not is_known or node.name in in_float:
            return None
        numbers = [self.graph.tensors[name] for name in (*node.inputs, *node.outputs)]
        if isinstance(node.op, READS_INTEGERS):
            numbers = numbers[:1]
        is_layer_with_constants = all(t.is_constant for t in numbers[1 : len(node.inputs)])
        if any(tensor.dtype != "float32" for tensor in numbers):
            return None
        return dtype if is_layer_with_constants or not isinstance(node.op, WEIGHTED) else None

    def _shares(self, node: Node) -> bool:
        return isinstance(node.op, SAME_SCALE)

    def _join(self, node: Node, dtype: str) -> None:
        for name in node.outputs:
            fixed = FIXED_OUTPUT.get((type(node.op), dtype))
            if fixed is not None:
                self._fixed[name, dtype] = fixed
        if not self._shares(node):
            return
        operands = [(name, dtype) for name in node.inputs]
        found = {self._fixed.get(self._root(key)) for key in operands}
        loose = [key for key in operands if len(found) > 1 and self._fixed.get(self._root(key)) is not None]
        for key in (*(key for key in operands if key not in loose), *((name, dtype) for name in node.outputs)):
            self._unite(key, (node.output, dtype))
        for key in loose:  # the shared range has to hold what is scaled anew into it
            self._widen((node.output, dtype), self._own_range(key))
        if isinstance(node.op, ops.Pad):
            self._widen((node.output, dtype), (node.op.value, node.op.value))

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
        return seen.low, seen.high


def _hull(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)
