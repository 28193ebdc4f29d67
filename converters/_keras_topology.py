"""The topology in a Keras configuration: which layer is called on the outputs of which, in an order that can be built.

A Functional configuration lists layers with their inbound nodes (one per call); a Sequential one is a chain. Both
become a tuple of Call records. Source: Keras 3, keras/src/models/functional.py, get_config and deserialize_node.
"""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgecnn.errors import InputFileError, UnsupportedError

from ._keras_archive import group_name

MODELS = ("Functional", "Model", "Sequential")
"""Class names of models: the ones that are read at the top, and refused inside one another."""

Source = tuple[str, int]
"""(layer name, which of its calls)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerEntry:
    """One layer of the configuration.

    Attributes:
        name: As Keras calls it.
        class_name: Such as "Conv2D".
        config: Its constructor's arguments.
        group: Where its variables lie in the HDF5 member.
        inbound: For each call, what it is called on.
    """

    name: str
    class_name: str
    config: Mapping[str, object]
    group: str
    inbound: tuple[tuple[Source, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One application of a layer."""

    layer: LayerEntry
    index: int
    sources: tuple[Source, ...]


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
        UnsupportedError: When it is a custom model, has a custom or nested layer, or calls a layer with other arguments
            than tensors.
        InputFileError: When the configuration is damaged: a wrong type, an unknown layer, a cycle.
    """
    class_name = _text(where, model.get("class_name"), "class_name")
    if class_name not in MODELS or not _is_keras_own(model, class_name):
        raise UnsupportedError(
            f"{where}: a Functional or Sequential model was wanted; found the custom class '{class_name}'. "
            "Its code is never run; rebuild it as keras.Model(inputs, outputs)."
        )
    config = _object(where, model.get("config"), "config")
    name = _text(where, config.get("name", "model"), "name")
    rows = [_object(where, row, "a layer") for row in _array(where, config.get("layers"), "layers")]
    inputs: tuple[str, ...]
    outputs: tuple[Source, ...]
    if class_name == "Sequential":
        layers = _chain(where, rows, config)
        inputs, outputs = (layers[0].name,), ((layers[-1].name, 0),)
    else:
        layers = _entries(where, rows, [_inbound(where, row) for row in rows])
        inputs = tuple(layer for layer, _ in _histories(where, config.get("input_layers"), "input_layers"))
        outputs = tuple(_histories(where, config.get("output_layers"), "output_layers"))
    return Topology(name=name, calls=_ordered(where, layers, outputs), inputs=inputs, outputs=outputs)


def _chain(where: str, rows: list[Mapping[str, object]], config: Mapping[str, object]) -> list[LayerEntry]:
    """Return a Sequential model's layers, each called on the one before it."""
    if not rows or rows[0].get("class_name") != "InputLayer":
        shape = config.get("build_input_shape")
        if shape is None or not rows:
            raise UnsupportedError(
                f"{where}: a Sequential model with its input's shape was wanted. Build it before saving."
            )
        rows = [{"class_name": "InputLayer", "config": {"name": "input_layer", "batch_shape": shape}}, *rows]
    names = [_layer_name(where, row) for row in rows]
    return _entries(where, rows, [(), *((((name, 0),),) for name in names[:-1])])


def _entries(
    where: str, rows: Sequence[Mapping[str, object]], inbound: Sequence[tuple[tuple[Source, ...], ...]]
) -> list[LayerEntry]:
    entries, used, names = [], dict[str, int](), set[str]()
    for row, calls in zip(rows, inbound, strict=True):
        name, class_name = _layer_name(where, row), _text(where, row.get("class_name"), "class_name")
        if name in names:
            raise InputFileError(f"{where}: layer names that differ were wanted; found two layers '{name}'")
        names.add(name)
        if class_name in MODELS:
            raise UnsupportedError(
                f"{where}: layer '{name}' is a model inside the model ({class_name}), which is not read. "
                "Call its layers one by one in one keras.Model."
            )
        if not _is_keras_own(row, class_name):
            raise UnsupportedError(
                f"{where}: layer '{name}' is of the custom class '{row.get('registered_name') or class_name}', whose "
                "code is never run. Replace it by layers of Keras."
            )
        snake = group_name(class_name)
        used[snake] = used.get(snake, -1) + 1
        group = snake if not used[snake] else f"{snake}_{used[snake]}"
        config = _object(where, row.get("config"), f"config of layer '{name}'")
        entries.append(LayerEntry(name=name, class_name=class_name, config=config, group=group, inbound=calls or ((),)))
    return entries


def _ordered(where: str, layers: Sequence[LayerEntry], outputs: tuple[Source, ...]) -> tuple[Call, ...]:
    """Return every call after the calls that it depends on, keeping the file's order where it does so already."""
    calls = {
        (layer.name, index): Call(layer=layer, index=index, sources=sources)
        for layer in layers
        for index, sources in enumerate(layer.inbound)
    }
    done: dict[Source, Call] = {}
    open_calls: set[Source] = set()
    stack = [*reversed(outputs), *reversed(calls)]
    while stack:
        key = stack[-1]
        if key not in calls:
            raise InputFileError(f"{where}: call {key[1]} of layer '{key[0]}' is used, but there is no such call")
        waiting = [source for source in calls[key].sources if source not in done]
        if key in done or not waiting:
            done.setdefault(key, calls[key])
            open_calls.discard(stack.pop())
        elif key in open_calls:
            raise InputFileError(f"{where}: layers without a cycle were wanted; '{key[0]}' depends on itself")
        else:
            open_calls.add(key)
            stack.extend(reversed(waiting))
    return tuple(done.values())


def _inbound(where: str, row: Mapping[str, object]) -> tuple[tuple[Source, ...], ...]:
    where = f"{where}: layer '{_layer_name(where, row)}'"
    calls = []
    for node in _array(where, row.get("inbound_nodes"), "inbound_nodes"):
        if isinstance(node, list):  # Keras 2: [[layer, call, output, kwargs], ...]
            calls.append(tuple(_history(where, item, "inbound_nodes") for item in node))
            continue
        call = _object(where, node, "inbound_nodes")
        for name, value in _object(where, call.get("kwargs", {}), "kwargs").items():
            if value is not None and value is not False:
                raise UnsupportedError(
                    f"{where}: it is called with {name}={show(value)}; only tensors by position are read"
                )
        calls.append(tuple(_tensors(where, call.get("args"))))
    return tuple(calls)


def _tensors(where: str, arguments: object) -> Iterator[Source]:
    """Yield the tensors of a call's arguments: one, or a list or tuple of them."""
    stack = [arguments]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, dict) and item.get("class_name") == "__tuple__":
            stack.append(item.get("items"))
        elif isinstance(item, dict) and item.get("class_name") == "__keras_tensor__":
            config = _object(where, item.get("config"), "__keras_tensor__")
            yield _history(where, config.get("keras_history"), "keras_history")
        else:
            raise UnsupportedError(f"{where}: it is called on {show(item)}; only outputs of other layers are read")


def _histories(where: str, value: object, what: str) -> list[Source]:
    """Return input_layers or output_layers: one [layer, call, output], a list of them, or an object of them by name."""
    if isinstance(value, dict):
        value = list(value.values())
    rows = _array(where, value, what)
    if rows and isinstance(rows[0], str):
        rows = [rows]
    if not rows:
        raise InputFileError(f"{where}: {what} of at least one layer were wanted; found none")
    return [_history(where, row, what) for row in rows]


def _history(where: str, row: object, what: str) -> Source:
    if (
        not (isinstance(row, list) and len(row) >= 3 and isinstance(row[0], str))
        or row[2] != 0
        or type(row[1]) is not int
    ):
        raise InputFileError(f"{where}: {what} of [layer, call, 0] was wanted; found {show(row)}")
    return row[0], row[1]


def show(value: object) -> str:
    """Return a value of the file for an error message, cut short however large or deep it is."""
    return reprlib.repr(value)


def _is_keras_own(row: Mapping[str, object], class_name: str) -> bool:
    module = row.get("module", "keras")
    own = isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras")
    return own and row.get("registered_name") in (None, class_name)


def _layer_name(where: str, row: Mapping[str, object]) -> str:
    config = row.get("config")
    inner = config.get("name") if isinstance(config, dict) else None
    return _text(where, row.get("name", inner), "name of a layer")


def _text(where: str, value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputFileError(f"{where}: {what}: text was wanted; found {show(value)}")
    return value


def _object(where: str, value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InputFileError(f"{where}: {what}: a JSON object was wanted; found {show(value)}")
    return value


def _array(where: str, value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise InputFileError(f"{where}: {what}: a JSON array was wanted; found {show(value)}")
    return value
