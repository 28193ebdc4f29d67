"""Balanced rounding: errors of a channel add up to nothing, and no weight moves far."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Graph, validate
from edgecnn.passes.deploy import deploy
from edgecnn.quantization.assign import assign
from edgecnn.quantization.balance_rounding import balance_rounding, balanced
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.recipe import Recipe

RNG = np.random.default_rng(0)
IMAGES = (1 + 0.2 * RNG.standard_normal((1, 8, 8, 3)) + RNG.uniform(-1, 3, (8, 1, 1, 1))).astype(np.float32)


@given(st.integers(0, 10_000), st.sampled_from([(3, 3, 1, 4), (1, 1, 30, 5), (3, 5, 7, 2), (40, 6)]))
def test_errors_add_up_to_half_a_step_and_no_weight_moves_a_whole_one(seed: int, shape: tuple[int, ...]) -> None:
    exact = np.random.default_rng(seed).uniform(-126, 126, shape)
    found = balanced(exact, -127, 127)
    np.testing.assert_array_equal(found, np.rint(found))
    assert np.abs(found).max() <= 127
    assert np.abs((found - exact).sum(axis=tuple(range(len(shape) - 1)))).max() <= 0.5 + 1e-9
    assert np.abs(found - exact).max() < 2
    if shape[-2] == 1:  # nothing moves again for the second sum
        assert np.abs(found - exact).max() <= 1


def test_integers_stay_and_limits_hold() -> None:
    whole = RNG.integers(-127, 128, (3, 3, 4, 5)).astype(float)
    np.testing.assert_array_equal(balanced(whole, -127, 127), whole)
    assert balanced(np.full((1, 8, 1), 7.4), -7, 7).max() == 7


def network() -> Graph:
    b = GraphBuilder("net", initialise=he_normal(0))
    x = b.activate(b.conv(b.input("image", (None, 8, 8, 3)), "stem", 8, kernel_size=3), "stem", ops.ReLU())
    x = b.activate(b.depthwise(x, "depthwise", kernel_size=5), "depthwise", ops.ReLU())
    x = b.node("mean", ops.Mean(axes=(1, 2)), b.conv(x, "pointwise", 8, kernel_size=1))
    return deploy(b.finish({"y": b.dense(x, "logits", 4)})).graph


@pytest.mark.parametrize("scales", ["channel", "tensor"])
def test_scales_and_limits_of_a_network_stay(scales: str) -> None:
    graph = network()
    calibration = calibrate(graph, [{"image": IMAGES}], origin="noise")
    plain = assign(graph, calibration, Recipe(precision="static_w4_a16", scales=scales))  # type: ignore[arg-type]
    result = balance_rounding(graph, plain)
    validate(result.graph)
    assert {"stem", "depthwise"} <= set(result.applied) <= {"stem", "depthwise", "pointwise", "logits"}
    for name, tensor in result.graph.tensors.items():
        assert tensor.quantization == plain.tensors[name].quantization
        if tensor.data is not None and name.endswith("kernel"):
            assert np.abs(tensor.data).max() <= 7


@pytest.mark.parametrize("scales", ["channel", "tensor"])
def test_a_flat_grey_image_is_off_by_half_a_step_of_the_weights_at_most(scales: str) -> None:
    """The layer alone, so that the bound is exact: 27 weights rounded on their own are off by several times that."""
    b = GraphBuilder("one", initialise=he_normal(0))
    graph = b.finish({"y": b.conv(b.input("image", (None, 5, 5, 3)), "y", 16, kernel_size=3, padding="valid")})
    grey = np.ones((1, 5, 5, 3), np.float32)
    calibration = calibrate(graph, [{"image": grey}], origin="grey")
    plain = assign(graph, calibration, Recipe(precision="static_w4_a16", scales=scales))  # type: ignore[arg-type]
    result = balance_rounding(graph, plain)
    assert result.applied == ("y",)
    kernel = next(plain.tensors[node.inputs[1]] for node in plain.nodes if node.name == "y")
    assert kernel.quantization is not None
    wanted, before, after = (execute(each, {"image": grey})["y"] for each in (graph, plain, result.graph))
    step = np.asarray(kernel.quantization.scale)
    slack = 1e-3  # 16-bit activations round a little, too
    assert (np.abs(after - wanted) <= 0.5 * step + slack).all()
    assert (np.abs(before - wanted) > 0.5 * step + slack).any()


def test_balancing_twice_changes_nothing_more() -> None:
    graph = network()
    calibration = calibrate(graph, [{"image": IMAGES}], origin="noise")
    once = balance_rounding(graph, assign(graph, calibration, Recipe()))
    assert once.applied
    again = balance_rounding(graph, once.graph)
    assert (again.graph, again.applied) == (once.graph, ())
