"""Integer ports end to end: int8 and uint8 artifacts of every format, fed with pictures, and tflite-runtime's integers.

tflite-runtime 2.14 needs NumPy 1, so an environment of its own: $EDGECNN_TFLITE_RUNTIME_PYTHON names its interpreter.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgecnn import ops
from edgecnn.assume import first_guess
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn
from edgecnn.contract import Contract
from edgecnn.execute import execute
from edgecnn.feeding import artifact_exterior, load_feeds
from edgecnn.graph import Array, Graph, with_batch
from edgecnn.interfaces import SessionOptions
from edgecnn.passes.deploy import deploy
from edgecnn.quantization.parameters import per_tensor
from edgecnn.quantization.quantize import Quantized, Samples, quantize
from edgecnn.quantization.recipe import PortType, Recipe
from edgecnn.quantization.samples import image_batches
from edgecnn.registry import load
from edgecnn.source import Choices, load_source, target_for
from edgecnn.verify import run_batches, snr_db

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
RUNTIME = os.environ.get("EDGECNN_TFLITE_RUNTIME_PYTHON")
SUFFIXES = {"tflite": ".tflite", "onnx": ".onnx", "openvino": ".xml"}

SCALED = Contract(height=64, width=64)
IMAGENET = replace(SCALED, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
GREY = replace(SCALED, colour_order="GRAY", mean=(33.0,), std=(78.0,))
CONTRACTS = {"scaled": SCALED, "imagenet": IMAGENET, "grey": GREY}
ZEROS = {"scaled": 128, "imagenet": 114, "grey": 33}
"""Contract -> the pixel nearest to its mean."""

COST_DB = {"scaled": 1.5, "imagenet": 6.0, "grey": 1.5}
"""Contract -> what bytes may cost: a mean for each channel is not one pixel, which the borders are padded with."""


def separable(channels: int) -> Graph:
    """A small separable network on (1, 64, 64, channels) with biases: stem, depthwise, pointwise, mean, dense."""
    b, rng = GraphBuilder("small", initialise=he_normal(0)), np.random.default_rng(0)
    x = b.input("input", (1, 64, 64, channels))
    for name, groups, shape, stride in (
        ("stem", 1, (3, 3, channels, 16), 2),
        ("depthwise", 16, (3, 3, 1, 16), 1),
        ("pointwise", 1, (1, 1, 16, 32), 1),
        ("second", 1, (3, 3, 32, 32), 2),
    ):
        size = shape[0] * shape[1] * shape[2]
        kernel = b.constant(f"{name}/kernel", rng.normal(0, (2 / size) ** 0.5, shape).astype(np.float32))
        bias = b.constant(f"{name}/bias", rng.normal(0, 0.2, shape[3]).astype(np.float32))
        pads = ((shape[0] // 2, shape[0] // 2),) * 2
        conv = ops.Conv(stride=(stride,) * 2, padding=pads, dilation=(1, 1), groups=groups, activation=ops.ReLU6())
        x = b.node(name, conv, x, kernel, bias)
    x = b.node("mean", ops.Mean(axes=(1, 2)), x)
    kernel = b.constant("logits/kernel", rng.normal(0, 0.25, (32, 10)).astype(np.float32))
    return b.finish({"logits": b.node("logits", ops.Dense(), x, kernel)})


@cache
def network(contract: str) -> tuple[Graph, Mapping[str, Array]]:
    """Return the small network, and 16 photographs, preprocessed."""
    graph = replace(separable(CONTRACTS[contract].channels), contract=CONTRACTS[contract])
    return graph, load_feeds(graph, graph.contract, None, limit=16).values


@cache
def quantized(contract: str, io: PortType) -> Quantized:
    graph, images = network(contract)

    def batches(asked: Graph) -> list[Mapping[str, Array]]:
        return [images if asked.contract == graph.contract else raw_pixels(contract, images)]

    return quantize(graph, Recipe(io=io), Samples(batches=batches, origin="photographs"))


def raw_pixels(contract: str, images: Mapping[str, Array]) -> dict[str, Array]:
    """Return what an artifact of bytes is fed in real numbers: pixels less its zero point."""
    found = CONTRACTS[contract]
    (name,), (values,) = images.keys(), images.values()
    return {
        name: np.rint(values * np.asarray(found.std, np.float32) + np.asarray(found.mean, np.float32)) - ZEROS[contract]
    }


def fed(contract: str, io: PortType) -> Mapping[str, Array]:
    images = network(contract)[1]
    return raw_pixels(contract, images) if io == "uint8" else images


@pytest.mark.parametrize("contract", CONTRACTS)
def test_bytes_are_pixels_and_the_contract_says_so(contract: str) -> None:
    made = quantized(contract, "uint8").graph
    known, zero = made.tensors[made.inputs[0].tensor].quantization, ZEROS[contract]
    assert known == per_tensor(1.0, zero, "uint8")
    assert made.contract is not None
    assert (set(made.contract.mean), set(made.contract.std)) == ({zero}, {1.0})
    assert made.tensors[made.outputs[0].tensor].stored_dtype == "uint8"
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(known.quantize(pixels.astype(np.float32) - zero), pixels)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_integer_ports_cost_next_to_nothing(contract: str) -> None:
    graph, images = network(contract)
    exact = execute(graph, images)["logits"]
    types: tuple[PortType, ...] = ("float32", "int8", "uint8")
    found = {io: execute(quantized(contract, io).graph, fed(contract, io))["logits"] for io in types}
    snr = {io: snr_db(exact, values) for io, values in found.items()}
    assert snr["float32"] > 12
    assert snr["int8"] > snr["float32"] - 0.5
    assert snr["uint8"] > snr["float32"] - COST_DB[contract]
    np.testing.assert_array_equal(found["int8"].argmax(-1), found["float32"].argmax(-1))


@pytest.mark.parametrize("form", SUFFIXES)
@pytest.mark.parametrize("io", ["int8", "uint8"])
@pytest.mark.parametrize("contract", CONTRACTS)
def test_artifacts_take_and_give_the_integers(contract: str, io: PortType, form: str, tmp_path: Path) -> None:
    made = quantized(contract, io).graph
    path = tmp_path / f"model{SUFFIXES[form]}"
    load("converters", form).write(made, path)
    exterior = artifact_exterior(path, load("converters", form).default_layout)
    session = target_for(path, None).open(path, SessionOptions(threads=1))
    try:
        assert set(session.input_dtypes.values()) == {io}
        values = {name: each[:8] for name, each in fed(contract, io).items()}
        (found,) = run_batches(session, values, exterior).values()
        stored = {n: made.tensors[made.inputs[0].tensor].quantization.quantize(v) for n, v in values.items()}  # type: ignore[union-attr]
        (as_stored,) = run_batches(session, stored, exterior).values()
    finally:
        session.close()
    wanted = execute(made, values)["logits"]
    step = made.tensors[made.outputs[0].tensor].quantization
    assert step is not None
    np.testing.assert_array_equal(found, as_stored)
    assert np.abs(found - wanted).max() <= (0.5 if form != "openvino" else 2.5) * step.scale[0]


def compiled_kernels(path: Path) -> list[str]:
    """Return the kernels that OpenVINO chose for convolutions and dense layers."""
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [node.rt_info for node in model.get_runtime_model().get_ops()]
    layers = [i for i in infos if i["layerType"].astype(str) in ("Convolution", "FullyConnected")]
    return [str(info["primitiveType"].astype(str)) for info in layers]


@pytest.mark.parametrize("io", ["int8", "uint8"])
@pytest.mark.parametrize("contract", CONTRACTS)
def test_openvino_computes_every_layer_in_integers_the_first_too(contract: str, io: PortType, tmp_path: Path) -> None:
    load("converters", "openvino").write(quantized(contract, io).graph, tmp_path / "model.xml")
    kernels = compiled_kernels(tmp_path / "model.xml")
    assert len(kernels) == 5
    assert [each for each in kernels if not each.upper().endswith("_I8")] == []


@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
def test_onnxruntime_fuses_every_layer(io: PortType, tmp_path: Path) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    load("converters", "onnx").write(quantized("imagenet", io).graph, tmp_path / "model.onnx")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    runtime.InferenceSession(str(tmp_path / "model.onnx"), settings, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] + kinds["QGemm"] == 5
    assert not kinds.keys() & {"Conv", "FusedConv", "Gemm", "MatMul", "Relu", "Clip", "GlobalAveragePool"}
    pairs = {"float32": (1, 1), "int8": (2, 2), "uint8": (0, 0)}[io]
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == pairs


def two_headed(*, first: ops.Op | None = None) -> tuple[Graph, Mapping[str, Array]]:
    """Boxes up to 20 and scores, joined in one output, and features in another, behind an operator of one's choice."""
    b = GraphBuilder("detector", initialise=he_normal(0))
    x = b.input("image", (1, 16, 16, 3))
    source = x if first is None else b.node("first", first, x, b.constant("half", np.full((), 127.5, np.float32)))
    conv = ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)
    rng = np.random.default_rng(0)
    kernels = {name: rng.normal(0, 1 / 3, (1, 1, 3, n)).astype(np.float32) for name, n in (("box", 4), ("score", 6))}
    box, score = (b.node(n, conv, source, b.constant(f"{n}/kernel", k)) for n, k in kernels.items())
    wide = b.node("wide", ops.Mul(), box, b.constant("wide/by", np.full((), 20, np.float32)))
    scores = b.node("scores", ops.Sigmoid(), score)
    joined = b.node("joined", ops.Concat(axis=3), wide, scores)
    graph = replace(b.finish({"joined": joined, "features": score}), contract=Contract(height=16, width=16))
    return graph, {"image": np.random.default_rng(1).uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)}


def of_two_heads(io: PortType, graph: Graph, images: Mapping[str, Array]) -> Quantized:
    return quantize(graph, Recipe(io=io, bias_correction="none"), Samples(batches=lambda _: [images], origin="test"))


def test_each_output_has_integers_of_its_own_and_what_they_cannot_hold_is_said() -> None:
    graph, images = two_headed()
    made = of_two_heads("int8", graph, images)
    known = {port.name: made.graph.tensors[port.tensor].quantization for port in made.graph.outputs}
    assert known["joined"] is not None
    assert known["features"] is not None
    assert known["joined"].scale[0] > 4 * known["features"].scale[0]
    (repair,) = [each for each in made.repairs if each.name == "separate_ranges"]
    assert (repair.nodes, [node for node, _ in repair.refused]) == ((), ["joined"])
    assert "an integer output has one scale" in repair.refused[0][1]
    in_float = of_two_heads("float32", graph, images)
    assert [each.nodes for each in in_float.repairs if each.name == "separate_ranges"] == [("scores", "joined")]


def test_raw_pixels_may_be_read_by_anything() -> None:
    raw = Contract(height=16, width=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    graph, images = two_headed(first=ops.Sub())
    pixels = {"image": np.rint(images["image"] * 127.5 + 127.5)}
    made = of_two_heads("uint8", replace(graph, contract=raw), pixels).graph
    assert made.tensors[made.inputs[0].tensor].quantization == per_tensor(1.0, 0, "uint8")


@pytest.mark.parametrize("deviation", [0.5, 1.0, 4.0])
def test_hard_swish_is_spelled_with_sums_and_products_and_loses_next_to_nothing(deviation: float) -> None:
    b = GraphBuilder("gate", initialise=he_normal(0))
    graph = b.finish({"y": b.node("y", ops.HardSwish(), b.input("x", (1, 16, 16, 8)))})
    values = {"x": np.random.default_rng(0).normal(0, deviation, (8, 16, 16, 8)).astype(np.float32)}
    made = quantize(graph, Recipe(io="int8"), Samples(batches=lambda _: [values], origin="test"))
    assert made.graph.kinds() == {"Add": 1, "Mul": 2}
    np.testing.assert_allclose(execute(made.reference, values)["y"], execute(graph, values)["y"], atol=1e-6)
    known = made.graph.tensors["x"].quantization
    assert known is not None
    rounded = {"x": known.dequantize(known.quantize(values["x"]))}
    assert snr_db(execute(graph, rounded)["y"], execute(made.graph, values)["y"]) > 38.5  # one rounding alone: 39 to 45


def test_a_user_runs_and_measures_an_artifact_of_bytes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    data = tmp_path / "data"
    for number, values in enumerate(raw_pixels("scaled", network("scaled")[1])["input"] + ZEROS["scaled"]):
        (data / str(number % 2)).mkdir(parents=True, exist_ok=True)
        image.fromarray(values.astype(np.uint8)).save(data / str(number % 2) / f"{number}.png")
    source, artifact = tmp_path / "model.onnx", tmp_path / "out" / "model_static_w8_a8.tflite"
    load("converters", "onnx").write(network("scaled")[0], source)
    picture = str(next(data.rglob("*.png")))
    for command in (
        ["quantize", str(source), "--to", "tflite", "--io", "uint8", "--data", str(data), "-o", str(artifact.parent)],
        ["verify", str(source), str(artifact), "--data", str(data)],
        ["evaluate", str(artifact), "--data", str(data)],
        ["run", str(artifact), picture],
        ["bench", str(artifact), "--data", str(data)],
    ):
        result = CliRunner().invoke(edgecnn, [*command])
        assert result.exit_code == 0, (command[0], result.output, result.exception)


INTERPRET = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter, OpResolverType
kernels = {"reference": OpResolverType.BUILTIN_REF, "default": OpResolverType.AUTO}[sys.argv[4]]
interpreter = Interpreter(sys.argv[1], experimental_op_resolver_type=kernels, num_threads=1)
interpreter.allocate_tensors()
(source,), (first, *_) = interpreter.get_input_details(), interpreter.get_output_details()
found = []
for image in np.load(sys.argv[2]):
    interpreter.set_tensor(source["index"], image[None])
    interpreter.invoke()
    found.append(interpreter.get_tensor(first["index"])[0])
np.save(sys.argv[3], np.stack(found))
"""

WEIGHTS: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = {
    "mobilenet_v1": ("imagenet_tflite/mobilenet_v1_0.25_224_float.tflite", (127.5,) * 3, (127.5,) * 3),
    "resnet8": ("mlperf_tiny/pretrainedResnet.tflite", (0.0,) * 3, (1.0,) * 3),
    "vww": ("mlperf_tiny/vww_96_float.tflite", (0.0,) * 3, (255.0,) * 3),
    "lenet": ("lenet_mnist/lenet_mnist.onnx", (0.0,), (256.0,)),
    "resnet20": ("resnet_cifar10/resnet20_cifar10.onnx", IMAGENET.mean, IMAGENET.std),
    "mobilefacenet": ("face/mobilefacenet_112.onnx", (0.0,) * 3, (1.0,) * 3),
    "yolox": ("detection_coco/yolox_nano.onnx", (0.0,) * 3, (1.0,) * 3),
    "deeplab": ("segmentation_voc/deeplabv3.tflite", (127.5,) * 3, (127.5,) * 3),
}

DENSE_END = ("lenet", "mobilefacenet")
"""Their last layer is dense and not followed by what hides a step: 2.14 rounds it twice, LiteRT and `execute` once."""


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(RUNTIME is None, reason="$EDGECNN_TFLITE_RUNTIME_PYTHON names no interpreter with tflite-runtime")
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no weights in {DATA}")
@pytest.mark.parametrize("name", WEIGHTS)
def test_tflite_runtime_gives_the_fixed_point_integers(name: str, tmp_path: Path) -> None:
    path, mean, std = WEIGHTS[name]
    graph = deploy(with_batch(load_source(str(DATA / "weights" / path), Choices()).graph, 1)).graph
    contract = replace(graph.contract or first_guess(graph) or Contract(height=1, width=1), mean=mean, std=std)
    graph, port, photographs = replace(graph, contract=contract), graph.inputs[0].name, DATA / "imagenet_sample_500"
    samples = Samples(batches=lambda g: image_batches(photographs, contract, port=port, limit=32), origin="photographs")
    made = quantize(graph, Recipe(io="int8", bias_correction="none"), samples).graph
    images = next(iter(image_batches(photographs, contract, port=port, limit=4)))[port]
    known = made.tensors[made.inputs[0].tensor].quantization
    assert known is not None
    load("converters", "tflite").write(made, tmp_path / "model.tflite")
    np.save(tmp_path / "x.npy", known.quantize(images))
    wanted = execute(with_batch(made, None), {port: images}, rounding="fixed_point", stored=True)[made.outputs[0].name]
    files = [str(tmp_path / file) for file in ("model.tflite", "x.npy", "y.npy")]
    subprocess.run([str(RUNTIME), "-c", INTERPRET, *files, "reference"], check=True, timeout=600)
    steps = np.abs(np.load(tmp_path / "y.npy").astype(int) - wanted)
    if name in DENSE_END:
        assert (steps.max() <= 1, np.mean(steps == 0) > 0.95) == (True, True)
    else:
        assert steps.max() == 0
