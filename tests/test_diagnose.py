"""Diagnose: each cause on a network that has it, none where there is none, and predictions against measurements."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn
from edgecnn.contract import assumed_contract
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.models.build import ZooOptions, build
from edgecnn.passes.deploy import deploy
from edgecnn.passes.store_float16 import store_float16
from edgecnn.quantization.diagnose import CAUSES, OF_TRAINED, diagnose, examine
from edgecnn.quantization.finding import Finding
from edgecnn.quantization.layer_errors import layer_errors
from edgecnn.quantization.predicted_moments import predicted_moments
from edgecnn.quantization.quantize import Samples, quantize
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.samples import image_batches
from edgecnn.source import load_source
from tests.graphs import GRAPHS, Make, image_graph

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
WEIGHTS = DATA / "weights"

needs_data = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the shared data are not here")


def kernel_of(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Weights of a spread that no initialiser has."""
    return 0.37 * he_normal(seed)("kernel", shape)


def convolved(b: GraphBuilder, x: str, kernel: Array, name: str = "layer", *, bias: Array | None = None) -> str:
    """A convolution of stride 1 with these weights (height, width, in, out), depthwise where in is 1."""
    channels = b.shape(x)[-1] or 0
    reach = kernel.shape[0] // 2
    op = ops.Conv(stride=(1, 1), padding=((reach, reach),) * 2, dilation=(1, 1), groups=channels // kernel.shape[-2])
    extra = () if bias is None else (b.constant(f"{name}/bias", bias),)
    return b.node(name, op, x, b.constant(f"{name}/kernel", kernel.astype(np.float32)), *extra)


def spread_depthwise(b: GraphBuilder, x: str) -> str:
    kernel = kernel_of((3, 3, 1, 16))
    kernel[..., 0] *= 100
    x = b.node("rectified", ops.ReLU6(), convolved(b, x, kernel_of((1, 1, 4, 16)), "before"))
    return convolved(b, x, kernel)


def found(graph: Graph, cause: str, **options: object) -> Finding | None:
    """The finding of this cause, if there is one."""
    return next((each for each in diagnose(graph, **options) if each.cause == cause), None)  # type: ignore[arg-type]


def with_outlier(b: GraphBuilder, x: str) -> str:
    kernel = kernel_of((3, 3, 128, 8))
    kernel[0, 0, 0, 3] = 60 * kernel.std()
    return convolved(b, convolved(b, x, kernel_of((1, 1, 4, 128)), "before"), kernel)


def with_dead_channels(b: GraphBuilder, x: str) -> str:
    kernel = kernel_of((3, 3, 4, 8))
    kernel[..., [1, 5]] = 0
    return convolved(b, x, kernel)


def with_high_bias(b: GraphBuilder, x: str) -> str:
    bias = np.zeros(8, np.float32)
    bias[2] = 500
    return convolved(b, x, kernel_of((3, 3, 4, 8)), bias=bias)


def unfolded(b: GraphBuilder, x: str) -> str:
    numbers = {"gamma": 2, "beta": 1, "mean": 0, "variance": 4}
    scale = [b.constant(name, np.full(4, number, np.float32)) for name, number in numbers.items()]
    return b.node("layer", ops.BatchNorm(), b.node("softened", ops.Tanh(), x), *scale)


def unlike_parts(b: GraphBuilder, x: str) -> str:
    boxes = convolved(b, x, 40 * kernel_of((1, 1, 4, 4)), "boxes")
    scores = b.node("scores", ops.Sigmoid(), convolved(b, x, kernel_of((1, 1, 4, 4), 1), "scored"))
    return b.node("layer", ops.Concat(axis=3), boxes, scores)


def unlike_parts_inside(b: GraphBuilder, x: str) -> str:
    return convolved(b, unlike_parts(b, x), kernel_of((1, 1, 8, 3)), "after")


def unlike_sum(b: GraphBuilder, x: str) -> str:
    wide, narrow = (convolved(b, x, size * kernel_of((1, 1, 4, 4)), name) for name, size in (("wide", 90), ("n", 1)))
    return b.node("layer", ops.Add(), wide, narrow)


def padded_far(b: GraphBuilder, x: str) -> str:
    op = ops.Pad(padding=((0, 0), (1, 1), (1, 1), (0, 0)), value=-1e4)
    return b.node(
        "pooled", ops.MaxPool(kernel_size=(3, 3), stride=(1, 1), padding=((0, 0),) * 2), b.node("layer", op, x)
    )


def broken(b: GraphBuilder, x: str) -> str:
    kernel = kernel_of((3, 3, 4, 8))
    kernel[0, 0, 0, 0] = np.nan
    x = convolved(b, x, kernel)
    return b.node("normal", ops.BatchNorm(), x, *(b.constant(name, np.ones(8, np.float32)) for name in "gbmv"))


def swished(b: GraphBuilder, x: str) -> str:
    return b.node("layer", ops.Swish(), convolved(b, x, 30 * kernel_of((3, 3, 4, 8)), "before"))


def transposed(b: GraphBuilder, x: str) -> str:
    op = ops.ConvTranspose(stride=(2, 2), padding=((0, 0),) * 2, dilation=(1, 1), output_padding=(0, 0))
    return b.node("layer", op, x, b.constant("kernel", kernel_of((3, 3, 4, 4))))


def large_sum(b: GraphBuilder, x: str) -> str:
    positive = b.node("positive", ops.ReLU(), convolved(b, x, 5e4 * kernel_of((1, 1, 4, 4)), "before"))
    return b.node("layer", ops.Sum(axes=(1, 2)), positive)


def exponential(b: GraphBuilder, x: str) -> str:
    return b.node("layer", ops.Exp(), convolved(b, x, kernel_of((1, 1, 4, 4)), "before"))


def gelu(b: GraphBuilder, x: str) -> str:
    return b.node("layer", ops.GELU(), convolved(b, x, kernel_of((1, 1, 4, 4)), "before"))


def resized(b: GraphBuilder, x: str) -> str:
    return b.node("layer", ops.Resize(size=(27, 24), method="bilinear"), x)


def ended(b: GraphBuilder, x: str) -> str:
    return b.node("layer", ops.Softmax(), b.node("mean", ops.Mean(axes=(1, 2)), x))


ROWS: dict[str, tuple[Make, str, str, str]] = {
    "channels of unlike weights": (spread_depthwise, "layer", "worth knowing", "--scales channel"),
    "weights that are no numbers": (broken, "layer", "will fail", "train"),
    "outlier weights": (with_outlier, "layer", "worth knowing", "--layer 'layer=float32'"),
    "dead channels": (with_dead_channels, "layer", "worth knowing", "none is needed"),
    "large biases": (with_high_bias, "layer", "worth knowing", "--layer 'layer=float32'"),
    "BatchNorm on its own": (unfolded, "layer", "worth knowing", "before training"),
    "unlike outputs in one tensor": (unlike_parts, "layer", "worth knowing", "--separate-ranges"),
    "concatenation of unlike ranges": (unlike_parts_inside, "layer", "will lose accuracy", "--layer 'layer=float32'"),
    "sums of unlike ranges": (unlike_sum, "layer", "worth knowing", "ReLU6"),
    "padding outside the range": (padded_far, "layer", "will fail", "--layer 'layer=float32'"),
    "Swish: a lobe of few steps": (swished, "layer", "worth knowing", "--recipe static_w8_a16"),
    "transposed convolutions": (transposed, "layer", "worth knowing", "verify"),
    "float16 overflow on GPUs and NPUs": (large_sum, "layer", "will fail", "float32"),
    "operators that stay float": (exponential, "layer", "worth knowing", "--outputs"),
    "int8 outside XNNPACK": (gelu, "layer", "worth knowing", "edgecnn bench"),
    "int8 outside Ethos-U": (resized, "layer", "worth knowing", "--io int8"),
    "probabilities at the output": (ended, "layer", "worth knowing", "--outputs mean"),
}
"""Cause -> (what has it, the layer that is named first, severity, part of the remedy)."""


@pytest.mark.parametrize("cause", ROWS)
def test_each_cause_is_found_where_it_is(cause: str) -> None:
    make, layer, severity, remedy = ROWS[cause]
    finding = found(image_graph(make), cause)
    assert finding is not None, [each.cause for each in diagnose(image_graph(make))]
    assert (finding.victims[0].node, finding.severity) == (layer, severity)
    assert remedy in finding.remedy


def plain(b: GraphBuilder, x: str) -> str:
    x = b.node("rectified", ops.ReLU6(), convolved(b, x, kernel_of((3, 3, 4, 16)), "first"))
    return convolved(b, x, kernel_of((3, 3, 16, 8), 1), "second")


def test_a_network_without_a_cause_has_no_finding() -> None:
    assert diagnose(image_graph(plain)) == ()


@pytest.mark.parametrize("name", GRAPHS)
def test_no_operator_stops_a_diagnosis(name: str) -> None:
    findings = diagnose(GRAPHS[name])
    nodes = {node.name for node in examine(GRAPHS[name]).prepared.nodes} | {port.name for port in GRAPHS[name].inputs}
    nodes |= {node.name for node in GRAPHS[name].nodes}
    assert {victim.node for finding in findings for victim in finding.victims} <= nodes


def test_the_worst_comes_first_and_one_scale_for_a_kernel_is_worse() -> None:
    graph = image_graph(spread_depthwise)
    findings = diagnose(graph, scales="tensor")
    order = ["will fail", "will lose accuracy", "worth knowing"]
    places = [order.index(each.severity) for each in findings]
    assert places == sorted(places)
    spread = found(graph, "one scale for unlike channels", scales="tensor")
    assert spread is not None
    assert spread.severity != "worth knowing"
    assert spread.remedy.startswith("--scales channel")
    assert found(graph, "channels of unlike weights", scales="tensor") is None


def test_fresh_weights_are_seen_and_nothing_is_predicted_from_them() -> None:
    fresh = build("mobilenet_v3_small", ZooOptions(resolution=64, classes=10))
    causes = [each.cause for each in diagnose(fresh, is_zoo=True)]
    assert causes[0] == "random weights"
    assert "many errors add up" not in causes
    assert {"squeeze-excite", "HardSwish has no upper bound"} <= set(causes)
    assert found(image_graph(plain), "random weights") is None


def test_an_npu_safe_network_is_what_its_remedy_promises() -> None:
    options = ZooOptions(resolution=64, classes=10)
    unsafe = build("mobilenet_v3_small", options)
    named = [each.cause for each in diagnose(unsafe, is_zoo=True) if "--npu-safe" in each.remedy]
    safe = diagnose(build("mobilenet_v3_small", replace(options, npu_safe=True)), is_zoo=True)
    assert named
    assert not set(named) & {each.cause for each in safe}


def test_float16_weights_are_named() -> None:
    finding = found(store_float16(image_graph(plain)), "float16 already")
    assert finding is not None
    assert len(finding.victims) == 2


def test_a_quantized_network_is_said_to_be_one() -> None:
    graph = deploy(image_graph(plain)).graph
    feeds = {"image": np.random.default_rng(0).standard_normal((2, 9, 8, 4), dtype=np.float32)}
    recipe = Recipe(bias_correction="none")
    quantized = quantize(graph, recipe, Samples(batches=lambda _: [feeds], origin="numbers", is_random=True)).graph
    (finding,) = diagnose(quantized)
    assert (finding.cause, finding.victims[0].figure) == ("quantized already", "static_w8_a8")


def test_batch_norm_says_what_its_output_is_like() -> None:
    b = GraphBuilder("tried", initialise=he_normal(1))
    x = b.conv(b.input("image", (1, 8, 8, 3)), "layer", 4, kernel_size=3)
    numbers = {"gamma": (1, 2, 3, 4), "beta": (0, 1, -1, 9), "mean": (5, 5, 5, 5), "variance": (1, 1, 1, 0)}
    names = [b.constant(name, np.array(each, np.float32)) for name, each in numbers.items()]
    x = b.node("normal", ops.BatchNorm(epsilon=1e-9), x, *names)
    graph = b.finish({"result": b.node("rectified", ops.ReLU(), x)})
    moments = predicted_moments(graph, deploy(graph).graph)["rectified"]
    half = np.sqrt(1 / (2 * np.pi))  # mean of max(z, 0)
    assert moments.mean[0] == pytest.approx(half, rel=3e-3)
    assert moments.variance[0] == pytest.approx(0.5 - half**2, rel=1e-2)
    assert moments.zeros[0] == pytest.approx(0.5, abs=0.03)  # type: ignore[index]
    assert (moments.mean[3], moments.variance[3]) == pytest.approx((9, 0))  # a channel that died in training


def test_gaussian_noise_has_the_moments_that_are_predicted() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        first = b.node("first", ops.HardSwish(), convolved(b, x, kernel_of((1, 1, 4, 32)), "c"))
        return b.node("sum", ops.Add(), first, convolved(b, x, kernel_of((1, 1, 4, 32), 1), "d"))

    graph = image_graph(make, (1, 64, 64, 4))
    expected = predicted_moments(graph, graph)
    x = np.random.default_rng(0).normal(expected["image"].mean, np.sqrt(expected["image"].variance), (1, 64, 64, 4))
    inner = execute(graph, {"image": x.astype(np.float32)}, fetch=["c", "first"])
    for name in ("c", "first"):
        rows = inner[name].reshape(-1, 32)
        assert rows.mean(axis=0) == pytest.approx(expected[name].mean, abs=0.1 * float(rows.std()))
        assert rows.var(axis=0) == pytest.approx(expected[name].variance, rel=0.15)
        assert (rows >= expected[name].low - 1e-5).all()
        assert (rows <= expected[name].high + 1e-5).all()


@needs_data
def test_the_collapse_of_mobilenet_is_foretold() -> None:
    graph = load_source(str(WEIGHTS / "imagenet_tflite" / "mobilenet_v1_0.25_224_float.tflite")).graph
    per_tensor = diagnose(graph, scales="tensor")
    assert (per_tensor[0].severity, per_tensor[0].cause) == ("will fail", "one scale for unlike channels")
    assert [victim.node.split("/")[2] for victim in per_tensor[0].victims] == [
        "Conv2d_2_depthwise",
        "Conv2d_1_depthwise",
    ]
    assert {each.severity for each in diagnose(graph)} == {"worth knowing"}
    assert found(graph, "rounded weights shift means") is not None


@needs_data
@pytest.mark.parametrize(
    ("file", "victims"),
    [
        ("face/mobilefacenet_112.onnx", {"Conv_144", "PRelu_143", "Conv_141"}),
        ("resnet_cifar10/resnet20_cifar10.onnx", set()),
    ],
)
def test_predicted_victims_are_the_measured_ones(file: str, victims: set[str]) -> None:
    """The lowest figures that layer_errors measured on photographs: 5, 16 and 18 dB of 97 layers; none below 26 dB."""
    findings = diagnose(load_source(str(WEIGHTS / file)).graph)
    named = {v.node for each in findings if each.severity != "worth knowing" for v in each.victims[:3]}
    assert victims <= named
    remedies = [each.remedy for each in findings if each.cause == "channels of unlike ranges share a scale"]
    assert all(f"'{layer}=float32'" in remedy for layer in victims for remedy in remedies)
    assert bool(victims) == bool(named)


@needs_data
def test_predicted_errors_agree_with_measured_ones() -> None:
    graph = load_source(str(WEIGHTS / "mlperf_tiny" / "vww_96.h5")).graph
    graph = replace(graph, contract=replace(assumed_contract(96, 96, 3), mean=(0.0,) * 3, std=(255.0,) * 3))
    examined = examine(graph, scales="tensor")
    batches = image_batches(DATA / "coco128_train" / "images", examined.graph.contract, port="input_1", limit=8)  # type: ignore[arg-type]
    made = quantize(
        examined.graph,
        Recipe(scales="tensor", bias_correction="none", rounding="nearest", equalize_activations=False),
        Samples(batches=lambda _: batches, origin="photographs"),
    )
    inputs = {"input_1": np.concatenate([batch["input_1"] for batch in batches])}
    measured = [each for each in layer_errors(made.reference, made.graph, inputs) if each.node in examined.errors]
    pairs = np.array([(each.own_snr_db, examined.errors[each.node].snr_db) for each in measured])
    measured_ranks, predicted_ranks = pairs.argsort(axis=0).argsort(axis=0).T
    assert float(np.corrcoef(measured_ranks, predicted_ranks)[0][1]) > 0.7  # 0.84 on 24 images
    assert abs(float(np.diff(pairs).mean())) < 4  # dB


@needs_data
def test_the_range_of_pixels_is_found_where_no_contract_says_it() -> None:
    files = {"detection_coco/yolox_nano.onnx": 255.0, "imagenet_tflite/mobilenet_v1_0.25_224_float.tflite": 1.0}
    for file, high in files.items():
        contract = examine(load_source(str(WEIGHTS / file)).graph).graph.contract
        assert contract is not None
        assert contract.input_range[1] == high


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    arguments = ["diagnose", "mobilenet_v3_small", "--resolution", "64", "--classes", "10"]
    table = CliRunner().invoke(edgecnn, arguments)
    assert table.exit_code == 0, table.output
    assert "1  worth knowing  random weights" in table.stdout
    assert "and 6 more; --all lists them" in table.stdout
    whole = CliRunner().invoke(edgecnn, [*arguments, "--all"])
    assert "more; --all" not in whole.stdout
    data = json.loads(CliRunner().invoke(edgecnn, [*arguments, "--json"]).stdout)
    gates = next(each for each in data["findings"] if each["cause"] == "squeeze-excite")
    assert len(gates["victims"]) == 9
    assert gates["remedy"].startswith("--npu-safe")


def test_every_cause_says_what_it_is_for() -> None:
    assert all(cause.__doc__ for cause in CAUSES)
    assert len(set(CAUSES)) == len(CAUSES)
    assert set(OF_TRAINED) <= set(CAUSES)
