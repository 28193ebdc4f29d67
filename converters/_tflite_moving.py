"""Rows of TFLite's operators that move data."""

from collections.abc import Callable
from typing import Any

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Node
from edgecnn.ops import known
from edgecnn.shapes import Shape

from ._tflite_emitter import Spec, TfliteEmitter
from ._tflite_padding import pad
from ._tflite_pieces import MOST_JOINED, cut, every, join, repeat
from ._tflite_windows import as_image, from_image


def _reshape(e: TfliteEmitter, node: Node) -> None:
    """RESHAPE, which is also how a port becomes another one unchanged."""
    e.reshaped(e.value(node.inputs[0]), node.output, e.shape(node.output), e.value(node.output))


def _transpose(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    e.transpose(e.value(node.inputs[0]), op.permutation, e.value(node.output), node.name)


def _concat(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    join(e, [e.value(name) for name in node.inputs], op.axis, e.value(node.output))


def _split(e: TfliteEmitter, node: Node) -> None:
    """SPLIT into 2 to 4 equal runs, which is what XNNPACK takes of it; else one SLICE for each, which it takes too."""
    op: Any = node.op
    source = e.value(node.inputs[0])
    if len(set(op.sizes)) == 1 and 2 <= len(op.sizes) <= 4:
        spec = Spec(kind="SPLIT", options="Split", fields={"numSplits": len(op.sizes)})
        axis = e.scalar(f"{node.name}/axis", op.axis, "int32")
        e.operator(spec, [axis, source], [e.value(name) for name in node.outputs])
        return
    begins = [0] * len(e.sizes(source))
    for name, size in zip(node.outputs, op.sizes, strict=True):
        cut(e, source, begins, e.value(name), name)
        begins[op.axis] += size


def _gather(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    spec = Spec(kind="GATHER", options="Gather", fields={"axis": op.axis})
    e.operator(spec, [e.value(name) for name in node.inputs], [e.value(node.output)])


def _tile(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    inputs = [e.value(node.inputs[0]), e.integers(f"{node.name}/multiples", op.multiples)]
    e.operator(Spec(kind="TILE", options="Tile"), inputs, [e.value(node.output)])


def _slice(e: TfliteEmitter, node: Node) -> None:
    """SLICE, which every delegate runs, where each step is 1; of one step along height and width, SPACE_TO_DEPTH."""
    op: Any = node.op
    source, output = e.value(node.inputs[0]), e.value(node.output)
    if set(op.step) == {1}:
        cut(e, source, op.begin, output, node.name)
        return
    if op.step == (1, op.step[1], op.step[1], 1) and e.dtype(source) in ("float32", "int8"):
        every(e, source, op.begin, op.step[1], output, node.name)
        return
    inputs = [source, e.integers(f"{node.name}/begin", op.begin)]
    open_ends = sum(1 << axis for axis, end in enumerate(op.end) if end is None)
    inputs.append(e.integers(f"{node.name}/end", [end or 0 for end in op.end]))
    inputs.append(e.integers(f"{node.name}/step", op.step))
    version = 4 if len(op.begin) > 4 else 1
    spec = Spec(kind="STRIDED_SLICE", options="StridedSlice", fields={"endMask": open_ends}, version=version)
    e.operator(spec, inputs, [output])


RESIZE = {
    "bilinear": ("RESIZE_BILINEAR", "ResizeBilinear", {"half_pixel"}),
    "nearest": ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighbor", {"half_pixel", "align_corners"}),
}
"""Method -> operator, its options, and the coordinates that need its version 3. Source: LiteRT, op_version.cc."""


def _resize(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    if len(op.size) > 2:
        raise UnsupportedError(f"{node.name}: tflite resizes 1 or 2 dimensions; got {len(op.size)}. Choose --to onnx.")
    factors = _whole_factors(op, e.shape(node.inputs[0])[1:-1])
    if factors is not None:
        repeat(e, e.value(node.inputs[0]), factors, e.value(node.output), node.name)
        return
    kind, options, later = RESIZE[op.method]
    source, _ = as_image(e, node)
    sizes = e.integers(f"{node.name}/sizes", (*(1,) * (2 - len(op.size)), *op.size))
    is_half, is_aligned = op.coordinates == "half_pixel", op.coordinates == "align_corners"
    fields = {"halfPixelCenters": is_half, "alignCorners": is_aligned}
    spec = Spec(kind=kind, options=options, fields=fields, version=3 if op.coordinates in later else 1)
    from_image(e, node, lambda output: e.operator(spec, [source, sizes], [output]))


def _whole_factors(op: ops.Resize, sizes: Shape) -> tuple[int, ...] | None:
    """Return how often a nearest neighbour resize repeats each position, or None where it does something else."""
    factors = tuple(new // known(old) for new, old in zip(op.size, sizes, strict=True))
    is_whole = op.size == tuple(known(old) * factor for old, factor in zip(sizes, factors, strict=True))
    is_repeating = op.method == "nearest" and op.coordinates != "align_corners" and 1 < max(factors) <= MOST_JOINED
    return factors if is_whole and is_repeating else None


def _blocks(kind: str, options: str) -> Callable[[TfliteEmitter, Node], None]:
    def emit(e: TfliteEmitter, node: Node) -> None:
        op: Any = node.op
        spec = Spec(kind=kind, options=options, fields={"blockSize": op.block})
        e.operator(spec, [e.value(node.inputs[0])], [e.value(node.output)])

    return emit


ROWS: dict[type[ops.Op], Callable[[TfliteEmitter, Node], None]] = {
    ops.Pad: pad,
    **dict.fromkeys((ops.Reshape, ops.Identity, ops.Dropout), _reshape),
    ops.Transpose: _transpose,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Split: _split,
    ops.Gather: _gather,
    ops.Tile: _tile,
    ops.Resize: _resize,
    ops.DepthToSpace: _blocks("DEPTH_TO_SPACE", "DepthToSpace"),
    ops.SpaceToDepth: _blocks("SPACE_TO_DEPTH", "SpaceToDepth"),
}
