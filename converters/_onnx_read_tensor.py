"""A tensor of an ONNX file as an array: a view of the file wherever the file stores it as memory does."""

from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array

from ._onnx_messages import DATA_FIELDS, DTYPES, ENTRY, TENSOR
from ._protobuf import mapped, numbers, read_message

EXTERNAL = 1
"""TensorProto.DataLocation of data beside the file."""
MOST_AXES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """Where external data may lie: files of plain names beside the model.

    Attributes:
        path: Of the model's folder.
        files: Name -> content, mapped once.
    """

    path: Path
    files: dict[str, memoryview] = field(default_factory=dict)

    def content(self, name: str) -> memoryview:
        """Return a file's bytes.

        Raises:
            InputFileError: When the name leads out of the folder, or there is no such file.
        """
        if name not in self.files:
            is_plain = name not in ("", ".", "..") and name == Path(name).name == PureWindowsPath(name).name
            if not is_plain or "\0" in name:
                raise InputFileError(f"external data in a file of the same folder were wanted; found {name!r}")
            try:
                real = (self.path / name).resolve(strict=True)
            except (OSError, RuntimeError):
                raise InputFileError(f"external data were wanted in {name!r}; there is no such file") from None
            if real.parent != self.path.resolve() or not real.is_file():
                raise InputFileError(f"external data in a file of the same folder were wanted; {name!r} leads out")
            self.files[name] = mapped(real)
        return self.files[name]


def read_tensor(data: memoryview, folder: Folder) -> tuple[str, Array]:
    """Return a TensorProto's name and values; bfloat16 is widened to float32.

    Raises:
        InputFileError: When its shape and its data disagree, or external data lie elsewhere.
        UnsupportedError: When its type is none of numbers.
    """
    found = read_message(data, TENSOR)
    name = found.get("name", "")
    try:
        return name, _values(found, folder)
    except InputFileError as error:
        raise type(error)(f"tensor '{name}': {error}") from None


def _values(found: dict[str, Any], folder: Folder) -> Array:
    dtype = DTYPES.get(found.get("data_type", 0))
    if dtype is None:
        raise UnsupportedError(f"numbers of up to 64 bits were wanted; found data_type {found.get('data_type', 0)}")
    dims = [int(size) for size in numbers(found.get("dims", []), "int64")]
    if any(size < 0 for size in dims) or len(dims) > MOST_AXES:
        raise InputFileError(f"at most 32 sizes, none negative, were wanted; found {dims[:40]}")
    stored = "uint16" if dtype == "bfloat16" else dtype
    raw = _external(found, folder) if found.get("data_location", 0) == EXTERNAL else found.get("raw_data")
    flat = _typed(found, stored) if raw is None else _raw(raw, stored)
    if flat.size != prod(dims):
        raise InputFileError(f"{prod(dims)} numbers were wanted for the shape {dims}; found {flat.size}")
    values: Array = flat.reshape(dims)
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _raw(data: memoryview, dtype: str) -> Array:
    size = np.dtype(dtype).itemsize
    if len(data) % size:
        raise InputFileError(f"numbers of {size} bytes were wanted; found {len(data)} bytes")
    if dtype == "bool":
        return np.asarray(np.frombuffer(data, np.uint8) != 0)
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)


def _typed(found: dict[str, Any], dtype: str) -> Array:
    pieces = found.get(DATA_FIELDS.get(dtype, "int32_data"), [])
    if dtype == "float16":
        return numbers(pieces, "int64").astype(np.uint16).view(np.float16)
    return numbers(pieces, dtype)


def _external(found: dict[str, Any], folder: Folder) -> memoryview:
    entries = [read_message(each, ENTRY) for each in found.get("external_data", [])]
    table = {each.get("key", ""): each.get("value", "") for each in entries}
    content = folder.content(table.get("location", ""))
    sizes = {}
    for key, default in (("offset", "0"), ("length", "")):
        text = table.get(key, default)
        if text and not (text.isascii() and text.isdigit() and len(text) < 20):
            raise InputFileError(f"external data: {key} should be a number of bytes; found {text[:40]!r}")
        sizes[key] = int(text) if text else None
    start = sizes["offset"] or 0
    length = len(content) - start if sizes["length"] is None else sizes["length"]
    if start > len(content) or length < 0 or start + length > len(content):
        raise InputFileError(
            f"external data: {length} bytes at {start} were wanted; {table['location']!r} has {len(content)}"
        )
    return content[start : start + length]
