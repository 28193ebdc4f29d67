"""Every worked example of the course notes (convolutional_networks.txt) that describing and counting cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.count import (
    bottleneck_macs,
    bottleneck_ratio,
    conv_parameters,
    count,
    normal_macs,
    separable_macs,
    separable_ratio,
)
from edgecnn.execute import execute
from edgecnn.graph import Array
from edgecnn.kernels import evaluate
from edgecnn.models.build import ZooOptions, build
from edgecnn.ops import AveragePool, MaxPool, elements
from edgecnn.shapes import Shape, output_size
from edgecnn.vision.filters import HORIZONTAL, SCHARR, SOBEL, VERTICAL, convolve_flipped, cross_correlate

GREY = np.array(
    [
        [3, 0, 1, 2, 7, 4],
        [1, 5, 8, 9, 3, 1],
        [2, 7, 2, 5, 1, 3],
        [0, 1, 3, 1, 7, 8],
        [4, 2, 1, 6, 2, 8],
        [2, 4, 5, 2, 3, 9],
    ],
    np.float32,
)
BRIGHT_LEFT = np.repeat(np.array([[10, 10, 10, 0, 0, 0]], np.float32), 6, axis=0)


def slide(image: Array, kernel: Array) -> Array:
    """Multiply and add at each position, one number at a time."""
    height, width = (n - f + 1 for n, f in zip(image.shape, kernel.shape, strict=True))
    result = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            for y in range(kernel.shape[0]):
                for x in range(kernel.shape[1]):
                    result[row, column] += image[row + y, column + x] * kernel[y, x]
    return result


def conv_shape(image: Shape, filters: int, kernel_size: int) -> tuple[Shape, int]:
    """Return the output shape of a valid convolution with bias, and its parameters."""
    b = GraphBuilder("example", initialise=he_normal(0))
    x = b.conv(b.input("x", image), "conv", filters, kernel_size=kernel_size, padding="valid", use_bias=True)
    return b.shape(x), count(b.finish({"y": x})).total


def test_the_six_by_six_image_under_the_vertical_filter() -> None:
    # The notes print a stray row "1 0 -1 8" above the right four, "4" for the -4 in "0 -2 -4 -7", and "= 3" for the
    # first position, where 3 - 1 + 1 - 8 + 2 - 2 is -5.
    first = 3 * 1 + 0 * 0 + 1 * -1 + 1 * 1 + 5 * 0 + 8 * -1 + 2 * 1 + 7 * 0 + 2 * -1
    assert first == -5
    assert_array_equal(
        cross_correlate(GREY, VERTICAL), [[-5, -4, 0, 8], [-10, -2, 2, 3], [0, -2, -4, -7], [-3, -2, -3, -16]]
    )


def test_an_edge_from_bright_to_dark_gives_thirty_and_the_inverted_one_minus_thirty() -> None:
    assert_array_equal(cross_correlate(BRIGHT_LEFT, VERTICAL), [[0, 30, 30, 0]] * 4)
    assert_array_equal(cross_correlate(BRIGHT_LEFT[:, ::-1], VERTICAL), [[0, -30, -30, 0]] * 4)


def test_the_horizontal_filter_is_the_vertical_one_turned() -> None:
    assert_array_equal(HORIZONTAL, [[1, 1, 1], [0, 0, 0], [-1, -1, -1]])
    assert_array_equal(cross_correlate(BRIGHT_LEFT.T, HORIZONTAL), np.transpose([[0, 30, 30, 0]] * 4))
    assert_array_equal(cross_correlate(BRIGHT_LEFT, HORIZONTAL), np.zeros((4, 4)))


def test_sobel_and_scharr_weigh_the_central_row_more() -> None:
    assert_array_equal(SOBEL, [[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    assert_array_equal(SCHARR, [[3, 0, -3], [10, 0, -10], [3, 0, -3]])
    assert_array_equal(cross_correlate(BRIGHT_LEFT, SOBEL), [[0, 40, 40, 0]] * 4)
    assert_array_equal(cross_correlate(BRIGHT_LEFT, SCHARR), [[0, 160, 160, 0]] * 4)


@pytest.mark.parametrize("kernel", [VERTICAL, HORIZONTAL, SOBEL, SCHARR, np.arange(6, dtype=np.float32).reshape(3, 2)])
def test_mathematics_flips_the_filter_and_machine_learning_does_not(kernel: Array) -> None:
    assert_allclose(cross_correlate(GREY, kernel), slide(GREY, kernel))
    flipped = np.array([[kernel[-1 - y, -1 - x] for x in range(kernel.shape[1])] for y in range(kernel.shape[0])])
    assert_allclose(convolve_flipped(GREY, kernel), slide(GREY, flipped))


def test_flipping_makes_convolution_associative_and_cross_correlation_is_not() -> None:
    twice = convolve_flipped(convolve_flipped(GREY, SOBEL), SCHARR)
    assert_allclose(twice, convolve_flipped(GREY, convolve_flipped(SOBEL, SCHARR, padding=2)))
    assert_allclose(convolve_flipped(GREY, VERTICAL), -cross_correlate(GREY, VERTICAL))


def test_padding_one_makes_six_by_six_eight_by_eight_and_keeps_six_under_a_filter_of_three() -> None:
    padded = np.pad(GREY, 1)
    assert padded.shape == (8, 8)
    same = cross_correlate(GREY, VERTICAL, padding=1)
    assert same.shape == (6, 6)
    assert_array_equal(same, slide(padded, VERTICAL))
    assert_array_equal(same[1:-1, 1:-1], cross_correlate(GREY, VERTICAL))


@given(n=st.integers(1, 50), half=st.integers(0, 4))
def test_same_needs_half_of_f_minus_one(n: int, half: int) -> None:
    # The notes print n - 2p - f + 1 = n; the sign of 2p is misprinted.
    f = 2 * half + 1
    p = (f - 1) // 2
    assert n + 2 * p - f + 1 == n == output_size(n, f, padding=(p, p))


def test_stride_two_takes_every_other_position() -> None:
    image = np.arange(49, dtype=np.float32).reshape(7, 7) ** 2
    strided = cross_correlate(image, SOBEL, stride=2)
    assert strided.shape == (3, 3)
    assert_array_equal(strided, slide(image, SOBEL)[::2, ::2])


def test_a_red_edge_filter_on_a_volume_sees_the_red_channel_only() -> None:
    b = GraphBuilder("red", initialise=lambda name, shape: np.zeros(shape, np.float32))
    x = b.conv(b.input("rgb", (1, 6, 6, 3)), "edges", 1, kernel_size=3, padding="valid")
    kernel = np.zeros((3, 3, 3, 1), np.float32)
    kernel[:, :, 0, 0] = VERTICAL
    graph = b.finish({"edges": x})
    graph.tensors["edges/kernel"].data[...] = kernel  # type: ignore[index]
    image = np.stack([GREY, GREY.T, GREY[::-1]], axis=-1)[None]
    assert_array_equal(execute(graph, {"rgb": image})["edges"][0, :, :, 0], cross_correlate(GREY, VERTICAL))


def test_two_filters_on_a_volume_of_three_channels_give_four_by_four_by_two() -> None:
    assert conv_shape((1, 6, 6, 3), 2, 3)[0] == (1, 4, 4, 2)


def test_ten_filters_of_three_by_three_by_three_have_280_parameters() -> None:
    assert conv_parameters((3, 3), 3, 10) == (27 + 1) * 10 == 280
    assert conv_shape((1, 6, 6, 3), 10, 3)[1] == 280


def test_a_64_by_64_rgb_image_is_12288_inputs() -> None:
    graph = build("lenet5", ZooOptions(resolution=64, in_channels=3), values=False)
    assert elements(graph.tensors["image"].shape) == 12_288
    large = build("lenet5", ZooOptions(resolution=1000, in_channels=3), values=False)
    assert elements(large.tensors["image"].shape) == 3_000_000


def test_normal_convolution_costs_2160_and_separable_672() -> None:
    assert normal_macs((3, 3), 3, 5, (4, 4)) == 3 * 3 * 3 * 4 * 4 * 5 == 2160
    assert separable_macs((3, 3), 3, 5, (4, 4)) == (432, 240)
    assert sum(separable_macs((3, 3), 3, 5, (4, 4))) == 672
    assert separable_ratio((3, 3), 5) == pytest.approx(672 / 2160)


def test_the_graph_counts_the_separable_example_as_the_formula_does() -> None:
    b = GraphBuilder("separable", initialise=he_normal(0))
    x = b.input("x", (1, 6, 6, 3))
    x = b.conv(x, "depthwise", 3, kernel_size=3, padding="valid", groups=3)
    graph = b.finish({"y": b.conv(x, "pointwise", 5, kernel_size=1)})
    assert [(layer.kind, layer.macs) for layer in count(graph).layers] == [("DepthwiseConv", 432), ("Conv", 240)]


@given(f=st.integers(1, 9), c=st.integers(1, 99), n=st.integers(1, 99), size=st.integers(1, 30))
def test_the_ratio_is_one_over_n_plus_one_over_f_squared(f: int, c: int, n: int, size: int) -> None:
    separable, normal = sum(separable_macs((f, f), c, n, (size, size))), normal_macs((f, f), c, n, (size, size))
    assert separable / normal == pytest.approx(1 / n + 1 / f**2) == pytest.approx(separable_ratio((f, f), n))


def test_convolution_in_one_two_and_three_dimensions() -> None:
    assert conv_shape((1, 14, 1), 16, 5) == ((1, 10, 16), 16 * 6)
    assert conv_shape((1, 14, 14, 3), 16, 5) == ((1, 10, 10, 16), 16 * 76)
    assert conv_shape((1, 14, 14, 14, 1), 16, 5) == ((1, 10, 10, 10, 16), 16 * 126)


def test_pooling_keeps_the_channels_and_learns_nothing() -> None:
    b = GraphBuilder("pooled", initialise=he_normal(0))
    x = b.input("x", (1, 5, 4, 7))
    x = b.node("pool", MaxPool(kernel_size=(3, 2), stride=(1, 2), padding=((0, 0), (0, 0))), x)
    assert b.shape(x) == (1, (5 - 3) // 1 + 1, (4 - 2) // 2 + 1, 7) == (1, 3, 2, 7)
    cost = count(b.finish({"y": x}))
    assert (cost.total, cost.macs) == (0, 0)


def test_max_pooling_selects_and_average_pooling_averages() -> None:
    image = np.array([[1, 3, 2, 1], [2, 9, 1, 1], [1, 3, 2, 3], [5, 6, 1, 2]], np.float32)[None, :, :, None]
    window = {"kernel_size": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
    assert_array_equal(evaluate(MaxPool(**window), (image,))[0, :, :, 0], [[9, 2], [6, 3]])  # type: ignore[arg-type]
    assert_array_equal(
        evaluate(AveragePool(**window), (image,))[0, :, :, 0],  # type: ignore[arg-type]
        [[3.75, 1.25], [3.75, 2]],
    )


def test_lenet_has_about_sixty_thousand_parameters_in_the_notes_layer_order() -> None:
    graph = build("lenet5")
    assert count(graph).total == 61_706
    kinds = [node.kind for node in graph.nodes if node.kind in ("Conv", "MaxPool", "Dense")]
    assert kinds == ["Conv", "MaxPool", "Conv", "MaxPool", "Dense", "Dense", "Dense"]


def test_a_one_by_one_convolution_is_a_dense_layer_at_every_position() -> None:
    b = GraphBuilder("network_in_network", initialise=he_normal(3))
    x = b.input("x", (2, 6, 6, 32))
    graph = b.finish({"conv": b.conv(x, "pointwise", 16, kernel_size=1)})
    image = np.random.default_rng(0).standard_normal((2, 6, 6, 32), dtype=np.float32)
    kernel = graph.tensors["pointwise/kernel"].value()[0, 0]
    found = execute(graph, {"x": image})["conv"]
    assert_allclose(found[1, 2, 3], image[1, 2, 3] @ kernel, rtol=1e-5, atol=1e-5)
    assert found.shape == (2, 6, 6, 16)


def test_a_bottleneck_makes_12_million_multiplications_of_120_million() -> None:
    # The notes: 28x28x192 under 32 filters of 5x5, directly and through a 1x1 convolution to 16 channels.
    assert normal_macs((5, 5), 192, 32, (28, 28)) == 28 * 28 * 32 * 5 * 5 * 192 == 120_422_400
    assert bottleneck_macs((5, 5), 192, 16, 32, (28, 28)) == (28 * 28 * 16 * 192, 28 * 28 * 32 * 5 * 5 * 16)
    assert sum(bottleneck_macs((5, 5), 192, 16, 32, (28, 28))) == 12_443_648
    assert bottleneck_ratio((5, 5), 192, 16, 32) == pytest.approx(12_443_648 / 120_422_400)


def test_the_inception_block_of_the_notes_is_the_first_of_googlenet() -> None:
    found = {layer.name: layer for layer in count(build("googlenet", values=False)).layers}
    assert found["inception_3a/reduce_5x5"].output_shape == (None, 28, 28, 16)
    assert found["inception_3a/conv_5x5"].output_shape == (None, 28, 28, 32)
    assert found["inception_3a/concat"].output_shape == (None, 28, 28, 64 + 128 + 32 + 32)
    assert [found[f"inception_3a/{name}_5x5"].macs for name in ("reduce", "conv")] == [2_408_448, 10_035_200]
