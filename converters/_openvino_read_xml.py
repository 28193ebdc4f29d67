"""OpenVINO IR's XML, read within bounds into plain records; nothing is computed from it here.

The file is untrusted: it is parsed as a stream, a document type declaration (which is where entities would come from)
ends it, and only the elements of KEPT are kept; the bodies of loops and conditions are passed by.
Source: OpenVINO documentation, Intermediate Representation; openvinotoolkit/openvino, src/frontends/ir.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from edgecnn.errors import InputFileError
from edgecnn.shapes import Shape

LARGEST_XML_BYTES = 256 * 2**20
"""Of a file; MobileNet v2 takes 0.2 MB."""

DEEPEST = 100
"""Levels of elements; a layer's ports lie on the seventh."""

NUMBER = re.compile(r"-?[0-9]{1,18}")
SIZE = re.compile(r"[0-9]{1,9}")


@dataclass(kw_only=True, slots=True)
class IrPort:
    """One input or output of a layer as the file states it; filled while it is parsed.

    Attributes:
        precision: Such as "FP32".
        sizes: Text of its dimensions.
        names: Tensor names, escaped commas kept.
        layout: Such as "[N,C,H,W]", or empty.
    """

    precision: str
    names: str
    sizes: list[str] = field(default_factory=list)
    layout: str = ""

    @property
    def shape(self) -> Shape:
        """The dimensions; None where the file leaves one open (-1), or states none that a tensor could have."""
        return tuple(int(size) if SIZE.fullmatch(size) else None for size in self.sizes)

    @property
    def name(self) -> str:
        """The first tensor name, or nothing."""
        return re.split(r"(?<!\\),", self.names)[0].replace("\\,", ",")


@dataclass(kw_only=True, slots=True)
class IrLayer:
    """One layer as the file states it; filled while it is parsed."""

    number: int
    name: str
    kind: str
    data: dict[str, str] = field(default_factory=dict)
    inputs: dict[int, IrPort] = field(default_factory=dict)
    outputs: dict[int, IrPort] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class IrModel:
    """A whole file.

    Attributes:
        name: Of the model.
        version: Of the IR.
        layers: By their number, in the file's order.
        edges: (layer, input port) -> (layer, output port) that feeds it.
        info: Entries of the model's rt_info that have a value.
    """

    name: str = ""
    version: str = ""
    layers: dict[int, IrLayer] = field(default_factory=dict)
    edges: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)

    def sources(self, layer: IrLayer) -> list[tuple[int, int]]:
        """Return what feeds a layer, in port order; a port that nothing feeds is passed by."""
        return [self.edges[layer.number, port] for port in sorted(layer.inputs) if (layer.number, port) in self.edges]


def read_model(path: Path) -> IrModel:
    """Parse a file.

    Raises:
        InputFileError: When it is no well-formed IR, or beyond LARGEST_XML_BYTES.
    """
    size = path.stat().st_size
    if size > LARGEST_XML_BYTES:
        raise InputFileError(f"{path}: at most {LARGEST_XML_BYTES} bytes of XML were wanted; got {size}")
    handler = _Handler(path)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = handler.refuse
    parser.StartElementHandler = handler.enter
    parser.EndElementHandler = handler.leave
    parser.CharacterDataHandler = handler.text
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise InputFileError(f"{path}: an OpenVINO model was wanted; its XML is malformed: {error}") from None
    return handler.model


class _Handler:
    """Follows the parser and keeps what stands at the known paths."""

    def __init__(self, path: Path) -> None:
        self.model = IrModel()
        self._path = path
        self._place: list[str] = []
        self._layer: IrLayer
        self._port: IrPort

    def refuse(self, *_: object) -> None:
        """Refuse a document type declaration."""
        raise InputFileError(f"{self._path}: an OpenVINO model was wanted; got a DOCTYPE, which none has")

    def enter(self, name: str, attributes: Mapping[str, str]) -> None:
        """Step into an element."""
        if not self._place and name != "net":
            raise InputFileError(f"{self._path}: an OpenVINO model was wanted; got XML whose root is <{name}>")
        if len(self._place) >= DEEPEST:
            raise InputFileError(f"{self._path}: at most {DEEPEST} levels of elements were wanted; found more")
        self._place.append(name)
        keep = KEPT.get("/".join(self._place))
        if keep is not None:
            keep(self, attributes)
        elif self._place[:2] == ["net", "rt_info"] and len(self._place) == 3 and "value" in attributes:
            self.model.info.setdefault(name, attributes["value"])

    def leave(self, _: str) -> None:
        """Step out again."""
        self._place.pop()

    def text(self, text: str) -> None:
        """Keep a dimension's text."""
        if self._place[-1] == "dim" and "/".join(self._place) in DIMENSIONS:
            self._port.sizes[-1] += text.strip()

    def net(self, attributes: Mapping[str, str]) -> None:
        """Keep the model's name and version."""
        self.model.name, self.model.version = attributes.get("name", ""), attributes.get("version", "")

    def layer(self, attributes: Mapping[str, str]) -> None:
        """Start a layer."""
        number = self._number(attributes, "id")
        if number in self.model.layers:
            raise InputFileError(f"{self._path}: layers of different ids were wanted; found two with id {number}")
        self._layer = IrLayer(number=number, name=attributes.get("name", ""), kind=attributes.get("type", ""))
        self.model.layers[number] = self._layer

    def data(self, attributes: Mapping[str, str]) -> None:
        """Keep a layer's attributes."""
        self._layer.data = dict(attributes)

    def input(self, attributes: Mapping[str, str]) -> None:
        """Start an input port."""
        self._start(self._layer.inputs, attributes)

    def output(self, attributes: Mapping[str, str]) -> None:
        """Start an output port."""
        self._start(self._layer.outputs, attributes)

    def dim(self, _: Mapping[str, str]) -> None:
        """Start a dimension."""
        self._port.sizes.append("")

    def mark(self, attributes: Mapping[str, str]) -> None:
        """Keep a port's layout."""
        if attributes.get("name") == "layout":
            self._port.layout = attributes.get("layout", "")

    def edge(self, attributes: Mapping[str, str]) -> None:
        """Keep an edge."""
        names = ("to-layer", "to-port", "from-layer", "from-port")
        to_layer, to_port, from_layer, from_port = (self._number(attributes, name) for name in names)
        if (to_layer, to_port) in self.model.edges:
            raise InputFileError(
                f"{self._path}: one edge into port {to_port} of layer {to_layer} was wanted; found two"
            )
        self.model.edges[to_layer, to_port] = from_layer, from_port

    def _start(self, ports: dict[int, IrPort], attributes: Mapping[str, str]) -> None:
        self._port = IrPort(precision=attributes.get("precision", ""), names=attributes.get("names", ""))
        ports[self._number(attributes, "id")] = self._port

    def _number(self, attributes: Mapping[str, str], name: str) -> int:
        text = attributes.get(name, "")
        if not NUMBER.fullmatch(text):
            raise InputFileError(f"{self._path}: {name}: a whole number was wanted; got {text[:40]!r}")
        return int(text)


PORTS = {"input": "net/layers/layer/input/port", "output": "net/layers/layer/output/port"}
DIMENSIONS = tuple(f"{place}/dim" for place in PORTS.values())

KEPT: dict[str, Any] = {
    "net": _Handler.net,
    "net/layers/layer": _Handler.layer,
    "net/layers/layer/data": _Handler.data,
    PORTS["input"]: _Handler.input,
    PORTS["output"]: _Handler.output,
    **dict.fromkeys(DIMENSIONS, _Handler.dim),
    **{f"{place}/rt_info/attribute": _Handler.mark for place in PORTS.values()},
    "net/edges/edge": _Handler.edge,
}
"""Place of an element -> what keeps it."""
