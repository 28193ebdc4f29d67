"""Bias correction: shift each layer's bias by the mean error that quantization makes in what the layer gives.

Rounding a kernel w to w' moves the mean of every output channel, since activations behind a ReLU have a mean of their
own; depthwise kernels of nine weights average nothing out. Where the mean error of a channel over images and positions
is known, the bias takes it away and costs nothing at run time:

    b' = b + E[y] - E[y']

- analytic: y - y' = (w - w') * x with the float network's mean input of each channel, E[x], from the calibration:

      E[y] - E[y'] = sum over kernel positions k and input channels c of share(k) (w - w')[k, c] E[x_c]

  share(k) is the share of output positions at which k meets the image and not its padding, so that the result is the
  mean over all positions, borders included. It knows nothing of rounded activations and of layers that were wrong
  before.
- empirical: both networks run side by side on real images (see side_by_side), each layer behind quantized layers that
  were corrected already; E[y] - E[y'] is measured.

Source: Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv:1906.04721,
section 4.2; the empirical form: its appendix D.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from edgecnn.errors import UsageError
from edgecnn.graph import Array, Graph, Node, Tensor
from edgecnn.ops import Conv, ConvTranspose
from edgecnn.passes.editor import GraphEditor
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.protect_scales import LARGEST_BIAS
from edgecnn.quantization.rules import WEIGHTED, bias_quantization
from edgecnn.quantization.side_by_side import measured_corrections
from edgecnn.shapes import Shape

Method = Literal["analytic", "empirical"]


def correct_bias(
    float_graph: Graph,
    quantized: Graph,
    calibration: Calibration,
    *,
    inputs: Mapping[str, Array] | None = None,
    method: Method = "empirical",
    threads: int = 1,
) -> tuple[Graph, dict[str, Array]]:
    """Return the quantized Graph with corrected biases, and what each layer's bias was moved by.

    Args:
        float_graph: What was quantized: its layers have the names of the quantized Graph's.
        quantized: Layers with quantized kernels; a bias is added where there is none.
        calibration: Of the float Graph; the analytic method takes mean inputs from it.
        inputs: Port name -> real images (N, spatial..., C), which the empirical method needs.
        method: Computed from mean inputs, or measured.
        threads: Of the runtime that measures.

    Returns:
        The Graph, and node name -> correction (out_channels,) in the units of the layer's output.

    Raises:
        UsageError: When the empirical method has no images.
    """
    layers = corrected_layers(float_graph, quantized)
    if method == "analytic":
        found = {node.name: _expected_error(float_graph, each, quantized, node, calibration) for each, node in layers}
    elif inputs is None:
        raise UsageError(f"{quantized.name}: empirical bias correction needs images; there are none. Take 'analytic'.")
    else:
        found = measured_corrections(float_graph, quantized, layers, inputs, threads=threads)
    editor = GraphEditor(quantized)
    for _, node in layers:
        _shift(editor, editor.nodes[node.name], found[node.name])
    return editor.finish(), found


def corrected_layers(float_graph: Graph, quantized: Graph) -> list[tuple[Node, Node]]:
    """Return (float layer, the same one quantized) for each layer whose kernel is rounded."""
    known = {node.name: node for node in float_graph.nodes if isinstance(node.op, WEIGHTED)}
    pairs = [(known[node.name], node) for node in quantized.nodes if node.name in known]
    return [(each, node) for each, node in pairs if _has_rounded_kernel(quantized, node)]


def _has_rounded_kernel(graph: Graph, node: Node) -> bool:
    """Tell whether a layer's kernel is stored as integers, and its bias (if there is one) is constant, too."""
    kernel, bias = graph.constant(node, "kernel"), node.operand("bias")
    is_rounded = kernel is not None and kernel.quantization is not None
    return is_rounded and (bias is None or graph.tensors[bias].is_constant)


def _expected_error(
    float_graph: Graph, layer: Node, quantized: Graph, rounded: Node, calibration: Calibration
) -> Array:
    """Return E[y] - E[y'] (out_channels,) for the float network's mean inputs."""
    error = _value(float_graph, layer, "kernel") - _value(quantized, rounded, "kernel")
    mean = calibration.statistics[layer.inputs[0]].mean
    groups = getattr(layer.op, "groups", 1)
    by_weight = np.repeat(mean.reshape(groups, -1).T, error.shape[-1] // groups, axis=-1)
    shares = tap_shares(layer, float_graph.shapes((layer.inputs[0], layer.output)), error.shape[:-2])
    moved = np.einsum("kio,k,io->o", error.reshape(-1, *error.shape[-2:]), shares, by_weight)
    moved += _value(float_graph, layer, "bias") - _value(quantized, rounded, "bias")
    return np.asarray(moved)


def tap_shares(layer: Node, shapes: tuple[Shape, ...], kernel_size: Shape) -> Array:
    """Return, for each kernel position in order, the share of outputs at which it meets an input and no padding.

    Args:
        layer: A convolution of either direction; any other layer has one position, which always does.
        shapes: Of its input and output (N, spatial..., C).
        kernel_size: Positions along each spatial dimension.
    """
    op: Any = layer.op
    if not isinstance(op, Conv | ConvTranspose):
        return np.ones(1)
    shares = np.ones(1)
    rows = zip(shapes[0][1:-1], shapes[1][1:-1], kernel_size, op.stride, op.padding, op.dilation, strict=True)
    for before, after, size, stride, (start, _), dilation in rows:
        # A convolution steps over its input, a transposed one over its output.
        steps, places = (after, before) if isinstance(op, Conv) else (before, after)
        reached = np.arange(int(steps or 0)) * stride + np.arange(int(size or 0))[:, None] * dilation - start
        inside = (reached >= 0) & (reached < int(places or 0))
        shares = np.outer(shares, inside.sum(axis=1) / int(after or 1)).ravel()
    return shares


def _value(graph: Graph, layer: Node, operand: str) -> Array:
    """Return a layer's constant as float64 numbers; a bias that is left out is 0."""
    constant = graph.constant(layer, operand)
    return np.zeros(()) if constant is None else constant.value().astype(np.float64)


def _shift(editor: GraphEditor, node: Node, correction: Array) -> None:
    """Add a correction (out_channels,) to a layer's bias."""
    bias = editor.constant(node, "bias") or _new_bias(editor, node)
    if bias.data is None:
        return
    if bias.quantization is None:
        data = (bias.data + correction).astype(bias.data.dtype)
    else:
        moved = bias.data + np.rint(correction / np.asarray(bias.quantization.scale))
        limit = LARGEST_BIAS if bias.quantization.dtype == "int32" else np.inf
        data = np.clip(moved, -limit, limit).astype(bias.data.dtype)
    name = editor.free_name(f"{node.name}/bias_corrected")
    editor.tensors[name] = replace(bias, name=name, data=data)
    editor.put(replace(node, inputs=(*node.inputs[:2], name)))


def _new_bias(editor: GraphEditor, node: Node) -> Tensor:
    """Return zeros in the form that a layer's bias must have: scale input * kernel where the input is quantized."""
    source, kernel = (editor.tensors[name] for name in node.inputs[:2])
    channels = int(kernel.shape[-1] or 0)
    own, weights = source.quantization, kernel.quantization
    if own is None or weights is None:
        return Tensor(name=node.name, shape=(channels,), data=np.zeros(channels, np.float32))
    form = bias_quantization(own, weights)
    return Tensor(name=node.name, shape=(channels,), data=np.zeros(channels, form.dtype), quantization=form)
