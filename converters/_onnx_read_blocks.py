"""Rows of the operators that trade channels for positions, in both orders of channels.

Source: onnx/onnx, docs/Operators.md (DepthToSpace, SpaceToDepth). PyTorch's pixel shuffle is DepthToSpace in mode CRD.
"""

from collections.abc import Callable

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.ops import known
from edgecnn.shapes import Shape

from ._onnx_read_call import Call, Row, require
from ._onnx_read_layers import channels_of
from ._onnx_read_sizes import check_size
from ._onnx_read_state import Value

MODES = ("DCR", "CRD")
"""Orders of channels: depth, column, row as TFLite has them, or PyTorch's."""


def _depth_to_space(call: Call) -> Value:
    block, mode, channels = call.integer("blocksize", 0), call.text("mode", "DCR"), channels_of(call)
    require(mode in MODES, "mode DCR or CRD", f"mode={mode}")
    if block < 1 or channels % (block * block):
        raise InputFileError(f"a blocksize that divides {channels} channels twice was wanted; found {block}")
    return _to_space(call, call.image(), block, mode)


def _to_space(call: Call, x: str, block: int, mode: str) -> str:
    if mode == "CRD":
        channels = known(call.shape_of(x)[3])
        check_size([channels])
        # Channel k b b + r b + c comes first where DCR has (r b + c) C + k.
        order = np.arange(channels).reshape(-1, block * block).T.ravel()
        x = call.emit(ops.Gather(axis=3), x, call.made("order", order, "int64"), suffix="ordered")
    return call.layer(ops.DepthToSpace(block=block), x)


def _space_to_depth(call: Call) -> Value:
    block, mode = call.integer("blocksize", 0), call.text("mode", "DCR")
    require(mode in MODES, "mode DCR or CRD", f"mode={mode}")
    return _to_depth(call, call.image(), block, mode)


def _to_depth(call: Call, x: str, block: int, mode: str) -> str:
    if mode == "DCR":
        return call.layer(ops.SpaceToDepth(block=block), x)
    x = call.emit(ops.SpaceToDepth(block=block), x, suffix="deep")
    check_size(call.shape_of(x)[3:])
    order = np.arange(known(call.shape_of(x)[3])).reshape(block * block, -1).T.ravel()
    return call.layer(ops.Gather(axis=3), x, call.made("order", order, "int64"))


Move = Callable[[Call, str, int, str], str]
BY_HAND: dict[tuple[int, ...], tuple[Move, str, tuple[int, int]]] = {
    (0, 1, 3, 5, 2, 4): (_to_depth, "CRD", (3, 5)),
    (0, 3, 5, 1, 2, 4): (_to_depth, "DCR", (3, 5)),
    (0, 1, 4, 2, 5, 3): (_to_space, "CRD", (2, 3)),
    (0, 3, 4, 1, 5, 2): (_to_space, "DCR", (1, 2)),
}
"""Permutation of (N, C, H, W) and both blocks -> what it does, the order of channels, which axes the blocks are."""


def moved_by_hand(call: Call, shape: Shape) -> str | None:
    """Return what a Reshape behind Reshape and Transpose is where they move blocks, as PyTorch's pixel unshuffle does.

    Args:
        call: The last Reshape.
        shape: That it gives.
    """
    origins = call.reading.origins
    kind, transposed = origins.get(call.tensor(0), ("", ()))
    row = BY_HAND.get(transposed[1]) if kind == "Transpose" else None
    if row is None:
        return None
    move, mode, axes = row
    sizes = call.shape_of(transposed[0])
    kind, source = origins.get(transposed[0], ("", ()))
    block = known(sizes[axes[0]])
    if kind != "Reshape" or block < 2 or sizes[axes[1]] != block:
        return None
    batch, *rest = (size for axis, size in enumerate(sizes) if axis not in axes)
    channels, height, width = map(known, rest)
    few, many = (batch, channels, height * block, width * block), (batch, channels * block**2, height, width)
    before, after = (few, many) if move is _to_depth else (many, few)
    if call.shape_of(source[0]) != before or shape != after:
        return None
    return move(call, call.last(source[0]), block, mode)


ROWS: dict[str, Row] = {"DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth}
