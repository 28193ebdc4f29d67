"""What a layer is called on: outputs of other layers, and for keras.ops also constants, slices and numbers.

Source: Keras 3, keras/src/models/functional.py, serialize_node, and keras/src/saving/serialization_lib.py; Keras 2,
keras/engine/node.py, Node.serialize.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array

from ._keras_json import json_array, json_object, show

INTEGERS = ("int32", "int64")
"""Types of a constant whose numbers float32 would round."""

DEEPEST = 8
"""Lists within lists that a call's arguments may have; the constant of an operation is not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One output of one call of a layer."""

    layer: str
    call: int = 0
    output: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """The call that it comes from."""
        return self.layer, self.call

    def counted_from(self, first: Mapping[str, int]) -> "Source":
        """Return the same with the layer's calls counted from that number instead of 0."""
        return replace(self, call=max(self.call - first.get(self.layer, 0), 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """The arguments of one call: Source, Array, slice, Ellipsis, number, text, bool, None, or tuples of them."""

    positional: tuple[object, ...] = ()
    keywords: Mapping[str, object] = field(default_factory=dict)

    def counted_from(self, first: Mapping[str, int]) -> "Arguments":
        """Return the same with the calls of the layers in `first` counted from that number instead of 0."""
        keywords = {name: _counted_from(value, first) for name, value in self.keywords.items()}
        return Arguments(positional=tuple(_counted_from(each, first) for each in self.positional), keywords=keywords)

    @property
    def sources(self) -> tuple[Source, ...]:
        """All outputs of other layers, in order."""
        return tuple(_sources((*self.positional, *self.keywords.values())))


def _counted_from(value: object, first: Mapping[str, int]) -> object:
    if isinstance(value, Source):
        return value.counted_from(first)
    return tuple(_counted_from(each, first) for each in value) if isinstance(value, tuple) else value


def _sources(value: object) -> Iterator[Source]:
    if isinstance(value, Source):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _sources(each)


def inbound_calls(where: str, nodes: object) -> tuple[Arguments, ...]:
    """Return the arguments of every call in a layer's inbound_nodes."""
    calls = []
    for node in json_array(where, nodes, "inbound_nodes"):
        if isinstance(node, list):
            calls.append(_keras_2_call(where, node))
            continue
        call = json_object(where, node, "inbound_nodes")
        keywords = json_object(where, call.get("kwargs", {}), "kwargs")
        positional = _value(where, call.get("args"), 0)
        calls.append(
            Arguments(
                positional=positional if isinstance(positional, tuple) else (positional,),
                keywords={name: _value(where, value, 0) for name, value in keywords.items()},
            )
        )
    return tuple(calls)


def _keras_2_call(where: str, node: list[object]) -> Arguments:
    """Return a call of Keras 2: [[layer, call, output, keywords], ...], or that one row alone."""
    rows = [node] if node and isinstance(node[0], str) else node
    keywords: dict[str, object] = {}
    for row in rows:
        if isinstance(row, list) and len(row) > 3:
            keywords |= {
                name: _keras_2_value(where, value) for name, value in json_object(where, row[3], "kwargs").items()
            }
    sources = tuple(history(where, row, "inbound_nodes") for row in rows)
    return Arguments(positional=sources, keywords=keywords)


def _keras_2_value(where: str, value: object) -> object:
    is_source = isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str)
    return history(where, value, "kwargs") if is_source else _value(where, value, 0)


def history(where: str, row: object, what: str) -> Source:
    """Return [layer, call, output] as a Source."""
    if (
        not (isinstance(row, list) and len(row) >= 3 and isinstance(row[0], str))
        or type(row[1]) is not int
        or type(row[2]) is not int
        or row[2] < 0
    ):
        raise InputFileError(f"{where}: {what} of [layer, call, output] was wanted; found {show(row)}")
    return Source(layer=row[0], call=row[1], output=row[2])


def _value(where: str, item: object, depth: int) -> object:
    if depth > DEEPEST:
        raise InputFileError(f"{where}: arguments of at most {DEEPEST} lists in one another were wanted; found more")
    if isinstance(item, list):
        return tuple(_value(where, each, depth + 1) for each in item)
    if not isinstance(item, dict):
        return item
    class_name = item.get("class_name")
    if not isinstance(class_name, str) or class_name not in TAGGED:
        raise UnsupportedError(f"{where}: it is called on {show(item)}; only outputs of other layers are read")
    if class_name == "__tuple__":
        return _value(where, item.get("items", item.get("value")), depth + 1)
    return TAGGED[class_name](where, json_object(where, item.get("config"), class_name))


def _tensor(where: str, config: Mapping[str, object]) -> Source:
    return history(where, config.get("keras_history"), "keras_history")


def _constant(where: str, config: Mapping[str, object]) -> Array:
    wanted = f"{where}: a constant of numbers was wanted; found"
    try:
        values = np.array(config.get("value"), dtype="int64" if config.get("dtype") in INTEGERS else "float32")
    except (ValueError, TypeError, OverflowError):
        raise InputFileError(f"{wanted} {show(config.get('value'))}") from None
    if values.ndim > DEEPEST:
        raise InputFileError(f"{wanted} {values.ndim} axes")
    return values


def _slice(where: str, config: Mapping[str, object]) -> slice:
    parts = [config.get(key) for key in ("start", "stop", "step")]
    if any(part is not None and type(part) is not int for part in parts):
        raise UnsupportedError(f"{where}: a slice with integers was wanted; found {show(parts)}")
    return slice(*parts)


TAGGED: Mapping[str, Callable[[str, Mapping[str, object]], object]] = {
    "__keras_tensor__": _tensor,
    "__numpy__": _constant,
    "__tensor__": _constant,
    "__slice__": _slice,
    "__ellipsis__": lambda where, config: ...,
    "__tuple__": lambda where, config: (),
}
"""Class name of a serialised argument -> its value."""
