"""Readers of the layers that move data: padding, cropping, reshaping, resizing.

Source of the arguments and their meaning: Keras 3, https://keras.io/api/layers.
"""

from collections.abc import Sequence
from math import prod

from edgecnn import ops
from edgecnn.errors import InputFileError

from ._keras_call import LayerCall
from ._keras_json import show

METHODS = ("nearest", "bilinear")


def read_zero_padding(call: LayerCall) -> str:
    """Read ZeroPadding1D, 2D, 3D."""
    call.config.require_channels_last()
    return call.node(ops.Pad(padding=((0, 0), *call.config.pairs("padding", call.rank), (0, 0))), call.input)


def read_cropping(call: LayerCall) -> str:
    """Read Cropping1D, 2D, 3D."""
    call.config.require_channels_last()
    pairs = call.config.pairs("cropping", call.rank)
    boxes = [(before, size - after) for (before, after), size in zip(pairs, call.sizes[:-1], strict=True)]
    return _cut(call, boxes)


def _cut(call: LayerCall, boxes: Sequence[tuple[int, int]]) -> str:
    """Cut a box (begin, end) out of each spatial axis."""
    if any(begin >= end for begin, end in boxes):
        raise InputFileError(f"{call.config.where}: a crop that leaves something of {call.sizes} was wanted")
    begin, end = (0, *(box[0] for box in boxes), 0), (None, *(box[1] for box in boxes), call.sizes[-1])
    return call.node(ops.Slice(begin=begin, end=end, step=(1,) * len(begin)), call.input)


def read_center_crop(call: LayerCall) -> str:
    """Read CenterCrop of an image that is large enough (Keras resizes a smaller one)."""
    call.config.require_channels_last()
    wanted = (call.config.integer("height"), call.config.integer("width"))
    if len(call.sizes) != 3 or any(size < want for size, want in zip(call.sizes, wanted, strict=False)):
        raise call.refuse(f"an image of at least {wanted[0]}x{wanted[1]}", show(call.sizes))
    starts = [(size - want) // 2 for size, want in zip(call.sizes, wanted, strict=False)]
    return _cut(call, [(start, start + want) for start, want in zip(starts, wanted, strict=True)])


def read_up_sampling(call: LayerCall) -> str:
    """Read UpSampling1D, 2D, 3D: rows repeated ("nearest"), or interpolated ("bilinear", 2D)."""
    call.config.require_channels_last()
    factors = call.config.sizes("size", call.rank)
    size = tuple(n * factor for n, factor in zip(call.sizes[:-1], factors, strict=True))
    method = _method(call)
    coordinates = "asymmetric" if method == "nearest" else "half_pixel"
    return call.node(ops.Resize(size=size, method=method, coordinates=coordinates), call.input)  # type: ignore[arg-type]


def read_resizing(call: LayerCall) -> str:
    """Read Resizing."""
    call.config.require_channels_last()
    for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"):
        if call.config.flag(key, default=False):
            raise call.refuse(f"{key}=False", f"{key}=True")
    size = (call.config.integer("height"), call.config.integer("width"))
    return call.node(ops.Resize(size=size, method=_method(call, "bilinear")), call.input)  # type: ignore[arg-type]


def _method(call: LayerCall, default: str = "nearest") -> str:
    method = call.config.text("interpolation", default)
    if method not in METHODS:
        raise call.refuse(f"one of the interpolations {', '.join(METHODS)}", show(method))
    return method


def read_flatten(call: LayerCall) -> str:
    """Read Flatten."""
    call.config.require_channels_last()
    return call.node(ops.Reshape(shape=(call.shape[0], prod(call.sizes))), call.input)


def read_reshape(call: LayerCall) -> str:
    """Read Reshape; one size may be -1."""
    return call.node(reshaped(call, call.config.integers("target_shape", minimum=-1)), call.input)


def reshaped(call: LayerCall, sizes: Sequence[int]) -> ops.Reshape:
    """Return the Reshape to sizes without the batch, one of which may be -1."""
    known = prod(size for size in sizes if size != -1)
    if list(sizes).count(-1) > 1 or known == 0:
        raise InputFileError(f"{call.config.where}: sizes with at most one -1 were wanted; found {show(list(sizes))}")
    target = tuple(prod(call.sizes) // known if size == -1 else size for size in sizes)
    return ops.Reshape(shape=(call.shape[0], *target))


def read_permute(call: LayerCall) -> str:
    """Read Permute, whose axes count from 1 after the batch."""
    return call.node(ops.Transpose(permutation=(0, *call.config.integers("dims", minimum=1))), call.input)
