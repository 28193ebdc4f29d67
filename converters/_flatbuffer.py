"""Pack a TFLite object tree into a flatbuffer with 16-byte aligned constants, and open one that is untrusted.

The Python object API packs buffers unaligned; the schema asks for `force_align: 16`, which lets runtimes map weights
instead of copying them. Source: LiteRT, tflite/schema/schema.fbs, table Buffer.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError
from edgecnn.extras import require
from edgecnn.graph import Array

IDENTIFIER = b"TFL3"
ALIGNMENT = 16
SLACK_BYTES = 1 << 16
"""Room for everything but constants before the builder has to grow."""

MALFORMED = (struct.error, IndexError, TypeError, ValueError, OverflowError, AttributeError)
"""What flatbuffers' generated code raises when offsets lead nowhere."""


def schema() -> Any:
    """Return the generated TFLite schema module."""
    return require("ai_edge_litert.schema_py_generated", purpose="reading and writing .tflite files")


class AlignedBuffer:
    """A constant in the shape of the schema's BufferT, packed aligned."""

    def __init__(self, data: Array | bytes) -> None:
        self.data = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the schema's object API calls it so
        """Write the table, and its bytes as an aligned vector before it."""
        module, size, vector = schema(), self.data.nbytes, None
        if size:
            builder.StartVector(1, size, ALIGNMENT)
            builder.head = builder.Head() - size
            place = np.frombuffer(builder.Bytes, self.data.dtype, self.data.size, builder.Head())
            place.reshape(self.data.shape)[...] = (
                self.data
            )  # in whatever order it lies in memory, without a copy between
            vector = builder.EndVector()
        module.BufferStart(builder)
        if vector is not None:
            module.BufferAddData(builder, vector)
        return module.BufferEnd(builder)


def pack(model: Any, constant_bytes: int) -> memoryview:
    """Return the file of a ModelT, without copying it out of the builder."""
    flatbuffers = require("flatbuffers", purpose="writing .tflite files")
    builder = flatbuffers.Builder(constant_bytes + SLACK_BYTES)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]


def mapped(path: Path) -> mmap.mmap:
    """Return a .tflite file as read-only memory, which stays there for as long as an array views it.

    Raises:
        InputFileError: When it is empty or does not carry TFLite's identifier.
    """
    with path.open("rb") as file, followed(path):
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if content[4:8] != IDENTIFIER:
        raise InputFileError(f"{path}: a TFLite file (identifier TFL3) was wanted; got {content[4:8]!r}")
    return content


@contextmanager
def followed(path: Path) -> Iterator[None]:
    """Turn whatever following a file's offsets breaks on into an InputFileError."""
    try:
        yield
    except InputFileError:
        raise
    except MALFORMED as error:
        raise InputFileError(
            f"{path}: a TFLite file was wanted; it is cut off or damaged, its tables lead nowhere: {error}"
        ) from None


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield the root table of a .tflite file, mapped; whatever reading it breaks on is an InputFileError."""
    with mapped(path) as content, followed(path):
        yield schema().Model.GetRootAs(content, 0)
