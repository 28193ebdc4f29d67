"""OpenVINO IR: version 11, written NCHW as XML and .bin without OpenVINO.

Every layer is of the earliest operation set that has it: opset1, but for a few (_ir_xml.OPSETS). Biases and fused
activations are spelled out (Add, ReLU, Clamp), which the runtime fuses again. Integers are FakeQuantize layers between
activations, and constants behind Convert, Subtract and Multiply, from which the runtime makes integer arithmetic as it
does from NNCF's files. What reads and what writes is imported when it is asked for.
Source: OpenVINO documentation, Available Operation Sets.
"""

from collections import Counter
from pathlib import Path

from edgecnn.contract import CONTRACT_KEY, Contract, Layout, parse_contract
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Graph
from edgecnn.interfaces import Artifact, Listing
from edgecnn.passes.explicit_quantization import dynamic_nodes

SILENT = ("Const", "Parameter", "Result")
"""Layers that compute nothing."""


def _refuse_dynamic(graph: Graph) -> None:
    """Refuse kernels of integers under float activations that are to be rounded while the network runs."""
    for name in sorted(dynamic_nodes(graph)):
        raise UnsupportedError(
            f"{name}: openvino: activations of calibrated ranges, or float ones, were wanted; got ones whose range is "
            "found while it runs. Choose --recipe static_w8_a8 or weight_only_w8, or --to tflite."
        )


class OpenvinoFormat:
    """The .xml door."""

    name = "openvino"
    suffix = ".xml"
    aliases: tuple[str, ...] = ()
    default_layout: Layout = "NCHW"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the network and its constants."""
        return path, path.with_suffix(".bin")

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a deployed Graph. See interfaces.Writer."""
        from ._channels_first import REFUSED
        from ._openvino_emitter import OpenvinoEmitter
        from ._openvino_rows import ROWS
        from ._writing import contract_json, describe, refuse_unknown

        refuse_unknown(graph, ROWS.keys(), self, "Choose another format.", REFUSED)
        _refuse_dynamic(graph)
        emitter = OpenvinoEmitter(graph)
        emitter.walk(ROWS)
        text = emitter.model(contract_json(graph, self.default_layout))
        path.write_text(text, encoding="utf-8", newline="\n")
        with path.with_suffix(".bin").open("wb") as file:
            emitter.weights.write(file)
        return describe(self, path, Counter(layer.kind for layer in emitter.layers if layer.kind not in SILENT))

    def listing(self, path: Path) -> Listing:
        """Return what the file's own tables state. See interfaces.Lister."""
        from ._openvino_listing import listing

        return listing(path)

    def read(self, path: Path) -> Graph:
        """Read the network and its constants. See interfaces.Reader."""
        from ._openvino_reader import read

        return read(path)

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in rt_info. See interfaces.Format."""
        from ._openvino_read_xml import read_model

        found = read_model(path).info.get(CONTRACT_KEY)
        return None if found is None else parse_contract(found, str(path))


OPENVINO = OpenvinoFormat()
