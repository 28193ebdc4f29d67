"""Readers of Keras layers: each takes one call of a layer, adds its nodes and returns their output tensor.

Source of the arguments and their meaning: Keras 3, https://keras.io/api/layers. Tensors are channels-last in both
worlds, so most layers are one node with the same numbers; kernels have the same layout too, but for the depthwise one,
which is (spatial..., channels, multiplier) with Keras and (spatial..., 1, channels * multiplier) with us: the same
elements in the same order.
"""

from collections.abc import Callable
from math import prod

from edgecnn import ops
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.shapes import Padding, effective_kernel_size, explicit_padding

from ._keras_call import LONGEST, LayerCall, Parameter
from ._keras_topology import show

ACTIVATIONS: dict[str, ops.Op | None] = {
    "linear": None,
    "relu": ops.ReLU(),
    "relu6": ops.ReLU6(),
    "sigmoid": ops.Sigmoid(),
    "softmax": ops.Softmax(),
    "tanh": ops.Tanh(),
}
"""Name in a configuration -> operator; None is the identity."""


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


def read_conv(call: LayerCall) -> str:
    """Read Conv1D, Conv2D, Conv3D."""
    groups, filters = call.config.integer("groups", 1), call.config.integer("filters")
    kernel_size = call.config.sizes("kernel_size", call.rank)
    kernel = Parameter(name="kernel", file_shape=(*kernel_size, call.sizes[-1] // groups, filters))
    return _convolution(call, kernel, kernel_size, groups=groups, out_channels=filters)


def read_depthwise_conv(call: LayerCall) -> str:
    """Read DepthwiseConv1D, DepthwiseConv2D."""
    channels, multiplier = call.sizes[-1], call.config.integer("depth_multiplier", 1)
    kernel_size = call.config.sizes("kernel_size", call.rank)
    shape = (*kernel_size, 1, channels * multiplier)
    kernel = Parameter(name="kernel", file_shape=(*kernel_size, channels, multiplier), shape=shape)
    return _convolution(call, kernel, kernel_size, groups=channels, out_channels=shape[-1])


def _convolution(
    call: LayerCall, kernel: Parameter, kernel_size: tuple[int, ...], *, groups: int, out_channels: int
) -> str:
    call.config.require_channels_last()
    stride, dilation = (call.config.sizes(key, call.rank, default=1) for key in ("strides", "dilation_rate"))
    padding = _padding(call, kernel_size, stride, dilation)
    op = ops.Conv(stride=stride, padding=padding, dilation=dilation, groups=groups)
    return _activated(call, call.node(op, call.input, *call.parameters(kernel, *_bias(call, out_channels))))


def _padding(
    call: LayerCall, kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Padding:
    padding = call.config.text("padding", "valid")
    if padding == "causal" and call.rank == 1:
        return ((effective_kernel_size(kernel_size[0], dilation[0]) - 1, 0),)
    return explicit_padding(padding, call.sizes[:-1], kernel_size, stride, dilation)


def read_dense(call: LayerCall) -> str:
    """Read Dense."""
    units = call.config.integer("units")
    kernel = Parameter(name="kernel", file_shape=(call.sizes[-1], units))
    return _activated(call, call.node(ops.Dense(), call.input, *call.parameters(kernel, *_bias(call, units))))


def _bias(call: LayerCall, size: int) -> tuple[Parameter, ...]:
    return (Parameter(name="bias", file_shape=(size,)),) if call.config.flag("use_bias", default=True) else ()


def read_batch_norm(call: LayerCall) -> str:
    """Read BatchNormalization; without center or scale, beta is 0 or gamma is 1."""
    rank, config = len(call.builder.shape(call.input)), call.config
    axis = config.integers("axis", minimum=-rank) if "axis" in config.values else (-1,)
    if axis not in ((-1,), (rank - 1,)):
        raise UnsupportedError(f"{config.where}: statistics over the last axis were wanted; found axis={axis[0]}")
    if config.flag("renorm", default=False):
        raise UnsupportedError(f"{config.where}: renorm=False was wanted; found renorm=True. Train without it.")
    shape = call.sizes[-1:]
    constants = call.parameters(
        Parameter(name="gamma", file_shape=shape, fill=None if config.flag("scale", default=True) else 1.0),
        Parameter(name="beta", file_shape=shape, fill=None if config.flag("center", default=True) else 0.0),
        Parameter(name="mean", file_shape=shape),
        Parameter(name="variance", file_shape=shape),
    )
    op = ops.BatchNorm(epsilon=config.number("epsilon", 1e-3), momentum=config.number("momentum", 0.99))
    return call.node(op, call.input, *constants)


def read_relu(call: LayerCall) -> str:
    """Read ReLU: ReLU6 where max_value is 6, Clip for another one."""
    for key in ("negative_slope", "threshold"):
        if call.config.number(key, 0.0) != 0.0:
            raise UnsupportedError(f"{call.config.where}: {key}=0 was wanted; found {show(call.config.values[key])}")
    if call.config.values.get("max_value") is None:
        return call.node(ops.ReLU(), call.input)
    maximum = call.config.number("max_value", 6.0)
    return call.node(ops.ReLU6() if maximum == 6.0 else ops.Clip(minimum=0.0, maximum=maximum), call.input)


def read_activation(call: LayerCall) -> str:
    """Read Activation."""
    return call.node(_activation(call) or ops.Identity(), call.input)


def read_softmax(call: LayerCall) -> str:
    """Read Softmax over the last axis."""
    axis, rank = call.config.values.get("axis", -1), len(call.builder.shape(call.input))
    if axis not in (-1, rank - 1):
        raise UnsupportedError(f"{call.config.where}: the last axis was wanted; found axis={show(axis)}")
    return call.node(ops.Softmax(), call.input)


def _activation(call: LayerCall) -> ops.Op | None:
    found = call.config.values.get("activation") or "linear"
    if not isinstance(found, str) or found not in ACTIVATIONS:
        raise UnsupportedError(
            f"{call.config.where}: one of the activations {', '.join(ACTIVATIONS)} was wanted; found {show(found)}. "
            "Put it into a layer of its own that edgecnn reads."
        )
    return ACTIVATIONS[found]


def _activated(call: LayerCall, x: str) -> str:
    """Add the activation of a layer's configuration as a node of its own, named as GraphBuilder.activate does."""
    op = _activation(call)
    return x if op is None else call.node(op, x, suffix=f"/{type(op).__name__.lower()}")


def read_pool(op: type[ops.MaxPool] | type[ops.AveragePool]) -> Callable[[LayerCall], str]:
    """Return the reader of MaxPooling1D..3D or AveragePooling1D..3D."""

    def read(call: LayerCall) -> str:
        call.config.require_channels_last()
        kernel_size = call.config.sizes("pool_size", call.rank)
        stride = call.config.sizes("strides", call.rank, default=list(kernel_size))
        padding = explicit_padding(
            call.config.text("padding", "valid"), call.sizes[:-1], kernel_size, stride, (1,) * call.rank
        )
        return call.node(op(kernel_size=kernel_size, stride=stride, padding=padding), call.input)

    return read


def read_global_average_pool(call: LayerCall) -> str:
    """Read GlobalAveragePooling1D, 2D, 3D."""
    call.config.require_channels_last()
    axes = tuple(range(1, call.rank + 1))
    return call.node(ops.Mean(axes=axes, keep_dims=call.config.flag("keepdims", default=False)), call.input)


def read_elementwise(op: type[ops.Op], *, inputs: int | None = None) -> Callable[[LayerCall], str]:
    """Return the reader of Add, Subtract or Multiply; more than two inputs become a chain of nodes.

    Keras aligns inputs of different rank at the first axis after the batch, by adding axes of size 1 there.

    Args:
        op: Elementwise operator.
        inputs: How many there must be; None takes any number from two.
    """

    def read(call: LayerCall) -> str:
        found = len(call.inputs)
        if found != inputs if inputs else found < 2:
            raise InputFileError(f"{call.config.where}: {inputs or 'two or more'} inputs were wanted; found {found}")
        rank = max(len(call.builder.shape(tensor)) for tensor in call.inputs)
        first, *others = (_with_rank(call, index, rank) for index in range(found))
        for step, other in enumerate(others, start=1):
            first = call.node(op(), first, other, suffix="" if step == len(others) else f"/{step}")
        return first

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
        raise UnsupportedError(f"{call.config.where}: an axis in 1..{rank - 1} was wanted; found axis={axis}")
    return call.node(ops.Concat(axis=axis % rank), *call.inputs)


def read_zero_padding(call: LayerCall) -> str:
    """Read ZeroPadding1D, 2D, 3D."""
    call.config.require_channels_last()
    return call.node(ops.Pad(padding=((0, 0), *call.config.pairs("padding", call.rank), (0, 0))), call.input)


def read_flatten(call: LayerCall) -> str:
    """Read Flatten."""
    call.config.require_channels_last()
    return call.node(ops.Reshape(shape=(call.builder.shape(call.input)[0], prod(call.sizes))), call.input)


def read_reshape(call: LayerCall) -> str:
    """Read Reshape; one size may be -1."""
    sizes = call.config.integers("target_shape", minimum=-1)
    known = prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or known == 0:
        raise InputFileError(f"{call.config.where}: sizes with at most one -1 were wanted; found {show(list(sizes))}")
    target = tuple(prod(call.sizes) // known if size == -1 else size for size in sizes)
    return call.node(ops.Reshape(shape=(call.builder.shape(call.input)[0], *target)), call.input)


def read_permute(call: LayerCall) -> str:
    """Read Permute, whose axes count from 1 after the batch."""
    return call.node(ops.Transpose(permutation=(0, *call.config.integers("dims", minimum=1))), call.input)


def read_dropout(call: LayerCall) -> str:
    """Read Dropout."""
    return call.node(ops.Dropout(rate=call.config.number("rate", 0.0)), call.input)


def read_identity(call: LayerCall) -> str:
    """Read a layer that gives its input unchanged outside training."""
    return call.node(ops.Identity(), call.input)
