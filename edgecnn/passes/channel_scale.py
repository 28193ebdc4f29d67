"""The arithmetic of y = scale * x + shift, one number per channel, behind or before a layer with constant parameters.

    s (w * x + b) + t      =  (s w) * x + (s b + t)        s runs over w's outputs
    w * (s x + t) + b      =  (w s) * x + (b + w t)        s runs over w's inputs; t needs a layer without padding

The output channel is the last axis of every kernel, depthwise and transposed ones included: one broadcast serves all.
It is computed in float64 and rounded once.
"""

from dataclasses import dataclass

import numpy as np

from edgecnn.graph import Array, Node
from edgecnn.ops import Add, Conv, ConvTranspose, Dense, Div, GroupNorm, LayerNorm, Mul, Op, Sub
from edgecnn.passes.editor import GraphEditor

PARAMETERS = {
    Conv: ("kernel", "bias"),
    ConvTranspose: ("kernel", "bias"),
    Dense: ("kernel", "bias"),
    LayerNorm: ("gamma", "beta"),
    GroupNorm: ("gamma", "beta"),
}
"""Layer -> its operands that a scale behind it multiplies, and that it multiplies and the shift is added to."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ChannelScale:
    """What a node does to each channel: y = scale * x + shift.

    Attributes:
        source: The tensor x.
        scale: (C,) in float64.
        shift: (C,) in float64.
    """

    source: str
    scale: Array
    shift: Array


def channel_scale(editor: GraphEditor, node: Node) -> ChannelScale | None:
    """Return an Add, Sub, Mul or Div with a constant for each channel (or one for all) as scale and shift, or None."""
    if not isinstance(node.op, Add | Sub | Mul | Div):
        return None
    first, second = (editor.tensors[name] for name in node.inputs)
    value, constant = (second, first) if first.is_constant else (first, second)
    shape = editor.tensors[node.output].shape
    channels = shape[-1] if shape else None
    fits = constant.is_constant and not value.is_constant and value.shape == shape and channels is not None
    if not fits or constant.shape[-1:] not in ((), (1,), (channels,)) or set(constant.shape[:-1]) - {1}:
        return None
    numbers = np.broadcast_to(constant.value().astype(np.float64).ravel(), channels or 0)
    found = _scale_and_shift(node.op, numbers, is_first=first.is_constant)
    if found is None or not np.isfinite(found).all():
        return None
    return ChannelScale(source=value.name, scale=found[0], shift=found[1])


def _scale_and_shift(op: Op, numbers: Array, *, is_first: bool) -> tuple[Array, Array] | None:
    ones, zeros = np.ones_like(numbers), np.zeros_like(numbers)
    if isinstance(op, Mul):
        return numbers, zeros
    if isinstance(op, Add):
        return ones, numbers
    if isinstance(op, Sub):
        return (-ones, numbers) if is_first else (ones, -numbers)
    return None if is_first or not numbers.all() else (1 / numbers, zeros)


def refuse_layer_before(editor: GraphEditor, node: Node, source: str) -> str | None:
    """Return why the layer that gives `source` cannot take over a scale that the node behind it applies."""
    layer = editor.producer(source)
    if layer is None or type(layer.op) not in PARAMETERS:
        return f"it follows {layer.kind if layer else 'a graph input'}, not a convolution or dense layer"
    if getattr(layer.op, "activation", None) is not None:
        return f"an activation lies between it and {layer.name}"
    if editor.only_consumer(layer.output) is None:
        return f"the output of {layer.name} is used elsewhere too"
    if getattr(node.op, "activation", None) is not None and not hasattr(layer.op, "activation"):
        return f"{layer.kind} cannot carry its activation"
    scale = channel_scale(editor, node)
    is_shift = scale is not None and bool((scale.scale == 1).all())
    return refuse_parameters(editor, layer, is_shift=is_shift)


def refuse_parameters(editor: GraphEditor, layer: Node, *, is_shift: bool = False) -> str | None:
    """Return why a layer's parameters cannot be changed; a shift leaves the kernel, which others may share."""
    if not editor.has_constants(layer):
        return f"the parameters of {layer.name} are computed, not constant"
    if is_shift:
        return None
    factor = PARAMETERS[type(layer.op)][0]
    if len(editor.consumers(layer.operand(factor) or "")) > 1:
        return f"the {factor} of {layer.name} is shared with another layer"
    return None


def scaled_behind(editor: GraphEditor, layer: Node, scale: Array, shift: Array) -> tuple[str, ...]:
    """Return a layer's inputs with parameters that apply a scale and shift (C,) to what it gives."""
    factor, offset = (editor.constant(layer, operand) for operand in PARAMETERS[type(layer.op)])
    old = offset.value() if offset is not None else np.zeros(())
    weights = factor.value() if factor is not None else np.zeros(())
    scaled = None if (scale == 1).all() else weights * scale
    return _with_parameters(editor, layer, scaled, old * scale + shift)


def scaled_before(editor: GraphEditor, layer: Node, scale: Array, shift: Array) -> tuple[str, ...]:
    """Return a layer's inputs with parameters that apply a scale and shift (C,) to what it is given."""
    kernel, bias = editor.constant(layer, "kernel"), editor.constant(layer, "bias")
    weights = kernel.value().astype(np.float64) if kernel is not None else np.zeros((0, 0))
    old = bias.value() if bias is not None else np.zeros(weights.shape[-1])
    groups = getattr(layer.op, "groups", 1)
    by_weight = [
        np.repeat(numbers.reshape(groups, -1).T, weights.shape[-1] // groups, axis=-1) for numbers in (scale, shift)
    ]
    moved = (weights * by_weight[1]).sum(axis=tuple(range(weights.ndim - 1)))
    return _with_parameters(editor, layer, weights * by_weight[0], old + moved)


def _with_parameters(editor: GraphEditor, layer: Node, factor: Array | None, offset: Array) -> tuple[str, ...]:
    """Return a layer's inputs with these parameters; a factor of None leaves it as it is stored."""
    image, kept = layer.inputs[:2]
    dtype = editor.tensors[kept].dtype
    names = (f"{layer.name}/{operand}_folded" for operand in PARAMETERS[type(layer.op)])
    added = [
        kept if values is None else editor.add_constant(name, values.astype(dtype))
        for name, values in zip(names, (factor, offset), strict=True)
    ]
    return (image, *added)
