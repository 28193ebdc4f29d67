"""Separate ranges: outputs that are concatenated and differ much in range are put together in float.

A Concat of integers has one scale for all that goes in. A detector that concatenates boxes (0..20 grid cells, say)
with scores (0..1) then has scores in steps of 20 / 255: log2 of the ratio is what they lose in bits. Where nothing but
moving lies between the Concat and float output ports, it costs next to nothing to move after Dequantize: each operand
keeps a scale of its own.

A sigmoid or softmax that ends the network has steps of 1/256 in integers, below which all scores are equal; it is read
by nobody but float output ports and costs next to nothing in float, with the resolution of its input.

The result names the nodes that have to stay float; `assign` takes them as `in_float`. Output ports of integers have one
scale for the whole port, so that there it is not possible, and said.
"""

from dataclasses import dataclass

from edgecnn import ops
from edgecnn.graph import Graph, Node
from edgecnn.passes.editor import GraphEditor
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.rules import FIXED_OUTPUT

LARGEST_RATIO = 4.0
"""Of the ranges' widths: two bits lost."""

MOVERS = (ops.Concat, ops.Split, ops.Slice, ops.Reshape, ops.Transpose, ops.Gather, ops.Tile, ops.Identity, ops.Dropout)
"""Operators that only move what they are given."""


SCORES = (ops.Sigmoid, ops.Softmax)


@dataclass(frozen=True, kw_only=True, slots=True)
class Separation:
    """Which nodes keep ranges apart.

    Attributes:
        nodes: Names of the nodes that have to stay float, in order.
        refused: (Concat, reason) for each that mixes ranges and has to stay so.
    """

    nodes: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


def separate_ranges(graph: Graph, calibration: Calibration, *, is_float_output: bool = True) -> Separation:
    """Return the nodes that should stay float, so that what they concatenate keeps ranges of its own.

    Args:
        graph: Prepared float Graph.
        calibration: Of that Graph.
        is_float_output: Whether callers get float32, and not integers.
    """
    editor = GraphEditor(graph)
    moving = _moving_to_outputs(editor)
    apart: dict[str, None] = {}
    refused = []
    for node in graph.nodes if is_float_output else ():
        if isinstance(node.op, SCORES) and moving.issuperset(each.name for each in editor.consumers(node.output)):
            apart |= dict.fromkeys(_behind(editor, node))
    for node in graph.nodes:
        ratio = _ratio(editor, node, calibration) if isinstance(node.op, ops.Concat) else 1.0
        if ratio <= LARGEST_RATIO:
            continue
        if node.name not in moving:
            refused.append((node.name, f"ranges differ {ratio:.0f} times, and layers read what it gives"))
        elif not is_float_output:
            refused.append((node.name, f"ranges differ {ratio:.0f} times, and an integer output has one scale"))
        else:
            apart |= dict.fromkeys(_behind(editor, node))
    return Separation(nodes=tuple(node.name for node in graph.nodes if node.name in apart), refused=tuple(refused))


def _moving_to_outputs(editor: GraphEditor) -> set[str]:
    """Return the nodes between which and the output ports everything only moves."""
    found: set[str] = set()
    for node in reversed(list(editor.nodes.values())):
        takers = [taker.name for name in node.outputs for taker in editor.consumers(name)]
        if isinstance(node.op, MOVERS) and found.issuperset(takers):
            found.add(node.name)
    return found


def _ratio(editor: GraphEditor, node: Node, calibration: Calibration) -> float:
    """Return the widest range of a node's operands over the narrowest; one that never leaves 0 has none."""
    widths = [width for name in node.inputs if (width := _width(editor, name, calibration)) > 0]
    return max(widths) / min(widths) if widths else 1.0


def _width(editor: GraphEditor, name: str, calibration: Calibration) -> float:
    """Return the width of a tensor's range as int8 would hold it."""
    producer, tensor = editor.producer(name), editor.tensors[name]
    fixed = None if producer is None else FIXED_OUTPUT.get((type(producer.op), "int8"))
    if fixed is not None:
        low, high = fixed.range
    elif tensor.is_constant:
        values = tensor.value()
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    elif name in calibration.statistics:
        low, high = calibration.statistics[name].low, calibration.statistics[name].high
    else:  # integers, which keep their type
        return 0.0
    return max(high, 0.0) - min(low, 0.0)


def _behind(editor: GraphEditor, node: Node) -> list[str]:
    """Return a node and all that follow it."""
    found, waiting = [], [node]
    while waiting:
        each = waiting.pop()
        found.append(each.name)
        waiting += [taker for name in each.outputs for taker in editor.consumers(name) if taker.name not in found]
    return found
