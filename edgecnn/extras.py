"""Optional packages: the module, or the command that installs it."""

import importlib
from types import ModuleType

from edgecnn.errors import MissingError

EXTRA_OF = {
    "ai_edge_litert": "tflite",
    "flatbuffers": "tflite",
    "h5py": "keras",
    "keras": "train",
    "matplotlib": "report",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "PIL": "vision",
    "sklearn": "demo",
    "tensorflow": "train",
    "tflite_runtime": "tflite",
}
"""Top-level module -> the extra that brings it."""


def require(module: str, *, purpose: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Dotted name, such as "onnx" or "ai_edge_litert.interpreter".
        purpose: What needs it, as the subject of the error: "edgecnn convert --to onnx".

    Raises:
        MissingError: With the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingError(
            f"{purpose} needs the package {package}, which is not installed. "
            f"Run: python -m pip install 'edgecnn[{EXTRA_OF[package]}]'"
        ) from None
