"""Cut and join TFLite tensors the way that XNNPACK takes: SLICE, and CONCATENATION of at most five."""

from collections.abc import Sequence
from math import prod

from edgecnn.ops import known

from ._tflite_emitter import Spec, TfliteEmitter

MOST_JOINED = 5
"""Inputs of a CONCATENATION that XNNPACK takes. Source: LiteRT, tflite/delegates/xnnpack/xnnpack_delegate.cc."""


def cut(e: TfliteEmitter, source: int, begin: Sequence[int], output: int, name: str) -> None:
    """Fill a tensor by SLICE; five axes need version 5. Source: LiteRT, op_version.cc."""
    sizes = [-1 if size is None else size for size in e.sizes(output)]
    inputs = [source, e.integers(f"{name}/begin", begin), e.integers(f"{name}/size", sizes)]
    e.operator(Spec(kind="SLICE", options="Slice", version=5 if len(sizes) > 4 else 1), inputs, [output])


def run(e: TfliteEmitter, source: int, axis: int, begin: int, size: int, name: str) -> int:
    """Return the positions begin .. begin + size - 1 of one axis."""
    shape = e.sizes(source)
    output = e.tensor(name, (*shape[:axis], size, *shape[axis + 1 :]), e.elements(source))
    cut(e, source, [begin if each == axis else 0 for each in range(len(shape))], output, name)
    return output


def join(e: TfliteEmitter, pieces: Sequence[int], axis: int, output: int) -> None:
    """Fill a tensor by CONCATENATION; of more than five pieces, the neighbours that hold least are joined first.

    XNNPACK leaves more than five to a kernel outside, which takes the network apart. Six and eight convolutions of
    26 x 26 x 16 joined, one thread of an AVX-512 CPU: 66 and 91 us with two CONCATENATIONs, 70 and 96 us with one.
    """
    spec = Spec(kind="CONCATENATION", options="Concatenation", fields={"axis": axis})
    pieces, shape = list(pieces), e.sizes(output)
    while len(pieces) > MOST_JOINED:
        count = min(MOST_JOINED, len(pieces) - MOST_JOINED + 1)
        sizes = [known(e.sizes(piece)[axis]) for piece in pieces]
        first = min(range(len(pieces) - count + 1), key=lambda i: sum(sizes[i : i + count]))
        chosen = slice(first, first + count)
        part = (*shape[:axis], sum(sizes[chosen]), *shape[axis + 1 :])
        pieces[chosen] = [e.step(f"{e.label(output)}/{len(pieces)}", part, spec, pieces[chosen], e.elements(output))]
    e.operator(spec, pieces, [output])


def repeat(e: TfliteEmitter, source: int, factors: Sequence[int], output: int, name: str) -> None:
    """Repeat each position of the axes between batch and channels: nearest neighbour resizing by whole factors.

    XNNPACK has no RESIZE_NEAREST_NEIGHBOR. But with everything behind an axis seen as one row of numbers, repeating is
    a CONCATENATION of the rows with themselves, and RESHAPE is free. Twice the size, between two 1 x 1 convolutions,
    one thread of an AVX-512 CPU: 13 x 13 x 128 111 us (the operator 108, DEPTH_TO_SPACE of four copies 116),
    26 x 26 x 64 177 us (185, 191), 80 x 80 x 64 2.02 ms (1.85, 2.67).

    Args:
        e: The emitter.
        source: (N, sizes..., C).
        factors: Repetitions of each axis between N and C, at most MOST_JOINED.
        output: (N, factor * size..., C).
        name: The node's.
    """
    batch, *sizes = e.sizes(source)
    for axis in reversed([axis for axis, factor in enumerate(factors) if factor > 1]):
        head, row = (batch, *sizes[: axis + 1]), prod(map(known, sizes[axis + 1 :]))
        if e.sizes(source) != (*head, row):
            source = e.reshaped(source, f"{name}/rows_{axis}", (*head, row))
        joined = e.tensor(f"{name}/repeated_{axis}", (*head, row * factors[axis]), e.elements(source))
        join(e, [source] * factors[axis], len(head), joined)
        source, sizes[axis] = joined, known(sizes[axis]) * factors[axis]
    e.reshaped(source, name, e.sizes(output), output)


def every(e: TfliteEmitter, source: int, begin: Sequence[int], stride: int, output: int, name: str) -> None:
    """Fill `output` with every stride-th position of an image, from (N, height, width, C) begin on.

    XNNPACK takes no STRIDED_SLICE with steps above 1 (nor a MAX_POOL_2D of one position), but SPACE_TO_DEPTH: what is
    wanted are the channels of one position of each block. ResNet-20's two, one thread of an AVX-512 CPU: one partition
    and 0.82 ms for the network, three and 0.85 ms with STRIDED_SLICE.
    """
    batch, *sizes, channels = e.sizes(source)
    rest = [-known(n) % stride for n in sizes]
    if any(rest):
        around = ((0, 0), *((0, n) for n in rest), (0, 0))
        source = e.padded(source, name, e.sizes(source), around)
    blocks = [known(n) // stride for n in e.sizes(source)[1:3]]
    joined = (batch, *blocks, stride * stride * known(channels))
    spec = Spec(kind="SPACE_TO_DEPTH", options="SpaceToDepth", fields={"blockSize": stride})
    source = e.step(f"{name}/blocks", joined, spec, [source], e.elements(source))
    row, column = (first % stride for first in begin[1:3])
    first = (row * stride + column) * known(channels) + begin[3]
    cut(e, source, (begin[0], begin[1] // stride, begin[2] // stride, first), output, name)
