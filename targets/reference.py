"""The reference: a model that can be read, executed in NumPy."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edgecnn.errors import InputFileError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import Facts, Reader, Session, SessionOptions, Status
from edgecnn.shapes import Shape
from edgecnn.source import format_of


class Reference:
    """The target reference; NumPy's BLAS chooses its own threads."""

    name = "reference"
    formats = ("keras",)

    def status(self) -> Status:
        """Return available: NumPy is always there."""
        return Status(state="available", detail=f"numpy {np.__version__}")

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Read a model file. See interfaces.Target."""
        reader = format_of(path)
        if not isinstance(reader, Reader):
            raise InputFileError(f"{path}: the reference executes what edgecnn can read; {reader.name} is not read yet")
        return _ReferenceSession(reader.read(path))


class _ReferenceSession:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.facts = Facts(runtime=f"numpy {np.__version__}", threads=0, precision="float32")
        self.input_shapes: Mapping[str, Shape] = {port.name: graph.tensors[port.tensor].shape for port in graph.inputs}
        self.input_dtypes: Mapping[str, str] = {port.name: graph.tensors[port.tensor].dtype for port in graph.inputs}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return output name -> values."""
        return execute(self._graph, inputs)

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """Return one execution."""
        return lambda: execute(self._graph, inputs)

    def close(self) -> None:
        """Hold nothing."""


REFERENCE = Reference()
