"""Compound scaling, npu-safe variants, and the twins that `cost --versus` compares with."""

from typing import Any

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.builder import GraphBuilder, no_values
from edgecnn.count import Cost, count
from edgecnn.errors import UsageError
from edgecnn.execute import execute
from edgecnn.graph import validate
from edgecnn.models.bottleneck_twin import bottleneck_pairs
from edgecnn.models.build import ZooOptions, build, npu_safe_changes
from edgecnn.models.compound_scaling import scaling
from edgecnn.models.normal_twin import normal_twin
from edgecnn.models.npu_safe import describe, npu_safe
from edgecnn.versus import compare

SCALABLE = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet")


def cost(name: str, **options: Any) -> Cost:
    return count(build(name, ZooOptions(**options), values=False))


def test_alpha_beta_squared_gamma_squared_is_about_two() -> None:
    one = scaling(1)
    growth = one.depth_coefficient * one.width_coefficient**2 * one.resolution_factor**2
    assert growth == pytest.approx(1.92027)
    assert scaling(3).depth_coefficient == pytest.approx(1.2**3)


@pytest.mark.parametrize("name", SCALABLE)
def test_phi_doubles_the_cost_about_once_per_step(name: str) -> None:
    costs = [cost(name, phi=phi).macs for phi in (0, 1, 2, 3)]
    assert costs[0] == cost(name).macs
    assert costs == sorted(costs)
    assert (costs[3] / costs[0]) ** (1 / 3) == pytest.approx(2, abs=0.25)
    assert cost(name, phi=-1).macs < costs[0]


@pytest.mark.parametrize("name", SCALABLE)
def test_phi_is_its_three_coefficients(name: str) -> None:
    options = {"depth_coefficient": 1.2**0.5, "width_coefficient": 1.1**0.5, "resolution": 240}
    assert cost(name, phi=0.5).macs == cost(name, **options).macs
    assert build(name, ZooOptions(phi=0.5), values=False).tensors["image"].shape == (None, 240, 240, 3)


def test_a_preset_is_efficientnet_at_its_coefficients() -> None:
    b3 = cost("efficientnet", width_coefficient=1.2, depth_coefficient=1.4, resolution=300)
    assert (b3.macs, b3.total) == (cost("efficientnet_b3").macs, cost("efficientnet_b3").total)


def test_the_width_coefficient_of_a_mobilenet_multiplies_its_width_multiplier() -> None:
    both = cost("mobilenet_v2", width_multiplier=0.5, width_coefficient=1.5)
    assert both.macs == cost("mobilenet_v2", width_multiplier=0.75).macs


def test_depth_repeats_the_blocks_of_each_stage() -> None:
    deep = build("mobilenet_v1", ZooOptions(depth_coefficient=1.5), values=False)
    assert sum(node.name.endswith("/depthwise") for node in deep.nodes) == 2 + 3 + 3 + 9 + 3
    shallow = build("mobilenet_v3_small", ZooOptions(depth_coefficient=0.5), values=False)
    assert sum(node.name.endswith("/depthwise") for node in shallow.nodes) == 1 + 1 + 2 + 1 + 2


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (
            "efficientnet",
            {"phi": 1.0, "resolution": 240},
            "phi sets width_coefficient, depth_coefficient and resolution; got resolution beside it. "
            "Leave one of them out.",
        ),
        (
            "mobilenet_v2",
            {"phi": 1.0, "depth_coefficient": 2.0},
            "phi sets width_coefficient, depth_coefficient and resolution; got depth_coefficient beside it. "
            "Leave one of them out.",
        ),
        (
            "efficientnet_b0",
            {"phi": 1.0},
            "efficientnet_b0: it has no option phi; it takes classes, dropout, head, in_channels, resolution",
        ),
        (
            "efficientnet",
            {"width_multiplier": 0.5},
            "efficientnet: it has no option width_multiplier; it takes classes, depth_coefficient, dropout, head, "
            "in_channels, phi, resolution, width_coefficient",
        ),
        (
            "resnet50",
            {"auxiliary_heads": True},
            "resnet50: it has no option auxiliary_heads; it takes classes, dropout, head, in_channels, resolution, "
            "width_multiplier",
        ),
        ("efficientnet", {"phi": 11.0}, "phi must lie in [-10, 10]; got 11.0"),
        ("efficientnet", {"phi": float("nan")}, "phi must lie in [-10, 10]; got nan"),
        ("efficientnet", {"depth_coefficient": 0.0}, "depth_coefficient must lie in (0, 20]; got 0.0"),
    ],
)
def test_contradictions_and_options_that_a_family_does_not_take_are_refused(
    name: str, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build(name, ZooOptions(**options), values=False)
    assert str(caught.value) == text


def test_npu_safe_b0_costs_what_lite0_costs() -> None:
    safe, lite = cost("efficientnet_b0", npu_safe=True), cost("efficientnet_lite0")
    assert (safe.macs, safe.trainable, safe.total) == (lite.macs, lite.trainable, lite.total)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "efficientnet_b0",
            "efficientnet_b0, npu-safe: squeeze-excite x16 removed, Swish x33 became ReLU6. Train it before use.",
        ),
        (
            "mobilenet_v3_small",
            "mobilenet_v3_small, npu-safe: squeeze-excite x9 removed, HardSwish x19 became ReLU6. Train it before use.",
        ),
        ("alexnet", "alexnet, npu-safe: LRN x2 removed. Train it before use."),
        ("resnet18", "resnet18, npu-safe: it needs no change."),
    ],
)
def test_npu_safe_says_what_changed(name: str, text: str) -> None:
    assert describe(name, npu_safe_changes(name, ZooOptions())) == text


def test_an_npu_safe_network_has_nothing_left_that_accelerators_refuse_and_runs() -> None:
    plain = build("mobilenet_v3_small", ZooOptions(width_multiplier=0.25, resolution=32, classes=3))
    graph, changes = npu_safe(plain)
    validate(graph)
    assert not graph.kinds().keys() & {"Swish", "HardSwish", "HardSigmoid", "Mul", "LRN"}
    assert {change.where for change in changes if change.what == "squeeze-excite"} >= {"block_0/se", "block_10/se"}
    assert "block_3/expand/relu6" in graph.tensors
    assert not any("/se/" in name or "hardswish" in name for name in graph.tensors)
    image = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    assert np.isfinite(execute(graph, {"image": image})["logits"]).all()


def test_a_network_that_needs_no_change_stays_the_same_object() -> None:
    graph = build("mobilenet_v2", values=False)
    assert npu_safe(graph) == (graph, ())


def test_the_bottlenecks_of_googlenet_hold_the_notes_example() -> None:
    graph = build("googlenet", values=False)
    comparison = compare(graph, "no-bottleneck")
    assert len(bottleneck_pairs(graph)) == 18
    notes = comparison.pairs["inception_3a/conv_5x5"]
    assert (notes.first, notes.macs, notes.merged_macs) == ("inception_3a/reduce_5x5", 12_443_648, 120_422_400)
    saved = sum(pair.merged_macs - pair.macs for pair in comparison.pairs.values())
    assert comparison.twin.macs - count(graph).macs == saved
    for pair in comparison.pairs.values():
        assert pair.predicted_ratio == pytest.approx(pair.actual_ratio)


def test_a_strided_bottleneck_keeps_the_output_size_in_its_twin() -> None:
    graph = build("resnet50", values=False)
    comparison = compare(graph, "no-bottleneck")
    assert len(comparison.pairs) == 16 - 1  # the first block's 1x1 keeps 64 channels: it narrows nothing
    saved = sum(pair.merged_macs - pair.macs for pair in comparison.pairs.values())
    assert comparison.twin.macs - count(graph).macs == saved


@pytest.mark.parametrize(("name", "versus"), [("vgg16", "normal"), ("mobilenet_v2", "no-bottleneck")])
def test_a_network_without_such_pairs_is_refused(name: str, versus: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: it has no"):
        compare(build(name, values=False), versus)


def test_the_normal_twin_moves_the_squeeze_excite_behind() -> None:
    graph = build("efficientnet_b0", values=False)
    comparison = compare(graph, "normal")
    assert len(comparison.pairs) == 16
    saved = sum(pair.merged_macs - pair.macs for pair in comparison.pairs.values())
    names = {node.name.partition("/se/")[0] for node in graph.nodes if "/se/" in node.name}
    moved = 0  # a squeeze-excite of narrow width R costs 2 R C: C falls from the block's inner width to its outer one
    for name in names:
        narrow, inner = (size or 0 for size in graph.tensors[f"{name}/se/expand/kernel"].shape[-2:])
        moved += 2 * narrow * (inner - (graph.tensors[f"{name}/project/kernel"].shape[-1] or 0))
    assert comparison.twin.macs == count(graph).macs + saved - moved


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("mobilenet_v1", 4_867_293_184),
        ("mobilenet_v2", 1_224_972_288),
        ("mobilenet_v3_large", 1_330_745_728),
        ("efficientnet_b0", 3_023_755_168),
        ("efficientnet_lite0", 3_023_631_360),
    ],
)
def test_every_separable_family_has_a_normal_twin_without_depthwise_convolutions(name: str, macs: int) -> None:
    twin = cost(name, convolution="normal")
    assert twin.macs == macs
    assert not any(layer.kind == "DepthwiseConv" for layer in twin.layers)


def test_the_moved_squeeze_excite_stands_behind_the_batch_norm_and_runs() -> None:
    options = ZooOptions(width_multiplier=0.25, resolution=32, classes=3, convolution="normal")
    graph = build("mobilenet_v3_small", options)
    validate(graph)
    nodes = {node.name: node for node in graph.nodes}
    assert nodes["block_4/se/squeeze"].inputs == ("block_4/project/bn",)
    assert nodes["block_4/se/excite"].inputs == ("block_4/project/bn", "block_4/se/expand/hardsigmoid")
    assert nodes["block_4/add"].inputs[1] == "block_4/se/excite"
    assert graph.tensors["block_4/se/expand/bias"].shape == graph.tensors["block_4/project/bn"].shape[-1:]
    image = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    assert np.isfinite(execute(graph, {"image": image})["logits"]).all()


def test_a_squeeze_excite_with_reshape_and_dense_layers_moves_too() -> None:
    b = GraphBuilder("reshaped", initialise=no_values)
    x = b.activate(b.depthwise(b.input("image", (1, 8, 8, 16)), "depthwise", kernel_size=3), "depthwise", ops.ReLU6())
    weight = b.node("squeeze", ops.Mean(axes=(1, 2)), x)
    weight = b.activate(b.dense(weight, "reduce", 4), "reduce", ops.ReLU())
    weight = b.activate(b.dense(weight, "expand", 16), "expand", ops.Sigmoid())
    x = b.node("excite", ops.Mul(), x, b.node("reshape", ops.Reshape(shape=(1, 1, 1, 16)), weight))
    graph = b.finish({"y": b.activate(b.conv_bn(x, "pointwise", 24, None, kernel_size=1), "end", ops.ReLU())})
    assert normal_twin(graph, no_values).tensors["expand/kernel"].shape == (4, 24)
