"""Find expressions of operators in a Graph, and fuse what they find into one operator.

A pattern is a function: given a value, it gives every way in which the value is that expression. Operands that commute
match in any order; a product is taken apart through every association, so that x * (g / 6), (x * g) / 6 and
g * (0.1667 * x) are one pattern; an activation fused into a node counts as a node of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from math import inf, isclose
from typing import Any

from edgecnn.graph import Node
from edgecnn.ops import Add, Clip, Div, Maximum, Minimum, Mul, Neg, Op, Pow, ReLU, ReLU6
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.passes.value_range import RANGES
from edgecnn.shapes import Shape

TOLERANCE = 1e-4
"""Relative error of a constant that still counts as the number: printed with five digits, say."""

LARGEST_LIMIT = 3e38
"""A limit beyond this limits nothing: files write the largest float32 (3.4e38) where they mean none."""

LONGEST = 8
"""Nodes that one product is looked for through: a file may hold a chain of any length."""

COMMUTATIVE = (Add, Mul, Maximum, Minimum)

Value = str | Node
"""A tensor by name, or what a node gives before its fused activation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a pattern's names stand for.

    Attributes:
        tensors: Name in the pattern -> tensor.
        numbers: Name in the pattern -> value of a constant whose elements are all equal.
        nodes: Names of the nodes that the expression consists of.
    """

    tensors: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()


Pattern = Callable[[GraphEditor, Value, Found], Iterator[Found]]
"""(editor, value, what is known) -> each way in which the value fits, with what is known then."""


def leaf(name: str, *, is_constant: bool = False) -> Pattern:
    """Return the pattern of any tensor; the same name twice is the same tensor."""

    def find(editor: GraphEditor, value: Value, found: Found) -> Iterator[Found]:
        fits = isinstance(value, str) and (editor.tensors[value].is_constant or not is_constant)
        if isinstance(value, str) and fits and found.tensors.get(name, value) == value:
            yield replace(found, tensors={**found.tensors, name: value})

    return find


def number(wanted: float | str) -> Pattern:
    """Return the pattern of a constant with this value everywhere, or, given a name, with one value everywhere."""

    def find(editor: GraphEditor, value: Value, found: Found) -> Iterator[Found]:
        there = _number(editor, value)
        if there is not None:
            yield from _agree(wanted, there, found)

    return find


def apply(kind: type[Op], *operands: Pattern, when: Callable[[Any, Shape], bool] | None = None) -> Pattern:
    """Return the pattern of an operator over operands.

    Args:
        kind: The operator.
        operands: Patterns of its inputs.
        when: Tells from the operator and its output's shape whether it is the one that is meant.
    """

    def find(editor: GraphEditor, value: Value, found: Found) -> Iterator[Found]:
        node, op, inputs = _computed(editor, value)
        if node is None or not isinstance(op, kind) or len(inputs) != len(operands):
            return
        if when is None or when(op, editor.tensors[node.output].shape):
            for order in permutations(inputs) if isinstance(op, COMMUTATIVE) else (inputs,):
                yield from _fit(editor, operands, order, _with_nodes(found, {node.name}))

    return find


def either(*patterns: Pattern) -> Pattern:
    """Return the pattern of any of these."""

    def find(editor: GraphEditor, value: Value, found: Found) -> Iterator[Found]:
        for pattern in patterns:
            yield from pattern(editor, value, found)

    return find


def product(coefficient: float | str, *factors: Pattern) -> Pattern:
    """Return the pattern of a number (or, given a name, any number) times factors, in any order and association."""

    def find(editor: GraphEditor, value: Value, found: Found) -> Iterator[Found]:
        for there, values, nodes in _factors(editor, value, len(factors)):
            for agreed in _agree(coefficient, there, _with_nodes(found, nodes)):
                for order in permutations(values):
                    yield from _fit(editor, factors, order, agreed)

    return find


def clipped(inner: Pattern, low: float | str, high: float = inf) -> Pattern:
    """Return the pattern of min(max(inner, low), high): an activation, or Maximum and Minimum with constants."""

    def by_activation(editor: GraphEditor, value: Value, found: Found) -> Iterator[Found]:
        node, op, inputs = _computed(editor, value)
        if node is None or not isinstance(op, ReLU | ReLU6 | Clip):
            return
        lowest, highest = RANGES[type(op)](op)
        if (inf if highest > LARGEST_LIMIT else highest) == high:
            for agreed in _agree(low, lowest, _with_nodes(found, {node.name})):
                yield from inner(editor, inputs[0], agreed)

    if high == inf:
        return either(by_activation, apply(Maximum, inner, number(low)))
    return either(by_activation, apply(Minimum, clipped(inner, low), number(high)))


def fusion(
    *,
    name: str,
    roots: tuple[type[Op], ...],
    pattern: Pattern,
    make: Callable[[GraphEditor, Node, Found], Node],
    check: Callable[[GraphEditor, Found], str | None] | None = None,
) -> Pass:
    """Return the pass that puts one node, of the shape of the pattern's leaf "x", in place of an expression.

    Args:
        name: Its file's name.
        roots: Operators that give the expression's result: others are not looked at.
        pattern: The expression.
        make: Returns the node that gives the result instead; it may add constants.
        check: Returns another reason why the expression must stay, or None.
    """

    def find(editor: GraphEditor, node: Node) -> Found | None:
        return next(pattern(editor, node.output, Found()), None) if isinstance(node.op, roots) else None

    def refuse(editor: GraphEditor, node: Node) -> str | None:
        found = find(editor, node) or Found()
        inner = (editor.nodes[each].output for each in sorted(found.nodes - {node.name}))
        for tensor in inner:
            takers = {taker.name for taker in editor.consumers(tensor)}
            if tensor in editor.outputs or not takers <= found.nodes:
                return f"{tensor} inside it is used elsewhere too"
        if editor.tensors[found.tensors["x"]].shape != editor.tensors[node.output].shape:
            return "its constants broadcast the input to another shape"
        return check(editor, found) if check else None

    def rewrite(editor: GraphEditor, node: Node) -> None:
        found = find(editor, node)
        if found is not None:
            before = [editor.producer(tensor) for tensor in node.inputs]
            editor.put(make(editor, node, found))
            for each in before:
                if each is not None:
                    editor.prune(each)

    return Pass(name=name, match=lambda editor, node: find(editor, node) is not None, check=refuse, rewrite=rewrite)


def becomes(op: Op) -> Callable[[GraphEditor, Node, Found], Node]:
    """Return the `make` of a fusion into one operator of the leaf "x"."""

    def make(editor: GraphEditor, node: Node, found: Found) -> Node:
        return replace(node, op=op, inputs=(found.tensors["x"],))

    return make


def _computed(editor: GraphEditor, value: Value) -> tuple[Node | None, Op | None, Sequence[Value]]:
    """Return the node that gives a value, its last operator (its fused activation, where there is one), the inputs."""
    if isinstance(value, Node):
        return value, value.op, value.inputs
    node = editor.producer(value)
    if node is None or len(node.outputs) > 1:
        return None, None, ()
    fused = getattr(node.op, "activation", None)
    return (node, node.op, node.inputs) if fused is None else (node, fused, (node,))


def _number(editor: GraphEditor, value: Value) -> float | None:
    """Return the one value that a floating-point constant has everywhere, or None."""
    tensor = editor.tensors[value] if isinstance(value, str) else None
    if tensor is None or tensor.data is None or not tensor.data.size or tensor.data.dtype.kind != "f":
        return None
    first = tensor.data.flat[0]
    return float(first) if tensor.data.size == 1 or bool((tensor.data == first).all()) else None


def _agree(wanted: float | str, there: float, found: Found) -> Iterator[Found]:
    if isinstance(wanted, str):
        if isclose(found.numbers.get(wanted, there), there, rel_tol=TOLERANCE):
            yield replace(found, numbers={**found.numbers, wanted: there})
    elif isclose(wanted, there, rel_tol=TOLERANCE):
        yield found


def _fit(editor: GraphEditor, patterns: Sequence[Pattern], values: Sequence[Value], found: Found) -> Iterator[Found]:
    """Give each way in which every value fits the pattern at its place."""
    if not patterns:
        yield found
        return
    for each in patterns[0](editor, values[0], found):
        yield from _fit(editor, patterns[1:], values[1:], each)


def _with_nodes(found: Found, nodes: Iterable[str]) -> Found:
    return replace(found, nodes=found.nodes.union(nodes))


_Split = tuple[float, tuple[Value, ...], frozenset[str]]


def _factors(editor: GraphEditor, value: Value, count: int, reach: int = LONGEST) -> Iterator[_Split]:
    """Give each way to write a value as a number times `count` factors: (number, factors, nodes passed through)."""
    if count == 1:
        yield 1.0, (value,), frozenset()
    node, op, inputs = _computed(editor, value)
    if node is None or not isinstance(op, Mul | Div | Pow | Neg) or reach == 0:
        return
    for times, values, nodes in _opened(editor, op, inputs, count, reach - 1):
        yield times, values, nodes | {node.name}


def _opened(editor: GraphEditor, op: Op, inputs: Sequence[Value], count: int, reach: int) -> Iterator[_Split]:
    """Give the ways to write what an operator gives, from those to write its operands."""
    for scale, rest in _scales(editor, op, inputs):
        yield from ((times * scale, values, nodes) for times, values, nodes in _factors(editor, rest, count, reach))
    power = _number(editor, inputs[1]) if isinstance(op, Pow) else None
    if power in (2, 3) and count % power == 0:
        for times, values, nodes in _factors(editor, inputs[0], count // int(power), reach):
            yield times**power, values * int(power), nodes
    if isinstance(op, Mul):
        for left in range(1, count):
            for times, values, nodes in _factors(editor, inputs[0], left, reach):
                for others, more, passed in _factors(editor, inputs[1], count - left, reach):
                    yield times * others, values + more, nodes | passed


def _scales(editor: GraphEditor, op: Op, inputs: Sequence[Value]) -> Iterator[tuple[float, Value]]:
    """Give each way to see an operator as a number times an operand."""
    if isinstance(op, Neg):
        yield -1.0, inputs[0]
    elif isinstance(op, Div) and (divisor := _number(editor, inputs[1])):
        yield 1 / divisor, inputs[0]
    elif isinstance(op, Mul):
        for one, other in (inputs, inputs[::-1]):
            if (factor := _number(editor, one)) is not None:
                yield factor, other
