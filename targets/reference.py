"""The reference: a model that can be read, executed in NumPy, in float or in the golden integers."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edgecnn.contract import Layout
from edgecnn.errors import InputFileError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Port, external_shape, from_layout, to_layout
from edgecnn.instruction_set import instruction_set
from edgecnn.interfaces import Facts, Reader, Session, SessionOptions, Status
from edgecnn.ports import default_layout
from edgecnn.shapes import Shape
from edgecnn.source import format_of


class Reference:
    """The target reference; NumPy's BLAS chooses its own threads."""

    name = "reference"
    formats = ("keras", "tflite", "onnx", "openvino")

    def status(self) -> Status:
        """Return available: NumPy is always there."""
        return Status(state="available", detail=f"numpy {np.__version__}")

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Read a model file. See interfaces.Target."""
        reader = format_of(path)
        if not isinstance(reader, Reader):
            raise InputFileError(f"{path}: the reference executes what edgecnn can read; {reader.name} is not read yet")
        return _ReferenceSession(reader.read(path), reader.default_layout)


class _ReferenceSession:
    """A Graph behind ports as its file has them: external layouts, and integers where a port is quantized."""

    def __init__(self, graph: Graph, default: Layout) -> None:
        self._graph = graph
        self.facts = Facts(
            runtime=f"numpy {np.__version__}", threads=0, precision="float32", instruction_set=instruction_set()
        )
        self._default = default
        self.input_shapes: Mapping[str, Shape] = {
            port.name: external_shape(graph.tensors[port.tensor].shape, self._layout(port)) for port in graph.inputs
        }
        self.input_dtypes: Mapping[str, str] = {
            port.name: graph.tensors[port.tensor].stored_dtype for port in graph.inputs
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return output name -> values."""
        fed = {port.name: from_layout(inputs[port.name], self._layout(port)) for port in self._graph.inputs}
        found = execute(self._graph, fed, stored=True)
        return {port.name: to_layout(found[port.name], self._layout(port)) for port in self._graph.outputs}

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """Return one execution."""
        return lambda: self.run(inputs)

    def close(self) -> None:
        """Hold nothing."""

    def _layout(self, port: Port) -> str:
        return port.layout or default_layout(self._graph.tensors[port.tensor].shape, self._default)


REFERENCE = Reference()
