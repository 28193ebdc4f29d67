"""Cross-layer equalization and high-bias absorption: the function stays, ranges become alike, refusals say why."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.contract import Contract
from edgecnn.errors import UsageError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Tensor, validate, with_batch
from edgecnn.passes.deploy import deploy
from edgecnn.quantization.absorb_bias import absorb_bias
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.equalize import LARGEST_FACTOR, equalize
from edgecnn.vision.preprocess import read_image

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
IMAGES = np.random.default_rng(0).standard_normal((4, 9, 9, 3), dtype=np.float32)


def snr_db(wanted: Array, found: Array) -> float:
    return float(10 * np.log10(np.square(wanted, dtype=np.float64).sum() / np.square(found - wanted).sum()))


def seen(graph: Graph, images: Array = IMAGES) -> Calibration:
    return calibrate(graph, [{graph.inputs[0].name: images}], origin="noise")


def output(graph: Graph, images: Array = IMAGES) -> Array:
    return execute(graph, {graph.inputs[0].name: images})[graph.outputs[0].name]


def spread_out(graph: Graph, factor: float = 3.0) -> Graph:
    """Give the output channels of every kernel ranges that lie far apart, and every bias a value."""
    rng, tensors = np.random.default_rng(1), dict(graph.tensors)
    for name, tensor in tensors.items():
        if tensor.data is not None:
            scale = np.exp(rng.uniform(-factor, factor, tensor.shape[-1])).astype(np.float32)
            data = (
                rng.standard_normal(tensor.data.shape).astype(np.float32)
                if name.endswith("bias")
                else tensor.data * scale
            )
            tensors[name] = replace(tensor, data=data)
    return replace(graph, tensors=tensors)


def separable(activation: ops.Activation) -> Graph:
    """Return conv, depthwise, pointwise, each with an activation."""
    b = GraphBuilder("separable", initialise=he_normal(0))
    x = b.input("image", (None, 9, 9, 3))
    x = b.activate(b.conv(x, "stem", 8, kernel_size=3, use_bias=True), "stem", activation)
    x = b.activate(b.conv(x, "depthwise", 8, kernel_size=3, groups=8, use_bias=True), "depthwise", activation)
    x = b.conv(x, "pointwise", 6, kernel_size=1, use_bias=True)
    return deploy(spread_out(b.finish({"y": x}))).graph


def ranges(graph: Graph, layer: str, axis: int) -> Array:
    """Return the largest weight of each channel along an axis of a layer's kernel."""
    node = next(node for node in graph.nodes if node.name == layer)
    kernel = np.abs(graph.tensors[node.inputs[1]].value())
    return np.asarray(kernel.max(axis=tuple(each for each in range(4) if each != axis % 4)))


def test_the_ranges_of_a_separable_triple_become_their_geometric_mean() -> None:
    graph = separable(ops.ReLU())
    result = equalize(graph)
    assert result.applied == ("stem", "depthwise")
    validate(result.graph)
    wanted = np.cbrt(ranges(graph, "stem", 3) * ranges(graph, "depthwise", 3) * ranges(graph, "pointwise", 2))
    for layer, axis in (("stem", 3), ("depthwise", 3), ("pointwise", 2)):
        np.testing.assert_allclose(ranges(result.graph, layer, axis), wanted, rtol=0.03)
    assert np.ptp(np.log(ranges(graph, "depthwise", 3))) > 2  # they were far apart
    assert snr_db(output(graph), output(result.graph)) > 100
    assert not {node.output for node in result.graph.nodes[:-1]} & graph.tensors.keys()  # new values, new names


def through(b: GraphBuilder, x: str, case: str) -> str:
    """Add what lies between two layers, and return what the second one reads."""
    slope = np.linspace(-0.5, 0.5, 8, dtype=np.float32)
    rows: dict[str, tuple[ops.Op, tuple[str, ...]]] = {
        "leaky": (ops.LeakyReLU(slope=0.1), ()),
        "prelu": (ops.PReLU(), ("slope",)),
        "max_pool": (ops.MaxPool(kernel_size=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1))), ()),
        "average": (ops.AveragePool(kernel_size=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0))), ()),
        "pad": (ops.Pad(padding=((0, 0), (1, 1), (2, 0), (0, 0))), ()),
        "resize": (ops.Resize(size=(5, 5), method="bilinear"), ()),
        "mean": (ops.Mean(axes=(1, 2)), ()),
        "flatten": (ops.Reshape(shape=(None, 9 * 9 * 8)), ()),
    }
    op, constants = rows[case]
    return b.node("between", op, x, *(b.constant(name, slope) for name in constants))


@pytest.mark.parametrize("case", ["leaky", "prelu", "max_pool", "average", "pad", "resize", "mean", "flatten"])
def test_factors_pass_through_what_is_homogeneous(case: str) -> None:
    b = GraphBuilder("through", initialise=he_normal(0))
    x = b.conv(b.input("image", (None, 9, 9, 3)), "first", 8, kernel_size=3, use_bias=True)
    x = through(b, x, case)
    last = b.dense(x, "last", 5) if len(b.shape(x)) == 2 else b.conv(x, "last", 4, kernel_size=3, groups=2)
    graph = spread_out(b.finish({"y": last}))
    result = equalize(graph)
    assert result.applied == ("first",)
    assert snr_db(output(graph), output(result.graph)) > 100
    before, after = (np.ptp(np.log(ranges(each, "first", 3))) for each in (graph, result.graph))
    assert after < 0.8 * before


def test_a_clamp_is_kept_and_only_channels_far_from_it_are_scaled() -> None:
    graph = separable(ops.ReLU6())
    refused = dict(equalize(graph).refused)
    assert refused["stem"] == "stem clamps at 6, and no calibration tells which channels never get there"
    calibration = seen(graph)
    result = equalize(graph, calibration)
    largest = calibration.statistics[graph.nodes[0].output].maximum
    factor = ranges(result.graph, "stem", 3) / ranges(graph, "stem", 3)
    is_near = 2 * largest >= 6
    assert 0 < is_near.sum() < 8  # the case has channels of both kinds
    np.testing.assert_array_equal(factor[is_near], 1)
    assert (factor[~is_near] != 1).any()
    assert (factor * largest <= 6).all()
    assert snr_db(output(graph), output(result.graph)) > 100


def test_a_dead_channel_gets_no_factor_without_bound() -> None:
    graph = separable(ops.ReLU())
    kernel = graph.tensors[graph.nodes[0].inputs[1]]
    data = kernel.value().copy()
    data[..., 0], data[..., 1] = 0, 1e-30
    graph = replace(graph, tensors={**graph.tensors, kernel.name: replace(kernel, data=data)})
    result = equalize(graph)
    factor = ranges(result.graph, "stem", 3)[1] / np.float32(1e-30)
    assert factor == pytest.approx(LARGEST_FACTOR, rel=1e-3)
    assert snr_db(output(graph), output(result.graph)) > 100


def test_refusals() -> None:
    b = GraphBuilder("refused", initialise=he_normal(0))
    x = b.conv(b.input("image", (None, 9, 9, 3)), "first", 4, kernel_size=3)
    y = b.conv(b.node("tanh", ops.Tanh(), x), "second", 4, kernel_size=3)
    z = b.conv(y, "third", 4, kernel_size=3)
    graph = b.finish({"y": b.add(y, z, "add")})
    result = equalize(graph)
    assert result.graph is graph
    assert dict(result.refused) == {
        "first": "Tanh of tanh does not let factors of channels pass",
        "second": "the output of second is not read by one layer alone",
        "third": "Add of add does not let factors of channels pass",
    }


def positive(padding: str) -> Graph:
    """Return two layers; half of the channels between them are always far above 0."""
    b = GraphBuilder("positive", initialise=he_normal(0))
    x = b.conv(b.input("image", (None, 9, 9, 3)), "first", 4, kernel_size=1, use_bias=True)
    x = b.conv(b.activate(x, "first", ops.ReLU()), "last", 4, kernel_size=3, padding=padding)
    graph = deploy(b.finish({"y": x})).graph
    bias = Tensor(name="first/bias", shape=(4,), data=np.array([50, 0, -1, 60], np.float32))
    return replace(graph, tensors={**graph.tensors, "first/bias": bias})


def test_biases_of_channels_that_are_always_positive_move_on() -> None:
    graph = positive("valid")
    result = absorb_bias(graph, seen(graph))
    assert result.applied == ("first",)
    assert snr_db(output(graph), output(result.graph)) > 100
    before, after = seen(graph).statistics["first/relu"], seen(result.graph).statistics["first/relu/absorbed"]
    assert (before.maximum[[0, 3]] > 50).all()
    assert (after.maximum[[0, 3]] < 30).all()
    assert (after.minimum >= 0).all()
    np.testing.assert_allclose(after.maximum[[1, 2]], before.maximum[[1, 2]], rtol=1e-6)


def test_a_padded_layer_takes_no_bias_over() -> None:
    graph = positive("same")
    result = absorb_bias(graph, seen(graph))
    assert result.graph is graph
    assert dict(result.refused)["first"] == "the borders of last would miss what is moved into its bias"


def test_channels_that_touch_zero_keep_their_biases() -> None:
    graph = separable(ops.ReLU())
    result = absorb_bias(graph, seen(graph))
    assert result.graph is graph
    assert dict(result.refused)["depthwise"] == "no channel of it is always positive"


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no weights under {DATA}; set EDGECNN_TEST_DATA")
def test_mobilenet_keeps_its_function_on_photographs_that_were_not_seen() -> None:
    graph = registry.load("converters", "tflite").read(
        DATA / "weights/imagenet_tflite/mobilenet_v1_0.25_224_float.tflite"
    )
    graph = with_batch(deploy(graph).graph, None)
    paths = sorted((DATA / "imagenet_sample_500").glob("*.jpg"))[:24]
    images = np.stack([read_image(path, Contract(height=224, width=224)) for path in paths])
    result = equalize(graph, seen(graph, images[:16]))
    assert len(result.applied) > 15
    name = graph.nodes[-1].inputs[0]
    wanted, found = (execute(each, {each.inputs[0].name: images}, fetch=[name])[name] for each in (graph, result.graph))
    assert snr_db(wanted[:16], found[:16]) > 100
    assert snr_db(wanted[16:], found[16:]) > 30  # 16 images show few of the values that channels can have


def test_a_quantized_graph_is_not_equalized() -> None:
    from tests.quantized_graphs import quantized

    graph = quantized(separable(ops.ReLU()))
    with pytest.raises(UsageError, match="a float network was wanted to equalize; this one is quantized"):
        equalize(graph)
    with pytest.raises(UsageError, match="a float network was wanted to move biases"):
        absorb_bias(graph, Calibration.__new__(Calibration))
