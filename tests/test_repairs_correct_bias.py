"""Bias correction: the mean error of every channel goes, by computation or by measurement."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.errors import UsageError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.passes.deploy import deploy
from edgecnn.quantization import side_by_side
from edgecnn.quantization.assign import assign
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.correct_bias import correct_bias
from edgecnn.quantization.parameters import per_tensor
from edgecnn.quantization.prepare import prepared
from edgecnn.quantization.recipe import Recipe
from tests.graphs import transposed

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((6, 9, 8, 4), dtype=np.float32) + 1

Make = Callable[[GraphBuilder, str], str]


def seen(graph: Graph, images: Array = IMAGES) -> Calibration:
    return calibrate(graph, [{graph.inputs[0].name: images}], origin="noise")


def conv(**options: Any) -> Make:
    return lambda b, x: b.conv(x, "y", 8, use_bias=True, **options)


def rounded(graph: Graph, steps: int = 3) -> Graph:
    """Return the Graph with kernels of a few integers under float activations: an error that is easy to see."""
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if isinstance(node.op, ops.Conv | ops.ConvTranspose | ops.Dense):
            kernel = tensors[node.inputs[1]]
            form = per_tensor(float(np.abs(kernel.value()).max()) / steps)
            tensors[kernel.name] = replace(kernel, data=form.quantize(kernel.value()), quantization=form)
    return replace(graph, tensors=tensors)


LAYERS: dict[str, Make] = {
    "padded": conv(kernel_size=3, padding=((1, 1), (1, 1))),
    "strided": conv(kernel_size=(3, 5), stride=2, padding=((0, 1), (3, 2))),
    "dilated": conv(kernel_size=3, dilation=2, padding="same"),
    "depthwise": conv(kernel_size=5, groups=4, padding="same"),
    "grouped": conv(kernel_size=3, groups=2, padding="same"),
    "transposed": transposed((3, 4), (2, 2), ((1, 0), (1, 2)), output_padding=(1, 0)),
    "transposed_groups": transposed((3, 3), (1, 2), ((1, 1), (0, 1)), dilation=(2, 1), groups=2, out_channels=6),
    "dense": lambda b, x: b.dense(b.node("mean", ops.Mean(axes=(1, 2)), x), "y", 5),
}


@pytest.mark.parametrize("case", LAYERS)
def test_the_computed_correction_is_exact_where_every_position_has_the_same_mean(case: str) -> None:
    """Borders included: images are constant over positions, so that only the padding differs."""
    b = GraphBuilder("one", initialise=he_normal(0))
    graph = b.finish({"y": LAYERS[case](b, b.input("image", (None, 9, 8, 4)))})
    images = np.broadcast_to(RNG.standard_normal((5, 1, 1, 4), dtype=np.float32) + 2, (5, 9, 8, 4))
    coarse = rounded(graph)
    fixed, moved = correct_bias(graph, coarse, seen(graph, images), method="analytic")
    wanted, before, after = (execute(each, {"image": images})["y"] for each in (graph, coarse, fixed))
    axes = tuple(range(wanted.ndim - 1))
    error = (wanted - before).mean(axes)
    assert np.abs(error).max() > 0.05
    np.testing.assert_allclose(moved["y"], error, atol=2e-5)
    np.testing.assert_allclose(after.mean(axes), wanted.mean(axes), atol=2e-5)


def network(seed: int = 0) -> Graph:
    """Return conv, depthwise and pointwise layers with a residual, a pool and a dense layer; no conv has a bias."""
    b = GraphBuilder("net", initialise=he_normal(seed))
    x = y = b.activate(b.conv(b.input("image", (None, 9, 8, 4)), "stem", 8, kernel_size=3), "stem", ops.ReLU6())
    x = b.activate(b.depthwise(x, "depthwise", kernel_size=3), "depthwise", ops.ReLU())
    x = b.add(b.conv(x, "pointwise", 8, kernel_size=1), y, "add")
    x = b.activate(b.conv(x, "grouped", 8, kernel_size=3, groups=2), "grouped", ops.Swish())
    x = b.average_pool(x, "pool", kernel_size=2, stride=2)
    return prepared(deploy(b.finish({"y": b.dense(b.node("mean", ops.Mean(axes=(1, 2)), x), "logits", 5)})).graph)


LAYER_NAMES = {"stem", "depthwise", "pointwise", "grouped", "logits"}


def quantized(graph: Graph, bits: int = 4, activation_bits: int = 8) -> Graph:
    return assign(graph, seen(graph), Recipe(precision=f"static_w{bits}_a{activation_bits}"))


def mean_errors(graph: Graph, integers: Graph, names: list[str]) -> dict[str, float]:
    """Return tensor -> largest error of a channel's mean over the images, relative to the channels' spread."""
    wanted, found = (execute(each, {"image": IMAGES}, fetch=names) for each in (graph, integers))
    return {
        name: float(
            np.abs((wanted[name] - found[name]).mean(tuple(range(wanted[name].ndim - 1)))).max() / wanted[name].std()
        )
        for name in names
    }


@pytest.mark.parametrize("activation_bits", [8, 16])
def test_the_measured_correction_leaves_no_mean_error_at_any_layer(activation_bits: int) -> None:
    graph = network()
    integers = quantized(graph, activation_bits=activation_bits)
    fixed, moved = correct_bias(graph, integers, seen(graph), inputs={"image": IMAGES})
    assert moved.keys() == LAYER_NAMES
    points = ["pointwise", "grouped/swish/linear", "logits"]  # without a clamp between the layer and the point
    points = [
        name if name in graph.tensors else next(n.output for n in graph.nodes if n.name == "grouped") for name in points
    ]
    before, after = mean_errors(graph, integers, points), mean_errors(graph, fixed, points)
    for point in points:
        assert after[point] < 0.02 < before[point], (point, before, after)
    biases = [fixed.tensors[n.inputs[2]].stored_dtype for n in fixed.nodes if n.name in LAYER_NAMES]
    assert set(biases) == {"int32" if activation_bits == 8 else "int64"}


def test_onnx_runtime_and_numpy_measure_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    graph = network()
    arguments = (graph, quantized(graph), seen(graph))
    found = correct_bias(*arguments, inputs={"image": IMAGES})[1]
    monkeypatch.setattr(registry, "load", lambda *names: _Nothing())
    again = correct_bias(*arguments, inputs={"image": IMAGES})[1]
    for name, values in found.items():
        # An integer that falls on the other side of a half moves a mean of six images a little.
        np.testing.assert_allclose(values, again[name], atol=0.05 * np.abs(values).max())


class _Nothing:
    """A writer whose package is not installed."""

    def write(self, *arguments: object) -> None:
        from edgecnn.errors import MissingError

        raise MissingError("not here")


def test_memory_is_bounded_by_running_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    arguments = (graph, quantized(graph), seen(graph))
    monkeypatch.setattr(registry, "load", lambda *names: _Nothing())  # NumPy runs
    together = correct_bias(*arguments, inputs={"image": IMAGES})[1]
    fed: list[Array] = []

    def watched(whole: Graph, images: Mapping[str, Array]) -> Mapping[str, Array]:
        fed.append(images["image"])
        return execute(whole, images)

    monkeypatch.setattr(side_by_side, "LARGEST_ACTIVATION_BYTES", 4 * 4 * 9 * 8 * 8 - 1)
    monkeypatch.setattr(side_by_side, "execute", watched)
    apart = correct_bias(*arguments, inputs={"image": IMAGES[:5]})[1]
    for found, wanted in zip(fed, (IMAGES[:3], IMAGES[2:5]), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for name, values in together.items():
        np.testing.assert_allclose(apart[name], values, atol=0.5 * np.abs(values).max())


def test_runs_of_few_images_correct_as_much_as_one_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    integers, points = quantized(graph), ["pointwise", "logits"]
    for images in (1, 2, 6):
        monkeypatch.setattr(side_by_side, "IMAGES", images)
        fixed, _ = correct_bias(graph, integers, seen(graph), inputs={"image": IMAGES})
        before, after = mean_errors(graph, integers, points), mean_errors(graph, fixed, points)
        for point in points:
            assert after[point] < 0.05 < before[point], (images, point, before, after)


def test_a_layer_without_bias_gets_one_in_its_scale() -> None:
    graph = network()
    integers = quantized(graph)
    bare = tuple(replace(n, inputs=n.inputs[:2]) if n.name == "stem" else n for n in integers.nodes)
    fixed, moved = correct_bias(graph, replace(integers, nodes=bare), seen(graph), method="analytic")
    stem = next(node for node in fixed.nodes if node.name == "stem")
    source, kernel, bias = (fixed.tensors[name] for name in stem.inputs)
    assert bias.quantization is not None
    assert source.quantization is not None
    assert kernel.quantization is not None
    np.testing.assert_allclose(
        bias.quantization.scale, np.asarray(kernel.quantization.scale) * source.quantization.scale[0], rtol=1e-6
    )
    assert np.abs(bias.value() - moved["stem"]).max() <= max(bias.quantization.scale)


def test_a_correction_never_reaches_what_a_sum_of_products_needs() -> None:
    graph = network()
    integers = quantized(graph)
    kernel = graph.tensors[graph.nodes[0].inputs[1]]
    far = replace(graph, tensors={**graph.tensors, kernel.name: replace(kernel, data=kernel.value() * 1e12)})
    fixed, _ = correct_bias(far, integers, seen(graph), method="analytic")
    stem = next(node for node in fixed.nodes if node.name == "stem")
    data = fixed.tensors[stem.inputs[2]].data
    assert data is not None
    assert np.abs(data).max() == 2**30


def test_refusals() -> None:
    graph = network()
    with pytest.raises(UsageError, match=r"empirical bias correction needs images; there are none\. Take 'analytic'"):
        correct_bias(graph, quantized(graph), seen(graph))
    b = GraphBuilder("tied", initialise=he_normal(0))
    x = b.conv(b.input("image", (1, 9, 8, 4)), "first", 4, kernel_size=3)
    x = b.node("rows", ops.Reshape(shape=(72, 4)), x)
    tied = b.finish({"y": b.dense(x, "last", 3)})
    coarse = assign(tied, seen(tied), Recipe())
    for options in ({"inputs": {"image": IMAGES}}, {"method": "analytic"}):  # an image at a time, as it is tied to
        moved = correct_bias(tied, coarse, seen(tied), **options)[1]
        assert moved.keys() == {"first", "last"}
        assert all(np.any(values != 0) for values in moved.values())


def test_a_float_layer_of_a_mixed_network_is_left_alone() -> None:
    graph = network()
    mixed = assign(graph, seen(graph), Recipe(precision="static_w4_a8", overrides=(("grouped", "float32"),)))
    fixed, moved = correct_bias(graph, mixed, seen(graph), inputs={"image": IMAGES})
    assert moved.keys() == LAYER_NAMES - {"grouped"}
    assert mean_errors(graph, fixed, ["logits"])["logits"] < 0.02
