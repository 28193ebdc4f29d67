"""Error feedback: round the weights of a layer one after the other, each making up for the errors of those before it.

What a layer loses by rounding its weights W (inputs, outputs) to Q is, over its real inputs x,

    E |(W - Q)^T x|^2 = trace((W - Q)^T H (W - Q)),    H = E[x x^T]

and inputs that are alike (neighbouring pixels, channels of an expansion) make H far from diagonal: an error in one
weight can be undone in another. With H = (U + I) D (U + I)^T, U strictly upper triangular and D diagonal, weight k of
every output is rounded as

    q_k = round(w_k + sum over j < k of U_jk (w_j - q_j))

which leaves trace(D) / 12 of error in steps squared, where rounding to the nearest leaves trace(H) / 12; the first is
never larger. Inputs of the largest energy come first, while there are still weights to make up for them. The scales are
those of the kernel; nothing is added at run time.

Where a bias correction follows, H is taken about the mean: E[x] moves an output by a constant, which the bias takes
away. H is dampened by a share of its mean diagonal, so that it is not trusted where few images say little.

Source: Frantar and Alistarh, Optimal brain compression, arXiv:2208.11580; Frantar et al., GPTQ, arXiv:2210.17323 (order,
dampening, blocks); this form, and its being the same: Chee et al., QuIP, arXiv:2307.13304, section 3 and theorem 6.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from typing import Any

import numpy as np

from edgecnn.graph import Array, Graph, Node
from edgecnn.kernels.windows import pad_spatial, windows
from edgecnn.ops import Conv, ConvTranspose
from edgecnn.passes.editor import GraphEditor, PassResult
from edgecnn.quantization.correct_bias import corrected_layers
from edgecnn.quantization.inner_values import open_tracer
from edgecnn.quantization.recipe import Recipe

MOST_WEIGHTS = 4608
"""Of one output: a matrix H of 4608 x 4608 takes 85 MB and seconds; a layer with more is rounded to the nearest."""

POSITIONS = 256
"""Of one image that are looked at, about, spread evenly: neighbours say the same."""

ROWS = 2048
"""Inputs that are collected before they are added to H."""

DAMPENING = 0.01
"""Added to the diagonal of H, as a share of its mean. Source: GPTQ, section 3.3."""

BLOCK = 64
"""Weights of one output that are rounded between two matrix products."""


class _SecondMoments:
    """E[x] and E[x x^T] of what meets the weights of one output, for each group of channels."""

    def __init__(self, layer: Node, kernel: Array) -> None:
        op: Any = layer.op
        self.groups = op.groups if isinstance(op, Conv) else 1
        self._op, self._size = op, kernel.shape[:-2]
        weights = prod(kernel.shape[:-1])
        self._sums = np.zeros((self.groups, weights, 1), np.float32)
        self._products = np.zeros((self.groups, weights, weights), np.float32)
        self._count = 0
        self._waiting: list[Array] = []

    def add(self, image: Array) -> None:
        """Take a layer's input (N, spatial..., in_channels)."""
        self._waiting.append(self._seen(image))
        if sum(rows.shape[1] for rows in self._waiting) >= ROWS:
            self._flush()

    def matrix(self, *, is_centred: bool) -> Array:
        """Return H (groups, weights, weights), about 0 or about the mean."""
        self._flush()
        mean = self._sums / self._count
        found = self._products / self._count
        return found - mean @ mean.swapaxes(1, 2) if is_centred else found

    def _flush(self) -> None:
        if self._waiting:
            rows = np.concatenate(self._waiting, axis=1)
            self._products += rows.swapaxes(1, 2) @ rows
            self._sums += rows.sum(axis=1)[..., None]
            self._count += rows.shape[1]
            self._waiting = []

    def _seen(self, image: Array) -> Array:
        """Return (groups, positions, weights of one output): the inputs of some outputs, in the kernel's order."""
        if not isinstance(self._op, Conv):
            return image.reshape(1, -1, image.shape[-1])
        op = self._op
        outputs = prod(n // s for n, s in zip(image.shape[1:-1], op.stride, strict=True))
        step = ceil((outputs / POSITIONS) ** (1 / len(op.stride)))
        stride = [each * max(step, 1) for each in op.stride]
        views = [view for _, view in windows(pad_spatial(image, op.padding), self._size, stride, op.dilation)]
        taps = np.stack([view.reshape(-1, self.groups, view.shape[-1] // self.groups) for view in views])
        return taps.transpose(2, 1, 0, 3).reshape(self.groups, taps.shape[1], -1)


def error_feedback(
    float_graph: Graph,
    quantized: Graph,
    batches: Iterable[Mapping[str, Array]],
    recipe: Recipe,
    *,
    threads: int = 1,
) -> PassResult:
    layers, refused = [], []
    for each, node in corrected_layers(float_graph, quantized):
        reason = _reason(float_graph, each)
        if reason:
            refused.append((node.name, reason))
        else:
            layers.append((each, node))
    moments = _measured(float_graph, [each for each, _ in layers], batches, threads)
    editor = GraphEditor(quantized)
    for each, node in layers:
        kernel = quantized.tensors[node.inputs[1]]
        if kernel.quantization is None:
            continue
        limit = recipe.precision_of(node.name).weight_limit
        data = rounded(
            float_graph.tensors[each.inputs[1]].value(),
            np.asarray(kernel.quantization.scale, np.float32),
            moments[node.name].matrix(is_centred=recipe.bias_correction != "none"),
            limit=limit,
        )
        name = editor.free_name(kernel.name)
        editor.tensors[name] = replace(kernel, name=name, data=data)
        editor.put(replace(editor.nodes[node.name], inputs=(node.inputs[0], name, *node.inputs[2:])))
    return PassResult(graph=editor.finish(), applied=tuple(n.name for _, n in layers), refused=tuple(refused))


def _reason(graph: Graph, layer: Node):
    if isinstance(layer.op, ConvTranspose):
        return "transposed"
    n = prod(graph.tensors[layer.inputs[1]].shape[:-1])
    return f"{n} weights" if n > MOST_WEIGHTS else None


def _measured(graph, layers, batches, threads):
    moments = {layer.name: _SecondMoments(layer, graph.tensors[layer.inputs[1]].value()) for layer in layers}
    takers: dict[str, list[str]] = {}
    for layer in layers:
        takers.setdefault(layer.inputs[0], []).append(layer.name)
    with open_tracer(graph, list(takers), threads=threads) as tracer:
        for batch in batches:
            for start in range(0, len(next(iter(batch.values()))), tracer.batch):
                for name, values, axis in tracer.run({k: v[start:start + tracer.batch] for k, v in batch.items()}):
                    for taker in takers[name]:
                        moments[taker].add(np.moveaxis(values, axis, -1))
    return moments


def rounded(kernel: Array, scales: Array, matrix: Array, *, limit: int) -> Array:
    """Return a kernel's integers, each rounded in the light of the errors before it."""
    groups, weights, _ = matrix.shape
    wanted = (kernel / scales).reshape(weights, groups, -1).swapaxes(0, 1)
    energy = np.diagonal(matrix, axis1=1, axis2=2)
    order = np.argsort(-energy, axis=1, kind="stable")
    upper = _feedback(np.take_along_axis(np.take_along_axis(matrix, order[:, :, None], 1), order[:, None, :], 2))
    found = _rounded_in_order(np.take_along_axis(wanted, order[:, :, None], 1), upper, limit)
    integers = np.empty_like(found)
    np.put_along_axis(integers, order[:, :, None], found, 1)
    return integers.swapaxes(0, 1).reshape(kernel.shape).astype(np.int8)


def _feedback(matrix: Array) -> Array:
    """Return U (groups, weights, weights), strictly upper triangular, of a dampened H = (U + I) D (U + I)^T."""
    matrix = matrix.astype(np.float64)
    place = np.arange(matrix.shape[1])
    mean = matrix[:, place, place].mean(axis=1)
    matrix[:, place, place] += np.where(mean > 0, DAMPENING * mean, 1.0)[:, None]
    # The Cholesky factor of the matrix read from its far corner is its upper factor.
    upper = np.linalg.cholesky(matrix[:, ::-1, ::-1])[:, ::-1, ::-1]
    upper = upper / upper[:, place, place][:, None, :]
    upper[:, place, place] = 0
    return upper.astype(np.float32)


def _rounded_in_order(wanted: Array, upper: Array, limit: int) -> Array:
    """Round (groups, weights, outputs), in steps, first weights first."""
    errors, found = np.zeros_like(wanted), np.empty_like(wanted)
    for start in range(0, wanted.shape[1], BLOCK):
        end = min(start + BLOCK, wanted.shape[1])
        target = wanted[:, start:end] + upper[:, :start, start:end].swapaxes(1, 2) @ errors[:, :start]
        for place in range(start, end):
            back = upper[:, start:place, place][:, None, :] @ errors[:, start:place]
            found[:, place] = np.clip(np.rint(target[:, place - start] + back[:, 0]), -limit, limit)
            errors[:, place] = wanted[:, place] - found[:, place]
    return found
