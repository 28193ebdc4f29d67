"""Readers of HDF5 go through a file in a child process first: libhdf5 crashes on some damaged files.

Reading twice costs the child's start once (0.2 s) and the second reading; memory that a file corrupted is never here.
"""

import importlib
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

from edgecnn.isolated import Limits, shared

Read = TypeVar("Read")

SECONDS = 20.0
"""Some damaged heaps let libhdf5 go round for ever."""

MEMORY_BYTES, MEMORY_PER_FILE_BYTE = 1 << 30, 12
"""What reading may take: so much, and for each byte of the file so much again (in memory, unpacked, as float32 twice).
float16 variables double when they are read, and a compressed archive holds more than its size."""


def first_in_a_child(read: Callable[[Path], Read]) -> Callable[[Path], Read]:
    """Return a module's function of a path that does its whole work in a child before it does it here."""

    @wraps(read)
    def twice(path: Path) -> Read:
        size = path.stat().st_size if path.is_file() else 0
        shared().call(
            f"{__name__}:read_here",
            read.__module__,
            read.__qualname__,
            str(path),
            wanted=f"{path}: a Keras file that HDF5 can read was wanted",
            limits=Limits(seconds=SECONDS, memory_bytes=MEMORY_BYTES + MEMORY_PER_FILE_BYTE * size),
        )
        return read(path)

    return twice


def read_here(module: str, name: str, path: str) -> None:
    """Read a file in this process, the child, and keep nothing of it."""
    getattr(importlib.import_module(module), name).__wrapped__(Path(path))
