"""Probe: load and run a user's artifact once in a child process, before its runtime loads it in this one."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgecnn import registry
from edgecnn.contract import Contract
from edgecnn.errors import InputFileError
from edgecnn.graph import external_shape
from edgecnn.interfaces import Session, SessionOptions
from edgecnn.isolated import Limits, Worker
from edgecnn.shapes import Shape
from edgecnn.source import existing, format_of, target_for

IN_PYTHON = ("reference",)
"""Targets that are Python and NumPy alone, which no file crashes."""

MEMORY_BYTES, MEMORY_PER_FILE_BYTE = 4 << 30, 8
"""What a runtime may take: so much, and so much again for each byte of the file (packed weights, both layouts)."""


def probe(artifacts: Iterable[Path], target: str | None = None) -> None:
    """Load and run each of the user's artifacts once on zeros, in a child: what crashes there crashes nothing here.

    Not needed for what this process itself has just written; a stamp in a file proves nothing.

    Args:
        artifacts: Files; one that occurs twice is tried once.
        target: Registry name, or None for the CPU target of each format.

    Raises:
        InputFileError: When the runtime refuses the file, crashes on it or needs too much for it.
        MissingError: When the runtime is not installed.
    """
    with Worker() as worker:
        for path in dict.fromkeys(artifacts):
            name = target_for(existing(path), target).name
            if name not in IN_PYTHON:
                size = sum(file.stat().st_size for file in format_of(path).files(path) if file.is_file())
                worker.call(
                    "edgecnn.probe:load_and_run",
                    str(path),
                    name,
                    wanted=f"{path}: a file that {name} can load and run was wanted",
                    limits=Limits(memory_bytes=MEMORY_BYTES + MEMORY_PER_FILE_BYTE * size),
                )


def load_and_run(path: str, target: str) -> None:
    """Load an artifact and run it on zeros, in this process: the part of `probe` that its child does."""
    file = Path(path)
    session: Session = registry.load("targets", target).open(file, SessionOptions())
    contract = format_of(file).read_contract(file)
    shapes, dtypes = session.input_shapes, session.input_dtypes
    try:
        session.run({name: np.zeros(closed(shape, contract), dtypes[name]) for name, shape in shapes.items()})
    except InputFileError:
        if all(None not in shape[1:] for shape in shapes.values()):
            raise  # elsewhere sizes were guessed, which may be the reason
    finally:
        session.close()


def closed(shape: Shape, contract: Contract | None) -> tuple[int, ...]:
    """Return an input's shape with the contract's sizes where it is open, and 1 where there is none.

    >>> closed((None, 8), None)
    (1, 8)
    """
    known: Shape = (1,) * len(shape)
    if contract is not None and len(shape) == 4:
        known = external_shape((1, contract.height, contract.width, contract.channels), contract.layout)
    return tuple(size or wanted or 1 for size, wanted in zip(shape, known, strict=True))
