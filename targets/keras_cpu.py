"""Keras on the CPU: what a .keras file computes in Keras itself, with the backend that KERAS_BACKEND names."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import EdgeCNNError, InputFileError
from edgecnn.extras import require
from edgecnn.graph import Array, Graph
from edgecnn.instruction_set import instruction_set
from edgecnn.interfaces import Facts, Session, SessionOptions, Status
from edgecnn.shapes import Shape
from edgecnn.source import load_model

REFUSALS = (ValueError, TypeError, KeyError, AttributeError, OSError)
"""What Keras raises on files that it cannot load or run."""


class KerasCpu:
    """The target keras_cpu; the backend chooses its own threads."""

    name = "keras_cpu"
    formats = ("keras",)

    def status(self) -> Status:
        """Tell whether Keras and its backend can be imported."""
        try:
            keras = _keras()
        except EdgeCNNError as error:
            return Status(state="missing", detail="keras is not installed", remedy=str(error).rpartition("Run: ")[2])
        except (ImportError, OSError) as error:
            return Status(state="unusable", detail=str(error), remedy="reinstall keras and tensorflow")
        return Status(state="available", detail=f"keras {keras.__version__} on {keras.backend.backend()}")

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Load a .keras file that edgecnn can read; Lambda layers and classes of others are refused."""
        keras, graph = _keras(), load_model(str(path))
        try:
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        except REFUSALS as error:
            raise InputFileError(f"{path}: Keras refuses it: {error}") from None
        runtime = f"keras {keras.__version__} on {keras.backend.backend()}"
        return _KerasSession(
            path,
            keras,
            model,
            graph,
            Facts(runtime=runtime, threads=0, precision="float32", instruction_set=instruction_set()),
        )


class _KerasSession:
    def __init__(self, path: Path, keras: Any, model: Any, graph: Graph, facts: Facts) -> None:
        self._path, self._pack, self._model, self.facts = path, keras.tree.pack_sequence_as, model, facts
        self.input_shapes: Mapping[str, Shape] = {port.name: graph.tensors[port.tensor].shape for port in graph.inputs}
        self.input_dtypes: Mapping[str, str] = {port.name: graph.tensors[port.tensor].dtype for port in graph.inputs}
        self._outputs = [port.name for port in graph.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return output name -> values."""
        fed = self._pack(self._model.input, [inputs[name] for name in self.input_shapes])
        try:
            found = self._model(fed, training=False)
        except REFUSALS as error:
            raise InputFileError(f"{self._path}: Keras cannot run it: {error}") from None
        values = found if isinstance(found, list | tuple) else [found]
        return {name: np.asarray(each) for name, each in zip(self._outputs, values, strict=True)}

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """Return one call of the model."""
        return lambda: self.run(inputs)

    def close(self) -> None:
        """Free the model."""
        self._model = None


def _keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings about CPU instructions and absent GPUs
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") == "tensorflow":
        require("tensorflow", purpose="keras_cpu")
    return require("keras", purpose="keras_cpu")


KERAS_CPU = KerasCpu()
