"""Activation equalization: one scale for all channels serves each of them, where layers on both sides can take s over.

With x' = x / s and y' = y / s for each channel of y = activation(x) between layers,

    x' = (w / s) * input + b / s        the layer before, whose output channels have scales of their own
    y' = activation(x')                 ReLU, LeakyReLU and PReLU keep a positive factor
    next = (w_next s) * y'              the layers behind

the float network is the same, and the widest channel no longer leaves the others a few steps. A depthwise layer behind
has a scale for each channel, too, and loses nothing: s is the channel's range. In other layers s widens some weights of
each output; s = sqrt(range of y / range of w_next) balances both, as in SmoothQuant (Xiao et al. 2022,
arXiv:2211.10438, equation 4). Cross-layer equalization (see equalize) balances the weights of both layers instead, for
kernels with one scale.

A swish does not keep a factor, but only its sigmoid needs x as it is:

    y' = x' sigmoid(s x')               one Mul by a constant vector in front of the sigmoid

and since a sigmoid is constant within an eighth of a step beyond -8..8, its input keeps fine steps whatever x is.

Only channels that need it are worth it: where the widest is SPREAD times the median one.
"""

from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node
from edgecnn.passes.channel_scale import refuse_parameters, scaled_before, scaled_behind
from edgecnn.passes.editor import GraphEditor, PassResult
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.rules import WEIGHTED

SPREAD = 2.0
"""Largest over median range of the channels: one bit of the median one's eight is lost then."""

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
    for node in graph.nodes:
        tensor = node.output
        if tensor not in calibration.statistics or not editor.consumers(tensor):
            continue
        layer = _layer_before(editor, node)
        if layer is None or _spread(_ranges(calibration, tensor)) < SPREAD:
            continue
        reason = _refusal(editor, tensor, layer)
        if reason is None:
            _apply(editor, node, layer, _factors(editor, tensor, calibration))
            applied.append(node.name)
        else:
            refused.append((node.name, reason))
    return PassResult(graph=editor.finish() if applied else graph, applied=tuple(applied), refused=tuple(refused))


def _layer_before(editor: GraphEditor, node: Node) -> Node | None:
    """Return the layer whose channels a node's output can be scaled by: the node itself, or through its activation."""
    if isinstance(node.op, WEIGHTED):
        return node if isinstance(node.op.activation, ops.ReLU) else None
    gate = _gate(editor, node)
    if gate is None and not isinstance(node.op, HOMOGENEOUS):
        return None
    source = node.inputs[0] if gate is None else gate.inputs[0]
    layer, takers = editor.producer(source), {node.name, *([gate.name] if gate else [])}
    if layer is None or not isinstance(layer.op, WEIGHTED) or layer.op.activation is not None:
        return None
    is_alone = {each.name for each in editor.consumers(source)} == takers and source not in editor.outputs
    return layer if is_alone and (gate is None or editor.only_consumer(gate.output) is not None) else None


def _gate(editor: GraphEditor, node: Node) -> Node | None:
    """Return the Sigmoid of a Mul that is a swish."""
    before = [editor.producer(name) for name in node.inputs] if isinstance(node.op, ops.Mul) else []
    found = (each for each in before if each is not None and isinstance(each.op, ops.Sigmoid))
    return next((each for each in found if each.inputs[0] in node.inputs), None)


def _ranges(calibration: Calibration, tensor: str) -> Array:
    """Return the largest absolute value of each channel."""
    seen = calibration.statistics[tensor]
    return np.maximum(np.abs(seen.minimum), np.abs(seen.maximum)).astype(np.float64)


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


def _factors(editor: GraphEditor, tensor: str, calibration: Calibration) -> Array:
    """Return s of each channel, at most 1."""
    given = _ranges(calibration, tensor)
    given = np.maximum(given, given.max() / LARGEST_FACTOR)
    read = [_read(editor, taker, len(given)) for taker in editor.consumers(tensor)]
    dense = [each for each in read if each is not None]
    if not dense:
        return np.asarray(given / given.max())
    factors = np.sqrt(given / np.maximum.reduce(dense))
    return np.asarray(factors / factors.max())


def _read(editor: GraphEditor, taker: Node, channels: int) -> Array | None:
    """Return the largest weight with which a layer reads each channel; None for a depthwise one."""
    kernel = editor.constant(taker, "kernel")
    groups = getattr(taker.op, "groups", 1)
    if kernel is None or groups == channels:
        return None
    weights = np.abs(kernel.value().astype(np.float64)).reshape(-1, *kernel.shape[-2:]).max(axis=0)
    of_group = weights.reshape(len(weights), groups, -1).max(axis=2)  # (channels of a group, groups)
    largest = of_group.T.ravel()
    return np.maximum(largest, largest.max() / LARGEST_FACTOR)


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
        by = editor.add_constant(f"{gate.name}/factors", factors.astype(np.float32))
        name = editor.free_name(f"{gate.name}/restored")
        editor.put(Node(name=name, op=ops.Mul(), inputs=(source, by), outputs=(restored,)))
    if layer is not node:
        inputs = tuple(source if name == restored else name for name in node.inputs)
        editor.put(replace(node, inputs=inputs, outputs=(output,)))
    for taker in takers:
        editor.put(replace(taker, inputs=(output, *scaled_before(editor, taker, factors, still)[1:])))
