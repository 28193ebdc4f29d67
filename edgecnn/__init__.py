"""edgecnn: small vision networks for phones, boards, NPUs and browsers.

Build or read a network, convert it for TFLite/LiteRT, ONNX Runtime and OpenVINO, prove that every artifact computes the
same, and measure it. Names are loaded when they are used; `import edgecnn` imports no framework.
"""

import importlib

__version__ = "0.1.0"

PUBLIC = {
    "Contract": "edgecnn.contract",
    "EdgeCNNError": "edgecnn.errors",
    "Graph": "edgecnn.graph",
    "GraphBuilder": "edgecnn.builder",
    "build": "edgecnn.models.build",
    "ZooOptions": "edgecnn.models.build",
    "deploy": "edgecnn.passes.deploy",
}
"""Public name -> the module that has it. Functions named like their module stay there: edgecnn.convert.convert."""

__all__ = ["__version__", *sorted(PUBLIC)]  # noqa: PLE0604 - the table is the list


def __getattr__(name: str) -> object:
    if name not in PUBLIC:
        raise AttributeError(f"module 'edgecnn' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
