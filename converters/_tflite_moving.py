"""Rows of TFLite's operators that move data."""

from collections.abc import Callable
from typing import Any

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Node

from ._tflite_emitter import Spec, TfliteEmitter
from ._tflite_windows import as_image, from_image


def _pad(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    spec, inputs = e.padding(e.value(node.inputs[0]), node.name, op.padding, op.value)
    e.operator(spec, inputs, [e.value(node.output)])


def _reshape(e: TfliteEmitter, node: Node) -> None:
    e.reshaped(e.value(node.inputs[0]), node.output, e.shape(node.output), e.value(node.output))


def _transpose(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    e.transpose(e.value(node.inputs[0]), op.permutation, e.value(node.output), node.name)


def _concat(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    spec = Spec(kind="CONCATENATION", options="Concatenation", fields={"axis": op.axis})
    e.operator(spec, [e.value(name) for name in node.inputs], [e.value(node.output)])


def _slice(e: TfliteEmitter, node: Node) -> None:
    """SLICE, which every delegate runs, where each step is 1."""
    op: Any = node.op
    inputs, shape = [e.value(node.inputs[0]), e.integers(f"{node.name}/begin", op.begin)], e.shape(node.output)
    if set(op.step) == {1}:
        sizes = e.integers(f"{node.name}/size", [-1 if size is None else size for size in shape])
        spec = Spec(kind="SLICE", options="Slice", version=5 if len(shape) > 4 else 1)
        e.operator(spec, [*inputs, sizes], [e.value(node.output)])
        return
    open_ends = sum(1 << axis for axis, end in enumerate(op.end) if end is None)
    inputs.append(e.integers(f"{node.name}/end", [end or 0 for end in op.end]))
    inputs.append(e.integers(f"{node.name}/step", op.step))
    version = 4 if len(shape) > 4 else 1
    spec = Spec(kind="STRIDED_SLICE", options="StridedSlice", fields={"endMask": open_ends}, version=version)
    e.operator(spec, inputs, [e.value(node.output)])


RESIZE = {
    "bilinear": ("RESIZE_BILINEAR", "ResizeBilinear", {"half_pixel"}),
    "nearest": ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighbor", {"half_pixel", "align_corners"}),
}
"""Method -> operator, its options, and the coordinates that need its version 3. Source: LiteRT, op_version.cc."""


def _resize(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    if len(op.size) > 2:
        raise UnsupportedError(f"{node.name}: tflite resizes 1 or 2 dimensions; got {len(op.size)}. Choose --to onnx.")
    kind, options, later = RESIZE[op.method]
    source, _ = as_image(e, node)
    sizes = e.integers(f"{node.name}/sizes", (*(1,) * (2 - len(op.size)), *op.size))
    is_half, is_aligned = op.coordinates == "half_pixel", op.coordinates == "align_corners"
    fields = {"halfPixelCenters": is_half, "alignCorners": is_aligned}
    spec = Spec(kind=kind, options=options, fields=fields, version=3 if op.coordinates in later else 1)
    from_image(e, node, lambda output: e.operator(spec, [source, sizes], [output]))


def _blocks(kind: str, options: str) -> Callable[[TfliteEmitter, Node], None]:
    def emit(e: TfliteEmitter, node: Node) -> None:
        op: Any = node.op
        spec = Spec(kind=kind, options=options, fields={"blockSize": op.block})
        e.operator(spec, [e.value(node.inputs[0])], [e.value(node.output)])

    return emit


ROWS: dict[type[ops.Op], Callable[[TfliteEmitter, Node], None]] = {
    ops.Pad: _pad,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Resize: _resize,
    ops.DepthToSpace: _blocks("DEPTH_TO_SPACE", "DepthToSpace"),
    ops.SpaceToDepth: _blocks("SPACE_TO_DEPTH", "SpaceToDepth"),
}
