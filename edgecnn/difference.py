"""How two Graphs differ: ports, nodes, wiring, attributes and constants.

Nodes are paired by name first; what is left is paired in order by kind and shapes (difflib), so that the same network
read from two formats meets itself. Constants are compared as the arithmetic sees them, operand by operand of the paired
nodes, whatever they are called. What the integers between nodes stand for is compared too: 8 bits stand for the same
numbers signed and unsigned, and a fused ReLU that the range of its output implies is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from math import inf, isfinite, log10

import numpy as np

from edgecnn.graph import Array, Graph, Node, Port, Tensor
from edgecnn.ops import Reshape, Slice
from edgecnn.passes.explicit_quantization import drop_implied_clamps
from edgecnn.quantization.parameters import Quantization
from edgecnn.shapes import show_shape

MISSING = "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One attribute, shape or name that differs.

    Attributes:
        where: The node (as A calls it) or port.
        what: What differs there: "stride", "output shape", "input 1".
        a: Its value in A.
        b: Its value in B.
    """

    where: str
    what: str
    a: str
    b: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstantChange:
    """One constant whose values differ.

    Attributes:
        node: The node that reads it, as A calls it.
        operand: Which of its operands it is.
        elements: Number of elements.
        differing: Number of elements that differ.
        max_abs_difference: Largest absolute difference.
        snr_db: 10 log10(energy of A / energy of the difference); minus infinity where no finite number says it.
    """

    node: str
    operand: str
    elements: int
    differing: int
    max_abs_difference: float
    snr_db: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How B differs from A.

    Attributes:
        nodes: Number of paired nodes.
        constants: Number of compared constants.
        removed: (name, kind) of nodes that only A has.
        added: (name, kind) of nodes that only B has.
        changes: Ports, and attributes, shapes, wiring and storage of paired nodes.
        values: Constants whose values differ, the worst SNR first.
    """

    nodes: int
    constants: int
    removed: tuple[tuple[str, str], ...]
    added: tuple[tuple[str, str], ...]
    changes: tuple[Change, ...]
    values: tuple[ConstantChange, ...]

    @property
    def is_identical(self) -> bool:
        """Tell whether both compute the same with the same constants under the same port names."""
        return not (self.removed or self.added or self.changes or self.values)


def difference(a: Graph, b: Graph) -> Difference:
    """Compare two Graphs that were prepared in the same way (both deployed, both of one batch)."""
    a, b = drop_implied_clamps(a), drop_implied_clamps(b)
    pairs = _paired(a, b)
    mine, theirs = {x.name for x, _ in pairs}, {y.name for _, y in pairs}
    twins = _twins(a, b, pairs)
    changes = [*_port_changes(a, b, "input"), *_port_changes(a, b, "output"), *_output_changes(a, b, twins)]
    values, compared = [], 0
    for x, y in pairs:
        changes += _node_changes(a, b, x, y, twins)
        for operand, left, right in _constants(a, b, x, y):
            compared += 1
            found = _value_change(x.name, operand, left, right)
            values += [found] if found else []
    return Difference(
        nodes=len(pairs),
        constants=compared,
        removed=tuple((node.name, node.kind) for node in a.nodes if node.name not in mine),
        added=tuple((node.name, node.kind) for node in b.nodes if node.name not in theirs),
        changes=tuple(changes),
        values=tuple(sorted(values, key=lambda each: each.snr_db)),
    )


def _paired(a: Graph, b: Graph) -> list[tuple[Node, Node]]:
    """Return the nodes that are the same node of both: those of one name and kind, then runs of equal kind and shapes.

    What stays between two such runs is paired by kind alone, so that a layer that became wider is one change.
    """
    named = {node.name: node for node in b.nodes}
    pairs = [(node, named[node.name]) for node in a.nodes if node.name in named and named[node.name].kind == node.kind]
    taken = {node.name for node, _ in pairs}
    pairs += _by_order(a, b, [n for n in a.nodes if n.name not in taken], [n for n in b.nodes if n.name not in taken])
    place = {node.name: position for position, node in enumerate(a.nodes)}
    return sorted(pairs, key=lambda pair: place[pair[0].name])


def _by_order(a: Graph, b: Graph, left: Sequence[Node], right: Sequence[Node]) -> Iterator[tuple[Node, Node]]:
    mine, theirs = [_key(a, node) for node in left], [_key(b, node) for node in right]
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from zip(left[i1:i2], right[j1:j2], strict=True)
        elif tag == "replace":
            before, after = [node.kind for node in left[i1:i2]], [node.kind for node in right[j1:j2]]
            for i, j, size in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
                yield from zip(left[i1 + i : i1 + i + size], right[j1 + j : j1 + j + size], strict=True)


def _key(graph: Graph, node: Node) -> tuple[object, ...]:
    return node.kind, graph.shapes(node.inputs), graph.shapes(node.outputs)


def _twins(a: Graph, b: Graph, pairs: Sequence[tuple[Node, Node]]) -> dict[str, str]:
    """Return computed tensor of A -> the tensor of B that is the same value's."""
    twins = {x.tensor: y.tensor for x, y in zip(a.inputs, b.inputs, strict=False)}
    for x, y in pairs:
        twins.update(zip(x.outputs, y.outputs, strict=False))
    return twins


def _port_changes(a: Graph, b: Graph, what: str) -> Iterator[Change]:
    ports = zip_longest(*((graph.inputs if what == "input" else graph.outputs) for graph in (a, b)))
    for position, (x, y) in enumerate(ports):
        where = f"{what} {position}"
        yield from _changed(where, "name", x.name if x else MISSING, y.name if y else MISSING)
        if x and y:
            yield from _changed(where, "shape", _port_shape(a, x), _port_shape(b, y))
            yield from _changed(where, "dtype", a.tensors[x.tensor].stored_dtype, b.tensors[y.tensor].stored_dtype)
            yield from _quantization_changes(where, "quantization", a.tensors[x.tensor], b.tensors[y.tensor])


def _port_shape(graph: Graph, port: Port) -> str:
    """Return the Graph's own shape: the layout outside is each format's."""
    return show_shape(graph.tensors[port.tensor].shape)


def _output_changes(a: Graph, b: Graph, twins: Mapping[str, str]) -> Iterator[Change]:
    for position, (x, y) in enumerate(zip(a.outputs, b.outputs, strict=False)):
        if twins.get(x.tensor) != y.tensor:
            yield Change(where=f"output {position}", what="comes from", a=x.tensor, b=y.tensor)


def _node_changes(a: Graph, b: Graph, x: Node, y: Node, twins: Mapping[str, str]) -> Iterator[Change]:
    yield from _changed(x.name, "kind", x.kind, y.kind)
    left, right = _attributes(a, x), _attributes(b, y)
    for name in {**left, **right} if x.kind == y.kind else ():
        yield from _changed(x.name, name, left.get(name, MISSING), right.get(name, MISSING))
    for position, (mine, theirs) in enumerate(zip_longest(x.inputs, y.inputs)):
        yield from _wiring(a, b, (x.name, f"input {position}"), (mine, theirs), twins)
    shapes = [[show_shape(shape) for shape in graph.shapes(node.outputs)] for graph, node in ((a, x), (b, y))]
    yield from _changed(x.name, "output shape", ", ".join(shapes[0]), ", ".join(shapes[1]))
    for mine, theirs in zip(x.outputs, y.outputs, strict=False):
        yield from _quantization_changes(x.name, "output quantization", a.tensors[mine], b.tensors[theirs])


def _quantization_changes(where: str, what: str, a: Tensor, b: Tensor) -> Iterator[Change]:
    """Compare what the integers of two computed tensors stand for."""
    if _numbers(a.quantization) != _numbers(b.quantization):
        yield Change(where=where, what=what, a=_show(a.quantization), b=_show(b.quantization))


def _numbers(found: Quantization | None) -> tuple[object, ...] | None:
    """Return what two quantizations share where their integers, counted from the least, stand for the same numbers."""
    if found is None:
        return None
    least, most = found.limits
    return found.scale, tuple(zero - least for zero in found.zero_point), found.axis, most - least


def _show(found: Quantization | None) -> str:
    """Return a quantization for people, of the first channel where there are several."""
    if found is None:
        return MISSING
    more = "" if found.axis is None else f" in the first of {len(found.scale)} channels"
    return f"{found.dtype}, scale {found.scale[0]:.9g}, zero point {found.zero_point[0]}{more}"


def _attributes(graph: Graph, node: Node) -> dict[str, object]:
    """Return the attributes, one spelling for each meaning: "the batch" and "the end" as the numbers that they are."""
    found = node.op.attributes()
    if isinstance(node.op, Reshape):
        found["shape"] = graph.tensors[node.output].shape
    if isinstance(node.op, Slice):
        sizes = graph.tensors[node.inputs[0]].shape
        found["end"] = tuple(size if end is None else end for end, size in zip(node.op.end, sizes, strict=True))
    return found


def _wiring(
    a: Graph, b: Graph, place: tuple[str, str], names: tuple[str | None, str | None], twins: Mapping[str, str]
) -> Iterator[Change]:
    where, what = place
    mine, theirs = names
    if mine is None or theirs is None:
        yield from _changed(where, what, mine or MISSING, theirs or MISSING)
        return
    x, y = a.tensors[mine], b.tensors[theirs]
    if x.data is not None and y.data is not None:
        yield from _changed(where, f"{what}, constant", show_shape(x.shape), show_shape(y.shape))
        yield from _changed(where, f"{what}, stored as", x.data.dtype, y.data.dtype)
    elif x.data is not None or y.data is not None or twins.get(mine) != theirs:
        yield Change(where=where, what=what, a=mine, b=theirs)


def _changed(where: str, what: str, a: object, b: object) -> Iterator[Change]:
    if a != b:
        yield Change(where=where, what=what, a=str(a), b=str(b))


def _constants(a: Graph, b: Graph, x: Node, y: Node) -> Iterator[tuple[str, Array, Array]]:
    """Yield operand and both values of each constant that two paired nodes have in one shape."""
    for position, (mine, theirs) in enumerate(zip(x.inputs, y.inputs, strict=False)):
        left, right = a.tensors[mine], b.tensors[theirs]
        if left.is_constant and right.is_constant and left.shape == right.shape:
            operands = x.op.operands
            yield operands[min(position, len(operands) - 1)].rstrip("?."), left.value(), right.value()


def _value_change(node: str, operand: str, a: Array, b: Array) -> ConstantChange | None:
    differing = (a != b) & ~(np.isnan(a) & np.isnan(b))  # a not-a-number equals another one here
    if not differing.any():
        return None
    left, right = a[differing].astype(np.float64), b[differing].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(left - right)
        noise = float(np.sum(error * error))
        signal = float(np.sum(np.square(a, dtype=np.float64)))
    return ConstantChange(
        node=node,
        operand=operand,
        elements=a.size,
        differing=int(differing.sum()),
        max_abs_difference=float(error.max()),
        snr_db=_decibels(signal, noise),
    )


def _decibels(signal: float, noise: float) -> float:
    is_defined = isfinite(signal) and isfinite(noise) and signal > 0 and noise > 0
    return 10 * log10(signal / noise) if is_defined else -inf
