"""ONNX: written NCHW with the lowest opset that carries the Graph.

Opset 17 with IR version 8 is the floor: ONNX Runtime, its QNN provider and onnxruntime-web all load it. A fused
activation is spelled out (Relu, Clip), which runtimes fuse again.
Source: onnx/onnx, docs/Operators.md and docs/Versioning.md.
"""

import importlib
from collections import Counter
from pathlib import Path

from edgecnn import ops
from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.errors import InputFileError
from edgecnn.extras import require
from edgecnn.graph import Graph
from edgecnn.interfaces import Artifact

from ._onnx_emitter import OnnxEmitter
from ._onnx_rows import ROWS, lowest_opset
from ._writing import contract_json, describe, refuse_unknown


class OnnxFormat:
    """The .onnx door."""

    name = "onnx"
    suffix = ".onnx"
    aliases: tuple[str, ...] = ()
    default_layout: Layout = "NCHW"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the file itself: constants are stored inside."""
        return (path,)

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a deployed Graph. See interfaces.Writer."""
        refuse_unknown(graph, ROWS.keys() | {ops.Transpose}, self, "Choose another format.")
        emitter = OnnxEmitter(graph, lowest_opset(graph))
        emitter.walk(ROWS)
        model = emitter.model(contract_json(graph, self.default_layout))
        path.write_bytes(model.SerializeToString(deterministic=True))
        return describe(self, path, Counter(node.op_type for node in emitter.nodes))

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in metadata_props. See interfaces.Format."""
        onnx = require("onnx", purpose="reading .onnx files")
        message = importlib.import_module("google.protobuf.message")
        try:
            model = onnx.load(str(path), load_external_data=False)
        except message.DecodeError as error:
            raise InputFileError(f"{path}: an ONNX model was wanted; the file cannot be decoded: {error}") from None
        if not model.ir_version or not model.graph.output:
            raise InputFileError(f"{path}: an ONNX model was wanted; the file holds no graph")
        found = {entry.key: entry.value for entry in model.metadata_props}.get(CONTRACT_KEY)
        return None if found is None else parse_contract(found, str(path))


ONNX = OnnxFormat()
