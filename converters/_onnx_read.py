"""Read an .onnx file into a Graph: the file as records, its operators as nodes, the layout settled, the contract."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgecnn.contract import CONTRACT_KEY, Layout, parse_contract
from edgecnn.errors import InputFileError
from edgecnn.graph import Graph
from edgecnn.passes import broadcast_instead_of_tile
from edgecnn.passes.implicit_quantization import implicit_quantization
from edgecnn.passes.settle_layout import settle_layout
from edgecnn.shapes import Shape

from ._onnx_read_graph import build_graph
from ._onnx_read_model import OnnxModel, read_model


def read_graph(path: Path, input_shapes: Mapping[str, Shape], layout: Layout) -> Graph:
    """Return the Graph of a file; see OnnxFormat.read."""
    model = read_model(path)
    try:
        graph = _built(model, input_shapes)
    except InputFileError as error:
        raise type(error)(f"{path}: {error}") from None
    text = model.metadata.get(CONTRACT_KEY)
    contract = None if text is None else parse_contract(text, str(path))
    # A Tile that broadcasting makes unnecessary would decide how what it repeats is held.
    graph = broadcast_instead_of_tile.PASS(graph).graph
    # Before the layout is settled: a kernel of integers right under its layer is a constant like any other.
    graph = implicit_quantization(graph).graph
    return replace(settle_layout(graph, layout), contract=contract)


def _built(model: OnnxModel, input_shapes: Mapping[str, Shape]) -> Graph:
    """Build with a symbolic batch where the file has one, and with 1 where that leaves more operators unread."""
    is_open = any(value.shape and (input_shapes.get(value.name) or value.shape)[0] is None for value in model.inputs)
    graphs: list[Graph] = []
    errors: list[InputFileError] = []
    for batch in (None, 1) if is_open else (None,):
        try:
            graphs.append(build_graph(model, input_shapes, batch=batch))
        except InputFileError as error:
            errors.append(error)
        if graphs and not graphs[0].kinds()["Opaque"]:
            break
    if not graphs:
        raise errors[0]
    return min(graphs, key=lambda graph: graph.kinds()["Opaque"])
