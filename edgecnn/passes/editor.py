"""A Graph under edit, and what a pass is.

Tensors keep their names exactly as long as they keep their values, so that a point of the network can be compared
before and after any pass: a folded convolution gives the tensor that the BatchNorm behind it gave.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgecnn.graph import Array, Graph, Node, Tensor, in_topological_order, infer_shapes, validate
from edgecnn.ops import Op


class GraphEditor:
    """A mutable copy of a Graph's nodes and tensors that knows producers and consumers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self.tensors: dict[str, Tensor] = dict(graph.tensors)
        self.output_ports = list(graph.outputs)
        self._producer = {name: node.name for node in graph.nodes for name in node.outputs}
        self._consumers: dict[str, list[str]] = {}
        for node in graph.nodes:
            self._register(node)

    @property
    def outputs(self) -> set[str]:
        """The tensors that output ports show."""
        return {port.tensor for port in self.output_ports}

    def producer(self, tensor: str) -> Node | None:
        """Return the node that gives a tensor, or None for inputs and constants."""
        return self.nodes.get(self._producer.get(tensor, ""))

    def consumers(self, tensor: str) -> list[Node]:
        """Return the nodes that take a tensor."""
        return [self.nodes[name] for name in dict.fromkeys(self._consumers.get(tensor, ()))]

    def only_consumer(self, tensor: str) -> Node | None:
        """Return the single taker of a tensor, or None when there are more or it is a graph output."""
        takers = self.consumers(tensor)
        return takers[0] if len(takers) == 1 and tensor not in self.outputs else None

    def constant(self, node: Node, operand: str) -> Tensor | None:
        """Return the constant bound to an operand, or None where it is left out or computed."""
        name = node.operand(operand)
        tensor = self.tensors[name] if name else None
        return tensor if tensor is not None and tensor.is_constant else None

    def has_constants(self, node: Node) -> bool:
        """Tell whether everything that a node takes besides its first input is constant."""
        return all(self.tensors[name].is_constant for name in node.inputs[1:])

    def put(self, node: Node) -> None:
        """Add a node, or replace the one of the same name; its output tensors are made where they are new."""
        if node.name in self.nodes:
            self._forget(self.nodes[node.name])
        self.nodes[node.name] = node
        self._register(node)
        shapes = infer_shapes(node, tuple(self.tensors[name].shape for name in node.inputs))
        for name, shape in zip(node.outputs, shapes, strict=True):
            self._producer[name] = node.name
            dtype = node.op.output_dtype([self.tensors[each].dtype for each in node.inputs])
            before = self.tensors.get(name)
            quantization = None if before is None else before.quantization
            self.tensors[name] = Tensor(name=name, shape=shape, dtype=dtype, quantization=quantization)

    def remove(self, node: Node) -> None:
        """Remove a node; its outputs must be produced or used by nothing any more."""
        self._forget(self.nodes.pop(node.name))

    def prune(self, node: Node) -> None:
        """Remove a node, and what only it needed, where neither a node nor an output port takes what it gives."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node.name in self.nodes and not any(self._is_needed(name) for name in node.outputs):
                before = [self.producer(name) for name in node.inputs]
                self.remove(node)
                waiting += [each for each in before if each is not None]

    def redirect(self, old: str, new: str) -> None:
        """Let every taker of a tensor take another one."""
        for node in self.consumers(old):
            self.put(replace(node, inputs=tuple(new if name == old else name for name in node.inputs)))

    def free_name(self, name: str) -> str:
        """Return a name that starts with `name` and that no tensor or node has."""
        free, number = name, 1
        while free in self.tensors or free in self.nodes:
            number += 1
            free = f"{name}_{number}"
        return free

    def add_constant(self, name: str, data: Array, *, dtype: str | None = None) -> str:
        """Add a constant under a free name that starts with `name`, and return that name.

        Args:
            name: What its name should start with.
            data: As stored.
            dtype: The type that the arithmetic sees, where it is not that of the data.
        """
        free = self.free_name(name)
        self.tensors[free] = Tensor(name=free, shape=data.shape, dtype=dtype or str(data.dtype), data=data)
        return free

    def finish(self) -> Graph:
        """Return the validated Graph, without the tensors that nothing uses any more."""
        inputs = {port.tensor for port in self.graph.inputs}
        constants = {name for name, tensor in self.tensors.items() if tensor.is_constant}
        nodes = in_topological_order(self.nodes.values(), inputs | constants)
        used = inputs | self.outputs | {name for node in nodes for name in (*node.inputs, *node.outputs)}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        graph = replace(self.graph, nodes=nodes, tensors=tensors, outputs=tuple(self.output_ports))
        validate(graph)
        return graph

    def _is_needed(self, tensor: str) -> bool:
        return bool(self._consumers.get(tensor)) or tensor in self.outputs

    def _register(self, node: Node) -> None:
        for name in node.inputs:
            self._consumers.setdefault(name, []).append(node.name)

    def _forget(self, node: Node) -> None:
        for name in node.inputs:
            self._consumers[name].remove(node.name)
        for name in node.outputs:
            if self._producer.get(name) == node.name:
                del self._producer[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class PassResult:
    """What a pass did.

    Attributes:
        graph: The new Graph.
        applied: Names of the nodes that it rewrote.
        refused: (node, reason) for each node that has the pattern but may not be rewritten.
    """

    graph: Graph
    applied: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One rewrite.

    Attributes:
        name: Its file's name.
        match: Tells whether a node is the anchor of the pattern.
        check: Returns why a match may not be rewritten, or None.
        rewrite: Changes the editor for a match that passed the check.
    """

    name: str
    match: Callable[[GraphEditor, Node], bool]
    check: Callable[[GraphEditor, Node], str | None]
    rewrite: Callable[[GraphEditor, Node], None]

    def __call__(self, graph: Graph) -> PassResult:
        """Apply the rewrite wherever it may be applied, once through in topological order."""
        editor, applied, refused = GraphEditor(graph), [], []
        for name in list(editor.nodes):
            node = editor.nodes.get(name)
            if node is None or not self.match(editor, node):
                continue
            reason = self.check(editor, node)
            if reason is None:
                self.rewrite(editor, node)
                applied.append(name)
            else:
                refused.append((name, reason))
        result = editor.finish() if applied else graph
        return PassResult(graph=result, applied=tuple(applied), refused=tuple(refused))


@dataclass(frozen=True, kw_only=True, slots=True)
class WholePass:
    """A rewrite that sees the whole Graph at once.

    Attributes:
        name: Its file's name.
        apply: Returns the new Graph, what was rewritten and what may not be.
    """

    name: str
    apply: Callable[[Graph], PassResult]

    def __call__(self, graph: Graph) -> PassResult:
        """Apply the rewrite."""
        return self.apply(graph)


def absorb(editor: GraphEditor, taker: Node, into: Node, op: Op, inputs: tuple[str, ...]) -> None:
    """Let the node `into` do the work of the `taker` behind it: new operator and operands, the taker's output."""
    editor.remove(taker)
    editor.put(replace(into, op=op, inputs=inputs, outputs=taker.outputs))
