"""Cut: a part of a network between tensors that somebody names."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from edgecnn.errors import UnknownNameError, UsageError
from edgecnn.graph import Graph, Node, Port, validate
from edgecnn.ports import nearest


def cut(graph: Graph, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Graph:
    """Return the part of a Graph from some tensors to others; what does not lead to an output goes.

    A name is that of a tensor, of a port, or of a node, which stands for what it gives. A port that stays keeps its
    name and layout; a new one is named after its tensor. The contract goes when the input changes; what it says of the
    output goes when the first output changes.

    Args:
        graph: Any.
        inputs: Names of the new inputs; none keeps those that are still needed.
        outputs: Names of the new outputs; none keeps all.

    Raises:
        UnknownNameError: With the nearest name.
        UsageError: When an output also needs an input that is not named, or an input leads to no output.
    """
    starts = _tensors(graph, inputs, graph.inputs)
    ends = _tensors(graph, outputs, graph.outputs) or tuple(port.tensor for port in graph.outputs)
    nodes, reached = _between(graph, starts, ends)
    _refuse_impossible(graph, starts, ends, reached)
    starts = starts or tuple(port.tensor for port in graph.inputs if port.tensor in reached)
    nodes = [_without_outputs(node, starts) for node in nodes]
    used = {*starts, *ends, *(name for node in nodes for name in (*node.inputs, *node.outputs))}
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in used}
    tensors |= {aside(name): replace(graph.tensors[name], name=aside(name)) for name in starts if aside(name) in used}
    part = replace(
        graph,
        nodes=tuple(nodes),
        tensors=tensors,
        inputs=_ports(starts, graph.inputs),
        outputs=_ports(ends, graph.outputs) if outputs else graph.outputs,
    )
    part = _with_contract(graph, part)
    validate(part)
    return part


def _tensors(graph: Graph, names: Iterable[str], ports: Sequence[Port]) -> tuple[str, ...]:
    """Return the tensors behind names, each once."""
    by_port = {port.name: (port.tensor,) for port in ports}
    by_node = {node.name: node.outputs for node in graph.nodes}
    found: dict[str, None] = {}
    for name in names:
        tensors = (name,) if name in graph.tensors else by_port.get(name) or by_node.get(name)
        if tensors is None:
            known = [n for n, tensor in graph.tensors.items() if not tensor.is_constant]
            raise UnknownNameError(f"{graph.name}: {nearest('tensor or node', name, [*by_port, *by_node, *known])}")
        if any(graph.tensors[tensor].is_constant for tensor in tensors):
            raise UsageError(f"{graph.name}: a tensor that is computed was wanted; '{name}' is a constant")
        found |= dict.fromkeys(tensors)
    return tuple(found)


def _between(graph: Graph, starts: Sequence[str], ends: Sequence[str]) -> tuple[list[Node], set[str]]:
    """Return the nodes that lead to the ends without passing a start, in order, and every tensor that is met."""
    reached, nodes = set(ends), []
    for node in reversed(graph.nodes):
        if any(name in reached and name not in starts for name in node.outputs):
            nodes.append(node)
            reached.update(node.inputs)
    return nodes[::-1], reached


def _refuse_impossible(graph: Graph, starts: Sequence[str], ends: Sequence[str], reached: set[str]) -> None:
    passed = [name for name in ends if name in (starts or {port.tensor for port in graph.inputs})]
    if passed:
        raise UsageError(f"{graph.name}: '{passed[0]}' is an input and was named as an output; nothing lies between")
    if not starts:
        return
    unused = [name for name in starts if name not in reached]
    if unused:
        raise UsageError(f"{graph.name}: the input '{unused[0]}' leads to no output. Leave it out, or name --outputs.")
    missing = [port.name for port in graph.inputs if port.tensor in reached and port.tensor not in starts]
    if missing:
        raise UsageError(
            f"{graph.name}: the outputs also need the input '{missing[0]}'. Name it in --inputs too, or name --outputs "
            "that do without."
        )


def _without_outputs(node: Node, starts: Sequence[str]) -> Node:
    """Return a node whose outputs that have become inputs of the part are named aside: only its others are needed."""
    return replace(node, outputs=tuple(aside(name) if name in starts else name for name in node.outputs))


def aside(tensor: str) -> str:
    """Return the name of what a node gives where an input of the part has taken the name."""
    return f"{tensor}/cut"


def _ports(tensors: Iterable[str], known: Sequence[Port]) -> tuple[Port, ...]:
    ports = {port.tensor: port for port in reversed(known)}
    return tuple(ports.get(name) or Port(name=name, tensor=name) for name in tensors)


def _with_contract(graph: Graph, part: Graph) -> Graph:
    contract = graph.contract
    if contract is None or part.inputs != graph.inputs:
        return replace(part, contract=None)
    if part.outputs[0] != graph.outputs[0]:
        return replace(part, contract=replace(contract, output="features", labels=()))
    return part
