"""The report: what each repair gained, and layers that suffer named with why, on networks built to suffer from it."""

from dataclasses import replace

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.quantization.layer_errors import Energy, LayerError, layer_errors
from edgecnn.quantization.quantize import Samples, quantize
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.report import class_agreement, logits, report, score, stages
from edgecnn.verify import snr_db
from tests.test_assign import network
from tests.test_scales import PLAIN, Make, images, integers, made, number


def errors(graph: Graph, recipe: Recipe = PLAIN, x: dict[str, Array] | None = None) -> dict[str, LayerError]:
    found = layer_errors(graph, integers(graph, recipe), x or images(graph, 16))
    return {layer.node: layer for layer in found}


def test_energy_over_batches_is_the_snr_of_all() -> None:
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((11, 3, 5)) + 4
    found = exact + 0.1 * rng.standard_normal(exact.shape)
    energy = Energy()
    for start in range(0, 11, 4):
        energy.add(exact[start : start + 4], found[start : start + 4])
    assert energy.snr_db == pytest.approx(snr_db(exact, found), abs=1e-6)
    same, still = Energy(), Energy()
    same.add(exact, exact)
    still.add(np.ones((4, 2)), np.zeros((4, 2)))
    assert (same.snr_db, still.snr_db) == (np.inf, -np.inf)


def test_every_integer_layer_is_compared_at_its_own_point() -> None:
    graph = network()
    found = errors(graph)
    assert list(found) == [node.name for node in graph.nodes]
    assert [layer.position for layer in found.values()] == list(range(len(graph.nodes)))
    x = images(graph, 16)
    exact, got = execute(graph, x, fetch=["pw"])["pw"], execute(integers(graph), x, fetch=["pw"])["pw"]
    assert found["pw"].snr_db == pytest.approx(snr_db(exact, got), abs=0.01)
    assert found["pw"].own_snr_db > found["pw"].snr_db  # which has all errors before it, too
    assert found["stem"].own_snr_db == pytest.approx(found["stem"].snr_db, abs=1e-9)  # nothing was wrong before


def test_float_layers_of_a_mixed_network_are_left_out_and_what_follows_them_is_not() -> None:
    found = errors(network(), replace(PLAIN, overrides=(("pw", "float32"),)))
    assert "pw" not in found
    assert {"stem", "pool", "head"} <= found.keys()
    assert found["pool"].own_snr_db > 25


def test_one_scale_for_unlike_channels_is_named_at_the_kernel_and_behind_it() -> None:
    graph = network()
    kernel = graph.tensors["pw/kernel"]
    values = kernel.value().copy()
    values[..., 0] *= 400
    graph = replace(graph, tensors={**graph.tensors, "pw/kernel": replace(kernel, data=values)})
    found = errors(graph, replace(PLAIN, scales="tensor"))
    assert "one scale for a kernel whose channels span 1:" in found["pw"].reason
    assert "share one scale" in found["pw"].reason
    assert "kernel" not in found["stem"].reason
    assert "one scale for a kernel" not in errors(graph)["pw"].reason  # where each channel has its own


def mixed(b: GraphBuilder, x: str) -> str:
    parts = (b.node("small", ops.Mul(), x, number(b, "s", 0.01)), b.node("large", ops.Mul(), x, number(b, "l", 3)))
    return b.node("y", ops.Concat(axis=3), *parts)


def swish(b: GraphBuilder, x: str) -> str:
    return b.node("y", ops.Swish(), b.node("far", ops.Mul(), x, number(b, "f", 30)))


def channels(b: GraphBuilder, x: str) -> str:
    return b.node("y", ops.Mul(), x, number(b, "c", [100, 1, 1, 1]))


def widened(b: GraphBuilder, x: str) -> str:
    large = b.node("large", ops.Mul(), x, number(b, "l", 8))
    return b.node("joined", ops.Concat(axis=3), b.node("y", ops.Mul(), x, number(b, "s", 0.5)), large)


SUFFERING: dict[str, tuple[Make, str]] = {
    "a concat of unlike parts": (mixed, "one scale for parts whose ranges are 1:300"),
    "a wide swish": (swish, "its lobe below 0 has "),
    "unlike channels": (channels, "share one scale"),
    "a range that another widens": (widened, "% of a range that others share or widen"),
}


@pytest.mark.parametrize("name", SUFFERING)
def test_what_a_layer_suffers_from_is_named(name: str) -> None:
    make, reason = SUFFERING[name]
    found = errors(made(make))
    assert reason in found["y"].reason
    assert [layer.node for layer in found.values() if reason in layer.reason] in (["y"], ["small", "y"])


def test_values_beyond_the_range_are_named() -> None:
    graph = network()
    loud = {name: 3 * values for name, values in images(graph, 16).items()}
    found = errors(graph, x=loud)
    assert found["pw"].saturated > 0.01
    assert "of its output lies beyond its range" in found["pw"].reason


def test_a_healthy_network_has_no_excuses() -> None:
    b = GraphBuilder("healthy", initialise=he_normal(0))
    x = b.conv(b.input("image", (None, 8, 8, 3)), "one", 8, kernel_size=3)
    found = errors(b.finish({"y": b.conv(x, "two", 8, kernel_size=3)}))
    assert {layer.reason for layer in found.values()} == {""}
    assert all(layer.saturated == 0 for layer in found.values())


def test_stages_add_one_repair_each_and_end_with_what_was_made() -> None:
    samples = Samples(batches=lambda graph: [images(graph, 16)], origin="noise")
    recipe = Recipe(equalize=True, equalize_activations=False, rounding="nearest")
    found = stages(quantize(network(), recipe, samples))
    assert [name for name, _ in found] == ["none", "equalize", "bias_correction"]  # nothing had to be separated
    assert found[-1][1] == replace(recipe, separate_ranges=False)
    assert (found[0][1].equalize, found[0][1].bias_correction) == (False, "none")
    assert (found[1][1].equalize, found[1][1].bias_correction) == (True, "none")
    assert [name for name, _ in stages(quantize(network(), Recipe(precision="dynamic_w8")))] == ["none"]


def test_a_report_measures_each_stage_and_lists_the_worst_first() -> None:
    graph, steps = network(), []
    samples = Samples(batches=lambda network: [images(graph, 16)], origin="noise")
    recipe = Recipe(precision="static_w4_a8", rounding="nearest", equalize_activations=False)
    made = quantize(graph, recipe, samples)
    found = report(made, samples, lambda graph: images(graph, 16), advance=lambda: steps.append(1))
    assert [each.repair for each in found.scores] == ["none", "bias_correction"]
    assert len(steps) == 2
    assert found.images == 16
    own = [layer.own_snr_db for layer in found.layers]
    assert own == sorted(own)
    assert found.scores[-1] == score("bias_correction", made.reference, made.graph, images(graph, 16))


def test_weights_alone_are_scored_and_have_no_integer_layers() -> None:
    graph = network()
    made = quantize(graph, Recipe(precision="weight_only_w8"))
    found = report(made, None, lambda graph: images(graph, 16))
    assert found.layers == ()
    assert found.scores[0].snr_db > 35


def test_logits_lie_in_front_of_a_softmax() -> None:
    b = GraphBuilder("head", initialise=he_normal(0))
    x = b.dense(b.input("image", (None, 6)), "logits", 4)
    y = b.node("flat", ops.Reshape(shape=(None, 4)), b.node("softmax", ops.Softmax(), x))
    graph = b.finish({"y": y, "z": x})
    assert logits(graph) == ["logits", "logits"]
    assert logits(integers(graph)) == ["logits", "logits/dequantized"]
    found = score("none", graph, integers(graph), images(graph, 16))
    assert found.snr_db == pytest.approx(
        snr_db(*(execute(g, images(graph, 16), fetch=["logits"])["logits"] for g in (graph, integers(graph))))
    )


def test_agreement_is_of_images_or_of_pixels() -> None:
    exact = np.array([[0, 1], [1, 0], [0, 2]])
    assert class_agreement(exact, exact[:, ::-1]) == 0
    assert class_agreement(exact, np.array([[0, 1], [0, 1], [0, 2]])) == pytest.approx(2 / 3)
    assert class_agreement(exact[:, None, None], exact[:, None, None]) == 1
    assert class_agreement(exact[:, :1], exact[:, :1]) is None
    assert class_agreement(exact[None], exact[None]) is None


def test_a_reshape_that_states_the_batch_of_the_file_is_no_obstacle() -> None:
    def flattened(b: GraphBuilder, x: str) -> str:
        return b.node("y", ops.Reshape(shape=(1, 8 * 6 * 4)), b.node("twice", ops.Mul(), x, number(b, "t", 2)))

    found = errors(made(flattened))
    assert found["y"].own_snr_db > 30
    assert found["y"].snr_db == pytest.approx(found["twice"].snr_db)
