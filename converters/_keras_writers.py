"""Writers of operators as Keras layers: each takes a node and returns the layers that stand for it, as data.

No writer imports Keras. What has no layer is a function of keras.ops, which Keras saves as a node of the functional
model; what has neither was lowered before (_keras_groups). A fused activation becomes a layer of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Graph, Node
from edgecnn.shapes import Padding, Shape, effective_kernel_size, explicit_padding

from ._keras_read_windows import transposed_padding

REMEDY = "Cut the network with --inputs and --outputs, or choose another format (--to onnx)."
"""What to do about an operator that Keras has no words for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpec:
    """A Keras layer to be made.

    Attributes:
        class_name: In keras.layers; for a function, its name in keras.ops, or "getitem".
        config: Its constructor's arguments but the name; for a function, its keywords.
        suffix: Behind the node's name; empty for the layer that bears it.
        variables: Operand of the node -> its shape in Keras, in Keras' order; the elements keep theirs.
        swapped: Operands whose last two axes are the other way round in Keras.
        is_function: Whether it is a function, which may take constants.
    """

    class_name: str
    config: Mapping[str, object] = field(default_factory=dict)
    suffix: str = ""
    variables: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    swapped: frozenset[str] = frozenset()
    is_function: bool = False

    def to_keras(self, operand: str, values: Array) -> Array:
        """Return a constant of the Graph as the layer's variable."""
        return (values.swapaxes(-1, -2) if operand in self.swapped else values).reshape(self.variables[operand])

    def from_keras(self, operand: str, values: Array, shape: tuple[int, ...]) -> Array:
        """Return a variable of the layer as the Graph's constant of that shape."""
        return (values.swapaxes(-1, -2) if operand in self.swapped else values).reshape(shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeView:
    """A node under writing, with the shapes of its operands."""

    graph: Graph
    node: Node

    @property
    def shape(self) -> Shape:
        """Of the first input."""
        return self.graph.tensors[self.node.inputs[0]].shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """The first input's sizes without the batch."""
        return tuple(size or 0 for size in self.shape[1:])

    def operand_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of an operand, or None where it is left out."""
        tensor = self.node.operand(name)
        return None if tensor is None else tuple(size or 0 for size in self.graph.tensors[tensor].shape)

    def refuse(self, wanted: str, found: object) -> UnsupportedError:
        """Return the error for a node that Keras has no layer for."""
        what = f"{self.node.name}: {self.node.kind} for Keras"
        return UnsupportedError(f"{what}: {wanted} was wanted; found {found}. {REMEDY}")


Writer = Callable[[NodeView, Any], tuple[LayerSpec, ...]]
"""(node, its operator) -> layers, to be called one after the other."""


def function(name: str, **keywords: object) -> tuple[LayerSpec, ...]:
    """Return a function of keras.ops as the only step of a node."""
    return (LayerSpec(class_name=name, config=keywords, is_function=True),)


def write_conv(view: NodeView, op: ops.Conv) -> tuple[LayerSpec, ...]:
    """Write Conv as Conv1D..3D, or DepthwiseConv1D..2D with one group per channel."""
    kernel = view.operand_shape("kernel") or ()
    rank = len(op.stride)
    if max(op.stride) > 1 and max(op.dilation) > 1:
        raise view.refuse("stride 1 or dilation 1", f"stride {op.stride} and dilation {op.dilation}")
    bias = view.operand_shape("bias")
    config: dict[str, object] = {
        "kernel_size": kernel[:rank],
        "strides": op.stride,
        "padding": named_padding(op.padding, view.sizes, kernel[:rank], op.stride, op.dilation),
        "dilation_rate": op.dilation,
        "use_bias": bias is not None,
    }
    shape = kernel
    if ops.is_depthwise(op, (view.shape,)) and rank < 3:
        class_name, multiplier = f"DepthwiseConv{rank}D", kernel[-1] // op.groups
        config["depth_multiplier"], shape = multiplier, (*kernel[:rank], op.groups, multiplier)
    else:
        class_name, config["filters"], config["groups"] = f"Conv{rank}D", kernel[-1], op.groups
    return (LayerSpec(class_name=class_name, config=config, variables=_with_bias(view, shape)),)


def _with_bias(view: NodeView, kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    bias = view.operand_shape("bias")
    return {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}


def named_padding(
    padding: Padding,
    sizes: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> str | None:
    """Return "valid" or "same" where a window's padding (over sizes: spatial..., channels) is that, or None."""
    for name in ("valid", "same"):
        if padding == explicit_padding(name, sizes[:-1], kernel_size, stride, dilation):
            return name
    return None


def write_conv_transpose(view: NodeView, op: ops.ConvTranspose) -> tuple[LayerSpec, ...]:
    """Write ConvTranspose as Conv1DTranspose..3D."""
    kernel, rank = view.operand_shape("kernel") or (), len(op.stride)
    if op.groups > 1:
        raise view.refuse("groups=1", f"groups={op.groups}")
    found = transposed_names(op, kernel)
    if found is None or (max(op.stride) > 1 and max(op.dilation) > 1):
        raise view.refuse('padding "same" or "valid", stride 1 or dilation 1', op)
    config = {
        "filters": kernel[-1],
        "kernel_size": kernel[:rank],
        "strides": op.stride,
        "padding": found[0],
        "output_padding": found[1],
        "dilation_rate": op.dilation,
        "use_bias": view.operand_shape("bias") is not None,
    }
    variables = _with_bias(view, (*kernel[:rank], kernel[-1], kernel[-2]))
    return (
        LayerSpec(
            class_name=f"Conv{rank}DTranspose", config=config, variables=variables, swapped=frozenset(("kernel",))
        ),
    )


def transposed_names(op: ops.ConvTranspose, kernel: tuple[int, ...]) -> tuple[str, tuple[int, ...] | None] | None:
    """Return Keras' (padding, output_padding) of a transposed convolution, or None where it has no words for it."""
    spans = [effective_kernel_size(f, d) for f, d in zip(kernel, op.dilation, strict=False)]
    wanted = list(zip(op.padding, op.output_padding, strict=True))
    for name in ("valid", "same"):
        if [transposed_padding(name, f, s, None) for f, s in zip(spans, op.stride, strict=True)] == wanted:
            return name, None
    for name in ("valid", "same"):
        extra = tuple(
            next((e for e in range(s) if transposed_padding(name, f, s, e) == pair), None)
            for f, s, pair in zip(spans, op.stride, wanted, strict=True)
        )
        if None not in extra:
            return name, tuple(e or 0 for e in extra)
    return None


def write_dense(view: NodeView, op: ops.Dense) -> tuple[LayerSpec, ...]:
    """Write Dense."""
    kernel, bias = view.operand_shape("kernel") or (), view.operand_shape("bias")
    config = {"units": kernel[-1], "use_bias": bias is not None}
    return (LayerSpec(class_name="Dense", config=config, variables=_with_bias(view, kernel)),)


def write_batch_norm(view: NodeView, op: ops.BatchNorm) -> tuple[LayerSpec, ...]:
    """Write BatchNorm."""
    shape = view.operand_shape("gamma") or ()
    config = {"epsilon": op.epsilon, "momentum": op.momentum}
    variables = dict.fromkeys(("gamma", "beta", "mean", "variance"), shape)
    return (LayerSpec(class_name="BatchNormalization", config=config, variables=variables),)


def write_layer_norm(view: NodeView, op: ops.LayerNorm) -> tuple[LayerSpec, ...]:
    """Write LayerNorm."""
    shape = view.operand_shape("gamma") or ()
    variables = {"gamma": shape, "beta": shape}
    return (LayerSpec(class_name="LayerNormalization", config={"epsilon": op.epsilon}, variables=variables),)


def write_group_norm(view: NodeView, op: ops.GroupNorm) -> tuple[LayerSpec, ...]:
    """Write GroupNorm."""
    shape = view.operand_shape("gamma") or ()
    config = {"groups": op.groups, "epsilon": op.epsilon}
    return (LayerSpec(class_name="GroupNormalization", config=config, variables={"gamma": shape, "beta": shape}),)


def write_l2_normalize(view: NodeView, op: ops.L2Normalize) -> tuple[LayerSpec, ...]:
    """Write L2Normalize: keras.ops.normalize is x * min(1 / ||x||, 1 / epsilon)."""
    if op.epsilon < np.finfo(np.float32).tiny:
        raise view.refuse("an epsilon whose reciprocal is a float32", op.epsilon)
    return function("normalize", axis=-1, order=2, epsilon=op.epsilon)


def write_prelu(view: NodeView, op: ops.PReLU) -> tuple[LayerSpec, ...]:
    """Write PReLU; axes along which the slopes are the same are shared."""
    slope = view.operand_shape("slope") or ()
    if len(slope) > len(view.sizes):
        raise view.refuse("slopes without a batch", slope)
    shape = (*(1,) * (len(view.sizes) - len(slope)), *slope)
    shared = [axis for axis, size in enumerate(shape, start=1) if size == 1]
    return (LayerSpec(class_name="PReLU", config={"shared_axes": shared or None}, variables={"slope": shape}),)


def write_pool(class_name: str) -> Writer:
    """Return the writer of MaxPool or AveragePool, whose padding Keras cannot state in numbers."""

    def write(view: NodeView, op: ops.MaxPool | ops.AveragePool) -> tuple[LayerSpec, ...]:
        rank = len(op.kernel_size)
        padding = named_padding(op.padding, view.sizes, op.kernel_size, op.stride, (1,) * rank)
        config = {"pool_size": op.kernel_size, "strides": op.stride, "padding": padding}
        return (LayerSpec(class_name=f"{class_name}{rank}D", config=config),)

    return write


def write_reduction(name: str, layer: str = "") -> Writer:
    """Return the writer of a reduction: a global pooling layer over all spatial axes, else a function."""

    def write(view: NodeView, op: ops.Mean | ops.Sum | ops.Max | ops.Min | ops.Prod) -> tuple[LayerSpec, ...]:
        rank = len(view.shape) - 2
        if 0 in op.axes or not op.axes:
            raise view.refuse("axes behind the batch", op.axes)
        if layer and op.axes == tuple(range(1, rank + 1)) and 1 <= rank <= 3:
            return (LayerSpec(class_name=f"{layer}{rank}D", config={"keepdims": op.keep_dims}),)
        return function(name, axis=list(op.axes), keepdims=op.keep_dims)

    return write


def write_arg_max(view: NodeView, op: ops.ArgMax) -> tuple[LayerSpec, ...]:
    """Write ArgMax, which gives int32; int64 was lowered before."""
    if op.axis == 0:
        raise view.refuse("an axis behind the batch", "axis=0")
    return function("argmax", axis=op.axis, keepdims=op.keep_dims)


def write_cast(view: NodeView, op: ops.Cast) -> tuple[LayerSpec, ...]:
    """Write Cast."""
    return function("cast", dtype=op.dtype)


def write_clip(view: NodeView, op: ops.Clip) -> tuple[LayerSpec, ...]:
    """Write Clip."""
    return function("clip", x_min=op.minimum, x_max=op.maximum)


def write_gelu(view: NodeView, op: ops.GELU) -> tuple[LayerSpec, ...]:
    """Write GELU."""
    if op.approximate:
        return function("gelu", approximate=True)
    return (LayerSpec(class_name="Activation", config={"activation": "gelu"}),)


def write_elementwise(name: str, layer: str = "") -> Writer:
    """Return the writer of an operator of two inputs: a layer where both are computed, else a function."""

    def write(view: NodeView, op: ops.Op) -> tuple[LayerSpec, ...]:
        tensors = [view.graph.tensors[each] for each in view.node.inputs]
        is_computed = not any(tensor.is_constant for tensor in tensors)
        if layer and is_computed and len({len(tensor.shape) for tensor in tensors}) == 1:
            return (LayerSpec(class_name=layer),)
        return function(name)

    return write


def write_as(class_name: str, config: Mapping[str, object] | None = None) -> Writer:
    """Return the writer of an operator that is one layer with fixed arguments."""
    return lambda view, op: (LayerSpec(class_name=class_name, config=config or {}),)


def write_with(class_name: str, config: Callable[[Any], Mapping[str, object]]) -> Writer:
    """Return the writer of an operator that is one layer with arguments of its own."""
    return lambda view, op: (LayerSpec(class_name=class_name, config=config(op)),)


def write_activation(name: str) -> Writer:
    """Return the writer of an activation that Keras knows by name."""
    return write_as("Activation", {"activation": name})


def write_function(name: str) -> Writer:
    """Return the writer of an operator that is a function of keras.ops without parameters."""
    return lambda view, op: function(name)
