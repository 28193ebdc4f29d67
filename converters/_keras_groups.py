"""Operators that Keras has no layer for, as groups of operators that it has, and back.

A node "y" becomes nodes "y/...", of which the last is named "y". The reader folds a group only where writing the folded
operator again gives exactly these nodes, so that nothing of a user's model is taken for something else.

    DepthToSpace      reshape, transpose, reshape
    LRN               x / (bias + alpha * (sum of shifted slices of x * x)) ** beta
    HardSigmoid       clip(slope * x + offset), for slopes that Keras does not have
    Conv, MaxPool     pad, then the window without padding (max pooling pads with the smallest number)
    AveragePool       pad, pool, times window / (positions that are no padding), which count_include_pad leaves away
    Conv, strided and dilated   every stride-th position of the convolution with stride 1
    ConvTranspose     the whole transposed convolution, then a slice
    Resize            along each axis, a product with the matrix of its weights, which is not trained
    Pad of the edge   along each axis, the positions that it repeats
    ArgMax of int64   int32, cast
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node
from edgecnn.kernels import evaluate
from edgecnn.passes import fold_reshape_into_slice
from edgecnn.passes.editor import GraphEditor
from edgecnn.shapes import Padding, Shape, effective_kernel_size, output_size

from ._keras_writers import named_padding, transposed_names

SMALLEST = float(np.finfo(np.float32).min)
"""What max pooling pads with."""

Operand = str | Array
"""Of a part: "input", ":kernel" (an operand of the node), "/square" (another part), or a constant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One node of a group; the suffix goes behind the node's name."""

    suffix: str
    op: ops.Op
    inputs: tuple[Operand, ...]


Parts = tuple[Part, ...]
Expansion = Callable[[Any, tuple[Shape, ...]], Parts]
"""(operator, shapes of its operands) -> parts, or () where Keras has a layer."""


def _chain(*steps: tuple[str, ops.Op]) -> Parts:
    """Return parts that each take the one before."""
    before = ("input", *(suffix for suffix, _ in steps))
    return tuple(Part(suffix=suffix, op=op, inputs=(x,)) for (suffix, op), x in zip(steps, before, strict=False))


def _depth_to_space(op: ops.DepthToSpace, shapes: tuple[Shape, ...]) -> Parts:
    _, height, width, channels = (size or 0 for size in shapes[0])
    split = (shapes[0][0], height, width, op.block, op.block, channels // op.block**2)
    (joined,) = op.output_shapes(shapes)
    turned = ops.Transpose(permutation=(0, 1, 3, 2, 4, 5))
    return _chain(("/split", ops.Reshape(shape=split)), ("/turned", turned), ("", ops.Reshape(shape=joined)))


def _space_to_depth(op: ops.SpaceToDepth, shapes: tuple[Shape, ...]) -> Parts:
    _, height, width, channels = (size or 0 for size in shapes[0])
    split = (shapes[0][0], height // op.block, op.block, width // op.block, op.block, channels)
    (joined,) = op.output_shapes(shapes)
    turned = ops.Transpose(permutation=(0, 1, 3, 2, 4, 5))
    return _chain(("/split", ops.Reshape(shape=split)), ("/turned", turned), ("", ops.Reshape(shape=joined)))


def _lrn(op: ops.LRN, shapes: tuple[Shape, ...]) -> Parts:
    shape, half = shapes[0], op.size // 2
    sizes, rank = tuple(size or 0 for size in shape), len(shape)
    parts = [
        Part(suffix="/square", op=ops.Mul(), inputs=("input", "input")),
        Part(suffix="/wide", op=ops.Pad(padding=(*((0, 0),) * (rank - 1), (half, half))), inputs=("/square",)),
    ]
    for shift in range(op.size):
        end = (None, *sizes[1:-1], shift + sizes[-1])
        box = ops.Slice(begin=(*(0,) * (rank - 1), shift), end=end, step=(1,) * rank)
        parts.append(Part(suffix=f"/shift_{shift}", op=box, inputs=("/wide",)))
    total = "/shift_0"
    for shift in range(1, op.size):
        parts.append(Part(suffix=f"/sum_{shift}", op=ops.Add(), inputs=(total, f"/shift_{shift}")))
        total = f"/sum_{shift}"
    return (
        *parts,
        Part(suffix="/scaled", op=ops.Mul(), inputs=(total, _number(op.alpha))),
        Part(suffix="/moved", op=ops.Add(), inputs=("/scaled", _number(op.bias))),
        Part(suffix="/norm", op=ops.Pow(), inputs=("/moved", _number(op.beta))),
        Part(suffix="", op=ops.Div(), inputs=("input", "/norm")),
    )


def _number(value: float) -> Array:
    return np.asarray(value, np.float32)


def _hard_sigmoid(op: ops.HardSigmoid, shapes: tuple[Shape, ...]) -> Parts:
    if op == ops.HardSigmoid():
        return ()
    return (
        Part(suffix="/scaled", op=ops.Mul(), inputs=("input", _number(op.slope))),
        Part(suffix="/moved", op=ops.Add(), inputs=("/scaled", _number(op.offset))),
        Part(suffix="", op=ops.Clip(minimum=0.0, maximum=1.0), inputs=("/moved",)),
    )


def _around(padding: Padding, value: float = 0.0) -> ops.Pad:
    return ops.Pad(padding=((0, 0), *padding, (0, 0)), value=value)


def _conv(op: ops.Conv, shapes: tuple[Shape, ...]) -> Parts:
    rank, kernel = len(op.stride), tuple(size or 0 for size in shapes[1])
    sizes = tuple(size or 0 for size in shapes[0][1:])
    operands = (":kernel", ":bias")[: len(shapes) - 1]
    is_strided = max(op.stride) > 1 and max(op.dilation) > 1
    if not is_strided and named_padding(op.padding, sizes, kernel[:rank], op.stride, op.dilation) is not None:
        return ()
    bare = replace(op, padding=((0, 0),) * rank)
    pad = Part(suffix="/pad", op=_around(op.padding), inputs=("input",))
    if not is_strided:
        return (pad, Part(suffix="", op=bare, inputs=("/pad", *operands)))
    dense = tuple(
        output_size(n, f, padding=p, dilation=d)
        for n, f, p, d in zip(sizes, kernel, op.padding, op.dilation, strict=False)
    )
    every = ops.Slice(begin=(0,) * (rank + 2), end=(None, *dense, kernel[-1]), step=(1, *op.stride, 1))
    whole = replace(bare, stride=(1,) * rank)
    return (
        pad,
        Part(suffix="/every", op=whole, inputs=("/pad", *operands)),
        Part(suffix="", op=every, inputs=("/every",)),
    )


def _max_pool(op: ops.MaxPool, shapes: tuple[Shape, ...]) -> Parts:
    if _is_named(op, shapes[0]):
        return ()
    bare = replace(op, padding=((0, 0),) * len(op.padding))
    return _chain(("/pad", _around(op.padding, SMALLEST)), ("", bare))


def _average_pool(op: ops.AveragePool, shapes: tuple[Shape, ...]) -> Parts:
    if not any(map(any, op.padding)) or (not op.count_include_pad and _is_named(op, shapes[0])):
        return ()
    bare = replace(op, padding=((0, 0),) * len(op.padding), count_include_pad=False)
    if op.count_include_pad:
        return _chain(("/pad", _around(op.padding)), ("", bare))
    bare = replace(bare, activation=None)
    inside = np.ones((1, *(size or 0 for size in shapes[0][1:-1]), 1), np.float32)
    share = evaluate(bare, [np.pad(inside, ((0, 0), *op.padding, (0, 0)))])
    pooled = _chain(("/pad", _around(op.padding)), ("/pool", bare))
    return (
        *pooled,
        Part(suffix="", op=ops.Mul(activation=op.activation), inputs=("/pool", (1 / share).astype(np.float32))),
    )


def _is_named(op: ops.MaxPool | ops.AveragePool, shape: Shape) -> bool:
    sizes = tuple(size or 0 for size in shape[1:])
    return named_padding(op.padding, sizes, op.kernel_size, op.stride, (1,) * len(op.stride)) is not None


def _pad(op: ops.Pad, shapes: tuple[Shape, ...]) -> Parts:
    """Positions along each axis that an edge is repeated on: tf.pad has no mode for it."""
    padded = [axis for axis, pair in enumerate(op.padding) if any(pair)]
    if op.mode != "edge" or 0 in padded:
        return ()
    parts: list[Part] = []
    x = "input"
    for axis in padded:
        (before, after), size = op.padding[axis], shapes[0][axis] or 0
        places = np.arange(-before, size + after).clip(0, size - 1)
        suffix = "" if axis == padded[-1] else f"/along_{axis}"
        parts.append(Part(suffix=suffix, op=ops.Gather(axis=axis), inputs=(x, places)))
        x = suffix
    return tuple(parts)


def _arg_max(op: ops.ArgMax, shapes: tuple[Shape, ...]) -> Parts:
    if op.dtype == "int32":
        return ()
    return _chain(("/int32", replace(op, dtype="int32")), ("", ops.Cast(dtype=op.dtype)))


def _conv_transpose(op: ops.ConvTranspose, shapes: tuple[Shape, ...]) -> Parts:
    kernel = tuple(size or 0 for size in shapes[1])
    if op.groups > 1 or transposed_names(op, kernel) is not None:
        return ()
    rank, spans = len(op.stride), [effective_kernel_size(f, d) for f, d in zip(kernel, op.dilation, strict=False)]
    extra = tuple(max(s - span, 0) for s, span in zip(op.stride, spans, strict=True))
    whole = replace(op, padding=((0, 0),) * rank, output_padding=extra)
    ((_, *sizes, channels),) = op.output_shapes(shapes)
    begin = (0, *(before for before, _ in op.padding), 0)
    end = (None, *(first + (size or 0) for first, size in zip(begin[1:], sizes, strict=False)), channels)
    box = ops.Slice(begin=begin, end=end, step=(1,) * (rank + 2))
    operands = (":kernel", ":bias")[: len(shapes) - 1]
    ((_, *reached, _),) = whole.output_shapes(shapes)
    if all(ops.known(last) <= ops.known(size) for last, size in zip(end[1:-1], reached, strict=True)):
        source: tuple[Part, ...] = ()
    else:  # output_padding beyond the kernel's reach: a position of zeros more gives what is wanted there, the bias
        source = (Part(suffix="/longer", op=ops.Pad(padding=((0, 0), *((0, 1),) * rank, (0, 0))), inputs=("input",)),)
    cut = Part(suffix="", op=box, inputs=("/whole",))
    return (*source, Part(suffix="/whole", op=whole, inputs=("/longer" if source else "input", *operands)), cut)


def _resize(op: ops.Resize, shapes: tuple[Shape, ...]) -> Parts:
    sizes = tuple(size or 0 for size in shapes[0][1:-1])
    is_whole = op.method == "nearest" and not any(new % old for new, old in zip(op.size, sizes, strict=True))
    if (op.coordinates == "half_pixel" and len(sizes) == 2) or (op.coordinates == "asymmetric" and is_whole):
        return ()
    parts: list[Part] = []
    x, rank = "input", len(sizes)
    for axis, (old, new) in enumerate(zip(sizes, op.size, strict=True), start=1):
        order = [rank + 1 if each == axis else axis if each == rank + 1 else each for each in range(rank + 2)]
        turn = ops.Transpose(permutation=tuple(order))
        along = ops.Resize(size=(new,), method=op.method, coordinates=op.coordinates)
        matrix = np.ascontiguousarray(evaluate(along, [np.eye(old, dtype=np.float32)[None]])[0].T)
        last = "" if axis == rank else f"/back_{axis}"
        parts += [
            Part(suffix=f"/turned_{axis}", op=turn, inputs=(x,)),
            Part(suffix=f"/resized_{axis}", op=ops.Dense(), inputs=(f"/turned_{axis}", matrix)),
            Part(suffix=last, op=turn, inputs=(f"/resized_{axis}",)),
        ]
        x = last
    return tuple(parts)


EXPANSIONS: Mapping[type[ops.Op], Expansion] = {
    ops.DepthToSpace: _depth_to_space,
    ops.SpaceToDepth: _space_to_depth,
    ops.LRN: _lrn,
    ops.HardSigmoid: _hard_sigmoid,
    ops.Conv: _conv,
    ops.MaxPool: _max_pool,
    ops.AveragePool: _average_pool,
    ops.ConvTranspose: _conv_transpose,
    ops.Resize: _resize,
    ops.Pad: _pad,
    ops.ArgMax: _arg_max,
}
"""Operator -> its group."""


def expand(op: ops.Op, shapes: tuple[Shape, ...]) -> Parts:
    """Return the group of an operator, or () where Keras has a layer for it."""
    return EXPANSIONS[type(op)](op, shapes) if type(op) in EXPANSIONS else ()


def lowered(graph: Graph) -> Graph:
    """Return the Graph with groups in place of the operators that Keras has no layer for."""
    graph = fold_reshape_into_slice.PASS(graph).graph  # a shuffle written through the batch, which Keras keeps apart
    groups = {node.name: expand(node.op, graph.shapes(node.inputs)) for node in graph.nodes}
    if not any(groups.values()):
        return graph
    editor = GraphEditor(graph)
    for node in graph.nodes:
        if groups[node.name]:
            _put_group(editor, node, groups[node.name])
    return editor.finish()


def _put_group(editor: GraphEditor, node: Node, parts: Parts) -> None:
    for part in parts:
        name = f"{node.name}{part.suffix}"
        inputs = []
        for index, operand in enumerate(part.inputs):
            if isinstance(operand, str):
                inputs.append(_tensor(node, operand))
            else:
                inputs.append(editor.add_constant(f"{name}/operand_{index}", operand))
        outputs = node.outputs if part.suffix == "" else (name,)
        editor.put(Node(name=name, op=part.op, inputs=tuple(inputs), outputs=outputs))


def _tensor(node: Node, operand: str) -> str:
    if operand == "input":
        return node.inputs[0]
    return node.operand(operand[1:]) or "" if operand.startswith(":") else f"{node.name}{operand}"
