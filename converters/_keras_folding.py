"""Groups of layers that the Keras writer made of one operator, folded back into it (see _keras_groups)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import EdgeCNNError
from edgecnn.graph import Graph, Node
from edgecnn.passes.editor import GraphEditor

from ._keras_groups import Operand, Part, expand

Group = Mapping[str, Node]
"""Suffix behind the name of the last node -> node; the last one has none."""

Guess = Callable[[GraphEditor, Group], Iterator[ops.Op]]
"""Yields operators that a group may stand for."""


def folded(graph: Graph) -> Graph:
    """Return the Graph with one operator in place of each group."""
    editor = GraphEditor(graph)
    fused = [node for node in graph.nodes if "//" in node.name and _fuse(editor, editor.nodes[node.name])]
    heads = [node for node in tuple(editor.nodes.values()) if len(_group(editor, node)) > 1]
    for head in heads:
        if head.name in editor.nodes:
            _fold(editor, _group(editor, head))
    return editor.finish() if heads or fused else graph


def _fuse(editor: GraphEditor, activation: Node) -> bool:
    """Fuse an activation "y//relu" into the node "y" before it; tells whether it could."""
    before: Any = editor.producer(activation.inputs[0])
    is_own = before is not None and activation.name.partition("//")[0] == before.name
    if not (is_own and isinstance(activation.op, ops.Activation) and hasattr(before.op, "activation")):
        return False
    if before.op.activation is not None or editor.only_consumer(before.output) != activation:
        return False
    editor.remove(activation)
    op, output = replace(before.op, activation=activation.op), activation.output
    editor.redirect(output, before.output)
    editor.output_ports = [
        replace(port, tensor=before.output) if port.tensor == output else port for port in editor.output_ports
    ]
    editor.put(replace(before, op=op))
    return True


def _group(editor: GraphEditor, head: Node) -> dict[str, Node]:
    """Return a node and those behind it whose names start with its own."""
    group, open_nodes = {"": head}, [head]
    while open_nodes:
        for tensor in open_nodes.pop().inputs:
            node = editor.producer(tensor)
            suffix = node.name[len(head.name) :] if node is not None and node.name.startswith(f"{head.name}/") else ""
            if node is not None and suffix and suffix not in group:
                group[suffix] = node
                open_nodes.append(node)
    return group


def _fold(editor: GraphEditor, group: Group) -> None:
    for guess in GUESSES:
        for op in guess(editor, group):
            node = _as_one(editor, group, op)
            if node is not None:
                for each in group.values():
                    editor.remove(each)
                editor.put(node)
                return


def _as_one(editor: GraphEditor, group: Group, op: ops.Op) -> Node | None:
    """Return the one node that the group stands for, if writing that gives just this group."""
    inner = {node.output for node in group.values()}
    names = {node.name for node in group.values()}
    outer = {x for node in group.values() for x in node.inputs if x not in inner and not editor.tensors[x].is_constant}
    is_seen = any(
        tensor in editor.outputs or any(taker.name not in names for taker in editor.consumers(tensor))
        for tensor in inner - {group[""].output}
    )
    if len(outer) != 1 or is_seen:
        return None
    windows = [node for node in group.values() if isinstance(node.op, ops.Conv | ops.ConvTranspose)]
    head = replace(group[""], op=op, inputs=(*outer, *(windows[0].inputs[1:] if windows else ())))
    try:
        parts = expand(op, tuple(editor.tensors[name].shape for name in head.inputs))
    except EdgeCNNError:
        return None
    is_same = {part.suffix for part in parts} == group.keys()
    return head if is_same and all(_matches(editor, group, head, part) for part in parts) else None


def _matches(editor: GraphEditor, group: Group, head: Node, part: Part) -> bool:
    node = group[part.suffix]
    if node.op != part.op or len(node.inputs) != len(part.inputs):
        return False
    return all(_is(editor, group, head, found, wanted) for found, wanted in zip(node.inputs, part.inputs, strict=True))


def _is(editor: GraphEditor, group: Group, head: Node, found: str, wanted: Operand) -> bool:
    if isinstance(wanted, str):
        if wanted == "input":
            return found == head.inputs[0]
        return found == (head.operand(wanted[1:]) if wanted.startswith(":") else group[wanted].output)
    tensor = editor.tensors[found]
    return tensor.is_constant and tensor.shape == wanted.shape and bool(np.array_equal(tensor.value(), wanted))


def _number(editor: GraphEditor, node: Node) -> float:
    """Return the constant of a node as the shortest decimal that gives this float32."""
    return float(str(np.float32(editor.tensors[node.inputs[1]].value().reshape(-1)[0])))


def _blocks(editor: GraphEditor, group: Group) -> Iterator[ops.Op]:
    if group.keys() == {"/split", "/turned", ""}:
        op: Any = group["/split"].op
        if isinstance(op, ops.Reshape) and len(op.shape) == 6:
            yield ops.DepthToSpace(block=op.shape[3] or 0)
            yield ops.SpaceToDepth(block=op.shape[2] or 0)


def _lrn(editor: GraphEditor, group: Group) -> Iterator[ops.Op]:
    if {"/square", "/wide", "/scaled", "/moved", "/norm"} <= group.keys() and _have_constants(
        editor, group, "/scaled", "/moved", "/norm"
    ):
        alpha, bias, beta = (_number(editor, group[suffix]) for suffix in ("/scaled", "/moved", "/norm"))
        size = sum(suffix.startswith("/shift_") for suffix in group)
        if size % 2:
            yield ops.LRN(size=size, alpha=alpha, beta=beta, bias=bias)


def _hard_sigmoid(editor: GraphEditor, group: Group) -> Iterator[ops.Op]:
    if group.keys() == {"/scaled", "/moved", ""} and _have_constants(editor, group, "/scaled", "/moved"):
        yield ops.HardSigmoid(slope=_number(editor, group["/scaled"]), offset=_number(editor, group["/moved"]))


def _have_constants(editor: GraphEditor, group: Group, *suffixes: str) -> bool:
    nodes = (group[suffix] for suffix in suffixes)
    return all(len(node.inputs) == 2 and editor.tensors[node.inputs[1]].is_constant for node in nodes)


def _padded(editor: GraphEditor, group: Group) -> Iterator[ops.Op]:
    pad: Any = group["/pad"].op if "/pad" in group else None
    if not isinstance(pad, ops.Pad):
        return
    for suffix in ("", "/every", "/pool"):
        op: Any = group[suffix].op if suffix in group else None
        if isinstance(op, ops.Conv | ops.MaxPool | ops.AveragePool) and len(pad.padding) == len(op.stride) + 2:
            last: Any = group[""].op
            stride = last.step[1:-1] if suffix == "/every" and isinstance(last, ops.Slice) else op.stride
            if all(max(pair) < size for pair, size in zip(pad.padding[1:-1], _limits(op), strict=True)):
                activation = last.activation if suffix == "/pool" else op.activation
                if isinstance(op, ops.AveragePool) and suffix == "":
                    op = replace(op, count_include_pad=True)
                yield replace(op, padding=pad.padding[1:-1], stride=stride, activation=activation)


def _limits(op: ops.Conv | ops.MaxPool | ops.AveragePool) -> tuple[float, ...]:
    """Return what padding must stay below: a pool's kernel."""
    return (float("inf"),) * len(op.stride) if isinstance(op, ops.Conv) else op.kernel_size


def _conv_transpose(editor: GraphEditor, group: Group) -> Iterator[ops.Op]:
    whole: Any = group["/whole"].op if "/whole" in group else None
    box: Any = group[""].op
    if not isinstance(whole, ops.ConvTranspose) or not isinstance(box, ops.Slice):
        return
    sizes = editor.tensors[group["/whole"].output].shape[1:-1]
    cuts = [
        (begin, (size or 0) - extra - (end or 0))
        for begin, end, size, extra in zip(box.begin[1:], box.end[1:], sizes, whole.output_padding, strict=False)
    ]
    padding = tuple((before, max(after, 0)) for before, after in cuts)
    yield replace(whole, padding=padding, output_padding=tuple(max(-after, 0) for _, after in cuts))


def _resize(editor: GraphEditor, group: Group) -> Iterator[ops.Op]:
    count = sum(suffix.startswith("/resized_") for suffix in group)
    nodes = [group.get(f"/resized_{axis}") for axis in range(1, count + 1)]
    if count and all(node is not None and isinstance(node.op, ops.Dense) for node in nodes):
        size = tuple(editor.tensors[node.output].shape[-1] or 0 for node in nodes if node is not None)
        for method, coordinates in product(("nearest", "bilinear"), ("half_pixel", "asymmetric", "align_corners")):
            yield ops.Resize(size=size, method=method, coordinates=coordinates)  # type: ignore[arg-type]


def _edges(editor: GraphEditor, group: Group) -> Iterator[ops.Op]:
    padding = [(0, 0)] * len(editor.tensors[group[""].output].shape)
    for node in group.values():
        places = editor.constant(node, "indices")
        if not isinstance(node.op, ops.Gather) or places is None or places.data is None or not places.data.size:
            return
        before = int((places.data == 0).sum()) - 1
        after = places.data.size - before - (editor.tensors[node.inputs[0]].shape[node.op.axis] or 0)
        if node.op.axis >= len(padding) or min(before, after) < 0:
            return
        padding[node.op.axis] = (before, after)
    yield ops.Pad(padding=tuple(padding), mode="edge")


def _long_arg_max(editor: GraphEditor, group: Group) -> Iterator[ops.Op]:
    op: Any = group["/int32"].op if group.keys() == {"/int32", ""} else None
    if isinstance(op, ops.ArgMax):
        yield replace(op, dtype="int64")


GUESSES: tuple[Guess, ...] = (
    *(_blocks, _lrn, _hard_sigmoid, _padded, _conv_transpose, _resize),
    *(_edges, _long_arg_max),
)
