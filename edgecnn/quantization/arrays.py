"""Arrays in .npy and .npz files, row by row: neither a large nor a hostile file fills the memory, and no pickle runs.

Source: NumPy, numpy.lib.format (NEP 1).
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from edgecnn.errors import InputFileError
from edgecnn.graph import Array

SUFFIXES = frozenset({".npy", ".npz"})

MOST_ROWS = 1 << 20
"""Of one array: a header may state any number, and each row is listed before it is read."""

LARGEST_ROW_BYTES = 1 << 30

REFUSALS = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)
"""What NumPy and zipfile raise on files that they cannot read; RuntimeError asks for a password."""

HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
"""Version of the .npy format -> reads (shape, is in Fortran's order, type)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredArray:
    """An array in a file.

    Attributes:
        path: The file.
        member: Its name in an .npz file; empty in an .npy file.
        shape: (rows, ...).
        dtype: NumPy's name of the type that is stored.
    """

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """What a person finds it by: values.npz[x]."""
        return f"{self.path.name}[{self.member}]" if self.member else self.path.name


def stored_arrays(path: Path) -> list[StoredArray]:
    """Return the arrays in a file, without their values.

    Raises:
        InputFileError: When the file is damaged, or an array holds anything but numbers in C's order.
    """
    found = []
    for member in _members(path):
        with _opened(path, member) as file:
            shape, dtype = _header(file, path)
        found.append(StoredArray(path=path, member=member, shape=shape, dtype=dtype.str))
    return found


def stored_rows(array: StoredArray, rows: Sequence[int]) -> Iterator[Array]:
    """Yield rows of an array.

    Args:
        array: Whose `shape` may differ from the file's in how rows are cut.
        rows: In rising order.

    Raises:
        InputFileError: When the file is shorter than it says, or holds what is no finite number.
    """
    with _opened(array.path, array.member) as file:
        _header(file, array.path)
        start, size = file.tell(), prod(array.shape[1:]) * np.dtype(array.dtype).itemsize
        for row in rows:
            file.seek(start + row * size)
            data = file.read(size)
            if len(data) != size:
                raise InputFileError(f"{array.name}: {size} bytes were wanted for row {row}; got {len(data)}")
            values = np.frombuffer(data, array.dtype).reshape(array.shape[1:])
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise InputFileError(f"{array.name}: finite numbers were wanted; row {row} holds others")
            yield values


def _members(path: Path) -> list[str]:
    """Return the names of the arrays in an .npz file; an .npy file has one without a name."""
    if path.suffix.lower() == ".npy":
        return [""]
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except REFUSALS as error:
        raise InputFileError(f"{path}: a file of NumPy's arrays was wanted; it cannot be read: {error}") from None


@contextmanager
def _opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    """Open an array; whatever is wrong with it while it is open is the file's fault."""
    try:
        if not member:
            with path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as inner:
                yield inner
    except REFUSALS as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"{path}: an array of NumPy was wanted; it cannot be read: {error}") from None


def _header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read (shape, type) of an array; the file stands before its values then."""
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise InputFileError(f"{path}: .npy version 1.0 or 2.0 was wanted; got {version}")
    shape, is_fortran, dtype = HEADERS[version](file)
    if dtype.kind not in "fiu" or dtype.itemsize > 8 or is_fortran:
        what = "Fortran's order" if is_fortran else str(dtype)
        raise InputFileError(f"{path}: numbers in C's order were wanted; got {what}. Save them so.")
    row = prod(shape[1:]) * dtype.itemsize
    if not shape or min(shape) < 0 or shape[0] > MOST_ROWS or row > LARGEST_ROW_BYTES:
        raise InputFileError(f"{path}: at most {MOST_ROWS} rows of a sensible size were wanted; got {shape}")
    return shape, dtype
