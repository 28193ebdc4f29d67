"""Writers of operators as Keras layers: each takes a node and returns the layers that stand for it, as data.

No writer imports Keras. A fused activation and a padding that is neither "same" nor "valid" become layers of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Graph, Node
from edgecnn.shapes import Padding, Shape, explicit_padding


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpec:
    """A Keras layer to be made.

    Attributes:
        class_name: In keras.layers.
        config: Its constructor's arguments but the name.
        suffix: Behind the node's name; empty for the layer that bears it.
        variables: Operand of the node -> its shape in Keras, in Keras' order; the elements keep theirs.
    """

    class_name: str
    config: Mapping[str, object] = field(default_factory=dict)
    suffix: str = ""
    variables: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


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
        return UnsupportedError(f"{self.node.name}: {self.node.kind} for Keras: {wanted} was wanted; found {found}")


Writer = Callable[[NodeView, Any], tuple[LayerSpec, ...]]
"""(node, its operator) -> layers, to be called one after the other."""


def write_conv(view: NodeView, op: ops.Conv) -> tuple[LayerSpec, ...]:
    """Write Conv as Conv1D..3D, or DepthwiseConv1D..2D with one group per channel."""
    kernel = view.operand_shape("kernel") or ()
    rank = len(op.stride)
    if max(op.stride) > 1 and max(op.dilation) > 1:
        raise view.refuse("stride 1 or dilation 1", f"stride {op.stride} and dilation {op.dilation}")
    before, padding = _padding(view, op.padding, kernel[:rank], op.stride, op.dilation)
    bias = view.operand_shape("bias")
    config: dict[str, object] = {
        "kernel_size": kernel[:rank],
        "strides": op.stride,
        "padding": padding,
        "dilation_rate": op.dilation,
        "use_bias": bias is not None,
    }
    shape = kernel
    if ops.is_depthwise(op, (view.shape,)) and rank < 3:
        class_name, multiplier = f"DepthwiseConv{rank}D", kernel[-1] // op.groups
        config["depth_multiplier"], shape = multiplier, (*kernel[:rank], op.groups, multiplier)
    else:
        class_name, config["filters"], config["groups"] = f"Conv{rank}D", kernel[-1], op.groups
    variables = {"kernel": shape} if bias is None else {"kernel": shape, "bias": bias}
    return (*before, LayerSpec(class_name=class_name, config=config, variables=variables))


def _padding(
    view: NodeView, padding: Padding, kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[LayerSpec, ...], str]:
    """Return the padding layer that goes before a window (or none), and the window's own padding."""
    for name in ("valid", "same"):
        if padding == explicit_padding(name, view.sizes[:-1], kernel_size, stride, dilation):
            return (), name
    if any(side < 0 for pair in padding for side in pair):
        raise view.refuse("padding of 0 or more", padding)
    return (_zero_padding(padding, suffix="/pad"),), "valid"


def _zero_padding(padding: Padding, *, suffix: str = "") -> LayerSpec:
    amount = padding[0] if len(padding) == 1 else padding
    return LayerSpec(class_name=f"ZeroPadding{len(padding)}D", config={"padding": amount}, suffix=suffix)


def write_dense(view: NodeView, op: ops.Dense) -> tuple[LayerSpec, ...]:
    """Write Dense."""
    kernel, bias = view.operand_shape("kernel") or (), view.operand_shape("bias")
    variables = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    return (
        LayerSpec(class_name="Dense", config={"units": kernel[-1], "use_bias": bias is not None}, variables=variables),
    )


def write_batch_norm(view: NodeView, op: ops.BatchNorm) -> tuple[LayerSpec, ...]:
    """Write BatchNorm."""
    shape = view.operand_shape("gamma") or ()
    config = {"epsilon": op.epsilon, "momentum": op.momentum}
    variables = dict.fromkeys(("gamma", "beta", "mean", "variance"), shape)
    return (LayerSpec(class_name="BatchNormalization", config=config, variables=variables),)


def write_pool(class_name: str) -> Writer:
    """Return the writer of MaxPool or AveragePool, whose padding Keras cannot state in numbers."""

    def write(view: NodeView, op: ops.MaxPool | ops.AveragePool) -> tuple[LayerSpec, ...]:
        rank = len(op.kernel_size)
        before, padding = _padding(view, op.padding, op.kernel_size, op.stride, (1,) * rank)
        if before:
            raise view.refuse('padding "same" or "valid"', op.padding)
        config = {"pool_size": op.kernel_size, "strides": op.stride, "padding": padding}
        return (LayerSpec(class_name=f"{class_name}{rank}D", config=config),)

    return write


def write_mean(view: NodeView, op: ops.Mean) -> tuple[LayerSpec, ...]:
    """Write a Mean over all spatial axes as GlobalAveragePooling1D..3D."""
    rank = len(view.shape) - 2
    if sorted(op.axes) != list(range(1, rank + 1)) or not 1 <= rank <= 3:
        raise view.refuse("a mean over all spatial axes", f"axes {op.axes} of {len(view.shape)}")
    return (LayerSpec(class_name=f"GlobalAveragePooling{rank}D", config={"keepdims": op.keep_dims}),)


def write_clip(view: NodeView, op: ops.Clip) -> tuple[LayerSpec, ...]:
    """Write a Clip that starts at 0 as ReLU with max_value."""
    if op.minimum != 0:
        raise view.refuse("minimum=0", f"minimum={op.minimum}")
    return (LayerSpec(class_name="ReLU", config={"max_value": op.maximum}),)


def write_elementwise(class_name: str) -> Writer:
    """Return the writer of Add, Subtract or Multiply."""

    def write(view: NodeView, op: ops.Op) -> tuple[LayerSpec, ...]:
        inputs = (view.graph.tensors[name] for name in view.node.inputs)
        ranks = {
            len(tensor.shape) for tensor in inputs if not tensor.is_constant
        }  # constants are refused by name later
        if len(ranks) > 1:
            raise view.refuse("one rank for all inputs", f"ranks {sorted(ranks)}")
        return (LayerSpec(class_name=class_name),)

    return write


def write_concat(view: NodeView, op: ops.Concat) -> tuple[LayerSpec, ...]:
    """Write Concat."""
    if op.axis == 0:
        raise view.refuse("an axis behind the batch", "axis=0")
    return (LayerSpec(class_name="Concatenate", config={"axis": op.axis}),)


def write_pad(view: NodeView, op: ops.Pad) -> tuple[LayerSpec, ...]:
    """Write a Pad with zeros in space as ZeroPadding1D..3D."""
    spatial = op.padding[1:-1]
    if op.value != 0 or any((*op.padding[0], *op.padding[-1])) or not 1 <= len(spatial) <= 3:
        raise view.refuse("padding with zeros around 1 to 3 spatial axes", f"value={op.value}, padding={op.padding}")
    if any(side < 0 for pair in spatial for side in pair):
        raise view.refuse("padding of 0 or more", op.padding)
    return (_zero_padding(spatial),)


def write_reshape(view: NodeView, op: ops.Reshape) -> tuple[LayerSpec, ...]:
    """Write Reshape, as Flatten where it is one."""
    source = view.shape
    if op.shape[0] not in (None, source[0]):
        raise view.refuse("a first axis that stays the batch", f"{source} to {op.shape}")
    if len(op.shape) == 2 and len(source) > 2:
        return (LayerSpec(class_name="Flatten"),)
    return (LayerSpec(class_name="Reshape", config={"target_shape": op.shape[1:]}),)


def write_transpose(view: NodeView, op: ops.Transpose) -> tuple[LayerSpec, ...]:
    """Write Transpose as Permute."""
    if op.permutation[0] != 0:
        raise view.refuse("a permutation that leaves the batch first", op.permutation)
    return (LayerSpec(class_name="Permute", config={"dims": op.permutation[1:]}),)


def write_dropout(view: NodeView, op: ops.Dropout) -> tuple[LayerSpec, ...]:
    """Write Dropout."""
    return (LayerSpec(class_name="Dropout", config={"rate": op.rate}),)


def write_as(class_name: str, config: Mapping[str, object] | None = None) -> Writer:
    """Return the writer of an operator that is one layer with fixed arguments."""
    return lambda view, op: (LayerSpec(class_name=class_name, config=config or {}),)
