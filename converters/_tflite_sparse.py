"""Constants of a .tflite file that leave their zeros out: compressed rows, and back.

A sparse tensor is a tree, one level for each axis in the order of traversal: a dense level has a branch for each
position, a compressed one only those that its indices name, from segments[i] to segments[i + 1] for the i-th node
above. The values lie at the leaves. Further levels may cut axes into blocks.
Source: LiteRT, tflite/schema/schema.fbs, table SparsityParameters, and
tflite/kernels/internal/utils/sparsity_format_converter.cc.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError
from edgecnn.graph import Array

COMPRESSED = 1
"""DimensionType; 0 is dense. Source: schema.fbs."""

INDICES = {1: ("Int32Vector", np.int32), 2: ("Uint16Vector", np.uint16), 3: ("Uint8Vector", np.uint8)}
"""SparseIndexVector -> its table, and what that holds. Source: schema.fbs."""

MOST_LEVELS = 32

LEAST_SPARED, LEAST_SIZE = 0.5, 128
"""Share of zeros from which on a kernel is written sparse, and elements that it must have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One level of the tree.

    Attributes:
        size: Positions.
        stride: How far apart they lie in the dense tensor.
        segments: Of a compressed level; None for a dense one.
        indices: Of a compressed level.
    """

    size: int
    stride: int
    segments: Array | None = None
    indices: Array | None = None


def levels(sparsity: Any, shape: tuple[int, ...], schema: Any) -> list[Level]:
    """Return the tree of a sparse tensor's table.

    Raises:
        InputFileError: When its axes are not those of the shape.
    """
    order, blocks = (_numbers(each) for each in (sparsity.TraversalOrderAsNumpy(), sparsity.BlockMapAsNumpy()))
    rank, count = len(shape), sparsity.DimMetadataLength()
    is_known = sorted(order) == list(range(count)) and all(0 <= axis < rank for axis in blocks)
    if not is_known or count != rank + len(blocks) or len(set(blocks)) != len(blocks):
        raise InputFileError(f"the axes of {shape} in some order were wanted; got {order} and the blocks {blocks}")
    tables = [sparsity.DimMetadata(place) for place in range(count)]
    block = {axis: tables[rank + place].DenseSize() for place, axis in enumerate(blocks)}
    found = []
    for axis, table in zip(order, tables, strict=True):
        own = axis if axis < rank else blocks[axis - rank]
        if block.get(own, 1) < 1 or shape[own] % block.get(own, 1):
            raise InputFileError(f"blocks that divide {shape} were wanted; got {block}")
        size = shape[own] // block.get(own, 1) if axis < rank else block[own]
        stride = prod(shape[own + 1 :]) * (block.get(own, 1) if axis < rank else 1)
        found.append(_level(table, size, stride, schema))
    return found


def _numbers(found: Any) -> list[int]:
    return [] if isinstance(found, int) else [int(each) for each in found[:MOST_LEVELS]]


def _level(table: Any, size: int, stride: int, schema: Any) -> Level:
    if table.Format() != COMPRESSED:
        if table.DenseSize() != size:
            raise InputFileError(f"a dense axis of {size} was wanted; got {table.DenseSize()}")
        return Level(size=size, stride=stride)
    segments, indices = (
        _vector(union, kind, schema)
        for union, kind in (
            (table.ArraySegments(), table.ArraySegmentsType()),
            (table.ArrayIndices(), table.ArrayIndicesType()),
        )
    )
    return Level(size=size, stride=stride, segments=segments, indices=indices)


def _vector(union: Any, kind: int, schema: Any) -> Array:
    if kind not in INDICES or union is None:
        raise InputFileError(f"indices of 8, 16 or 32 bits were wanted; got type {kind}")
    vector = getattr(schema, INDICES[kind][0])()
    vector.Init(union.Bytes, union.Pos)
    values = vector.ValuesAsNumpy()
    return np.zeros(0, np.int64) if isinstance(values, int) else values.astype(np.int64)


def dense(values: Array, tree: list[Level], shape: tuple[int, ...]) -> Array:
    """Return the dense tensor.

    Raises:
        InputFileError: When the tree does not hold just the values, each within the shape.
    """
    places, most = np.zeros(1, np.int64), prod(shape)
    for level in tree:
        if level.segments is None or level.indices is None:
            if len(places) * level.size > most:
                raise InputFileError(f"at most {most} places were wanted; got more")
            places = (places[:, None] + np.arange(level.size) * level.stride).reshape(-1)
            continue
        counts = np.diff(level.segments)
        ends = (level.segments[:1].tolist(), level.segments[-1:].tolist())
        is_split = len(counts) == len(places) and ends == ([0], [len(level.indices)]) and not (counts < 0).any()
        if not is_split or (level.indices < 0).any() or (level.indices >= level.size).any():
            raise InputFileError(f"segments of indices below {level.size} were wanted; got others")
        places = np.repeat(places, counts) + level.indices * level.stride
    if len(places) != len(values):
        raise InputFileError(f"{len(places)} values were wanted; got {len(values)}")
    result = np.zeros(most, values.dtype)
    result[places] = values
    return result.reshape(shape)


def is_sparse(data: Array) -> bool:
    """Tell whether a constant is a pruned kernel (out, 1, 1, in), a convolution that XNNPACK runs sparse."""
    is_kernel = data.ndim == 4 and data.shape[0] > 1 and data.shape[1:3] == (1, 1)
    if not is_kernel or data.size < LEAST_SIZE or data.dtype.kind != "f":
        return False
    bits = data.view(f"u{data.dtype.itemsize}")
    return bool(0 < np.count_nonzero(bits) <= (1 - LEAST_SPARED) * data.size)


def compressed(data: Array, schema: Any) -> tuple[Array, Any]:
    """Return (values, table) of a tensor whose last axis is compressed; a negative zero is a value."""
    rows = data.view(f"u{data.dtype.itemsize}").reshape(-1, data.shape[-1]) != 0
    segments = np.concatenate([[0], np.cumsum(rows.sum(-1))])
    metadata = [schema.DimensionMetadataT(format=0, denseSize=size) for size in data.shape[:-1]]
    last = schema.DimensionMetadataT(format=COMPRESSED)
    last.arraySegmentsType, last.arraySegments = _table(segments, schema)
    last.arrayIndicesType, last.arrayIndices = _table(np.nonzero(rows)[1], schema)
    table = schema.SparsityParametersT(traversalOrder=list(range(data.ndim)), dimMetadata=[*metadata, last])
    return data.reshape(rows.shape)[rows], table


def _table(numbers: Array, schema: Any) -> tuple[int, Any]:
    """Return the narrowest vector that holds the numbers, and its type."""
    largest = int(numbers.max(initial=0))
    kind = 3 if largest < 1 << 8 else 2 if largest < 1 << 16 else 1
    name, dtype = INDICES[kind]
    return kind, getattr(schema, f"{name}T")(values=numbers.astype(dtype))
