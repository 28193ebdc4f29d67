"""What a constant's integers stand for, in a format's own order of axes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Tensor
from edgecnn.ops import known
from edgecnn.quantization.parameters import Quantization
from edgecnn.shapes import Shape


class Meaning(NamedTuple):
    """value = scale * (integer - zero_point), both broadcast; scalars where one scale holds for all.

    Attributes:
        scale: float32, of the data's rank, or a scalar.
        zero_point: Of the data's type and the scale's shape.
    """

    scale: Array
    zero_point: Array

    @property
    def axis(self) -> int | None:
        """The axis along which they differ; None where there is none.

        >>> Meaning(np.ones((4, 1, 1), np.float32), np.zeros((4, 1, 1), np.int8)).axis
        0
        """
        return next((axis for axis, size in enumerate(self.scale.shape) if size > 1), None)

    @property
    def is_along_one_axis(self) -> bool:
        """Tell whether a vector says it."""
        return max(self.scale.shape, default=1) == self.scale.size


def of_whole(tensor: Tensor) -> Quantization:
    """Return what the integers of a computed tensor stand for.

    Raises:
        UnsupportedError: When that differs from channel to channel.
    """
    found = tensor.quantization
    if found is None or found.axis is not None:
        raise UnsupportedError(
            f"{tensor.name}: one scale for all channels of an activation was wanted; "
            f"got {'none' if found is None else len(found.scale)}. Quantize it again."
        )
    return found


def meaning(quantization: Quantization, shape: Shape, arrange: Callable[[Array], Array] | None = None) -> Meaning:
    """Return what integers stand for.

    Args:
        quantization: In the Graph's order.
        shape: Of the constant in the Graph.
        arrange: Puts the constant's axes into the format's order; it may cut an axis in two, and pad with zeros.
    """
    scale = np.asarray(quantization.scale, np.float32)
    zero_point = np.asarray(quantization.zero_point, quantization.dtype)
    if quantization.axis is None or len(scale) == 1:
        return Meaning(scale.reshape(()), zero_point.reshape(()))
    # Each element's channel, counted from 1, goes the way of the data; an axis along which it stays is reduced to 1.
    channel = np.arange(1, len(scale) + 1).reshape(
        [-1 if axis == quantization.axis else 1 for axis in range(len(shape))]
    )
    spread = np.broadcast_to(channel, [known(size) for size in shape])
    spread = spread if arrange is None else arrange(spread)
    for axis in range(spread.ndim):
        first = spread.take([0], axis)
        if not np.any((spread != first) & (spread != 0)):
            spread = first
    return Meaning(scale[spread - 1], zero_point[spread - 1])
