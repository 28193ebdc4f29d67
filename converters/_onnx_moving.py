"""Rows of ONNX: the operators that move data."""

from collections.abc import Callable
from math import floor
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Node
from edgecnn.ops import known
from edgecnn.passes.hold_for_format import ChannelsFirst
from edgecnn.shapes import Shape

from ._onnx_emitter import OnnxEmitter
from ._onnx_layers import pads

ALMOST_ZERO = float(np.finfo(np.float32).tiny)
"""What zeros before a MaxPool are written as.

ONNX Runtime takes a Pad of zeros into the MaxPool behind it, whose own padding never wins: where a window holds
negative numbers only, it gives one of them and not zero. It leaves a Pad of any other number where it is.
Source: microsoft/onnxruntime, issue 24737 and core/optimizer/pad_fusion.cc; so in 1.31.1.
"""


def _pad(e: OnnxEmitter, node: Node) -> str:
    op: Any = node.op
    amounts = e.integers(f"{node.name}/padding", pads(op.padding))
    takers = [taker.op for taker in e.graph.nodes if node.output in taker.inputs]
    is_pooled = any(isinstance(each.op if isinstance(each, ChannelsFirst) else each, ops.MaxPool) for each in takers)
    number = ALMOST_ZERO if op.value == 0 and is_pooled and e.dtype(node) == "float32" else op.value
    value = [e.scalar(number, e.dtype(node))] if op.mode == "constant" else []
    return e.layer(node, "Pad", [e.operand(node), amounts, *value], mode=op.mode)


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
    return e.layer(node, "Slice", [e.operand(node), *inputs])


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
    attributes = {"coordinate_transformation_mode": op.coordinates}
    if op.method == "nearest":
        attributes["nearest_mode"] = "floor" if op.coordinates == "asymmetric" else "round_prefer_ceil"
    attributes["mode"] = {"nearest": "nearest", "bilinear": "linear"}[op.method]
    scales = _scales_of(op, e.graph.tensors[node.inputs[0]].shape[2:]) if batch is None else None
    if scales is not None:
        wanted = e.emit_constant(f"{node.name}/scales", np.asarray((1, 1, *scales), np.float32), "float32")
        return e.layer(node, "Resize", [e.operand(node), None, wanted], **attributes)
    fixed = [channels or 0, *op.size]
    if batch is None:
        counted = e.step(node, "Shape", [e.operand(node)], "batch", start=0, end=1)
        wanted = e.step(node, "Concat", [counted, e.integers(f"{node.name}/fixed", fixed)], "sizes", axis=0)
    else:
        wanted = e.integers(f"{node.name}/sizes", [batch, *fixed])
    return e.layer(node, "Resize", [e.operand(node), None, None, wanted], **attributes)


def _scales_of(op: ops.Resize, before: Shape) -> tuple[float, ...] | None:
    """Return the scales that give the sizes of a Resize, or None where rounding prevents it.

    They leave the batch open. (So does the attribute axes from opset 18 on, but ONNX Runtime 1.31 moves a Transpose
    across a Resize as if it had none, and then refuses the sizes.) ONNX Runtime multiplies in float32, the shape
    inference of onnx in float64: where that falls short, the next larger scale does no harm to a bilinear Resize; a
    nearest one would read other positions.
    """
    found = []
    for old, new in zip(map(known, before), op.size, strict=True):
        scale = np.float32(new / old)
        if float(scale) * old < new and op.method == "bilinear":
            scale = np.nextafter(scale, np.float32(np.inf))
        if {floor(float(scale) * old), floor(scale * np.float32(old))} != {new}:
            return None
        found.append(float(scale))
    return tuple(found)


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
