"""Bounded scale ratios of sums: keep input / output scales of integer Add and Sub where fast kernels take them.

An integer sum scales each operand by in / out as a fixed-point number of limited width: XNNPACK refuses a ratio outside
[2^-10, 2^8) (see rules.SUM_RATIOS), and the operator then runs in a slow reference kernel. Outside it nothing is lost
by a wider range:

- below: the whole range of the operand is less than a quarter of one step of the sum, so the operand gets a scale of
  out * 2^-10 with the zero point that it had, which holds all that it held;
- above: the sum is so fine that one step of an operand is 256 of its steps; it is computed in a scale of in / 2^8 and
  scaled to its own afterwards.

An operand that a layer gives to the sum alone takes the wider scale where it is; else a Quantize gives it.
"""

from dataclasses import replace

from edgecnn.graph import Graph, Node, Tensor
from edgecnn.ops import Add, Quantize, Sub
from edgecnn.passes.editor import GraphEditor, PassResult
from edgecnn.quantization.parameters import BYTES, Quantization
from edgecnn.quantization.rules import SUM_RATIOS, WEIGHTED

LEAST_RATIO, MOST_RATIO = SUM_RATIOS

MARGIN = 1 + 2.0**-20
"""So that a ratio that is rounded to float32 still lies inside."""


def bound_scales(graph: Graph) -> PassResult:
    """Widen ranges of a quantized Graph around sums whose scale ratios are out of bounds."""
    editor, applied = GraphEditor(graph), []
    for node in graph.nodes:
        if isinstance(node.op, Add | Sub) and _is_integer(editor, node) and _bound(editor, node):
            applied.append(node.name)
    return PassResult(graph=editor.finish() if applied else graph, applied=tuple(applied), refused=())


def _bound(editor: GraphEditor, node: Node) -> bool:
    """Widen what is out of bounds around a sum, and tell whether anything was."""
    most = max(_scale(editor, name) for name in node.inputs)
    is_fine = most >= MOST_RATIO * _scale(editor, node.output)
    if is_fine:
        _widen_output(editor, node, most / MOST_RATIO * MARGIN)
    least = LEAST_RATIO * _scale(editor, editor.nodes[node.name].output)
    small = [name for name in dict.fromkeys(node.inputs) if _scale(editor, name) < least]
    for name in small:
        _widen_input(editor, editor.nodes[node.name], name, least * MARGIN)
    return is_fine or bool(small)


def _is_integer(editor: GraphEditor, node: Node) -> bool:
    """Tell whether a node computes in 8-bit integers, each operand in one scale."""
    known = [editor.tensors[name].quantization for name in (*node.inputs, *node.outputs)]
    return all(found is not None and found.axis is None and found.dtype in BYTES for found in known)


def _scale(editor: GraphEditor, name: str) -> float:
    found = editor.tensors[name].quantization
    return 1.0 if found is None else found.scale[0]


def _with_scale(tensor: Tensor, scale: float) -> Quantization | None:
    """Return a tensor's quantization with another scale."""
    found = tensor.quantization
    return None if found is None else replace(found, scale=(scale,))


def _widen_output(editor: GraphEditor, node: Node, scale: float) -> None:
    """Let a sum be computed in a wider scale, and scale it to its own behind."""
    tensor = editor.tensors[node.output]
    wide = editor.free_name(f"{node.output}/wide")
    editor.tensors[wide] = replace(tensor, name=wide, quantization=_with_scale(tensor, scale))
    editor.put(replace(node, outputs=(wide,)))
    name = editor.free_name(f"{node.output}/rescaled")
    editor.put(Node(name=name, op=Quantize(), inputs=(wide,), outputs=node.outputs))


def _widen_input(editor: GraphEditor, node: Node, name: str, scale: float) -> None:
    """Give a sum's operand a wider scale."""
    tensor, layer = editor.tensors[name], editor.producer(name)
    wider = _with_scale(tensor, scale)
    if layer is not None and isinstance(layer.op, WEIGHTED) and editor.only_consumer(name) == node:
        editor.tensors[name] = replace(tensor, quantization=wider)
        return
    wide = editor.free_name(f"{name}/wide")
    data = wider.quantize(tensor.value()) if wider is not None and tensor.is_constant else None
    editor.tensors[wide] = replace(tensor, name=wide, data=data, quantization=wider)
    if data is None:
        editor.put(Node(name=wide, op=Quantize(), inputs=(name,), outputs=(wide,)))
    editor.put(replace(node, inputs=tuple(wide if each == name else each for each in node.inputs)))
