"""Which layers a CPU without 32-bit dot products would change, counted on the golden integers.

vpmaddubsw multiplies activations a (u8) with weights w (s8) and adds neighbours along the reduction:
clamp(a[2i] * w[2i] + a[2i+1] * w[2i+1], -32768, 32767). The reduction runs through the kernel's positions and, fastest,
through the input channels, as im2col lays them for a matrix product. The products of one pair reach 255 * 127 * 2 =
64770; with 7-bit weights (-64..63) they stay within 32640, so that such a layer is exact everywhere.

Measured: on a layer of random weights every output integer of ONNX Runtime 1.31 on a Haswell (emulated by QEMU), and of
OpenVINO 2026.4 held to AVX2 (ONEDNN_MAX_CPU_ISA), is the one that `pair_errors` foretells.

Not counted: OpenVINO keeps activations of zero point 0 signed, for which oneDNN halves the weights on such a CPU. That
loses a bit of them, at most a step of the output, whatever the weights are.

uint8 weights count as the int8 ones with another zero point that our ONNX and OpenVINO files hold; a runtime that
multiplies u8 with u8 widens them first. A depthwise convolution has no channels to pair: MLAS and oneDNN compute it in
32 bits, and it is left out here.

Source: Intel oneDNN, Developer Guide, Nuances of int8 Computations; ONNX Runtime, Quantize ONNX Models, reduce_range.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from shlex import quote
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array, Graph, Node, Tensor
from edgecnn.kernels import evaluate, pad_spatial
from edgecnn.kernels.windows import windows
from edgecnn.verify import reference_outputs

LEAST, MOST = -(2**15), 2**15 - 1
IMAGES = 2
"""That are enough to find the layers: each gives thousands of sums."""

SAFE = "static_w7_a8"
"""The precision of which no layer saturates."""

POSITIONS = 1024
"""Output positions that are looked at in each layer, spread over all images."""

LARGEST_PRODUCTS = 1 << 20
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

    @property
    def remedy(self) -> str:
        """The option of `quantize` that keeps this layer from saturating.

        >>> Saturation(node="block[1]/conv", pairs=0.1, outputs=0.2, largest_step=3, sampled=64).remedy
        "--layer 'block[[]1]/conv=static_w7_a8'"
        """
        return f"--layer {quote(f'{escape(self.node)}={SAFE}')}"


def describe(found: Sequence[Saturation], *, listed: int = 3) -> str:
    """Return which layers saturate, those that change most first, and what prevents it, as a sentence for people.

    Args:
        found: What was measured of all layers.
        listed: How many to name.
    """
    if not found:
        return "No layer multiplies 8-bit integers in pairs, so that none saturates on x86 without VNNI."
    hit = sorted((each for each in found if each.outputs), key=lambda each: -each.outputs)
    if not hit:
        return f"On x86 without VNNI (AVX2), too, none of the {len(found)} layers of 8-bit products saturates."
    named = ", ".join(f"{e.node} ({e.outputs:.1%} of its outputs, by up to {e.largest_step})" for e in hit[:listed])
    more = f" and {len(hit) - listed} more, which --json names" if len(hit) > listed else ""
    verb = "layer saturates" if len(hit) == 1 else "layers saturate"
    options = " ".join(each.remedy for each in hit[:listed])
    return (
        f"On x86 without VNNI (AVX2) {len(hit)} {verb} in ONNX Runtime and OpenVINO: {named}{more}. 7-bit weights "
        f"prevent it: {options}"
    )


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
        outputs=float(np.count_nonzero(changes) / changes.size),
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

    Only pairs of weights that reach beyond 16 bits with some activations are multiplied out: a few in a hundred.

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
    many = max(1, LARGEST_PRODUCTS // a.shape[1])
    for group in range(len(a)):
        even, uneven = a[group][:, 0::2], a[group][:, 1::2]
        first, second = w[group, 0::2], w[group, 1::2]
        channels, pairs = _reaching(first, second)
        for start in range(0, len(pairs), many):
            pair, channel = pairs[start : start + many], channels[start : start + many]
            sums = even[:, pair] * first[pair, channel] + uneven[:, pair] * second[pair, channel]
            lost = np.clip(sums, LEAST, MOST) - sums
            own, starts = np.unique(channel, return_index=True)
            errors[group][:, own] += np.add.reduceat(lost, starts, axis=1, dtype=np.int64)
            over += int(np.count_nonzero(lost))
    return errors, over


def _reaching(first: Array, second: Array) -> tuple[Array, Array]:
    """Return (channels, pairs), sorted by channel, of the weights whose products can leave 16 bits."""
    largest, least = (255 * (end(first, 0) + end(second, 0)) for end in (np.maximum, np.minimum))
    channels, pairs = np.nonzero(((largest > MOST) | (least < LEAST)).T)
    return channels, pairs


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
