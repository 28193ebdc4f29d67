"""Which layers a CPU without 32-bit dot products would change, counted on the golden integers.

vpmaddubsw multiplies activations a (u8) with weights w (s8) and adds neighbours along the reduction:
clamp(a[2i] * w[2i] + a[2i+1] * w[2i+1], -32768, 32767). The reduction runs through the kernel's positions and, fastest,
through the input channels, as im2col lays them for a matrix product. The products of one pair reach 255 * 127 * 2 =
64770; with 7-bit weights (-64..63) they stay within 32640, so that such a layer is exact everywhere.

uint8 weights count as the int8 ones with another zero point that our ONNX and OpenVINO files hold; a runtime that
multiplies u8 with u8 widens them first. A depthwise convolution has no channels to pair: MLAS and oneDNN compute it in
32 bits, and it is left out here.

Source: Intel oneDNN, Developer Guide, Nuances of int8 Computations; ONNX Runtime, Quantize ONNX Models, reduce_range.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node, Tensor
from edgecnn.kernels import evaluate, pad_spatial
from edgecnn.kernels.windows import windows
from edgecnn.verify import reference_outputs

LEAST, MOST = -(2**15), 2**15 - 1
POSITIONS = 64
"""Output positions that are looked at in each layer, spread over all images."""

LARGEST_PRODUCTS = 1 << 22
"""Pair sums that are held at a time."""

SHIFTS = {"uint8": 0, "int8": 128}
"""Stored type -> what makes it unsigned; 128 less makes it signed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saturation:
    """What 16-bit pair sums do to one layer, on sampled outputs.

    Attributes:
        node: The layer.
        pairs: Share of the pair sums that do not fit 16 bits.
        outputs: Share of the output integers that change.
        largest_step: Largest change of an output integer, in steps of its scale.
        sampled: Outputs that were looked at.
    """

    node: str
    pairs: float
    outputs: float
    largest_step: int
    sampled: int


def saturating_layers(
    graph: Graph, inputs: Mapping[str, Array], *, positions: int = POSITIONS, seed: int = 0
) -> tuple[Saturation, ...]:
    """Return what 16-bit pair sums would change in each 8-bit Conv and Dense, in the Graph's order.

    Every layer gets the exact integers that the Graph gives it: each one's own loss, not its predecessors'. Layers of
    which `outputs` is above 0 are those that 7-bit weights are for.

    Args:
        graph: Quantized; layers that do not take and give 8-bit integers, and depthwise ones, are left out.
        inputs: Port name -> real images (N, ...), as `execute` takes them.
        positions: Output positions to look at in each layer; all channels of each are counted.
        seed: Chooses them.
    """
    layers = [node for node in graph.nodes if _is_8_bit(graph, node)]
    values = reference_outputs(graph, inputs, fetch=tuple(dict.fromkeys(node.inputs[0] for node in layers)))
    rng = np.random.default_rng(seed)
    return tuple(_measure(graph, node, values[node.inputs[0]], positions, rng) for node in layers)


def _is_8_bit(graph: Graph, node: Node) -> bool:
    """Tell whether a node multiplies 8-bit integers along channels and gives 8-bit integers."""
    kernel = graph.constant(node, "kernel")
    if type(node.op) not in COLUMNS or kernel is None:
        return False
    if isinstance(node.op, ops.Conv) and node.op.groups > 1 and kernel.shape[-2] == 1:
        return False
    stored = [kernel.stored_dtype, *(graph.tensors[name].stored_dtype for name in (node.inputs[0], node.output))]
    return all(dtype in SHIFTS for dtype in stored)


def _measure(graph: Graph, node: Node, numbers: Array, positions: int, rng: np.random.Generator) -> Saturation:
    """Compare sampled outputs of one layer with what 16-bit pair sums make of them."""
    kernel: Any = graph.constant(node, "kernel")
    activations: Any = graph.tensors[node.inputs[0]].quantization
    image = activations.quantize(numbers)  # the very integers that the numbers stand for
    zero, groups = activations.zero_point[0], getattr(node.op, "groups", 1)
    columns = COLUMNS[type(node.op)](node.op, kernel, image, Sample(positions=positions, zero=zero, rng=rng))
    weights = kernel.data.reshape(-1, groups, kernel.shape[-1] // groups).transpose(1, 0, 2)
    errors, over = pair_errors(columns + SHIFTS[activations.dtype], weights - (128 - SHIFTS[kernel.stored_dtype]))
    centred = weights - _of_channels(kernel.quantization.zero_point, weights)
    exact = (columns - zero).astype(np.float64) @ centred.astype(np.float64)
    scales = _of_channels(kernel.quantization.scale, weights) * activations.scale[0]
    right, wrong = (_outputs(graph, node, total * scales) for total in (exact, exact + errors))
    changes = np.abs(wrong.astype(np.int64) - right)
    return Saturation(
        node=node.name,
        pairs=over / (exact.size * -(-columns.shape[2] // 2)),
        outputs=np.count_nonzero(changes) / changes.size,
        largest_step=int(changes.max()),
        sampled=changes.size,
    )


def _of_channels(numbers: Sequence[float], weights: Array) -> Array:
    """Return one number, or one for each output channel, as (groups, 1, channels of a group)."""
    groups, _, channels = weights.shape
    return np.broadcast_to(np.asarray(numbers), groups * channels).reshape(groups, 1, channels)


def _outputs(graph: Graph, node: Node, products: Array) -> Array:
    """Return output integers (positions, out_channels) for real sums of products (groups, positions, channels)."""
    given: Any = graph.tensors[node.output].quantization
    bias, op = graph.constant(node, "bias"), node.op
    numbers = np.concatenate(list(products), axis=1) + (0 if bias is None else bias.value())
    activation = getattr(op, "activation", None)
    integers: Array = given.quantize(numbers if activation is None else evaluate(activation, (numbers,)))
    return integers


def pair_errors(activations: Array, weights: Array) -> tuple[Array, int]:
    """Return what saturation takes from each sum of products, and how many pair sums saturate.

    Args:
        activations: (groups, positions, products), 0..255.
        weights: (groups, products, channels), -128..127.

    Returns:
        (groups, positions, channels) int64, to be added to the exact sum; the count.
    """
    odd = activations.shape[2] % 2
    a = np.pad(activations.astype(np.int32), ((0, 0), (0, 0), (0, odd)))
    w = np.pad(weights.astype(np.int32), ((0, 0), (0, odd), (0, 0)))
    errors, over = np.zeros((*a.shape[:2], w.shape[2]), np.int64), 0
    rows = max(1, LARGEST_PRODUCTS // (w.shape[1] * w.shape[2]))
    for group, start in product(range(len(a)), range(0, a.shape[1], rows)):
        part = a[group, start : start + rows, :, None] * w[group]
        sums = part[:, 0::2] + part[:, 1::2]
        lost = np.clip(sums, LEAST, MOST) - sums
        errors[group, start : start + rows] = lost.sum(axis=1)
        over += int(np.count_nonzero(lost))
    return errors, over


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Which outputs to look at: so many, chosen by a generator; `zero` is what padding is stored as."""

    positions: int
    zero: int
    rng: np.random.Generator

    def of(self, count: int) -> Array:
        """Return the indices of some out of `count`, each at most once."""
        return self.rng.choice(count, min(self.positions, count), replace=False)


def _convolution_columns(op: ops.Conv, kernel: Tensor, image: Array, sample: Sample) -> Array:
    """Return what some output positions meet: (groups, positions, kernel positions * channels of a group) int64."""
    padded = pad_spatial(image, op.padding, sample.zero)
    views = [view for _, view in windows(padded, kernel.shape[: len(op.stride)], op.stride, op.dilation)]  # type: ignore[arg-type]
    places = views[0].shape[:-1]
    chosen = np.unravel_index(sample.of(int(np.prod(places))), places)
    met = np.stack([view[chosen] for view in views], axis=1).astype(np.int64)
    split = met.reshape(*met.shape[:2], op.groups, -1).transpose(2, 0, 1, 3)
    return split.reshape(*split.shape[:2], -1)


def _dense_columns(op: ops.Dense, kernel: Tensor, image: Array, sample: Sample) -> Array:
    """Return some rows (1, positions, in_features) int64."""
    rows = image.reshape(-1, image.shape[-1])
    return rows[None, sample.of(len(rows))].astype(np.int64)


COLUMNS: dict[type[ops.Op], Callable[..., Array]] = {ops.Conv: _convolution_columns, ops.Dense: _dense_columns}
"""Operator -> (operator, kernel, stored input, sample) -> the integers that meet the kernel, in its own order."""
