"""Read protocol buffers from untrusted bytes: one flat pass over a message, guided by a table of its fields.

A field that holds a message is returned as the view of its bytes, to be read when it is wanted: nothing here recurses,
each byte is visited once for each table that is applied to it, and bytes are never copied.
Source: Protocol Buffers, Encoding (protobuf.dev/programming-guides/encoding).
"""

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgecnn.errors import InputFileError
from edgecnn.graph import Array

Kind = Literal["int", "float", "double", "text", "bytes"]
Schema = Mapping[int, tuple[str, Kind, bool]]
"""Field number -> (name, kind, whether it is repeated); "bytes" stands for messages, too."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
LONGEST_VARINT = 10


def mapped(path: Path) -> memoryview:
    """Return a file's bytes without reading them; the map lives as long as a view of it.

    Raises:
        InputFileError: When the file is empty or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: a file with content was wanted; it cannot be read: {error}") from None


def read_message(data: memoryview, schema: Schema) -> dict[str, Any]:
    """Return the fields of one message by name; what the table does not name is passed by.

    A field that occurs again replaces the earlier one, or joins it in a list where the table says repeated. Packed
    numbers come as one array inside that list; see `numbers`.

    Raises:
        InputFileError: When the bytes end early, or a field is stored in another way than the table says.
    """
    found: dict[str, Any] = {}
    for number, wire, value in _fields(data):
        entry = schema.get(number)
        if entry is None:
            continue
        name, kind, is_repeated = entry
        decode = DECODERS.get((kind, wire, is_repeated))
        if decode is None:
            raise InputFileError(f"field '{name}' should hold {kind}; it is stored with wire type {wire}")
        if is_repeated:
            found.setdefault(name, []).append(decode(value))
        else:
            found[name] = decode(value)
    return found


def numbers(pieces: list[Any], dtype: str) -> Array:
    """Return a repeated field of numbers as one array: a view of the file where it is one packed run of that type."""
    if len(pieces) == 1 and isinstance(pieces[0], np.ndarray):
        return pieces[0].astype(dtype, copy=False)
    parts = [piece if isinstance(piece, np.ndarray) else np.array([piece]) for piece in pieces if np.size(piece)]
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yield (field number, wire type, value) of a message: an unsigned integer, or a view of the value's bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if key < 8:
            raise InputFileError("a field number of at least 1 was wanted; found 0: the file is damaged")
        if wire == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, wire, value
            continue
        if wire == LENGTH:
            size, at = _varint(data, at)
        elif wire in FIXED_BYTES:
            size = FIXED_BYTES[wire]
        else:
            raise InputFileError(f"a field of wire type 0, 1, 2 or 5 was wanted; found {wire}")
        if size > end - at:
            raise InputFileError(f"{size} bytes were wanted; only {end - at} are left: the file is cut off or damaged")
        yield key >> 3, wire, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned integer that starts at a position, and the position behind it."""
    if at < len(data) and data[at] < 128:
        return data[at], at + 1
    value = 0
    for place, byte in enumerate(data[at : at + LONGEST_VARINT]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value & (2**64 - 1), at + place + 1
    raise InputFileError("a number was wanted; its bytes do not end: the file is cut off or damaged")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise InputFileError(f"text in UTF-8 was wanted; found {bytes(data[:16])!r}") from None


def _packed(dtype: str) -> Callable[[memoryview], Array]:
    def decode(data: memoryview) -> Array:
        size = np.dtype(dtype).itemsize
        if len(data) % size:
            raise InputFileError(f"packed numbers of {size} bytes were wanted; found {len(data)} bytes")
        return np.frombuffer(data, dtype)

    return decode


def _packed_varints(data: memoryview) -> Array:
    """Decode a packed run of integers at once: every number ends in the one byte that is below 128."""
    if not len(data):
        return np.zeros(0, np.int64)
    raw = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(raw < 128)
    if not len(last) or last[-1] != len(raw) - 1:
        raise InputFileError("packed integers were wanted; the last one does not end")
    starts = np.concatenate([[0], last[:-1] + 1])
    lengths = last - starts + 1
    if lengths.max() > LONGEST_VARINT:
        raise InputFileError(f"an integer of at most {LONGEST_VARINT} bytes was wanted; found {lengths.max()}")
    value = np.zeros(len(last), np.uint64)
    for place in range(int(lengths.max())):
        has = lengths > place
        value[has] |= (raw[starts[has] + place].astype(np.uint64) & np.uint64(127)) << np.uint64(7 * place)
    return value.view(np.int64)


def _unpacked(layout: str) -> Callable[[memoryview], float]:
    return lambda data: float(struct.unpack(layout, data)[0])


def _view(data: memoryview) -> memoryview:
    return data


_EITHER: dict[tuple[str, int], Callable[[Any], Any]] = {
    ("int", VARINT): _signed,
    ("float", FIXED32): _unpacked("<f"),
    ("double", FIXED64): _unpacked("<d"),
    ("text", LENGTH): _text,
    ("bytes", LENGTH): _view,
}
DECODERS: dict[tuple[str, int, bool], Callable[[Any], Any]] = {
    **{(kind, wire, repeated): f for (kind, wire), f in _EITHER.items() for repeated in (False, True)},
    ("int", LENGTH, True): _packed_varints,
    ("float", LENGTH, True): _packed("<f4"),
    ("double", LENGTH, True): _packed("<f8"),
}
"""(kind, wire type, repeated) -> decoder; a pair that is not here contradicts the table."""
