"""How the inputs of a layer's weights belong together: E[x x^T] over real images, in constant memory.

x is what meets the weights of one output at one position: the channels of a pointwise convolution, the k x k pixels of
a depthwise channel, the pixels of all channels of a group otherwise (a row of im2col). Neighbouring positions say the
same, so that some of each image are looked at, spread evenly.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, prod
from typing import Any

import numpy as np

from edgecnn.graph import Array, Graph, Node
from edgecnn.kernels.windows import pad_spatial, windows
from edgecnn.ops import Conv
from edgecnn.quantization.inner_values import in_runs, open_tracer
from edgecnn.shapes import output_size

POSITIONS = 64
"""Of one image that are looked at, at most about twice as many: 32 images give 2048 rows and more."""

ROWS = 2048
"""That are collected before they are multiplied."""


class SecondMoments:
    """E[x x^T] of one layer, for each group of its channels."""

    def __init__(self, layer: Node, kernel: Array) -> None:
        """Start without inputs.

        Args:
            layer: A convolution, or a dense layer.
            kernel: (spatial..., in_channels / groups, out_channels).
        """
        op: Any = layer.op
        self._op, self._size = op, kernel.shape[:-2]
        groups, weights = op.groups if isinstance(op, Conv) else 1, prod(kernel.shape[:-1])
        # Around a first mean, so that nothing is lost where inputs hardly vary.
        self._origin: Array | None = None
        self._sums = np.zeros((groups, weights))
        self._products = np.zeros((groups, weights, weights), np.float32)
        self._count = 0
        self._waiting: list[Array] = []

    def add(self, values: Array) -> None:
        """Take what a layer is fed with: (N, spatial..., in_channels)."""
        is_convolution = isinstance(self._op, Conv)
        self._waiting.append(self._rows(values) if is_convolution else values.reshape(1, -1, values.shape[-1]))
        if sum(rows.shape[1] for rows in self._waiting) >= ROWS:
            self._multiply()

    def matrix(self, *, is_centred: bool) -> Array:
        """Return E[x x^T], or the covariance: (groups, weights, weights) float64, weights in the kernel's order."""
        self._multiply()
        count, origin = max(self._count, 1), 0.0 if self._origin is None else self._origin
        mean = self._sums / count
        covariance = self._products / count - mean[:, :, None] * mean[:, None, :]
        whole = mean + origin
        return np.asarray(covariance if is_centred else covariance + whole[:, :, None] * whole[:, None, :])

    def _multiply(self) -> None:
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting, axis=1)
        if self._origin is None:
            self._origin = rows.mean(axis=1)
        rows = rows - self._origin[:, None, :]
        self._products += rows.swapaxes(1, 2) @ rows
        self._sums += rows.sum(axis=1)
        self._count += rows.shape[1]
        self._waiting = []

    def _rows(self, values: Array) -> Array:
        """Return (groups, positions, weights of one output) for some outputs of a convolution."""
        op, padded = self._op, pad_spatial(values, self._op.padding)
        sizes = [
            output_size(n, f, stride=s, dilation=d)
            for n, f, s, d in zip(padded.shape[1:-1], self._size, op.stride, op.dilation, strict=True)
        ]
        step = max(1, ceil((prod(sizes) / POSITIONS) ** (1 / len(sizes))))
        stride = [each * step for each in op.stride]
        views = [view for _, view in windows(padded, self._size, stride, op.dilation)]
        taps = np.stack([view.reshape(-1, op.groups, view.shape[-1] // op.groups) for view in views])
        return taps.transpose(2, 1, 0, 3).reshape(op.groups, taps.shape[1], -1)


def measured_moments(
    graph: Graph, layers: Sequence[Node], batches: Iterable[Mapping[str, Array]], *, threads: int = 1
) -> dict[str, SecondMoments]:
    """Run a float Graph on real inputs and return the moments of what each layer is fed with, by its name.

    Args:
        graph: Deployed float Graph.
        layers: Convolutions and dense layers with constant kernels.
        batches: Port name -> (n, ...) values in the Graph's order, preprocessed; any n.
        threads: For the runtime.
    """
    moments = {layer.name: SecondMoments(layer, graph.tensors[layer.inputs[1]].value()) for layer in layers}
    takers: dict[str, list[SecondMoments]] = {}
    for layer in layers:
        takers.setdefault(layer.inputs[0], []).append(moments[layer.name])
    with open_tracer(graph, list(takers), threads=threads) as tracer:
        for values, _ in in_runs(batches, tracer.batch):
            for name, array, channel_axis in tracer.run(values):
                for each in takers[name]:
                    each.add(np.moveaxis(array, channel_axis, -1))
    return moments
