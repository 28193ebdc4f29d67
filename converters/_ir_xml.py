"""OpenVINO IR as text and bytes: layers to XML, constants to the .bin beside it.

The XML is written by hand, so that the same Graph gives the same bytes and no package is needed. What OpenVINO itself
saves was the model; its reader infers shapes anew, people and Netron read the ones written here.
Source: OpenVINO documentation, Intermediate Representation; openvinotoolkit/openvino, src/core/src/xml_util.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import BinaryIO, NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np

from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array
from edgecnn.shapes import Shape

IR_VERSION = 11
ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register; a memory-mapped constant needs no copy."""
ELEMENTS = {
    "float32": "f32",
    "float16": "f16",
    "float64": "f64",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint8": "u8",
    "bool": "boolean",
}
"""NumPy's name of a type -> OpenVINO's."""

PRECISIONS = {
    **{"f64": "FP64", "f32": "FP32", "f16": "FP16", "i64": "I64", "i32": "I32", "i16": "I16", "i8": "I8", "u8": "U8"},
    "boolean": "BOOL",
}
"""Element type of a value -> how a port spells it."""

OPSETS = {
    **{"Swish": 4, "HSwish": 4, "SoftPlus": 4, "Interpolate": 4, "HSigmoid": 5, "Round": 5, "MVN": 6, "Gelu": 7},
    "TopK": 11,
}
"""Layer type -> the earliest operation set that has it with the inputs written here; every other is of the first.
Source: OpenVINO documentation, Available Operation Sets."""

FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped. Source: W3C, Extensible Markup Language 1.0, section 2.2, Char."""


def element(name: str, dtype: str) -> str:
    """Return OpenVINO's name of a type.

    Raises:
        UnsupportedError: When it has none here.
    """
    if dtype not in ELEMENTS:
        raise UnsupportedError(f"{name}: one of {', '.join(ELEMENTS)} was wanted; got {dtype}. Choose another format.")
    return ELEMENTS[dtype]


def attribute(value: object) -> str:
    """Return an attribute as the IR spells it."""
    if isinstance(value, tuple):
        return ",".join("?" if each is None else str(each) for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


class Value(NamedTuple):
    """One output of a layer.

    Attributes:
        layer: Number of the layer.
        port: Number of the port: inputs are counted first.
        element: Element type, a key of PRECISIONS.
        dims: Shape as the file stores it; None is a symbolic batch.
    """

    layer: int
    port: int
    element: str
    dims: Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer of the file; its number is its place in the list.

    Attributes:
        kind: Type, as its operation set (OPSETS) names it.
        name: What a person sees.
        data: Attributes as text.
        inputs: In port order.
        outputs: In port order; none for a Result.
        layout: Of a Parameter, such as "[N,C,H,W]"; empty where it is not an image.
        is_decompression: Marks a Convert as how a constant is stored, which the runtime then undoes once, at loading.
    """

    kind: str
    name: str
    data: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    layout: str = ""
    is_decompression: bool = False


class Weights:
    """The .bin: aligned constants, equal bytes once."""

    def __init__(self) -> None:
        self._chunks: list[tuple[int, Array]] = []
        self._offsets: dict[bytes, int] = {}
        self._size_bytes = 0

    def add(self, data: Array) -> int:
        """Return the offset in bytes of an array, whatever its memory order."""
        key = hashlib.sha256(np.asarray(data, order="C").data).digest()
        if key not in self._offsets:
            offset = -(-self._size_bytes // ALIGNMENT) * ALIGNMENT
            self._offsets[key] = offset
            self._chunks.append((offset, data))
            self._size_bytes = offset + data.nbytes
        return self._offsets[key]

    def write(self, file: BinaryIO) -> None:
        """Write all constants, zeros between them."""
        for offset, data in self._chunks:
            file.write(bytes(offset - file.tell()))
            file.write(np.asarray(data, order="C").data)


def document(
    name: str,
    layers: Sequence[Layer],
    tensor_names: Mapping[Value, str],
    info: Mapping[str, str],
    options: Mapping[str, str],
) -> str:
    """Return the XML of a model.

    Args:
        name: Of the model.
        layers: In topological order.
        tensor_names: Output of a layer -> its name, by which callers and tools find it.
        info: Key (an XML name) -> text in the model's rt_info.
        options: Property of the runtime -> its value, where nobody sets another when the model is compiled.

    Raises:
        UnsupportedError: When a name holds a character that XML does not know.
    """
    lines = chain(
        ['<?xml version="1.0"?>', f'<net name={quoteattr(name)} version="{IR_VERSION}">', "<layers>"],
        chain.from_iterable(_layer(number, layer, tensor_names) for number, layer in enumerate(layers)),
        ["</layers>", "<edges>"],
        (_edge(value, number, port) for number, layer in enumerate(layers) for port, value in enumerate(layer.inputs)),
        ["</edges>", "<rt_info>"],
        _entries(info),
        ["<runtime_options>", *_entries(options), "</runtime_options>"] if options else [],
        ["</rt_info>", "</net>", ""],
    )
    text = "\n".join(lines)
    wrong = FORBIDDEN.search(text)
    if wrong:
        around = text[max(0, wrong.start() - 40) : wrong.end()]
        raise UnsupportedError(f"{name}: names of characters that XML holds were wanted; got {around!r}. Rename it.")
    return text


def _entries(info: Mapping[str, str]) -> Iterable[str]:
    return (f"<{key} value={quoteattr(text)} />" for key, text in info.items())


def _layer(number: int, layer: Layer, tensor_names: Mapping[Value, str]) -> Iterable[str]:
    version = f"opset{OPSETS.get(layer.kind, 1)}"
    yield f'<layer id="{number}" name={quoteattr(layer.name)} type="{layer.kind}" version="{version}">'
    if layer.data:
        yield f"<data {' '.join(f'{key}={quoteattr(text)}' for key, text in layer.data.items())} />"
    if layer.is_decompression:
        yield '<rt_info><attribute name="decompression" version="0" /></rt_info>'
    if layer.inputs:
        yield "<input>"
        yield from (_port(port, value) for port, value in enumerate(layer.inputs))
        yield "</input>"
    if layer.outputs:
        ports = (_port(value.port, value, tensor_names.get(value), layer.layout) for value in layer.outputs)
        yield f"<output>{''.join(ports)}</output>"
    yield "</layer>"


def _port(number: int, value: Value, tensor_name: str | None = None, layout: str = "") -> str:
    names = "" if tensor_name is None else " names=" + quoteattr(tensor_name.replace(",", "\\,"))
    dims = "".join(f"<dim>{-1 if size is None else size}</dim>" for size in value.dims)
    mark = f'<rt_info><attribute name="layout" version="0" layout="{layout}" /></rt_info>' if layout else ""
    return f'<port id="{number}" precision="{PRECISIONS[value.element]}"{names}>{dims}{mark}</port>'


def _edge(value: Value, layer: int, port: int) -> str:
    return f'<edge from-layer="{value.layer}" from-port="{value.port}" to-layer="{layer}" to-port="{port}" />'
