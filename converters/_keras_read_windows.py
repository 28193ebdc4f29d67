"""Readers of the layers that slide a window: convolutions of every kind, pooling.

Source of the arguments and their meaning: Keras 3, https://keras.io/api/layers. Kernels have the same layout as with
us but for two: the depthwise one is (spatial..., channels, multiplier) with Keras and (spatial..., 1, channels *
multiplier) with us, the same elements in the same order; the transposed one is (spatial..., out, in) with Keras.
"""

from collections.abc import Callable

from edgecnn import ops
from edgecnn.shapes import Padding, effective_kernel_size, explicit_padding

from ._keras_call import LayerCall, Parameter
from ._keras_read_activations import activated


def read_conv(call: LayerCall) -> str:
    """Read Conv1D, Conv2D, Conv3D."""
    groups, filters = call.config.integer("groups", 1), call.config.integer("filters")
    kernel_size = call.config.sizes("kernel_size", call.rank)
    kernel = Parameter(name="kernel", file_shape=(*kernel_size, call.sizes[-1] // groups, filters))
    operands = call.parameters(kernel, *bias(call, filters))
    return activated(call, call.node(_window(call, kernel_size, groups), call.input, *operands))


def read_depthwise_conv(call: LayerCall) -> str:
    """Read DepthwiseConv1D, DepthwiseConv2D."""
    kernel_size = call.config.sizes("kernel_size", call.rank)
    kernel = _depthwise_kernel(call, kernel_size, "kernel")
    operands = call.parameters(kernel, *bias(call, (kernel.shape or ())[-1]))
    return activated(call, call.node(_window(call, kernel_size, call.sizes[-1]), call.input, *operands))


def read_separable_conv(call: LayerCall) -> str:
    """Read SeparableConv1D, SeparableConv2D: a depthwise convolution, name/depthwise, then a pointwise one."""
    kernel_size, filters = call.config.sizes("kernel_size", call.rank), call.config.integer("filters")
    depthwise = _depthwise_kernel(call, kernel_size, "depthwise/kernel")
    ones = (1,) * call.rank
    channels = (depthwise.shape or ())[-1]
    pointwise = Parameter(name="kernel", file_shape=(*ones, channels, filters))
    first, *rest = call.parameters(depthwise, pointwise, *bias(call, filters))
    x = call.node(_window(call, kernel_size, call.sizes[-1]), call.input, first, suffix="/depthwise")
    op = ops.Conv(stride=ones, padding=((0, 0),) * call.rank, dilation=ones)
    return activated(call, call.node(op, x, *rest))


def _depthwise_kernel(call: LayerCall, kernel_size: tuple[int, ...], name: str) -> Parameter:
    channels, multiplier = call.sizes[-1], call.config.integer("depth_multiplier", 1)
    shape = (*kernel_size, 1, channels * multiplier)
    return Parameter(name=name, file_shape=(*kernel_size, channels, multiplier), shape=shape)


def _window(call: LayerCall, kernel_size: tuple[int, ...], groups: int) -> ops.Conv:
    call.config.require_channels_last()
    stride, dilation = (call.config.sizes(key, call.rank, default=1) for key in ("strides", "dilation_rate"))
    padding = _padding(call, kernel_size, stride, dilation)
    return ops.Conv(stride=stride, padding=padding, dilation=dilation, groups=groups)


def _padding(
    call: LayerCall, kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Padding:
    padding = call.config.text("padding", "valid").lower()
    if padding == "causal" and call.rank == 1:
        return ((effective_kernel_size(kernel_size[0], dilation[0]) - 1, 0),)
    return explicit_padding(padding, call.sizes[:-1], kernel_size, stride, dilation)


def bias(call: LayerCall, size: int) -> tuple[Parameter, ...]:
    """Return the bias of a layer that has one."""
    return (Parameter(name="bias", file_shape=(size,)),) if call.config.flag("use_bias", default=True) else ()


def read_conv_transpose(call: LayerCall) -> str:
    """Read Conv1DTranspose, Conv2DTranspose, Conv3DTranspose."""
    call.config.require_channels_last()
    rank, filters = call.rank, call.config.integer("filters")
    kernel_size = call.config.sizes("kernel_size", rank)
    stride, dilation = (call.config.sizes(key, rank, default=1) for key in ("strides", "dilation_rate"))
    given = call.config.values.get("output_padding")
    extra = (None,) * rank if given is None else call.config.spread("output_padding", rank)
    pairs = [
        transposed_padding(call.config.text("padding", "valid"), effective_kernel_size(f, d), s, e)
        for f, s, d, e in zip(kernel_size, stride, dilation, extra, strict=True)
    ]
    op = ops.ConvTranspose(
        stride=stride,
        padding=tuple(padding for padding, _ in pairs),
        dilation=dilation,
        output_padding=tuple(added for _, added in pairs),
    )
    kernel = Parameter(name="kernel", file_shape=(*kernel_size, filters, call.sizes[-1]), is_swapped=True)
    return activated(call, call.node(op, call.input, *call.parameters(kernel, *bias(call, filters))))


def transposed_padding(padding: str, span: int, stride: int, extra: int | None) -> tuple[tuple[int, int], int]:
    """Return ((cut before, cut after), added behind) of one dimension of a transposed convolution.

    Source: Keras 3, backend/common/backend_utils.py, _get_output_shape_given_tf_padding; TensorFlow takes the cuts from
    the convolution whose gradient this is.

    Args:
        padding: "same" or "valid".
        span: Positions that the dilated kernel spans.
        stride: Output positions between two input positions.
        extra: The layer's output_padding, or None.

    >>> transposed_padding("same", 3, 2, None)
    ((0, 1), 0)
    """
    if padding == "valid":
        return (0, 0), max(stride - span, 0) if extra is None else extra
    beyond = span - (stride if extra is None else span % 2 + extra)
    cut = max(beyond, 0)
    return (cut // 2, cut - cut // 2), max(-beyond, 0)


def read_pool(op: type[ops.MaxPool] | type[ops.AveragePool]) -> Callable[[LayerCall], str]:
    """Return the reader of MaxPooling1D..3D or AveragePooling1D..3D."""

    def read(call: LayerCall) -> str:
        call.config.require_channels_last()
        kernel_size = call.config.sizes("pool_size", call.rank)
        stride = call.config.sizes("strides", call.rank, default=list(kernel_size))
        padding = explicit_padding(
            call.config.text("padding", "valid").lower(), call.sizes[:-1], kernel_size, stride, (1,) * call.rank
        )
        return call.node(op(kernel_size=kernel_size, stride=stride, padding=padding), call.input)

    return read


def read_global_pool(op: type[ops.Mean] | type[ops.Max]) -> Callable[[LayerCall], str]:
    """Return the reader of GlobalAveragePooling1D..3D or GlobalMaxPooling1D..3D."""

    def read(call: LayerCall) -> str:
        call.config.require_channels_last()
        axes = tuple(range(1, call.rank + 1))
        return call.node(op(axes=axes, keep_dims=call.config.flag("keepdims", default=False)), call.input)

    return read
