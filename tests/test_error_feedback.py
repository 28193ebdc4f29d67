"""Rounding with error feedback: the published algorithm's integers, the right moments, less error on other images."""

import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from edgecnn.benchmarks.random_efficientnet import CUT, main, published_initialiser, random_efficientnet

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, with_batch
from edgecnn.models.efficientnet import efficientnet_b0
from edgecnn.passes.deploy import deploy
from edgecnn.quantization import error_feedback as module
from edgecnn.quantization.error_feedback import error_feedback, rounded
from edgecnn.quantization.quantize import Quantized, Samples, quantize
from edgecnn.quantization.recipe import Recipe, Rounding
from edgecnn.quantization.report import score
from edgecnn.quantization.second_moments import SecondMoments, measured_moments
from edgecnn.verify import snr_db
from edgecnn.vision.photographs import load_images

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def alike(count: int, size: int, seed: int = 0) -> Array:
    """Return rows whose entries rise and fall together, as pixels do."""
    rng = generator(seed)
    common = rng.normal(size=(count, 3)) @ rng.normal(size=(3, size))
    return np.asarray(common + 0.3 * rng.normal(size=(count, size)) + 1)


def smooth_images(count: int, seed: int) -> Array:
    """Return (count, 16, 16, 3) random images whose neighbours are alike."""
    coarse = generator(seed).normal(size=(count, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return (coarse + 0.1 * generator(seed + 100).normal(size=coarse.shape)).astype(np.float32)


def loss(steps: Array, integers: Array, matrix: Array) -> float:
    error = steps - integers
    return float(np.trace(error.T @ matrix @ error))


# --- rounding --------------------------------------------------------------------------------------------------------


def as_gptq_publishes_it(steps: Array, matrix: Array, limit: int) -> Array:
    """Return integers by GPTQ, algorithm 1, in order of energy and without blocks: by the inverse's Cholesky factor."""
    order = np.argsort(-np.diag(matrix), kind="stable")
    dampened = matrix[order][:, order] + module.DAMPENING * np.diag(matrix).mean() * np.eye(len(matrix))
    upper = np.linalg.cholesky(np.linalg.inv(dampened)).T
    left, found = steps[order].astype(np.float64), np.zeros(steps.shape)
    for k in range(len(matrix)):
        found[order[k]] = np.clip(np.rint(left[k]), -limit, limit)
        left[k:] -= np.outer(upper[k, k:], (left[k] - found[order[k]]) / upper[k, k])
    return found


@pytest.mark.parametrize("size", [1, 9, 150])
def test_the_integers_are_those_of_gptq(size: int) -> None:
    rows = alike(500, size)
    matrix = rows.T @ rows / 500
    steps = (20 * generator(1).normal(size=(size, 8))).astype(np.float32)
    found = rounded(steps, matrix[None], limit=31)
    assert (found == as_gptq_publishes_it(steps, matrix, 31)).mean() > 0.999, "but for ties that float32 decides"
    assert np.abs(found).max() <= 31


def test_alike_inputs_lose_much_less_than_with_the_nearest_integers_and_independent_ones_are_rounded_to_them() -> None:
    rows = alike(500, 40)
    matrix = rows.T @ rows / 500
    steps = (20 * generator(1).normal(size=(40, 64))).astype(np.float32)
    assert loss(steps, rounded(steps, matrix[None], limit=127), matrix) < 0.2 * loss(steps, np.rint(steps), matrix)
    alone = np.diag(generator(2).uniform(1, 2, 40))
    assert np.array_equal(rounded(steps, alone[None], limit=127), np.rint(steps))


def test_groups_are_rounded_each_by_its_own_matrix() -> None:
    matrices = np.stack([rows.T @ rows for rows in (alike(100, 18, seed) for seed in (1, 2))])
    steps = (9 * generator().normal(size=(3, 3, 2, 6))).astype(np.float32)
    found = rounded(steps, matrices, limit=127)
    for group, outputs in enumerate((slice(0, 3), slice(3, 6))):
        alone = rounded(np.ascontiguousarray(steps[..., outputs]), matrices[group : group + 1], limit=127)
        assert np.array_equal(found[..., outputs], alone)


def test_inputs_that_are_always_zero_are_no_reason_to_fail() -> None:
    steps = np.asarray([[0.4], [1.6], [2.5]], np.float32)
    assert np.array_equal(rounded(steps, np.zeros((1, 3, 3)), limit=127), np.rint(steps))


# --- moments ---------------------------------------------------------------------------------------------------------


def rows_of(op: ops.Conv, image: Array, kernel: Array) -> Array:
    """Return (groups, positions, weights), one position after the other."""
    padded = np.pad(image, ((0, 0), *op.padding, (0, 0)))
    (down, across), (height, width, per_group, _) = op.dilation, kernel.shape
    starts = [
        range(0, n - d * (k - 1), s)
        for n, k, s, d in zip(padded.shape[1:3], (height, width), op.stride, op.dilation, strict=True)
    ]
    found = [
        padded[n, y : y + height * down : down, x : x + width * across : across, first : first + per_group]
        for first in range(0, per_group * op.groups, per_group)
        for n, y, x in product(range(len(image)), *starts)
    ]
    return np.reshape(np.asarray(found), (op.groups, -1, height * width * per_group))


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "pointwise": {"kernel_size": 1},
    "padded": {"kernel_size": 3, "padding": "same"},
    "strided": {"kernel_size": (3, 2), "stride": (2, 1), "padding": ((0, 1), (1, 0))},
    "dilated": {"kernel_size": 3, "dilation": 2},
    "grouped": {"kernel_size": 3, "groups": 2},
    "depthwise": {"kernel_size": 3, "groups": 4},
}


def layer_graph(**options: Any) -> Graph:
    b = GraphBuilder("layer", initialise=he_normal(0))
    x = b.node("relu", ops.ReLU(), b.input("x", (1, 8, 8, 4)))
    return b.finish({"y": b.conv(x, "conv", 8, **options)})


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_moments_are_those_of_the_rows_that_meet_the_kernel(name: str) -> None:
    graph = layer_graph(**CONVOLUTIONS[name])
    layer, images = graph.nodes[-1], generator().normal(size=(5, 8, 8, 4)).astype(np.float32)
    kernel = graph.tensors[layer.inputs[1]].value()
    batches = [{"x": images[:2]}, {"x": images[2:]}]
    found = measured_moments(graph, [layer], batches)["conv"]
    op: Any = layer.op
    rows = rows_of(op, np.maximum(images, 0), kernel).astype(np.float64)
    wanted = rows.swapaxes(1, 2) @ rows / rows.shape[1]
    mean = rows.mean(axis=1)
    assert found.matrix(is_centred=False) == pytest.approx(wanted, abs=1e-5)
    assert found.matrix(is_centred=True) == pytest.approx(wanted - mean[:, :, None] * mean[:, None, :], abs=1e-5)


def test_what_hardly_varies_keeps_its_covariance_and_memory_does_not_grow() -> None:
    graph = layer_graph(kernel_size=1)
    moments = SecondMoments(graph.nodes[-1], graph.tensors[graph.nodes[-1].inputs[1]].value())
    images = (1000 + 0.01 * generator().normal(size=(100, 8, 8, 4))).astype(np.float32)
    for image in images:
        moments.add(image[None])
        assert sum(rows.nbytes for rows in moments._waiting) < 1 << 16
    wanted = np.cov(images.reshape(-1, 4).astype(np.float64).T, bias=True)
    assert moments.matrix(is_centred=True)[0] == pytest.approx(wanted, rel=1e-3, abs=1e-8)


def test_of_a_large_image_a_few_positions_are_looked_at() -> None:
    graph = layer_graph(kernel_size=3, groups=4)
    moments = SecondMoments(graph.nodes[-1], graph.tensors[graph.nodes[-1].inputs[1]].value())
    moments.add(np.ones((1, 200, 200, 4), np.float32))
    (rows,) = moments._waiting
    assert rows.shape == (4, 64, 9)


# --- networks --------------------------------------------------------------------------------------------------------


def network() -> Graph:
    b = GraphBuilder("small", initialise=he_normal(0))
    x = b.input("image", (1, 16, 16, 3))
    x = b.conv(x, "stem", 16, kernel_size=3, use_bias=True)
    x = b.conv(b.node("relu", ops.ReLU6(), x), "depthwise", 16, kernel_size=3, groups=16, use_bias=True)
    x = b.node("up", *_up(b, x))
    return b.finish({"logits": b.dense(b.node("mean", ops.Mean(axes=(1, 2)), x), "head", 10)})


def _up(b: GraphBuilder, x: str) -> tuple[ops.Op, str, str]:
    kernel = b.constant("up/kernel", generator(3).normal(size=(2, 2, 16, 12)).astype(np.float32))
    return ops.ConvTranspose(stride=(2, 2), padding=((0, 0), (0, 0)), dilation=(1, 1), output_padding=(0, 0)), x, kernel


def made(rounding: Rounding, **settings: Any) -> Quantized:
    recipe = Recipe(
        precision="static_w4_a16",
        overrides=(("up", "static_w8_a16"),),
        rounding=rounding,
        **{"bias_correction": "none", **settings},
    )
    images = smooth_images(24, 0)
    return quantize(network(), recipe, Samples(batches=lambda graph: [{"image": images}], origin="noise"))


@pytest.mark.parametrize("correction", ["none", "empirical"])
def test_a_network_loses_less_on_other_images(correction: str) -> None:
    nearest, fed = (made(rounding, bias_correction=correction) for rounding in ("nearest", "error_feedback"))
    exact = execute(nearest.reference, {"image": (images := smooth_images(16, 7))})["logits"]
    before, after = (snr_db(exact, execute(each.graph, {"image": images})["logits"]) for each in (nearest, fed))
    assert after > before + 3


def test_only_the_integers_of_kernels_change() -> None:
    nearest, fed = made("nearest"), made("error_feedback")
    repair = next(each for each in fed.repairs if each.name == "rounding")
    assert repair.nodes == ("stem", "depthwise", "head")
    assert repair.refused == (("up", "outputs of a transposed convolution meet different parts of its kernel"),)
    kernels = {f"{name}/kernel" for name in repair.nodes}
    changed = set()
    for name, tensor in nearest.graph.tensors.items():
        other = fed.graph.tensors[name]
        assert tensor.quantization == other.quantization
        if tensor.data is not None and other.data is not None and not np.array_equal(tensor.data, other.data):
            changed.add(name)
    assert changed == kernels


def test_integers_stay_within_the_precisions_limit() -> None:
    fed = made("error_feedback")
    for name in ("stem", "depthwise", "head"):
        data = fed.graph.tensors[f"{name}/kernel"].data
        assert data is not None
        assert np.abs(data.astype(int)).max() == 7


def test_a_layer_of_too_many_weights_keeps_its_integers_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WEIGHTS", 16)
    nearest = made("nearest")
    result = error_feedback(nearest.reference, nearest.graph, [{"image": smooth_images(4, 0)}])
    assert result.applied == ("depthwise", "head")
    assert result.refused[0] == ("stem", "at most 16 weights of one output were wanted; it has 27")
    before, after = (graph.tensors["stem/kernel"].data for graph in (nearest.graph, result.graph))
    assert before is after


# --- the benchmark's network -----------------------------------------------------------------------------------------


def test_random_weights_are_drawn_as_published_and_by_name() -> None:
    draw = published_initialiser(0)
    values = draw("a", (3, 3, 64, 128))
    assert np.array_equal(values, published_initialiser(0)("a", (3, 3, 64, 128)))
    assert not np.array_equal(values, draw("b", values.shape))
    assert not np.array_equal(values, published_initialiser(1)("a", values.shape))
    deviation = np.sqrt(2 / (9 * 128))
    assert values.std() == pytest.approx(deviation, rel=0.01)
    assert np.abs(values).max() == pytest.approx(CUT * deviation / 0.8796, rel=0.01)
    assert draw("d", (5, 5, 1, 4000)).std() == pytest.approx(np.sqrt(2 / 25), rel=0.01), "one output for each channel"
    dense = draw("c", (1280, 1000))
    assert np.abs(dense).max() == pytest.approx(1 / np.sqrt(1000), rel=0.01)
    assert dense.std() == pytest.approx(1 / np.sqrt(3000), rel=0.01)


def test_every_batch_norm_of_it_normalises_what_real_images_bring() -> None:
    images = generator().normal(size=(2, 224, 224, 3)).astype(np.float32)
    graph = random_efficientnet(images)
    names = [node.output for node in graph.nodes if isinstance(node.op, ops.BatchNorm)]
    assert len(names) == 49
    found = execute(graph, {"image": images}, fetch=names)
    for name in names:
        assert np.abs(found[name].mean(axis=(0, 1, 2))).max() < 1e-3
        assert found[name].std() == pytest.approx(1, abs=0.05)


def test_it_is_written_as_a_keras_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Graph] = []

    class Writer:
        def write(self, graph: Graph, path: Path) -> Any:
            written.append(graph)
            path.write_bytes(b"x")
            return type("Artifact", (), {"size_bytes": 1})

    load = registry.load
    monkeypatch.setattr(registry, "load", lambda room, name: Writer() if name == "keras" else load(room, name))
    monkeypatch.setattr("edgecnn.benchmarks.random_efficientnet.IMAGES", 1)
    result = CliRunner().invoke(main, [str(tmp_path / "net.keras")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "net.keras").is_file()
    assert "BatchNorm statistics of 1" in result.stderr
    assert with_batch(written[0], 1).outputs[0].name == "logits"


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the published data (EDGECNN_TEST_DATA)")
@pytest.mark.parametrize(("precision", "least"), [("static_w8_a8", 8.0), ("static_w8_a16", 17.0)])
def test_the_signal_of_a_network_that_is_hard_to_quantize_is_kept(precision: str, least: float) -> None:
    contract: Any = efficientnet_b0(initialise=he_normal(0)).contract
    values = load_images(DATA / "imagenet_sample_500", contract, limit=64).values
    calibration, evaluation = values[::2], values[1::2]
    graph = deploy(with_batch(random_efficientnet(calibration), 1)).graph
    key = graph.inputs[0].name
    samples = Samples(batches=lambda _: [{key: calibration}], origin="photographs")
    made = quantize(graph, replace(Recipe(), precision=precision), samples, threads=2)
    assert score("all", made.reference, made.graph, {key: evaluation}).snr_db >= least
