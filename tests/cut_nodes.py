"""A quantized Graph node by node: each alone between quantized ports, and the integers that the golden feeds it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from edgecnn import ops
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Port
from tests.quantized_graphs import stored_values


def alone(graph: Graph, seed: int = 1) -> Iterator[tuple[Graph, Mapping[str, Array], Mapping[str, Array]]]:
    """Yield (one operator, its inputs, its outputs as stored) of every node but Quantize and Dequantize."""
    computed = [name for node in graph.nodes for name in node.outputs]
    fed = stored_values(graph, seed)
    found = dict(execute(graph, fed, fetch=computed, stored=True))
    found |= {port.tensor: fed[port.name] for port in graph.inputs}
    for node in graph.nodes:
        if isinstance(node.op, ops.Quantize | ops.Dequantize) and len(graph.nodes) > 1:
            continue
        inputs = [name for name in dict.fromkeys(node.inputs) if not graph.tensors[name].is_constant]
        names = (*node.inputs, *node.outputs)
        yield (
            replace(
                graph,
                name=node.name,
                nodes=(node,),
                tensors={name: graph.tensors[name] for name in names},
                inputs=tuple(Port(name=name, tensor=name) for name in inputs),
                outputs=tuple(Port(name=f"{name}/shown", tensor=name) for name in node.outputs),
            ),
            {name: found[name] for name in inputs},
            {f"{name}/shown": found[name] for name in node.outputs},
        )
