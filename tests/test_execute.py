"""Each NumPy kernel against plain loops, and running whole Graphs."""

import math
import operator
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.errors import ShapeError, UnsupportedError, UsageError
from edgecnn.execute import execute, with_image_statistics
from edgecnn.graph import Array, Graph
from edgecnn.kernels import KERNELS, evaluate, evaluate_all
from edgecnn.passes.store_float16 import store_float16
from tests import naive


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@st.composite
def windows(draw: st.DrawFn, *, max_dilation: int = 2) -> dict[str, Any]:
    """Sizes, kernel, stride, asymmetric padding and dilation in 1, 2 or 3 dimensions, such that the kernel fits."""
    rank = draw(st.integers(1, 3))
    each = [
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, max_dilation), st.integers(0, 2)))
        for _ in range(rank)
    ]
    padding = [draw(st.tuples(st.integers(0, f - 1), st.integers(0, f - 1))) for f, *_ in each]
    return {
        "sizes": [d * (f - 1) + 1 + more for f, _, d, more in each],
        "kernel_size": tuple(f for f, *_ in each),
        "stride": tuple(s for _, s, *_ in each),
        "dilation": tuple(d for *_, d, _ in each),
        "padding": tuple(padding),
    }


@given(window=windows(), groups=st.integers(1, 3), inputs=st.integers(1, 2), outputs=st.integers(1, 2))
def test_convolution_is_the_sum_over_the_window(window: dict[str, Any], groups: int, inputs: int, outputs: int) -> None:
    sizes, kernel_size = window.pop("sizes"), window.pop("kernel_size")
    image, bias = noise(2, *sizes, groups * inputs), noise(groups * outputs, seed=2)
    kernel = noise(*kernel_size, inputs, groups * outputs, seed=1)
    wanted = naive.conv(image, kernel, bias, groups=groups, **window)
    op = ops.Conv(groups=groups, **window)
    found = evaluate(op, (image, kernel, bias))
    assert op.output_shapes([image.shape, kernel.shape, bias.shape]) == (found.shape,)
    assert found.dtype == np.float32
    assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@given(window=windows(), extra=st.integers(0, 1), inputs=st.integers(1, 2))
def test_transposed_convolution_lays_the_kernel_out(window: dict[str, Any], extra: int, inputs: int) -> None:
    sizes, kernel_size = window.pop("sizes"), window.pop("kernel_size")
    window["output_padding"] = (extra,) * len(sizes)
    image, kernel, bias = noise(2, *sizes, inputs), noise(*kernel_size, inputs, 3, seed=1), noise(3, seed=2)
    op = ops.ConvTranspose(**window)
    try:
        (shape,) = op.output_shapes([image.shape, kernel.shape, bias.shape])
    except ShapeError:
        reject()
    found = evaluate(op, (image, kernel, bias))
    assert found.shape == shape
    assert_allclose(found, naive.conv_transpose(image, kernel, bias, **window), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_groups_of_a_transposed_convolution_do_not_see_each_other(stride: tuple[int, ...]) -> None:
    image, kernel, bias = noise(2, 3, 4, 6), noise(3, 2, 2, 9, seed=1), noise(9, seed=2)
    window: dict[str, Any] = {"stride": stride, "padding": ((0, 1), (1, 0)), "dilation": (1, 1)}
    found = evaluate(ops.ConvTranspose(groups=3, output_padding=(0, 0), **window), (image, kernel, bias))
    for group in range(3):
        read, gives = slice(2 * group, 2 * group + 2), slice(3 * group, 3 * group + 3)
        wanted = naive.conv_transpose(
            image[..., read], kernel[..., gives], bias[gives], output_padding=(0, 0), **window
        )
        assert_allclose(found[..., gives], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("multiplier", [1, 3])
def test_a_depthwise_convolution_gives_each_channel_its_own_filters(multiplier: int) -> None:
    image, kernel = noise(1, 5, 4, 3), noise(3, 3, 1, 3 * multiplier, seed=1)
    op = ops.Conv(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=3)
    found = evaluate(op, (image, kernel))
    for channel in range(3):
        alone = slice(channel * multiplier, (channel + 1) * multiplier)
        single = ops.Conv(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1))
        wanted = evaluate(single, (image[..., channel : channel + 1], kernel[..., alone]))
        assert_allclose(found[..., alone], wanted, rtol=1e-5, atol=1e-6)


@given(window=windows(max_dilation=1), is_max=st.booleans())
def test_pooling_ignores_padding(window: dict[str, Any], is_max: bool) -> None:
    del window["dilation"]
    image = noise(2, *window.pop("sizes"), 3)
    op = (ops.MaxPool if is_max else ops.AveragePool)(**window)
    found = evaluate(op, (image,))
    assert op.output_shapes([image.shape]) == (found.shape,)
    assert_allclose(found, naive.pool(image, is_max=is_max, **window), rtol=1e-5, atol=1e-6)


@given(window=windows(max_dilation=1))
def test_average_pooling_that_counts_padding_averages_zeros(window: dict[str, Any]) -> None:
    del window["dilation"]
    image, padding = noise(2, *window.pop("sizes"), 3), window["padding"]
    found = evaluate(ops.AveragePool(count_include_pad=True, **window), (image,))
    whole = np.pad(image, ((0, 0), *padding, (0, 0)))
    wanted = naive.pool(whole, is_max=False, **{**window, "padding": ((0, 0),) * len(padding)})
    assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_max_pooling_of_negative_numbers_never_gives_the_padding() -> None:
    op = ops.MaxPool(kernel_size=(2,), stride=(2,), padding=((1, 0),))
    assert_array_equal(evaluate(op, (np.array([[[-3.0], [-2.0], [-1.0]]]),)).ravel(), [-3, -1])


def test_dense_multiplies_the_last_axis() -> None:
    x, kernel, bias = noise(2, 3, 4), noise(4, 5, seed=1), noise(5, seed=2)
    found = evaluate(ops.Dense(activation=ops.ReLU()), (x, kernel, bias))
    for n, m, o in naive.positions((2, 3, 5)):
        wanted = max(0.0, sum(float(x[n, m, i]) * float(kernel[i, o]) for i in range(4)) + float(bias[o]))
        assert found[n, m, o] == pytest.approx(wanted, abs=1e-5)


def test_batch_norm_follows_its_formula_per_channel() -> None:
    x, (gamma, beta, mean), variance = noise(2, 3, 4), noise(3, 4, seed=1), np.abs(noise(4, seed=2))
    found = evaluate(ops.BatchNorm(epsilon=1e-2), (x, gamma, beta, mean, variance))
    for n, m, c in naive.positions(x.shape):
        wanted = gamma[c] * (x[n, m, c] - mean[c]) / math.sqrt(variance[c] + 1e-2) + beta[c]
        assert found[n, m, c] == pytest.approx(wanted, abs=1e-5)


def test_layer_norm_follows_its_formula_per_position() -> None:
    x, (gamma, beta) = 3 + noise(2, 3, 4), noise(2, 4, seed=1)
    found = evaluate(ops.LayerNorm(epsilon=1e-2), (x, gamma, beta))
    assert_allclose(found, naive.layer_norm(x, gamma, beta, 1e-2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_follows_its_formula_per_image_and_group(groups: int) -> None:
    x, (gamma, beta) = 3 + noise(2, 3, 2, 6), noise(2, 6, seed=1)
    found = evaluate(ops.GroupNorm(groups=groups, epsilon=1e-2), (x, gamma, beta))
    assert_allclose(found, naive.group_norm(x, gamma, beta, groups, 1e-2), rtol=1e-4, atol=1e-5)


def test_l2_normalization_divides_by_the_norm_but_not_by_less_than_epsilon() -> None:
    x = np.array([[3.0, -4.0], [0.3, 0.4], [0.0, 0.0]], np.float32)
    assert_allclose(evaluate(ops.L2Normalize(epsilon=1.0), (x,)), [[0.6, -0.8], [0.3, 0.4], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize(("a", "b"), [((2, 3), (3, 4)), ((2, 1, 2, 3), (5, 3, 4))])
def test_matrix_products_broadcast_the_axes_before(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = noise(*a), noise(*b, seed=1)
    found = evaluate(ops.MatMul(), (x, y))
    assert ops.MatMul().output_shapes([a, b]) == (found.shape,)
    wide, tall = (np.broadcast_to(each, (*found.shape[:-2], *each.shape[-2:])) for each in (x, y))
    for *batch, row, column in naive.positions(found.shape):
        wanted = sum(float(wide[(*batch, row, k)]) * float(tall[(*batch, k, column)]) for k in range(3))
        assert found[(*batch, row, column)] == pytest.approx(wanted, abs=1e-5)


@given(size=st.sampled_from([1, 3, 5, 9]), channels=st.integers(1, 7))
def test_lrn_divides_by_its_neighbours(size: int, channels: int) -> None:
    x, factors = noise(2, 3, channels), {"alpha": 0.3, "beta": 0.6, "bias": 1.5}
    found = evaluate(ops.LRN(size=size, **factors), (x,))
    assert_allclose(found, naive.lrn(x, size=size, **factors), rtol=1e-5, atol=1e-6)


def test_prelu_has_a_slope_of_its_own_for_each_channel() -> None:
    x = np.array([[[-1.0, -1.0], [2.0, -4.0]]], np.float32)
    assert_array_equal(evaluate(ops.PReLU(), (x, np.array([0.5, 0.25], np.float32))), [[[-0.5, -0.25], [2, -1]]])


def test_powers_roots_and_logarithms() -> None:
    x = np.array([[0.25, 4.0]], np.float32)
    assert_array_equal(evaluate(ops.Sqrt(), (x,)), [[0.5, 2]])
    assert_allclose(evaluate(ops.Log(), (x,)), [[-math.log(4), math.log(4)]], rtol=1e-6)
    assert_array_equal(evaluate(ops.Rsqrt(), (x,)), [[2, 0.5]])
    assert_array_equal(evaluate(ops.Pow(), (x, np.array([2.0, 0.5], np.float32))), [[0.0625, 2]])


@given(
    before=st.lists(st.integers(1, 6), min_size=1, max_size=2),
    after=st.lists(st.integers(1, 9), min_size=2, max_size=2),
    method=st.sampled_from(["nearest", "bilinear"]),
    coordinates=st.sampled_from(["half_pixel", "asymmetric", "align_corners"]),
)
def test_resizing_reads_where_its_docstring_says(
    before: list[int], after: list[int], method: Any, coordinates: Any
) -> None:
    x, size = noise(1, *before, 2), tuple(after[: len(before)])
    found = evaluate(ops.Resize(size=size, method=method, coordinates=coordinates), (x,))
    assert found.dtype == np.float32
    assert_allclose(found, naive.resize(x, size, method=method, coordinates=coordinates), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_depth_goes_to_space_row_by_row_and_back(block: int) -> None:
    x = noise(2, 2, 3, 2 * block * block)
    found = evaluate(ops.DepthToSpace(block=block), (x,))
    for n, h, w, r, c, k in naive.positions((2, 2, 3, block, block, 2)):
        assert found[n, h * block + r, w * block + c, k] == x[n, h, w, (r * block + c) * 2 + k]
    assert_array_equal(evaluate(ops.SpaceToDepth(block=block), (found,)), x)


def test_slices_step_through_a_box() -> None:
    x, op = noise(2, 7, 6), ops.Slice(begin=(0, 1, 2), end=(None, 7, None), step=(1, 3, 2))
    found = evaluate(op, (x,))
    assert op.output_shapes([(None, 7, 6)]) == ((None, 2, 2),)
    for n, i, j in naive.positions((2, 2, 2)):
        assert found[n, i, j] == x[n, 1 + 3 * i, 2 + 2 * j]


SCALARS: dict[ops.Op, Callable[[float], float]] = {
    ops.ReLU(): lambda x: max(x, 0.0),
    ops.ReLU6(): lambda x: min(max(x, 0.0), 6.0),
    ops.Clip(minimum=-1.5, maximum=2.5): lambda x: min(max(x, -1.5), 2.5),
    ops.Sigmoid(): lambda x: 1 / (1 + math.exp(-x)),
    ops.Tanh(): math.tanh,
    ops.LeakyReLU(slope=0.2): lambda x: x if x >= 0 else 0.2 * x,
    ops.ELU(alpha=1.5): lambda x: x if x >= 0 else 1.5 * math.expm1(x),
    ops.Softplus(): lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    ops.Swish(): lambda x: x / (1 + math.exp(-x)),
    ops.HardSigmoid(): lambda x: min(max(x / 6 + 0.5, 0.0), 1.0),
    ops.HardSigmoid(slope=0.2, offset=0.4): lambda x: min(max(0.2 * x + 0.4, 0.0), 1.0),
    ops.HardSwish(): lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    ops.GELU(): lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    ops.GELU(approximate=True): lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    ops.Exp(): math.exp,
    ops.Abs(): abs,
    ops.Neg(): lambda x: -x,
    ops.Floor(): math.floor,
    ops.Ceil(): math.ceil,
    ops.Round(): round,
    ops.Sin(): math.sin,
    ops.Cos(): math.cos,
    ops.Erf(): math.erf,
    ops.Dropout(rate=0.5): lambda x: x,
    ops.Identity(): lambda x: x,
}


@pytest.mark.parametrize("op", SCALARS, ids=lambda op: type(op).__name__)
@given(x=st.floats(-80, 80, width=32))
def test_elementwise_operators_agree_with_the_scalar_formula(op: ops.Op, x: float) -> None:
    found = evaluate(op, (np.array([[x]], np.float32),))
    assert found.dtype == np.float32
    assert found.item() == pytest.approx(SCALARS[op](x), rel=1e-6, abs=1e-6)


def test_sigmoid_and_softmax_are_stable_far_from_zero() -> None:
    far = np.array([[-1e4, 1e4, 9990.0]], np.float32)
    assert_array_equal(evaluate(ops.Sigmoid(), (far,)), [[0, 1, 1]])
    assert_allclose(evaluate(ops.Softmax(), (far,)), [[0, 1 / (1 + math.exp(-10)), 1 / (1 + math.exp(10))]], rtol=1e-5)


def test_softmax_works_row_by_row_whatever_the_other_rows_hold() -> None:
    x = noise(2, 3, 4) + np.array([[[0.0]], [[1e4]]], np.float32)
    powers = np.exp((x - x.max(-1, keepdims=True)).astype(np.float64))
    assert_allclose(evaluate(ops.Softmax(), (x,)), powers / powers.sum(-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(
    ("op", "combine"),
    [
        (ops.Add(), lambda a, b: a + b),
        (ops.Sub(), lambda a, b: a - b),
        (ops.Mul(), lambda a, b: a * b),
        (ops.Div(), lambda a, b: a / b),
        (ops.Maximum(), max),
        (ops.Minimum(), min),
    ],
)
def test_arithmetic_broadcasts(op: ops.Op, combine: Any) -> None:
    a, b = noise(2, 3, 4), noise(3, 1, seed=1)
    found = evaluate(op, (a, b))
    assert op.output_shapes([a.shape, b.shape]) == (found.shape,)
    for index in naive.positions(found.shape):
        assert found[index] == combine(a[index], b[index[1], 0])


@pytest.mark.parametrize(
    ("op", "combine"),
    [
        (ops.Greater(), operator.gt),
        (ops.GreaterOrEqual(), operator.ge),
        (ops.Less(), operator.lt),
        (ops.LessOrEqual(), operator.le),
        (ops.Equal(), operator.eq),
        (ops.And(), lambda a, b: a > 0 and b > 0),
        (ops.Or(), lambda a, b: a > 0 or b > 0),
    ],
)
def test_comparisons_broadcast_to_booleans(op: ops.Op, combine: Any) -> None:
    a, b = np.round(noise(2, 3, 4)), np.round(noise(3, 1, seed=1))
    found = evaluate(op, (a > 0, b > 0) if isinstance(op, ops.And | ops.Or) else (a, b))
    assert found.dtype == bool
    assert op.output_dtype(["bool"]) == "bool"
    assert len(set(found.ravel().tolist())) == 2
    for index in naive.positions((2, 3, 4)):
        assert found[index] == combine(a[index], b[index[1], 0])


def test_halves_are_rounded_to_even_numbers() -> None:
    assert_array_equal(evaluate(ops.Round(), (np.array([-1.5, -0.5, 0.5, 1.5, 2.5]),)), [-2, 0, 0, 2, 2])


def test_a_condition_chooses_and_is_inverted() -> None:
    mask, a, b = np.array([[True], [False]]), noise(2, 3), noise(3, seed=1)
    assert_array_equal(evaluate(ops.Where(), (mask, a, b)), [a[0], b])
    assert_array_equal(evaluate(ops.Not(), (mask,)), [[False], [True]])


def test_casts_cut_fractions_off() -> None:
    found = evaluate(ops.Cast(dtype="int32"), (np.array([-1.7, -0.2, 0.9, 2.5], np.float32),))
    assert_array_equal(found, [-1, 0, 0, 2])
    assert found.dtype == np.int32
    assert_array_equal(evaluate(ops.Cast(dtype="bool"), (np.array([0.0, -2.0]),)), [False, True])


@pytest.mark.parametrize(("keep_dims", "shape"), [(False, (2, 4)), (True, (2, 1, 4))])
def test_argmax_finds_the_first_of_the_largest(keep_dims: bool, shape: tuple[int, ...]) -> None:
    x, op = np.round(noise(2, 6, 4)), ops.ArgMax(axis=1, keep_dims=keep_dims, dtype="int32")
    found = evaluate(op, (x,))
    assert found.shape == shape
    assert found.dtype == np.int32
    for n, c in naive.positions((2, 4)):
        row = [float(value) for value in x[n, :, c]]
        assert found.reshape(2, 4)[n, c] == row.index(max(row))


def test_a_fused_activation_comes_last() -> None:
    assert_array_equal(evaluate(ops.Add(activation=ops.ReLU()), (np.array([1.0, -3.0]), np.array([1.0, 2.0]))), [2, 0])


@pytest.mark.parametrize("keep_dims", [False, True])
@pytest.mark.parametrize(
    ("kind", "combine"),
    [(ops.Mean, lambda row: sum(row) / 12), (ops.Sum, sum), (ops.Max, max), (ops.Min, min), (ops.Prod, math.prod)],
    ids=["mean", "sum", "max", "min", "prod"],
)
def test_reductions_over_axes(kind: Any, combine: Callable[[list[float]], float], keep_dims: bool) -> None:
    x, op = noise(2, 3, 4, 5), kind(axes=(1, 2), keep_dims=keep_dims)
    found = evaluate(op, (x,))
    assert op.output_shapes([x.shape]) == (found.shape,)
    for n, c in naive.positions((2, 5)):
        wanted = combine([float(x[n, i, j, c]) for i in range(3) for j in range(4)])
        assert found.reshape(2, 5)[n, c] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (ops.Pad(padding=((0, 0), (1, 2), (0, 1)), value=7.0), (2, 3, 4)),
        (ops.Reshape(shape=(None, 12)), (2, 3, 4)),
        (ops.Reshape(shape=(6, 4)), (2, 3, 4)),
        (ops.Transpose(permutation=(2, 0, 1)), (2, 3, 4)),
    ],
)
def test_moving_data_keeps_every_element_and_the_stated_shape(op: ops.Op, shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    found = evaluate(op, (x,))
    assert op.output_shapes([shape]) == (found.shape,)
    assert set(x.ravel()) <= set(found.ravel())
    if isinstance(op, ops.Transpose):
        assert found[3, 1, 2] == x[1, 2, 3]
    if isinstance(op, ops.Reshape):
        assert_array_equal(found.ravel(), x.ravel())
    if isinstance(op, ops.Pad):
        assert (found[0, 0, 0], found[0, 1, 0], found[1, 5, 4]) == (7, x[0, 0, 0], 7)


def test_concat_joins_along_its_axis() -> None:
    a, b, op = noise(2, 3, 4), noise(2, 1, 4, seed=1), ops.Concat(axis=1)
    found = evaluate(op, (a, b))
    assert op.output_shapes([a.shape, b.shape]) == (found.shape,)
    assert_array_equal(found[:, :3], a)
    assert_array_equal(found[:, 3:], b)


def test_split_is_the_inverse_of_concat() -> None:
    x, op = noise(2, 7, 3), ops.Split(axis=1, sizes=(1, 4, 2))
    found = evaluate_all(op, (x,))
    assert tuple(part.shape for part in found) == op.output_shapes([x.shape])
    assert_array_equal(evaluate(ops.Concat(axis=1), found), x)


def test_gather_puts_the_indices_in_the_place_of_the_axis() -> None:
    x, indices = noise(2, 5, 3), np.array([[4, 0], [1, 1]])
    found = evaluate(ops.Gather(axis=1), (x, indices))
    assert ops.Gather(axis=1).output_shapes([x.shape, indices.shape]) == (found.shape,)
    for n, i, j, c in naive.positions((2, 2, 2, 3)):
        assert found[n, i, j, c] == x[n, indices[i, j], c]


def test_tile_repeats_and_padding_reflects_or_holds_the_edge() -> None:
    x = np.array([[1.0, 2.0, 3.0]], np.float32)
    assert_array_equal(evaluate(ops.Tile(multiples=(2, 2)), (x,)), [[1, 2, 3, 1, 2, 3]] * 2)
    reflected, held = (evaluate(ops.Pad(padding=((0, 0), (2, 1)), mode=mode), (x,)) for mode in ("reflect", "edge"))
    assert_array_equal(reflected, [[3, 2, 1, 2, 3, 2]])
    assert_array_equal(held, [[1, 1, 1, 2, 3, 3]])


@pytest.mark.parametrize("is_per_class", [False, True])
@pytest.mark.parametrize("background", [0, 1])
def test_detections_are_decoded_and_the_overlapped_ones_dropped(is_per_class: bool, background: int) -> None:
    scales, rng = (10.0, 10.0, 5.0, 5.0), np.random.default_rng(background)
    offsets, scores = noise(1, 20, 4), rng.random((1, 20, 2 + background)).astype(np.float32)
    anchors = rng.uniform(0.2, 0.6, (20, 4)).astype(np.float32)
    op = ops.DetectionPostProcess(
        max_detections=9,
        max_classes=1,
        is_per_class=is_per_class,
        score_threshold=0.3,
        iou_threshold=0.4,
        classes=2,
        scales=scales,
    )
    boxes = [naive.decode(offset, anchor, scales) for offset, anchor in zip(offsets[0], anchors, strict=True)]
    rows = [[float(value) for value in row[background:]] for row in scores[0]]
    candidates = [(i, row.index(max(row))) for i, row in enumerate(rows)]
    groups = [[(i, label) for i in range(20)] for label in (0, 1)] if is_per_class else [candidates]
    kept = []
    for group in groups:
        chosen = naive.suppress([boxes[i] for i, _ in group], [rows[i][label] for i, label in group], 0.3, 0.4)
        kept += [group[i] for i in chosen]
    wanted = sorted(kept, key=lambda each: -rows[each[0]][each[1]])[:9]
    found, classes, best, count = evaluate_all(op, (offsets, scores, anchors))
    assert count == [len(wanted)]
    assert 3 < len(wanted) < 20
    assert_allclose(found[0, : len(wanted)], [boxes[i] for i, _ in wanted], rtol=1e-4, atol=1e-5)
    assert_array_equal(classes[0, : len(wanted)], [label for _, label in wanted])
    assert_allclose(best[0, : len(wanted)], [rows[i][label] for i, label in wanted], rtol=1e-6)


def test_every_operator_but_the_opaque_one_has_a_kernel() -> None:
    concrete = {each for each in vars(ops).values() if isinstance(each, type) and issubclass(each, ops.Op)}
    abstract = {ops.Op, ops.Activation}
    assert concrete - abstract - KERNELS.keys() == {ops.Opaque}


def test_an_opaque_operator_is_refused_by_the_name_that_its_file_gives() -> None:
    with pytest.raises(UnsupportedError, match=r"^Einsum: this operator cannot be executed\. Cut the network"):
        evaluate(ops.Opaque(kind="Einsum", shapes=((1,),)), (noise(1),))


def branching() -> Graph:
    b = GraphBuilder("branching", initialise=he_normal(0))
    x = b.input("image", (None, 4, 4, 2))
    x = b.conv(x, "conv", 2, kernel_size=3)
    left = b.activate(x, "left", ops.ReLU())
    right = b.activate(x, "right", ops.Tanh())
    x = b.add(left, right, "sum")
    return b.finish({"y": b.node("flat", ops.Reshape(shape=(None, 32)), x), "conv": "conv"})


def test_inner_tensors_and_constants_can_be_fetched_and_do_not_change_the_outputs() -> None:
    graph, image = branching(), noise(3, 4, 4, 2)
    plain = execute(graph, {"image": image})
    assert plain.keys() == {"y", "conv"}
    found = execute(graph, {"image": image}, fetch=(name for name in ("left/relu", "conv/kernel", "image")))
    assert found.keys() == {"y", "conv", "left/relu", "conv/kernel", "image"}
    assert_array_equal(found["left/relu"], np.maximum(found["conv"], 0))
    assert_array_equal(found["conv/kernel"], graph.tensors["conv/kernel"].value())
    assert_array_equal(found["y"], plain["y"])
    assert found["y"].shape == (3, 32)


def test_each_tensor_is_freed_after_its_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder("long", initialise=he_normal(0))
    x = b.input("x", (1, 8))
    for index in range(6):
        x = b.activate(x, f"step_{index}", ops.Tanh())
    alive: list[weakref.ref[Any]] = []
    most = 0

    def tanh(op: ops.Op, values: Array) -> Array:
        nonlocal most
        result = np.tanh(values)
        alive.append(weakref.ref(result))
        most = max(most, sum(reference() is not None for reference in alive))
        return result

    monkeypatch.setitem(KERNELS, ops.Tanh, tanh)
    execute(b.finish({"y": x}), {"x": noise(1, 8)})
    assert most == 2


def test_wrong_inputs_are_refused() -> None:
    graph = branching()
    with pytest.raises(UsageError, match=r"^branching: input 'image' was wanted; got \['picture'\]$"):
        execute(graph, {"picture": noise(1, 4, 4, 2)})
    with pytest.raises(ShapeError, match=r"^branching: input 'image' must have shape Nx4x4x2; got 1x2x4x4$"):
        execute(graph, {"image": noise(1, 2, 4, 4)})
    with pytest.raises(UsageError, match=r"^branching: no tensor is named 'middle'$"):
        execute(graph, {"image": noise(1, 4, 4, 2)}, fetch=["middle"])


def test_inputs_of_another_type_are_converted() -> None:
    graph, image = branching(), np.arange(32, dtype=np.uint8).reshape(1, 4, 4, 2)
    assert execute(graph, {"image": image})["y"].dtype == np.float32


def test_a_constant_can_be_an_output() -> None:
    b = GraphBuilder("constant", initialise=he_normal(0))
    b.input("x", (1, 2))
    graph = b.finish({"y": b.constant("seven", np.array([7.0], np.float32))})
    assert execute(graph, {"x": noise(1, 2)})["y"] == [7]


def test_image_statistics_normalise_what_every_batch_norm_gives() -> None:
    b = GraphBuilder("normalised", initialise=he_normal(1))
    x = b.input("image", (None, 8, 8, 3))
    for index in range(3):
        x = b.conv_bn(x, f"conv_{index}", 4 + index, ops.ReLU6(), kernel_size=3)
    graph = b.finish({"y": x})
    gammas = {}
    for index in range(3):
        gammas[index] = (noise(4 + index, seed=index) + 2, noise(4 + index, seed=9 + index))
        graph.tensors[f"conv_{index}/bn/gamma"].data[...] = gammas[index][0]  # type: ignore[index]
        graph.tensors[f"conv_{index}/bn/beta"].data[...] = gammas[index][1]  # type: ignore[index]
    image = 5 + 3 * noise(16, 8, 8, 3, seed=4)
    ready = with_image_statistics(graph, {"image": image})
    found = execute(ready, {"image": image}, fetch=[f"conv_{index}/bn" for index in range(3)])
    for index, (gamma, beta) in gammas.items():
        values = found[f"conv_{index}/bn"]
        assert_allclose(values.mean(axis=(0, 1, 2)), beta, atol=1e-3)
        assert_allclose(values.var(axis=(0, 1, 2)), gamma**2, rtol=2e-2)
    assert not graph.tensors["conv_0/bn/mean"].value().any(), "the Graph that was given stays as it was"


def test_constants_stored_in_float16_compute_in_float32_on_rounded_values() -> None:
    graph, image = branching(), noise(1, 4, 4, 2)
    narrow = store_float16(graph)
    stored = narrow.tensors["conv/kernel"]
    assert stored.data is not None
    assert [str(values.dtype) for values in (stored.data, stored.value())] == ["float16", "float32"]
    found, exact = execute(narrow, {"image": image})["y"], execute(graph, {"image": image})["y"]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 5e-3
    rounded = branching()
    kernel = rounded.tensors["conv/kernel"].data
    kernel[...] = kernel.astype(np.float16)  # type: ignore[index, union-attr]
    assert_array_equal(found, execute(rounded, {"image": image})["y"])
