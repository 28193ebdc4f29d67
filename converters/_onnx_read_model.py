"""An ONNX file as records: operators with their attributes, constants, and what goes in and out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array

from . import _onnx_messages as messages
from ._onnx_read_tensor import Folder, read_tensor
from ._protobuf import mapped, numbers, read_message

OLDEST = 9
"""Lowest opset of the default domain that is read."""

Dimension = int | None
"""A size, or None where the file leaves it open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """What a file states about a tensor.

    Attributes:
        name: Of the tensor.
        dtype: NumPy's name, or "" where it is unknown.
        shape: In the file's order, or None where it is unknown.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None


BRANCHES = {"If": ("then_branch", "else_branch")}
"""Operator -> its attributes that are subgraphs which are read; those of loops are not."""

DEEPEST = 8
"""Branches within branches: exporters write two or three."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """What one side of an If computes; it takes values of the graph around it by name.

    Attributes:
        outputs: Names of what it gives.
    """

    nodes: tuple["OnnxNode", ...]
    initializers: Mapping[str, Array]
    outputs: tuple[str, ...]

    @property
    def taken(self) -> set[str]:
        """The names that it takes from around it."""
        own = {*self.initializers, *(name for node in self.nodes for name in node.outputs)}
        return {*self.outputs, *(name for node in self.nodes for name in node.taken)} - own


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxNode:
    """One operator of a file; an empty input or output is one that is left out.

    Attributes:
        attributes: int, float, str, Array, Branch, or a tuple of the first three; None for what is not read (loops).
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What an error calls it."""
        return f"{self.op_type} '{self.name or next(iter(self.outputs), '')}'"

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The sides of an If."""
        return tuple(value for value in self.attributes.values() if isinstance(value, Branch))

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The tensors among its attributes, and the constants of its branches."""
        own = (value for value in self.attributes.values() if isinstance(value, np.ndarray))
        return (*own, *(value for branch in self.branches for value in branch.initializers.values()))

    @property
    def taken(self) -> tuple[str, ...]:
        """The names of everything that it takes, what its branches take included."""
        inside = {name for branch in self.branches for name in branch.taken}
        return (*(name for name in self.inputs if name), *sorted(inside.difference(self.inputs)))


def flat(nodes: Iterable[OnnxNode]) -> Iterator[OnnxNode]:
    """Yield operators and those of their branches."""
    for node in nodes:
        yield node
        for branch in node.branches:
            yield from flat(branch.nodes)


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxModel:
    """What is read of a file.

    Attributes:
        opset: Version of the default domain.
        inputs: Without those that are only the names of constants.
        stated: Name -> what the file states of inner tensors and outputs.
        metadata: Key -> text.
    """

    name: str
    opset: int
    nodes: tuple[OnnxNode, ...]
    initializers: Mapping[str, Array]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    stated: Mapping[str, Value]
    metadata: Mapping[str, str]


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata_props of a file.

    Raises:
        InputFileError: When it is no ONNX model.
    """
    try:
        return _metadata(_model(path)[0])
    except InputFileError as error:
        raise type(error)(f"{path}: {error}") from None


def read_model(path: Path) -> OnnxModel:
    """Read a file.

    Raises:
        InputFileError: When it is no ONNX model, or damaged.
        UnsupportedError: When it is older than opset 9.
    """
    try:
        model, graph = _model(path)
        opset = _opset(model)
        folder = Folder(path=path.parent)
        initializers = _unique(read_tensor(each, folder) for each in graph.get("initializer", []))
        if "sparse_initializer" in graph:
            raise UnsupportedError("dense constants were wanted; found sparse_initializer")
        outputs = tuple(_value(each) for each in graph["output"])
        inputs = tuple(_value(each) for each in graph.get("input", []))
        inner = [_value(each) for each in graph.get("value_info", [])]
        return OnnxModel(
            name=graph.get("name", ""),
            opset=opset,
            nodes=tuple(_node(each, folder) for each in graph.get("node", [])),
            initializers=initializers,
            inputs=tuple(value for value in inputs if value.name not in initializers),
            outputs=outputs,
            stated={value.name: value for value in (*inner, *outputs)},
            metadata=_metadata(model),
        )
    except InputFileError as error:
        raise type(error)(f"{path}: {error}") from None


def _model(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        model = read_message(mapped(path), messages.MODEL)
        graph = read_message(model.get("graph", memoryview(b"")), messages.GRAPH)
    except InputFileError as error:
        raise InputFileError(f"an ONNX model was wanted; the file cannot be decoded: {error}") from None
    if not model.get("ir_version") or not graph.get("output"):
        raise InputFileError("an ONNX model was wanted; the file holds no graph")
    return model, graph


def _metadata(model: dict[str, Any]) -> dict[str, str]:
    entries = [read_message(each, messages.ENTRY) for each in model.get("metadata_props", [])]
    return {entry.get("key", ""): entry.get("value", "") for entry in entries}


def _opset(model: dict[str, Any]) -> int:
    entries = [read_message(each, messages.OPERATOR_SET) for each in model.get("opset_import", [])]
    versions = {each.get("domain", "") or "ai.onnx": int(each.get("version", 0)) for each in entries}
    opset = versions.get("ai.onnx", 0)
    if opset < OLDEST:
        raise UnsupportedError(
            f"opset {OLDEST} or later was wanted; found {opset}. Convert it with onnx.version_converter."
        )
    return opset


def _unique(pairs: Iterable[tuple[str, Array]]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name, values in pairs:
        if name in found:
            raise InputFileError(f"two constants are named '{name}'")
        found[name] = values
    return found


def _value(data: memoryview) -> Value:
    found = read_message(data, messages.VALUE_INFO)
    name = found.get("name", "")
    kind = read_message(found.get("type", memoryview(b"")), messages.TYPE)
    if "tensor_type" not in kind:
        return Value(name=name, dtype="", shape=None)
    tensor = read_message(kind["tensor_type"], messages.TENSOR_TYPE)
    dtype = messages.DTYPES.get(tensor.get("elem_type", 0), "")
    shape = None
    if "shape" in tensor:
        dims = read_message(tensor["shape"], messages.SHAPE).get("dim", [])
        shape = tuple(_size(read_message(each, messages.DIMENSION)) for each in dims)
    return Value(name=name, dtype=dtype, shape=shape)


def _size(dimension: dict[str, Any]) -> Dimension:
    """Return a size; 0 and -1 are what exporters write for an open one."""
    size = int(dimension.get("dim_value", 0))
    return size if size > 0 else None


def _node(data: memoryview, folder: Folder, depth: int = 0) -> OnnxNode:
    found = read_message(data, messages.NODE)
    domain = found.get("domain", "")
    node = OnnxNode(
        name=found.get("name", ""),
        op_type=found.get("op_type", ""),
        domain="" if domain == "ai.onnx" else domain,
        inputs=tuple(found.get("input", [])),
        outputs=tuple(found.get("output", [])),
        attributes={},
    )
    try:
        fields = [read_message(each, messages.ATTRIBUTE) for each in found.get("attribute", [])]
        attributes = dict(_attribute(each, folder) for each in fields)
        for each in fields:
            if "g" in each and each.get("name", "") in BRANCHES.get(node.op_type, ()):
                attributes[each["name"]] = _branch(each["g"], folder, depth + 1)
    except InputFileError as error:
        raise type(error)(f"{node.label}: {error}") from None
    return replace(node, attributes=attributes)


def _branch(data: memoryview, folder: Folder, depth: int) -> Branch | None:
    """Return a side of an If, or None where it holds what is not read: only the other may be taken."""
    if depth > DEEPEST:
        raise InputFileError(f"at most {DEEPEST} branches within branches were wanted; found more")
    graph = read_message(data, messages.GRAPH)
    try:
        return Branch(
            nodes=tuple(_node(each, folder, depth) for each in graph.get("node", [])),
            initializers=_unique(read_tensor(each, folder) for each in graph.get("initializer", [])),
            outputs=tuple(_value(each).name for each in graph.get("output", [])),
        )
    except UnsupportedError:
        return None


def _attribute(found: dict[str, Any], folder: Folder) -> tuple[str, Any]:
    field = messages.ATTRIBUTE_FIELDS.get(found.get("type", 0))
    if field is None:
        field = next((each for each in messages.ATTRIBUTE_FIELDS.values() if each in found), "g")
    return found.get("name", ""), _attribute_value(field, found.get(field), folder)


def _attribute_value(field: str, value: Any, folder: Folder) -> Any:
    if field in ("floats", "ints"):
        return tuple(numbers(value or [], "float64" if field == "floats" else "int64").tolist())
    if field == "strings":
        return tuple(_text(each) for each in value or [])
    if field == "s":
        return _text(value or memoryview(b""))
    if field == "t" and value is not None:
        return read_tensor(value, folder)[1]
    if field in ("f", "i"):
        return value or 0
    return None


def _text(data: memoryview) -> str:
    return bytes(data).decode("utf-8", errors="replace")
