"""Activation equalization: one scale for all channels serves each of them, where layers on both sides can take s over.

With x' = x / s and y' = y / s for each channel of y = activation(x) between layers,

    x' = (w / s) * input + b / s        the layer before, whose output channels have scales of their own
    y' = activation(x')                 ReLU, LeakyReLU and PReLU keep a positive factor
    next = (w_next s) * y'              the layers behind

the float network is the same, and the widest channel no longer leaves the others a few steps. A depthwise layer behind
has a scale for each channel, too, and loses nothing: s is the channel's range. In other layers s widens some weights of
each output. s = range of y ^ a / range of w_next ^ (1 - a) divides the trouble between activations and weights, as in
SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, equation 4); of several a the one is taken with which the layers behind
can expect the smallest error, where D = max(range / s) / 255 and, for each output, d = max |w_next s| / 127:

    error / signal = sum of (D w_next s)^2 + sum of d^2 variance(y) / s^2, over the sum of w_next^2 variance(y)

The mean of y is left out: what a wrong weight makes of it is a bias, which is corrected. Cross-layer equalization (see
equalize) balances the weights of both layers instead, for kernels with one scale.

A swish does not keep a factor, but only its sigmoid needs x as it is:

    y' = x' sigmoid(s x')               one Mul by a constant vector in front of the sigmoid

and since a sigmoid is constant within an eighth of a step beyond -8..8, its input keeps fine steps whatever x is. Where
x lies far below 0 its swish hardly differs from 0: integers of x' need not reach there (see scales), and the range of
a channel is the larger of those of y and of what matters of x.

Each Mul takes time: nothing is scaled where the expected error does not become LEAST_GAIN times smaller.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node
from edgecnn.passes.channel_scale import refuse_parameters, scaled_before, scaled_behind
from edgecnn.passes.editor import GraphEditor, PassResult
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.rules import WEIGHTED
from edgecnn.quantization.swish_gates import SWISH_REACH, SwishGate, swish_gate

LEAST_GAIN = 6.0
"""Times smaller that the expected error has to become: 8 dB. Channels that all fill their range have no room for what
calibration did not see: with 2, an EfficientNet-B0 of random weights loses 3 dB on other images, with 6 nothing."""

SHARES = (1.0, 0.75, 0.5)
"""Exponents of the range of an activation that are tried."""

LARGEST_SPREAD = 2.0
"""Largest over median range of the channels from which on it is said why they were not scaled."""

LARGEST_FACTOR = 64.0
"""Of a channel to the widest one: dead channels are not blown up further."""

HOMOGENEOUS = (ops.ReLU, ops.LeakyReLU, ops.PReLU)


def equalize_activations(graph: Graph, calibration: Calibration) -> PassResult:
    """Scale the channels between layers of a prepared float Graph where their ranges differ much.

    Args:
        graph: Swish is Sigmoid and Mul there.
        calibration: Of the Graph.
    """
    editor, applied, refused = GraphEditor(graph), [], []
    for name in [each.name for each in graph.nodes]:
        node = editor.nodes[name]  # as the layers before it have left it
        tensor = node.output
        if tensor not in calibration.statistics or not editor.consumers(tensor):
            continue
        layer = _layer_before(editor, node)
        if layer is None:
            continue
        reason = _refusal(editor, tensor, layer)
        factors = _choose(editor, node, calibration) if reason is None else None
        if reason is not None and _spread(_ranges(editor, node, calibration)) > LARGEST_SPREAD:
            refused.append((node.name, reason))
        if factors is not None:
            _apply(editor, node, layer, factors)
            applied.append(node.name)
    return PassResult(graph=editor.finish() if applied else graph, applied=tuple(applied), refused=tuple(refused))


def _layer_before(editor: GraphEditor, node: Node) -> Node | None:
    """Return the layer whose channels a node's output can be scaled by: the node itself, or through its activation."""
    if isinstance(node.op, WEIGHTED):
        return node if isinstance(node.op.activation, ops.ReLU) else None
    gate = _gate(editor, node)
    if gate is None and not isinstance(node.op, HOMOGENEOUS):
        return None
    source = node.inputs[0] if gate is None else gate.source
    layer, takers = editor.producer(source), frozenset((node.name,)) if gate is None else gate.takers
    if layer is None or not isinstance(layer.op, WEIGHTED) or layer.op.activation is not None:
        return None
    is_alone = {each.name for each in editor.consumers(source)} == takers and source not in editor.outputs
    return layer if is_alone and (gate is None or editor.only_consumer(gate.sigmoid.output) is not None) else None


def _gate(editor: GraphEditor, node: Node) -> SwishGate | None:
    """Return the parts of a swish whose channels are not scaled yet."""
    found = swish_gate(editor, node)
    return found if found is not None and found.sigmoid.name in found.takers else None


def _ranges(editor: GraphEditor, node: Node, calibration: Calibration) -> Array:
    """Return the largest absolute value of each channel that matters, in front of the activation and behind it."""
    seen = calibration.statistics[node.output]
    ranges = np.maximum(np.abs(seen.minimum), np.abs(seen.maximum)).astype(np.float64)
    gate = _gate(editor, node)
    if gate is None:
        return np.asarray(ranges)
    below = np.clip(-calibration.statistics[gate.source].minimum, 0, SWISH_REACH)
    return np.asarray(np.maximum(ranges, below))


def _spread(ranges: Array) -> float:
    middle = float(np.median(ranges))
    return float(ranges.max()) / middle if middle > 0 else 1.0


def _refusal(editor: GraphEditor, tensor: str, layer: Node) -> str | None:
    """Return why the channels of a tensor cannot be scaled."""
    if tensor in editor.outputs:
        return "it is an output of the network"
    takers = editor.consumers(tensor)
    for taker in takers:
        if not isinstance(taker.op, WEIGHTED) or taker.inputs.count(tensor) != 1 or taker.inputs[0] != tensor:
            return f"{taker.name} ({taker.kind}) takes it, which cannot take over its scale"
    return next(filter(None, (refuse_parameters(editor, each) for each in (layer, *takers))), None)


def _choose(editor: GraphEditor, node: Node, calibration: Calibration) -> Array | None:
    """Return s of each channel, at most 1, or None where none makes the error enough smaller."""
    given = _ranges(editor, node, calibration)
    given = np.maximum(given, given.max() / LARGEST_FACTOR)
    kernels = [_by_channel(editor, taker, len(given)) for taker in editor.consumers(node.output)]
    if not given.all() or not all(each.any() for each in kernels):
        return None
    variance = calibration.statistics[node.output].variance
    tried = [np.ones_like(given), *(_factors(given, kernels, share) for share in SHARES)]
    errors = [sum(_error(given, variance, kernel, factors) for kernel in kernels) for factors in tried]
    best = int(np.argmin(errors))
    return tried[best] if errors[0] >= errors[best] * LEAST_GAIN else None


def _by_channel(editor: GraphEditor, taker: Node, channels: int) -> Array:
    """Return the kernel of a layer as (groups, channels of a group, places, outputs of a group)."""
    kernel = editor.constant(taker, "kernel")
    weights = np.zeros((1, channels, 1)) if kernel is None else kernel.value().astype(np.float64)
    inputs, outputs = weights.shape[-2:]
    groups = channels // inputs
    return weights.reshape(-1, inputs, groups, outputs // groups).transpose(2, 1, 0, 3)


def _factors(given: Array, kernels: Sequence[Array], share: float) -> Array:
    """Return s = range^share / (range of w_next)^(1 - share), at most 1; a depthwise layer takes any s."""
    dense = [np.abs(each).max(axis=(2, 3)).ravel() for each in kernels if each.shape[1] > 1]
    if not dense:
        return np.asarray(given / given.max())
    read = np.maximum.reduce(dense)
    factors = given**share / np.maximum(read, read.max() / LARGEST_FACTOR) ** (1 - share)
    return np.asarray(factors / factors.max())


def _error(given: Array, variance: Array, kernel: Array, factors: Array) -> float:
    """Return the relative error of what a layer gives, from rounding what it reads and from rounding its kernel."""
    scaled = kernel * factors.reshape(*kernel.shape[:2], 1, 1)
    varying = (variance / np.square(factors)).reshape(*kernel.shape[:2], 1, 1)
    step = (given / factors).max() / 255
    kernel_steps = np.abs(scaled).max(axis=(1, 2), keepdims=True) / 127
    signal = (np.square(scaled) * varying).sum()
    error = step**2 * np.square(scaled).sum() + (np.square(kernel_steps) * varying).sum() * kernel.shape[2]
    return float(error / signal) if signal > 0 else 0.0


def _apply(editor: GraphEditor, node: Node, layer: Node, factors: Array) -> None:
    """Write the layer, the activation and the layers behind anew, over scaled tensors of their own names."""
    still, gate = np.zeros_like(factors), _gate(editor, node)
    takers = editor.consumers(node.output)
    output = editor.free_name(f"{node.output}/equalized")
    source = output if layer is node else editor.free_name(f"{layer.output}/equalized")
    parameters = scaled_behind(editor, layer, 1 / factors, still)
    restored = layer.output  # with a swish: the value that the layer gave, under its name
    editor.put(replace(layer, inputs=parameters, outputs=(source,)))
    if gate is not None:
        by = editor.add_constant(f"{gate.sigmoid.name}/factors", factors.astype(np.float32))
        name = editor.free_name(f"{gate.sigmoid.name}/restored")
        editor.put(Node(name=name, op=ops.Mul(), inputs=(source, by), outputs=(restored,)))
    if layer is not node:
        inputs = tuple(source if name == restored else name for name in node.inputs)
        editor.put(replace(node, inputs=inputs, outputs=(output,)))
    for taker in takers:
        editor.put(replace(taker, inputs=(output, *scaled_before(editor, taker, factors, still)[1:])))
