"""What no output needs goes, whole branches at once."""

import numpy as np

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Graph
from edgecnn.passes import remove_unused


def with_a_dead_branch() -> Graph:
    b = GraphBuilder("branched", initialise=he_normal(0))
    x = b.input("image", (1, 4, 4, 2))
    b.activate(b.conv(x, "dead", 3, kernel_size=3), "dead", ops.ReLU())
    left, _ = b.nodes("split", ops.Split(axis=3, sizes=(1, 1)), (x,), ("left", "right"))
    return b.finish({"y": b.node("kept", ops.Neg(), left)})


def test_a_dead_branch_goes_as_a_whole() -> None:
    graph = with_a_dead_branch()
    result = remove_unused.PASS(graph)
    assert len(result.applied) == 1
    assert result.graph.kinds() == {"Split": 1, "Neg": 1}
    assert "dead/kernel" not in result.graph.tensors
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 2), dtype=np.float32)
    np.testing.assert_array_equal(execute(result.graph, {"image": x})["y"], execute(graph, {"image": x})["y"])


def test_a_network_without_leftovers_is_left_alone() -> None:
    graph = remove_unused.PASS(with_a_dead_branch()).graph
    assert remove_unused.PASS(graph).graph is graph
