"""ONNX Runtime on the CPU: explicit threads, one intra-op pool, sequential execution, no spinning between rounds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import EdgeCNNError, InputFileError
from edgecnn.extras import require
from edgecnn.graph import Array
from edgecnn.instruction_set import instruction_set
from edgecnn.interfaces import Facts, Session, SessionOptions, Status
from edgecnn.shapes import Shape

REFUSALS = (
    "EPFail",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NotImplemented",
    "RuntimeException",
)
"""Names of its exceptions."""


class OnnxRuntimeCpu:
    """The target onnxruntime_cpu."""

    name = "onnxruntime_cpu"
    formats = ("onnx",)

    def status(self) -> Status:
        """Tell whether ONNX Runtime can be imported and has its CPU provider."""
        try:
            runtime = require("onnxruntime", purpose=self.name)
        except EdgeCNNError as error:
            return Status(
                state="missing", detail="onnxruntime is not installed", remedy=str(error).rpartition("Run: ")[2]
            )
        except (ImportError, OSError) as error:
            return Status(state="unusable", detail=str(error), remedy="reinstall onnxruntime")
        return Status(state="available", detail=f"onnxruntime {runtime.__version__}, CPUExecutionProvider")

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Load an .onnx file. See interfaces.Target."""
        runtime = require("onnxruntime", purpose=self.name)
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        settings.log_severity_level = 3
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except refusals(runtime) as error:
            raise InputFileError(f"{path}: ONNX Runtime refuses it: {error}") from None
        facts = Facts(
            runtime=f"onnxruntime {runtime.__version__}",
            precision="float32",
            threads=session.get_session_options().intra_op_num_threads,
            instruction_set=instruction_set(),
        )
        return _OnnxSession(path, runtime, session, facts)


class _OnnxSession:
    def __init__(self, path: Path, runtime: Any, session: Any, facts: Facts) -> None:
        self._path, self._runtime, self._session, self.facts = path, runtime, session, facts
        self.input_shapes: Mapping[str, Shape] = {
            entry.name: tuple(n if isinstance(n, int) else None for n in entry.shape) for entry in session.get_inputs()
        }
        self.input_dtypes: Mapping[str, str] = {entry.name: _dtype(entry.type) for entry in session.get_inputs()}
        self._outputs = [entry.name for entry in session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return output name -> values."""
        try:
            found = self._session.run(self._outputs, dict(inputs))
        except refusals(self._runtime) as error:
            raise InputFileError(f"{self._path}: ONNX Runtime cannot run it: {error}") from None
        return dict(zip(self._outputs, found, strict=True))

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """Bind inputs and outputs to memory of the session; the invocation is run_with_iobinding alone."""
        binding = self._session.io_binding()
        for name, values in inputs.items():
            binding.bind_ortvalue_input(name, self._runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values)))
        for name in self._outputs:
            binding.bind_output(name)
        return lambda: self._session.run_with_iobinding(binding)

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _dtype(text: str) -> str:
    """Return NumPy's name of a type as ONNX Runtime writes it.

    >>> _dtype("tensor(float)"), _dtype("tensor(uint8)")
    ('float32', 'uint8')
    """
    name = text.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def refusals(runtime: Any) -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises on files that it cannot load or run."""
    own = (getattr(runtime.capi.onnxruntime_pybind11_state, name) for name in REFUSALS)
    return (*own, UnicodeDecodeError)  # the reason quotes the file, which may hold any bytes


ONNXRUNTIME_CPU = OnnxRuntimeCpu()
