"""TFLite, read from and emitted directly as a flatbuffer.

Every operator has the lowest version that fits, so that runtimes as old as the operator load the file. Explicit padding
that equals SAME or VALID costs nothing, any other costs one PAD. A SignatureDef names inputs and outputs.
Source: LiteRT, tflite/schema/schema.fbs and tflite/tools/versioning/op_version.cc.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edgecnn import ops
from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.graph import Graph, Node
from edgecnn.interfaces import Artifact, Listing
from edgecnn.passes import volume_pool_in_two_steps
from edgecnn.passes.hold_for_format import hold_for_format
from edgecnn.passes.settle_layout import settle_layout
from edgecnn.shapes import Shape

from . import _tflite_elementwise as elementwise
from . import _tflite_layers as layers
from . import _tflite_moving as moving
from . import _tflite_norms as norms
from . import _tflite_typed as typed
from ._flatbuffer import opened
from ._tflite_emitter import TfliteEmitter
from ._tflite_listing import listing
from ._tflite_metadata import METADATA_KEY, append_labels, metadata
from ._tflite_read import read_graph
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

    def read(self, path: Path, input_shapes: Mapping[str, Shape] | None = None) -> Graph:
        """Read the main subgraph of a float32 or float16 file; its constants are views of the mapped file.

        The first signature of that subgraph names the ports, the tensors do where there is none; other signatures are
        passed by. What reaches another subgraph (IF, WHILE, CALL), custom operators that are not known and builtin ones
        without a row are Opaque. A batch of -1 is symbolic; where the file calculates with it or moves it, it is 1.

        Args:
            path: The file.
            input_shapes: Port -> shape (None for a symbolic batch) instead of the file's.

        Raises:
            InputFileError: When the file is damaged.
            UnsupportedError: When it is quantized, or holds a form of an operator that is not read, named.
            UsageError: When input_shapes names no input of the file.
        """
        graph = replace(read_graph(path, input_shapes), contract=self.read_contract(path))
        return settle_layout(graph, self.default_layout)

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a deployed Graph. See interfaces.Writer."""
        refuse_unknown(graph, ROWS.keys(), self, "Choose --to onnx or openvino.", REFUSED)
        pooled = volume_pool_in_two_steps.PASS(graph).graph
        held = hold_for_format(pooled, lambda port: port.layout == "NCHW", windows_first=False)
        emitter = TfliteEmitter(held)
        for node in held.nodes:
            ROWS[type(node.op)](emitter, node)
        path.write_bytes(emitter.file(self._metadata(graph)))
        append_labels(path, graph.contract)
        return describe(self, path, emitter.counts)

    def _metadata(self, graph: Graph) -> dict[str, bytes]:
        contract = contract_json(graph, self.default_layout)
        found = {} if contract is None else {CONTRACT_KEY: contract.encode()}
        standard = metadata(graph)
        return found if standard is None else {**found, METADATA_KEY: standard}

    def listing(self, path: Path) -> Listing:
        """Return what the file's own tables state. See interfaces.Lister."""
        return listing(path)

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
    **norms.ROWS,
    **typed.ROWS,
}

REFUSED: dict[type[ops.Op], str] = {ops.Erf: "Let GELU hold it, which tflite has, or choose --to onnx or openvino."}
"""Operator that TFLite has no means for -> what to do instead."""

TFLITE = TfliteFormat()
