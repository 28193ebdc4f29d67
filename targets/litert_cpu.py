"""LiteRT on the CPU: the Interpreter with XNNPACK; tflite-runtime where a small device has that instead."""

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError, MissingError
from edgecnn.extras import require
from edgecnn.graph import Array
from edgecnn.instruction_set import instruction_set
from edgecnn.interfaces import Facts, Session, SessionOptions, Status
from edgecnn.shapes import Shape

IDENTIFIER = b"TFL3"
REFUSALS = (ValueError, RuntimeError)
"""What LiteRT raises on files that it cannot load or run."""


class LitertCpu:
    """The target litert_cpu."""

    name = "litert_cpu"
    formats = ("tflite",)

    def status(self) -> Status:
        """Tell whether an interpreter can be imported."""
        try:
            _, runtime = interpreter_module()
        except MissingError as error:
            return Status(
                state="missing", detail="ai-edge-litert is not installed", remedy=str(error).rpartition("Run: ")[2]
            )
        except (ImportError, OSError) as error:
            return Status(state="unusable", detail=str(error), remedy="reinstall ai-edge-litert")
        return Status(state="available", detail=f"{runtime}, XNNPACK")

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Load a .tflite file. See interfaces.Target."""
        module, runtime = interpreter_module()
        with path.open("rb") as file:
            if file.read(8)[4:] != IDENTIFIER:
                raise InputFileError(f"{path}: a TFLite file (identifier TFL3) was wanted")
        try:
            interpreter = module.Interpreter(model_path=str(path), num_threads=options.threads)
            interpreter.allocate_tensors()
        except REFUSALS as error:
            raise InputFileError(f"{path}: LiteRT refuses it: {error}") from None
        return _LitertSession(
            path,
            interpreter,
            Facts(runtime=runtime, threads=options.threads, precision="float32", instruction_set=instruction_set()),
        )


class _LitertSession:
    """The Interpreter does not tell its threads; facts repeat what it was given."""

    def __init__(self, path: Path, interpreter: Any, facts: Facts) -> None:
        self._path, self._interpreter, self.facts = path, interpreter, facts
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        signature = next(iter(interpreter.get_signature_list()), None)
        if signature is None:
            self._inputs = {entry["name"]: entry for entry in inputs}
            self._outputs = {entry["name"]: entry["index"] for entry in outputs}
        else:
            runner = interpreter.get_signature_runner(signature)
            self._inputs = dict(runner.get_input_details())
            self._outputs = {name: entry["index"] for name, entry in runner.get_output_details().items()}
        self.input_shapes: Mapping[str, Shape] = {name: _shape(entry) for name, entry in self._inputs.items()}
        self.input_dtypes: Mapping[str, str] = {
            name: np.dtype(entry["dtype"]).name for name, entry in self._inputs.items()
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return output name -> values."""
        try:
            self.bind(inputs)()
            return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
        except REFUSALS as error:
            raise InputFileError(f"{self._path}: LiteRT cannot run it: {error}") from None

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """Copy the inputs into the interpreter; the invocation is invoke alone."""
        resized = False
        for name, values in inputs.items():
            entry = self._inputs[name]
            if tuple(self._interpreter.get_tensor_details()[entry["index"]]["shape"]) != values.shape:
                self._interpreter.resize_tensor_input(entry["index"], values.shape)
                resized = True
        if resized:
            self._interpreter.allocate_tensors()
        for name, values in inputs.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], np.ascontiguousarray(values))
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke

    def close(self) -> None:
        """Free the interpreter."""
        self._interpreter = None


def interpreter_module() -> tuple[Any, str]:
    """Return (module with Interpreter, its name and version): LiteRT, or tflite-runtime where only that is there."""
    try:
        module = require("ai_edge_litert.interpreter", purpose="litert_cpu")
        return module, f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    except MissingError as error:
        try:
            module = require("tflite_runtime.interpreter", purpose="litert_cpu")
        except MissingError:
            raise error from None
        return module, f"tflite-runtime {importlib.metadata.version('tflite-runtime')}"


def _shape(entry: Mapping[str, Any]) -> Shape:
    signature = entry.get("shape_signature", entry["shape"])
    sizes = signature if len(signature) else entry["shape"]
    return tuple(None if size < 0 else int(size) for size in sizes)


LITERT_CPU = LitertCpu()
