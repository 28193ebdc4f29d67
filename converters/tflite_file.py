"""TFLite, read from and emitted directly as a flatbuffer.

Every operator has the lowest version that fits, so that runtimes as old as the operator load the file. Explicit padding
that equals SAME or VALID costs nothing, any other costs one PAD. A SignatureDef names inputs and outputs.
What reads and what writes is imported when it is asked for: a conversion needs one half of a format.
Source: LiteRT, tflite/schema/schema.fbs and tflite/tools/versioning/op_version.cc.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.graph import Graph
from edgecnn.interfaces import Artifact, Listing
from edgecnn.shapes import Shape

from ._flatbuffer import opened


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
        """Read the main subgraph of a file, quantized or not; its constants are views of the mapped file.

        Integers stay what they are, with the scales that the file states: a quantized file becomes a quantized Graph.
        The first signature of that subgraph names the ports, the tensors do where there is none; other signatures are
        passed by. What reaches another subgraph (IF, WHILE, CALL), custom operators that are not known and builtin ones
        without a row are Opaque. A batch of -1 is symbolic; where the file calculates with it or moves it, it is 1.

        Args:
            path: The file.
            input_shapes: Port -> shape (None for a symbolic batch) instead of the file's.

        Raises:
            InputFileError: When the file is damaged.
            UnsupportedError: When it holds a form of an operator, or scales of a kind, that is not read, named.
            UsageError: When input_shapes names no input of the file.
        """
        from edgecnn.passes.settle_layout import settle_layout

        from ._tflite_read import read_graph

        graph = replace(read_graph(path, input_shapes), contract=self.read_contract(path))
        return settle_layout(graph, self.default_layout)

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a deployed Graph; what is quantized is stored as its integers. See interfaces.Writer.

        Raises:
            UnsupportedError: When TFLite has no operator for a node, or none that takes its integers and scales.
        """
        from edgecnn.passes import volume_pool_in_two_steps
        from edgecnn.passes.hold_for_format import hold_for_format

        from ._tflite_emitter import TfliteEmitter
        from ._tflite_integers import check_integers, suited
        from ._tflite_metadata import METADATA_KEY, append_labels, metadata
        from ._tflite_rows import REFUSED, ROWS
        from ._writing import contract_json, describe, refuse_unknown

        refuse_unknown(graph, ROWS.keys(), self, "Choose --to onnx or openvino.", REFUSED)
        integers = suited(graph)
        check_integers(integers)
        pooled = volume_pool_in_two_steps.PASS(integers).graph
        held = hold_for_format(pooled, lambda port: port.layout == "NCHW", windows_first=False)
        emitter = TfliteEmitter(held)
        for node in held.nodes:
            ROWS[type(node.op)](emitter, node)
        contract, standard = contract_json(graph, self.default_layout), metadata(graph)
        stored = {CONTRACT_KEY: contract.encode() if contract else None, METADATA_KEY: standard}
        path.write_bytes(emitter.file({key: value for key, value in stored.items() if value is not None}))
        append_labels(path, graph.contract)
        return describe(self, path, emitter.counts)

    def listing(self, path: Path) -> Listing:
        """Return what the file's own tables state. See interfaces.Lister."""
        from ._tflite_listing import listing

        return listing(path)

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in the model's metadata. See interfaces.Format."""
        with opened(path) as model:
            for entry in (model.Metadata(i) for i in range(model.MetadataLength())):
                if entry.Name() == CONTRACT_KEY.encode():
                    return parse_contract(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes(), str(path))
        return None


TFLITE = TfliteFormat()
