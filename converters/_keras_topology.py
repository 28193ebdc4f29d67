"""The topology in a Keras configuration: which layer is called on the outputs of which, in an order that can be built.

A Functional configuration lists layers with their inbound nodes (one per call); a Sequential one is a chain. Both
become a tuple of Call records; a model inside a model is a layer whose configuration is again a topology. Source:
Keras 3, keras/src/models/functional.py, get_config and deserialize_node; Keras 2, keras/engine/functional.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgecnn.errors import InputFileError, UnsupportedError

from ._keras_archive import group_name
from ._keras_arguments import Arguments, Source, history, inbound_calls
from ._keras_json import json_array, json_object, json_text, show

MODELS = ("Functional", "Model", "Sequential")
"""Class names of models, at the top or inside one another."""

OPERATIONS = ("keras.src.ops.", "keras.ops")
"""Where the classes of keras.ops live: nodes without variables that stand among the layers."""


class Location(NamedTuple):
    """Where a layer's variables lie.

    Attributes:
        groups: In a .keras file: HDF5 groups below "layers", one per level of nesting.
        names: In an .h5 file: layer names, one per level of nesting.
    """

    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def inside(self, *, group: str, name: str) -> "Location":
        """Return the place of a layer of the model at this one."""
        return Location((*self.groups, group), (*self.names, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerEntry:
    """One layer or operation of the configuration.

    Attributes:
        name: As Keras calls it.
        class_name: Such as "Conv2D".
        config: Its constructor's arguments.
        group: Where its variables lie in the HDF5 member, within its model.
        inbound: The arguments of each call.
        is_operation: Whether it is of keras.ops.
    """

    name: str
    class_name: str
    config: Mapping[str, object]
    group: str
    inbound: tuple[Arguments, ...]
    is_operation: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One application of a layer."""

    layer: LayerEntry
    index: int
    arguments: Arguments


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """A network as its configuration tells it.

    Attributes:
        name: Of the model.
        calls: In an order in which sources come first.
        inputs: Names of the InputLayers, in the model's order.
        outputs: What the model returns.
    """

    name: str
    calls: tuple[Call, ...]
    inputs: tuple[str, ...]
    outputs: tuple[Source, ...]


def read_topology(where: str, model: Mapping[str, object]) -> Topology:
    """Read a model's configuration.

    Args:
        where: The file, for errors.
        model: {"class_name": "Functional" or "Sequential", "config": {...}, ...}.

    Raises:
        UnsupportedError: When it is a custom model, has a custom layer, or calls a layer with something unknown.
        InputFileError: When the configuration is damaged: a wrong type, an unknown layer, a cycle.
    """
    class_name = json_text(where, model.get("class_name"), "class_name")
    if class_name not in MODELS or not _is_keras_own(model, class_name):
        raise UnsupportedError(
            f"{where}: a Functional or Sequential model was wanted; found the custom class '{class_name}'. "
            "Its code is never run; rebuild it as keras.Model(inputs, outputs)."
        )
    config = model.get("config")
    if class_name == "Sequential" and isinstance(config, list):  # Keras 2 before 2.3
        config = {"layers": config}
    config = json_object(where, config, "config")
    name = json_text(where, config.get("name", "model"), "name")
    rows = [json_object(where, row, "a layer") for row in json_array(where, config.get("layers"), "layers")]
    inputs: tuple[str, ...]
    outputs: tuple[Source, ...]
    if class_name == "Sequential":
        layers = _chain(where, rows, config)
        inputs, outputs = (layers[0].name,), (Source(layer=layers[-1].name),)
    else:
        first = _first_calls(where, rows, in_outputs=False)
        inbound = [tuple(call.counted_from(first) for call in _inbound(where, row)) for row in rows]
        layers = _entries(where, rows, inbound)
        inputs = tuple(source.layer for source in _histories(where, config.get("input_layers"), "input_layers"))
        first = _first_calls(where, rows, in_outputs=True)
        outputs = _histories(where, config.get("output_layers"), "output_layers")
        outputs = tuple(source.counted_from(first) for source in outputs)
    return Topology(name=name, calls=_ordered(where, layers, outputs), inputs=inputs, outputs=outputs)


def _first_calls(where: str, rows: list[Mapping[str, object]], *, in_outputs: bool) -> Mapping[str, int]:
    """Return the number of the first call of each inner model.

    It is 1 where the model's making counts as call 0: everywhere with Keras 2 (whose inbound nodes are lists), and for
    Functional models in the outputs with Keras 3. Source: functional.py of both, functional_from_config.
    """
    nodes = [row.get("inbound_nodes") for row in rows]
    is_keras_2 = any(isinstance(each, list) and each and isinstance(each[0], list) for each in nodes)
    models = [row for row in rows if row.get("class_name") in MODELS]
    return {
        _layer_name(where, row): int(is_keras_2 or (in_outputs and row.get("class_name") != "Sequential"))
        for row in models
    }


def _chain(where: str, rows: list[Mapping[str, object]], config: Mapping[str, object]) -> list[LayerEntry]:
    """Return a Sequential model's layers, each called on the one before it."""
    if not rows or rows[0].get("class_name") != "InputLayer":
        shape = config.get("build_input_shape") or _first_shape(rows)
        if shape is None or not rows:
            raise UnsupportedError(
                f"{where}: a Sequential model with its input's shape was wanted. Build it before saving."
            )
        rows = [{"class_name": "InputLayer", "config": {"name": "input_layer", "batch_shape": shape}}, *rows]
    names = [_layer_name(where, row) for row in rows]
    return _entries(where, rows, [(), *((Arguments(positional=(Source(layer=name),)),) for name in names[:-1])])


def _first_shape(rows: list[Mapping[str, object]]) -> object:
    """Return the input's shape where the first layer states it: Keras 2's Conv2D(..., input_shape=...)."""
    config = rows[0].get("config") if rows else None
    return config.get("batch_input_shape") if isinstance(config, dict) else None


def _entries(
    where: str, rows: Sequence[Mapping[str, object]], inbound: Sequence[tuple[Arguments, ...]]
) -> list[LayerEntry]:
    entries, used, names = [], dict[str, int](), set[str]()
    for row, calls in zip(rows, inbound, strict=True):
        name, class_name = _layer_name(where, row), json_text(where, row.get("class_name"), "class_name")
        if name in names:
            raise InputFileError(f"{where}: layer names that differ were wanted; found two layers '{name}'")
        names.add(name)
        if not _is_keras_own(row, class_name):
            raise UnsupportedError(
                f"{where}: layer '{name}' is of the custom class '{row.get('registered_name') or class_name}', whose "
                "code is never run. Replace it by layers of Keras."
            )
        is_operation = str(row.get("module", "")).startswith(OPERATIONS)
        config = row.get("config") if class_name in MODELS else json_object(where, row.get("config"), f"config: {name}")
        entries.append(
            LayerEntry(
                name=name,
                class_name=class_name,
                config={"class_name": class_name, "config": config} if class_name in MODELS else dict(config),  # type: ignore[call-overload]
                group="" if is_operation else _numbered(used, class_name),
                inbound=calls or (Arguments(),),
                is_operation=is_operation,
            )
        )
    return entries


def _numbered(used: dict[str, int], class_name: str) -> str:
    snake = group_name(class_name)
    used[snake] = used.get(snake, -1) + 1
    return snake if not used[snake] else f"{snake}_{used[snake]}"


def _ordered(where: str, layers: Sequence[LayerEntry], outputs: tuple[Source, ...]) -> tuple[Call, ...]:
    """Return every call after the calls that it depends on, keeping the file's order where it does so already."""
    calls = {
        (layer.name, index): Call(layer=layer, index=index, arguments=arguments)
        for layer in layers
        for index, arguments in enumerate(layer.inbound)
    }
    done: dict[tuple[str, int], Call] = {}
    open_calls: set[tuple[str, int]] = set()
    stack = [*reversed([source.key for source in outputs]), *reversed(calls)]
    while stack:
        key = stack[-1]
        if key not in calls:
            raise InputFileError(f"{where}: call {key[1]} of layer '{key[0]}' is used, but there is no such call")
        waiting = [source.key for source in calls[key].arguments.sources if source.key not in done]
        if key in done or not waiting:
            done.setdefault(key, calls[key])
            open_calls.discard(stack.pop())
        elif key in open_calls:
            raise InputFileError(f"{where}: layers without a cycle were wanted; '{key[0]}' depends on itself")
        else:
            open_calls.add(key)
            stack.extend(reversed(waiting))
    return tuple(done.values())


def _inbound(where: str, row: Mapping[str, object]) -> tuple[Arguments, ...]:
    return inbound_calls(f"{where}: layer '{_layer_name(where, row)}'", row.get("inbound_nodes"))


def _histories(where: str, value: object, what: str) -> tuple[Source, ...]:
    """Return input_layers or output_layers: one [layer, call, output], a list of them, or an object of them by name."""
    if isinstance(value, dict):
        value = list(value.values())
    rows = json_array(where, value, what)
    if rows and isinstance(rows[0], str):
        rows = [rows]
    if not rows:
        raise InputFileError(f"{where}: {what} of at least one layer were wanted; found none")
    return tuple(history(where, row, what) for row in rows)


def _is_keras_own(row: Mapping[str, object], class_name: str) -> bool:
    module = row.get("module", "keras")
    own = isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras")
    return own and row.get("registered_name") in (None, class_name)


def _layer_name(where: str, row: Mapping[str, object]) -> str:
    config = row.get("config")
    inner = config.get("name") if isinstance(config, dict) else None
    return json_text(where, row.get("name", inner), f"name of a layer ({show(row.get('class_name'))})")
