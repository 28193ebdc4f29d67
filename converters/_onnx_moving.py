"""Rows of ONNX: the operators that move data."""

from collections.abc import Callable
from typing import Any

from edgecnn import ops
from edgecnn.graph import Node

from ._onnx_emitter import OnnxEmitter
from ._onnx_layers import pads


def _pad(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    amounts = e.integers(f"{node.name}/padding", pads(op.padding))
    value = [e.scalar(op.value, e.dtype(node))] if op.mode == "constant" else []
    return e.layer(node, "Pad", [e.operands(node)[0], amounts, *value], mode=op.mode)


def _reshape(e: OnnxEmitter, node: Node) -> str:
    sizes = e.integers(f"{node.name}/shape", e.sizes(node.output))
    return e.layer(node, "Reshape", [e.operand(node), sizes])


def _transpose(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return e.layer(node, "Transpose", e.operands(node), perm=op.permutation)


def _identity(e: OnnxEmitter, node: Node) -> str:
    return e.layer(node, "Identity", e.operands(node))


def _concat(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return e.layer(node, "Concat", e.operands(node), axis=op.axis)


def _slice(e: OnnxEmitter, node: Node) -> str:
    boxes = e.boxes(node)
    columns = {name: [box[place] for box in boxes] for place, name in enumerate(("begin", "end", "step"))}
    columns |= {"axes": list(range(len(boxes)))}
    order = ("begin", "end", "axes", "step")
    inputs = [e.integers(f"{node.name}/{name}", columns[name]) for name in order]
    return e.layer(node, "Slice", [e.operands(node)[0], *inputs])


def _split(e: OnnxEmitter, node: Node) -> list[str]:
    op: Any = node.op
    outputs = [e.value_name(output) for output in node.outputs]
    inputs = [*e.operands(node), e.integers(f"{node.name}/sizes", op.sizes)]
    e.add("Split", inputs, node.name, outputs, axis=op.axis)
    return outputs


def _gather(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return e.layer(node, "Gather", e.operands(node), axis=op.axis)


def _tile(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return e.layer(node, "Tile", [*e.operands(node), e.integers(f"{node.name}/multiples", op.multiples)])


def _resize(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    batch, channels, *_ = e.graph.tensors[node.output].shape
    sizes, attributes = list(op.size), {"coordinate_transformation_mode": op.coordinates}
    if op.method == "nearest":
        attributes["nearest_mode"] = "floor" if op.coordinates == "asymmetric" else "round_prefer_ceil"
    if batch is None:
        axes = {"axes": list(range(2, 2 + len(sizes)))}
    else:
        sizes, axes = [batch, channels or 0, *sizes], {}
    mode = {"nearest": "nearest", "bilinear": "linear"}[op.method]
    wanted = e.integers(f"{node.name}/sizes", sizes)
    return e.layer(node, "Resize", [e.operand(node), None, None, wanted], mode=mode, **attributes, **axes)


def _depth_to_space(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return e.layer(node, "DepthToSpace", [e.operand(node)], blocksize=op.block, mode="DCR")


def _space_to_depth(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    return e.layer(node, "SpaceToDepth", [e.operand(node)], blocksize=op.block)


ROWS: dict[type[ops.Op], Callable[[OnnxEmitter, Node], str | list[str]]] = {
    ops.Pad: _pad,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    **dict.fromkeys((ops.Identity, ops.Dropout), _identity),
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Split: _split,
    ops.Gather: _gather,
    ops.Tile: _tile,
    ops.Resize: _resize,
    ops.DepthToSpace: _depth_to_space,
    ops.SpaceToDepth: _space_to_depth,
}
"""Operator -> how it is written."""
