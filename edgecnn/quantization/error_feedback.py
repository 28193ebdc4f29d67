"""Error feedback: round the weights of an output one after the other, each making up for the errors of those before it.

What a layer loses by rounding its weights W (inputs, outputs) to Q is, over its real inputs x,

    E |(W - Q)^T x|^2 = trace((W - Q)^T H (W - Q)),    H = E[x x^T]

Inputs that are alike (neighbouring pixels, channels of an expansion) make H far from diagonal: the error of one weight
can be undone in another. With H = (U + I) D (U + I)^T, U strictly upper triangular and D diagonal, weight k of every
output becomes, in steps of its scale,

    q_k = round(w_k + sum over j < k of U_jk (w_j - q_j))

which leaves an error of trace(D) / 12 in squared steps where rounding to the nearest leaves trace(H) / 12, and trace(D)
is never larger. Inputs of the most energy come first, while there are weights left to make up for them. Scales stay as
they are, and nothing is added at run time.

Where a bias correction follows, H is the covariance: what the mean input makes of the errors is a constant, which the
bias takes away. H is dampened by a share of its mean diagonal, so that it is not trusted where images say little.

Source: Frantar and Alistarh, Optimal Brain Compression, arXiv:2208.11580; Frantar et al., GPTQ, arXiv:2210.17323
(dampening, blocks); in this form, with the proof that it is the same: Chee et al., QuIP, arXiv:2307.13304, section 3.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

import numpy as np

from edgecnn.graph import Array, Graph, Node
from edgecnn.ops import ConvTranspose
from edgecnn.passes.editor import GraphEditor, PassResult
from edgecnn.quantization.correct_bias import corrected_layers
from edgecnn.quantization.second_moments import measured_moments

MOST_WEIGHTS = 4608
"""Of one output, 3 x 3 x 512: H takes 170 MB then; a layer with more keeps the nearest integers."""

DAMPENING = 0.01
"""Added to the diagonal of H, as a share of its mean. Source: GPTQ, section 3.3."""

BLOCK = 64
"""Weights of one output that are rounded between two matrix products."""


def error_feedback(
    float_graph: Graph,
    quantized: Graph,
    batches: Iterable[Mapping[str, Array]],
    *,
    is_centred: bool = False,
    threads: int = 1,
) -> PassResult:
    """Round the kernels of a quantized Graph again, with error feedback.

    Args:
        float_graph: What was quantized: its layers have the names of the quantized Graph's.
        quantized: Layers with quantized kernels, whose scales it keeps.
        batches: Port name -> (n, ...) real values for the float Graph, preprocessed; any n.
        is_centred: Whether a bias correction follows, which takes away what errors do to the mean.
        threads: For the runtime.
    """
    pairs = corrected_layers(float_graph, quantized)
    reasons = {node.name: _reason(float_graph, each) for each, node in pairs}
    chosen = [(each, node) for each, node in pairs if not reasons[node.name]]
    moments = measured_moments(float_graph, [each for each, _ in chosen], batches, threads=threads) if chosen else {}
    editor = GraphEditor(quantized)
    for each, node in chosen:
        # Each matrix goes as soon as its layer is done.
        matrix = moments.pop(node.name).matrix(is_centred=is_centred)
        _round_again(editor, node, float_graph.tensors[each.inputs[1]].value(), matrix)
    return PassResult(
        graph=editor.finish(),
        applied=tuple(node.name for _, node in chosen),
        refused=tuple((name, reason) for name, reason in reasons.items() if reason),
    )


def _reason(graph: Graph, layer: Node) -> str:
    """Return why a layer keeps its integers, or nothing."""
    weights = prod(graph.tensors[layer.inputs[1]].value().shape[:-1])
    if isinstance(layer.op, ConvTranspose):
        return "outputs of a transposed convolution meet different parts of its kernel"
    if weights > MOST_WEIGHTS:
        return f"at most {MOST_WEIGHTS} weights of one output were wanted; it has {weights}"
    return ""


def _round_again(editor: GraphEditor, node: Node, wanted: Array, matrix: Array) -> None:
    """Give a layer's kernel its new integers, within the limits of the old ones."""
    kernel = editor.constant(node, "kernel")
    if kernel is None or kernel.data is None or kernel.quantization is None:
        return
    steps = wanted / kernel.quantization.scales(wanted.ndim)
    limit = int(np.abs(kernel.data.astype(np.int64)).max(initial=0))
    data = rounded(steps, matrix, limit=limit).astype(kernel.data.dtype)
    editor.tensors[kernel.name] = replace(kernel, data=data)


def rounded(steps: Array, matrix: Array, *, limit: int) -> Array:
    """Return a kernel's integers, each rounded in the light of the errors before it.

    Args:
        steps: (..., weights, out_channels) float32 in steps of each channel's scale; the groups' outputs lie in a row.
        matrix: H, (groups, weights of one output, weights of one output), in the kernel's order.
        limit: The largest integer; the smallest is its opposite.

    Two weights whose inputs are always the same: 0.4 is too much for the first alone, so that the second takes it.

    >>> rounded(np.array([[0.4], [0.4]], np.float32), np.ones((1, 2, 2)), limit=127).ravel()
    array([0., 1.], dtype=float32)
    """
    groups, weights, _ = matrix.shape
    wanted = steps.reshape(weights, groups, -1).swapaxes(0, 1)
    order = np.argsort(-np.diagonal(matrix, axis1=1, axis2=2), axis=1, kind="stable")
    group = np.arange(groups)[:, None]
    feedback = _feedback(matrix[group[:, :, None], order[:, :, None], order[:, None, :]])
    found = np.empty_like(wanted)
    found[group, order] = _rounded_in_order(wanted[group, order], feedback, limit)
    return found.swapaxes(0, 1).reshape(steps.shape)


def _feedback(matrix: Array) -> Array:
    """Return U (groups, weights, weights), strictly upper triangular, of a dampened H = (U + I) D (U + I)^T."""
    place = np.arange(matrix.shape[1])
    energy = matrix[:, place, place].mean(axis=1, keepdims=True)
    dampened = matrix.astype(np.float64)
    dampened[:, place, place] += np.where(energy > 0, DAMPENING * energy, 1.0)
    # Cholesky gives the lower factor; read from the far corner, it is the upper one.
    upper = np.linalg.cholesky(dampened[:, ::-1, ::-1])[:, ::-1, ::-1]
    upper = upper / upper[:, place, place][:, None, :]
    upper[:, place, place] = 0
    return upper.astype(np.float32)


def _rounded_in_order(wanted: Array, feedback: Array, limit: int) -> Array:
    """Return (groups, weights, outputs) rounded, first weights first."""
    found, errors = np.empty_like(wanted), np.zeros_like(wanted)
    for start in range(0, wanted.shape[1], BLOCK):
        end = min(start + BLOCK, wanted.shape[1])
        target = wanted[:, start:end] + feedback[:, :start, start:end].swapaxes(1, 2) @ errors[:, :start]
        for place in range(start, end):
            before = feedback[:, start:place, place, None].swapaxes(1, 2) @ errors[:, start:place]
            found[:, place] = np.clip(np.rint(target[:, place - start] + before[:, 0]), -limit, limit)
            errors[:, place] = wanted[:, place] - found[:, place]
    return found
