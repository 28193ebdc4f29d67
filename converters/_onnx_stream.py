"""Write an ONNX file constant by constant: protobuf's own serializer would hold each of them three times.

A message is a run of fields, and fields may come in any order: the model without its graph, then the graph's header,
what it holds but the constants, and one TensorProto after the other.
Source: protobuf.dev, Encoding; onnx/onnx, onnx.proto (ModelProto.graph = 7, GraphProto.initializer = 5,
TensorProto.raw_data = 9).
"""

from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from edgecnn.errors import UnsupportedError
from edgecnn.extras import require
from edgecnn.graph import Array

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
LENGTH_DELIMITED = 2
LARGEST_BYTES = (1 << 31) - 1
"""Of one protobuf message."""


def write_model(file: BinaryIO, model: Any, initializers: Mapping[str, Array]) -> None:
    """Write a ModelProto with constants that it does not hold itself.

    Args:
        file: Where.
        model: Without initializers.
        initializers: Name -> data, in any memory order.

    Raises:
        UnsupportedError: When the file would be larger than a protobuf message can be.
    """
    graph = model.graph.SerializeToString(deterministic=True)
    tensors = [(_tensor(name, data), data) for name, data in initializers.items()]
    sizes = [len(header) + data.nbytes for header, data in tensors]
    total = len(graph) + sum(len(_header(INITIALIZER, size)) + size for size in sizes)
    if total > LARGEST_BYTES:
        raise UnsupportedError(f"{model.graph.name}: constants of at most 2 GB were wanted for onnx; got {total} bytes")
    shell = type(model)()
    shell.CopyFrom(model)
    shell.ClearField("graph")
    file.write(shell.SerializeToString(deterministic=True))
    file.write(_header(GRAPH, total))
    file.write(graph)
    for size, (header, data) in zip(sizes, tensors, strict=True):
        file.write(_header(INITIALIZER, size))
        file.write(header)
        file.write(np.asarray(data, order="C").data)


def _tensor(name: str, data: Array) -> bytes:
    """Return a TensorProto up to its data."""
    helper = require("onnx.helper", purpose="writing .onnx files")
    kind = helper.np_dtype_to_tensor_dtype(data.dtype)
    proto = require("onnx", purpose="writing .onnx files").TensorProto(name=name, data_type=kind, dims=data.shape)
    return bytes(proto.SerializeToString(deterministic=True)) + _header(RAW_DATA, data.nbytes)


def _header(field: int, size: int) -> bytes:
    """Return what stands before a length-delimited field."""
    return _varint(field << 3 | LENGTH_DELIMITED) + _varint(size)


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first.

    >>> _varint(300).hex()
    'ac02'
    """
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
