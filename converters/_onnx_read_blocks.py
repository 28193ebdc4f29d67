"""Rows of the operators that trade channels for positions, in both orders of channels.

Source: onnx/onnx, docs/Operators.md (DepthToSpace, SpaceToDepth). PyTorch's pixel shuffle is DepthToSpace in mode CRD.
"""

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.ops import known

from ._onnx_read_call import Call, Row, Value, require
from ._onnx_read_layers import channels_of
from ._onnx_read_sizes import check_size


def _depth_to_space(call: Call) -> Value:
    block, x = call.integer("blocksize", 0), call.image()
    mode = call.text("mode", "DCR")
    require(mode in ("DCR", "CRD"), "mode DCR or CRD", f"mode={mode}")
    channels = channels_of(call)
    if block < 1 or channels % (block * block):
        raise InputFileError(f"a blocksize that divides {channels} channels twice was wanted; found {block}")
    if mode == "CRD":
        check_size([channels])
        # Channel k b b + r b + c comes first where DCR has (r b + c) C + k.
        order = np.arange(channels).reshape(-1, block * block).T.ravel()
        x = call.emit(ops.Gather(axis=3), x, call.made("order", order, "int64"), suffix="ordered")
    return call.layer(ops.DepthToSpace(block=block), x)


def _space_to_depth(call: Call) -> Value:
    block, mode = call.integer("blocksize", 0), call.text("mode", "DCR")
    require(mode in ("DCR", "CRD"), "mode DCR or CRD", f"mode={mode}")
    if mode == "DCR":
        return call.layer(ops.SpaceToDepth(block=block), call.image())
    x = call.emit(ops.SpaceToDepth(block=block), call.image(), suffix="deep")
    check_size(call.shape_of(x)[3:])
    order = np.arange(known(call.shape_of(x)[3])).reshape(block * block, -1).T.ravel()
    return call.layer(ops.Gather(axis=3), x, call.made("order", order, "int64"))


ROWS: dict[str, Row] = {"DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth}
