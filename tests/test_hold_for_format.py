"""A Graph as a channels-first format stores it: where a Transpose is needed, and where it is not."""

from collections.abc import Mapping

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.graph import Graph, Port
from edgecnn.passes.hold_for_format import ChannelsFirst, hold_for_format
from edgecnn.passes.store_float16 import store_float16
from tests.graphs import Make, behind_conv, image_graph


def held(graph: Graph) -> Graph:
    def is_first(port: Port) -> bool:
        return len(graph.tensors[port.tensor].shape) >= 4

    return hold_for_format(graph, is_first, windows_first=True)


def flattened(b: GraphBuilder, x: str) -> str:
    x = b.node("act", ops.ReLU(), b.node("flat", ops.Reshape(shape=(None, 9 * 8 * 4)), x))
    return b.add(b.dense(x, "left", 5), b.dense(x, "right", 5), "sum")


def shuffled(b: GraphBuilder, x: str) -> str:
    """ShuffleNet's shuffle of two groups of two channels."""
    x = b.node("cut", ops.Reshape(shape=(None, 9, 8, 2, 2)), x)
    return b.node(
        "joined", ops.Reshape(shape=(None, 9, 8, 4)), b.node("t", ops.Transpose(permutation=(0, 1, 2, 4, 3)), x)
    )


def joined_positions(b: GraphBuilder, x: str) -> str:
    """As detectors join the positions of a scale."""
    return b.node("y", ops.Reshape(shape=(None, 72, 4)), x)


LEFT: Mapping[str, tuple[Make, int]] = {
    "flatten before dense layers": (flattened, 0),
    "softmax over channels": (behind_conv(lambda b, x: b.node("s", ops.Softmax(), x)), 0),
    "channel shuffle": (behind_conv(shuffled), 1),
    "positions joined for an output": (lambda b, x: joined_positions(b, b.conv(x, "c", 4, kernel_size=1)), 1),
    "a flatten that is an output": (lambda b, x: b.node("y", ops.Reshape(shape=(None, 288)), x), 1),
}


@pytest.mark.parametrize("name", LEFT)
def test_only_what_the_order_of_elements_needs_is_left(name: str) -> None:
    make, left = LEFT[name]
    assert held(image_graph(make)).kinds()["Transpose"] == left


def test_windows_hold_their_images_channels_first() -> None:
    graph = held(image_graph(lambda b, x: b.conv(x, "y", 5, kernel_size=3)))
    (node,) = graph.nodes
    assert isinstance(node.op, ChannelsFirst)
    assert node.operand("kernel") == "y/kernel"
    assert (graph.tensors["image"].shape, graph.tensors["y"].shape) == ((1, 4, 9, 8), (1, 5, 9, 8))


def test_the_rows_of_a_dense_kernel_follow_the_flatten() -> None:
    graph = image_graph(flattened)
    kernel = graph.tensors["left/kernel"].value().reshape(9, 8, 4, 5).transpose(2, 0, 1, 3).reshape(288, 5)
    for source in (graph, store_float16(graph)):
        found = held(source).tensors["left/kernel"]
        assert found.dtype == "float32"
        np.testing.assert_allclose(found.value(), kernel, atol=2e-3)


def test_a_format_without_a_choice_turns_only_its_ports() -> None:
    graph = image_graph(lambda b, x: b.conv(x, "y", 5, kernel_size=3))
    turned = hold_for_format(graph, lambda port: port.name == "image", windows_first=False)
    assert [node.kind for node in turned.nodes] == ["Transpose", "Conv"]
    assert turned.tensors["image"].shape == (1, 4, 9, 8)


def test_volumes_and_sequences_have_channels_too() -> None:
    b = GraphBuilder("deep", initialise=he_normal(0))
    x = b.conv(b.input("volume", (1, 4, 5, 6, 2)), "c3", 3, kernel_size=3)
    y = b.conv(b.input("sequence", (1, 9, 2)), "c1", 3, kernel_size=3)
    graph = held(b.finish({"volume_out": x, "sequence_out": y}))
    assert graph.tensors["c3"].shape == (1, 3, 4, 5, 6)
    assert graph.tensors["c1"].shape == (1, 3, 9)
    assert graph.kinds()["Transpose"] == 2
