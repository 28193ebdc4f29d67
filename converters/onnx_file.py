"""ONNX: read without the onnx package (_onnx_read), written NCHW with the lowest opset that carries the Graph.

Opset 17 with IR version 8 is the floor: ONNX Runtime, its QNN provider and onnxruntime-web all load it. A fused
activation is spelled out (Relu, Clip), which runtimes fuse again; integers are QuantizeLinear and DequantizeLinear
around float operators (opset 21 for 16 bits), which they fuse as well. What reads and what writes is imported when it
is asked for: a conversion needs one half of a format.
Source: onnx/onnx, docs/Operators.md and docs/Versioning.md.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.graph import Graph
from edgecnn.interfaces import Artifact, Listing
from edgecnn.shapes import Shape


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
        from ._channels_first import REFUSED
        from ._onnx_emitter import OnnxEmitter
        from ._onnx_rows import ROWS, lowest_opset
        from ._writing import contract_json, describe, refuse_unknown

        refuse_unknown(graph, ROWS.keys(), self, "Choose another format.", REFUSED)
        emitter = OnnxEmitter(graph, lowest_opset(graph))
        emitter.walk(ROWS)
        with path.open("wb") as file:
            emitter.write(file, contract_json(graph, self.default_layout))
        return describe(self, path, Counter(node.op_type for node in emitter.nodes))

    def listing(self, path: Path) -> Listing:
        """Return what the file's own tables state. See interfaces.Lister."""
        from ._onnx_listing import listing

        return listing(path)

    def read(self, path: Path, input_shapes: Mapping[str, Shape] | None = None) -> Graph:
        """Read a model of opset 9 or later, float or quantized (QDQ, QOperator, dynamic). See interfaces.Reader.

        Everything computes in float32: float16 constants stay stored as they are, inputs and outputs that the file
        has in float16 or float64 become float32. Where a symbolic batch is mixed with other axes, the batch becomes 1.

        Args:
            path: The file; external data are taken from its own folder only.
            input_shapes: Input -> shape in the file's order, for sizes that the file leaves open.

        Raises:
            InputFileError: When the file is damaged.
            UnsupportedError: When it leaves a size open.
        """
        from ._onnx_read import read_graph

        return read_graph(path, input_shapes or {}, self.default_layout)

    def readable_operators(self) -> frozenset[str]:
        """Return the operators that the reader has a row for."""
        from ._onnx_read_dynamic import OWN
        from ._onnx_read_graph import ROWS

        return frozenset(name for name in ROWS if not name.startswith(f"{OWN}."))

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in metadata_props. See interfaces.Format."""
        from ._onnx_read_model import read_metadata

        found = read_metadata(path).get(CONTRACT_KEY)
        return None if found is None else parse_contract(found, str(path))


ONNX = OnnxFormat()
