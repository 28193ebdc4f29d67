"""TFLite, emitted directly as a flatbuffer.

Every operator has the lowest version that fits, so that runtimes as old as the operator load the file. Explicit padding
that equals SAME or VALID costs nothing, any other costs one PAD. A SignatureDef names inputs and outputs.
Source: LiteRT, tflite/schema/schema.fbs and tflite/tools/versioning/op_version.cc.
"""

from collections.abc import Callable
from pathlib import Path

from edgecnn import ops
from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.graph import Graph, Node
from edgecnn.interfaces import Artifact

from . import _tflite_elementwise as elementwise
from . import _tflite_layers as layers
from . import _tflite_moving as moving
from ._flatbuffer import opened
from ._tflite_emitter import TfliteEmitter
from ._tflite_metadata import METADATA_KEY, append_labels, metadata
from ._tflite_transposed import conv_transpose
from ._tflite_windows import average_pool, conv, max_pool
from ._writing import contract_json, describe, refuse_unknown


class TfliteFormat:
    """The .tflite door."""

    name = "tflite"
    suffix = ".tflite"
    aliases: tuple[str, ...] = ()
    default_layout: Layout = "NHWC"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the file itself."""
        return (path,)

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a deployed Graph. See interfaces.Writer."""
        refuse_unknown(graph, ROWS.keys(), self, "Choose --to onnx or openvino.")
        emitter = TfliteEmitter(graph)
        for port in graph.inputs:
            emitter.open_port(port)
        for node in graph.nodes:
            ROWS[type(node.op)](emitter, node)
        path.write_bytes(emitter.file(self._metadata(graph)))
        append_labels(path, graph.contract)
        return describe(self, path, emitter.counts)

    def _metadata(self, graph: Graph) -> dict[str, bytes]:
        contract = contract_json(graph, self.default_layout)
        found = {} if contract is None else {CONTRACT_KEY: contract.encode()}
        standard = metadata(graph)
        return found if standard is None else {**found, METADATA_KEY: standard}

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in the model's metadata. See interfaces.Format."""
        with opened(path) as model:
            for entry in (model.Metadata(i) for i in range(model.MetadataLength())):
                if entry.Name() == CONTRACT_KEY.encode():
                    return parse_contract(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes(), str(path))
        return None


ROWS: dict[type[ops.Op], Callable[[TfliteEmitter, Node], None]] = {
    ops.Conv: conv,
    ops.ConvTranspose: conv_transpose,
    ops.MaxPool: max_pool,
    ops.AveragePool: average_pool,
    **layers.ROWS,
    **elementwise.ROWS,
    **moving.ROWS,
}

TFLITE = TfliteFormat()
