"""The names of a Graph's outputs in a Keras model.

A Keras output has no name of its own but its layer's. Where a port is named otherwise than the node that gives it, the
writer puts a last layer Activation("linear") of that name behind it, and the reader takes it off again.
"""

from dataclasses import replace

from ._keras_network import node_name
from ._keras_topology import Call, Topology

MARK = "..port"
"""Behind a port's name in Keras where a node has the same one."""


def without_naming_layers(topology: Topology) -> tuple[Topology, tuple[str | None, ...]]:
    """Return the topology without the layers that only name an output, and each output's name or None."""
    used = {source.key for call in topology.calls for source in call.arguments.sources}
    naming = {(call.layer.name, call.index): call for call in topology.calls if _only_names(call)}
    naming = {key: call for key, call in naming.items() if key not in used}
    names = tuple(_port_name(source.layer) if source.key in naming else None for source in topology.outputs)
    outputs = tuple(
        naming[source.key].arguments.sources[0] if source.key in naming else source for source in topology.outputs
    )
    calls = tuple(call for call in topology.calls if (call.layer.name, call.index) not in naming)
    return replace(topology, calls=calls, outputs=outputs), names


def _only_names(call: Call) -> bool:
    layer = call.layer
    is_linear = layer.class_name == "Activation" and layer.config.get("activation") == "linear"
    return is_linear and len(layer.inbound) == 1 and len(call.arguments.sources) == 1


def _port_name(layer: str) -> str:
    return node_name(layer.removesuffix(MARK))
