"""TFLite's own metadata: what MediaPipe Tasks and Android's task libraries read, made from the contract.

A second flatbuffer (identifier M001) in the model's metadata states normalisation, colour space and the label file,
which is appended to the model as a zip archive. It says less than the contract (no crop, no logits): both are stored.
Source: tflite-support, metadata/metadata_schema.fbs, version 1.1.0; the comments below name its tables and fields.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecnn.contract import Contract
from edgecnn.extras import require
from edgecnn.graph import Graph

METADATA_KEY = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"
LABELS = "labels.txt"
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of every label file: the same Graph gives the same bytes."""

COLOUR_SPACES = {"RGB": 1, "GRAY": 2}
"""ColorSpaceType; BGR has none."""

FEATURE_PROPERTIES, IMAGE_PROPERTIES = 1, 2
"""Members of the union ContentProperties."""

NORMALIZATION_OPTIONS = 1
"""Member of the union ProcessUnitOptions."""

TENSOR_AXIS_LABELS = 2
"""AssociatedFileType of labels."""


@dataclass(frozen=True, slots=True)
class Table:
    """A flatbuffer table: one value per field in the schema's order, None for a field that is left out."""

    fields: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """An integer field and its width in bytes (1 or 4)."""

    value: int
    width: int = 1


def metadata(graph: Graph) -> bytes | None:
    """Return the metadata flatbuffer of a network with one image input, or None where its contract is only a guess.

    An input of integers has the same normalisation: it says what numbers they stand for, which the tensor's scale and
    zero point turn into integers. Its smallest and largest value are integers.
    """
    contract = graph.contract
    if contract is None or contract.is_assumed or len(graph.inputs) != 1:
        return None
    labels = Table((LABELS, "class names in output order", Number(TENSOR_AXIS_LABELS))) if contract.labels else None
    outputs = [Table((port.name, None, None, _features(), None, None, None)) for port in graph.outputs]
    if labels is not None:
        outputs[0] = Table((*outputs[0].fields[:-1], [labels]))
    # SubGraphMetadata: name, description, input_tensor_metadata, output_tensor_metadata
    subgraph = Table((None, None, [_image(graph, contract)], outputs))
    # ModelMetadata: name, description, version, subgraph_metadata, author, license, associated_files,
    # min_parser_version
    return _packed(Table((graph.name, None, None, [subgraph], None, None, None, PARSER_VERSION)))


def append_labels(path: Path, contract: Contract | None) -> None:
    """Append the label file to a model that has been written."""
    if contract is not None and contract.labels:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(LABELS, EARLIEST), "\n".join(contract.labels) + "\n")


def _image(graph: Graph, contract: Contract) -> Table:
    (port,) = graph.inputs
    quantization = graph.tensors[port.tensor].quantization
    low, high = contract.input_range if quantization is None else map(float, quantization.limits)
    size = Table((Number(contract.width, 4), Number(contract.height, 4)))
    space = COLOUR_SPACES.get(contract.colour_order)
    content = Table((Number(IMAGE_PROPERTIES), Table((Number(space) if space else None, size)), None))
    unit = Table((Number(NORMALIZATION_OPTIONS), Table((contract.mean, contract.std))))
    stats = Table(((high,) * contract.channels, (low,) * contract.channels))
    # TensorMetadata: name, description, dimension_names, content, process_units, stats, associated_files
    return Table((port.name, None, None, content, [unit], stats, None))


def _features() -> Table:
    return Table((Number(FEATURE_PROPERTIES), Table(()), None))


def _packed(root: Table) -> bytes:
    builder = require("flatbuffers", purpose="writing .tflite files").Builder(1024)
    builder.Finish(_write(builder, root), IDENTIFIER)
    return bytes(builder.Output())


def _write(builder: Any, value: object) -> int:
    """Write a string, a vector or a table, children first, and return its offset."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, list):
        offsets = [_write(builder, each) for each in value]
        return _vector(builder, offsets, builder.PrependUOffsetTRelative)
    if isinstance(value, tuple):
        return _vector(builder, value, builder.PrependFloat32)
    fields = value.fields if isinstance(value, Table) else ()
    written = [None if each is None or isinstance(each, Number) else _write(builder, each) for each in fields]
    builder.StartObject(len(fields))
    for slot, (each, offset) in enumerate(zip(fields, written, strict=True)):
        if isinstance(each, Number):
            prepend = builder.PrependUint8Slot if each.width == 1 else builder.PrependUint32Slot
            prepend(slot, each.value, 0)
        elif offset is not None:
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return int(builder.EndObject())


def _vector(builder: Any, items: "tuple[object, ...] | list[int]", prepend: Any) -> int:
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        prepend(item)
    return int(builder.EndVector())
