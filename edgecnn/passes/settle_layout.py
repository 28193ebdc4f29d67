"""Decide once in which order each tensor is held: Transposes are pushed, cancelled, absorbed into constants, or kept.

A file in channels-first order becomes a Graph with a Transpose before and after each convolution. One walk in
topological order removes them: a tensor is known by what is *held* and by the order that gives its value,

    value = transpose(held, order)

A Transpose changes the order and nothing else; an operator that works in any order of axes takes what is held, its
attributes turned (`layout_rules`); constants are turned offline; a flatten that only dense layers read reorders the
rows of their kernels. Where an operator insists on its own order, the Transpose is written, once for each tensor, and
as a Reshape where it moves only axes of size 1. What is left is counted and said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgecnn.contract import Layout
from edgecnn.errors import GraphError
from edgecnn.graph import Array, Graph, Node, Port, Tensor, infer_shapes, validate
from edgecnn.ops import Op, Reshape, Transpose
from edgecnn.passes.axis_order import Order, channels_first, identity, inverse, turned
from edgecnn.passes.editor import PassResult, WholePass
from edgecnn.passes.layout_rules import FOLLOWERS, RULES, Rule, Turned
from edgecnn.quantization.axes import moved_scales, picked_scales, turned_scales
from edgecnn.quantization.parameters import Quantization
from edgecnn.shapes import Shape

IMAGE_RANK = 4
"""Ports of this rank or more may be pictures, which formats show in their own layout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A value as it is held: value = transpose(held, order)."""

    held: str
    order: Order


class Settler:
    """Walks a Graph and writes its nodes again, each in the order in which its input is held."""

    def __init__(
        self,
        graph: Graph,
        rules: Mapping[type[Op], Rule] = RULES,
        *,
        first: tuple[type[Op], ...] = (),
        is_pass: bool = False,
    ) -> None:
        """Start at the inputs.

        Args:
            graph: To write again.
            rules: Operator -> how it is written over what is held.
            first: Operators whose rule holds the image channels first.
            is_pass: Whether a tensor whose order changes must change its name, as a pass promises.
        """
        self.graph = graph
        self.rules = rules
        self.first = first
        self.is_pass = is_pass
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.takers: dict[str, list[Node]] = {}
        self.shuffled: dict[str, Array] = {}
        self.removed: list[str] = []
        self.constants = {name: tensor for name, tensor in graph.tensors.items() if tensor.data is not None}
        self._views: dict[str, View] = {}
        self._turned: dict[tuple[str, Order], str] = {}
        self._names = {node.name for node in graph.nodes}
        for node in graph.nodes:
            for name in node.inputs:
                self.takers.setdefault(name, []).append(node)

    def open(self, tensor: str, order: Order) -> None:
        """State an input: what is fed has the axes that `order` turns into the tensor's own."""
        whole = self.graph.tensors[tensor]
        self.tensors[tensor] = replace(whole, shape=turned(whole.shape, inverse(order)))
        self._views[tensor] = View(held=tensor, order=order)

    def walk(self) -> None:
        """Write every node."""
        for node in self.graph.nodes:
            if isinstance(node.op, Transpose) and self._keeps_scale(node):
                self._pass_by(node, node.op.permutation)
                continue
            rule = self.rules.get(type(node.op))
            found = rule(self, node) if rule else None
            self._write(node, found or self._as_it_is(node))

    def _pass_by(self, node: Node, permutation: Order) -> None:
        """Leave a Transpose out: what is held stays, its order changes; a constant is turned."""
        self.removed.append(node.name)
        constant, view = self.constants.get(node.inputs[0]), self.view(node.inputs[0])
        if constant is None or constant.data is None:
            self._views[node.output] = View(held=view.held, order=turned(view.order, permutation))
        else:
            data = constant.data.transpose(permutation)
            scales = turned_scales(constant.quantization, permutation)
            self.constants[node.output] = replace(
                constant, name=node.output, data=data, shape=data.shape, quantization=scales
            )

    def _keeps_scale(self, node: Node) -> bool:
        """Tell whether what goes in and what comes out are the same integers, or numbers."""
        before, after = (self.graph.tensors[name].quantization for name in (node.inputs[0], node.output))
        return before == after or (before is not None and before.axis is not None)

    def shape(self, tensor: str) -> Shape:
        """Return the shape of a value in its own order."""
        return self.graph.tensors[tensor].shape

    def is_constant(self, tensor: str) -> bool:
        """Tell whether a value is a constant, or one that was turned."""
        return tensor in self.constants

    def view(self, tensor: str) -> View:
        """Return how a value is held; a constant is held as it is."""
        if tensor not in self._views:
            self._views[tensor] = View(held=tensor, order=identity(len(self.shape(tensor))))
        return self._views[tensor]

    def held_as(self, tensor: str, order: Order) -> str:
        """Return a tensor from which `order` gives the value; a Transpose is written where there is none yet."""
        if tensor in self.constants:
            return self.constant(tensor, inverse(order))
        view = self.view(tensor)
        if view.order == order:
            return view.held
        if (tensor, order) not in self._turned:
            self._turned[tensor, order] = self._turn(tensor, view, turned(view.order, inverse(order)))
        return self._turned[tensor, order]

    def constant(self, name: str, permutation: Order) -> str:
        """Return a constant with its axes permuted."""
        if (name, permutation) not in self._turned:
            whole = self.constants[name]
            scales = turned_scales(whole.quantization, permutation)
            self._turned[name, permutation] = self.add_constant(name, value(whole).transpose(permutation), scales)
        return self._turned[name, permutation]

    def broadcast(self, name: str, order: Order) -> str:
        """Return a constant of any rank as it broadcasts to a value that is held in this order."""
        rank = len(self.constants[name].shape)
        if order == identity(len(order)) or not rank:
            return self.constant(name, identity(rank))
        key = (name, (-1, *order))
        if key not in self._turned:
            data, missing = value(self.constants[name]), len(order) - rank
            data = data.reshape((1,) * missing + data.shape).transpose(inverse(order))
            leading = next((axis for axis, size in enumerate(data.shape) if size != 1), data.ndim - 1)
            scales = turned_scales(moved_scales(self.constants[name].quantization, missing), inverse(order))
            self._turned[key] = self.add_constant(
                name, data.reshape(data.shape[leading:]), moved_scales(scales, -leading)
            )
        return self._turned[key]

    def shuffled_rows(self, name: str, places: Array) -> str:
        """Return a constant with its rows in another order."""
        whole = self.constants[name]
        return self.add_constant(name, value(whole)[places], picked_scales(whole.quantization, places))

    def add_constant(self, name: str, data: Array, scales: Quantization | None) -> str:
        """Add a constant made of another one, under its name where that is free."""
        free = name if name not in self.tensors else self._free(f"{name}/turned")
        self.tensors[free] = replace(self.constants[name], name=free, data=data, shape=data.shape, quantization=scales)
        return free

    def finish(self, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> Graph:
        """Return the validated Graph."""
        graph = replace(self.graph, nodes=tuple(self.nodes), tensors=self.tensors, inputs=inputs, outputs=outputs)
        validate(graph)
        return graph

    def _as_it_is(self, node: Node) -> Turned:
        inputs = tuple(self.held_as(name, identity(len(self.shape(name)))) for name in node.inputs)
        return Turned(op=node.op, inputs=inputs)

    def _write(self, node: Node, found: Turned) -> None:
        names = [self._name_of(name, found.order) for name in node.outputs]
        written = replace(node, op=found.op, inputs=found.inputs, outputs=tuple(names))
        shapes = infer_shapes(written, tuple(self.tensors[name].shape for name in written.inputs))
        self.nodes.append(written)
        for value, name, shape in zip(node.outputs, names, shapes, strict=True):
            self.tensors[name] = replace(self.graph.tensors[value], name=name, shape=shape)
            self._views[value] = View(held=name, order=found.order or identity(len(shape)))

    def _name_of(self, tensor: str, order: Order | None) -> str:
        is_same = (order is None or order == identity(len(order))) and tensor not in self.shuffled
        return tensor if is_same or not self.is_pass else self._free(f"{tensor}/held")

    def _turn(self, tensor: str, view: View, permutation: Order) -> str:
        """Write the Transpose of what is held, or the Reshape that does the same."""
        source = self.tensors[view.held]
        name, shape = self._free(f"{tensor}/turned"), turned(source.shape, permutation)
        moved = [axis for axis in permutation if source.shape[axis] != 1]
        op: Op = Reshape(shape=shape) if moved == sorted(moved) else Transpose(permutation=permutation)
        self.nodes.append(Node(name=name, op=op, inputs=(view.held,), outputs=(name,)))
        self.tensors[name] = replace(source, name=name, shape=shape)
        return name

    def _free(self, name: str) -> str:
        while name in self.tensors or name in self.graph.tensors or name in self._names:
            name += "_"
        return name


def settle_layout(graph: Graph, default: Layout) -> Graph:
    """Return the Graph with as few Transposes as its operators allow, and with the layouts of its ports.

    Args:
        graph: As a reader made it: ports in the file's own order of axes, a Transpose before and after each operator
            whose own order is another one.
        default: The layout that the file's format gives pictures; a port that has it gets the layout None, one that
            deviates is named, so that it survives into every format.
    """
    settler = Settler(graph)
    inputs = []
    for port in graph.inputs:
        is_first = _is_channels_first(settler.takers, port.tensor, graph.tensors)
        rank = len(graph.tensors[port.tensor].shape)
        settler.open(port.tensor, channels_first(rank) if is_first else identity(rank))
        inputs.append(replace(port, layout=_named(is_first, rank, default)))
    settler.walk()
    return settler.finish(tuple(inputs), tuple(_output(settler, port, default) for port in graph.outputs))


def push_transposes(graph: Graph) -> PassResult:
    """Settle the Transposes of a Graph whose ports are settled already; what stays is refused with a reason."""
    if not any(isinstance(node.op, Transpose) for node in graph.nodes):
        return PassResult(graph=graph, applied=(), refused=())
    settler = Settler(graph, is_pass=True)
    for port in graph.inputs:
        settler.open(port.tensor, identity(len(graph.tensors[port.tensor].shape)))
    settler.walk()
    outputs = tuple(replace(port, tensor=settler.held_as(port.tensor, _own(settler, port))) for port in graph.outputs)
    settled = settler.finish(graph.inputs, outputs)
    if settled.kinds()["Transpose"] == graph.kinds()["Transpose"]:
        settled = graph
    takers = {name: node for node in reversed(settled.nodes) for name in node.inputs}
    left = [node for node in settled.nodes if isinstance(node.op, Transpose)]
    refused = tuple((node.name, _reason(takers.get(node.output))) for node in left)
    return PassResult(graph=settled, applied=tuple(settler.removed[len(left) :]), refused=refused)


def value(tensor: Tensor) -> Array:
    """Return the data of a constant as they are stored."""
    if tensor.data is None:
        raise GraphError(f"{tensor.name}: a constant was wanted; this tensor is computed")
    return tensor.data


def _own(settler: Settler, port: Port) -> Order:
    return identity(len(settler.shape(port.tensor)))


def _reason(taker: Node | None) -> str:
    return f"{taker.name} ({taker.kind}) needs this order of axes" if taker else "the graph's output has this order"


def _output(settler: Settler, port: Port, default: Layout) -> Port:
    view, rank = settler.view(port.tensor), len(settler.shape(port.tensor))
    is_first = rank >= IMAGE_RANK and view.order == channels_first(rank)
    held = settler.held_as(port.tensor, view.order if is_first else identity(rank))
    return replace(port, tensor=held, layout=_named(is_first, rank, default))


def _named(is_first: bool, rank: int, default: Layout) -> Layout | None:
    """Return what a port's layout is called: nothing where it is the format's own."""
    found: Layout = "NCHW" if is_first else "NHWC"
    return found if rank >= IMAGE_RANK and found != default else None


def _is_channels_first(takers: Mapping[str, list[Node]], tensor: str, tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether a picture's first Transpose turns it to channels last; one that turns it back says no."""
    rank = len(tensors[tensor].shape)
    waiting, seen = [tensor], {tensor}
    while waiting and rank >= IMAGE_RANK:
        for node in takers.get(waiting.pop(0), ()):
            if isinstance(node.op, Transpose):
                if node.op.permutation in (channels_first(rank), inverse(channels_first(rank))):
                    return node.op.permutation != channels_first(rank)
            elif isinstance(node.op, FOLLOWERS):
                waiting += [name for name in node.outputs if name not in seen and len(tensors[name].shape) == rank]
                seen.update(node.outputs)
    return False


PASS = WholePass(name="settle_layout", apply=push_transposes)
