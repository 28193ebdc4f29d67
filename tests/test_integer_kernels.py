"""The integer golden without any runtime: against plain loops, against float arithmetic, and at its edges."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.kernels import evaluate
from edgecnn.kernels.integer import layers
from edgecnn.kernels.integer.scales import Scales
from edgecnn.kernels.quantized import Rounding, evaluate_quantized
from edgecnn.quantization.parameters import Quantization, per_channel, per_tensor
from tests import naive
from tests.quantized_graphs import FLOATS, GRAPHS, MOBILE, quantized, stored_values, values
from tests.test_integer_rounding import gemmlowp

ROUNDINGS: tuple[Rounding, ...] = ("float32", "fixed_point")
COARSE = ("leaky_relu", "requantize", "resize_bilinear", "resize_bilinear_align_corners")
"""What XNNPACK computes with so few bits that the nearest integer is missed by more than rounding would."""

CONVOLUTIONS = [
    n for n, g in GRAPHS.items() if n.startswith("conv") and g.tensors["y"].stored_dtype in ("int8", "uint8")
]
EIGHT_BITS = [name for name in GRAPHS if "int16" not in name]


def run(graph: Graph, rounding: Any, seed: int = 1) -> Array:
    return execute(graph, stored_values(graph, seed), rounding=rounding, stored=True)["result"]


def naive_sums(op: Any, image: Array, kernel: Array, bias: Array) -> Array:
    """Sum products in loops."""
    if isinstance(op, ops.ConvTranspose):
        found = naive.conv_transpose(
            *(image, kernel, bias),
            stride=op.stride,
            padding=op.padding,
            dilation=op.dilation,
            output_padding=op.output_padding,
        )
    else:
        found = naive.conv(
            image, kernel, bias, stride=op.stride, padding=op.padding, dilation=op.dilation, groups=op.groups
        )
    return found.astype(np.int64)


def operands_of(graph: Graph, rounding: Any) -> tuple[list[Array], list[Quantization | None]]:
    """Return what the golden feeds the last node, as stored, and what it stands for."""
    names = graph.nodes[-1].inputs
    found = execute(graph, stored_values(graph), fetch=names, rounding=rounding, stored=True)
    return [found[name] for name in names], [graph.tensors[name].quantization for name in names]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_sums_of_integer_products(name: str) -> None:
    graph = GRAPHS[name]
    op: Any = graph.nodes[0].op
    (x, kernel, *bias), own = operands_of(graph, "float32")
    of_image, of_kernel, given = own[0], own[1], graph.tensors["y"].quantization
    assert of_image is not None
    assert of_kernel is not None
    assert given is not None
    centred = x.astype(np.int64) - of_image.zero_point[0], kernel - of_kernel.zero_points(kernel.ndim)
    sums = naive_sums(op, *centred, bias[0] if bias else np.zeros(kernel.shape[-1]))
    zero, (low, high) = given.zero_point[0], given.limits
    if op.activation is not None:
        low, high = zero, high if isinstance(op.activation, ops.ReLU) else min(high, zero + round(6 / given.scale[0]))
    scales = [np.array(q.scale, np.float32) for q in (of_image, of_kernel, given)]
    wanted = np.rint(sums.astype(np.float32) * (scales[0] * scales[1] / scales[2])) + zero
    assert np.array_equal(run(graph, "float32"), np.clip(wanted, low, high))
    product = scales[0] * scales[1] if given.dtype == "uint8" else scales[0].astype(np.float64) * scales[1]
    fraction, shift = np.frexp(np.broadcast_to(product.astype(np.float64) / scales[2], sums.shape))
    each = zip(sums.flat, np.floor(fraction * 2.0**31 + 0.5).flat, shift.flat, strict=True)
    scaled = [gemmlowp(int(s), int(m), int(e)) for s, m, e in each]
    assert np.array_equal(run(graph, "fixed_point"), np.clip(np.reshape(scaled, sums.shape) + zero, low, high))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_integers_are_within_a_step_of_float_arithmetic(name: str, rounding: Any) -> None:
    """Float kernels on what the operands stand for, rounded: no integer kernel may leave them by more than a step."""
    graph = GRAPHS[name]
    operands, own = operands_of(graph, rounding)
    numbers = [x if q is None else q.dequantize(x) for x, q in zip(operands, own, strict=True)]
    exact = evaluate(graph.nodes[-1].op, numbers)
    given = graph.tensors[graph.nodes[-1].output].quantization
    found = execute(graph, stored_values(graph), rounding=rounding)["result"]
    if given is None:
        assert np.allclose(found, exact, atol=1e-5)
    else:
        steps = np.abs(found - np.clip(exact, *given.range)).max() / given.scale[0]
        assert steps <= (1.6 if name in COARSE else 1.01)


def test_the_two_roundings_differ_and_hardly() -> None:
    graph = quantized(MOBILE)
    a, b = (run(graph, rounding).astype(int) for rounding in ROUNDINGS)
    assert 0 < np.abs(a - b).max() <= 4


def test_chunks_of_rows_and_images_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = quantized(MOBILE)
    x = np.concatenate([stored_values(graph, seed)["image"] for seed in range(3)])
    whole = execute(graph, {"image": x}, stored=True)["result"]
    for size in (1, 700, 5000):
        monkeypatch.setattr(layers, "CHUNK", size)
        assert np.array_equal(execute(graph, {"image": x}, stored=True)["result"], whole)


@pytest.mark.parametrize("count", [518, 519, 4096])
def test_sums_stay_exact_at_the_edge_of_float32(count: int) -> None:
    """The largest products that there are, and a last one that is odd: float32 holds 518 of them, no more."""
    x = np.full((1, count), 127, np.int8)
    x[0, -1] = -127
    kernel = np.full((count, 1), 127, np.int8)
    own = [per_tensor(1.0, -128), per_tensor(1.0)]
    exact = 255 * 127 * (count - 1) + 127
    given = per_tensor(1.0, 0, "int32")
    weights, _ = layers._exact(Scales(own=tuple(own), given=given, rounding="float32"), kernel, None)
    assert weights.dtype == (np.float32 if count == 518 else np.float64)
    sums = (x.astype(weights.dtype) + 128) @ weights
    assert int(sums[0, 0]) == exact


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_integers_of_other_scales_are_joined_in_float(rounding: Any) -> None:
    own = [per_tensor(0.5, 3), per_tensor(0.25, -4)]
    parts = [np.array([[5, 127]], np.int8), np.array([[-128, 0]], np.int8)]
    (found,) = evaluate_quantized(ops.Concat(axis=1), parts, own, [per_tensor(0.5, 10)], rounding)
    assert found.tolist() == [[12, 127, -52, 12]]


def test_padding_is_the_integer_that_stands_for_its_value() -> None:
    q = per_tensor(0.5, 7)
    for value, wanted in ((0.0, 7), (-2.0, 3), (1e6, 127)):
        op = ops.Pad(padding=((0, 0), (1, 0)), value=value)
        (found,) = evaluate_quantized(op, [np.array([[9]], np.int8)], [q], [q], "float32")
        assert found.tolist() == [[wanted, 9]]
        assert found.dtype == np.int8


def test_positions_need_no_quantization() -> None:
    q = per_tensor(0.5, 7)
    x, places = np.array([[1, 2, 3]], np.int8), np.array([2, 0])
    (found,) = evaluate_quantized(ops.Gather(axis=1), [x, places], [q, None], [q], "float32")
    assert found.tolist() == [[3, 1]]


def test_what_no_integer_kernel_takes_is_computed_in_float() -> None:
    """A type without kernels, and channels along an axis that no sum of products allows."""
    wide = per_tensor(0.5, 100, "uint16")
    x = np.array([[101, 103]], np.uint16)
    (found,) = evaluate_quantized(ops.Add(), [x, x], [wide, wide], [wide], "fixed_point")
    assert found.tolist() == [[102, 106]]
    of_rows = per_channel([0.5, 2.0], 0)
    kernel, narrow = np.array([[2], [4]], np.int8), per_tensor(1.0)
    operands = [np.array([[3, 5]], np.int8), kernel]
    (found,) = evaluate_quantized(ops.Dense(), operands, [narrow, of_rows], [narrow], "float32")
    assert found.tolist() == [[43]]
    (found,) = evaluate_quantized(ops.Quantize(), [np.array([[3.0], [3.0]], np.float32)], [None], [of_rows], "float32")
    assert found.tolist() == [[6], [2]]


def test_a_float_activation_under_a_quantized_kernel_stays_float() -> None:
    q = per_channel([0.5, 0.25], 1)
    kernel = np.array([[2, 4]], np.int8)
    (found,) = evaluate_quantized(ops.Dense(), [np.array([[3.0]], np.float32), kernel], [None, q], [None], "float32")
    assert found.tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize(("rounding", "wanted"), [("float32", [-2, 0, 0, 2]), ("fixed_point", [-2, -1, 1, 2])])
def test_numbers_are_quantized_as_each_rounding_does(rounding: Any, wanted: list[int]) -> None:
    x = np.array([-1.5, -0.5, 0.5, 1.5], np.float32)
    (found,) = evaluate_quantized(ops.Quantize(), [x], [None], [per_tensor(1.0)], rounding)
    assert found.tolist() == wanted


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_average_pools_round_halves_away_and_skip_the_padding(rounding: Any) -> None:
    q = per_tensor(1.0, 5)
    x = np.array([[[[-3], [-2]], [[3], [4]]]], np.int8)
    op = ops.AveragePool(kernel_size=(1, 2), stride=(1, 1), padding=((0, 0), (0, 1)))
    (found,) = evaluate_quantized(op, [x], [q], [q], rounding)
    assert found[0, :, :, 0].tolist() == [[-3, -2], [4, 4]]
    counting = replace(op, count_include_pad=True)
    (found,) = evaluate_quantized(counting, [x], [q], [q], rounding)
    assert found[0, :, :, 0].tolist() == [[-3, 2], [4, 5]]


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softmax"])
def test_16_bit_functions_are_close_to_their_definition(name: str) -> None:
    graph = quantized(FLOATS[name], activations="int16")
    for rounding in ROUNDINGS:
        found = execute(graph, values(graph), rounding=rounding)["result"]
        assert np.abs(found - execute(FLOATS[name], values(graph))["result"]).max() < 3e-4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("scale", [1e-38, 1e-12, 1e12, 3e38])
def test_scales_out_of_all_proportion_break_nothing(scale: float, rounding: Rounding) -> None:
    """A file may state any; what comes out has the right type and shape, and no exception stops it."""
    for graph in (graph for graph in GRAPHS.values() if graph.tensors["image"].quantization is not None):
        tensors = dict(graph.tensors)
        for name in ("image", graph.outputs[0].tensor):
            found = graph.tensors[name].quantization
            if found is not None:
                odd = {name: replace(graph.tensors[name], quantization=replace(found, scale=(scale,)))}
                hostile = replace(graph, tensors={**tensors, **odd})
                assert run(hostile, rounding).dtype == found.dtype or name == "image"


def test_every_integer_of_a_table_has_its_place() -> None:
    """uint8 and int8 spell the same function of the same numbers."""
    x = np.arange(256)
    (unsigned,) = evaluate_quantized(
        ops.Tanh(),
        [x.astype(np.uint8)],
        [per_tensor(0.02, 128, "uint8")],
        [per_tensor(1 / 128, 128, "uint8")],
        "float32",
    )
    (signed,) = evaluate_quantized(
        ops.Tanh(), [(x - 128).astype(np.int8)], [per_tensor(0.02)], [per_tensor(1 / 128)], "float32"
    )
    assert np.array_equal(unsigned.astype(int) - 128, signed)
    assert np.all(np.diff(signed.astype(int)) >= 0)
