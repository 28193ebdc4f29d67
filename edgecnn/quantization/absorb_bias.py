"""High-bias absorption: move what a channel always holds from one layer's bias into the next one's.

Equalization multiplies biases, too, and a channel with a large one widens the range that all channels of a tensor
share. Where every value x of a channel is above c >= 0, ReLU does nothing to it, and c can be taken off before it and
given back behind it:

    W2 relu(W1 h + b1) + b2  =  W2 relu(W1 h + b1 - c) + (b2 + W2 c)        c = min(max(0, mean - 3 sigma), minimum)

with the channel's mean, standard deviation and smallest value over the calibration: exact for every image of it, and
for any other whose values stay above c. Channels that come near a clamp (ReLU6) keep c = 0. A layer that pads its input
with zeros would see c missing at its borders, and stays as it is; so does a transposed convolution, whose borders see
a part of the kernel only. In MobileNets that leaves the links from depthwise to pointwise layers.

Source: Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv:1906.04721,
section 4.1.3, which takes mean and sigma from BatchNorm.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node
from edgecnn.passes.channel_scale import scaled_before, scaled_behind
from edgecnn.passes.editor import GraphEditor, PassResult
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.channel_links import Link, as_read, far_from_clamp, find_link, float_layers, rename_between

SIGMAS = 3
"""Below the mean that a channel must stay above 0."""

SHIFTED = (
    *(ops.ReLU, ops.LeakyReLU, ops.ReLU6, ops.Clip, ops.Identity, ops.Dropout, ops.Reshape, ops.Resize),
    *(ops.MaxPool, ops.AveragePool, ops.Mean, ops.Max, ops.Min),
)
"""Operators that give x - c for x - c, where x and x - c are positive and far from any clamp."""


def absorb_bias(graph: Graph, calibration: Calibration) -> PassResult:
    """Move biases of channels that are always positive into the next layers of a deployed float Graph.

    The tensors between the layers get new names, since they get new values: statistics of them hold no longer.

    Args:
        graph: Without BatchNorm.
        calibration: Of the Graph.

    Raises:
        UsageError: When the Graph is quantized already.
    """
    editor, applied, refused = GraphEditor(graph), [], []
    for node in float_layers(graph, "to move biases"):
        found = find_link(editor, node)
        reason = found if isinstance(found, str) else _refuse(editor, found)
        shift = np.zeros(0) if reason or isinstance(found, str) else _shift(editor, found, node, calibration)
        if reason is None and isinstance(found, Link) and shift.any():
            _apply(editor, found, shift)
            applied.append(node.name)
        else:
            refused.append((node.name, reason or "no channel of it is always positive"))
    result = editor.finish() if applied else graph
    return PassResult(graph=result, applied=tuple(applied), refused=tuple(refused))


def _refuse(editor: GraphEditor, link: Link) -> str | None:
    """Return why nothing can be shifted through a link."""
    for name in link.path:
        op: Any = editor.nodes[name].op
        counts_padding = getattr(op, "count_include_pad", False) and any(map(any, op.padding))
        if type(op) not in SHIFTED or counts_padding:
            return f"{type(op).__name__} of {name} does not let shifts of channels pass"
    op = editor.nodes[link.last].op
    if isinstance(op, ops.ConvTranspose) or (isinstance(op, ops.Conv) and any(map(any, op.padding))):
        return f"the borders of {link.last} would miss what is moved into its bias"
    return None


def _shift(editor: GraphEditor, link: Link, first: Node, calibration: Calibration) -> Array:
    """Return what is taken off each channel (channels,); what was renamed by now was shifted before it was measured."""
    seen = calibration.statistics[first.output]
    below = seen.mean - SIGMAS * np.sqrt(np.maximum(seen.variance, 0))
    shift = np.minimum(np.maximum(below, 0), np.maximum(seen.minimum, 0))
    return np.where(far_from_clamp(editor, link, calibration), shift, 0.0)


def _apply(editor: GraphEditor, link: Link, shift: Array) -> None:
    """Write a link's shifts into the biases of its layers."""
    first, last = editor.nodes[link.first], editor.nodes[link.last]
    editor.put(replace(first, inputs=scaled_behind(editor, first, np.ones_like(shift), -shift)))
    read = as_read(editor, link, shift)
    editor.put(replace(last, inputs=scaled_before(editor, last, np.ones_like(read), read)))
    rename_between(editor, link, "absorbed")
