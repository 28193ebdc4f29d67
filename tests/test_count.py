"""Counting one Graph: shared parameters, bytes at the stored width, operators that nobody knows, separable pairs."""

import numpy as np

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.count import count
from edgecnn.graph import Graph
from edgecnn.models.normal_twin import separable_pairs
from edgecnn.passes.store_float16 import store_float16


def builder() -> GraphBuilder:
    return GraphBuilder("counted", initialise=he_normal(0))


def test_a_shared_parameter_counts_once_and_computes_twice() -> None:
    b = builder()
    x, op = b.input("image", (None, 5, 5, 2)), ops.Conv(stride=(1, 1), padding=((0, 0),) * 2, dilation=(1, 1))
    kernel = b.constant("kernel", np.ones((1, 1, 2, 3), np.float32))
    cost = count(b.finish({"y": b.add(b.node("one", op, x, kernel), b.node("two", op, x, kernel), "sum")}))
    assert [layer.trainable for layer in cost.layers] == [6, 0, 0]
    assert [layer.macs for layer in cost.layers] == [150, 150, 0]
    assert (cost.trainable, cost.total, cost.deployed) == (6, 6, 6)


def conv_and_norm() -> Graph:
    b = builder()
    x = b.conv(b.input("image", (4, 5, 5, 2)), "conv", 3, kernel_size=3, use_bias=True)
    return b.finish({"y": b.batch_norm(x, "norm")})


def test_statistics_are_counted_apart_and_go_when_they_are_folded() -> None:
    cost = count(conv_and_norm())
    assert [(layer.trainable, layer.statistics) for layer in cost.layers] == [(57, 0), (6, 6)]
    assert (cost.trainable, cost.total, cost.deployed) == (63, 69, 57)


def test_a_batch_norm_that_cannot_be_folded_keeps_scale_and_shift() -> None:
    b = builder()
    cost = count(b.finish({"y": b.batch_norm(b.input("image", (1, 5, 5, 3)), "norm")}))
    assert (cost.total, cost.deployed) == (12, 6)


def test_bytes_are_those_of_one_image_at_the_stored_width() -> None:
    graph = conv_and_norm()
    parameters, images = 57, 5 * 5 * 2 + 5 * 5 * 3
    assert count(graph).layers[0].bytes_moved == 4 * parameters + 4 * images
    assert count(store_float16(graph)).layers[0].bytes_moved == 2 * parameters + 4 * images


def test_bytes_follow_the_type_of_what_is_computed() -> None:
    b = builder()
    x = b.input("image", (1, 10), dtype="uint8")
    assert count(b.finish({"y": b.node("same", ops.Identity(), x)})).bytes_moved == 20


def test_an_unknown_operator_is_listed_and_never_counted_as_nothing() -> None:
    b = builder()
    x = b.node("odd", ops.Opaque(kind="Einsum", shapes=((1, 4),)), b.input("image", (1, 3)))
    cost = count(b.finish({"y": b.dense(x, "dense", 2)}))
    assert [layer.macs for layer in cost.layers] == [None, 8]
    assert (cost.unknown, cost.macs) == (("odd",), 8)


def test_a_dense_layer_counts_every_position_of_one_image() -> None:
    b = builder()
    cost = count(b.finish({"y": b.dense(b.input("image", (7, 5, 4, 3)), "dense", 2)}))
    assert (cost.macs, cost.trainable) == (5 * 4 * 3 * 2, 8)


def test_a_depthwise_convolution_with_one_channel_is_a_normal_one() -> None:
    b = builder()
    cost = count(b.finish({"y": b.depthwise(b.input("image", (1, 5, 5, 1)), "conv", kernel_size=3)}))
    assert cost.layers[0].kind == "Conv"


def test_only_a_plain_pointwise_convolution_makes_a_separable_pair() -> None:
    def pairs(*, kernel_size: int = 1, stride: int = 1, groups: int = 1) -> int:
        b = builder()
        x = b.depthwise(b.input("image", (1, 6, 6, 4)), "depthwise", kernel_size=3)
        x = b.activate(b.batch_norm(x, "norm"), "act", ops.ReLU6())
        x = b.conv(x, "pointwise", 8, kernel_size=kernel_size, stride=stride, groups=groups)
        return len(separable_pairs(b.finish({"y": x})))

    assert pairs() == 1
    assert [pairs(kernel_size=3), pairs(stride=2), pairs(groups=2)] == [0, 0, 0]


def test_a_depthwise_convolution_that_others_see_is_no_pair() -> None:
    b = builder()
    x = b.depthwise(b.input("image", (1, 6, 6, 4)), "depthwise", kernel_size=3)
    graph = b.finish({"y": b.add(x, b.conv(x, "pointwise", 4, kernel_size=1), "sum")})
    assert separable_pairs(graph) == ()
