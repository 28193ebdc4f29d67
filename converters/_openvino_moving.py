"""Rows of OpenVINO: the operators that move data."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Node

from ._ir_xml import Value
from ._openvino_emitter import OpenvinoEmitter

MOST_COPIES = 16
"""Of a tensor that one Concat joins."""


def _pad(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    inputs = [
        *e.operands(node),
        *(
            e.integers(f"{node.name}/{end}", list(column))
            for end, column in zip(("before", "after"), zip(*op.padding, strict=True), strict=True)
        ),
    ]
    if op.mode == "constant":
        if e.is_quantized and not float(op.value).is_integer():
            raise UnsupportedError(
                f"{node.name}: openvino: a whole number to pad integers with was wanted, since OpenVINO 2026.4 cuts "
                f"off its fraction; got {op.value:g}. Choose --to onnx or tflite."
            )
        dtype = e.graph.tensors[node.output].dtype
        inputs.append(e.emit_constant(f"{node.name}/value", np.asarray(op.value, dtype), dtype))
    return e.layer(node, "Pad", inputs, pad_mode=op.mode)


def _reshape(e: OpenvinoEmitter, node: Node) -> Value:
    sizes = e.integers(f"{node.name}/shape", e.sizes(node.output))
    return e.layer(node, "Reshape", [e.operand(node), sizes], special_zero=False)


def _transpose(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    return e.layer(node, "Transpose", [e.operand(node), e.integers(f"{node.name}/order", op.permutation)])


def _identity(e: OpenvinoEmitter, node: Node) -> Value:
    """A conversion to the type that the value has, which the runtime drops."""
    return e.layer(node, "Convert", e.operands(node), destination_type=e.stored(node.output)[0])


def _concat(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    return e.layer(node, "Concat", e.operands(node), axis=op.axis)


def _slice(e: OpenvinoEmitter, node: Node) -> Value:
    columns = zip(*e.boxes(node), strict=True)
    inputs = [
        e.integers(f"{node.name}/{name}", list(c)) for name, c in zip(("begin", "end", "step"), columns, strict=True)
    ]
    zeros = (0,) * len(e.graph.tensors[node.output].shape)
    masks: dict[str, Any] = {f"{name}_mask": zeros for name in ("begin", "end", "new_axis", "shrink_axis", "ellipsis")}
    return e.layer(node, "StridedSlice", [e.operand(node), *inputs], **masks)


def _split(e: OpenvinoEmitter, node: Node) -> list[Value]:
    op: Any = node.op
    axis = e.integer(f"{node.name}/axis", op.axis)
    inputs = [*e.operands(node), axis, e.integers(f"{node.name}/sizes", op.sizes)]
    return e.add_of("VariadicSplit", node.name, inputs, [e.stored(output) for output in node.outputs])


def _gather(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    return e.layer(node, "Gather", [*e.operands(node), e.integer(f"{node.name}/axis", op.axis)])


def _tile(e: OpenvinoEmitter, node: Node) -> Value:
    """Copies joined, axis by axis: OpenVINO 2026.4's Tile mixes up the elements of an image of one channel where the
    batch is symbolic and the layer before it is one that it does not fuse (Sin, say). Very many stay a Tile.
    """
    op: Any = node.op
    if max(op.multiples) > MOST_COPIES:
        return e.layer(node, "Tile", [*e.operands(node), e.integers(f"{node.name}/multiples", op.multiples)])
    value = e.operand(node)
    for axis, times in enumerate(op.multiples):
        if times > 1:
            dims = (*value.dims[:axis], (value.dims[axis] or 0) * times, *value.dims[axis + 1 :])
            name = e.free(f"{node.name}/axis_{axis}")
            value = e.add("Concat", name, [value] * times, (value.element, dims), axis=axis)
    return value


def _resize(e: OpenvinoEmitter, node: Node) -> Value:
    op: Any = node.op
    rank, x = len(op.size), e.operand(node)
    sizes, axes = e.integers(f"{node.name}/sizes", op.size), e.integers(f"{node.name}/axes", range(2, 2 + rank))
    before = e.graph.tensors[node.inputs[0]].shape[2:]
    ratios = np.asarray([size / (n or 1) for size, n in zip(op.size, before, strict=True)], np.float32)
    return e.layer(
        node,
        "Interpolate",
        [x, sizes, e.emit_constant(f"{node.name}/scales", ratios, "float32"), axes],
        mode={"nearest": "nearest", "bilinear": "linear_onnx"}[op.method],
        shape_calculation_mode="sizes",
        coordinate_transformation_mode=op.coordinates,
        nearest_mode="floor" if op.coordinates == "asymmetric" else "round_prefer_ceil",
        antialias=False,
        pads_begin=(0,) * (rank + 2),
        pads_end=(0,) * (rank + 2),
        cube_coeff=-0.75,
    )


def _blocks(kind: str) -> Callable[[OpenvinoEmitter, Node], Value]:
    def emit(e: OpenvinoEmitter, node: Node) -> Value:
        op: Any = node.op
        return e.layer(node, kind, [e.operand(node)], mode="blocks_first", block_size=op.block)

    return emit


ROWS: dict[type[ops.Op], Callable[[OpenvinoEmitter, Node], Value | list[Value]]] = {
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
    ops.DepthToSpace: _blocks("DepthToSpace"),
    ops.SpaceToDepth: _blocks("SpaceToDepth"),
}
"""Operator -> how it is written."""
