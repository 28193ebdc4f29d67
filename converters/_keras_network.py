"""A Keras configuration as nodes: every call of every layer, models inside models included.

An inner model's nodes are named "inner/...", so that it ends as a part of one flat Graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgecnn.builder import GraphBuilder
from edgecnn.errors import GraphError, InputFileError, ShapeError, UnsupportedError

from ._keras_arguments import Arguments, Source
from ._keras_call import LayerCall, LayerConfig
from ._keras_hdf5 import VariableFile
from ._keras_json import show
from ._keras_layers import FUNCTIONS, IDENTITIES, OPERATIONS, READERS, Reader
from ._keras_topology import MODELS, Call, LayerEntry, Location, Topology, read_topology

HOLDING_CODE = ("Lambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer")
"""Layers of Keras that carry or call code of their own."""

IN_TRAINING = ("CenterCrop", "Resizing", "Rescaling", "Normalization", *IDENTITIES)
"""Layers whose calls Keras records with training=True although it changes nothing at inference."""

DEEPEST, MOST_CALLS = 16, 50_000
"""Models inside one another, and layer calls altogether, beyond which a file is refused."""


def node_name(name: str) -> str:
    """Return the name of a Keras layer as ours.

    >>> node_name("block_3.expand")
    'block_3/expand'
    """
    return name.replace(".", "/")


@dataclass(kw_only=True, slots=True)
class Budget:
    """How many calls may still be read."""

    calls: int = MOST_CALLS


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """Where a model under reading stands.

    Attributes:
        where: The file, for errors.
        builder: Takes the nodes.
        weights: Holds the variables.
        prefix: Before the names of this model's nodes; it tells the inner model's calls apart.
        owner: Before the names of its constants, the same in every call.
        place: Of its variables.
        depth: Models around it.
    """

    where: str
    builder: GraphBuilder
    weights: VariableFile
    prefix: str = ""
    owner: str = ""
    place: Location = field(default_factory=Location)
    depth: int = 0
    constants: dict[str, tuple[str, ...]] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)


def read_network(scope: Scope, topology: Topology, fed: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Add every call's nodes; inputs first, in the model's order.

    Args:
        scope: Where the model stands.
        topology: The model.
        fed: What an inner model is called on; None adds inputs.

    Returns:
        The tensors of the model's outputs.
    """
    position = {name: index for index, name in enumerate(topology.inputs)}
    found = {call.layer.name for call in topology.calls if call.layer.class_name == "InputLayer"}
    if found != position.keys():
        raise InputFileError(f"{scope.where}: input_layers {sorted(found)} were wanted; found {sorted(position)}")
    if fed is not None and len(fed) != len(position):
        raise InputFileError(f"{scope.where}: {scope.owner} takes {len(position)} inputs; it is called on {len(fed)}")
    tensors: dict[tuple[str, int], tuple[str, ...]] = {}
    for call in sorted(topology.calls, key=lambda call: position.get(call.layer.name, len(position))):
        if fed is not None and call.layer.name in position:
            given: tuple[str, ...] = (fed[position[call.layer.name]],)
        else:
            given = _read_call(scope, call, tensors)
        tensors[call.layer.name, call.index] = given
    return tuple(_output(scope.where, tensors, source) for source in topology.outputs)


def _output(where: str, tensors: Mapping[tuple[str, int], tuple[str, ...]], source: Source) -> str:
    outputs = tensors[source.key]
    if source.output >= len(outputs):
        raise InputFileError(
            f"{where}: output {source.output} of layer '{source.layer}' is used; it has {len(outputs)}"
        )
    return outputs[source.output]


def _read_call(scope: Scope, call: Call, tensors: Mapping[tuple[str, int], tuple[str, ...]]) -> tuple[str, ...]:
    scope.budget.calls -= 1
    if scope.budget.calls < 0:
        raise UnsupportedError(f"{scope.where}: at most {MOST_CALLS} layer calls were wanted; found more")
    layer, own = call.layer, node_name(call.layer.name)
    where = f"{scope.where}: layer '{'.'.join((*scope.place.names, layer.name))}' ({layer.class_name})"
    name = f"{scope.prefix}{own}" if call.index == 0 else f"{scope.prefix}{own}/call_{call.index + 1}"
    place = scope.place.inside(group=layer.group, name=layer.name)
    inputs = tuple(_output(scope.where, tensors, source) for source in call.arguments.sources)
    if layer.class_name in MODELS:
        return _read_inner(scope, layer, inputs, name=name, place=place, owner=f"{scope.owner}{own}")
    layer_call = LayerCall(
        name=name,
        prefix=f"{scope.owner}{own}",
        layer=layer,
        place=place,
        config=LayerConfig(where=where, values=layer.config),
        builder=scope.builder,
        weights=scope.weights,
        inputs=inputs,
        arguments=call.arguments,
        constants=scope.constants,
    )
    reader = _reader(layer_call)
    try:
        found = reader(layer_call)
    except (ShapeError, GraphError) as error:
        raise InputFileError(f"{where}: {error}") from None
    return (found,) if isinstance(found, str) else found


def _read_inner(
    scope: Scope, layer: LayerEntry, inputs: tuple[str, ...], *, name: str, place: Location, owner: str
) -> tuple[str, ...]:
    if scope.depth == DEEPEST:
        raise UnsupportedError(f"{scope.where}: layer '{layer.name}': at most {DEEPEST} models in one another are read")
    inner = replace(scope, prefix=f"{name}/", owner=f"{owner}/", place=place, depth=scope.depth + 1)
    return read_network(inner, read_topology(f"{scope.where}: layer '{layer.name}'", layer.config), inputs)


def _reader(call: LayerCall) -> Reader:
    """Return the row of the layer table that reads a call, or refuse it by name."""
    layer, where = call.layer, call.config.where
    class_name = layer.class_name
    if class_name in HOLDING_CODE:
        raise UnsupportedError(
            f"{where}: it holds code, which is never executed. Replace it by the layers that it stands for."
        )
    if not layer.is_operation:  # whose dtype is an argument
        call.config.require_float32()
    if class_name == "TFOpLambda":
        function = layer.config.get("function")
        if isinstance(function, str) and function in FUNCTIONS:
            return OPERATIONS[FUNCTIONS[function]]
        raise UnsupportedError(f"{where}: the function {show(function)} is not read. Replace it by a layer of Keras.")
    table = OPERATIONS if layer.is_operation else READERS
    if class_name not in table:
        kind = "operation of keras.ops" if layer.is_operation else "layer class"
        raise UnsupportedError(f"{where}: this {kind} is not read. Replace it, or cut the model before it.")
    if not layer.is_operation:
        _require_tensors(where, class_name, call.arguments)
    return table[class_name]


def _require_tensors(where: str, class_name: str, arguments: Arguments) -> None:
    """Refuse a layer that is called on something else than tensors."""
    for value in arguments.positional:
        if not all(isinstance(each, Source) for each in (value if isinstance(value, tuple) else (value,))):
            raise UnsupportedError(f"{where}: it is called on {show(value)}; only outputs of other layers are read")
    for name, value in arguments.keywords.items():
        is_idle = name == "training" and class_name in IN_TRAINING
        if value is not None and value is not False and not is_idle:
            raise UnsupportedError(
                f"{where}: it is called with {name}={show(value)}; only tensors by position are read"
            )
