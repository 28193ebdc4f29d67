"""OpenVINO on the CPU: float32 arithmetic stated and read back, explicit threads, one stream, tuned for latency.

Left alone, OpenVINO computes in bfloat16 on a CPU that has it.
Source: OpenVINO documentation, CPU Device, Supported Properties.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import EdgeCNNError, InputFileError, NotThereError
from edgecnn.extras import require
from edgecnn.graph import Array
from edgecnn.instruction_set import instruction_set
from edgecnn.interfaces import Facts, Session, SessionOptions, Status
from edgecnn.shapes import Shape

DEVICE = "CPU"
REFUSALS = (RuntimeError, UnicodeDecodeError)
"""What OpenVINO raises on files that it cannot load or run; a reason quotes the file, which may hold any bytes."""

NOISE = ("Exception from", "Check '", "While validating node")
"""How lines of an error begin that name OpenVINO's own source and not the reason."""


class OpenvinoCpu:
    """The target openvino_cpu."""

    name = "openvino_cpu"
    formats = ("openvino",)

    def status(self) -> Status:
        """Tell whether OpenVINO can be imported and its CPU plug-in loads."""
        try:
            runtime = _openvino()
            processor = runtime.Core().get_property(DEVICE, "FULL_DEVICE_NAME")
        except EdgeCNNError as error:
            return Status(state="missing", detail="openvino is not installed", remedy=str(error).rpartition("Run: ")[2])
        except (ImportError, OSError, RuntimeError) as error:
            return Status(state="unusable", detail=reason(error), remedy="reinstall openvino")
        return Status(state="available", detail=f"{version(runtime)}, {processor.strip()}")

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Load an .xml file and the .bin beside it. See interfaces.Target."""
        runtime = _openvino()
        constants = path.with_suffix(".bin")
        if not constants.is_file():
            raise NotThereError(f"{path}: its constants were wanted in {constants.name}; there is none. Copy it too.")
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = runtime.Core()
        try:
            model = core.read_model(str(path))
            names = [port_name(port) for port in model.outputs]
            compiled = core.compile_model(model, DEVICE, settings)
            facts = Facts(
                runtime=version(runtime),
                threads=compiled.get_property("INFERENCE_NUM_THREADS"),
                precision=compiled.get_property("INFERENCE_PRECISION_HINT").to_dtype().name,
                instruction_set=instruction_set(),
            )
            return _OpenvinoSession(path, runtime, compiled, facts, names)
        except REFUSALS as error:
            raise InputFileError(f"{path}: OpenVINO refuses it: {reason(error)}") from None


class _OpenvinoSession:
    """Outputs are named as the file names them: compiling may merge a value, and its names, with an earlier one."""

    def __init__(self, path: Path, runtime: Any, compiled: Any, facts: Facts, outputs: list[str]) -> None:
        self._path, self._runtime, self._compiled, self.facts = path, runtime, compiled, facts
        self._request = compiled.create_infer_request()
        self._inputs = {port_name(port): port for port in compiled.inputs}
        self._outputs = outputs
        self.input_shapes: Mapping[str, Shape] = {
            name: tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
            for name, port in self._inputs.items()
        }
        self.input_dtypes: Mapping[str, str] = {
            name: port.element_type.to_dtype().name for name, port in self._inputs.items()
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return output name -> values, copied out of the runtime."""
        fed = {self._inputs[name]: np.ascontiguousarray(values) for name, values in inputs.items()}
        try:
            found = self._request.infer(fed, share_inputs=True)
        except REFUSALS as error:
            raise InputFileError(f"{self._path}: OpenVINO cannot run it: {reason(error)}") from None
        return dict(zip(self._outputs, found.to_tuple(), strict=True))

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """Copy the inputs into a request of their own; the invocation is its infer alone, outputs not copied.

        The tensors belong to the runtime: one that shared NumPy's memory would not keep it alive.
        """
        request = self._compiled.create_infer_request()
        for name, values in inputs.items():
            request.set_tensor(self._inputs[name], self._runtime.Tensor(np.ascontiguousarray(values)))
        return partial(request.infer, share_outputs=True)

    def close(self) -> None:
        """Free the network."""
        self._request = self._compiled = None


def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports each import and forks this process for it, threads running.

    A module that is None in sys.modules cannot be imported; OpenVINO then does without. Source: openvino 2026.4,
    tools/ovc/telemetry_utils.py; openvino_telemetry 2025.2, backend/backend_ga4.py.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return require("openvino", purpose=OpenvinoCpu.name)


def version(runtime: Any) -> str:
    """Return name and release, without the build's number."""
    return f"openvino {runtime.__version__.partition('-')[0]}"


def port_name(port: Any) -> str:
    """Return the name that callers use: the first of the port's names, or its layer's where it has none."""
    return str(min(port.names, default=port.node.friendly_name))


def reason(error: Exception) -> str:
    """Return the line of a runtime's error that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(NOISE)]
    return (telling or lines or [type(error).__name__])[0]


OPENVINO_CPU = OpenvinoCpu()
