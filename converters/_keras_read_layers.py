"""Readers of the layers that join, normalise, move or pass on: each takes one call and returns the output tensor.

Source of the arguments and their meaning: Keras 3, https://keras.io/api/layers. Tensors are channels-last in both
worlds, so most layers are one node with the same numbers.
"""

from collections.abc import Callable

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError, UnsupportedError

from ._keras_call import LONGEST, LayerCall, Parameter
from ._keras_json import show
from ._keras_read_activations import activated
from ._keras_read_windows import bias


def read_input(call: LayerCall) -> str:
    """Read InputLayer: float32, with sizes that are known but for the batch."""
    wanted = "[batch or null, sizes...]"
    shape = call.config.values.get("batch_shape", call.config.values.get("batch_input_shape"))
    if not isinstance(shape, list) or not 2 <= len(shape) <= LONGEST:
        raise InputFileError(f"{call.config.where}: batch_shape: {wanted} was wanted; found {show(shape)}")
    if None in shape[1:]:
        raise UnsupportedError(
            f"{call.config.where}: only the batch may be open; found {show(shape)}. Save the model with a fixed size."
        )
    sizes = call.config.check_integers("batch_shape", [size or 1 for size in shape], minimum=1)
    return call.builder.input(call.name, (shape[0], *sizes[1:]))


def read_dense(call: LayerCall) -> str:
    """Read Dense."""
    units = call.config.integer("units")
    kernel = Parameter(name="kernel", file_shape=(call.sizes[-1], units))
    return activated(call, call.node(ops.Dense(), call.input, *call.parameters(kernel, *bias(call, units))))


def _scale_and_centre(call: LayerCall) -> tuple[Parameter, Parameter]:
    """Return gamma and beta; without center or scale, beta is 0 or gamma is 1."""
    shape = call.sizes[-1:]
    return (
        Parameter(name="gamma", file_shape=shape, fill=None if call.config.flag("scale", default=True) else 1.0),
        Parameter(name="beta", file_shape=shape, fill=None if call.config.flag("center", default=True) else 0.0),
    )


def _require_last_axis(call: LayerCall) -> None:
    rank, config = len(call.shape), call.config
    axis = config.integers("axis", minimum=-rank) if "axis" in config.values else (-1,)
    if axis not in ((-1,), (rank - 1,)):
        raise call.refuse("statistics over the last axis", f"axis={axis[0] if len(axis) == 1 else show(list(axis))}")


def read_batch_norm(call: LayerCall) -> str:
    """Read BatchNormalization."""
    config = call.config
    _require_last_axis(call)
    if config.flag("renorm", default=False):
        raise UnsupportedError(f"{config.where}: renorm=False was wanted; found renorm=True. Train without it.")
    statistics = (Parameter(name=name, file_shape=call.sizes[-1:]) for name in ("mean", "variance"))
    constants = call.parameters(*_scale_and_centre(call), *statistics)
    op = ops.BatchNorm(epsilon=config.number("epsilon", 1e-3), momentum=config.number("momentum", 0.99))
    return call.node(op, call.input, *constants)


def read_layer_norm(call: LayerCall) -> str:
    """Read LayerNormalization over the last axis."""
    _require_last_axis(call)
    if call.config.flag("rms_scaling", default=False):
        raise call.refuse("rms_scaling=False", "rms_scaling=True")
    op = ops.LayerNorm(epsilon=call.config.number("epsilon", 1e-3))
    return call.node(op, call.input, *call.parameters(*_scale_and_centre(call)))


def read_group_norm(call: LayerCall) -> str:
    """Read GroupNormalization as what it computes: statistics over all positions and the channels of a group.

    Source: Wu and He, arXiv:1803.08494.
    """
    _require_last_axis(call)
    *spatial, channels = call.sizes
    groups = call.config.integer("groups", 32, minimum=-1)
    groups = channels if groups == -1 else groups
    if groups < 1 or channels % groups:
        raise InputFileError(f"{call.config.where}: groups that divide {channels} channels were wanted; found {groups}")
    op = ops.GroupNorm(groups=groups, epsilon=call.config.number("epsilon", 1e-3))
    gamma, beta = call.parameters(*_scale_and_centre(call))
    if spatial:
        return call.node(op, call.input, gamma, beta)
    x = call.node(ops.Reshape(shape=(call.shape[0], 1, channels)), call.input, suffix="/position")
    return call.node(ops.Reshape(shape=call.shape), call.node(op, x, gamma, beta, suffix="/normal"))


def read_unit_normalization(call: LayerCall) -> str:
    """Read UnitNormalization. Source: Keras 3, keras/src/layers/normalization/unit_normalization.py."""
    _require_last_axis(call)
    return call.node(ops.L2Normalize(epsilon=1e-12), call.input)


def read_normalization(call: LayerCall) -> str:
    """Read Normalization with the mean and variance of its configuration, or those that `adapt` stored."""
    if call.config.flag("invert", default=False):
        raise call.refuse("invert=False", "invert=True")
    rank = len(call.shape)
    axes = (
        ()
        if call.config.values.get("axis", -1) is None
        else call.config.integers("axis", minimum=-rank)
        if "axis" in call.config.values
        else (-1,)
    )
    kept = sorted(axis % rank for axis in axes)
    if 0 in kept:
        raise call.refuse("statistics behind the batch", "axis=0")
    broadcast = tuple(size or 1 if axis in kept else 1 for axis, size in enumerate(call.shape))
    if call.config.values.get("mean") is not None:
        mean, variance = (_stated(call, key, broadcast) for key in ("mean", "variance"))
    else:
        shape = tuple(call.shape[axis] or 1 for axis in kept)
        found = call.weights.variables(call.config.where, call.place, {"mean": shape, "variance": shape})
        mean, variance = (values.reshape(broadcast) for values in found)
    scale = 1.0 / np.maximum(np.sqrt(variance.astype(np.float64)), 1e-7)  # keras.backend.epsilon()
    centred = call.node(ops.Sub(), call.input, call.constant("mean", mean), suffix="/centred")
    return call.node(ops.Mul(), centred, call.constant("scale", scale))


def _stated(call: LayerCall, key: str, shape: tuple[int, ...]) -> np.ndarray:
    values = call.config.numbers(key)
    size = int(np.prod(shape))
    if values.size not in (1, size):
        raise InputFileError(f"{call.config.where}: {key}: {size} number(s) were wanted; found {values.size}")
    return np.broadcast_to(values.reshape(shape) if values.size == size else values.reshape(()), shape)


def read_rescaling(call: LayerCall) -> str:
    """Read Rescaling: scale * x + offset."""
    scale, offset = (
        call.config.numbers(key) if key in call.config.values else default
        for key, default in (("scale", np.ones(())), ("offset", np.zeros(())))
    )
    is_moved = bool(np.any(offset != 0))
    x = call.node(ops.Mul(), call.input, call.constant("scale", scale), suffix="/scaled" if is_moved else "")
    return call.node(ops.Add(), x, call.constant("offset", offset)) if is_moved else x


def read_layer_scale(call: LayerCall) -> str:
    """Read LayerScale of Keras Applications' ConvNeXt: one factor per channel."""
    gamma = Parameter(name="gamma", file_shape=(call.config.integer("projection_dim"),))
    return call.node(ops.Mul(), call.input, *call.parameters(gamma))


def read_custom_scale(call: LayerCall) -> str:
    """Read CustomScaleLayer of Keras Applications' Inception-ResNet: first + scale * second."""
    if len(call.inputs) != 2:
        raise InputFileError(f"{call.config.where}: two inputs were wanted; found {len(call.inputs)}")
    scale = call.constant("scale", call.config.number("scale", 1.0))
    return call.node(ops.Add(), call.inputs[0], call.node(ops.Mul(), call.inputs[1], scale, suffix="/scaled"))


def read_elementwise(
    op: type[ops.Op], *, inputs: int | None = None, is_mean: bool = False
) -> Callable[[LayerCall], str]:
    """Return the reader of Add, Subtract, Multiply ...; more than two inputs become a chain of nodes.

    Keras aligns inputs of different rank at the first axis after the batch, by adding axes of size 1 there.

    Args:
        op: Elementwise operator.
        inputs: How many there must be; None takes any number from two.
        is_mean: Whether the result is divided by the number of inputs.
    """

    def read(call: LayerCall) -> str:
        found = len(call.inputs)
        if found != inputs if inputs else found < 2:
            raise InputFileError(f"{call.config.where}: {inputs or 'two or more'} inputs were wanted; found {found}")
        rank = max(len(call.builder.shape(tensor)) for tensor in call.inputs)
        first, *others = (_with_rank(call, index, rank) for index in range(found))
        for step, other in enumerate(others, start=1):
            is_last = step == len(others) and not is_mean
            first = call.node(op(), first, other, suffix="" if is_last else f"/{step}")
        return call.node(ops.Mul(), first, call.constant("share", 1.0 / found)) if is_mean else first

    return read


def _with_rank(call: LayerCall, index: int, rank: int) -> str:
    tensor = call.inputs[index]
    shape = call.builder.shape(tensor)
    if len(shape) == rank:
        return tensor
    target = (shape[0], *(1,) * (rank - len(shape)), *shape[1:])
    return call.node(ops.Reshape(shape=target), tensor, suffix=f"/expand_{index}")


def read_concatenate(call: LayerCall) -> str:
    """Read Concatenate over any axis but the batch."""
    if not call.inputs:
        raise InputFileError(f"{call.config.where}: one or more inputs were wanted; found 0")
    rank, axis = len(call.builder.shape(call.inputs[0])), call.config.integer("axis", -1, minimum=-64)
    if axis % rank == 0 or not -rank <= axis < rank:
        raise call.refuse(f"an axis in 1..{rank - 1}", f"axis={axis}")
    return call.node(ops.Concat(axis=axis % rank), *call.inputs)


def read_dropout(call: LayerCall) -> str:
    """Read Dropout."""
    return call.node(ops.Dropout(rate=call.config.number("rate", 0.0)), call.input)


def read_identity(call: LayerCall) -> str:
    """Read a layer that gives its input unchanged outside training."""
    return call.node(ops.Identity(), call.input)
