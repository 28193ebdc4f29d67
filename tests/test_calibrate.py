"""Calibration: what is said of every tensor, against NumPy on all images at once, whatever runs the network."""

import os
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.contract import Contract
from edgecnn.errors import CheckFailedError, ShapeError, UnknownNameError, UsageError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Tensor, with_batch
from edgecnn.passes.deploy import deploy
from edgecnn.quantization import inner_values
from edgecnn.quantization.calibrate import CHECKPOINTS, Settling, calibrate
from edgecnn.quantization.lint import lint
from edgecnn.quantization.observers import OBSERVERS, Observer
from edgecnn.quantization.parameters import per_tensor
from edgecnn.quantization.samples import image_batches
from edgecnn.source import load_model

IMAGES = np.random.default_rng(1).standard_normal((7, 6, 6, 3), dtype=np.float32)
BACKENDS = {"onnxruntime": (("onnx", "onnxruntime_cpu"),), "ai-edge-litert": (("tflite", "litert_cpu"),), "numpy": ()}


def network() -> Graph:
    """A Graph whose tensors have ranks 2, 3 and 4, channels as many as rows, and one without any sign change."""
    b = GraphBuilder("small", initialise=he_normal(3))
    x = b.input("image", (None, 6, 6, 3))
    x = b.conv(x, "square", 6, kernel_size=3)  # 6x6x6: no shape tells the channels
    x = b.activate(x, "square", ops.ReLU())
    x = b.conv(x, "wide", 5, kernel_size=3, stride=2)
    rows = b.node("rows", ops.Reshape(shape=(None, 9, 5)), x)
    rows = b.conv(rows, "line", 4, kernel_size=3)
    pooled = b.node("pooled", ops.Mean(axes=(1,)), rows)
    b.node("best", ops.ArgMax(axis=1), pooled)
    return b.finish({"logits": b.dense(pooled, "logits", 3), "class": "best", "map": x})


def batches(images: Array, size: int) -> Iterator[Mapping[str, Array]]:
    for start in range(0, len(images), size):
        yield {"image": images[start : start + size]}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_statistics_are_those_of_all_images(backend: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_values, "BACKENDS", BACKENDS[backend])
    graph = network()
    found = calibrate(graph, batches(IMAGES, size), origin="noise")
    names = [name for name, tensor in graph.tensors.items() if not tensor.is_constant and name != "best"]
    values = {**execute(graph, {"image": IMAGES}, fetch=[n for n in names if n != "image"]), "image": IMAGES}
    assert sorted(found.statistics) == sorted(names)
    assert found.backend.startswith(backend)
    assert (found.images, found.observer, found.origin, found.is_random) == (7, "min_max", "noise", False)
    for name in names:
        rows, statistics = values[name].reshape(-1, values[name].shape[-1]), found.statistics[name]
        assert_allclose(statistics.minimum, rows.min(axis=0), atol=1e-5, err_msg=name)
        assert_allclose(statistics.maximum, rows.max(axis=0), atol=1e-5, err_msg=name)
        assert_allclose(statistics.mean, rows.mean(axis=0), atol=1e-5, err_msg=name)
        assert_allclose(statistics.variance, rows.var(axis=0), rtol=1e-4, atol=1e-6, err_msg=name)
        assert statistics.low == pytest.approx(min(0, rows.min()), abs=1e-5)
        assert statistics.high == pytest.approx(max(0, rows.max()), abs=1e-5)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_how_images_are_batched_does_not_matter(observer: str) -> None:
    one, many = (calibrate(network(), batches(IMAGES, n), observer=observer, origin="noise") for n in (1, 7))
    for name, statistics in one.statistics.items():
        assert (statistics.low, statistics.high) == (many.statistics[name].low, many.statistics[name].high)
    assert one.convergence == many.convergence


def test_tensors_that_do_not_fit_at_once_are_observed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = calibrate(network(), batches(IMAGES, 2), origin="noise")
    monkeypatch.setattr(inner_values, "GROUP_BYTES", 1)
    parts = calibrate(network(), batches(IMAGES, 2), origin="noise")
    assert list(parts.statistics) == list(whole.statistics)
    for name, statistics in whole.statistics.items():
        assert_array_equal(statistics.mean, parts.statistics[name].mean)


def test_each_batch_is_done_with_before_the_next_is_made() -> None:
    seen: list[int] = []

    def slowly() -> Iterator[Mapping[str, Array]]:
        for number in range(3):
            assert len(seen) == 2 * number
            yield {"image": IMAGES[:2]}

    calibrate(network(), slowly(), origin="noise", advance=lambda: seen.append(1))
    assert len(seen) == 6


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        calibrate(network(), ({"image": IMAGES[:1]} for _ in range(count)), observer="entropy", origin="noise")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)  # what is imported on the way stays
    assert peak(100) < 1.1 * peak(CHECKPOINTS)


def test_a_network_tied_to_its_batch_runs_in_it_and_counts_no_image_twice() -> None:
    b = GraphBuilder("tied", initialise=he_normal(3))
    flat = b.node("flat", ops.Reshape(shape=(4, 108)), b.input("image", (4, 6, 6, 3)))
    graph = b.finish({"y": b.dense(b.node("swapped", ops.Reshape(shape=(2, 216)), flat), "y", 2)})
    with pytest.raises(ShapeError):
        with_batch(graph, 1)
    found = calibrate(graph, batches(IMAGES, 7), origin="noise")
    assert found.images == 7
    assert_allclose(found.statistics["flat"].mean, IMAGES.reshape(7, -1).mean(axis=0), atol=1e-6)


def test_only_the_tensors_that_are_asked_for_are_kept() -> None:
    found = calibrate(network(), batches(IMAGES, 7), tensors=["pooled", "best", "pooled"], origin="noise")
    assert list(found.statistics) == ["pooled"], "an integer tensor has no range"
    assert list(calibrate(network(), batches(IMAGES, 7), tensors=["image"], origin="n").statistics) == ["image"]


def test_an_observer_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBSERVERS, "twice", Observer(choose=lambda seen, _: (2 * seen.low, 2 * seen.high)))
    plain, twice = (calibrate(network(), batches(IMAGES, 7), observer=o, origin="n") for o in ("min_max", "twice"))
    assert twice.statistics["pooled"].high == 2 * plain.statistics["pooled"].high
    assert twice.observer == "twice"


def test_a_moving_average_forgets_and_does_not_start_at_zero() -> None:
    graph = network()
    steady = calibrate(graph, batches(IMAGES[[0, 0, 0]], 1), observer="moving_average", origin="n")
    assert steady.statistics["image"].high == pytest.approx(IMAGES[0].max())
    assert steady.observer == "moving_average(momentum=0.9)"
    images = IMAGES[:2] * np.asarray([1, 3], np.float32).reshape(-1, 1, 1, 1)
    found = calibrate(graph, batches(images, 1), observer="moving_average", momentum=0.5, origin="n")
    one, two = images[0].max(), images[1].max()
    assert found.statistics["image"].high == pytest.approx((0.25 * one + 0.5 * two) / 0.75)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_finite_number_is_refused_by_name(wrong: float) -> None:
    images = IMAGES[:2].copy()
    images[1, 0, 0, 0] = wrong
    with pytest.raises(CheckFailedError, match=r"^image: finite values were wanted to calibrate on; image 2 gives"):
        calibrate(network(), batches(images, 2), origin="noise")
    b = GraphBuilder("grows", initialise=he_normal(0))
    graph = b.finish({"y": b.node("grown", ops.Exp(), b.input("image", (1, 6, 6, 3)))})
    with pytest.raises(CheckFailedError, match=r"^grown: finite"):
        calibrate(graph, batches(IMAGES * np.float32(1e4), 1), origin="noise")


def test_the_curve_says_what_later_images_still_brought() -> None:
    images = np.zeros((4, 6, 6, 3), np.float32)
    for number, top in enumerate([1, 6, 6, 8]):
        images[number, 0, 0, 0] = top
    found = calibrate(network(), batches(images, 4), tensors=["image"], origin="steps")
    assert found.convergence == {1: 7 / 8, 2: 2 / 8, 3: 2 / 8, 4: 0}


def test_the_curve_stays_short() -> None:
    settling = Settling()
    for count in range(1, 5001):
        settling.add(count, [float(count)])
    curve = settling.curve()
    assert len(curve) <= CHECKPOINTS + 1
    assert curve[5000] == 0
    assert any(0.70 * 5000 <= count <= 0.75 * 5000 for count in curve), "lint reads the last quarter"
    assert all(growth == pytest.approx(1 - count / 5000) for count, growth in curve.items())


def quantized() -> Graph:
    graph = network()
    image: Tensor = replace(graph.tensors["image"], quantization=per_tensor(0.1))
    return replace(graph, tensors={**graph.tensors, "image": image})


def test_refusals_say_what_was_wanted() -> None:
    graph = network()
    with pytest.raises(UsageError) as caught:
        calibrate(quantized(), [], origin="")
    assert str(caught.value) == "small: a float network was wanted to calibrate; this one is quantized already"
    with pytest.raises(UsageError) as caught:
        calibrate(graph, [], origin="")
    assert str(caught.value) == "small: inputs to calibrate on were wanted; got none"
    with pytest.raises(UnknownNameError, match=r"No observer is named 'minmax'\. Did you mean 'min_max'\?"):
        calibrate(graph, [], observer="minmax", origin="")
    with pytest.raises(UnknownNameError, match=r"small: No computed tensor is named 'poold'\. Did you mean 'pooled'\?"):
        calibrate(graph, [], tensors=["poold"], origin="")
    with pytest.raises(UsageError, match=r"small: values for the input 'image' were wanted; got \['x'\]"):
        calibrate(graph, [{"x": IMAGES}], origin="")
    with pytest.raises(ShapeError):
        calibrate(graph, [{"image": IMAGES[:, :5]}], origin="")
    with pytest.raises(UsageError, match=r"as many images for each input was wanted; got \[1, 2\]"):
        calibrate(graph, [{"image": IMAGES[:1], "other": IMAGES[:2]}], origin="")


DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of real weights and images (EDGECNN_TEST_DATA)")
def test_every_runtime_says_the_same_of_real_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = deploy(load_model(str(DATA / "weights/imagenet_tflite/mobilenet_v1_0.25_224_float.tflite"))).graph
    images = image_batches(DATA / "imagenet_sample_500", Contract(height=224, width=224), port="input", limit=3)
    found = []
    for backends in BACKENDS.values():
        monkeypatch.setattr(inner_values, "BACKENDS", backends)
        found.append(calibrate(graph, images, origin=images.origin).statistics)
    clamped = [node.output for node in graph.nodes if getattr(node.op, "activation", None) == ops.ReLU6()]
    assert len(clamped) == 27
    for name, statistics in found[0].items():
        step = max(1e-9, statistics.high - statistics.low) / 255
        for other in (each[name] for each in found[1:]):
            assert abs(other.low - statistics.low) <= step, name
            assert abs(other.high - statistics.high) <= step, name
            assert_allclose(other.mean, statistics.mean, atol=step / 10, err_msg=name)
            assert_allclose(other.maximum, statistics.maximum, atol=step / 10, err_msg=name)
        if name in clamped:
            assert 0 == statistics.low < statistics.high <= 6
    assert lint(DATA / "imagenet_sample_500", Contract(height=224, width=224), limit=40) == ()
