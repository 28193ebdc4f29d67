"""`edgecnn inspect`: every format is listed, also what cannot be converted, and two models are told apart."""

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn
from edgecnn.difference import difference
from edgecnn.errors import CheckFailedError, InputFileError, NotThereError, UsageError
from edgecnn.graph import Graph, with_batch
from edgecnn.inspection import inspect
from edgecnn.interfaces import Lister, Listing
from edgecnn.models.build import build
from edgecnn.passes.deploy import deploy
from edgecnn.passes.explicit_quantization import drop_implied_clamps
from edgecnn.passes.store_float16 import store_float16
from edgecnn.passes.unsigned_activations import unsigned_activations
from edgecnn.quantization.parameters import per_tensor
from tests.quantized_graphs import GRAPHS

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs the folder shared/data (or $EDGECNN_TEST_DATA)")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(edgecnn, ["inspect", *map(str, arguments)])


def as_json(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["schema_version"] == 1
    return found


def lenet5(folder: Path, form: str, *, half: bool = False) -> Path:
    graph = deploy(with_batch(build("lenet5"), 1)).graph
    writer = registry.load("converters", form)
    path = folder / f"lenet5{writer.suffix}"
    writer.write(store_float16(graph) if half else graph, path)
    return path


def test_every_built_in_format_lists() -> None:
    assert all(isinstance(registry.load("converters", name), Lister) for name in registry.entries("converters"))


@pytest.mark.parametrize(
    ("form", "package", "operators", "shape"),
    [
        (
            "tflite",
            "ai_edge_litert",
            {"CONV_2D": 2, "MAX_POOL_2D": 2, "FULLY_CONNECTED": 3, "RESHAPE": 1},
            [1, 32, 32, 1],
        ),
        ("onnx", "onnx", {"Conv": 2, "MaxPool": 2, "Gemm": 3, "Relu": 4}, [1, 1, 32, 32]),
        ("openvino", "xml", {"Convolution": 2, "MaxPool": 2, "MatMul": 3, "Add": 5}, [1, 1, 32, 32]),
    ],
)
def test_a_written_file_is_listed(
    form: str, package: str, operators: dict[str, int], shape: list[int], tmp_path: Path
) -> None:
    pytest.importorskip(package)
    found = as_json(lenet5(tmp_path, form))
    assert found["format"] == form
    assert operators.items() <= found["operators"].items()
    assert [(port["name"], port["shape"], port["dtype"]) for port in found["inputs"]] == [("image", shape, "float32")]
    assert found["inputs"][0]["layout"] == ("NHWC" if form == "tflite" else "NCHW")
    assert [(port["name"], port["shape"]) for port in found["outputs"]] == [("logits", [1, 10])]
    assert found["size_bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert 61_706 * 4 <= found["constant_bytes"]["float32"] < 61_706 * 4 + 100
    assert (found["contract"]["height"], found["refusal"]) == (32, "")
    assert found["graph"]["macs"] == 416_520
    assert found["graph"]["deployed"] == 61_706
    assert (found["graph"]["unknown"], found["graph"]["transposes"]) == ({}, 0)


@pytest.mark.parametrize(("form", "package"), [("tflite", "ai_edge_litert"), ("onnx", "onnx"), ("openvino", "xml")])
def test_half_stored_constants_are_seen(form: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    found = as_json(lenet5(tmp_path, form, half=True))
    assert 61_706 * 2 <= found["constant_bytes"]["float16"] < 61_706 * 2 + 100


def test_a_zoo_name_is_inspected_without_a_file() -> None:
    found = as_json("mobilenet_v2", "--width", "0.35", "--resolution", "96", "--nodes")
    assert (found["format"], found["files"], found["operators"]) == ("zoo", {}, {})
    assert found["graph"]["operators"]["Conv"] == 52
    assert len(found["nodes"]) == sum(found["graph"]["operators"].values())
    assert found["nodes"][0]["inputs"][0] == "image"


def test_people_read_a_table(tmp_path: Path) -> None:
    result = run(lenet5(tmp_path, "openvino"), "--nodes")
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert "MACs for one image      416,520" in lines
    assert any(line.split() == ["input", "image", "1x1x32x32", "float32", "NCHW"] for line in lines)
    assert any(line.startswith("contract                32x32 GRAY in -1..1") for line in lines)


@needs_data
@pytest.mark.parametrize(
    ("name", "package", "operators", "dtype"),
    [
        ("mlperf_tiny/vww_96_int8.tflite", "ai_edge_litert", {"CONV_2D": 14, "DEPTHWISE_CONV_2D": 13}, "int8"),
        ("imagenet_onnx/mobilenet_v2_quant.onnx", "onnx", {"QLinearConv": 52, "com.microsoft.QLinearAdd": 11}, "uint8"),
    ],
)
def test_a_quantized_file_is_listed_and_can_be_converted(
    name: str, package: str, operators: dict[str, int], dtype: str
) -> None:
    pytest.importorskip(package)
    found = as_json(DATA / "weights" / name)
    assert operators.items() <= found["operators"].items()
    assert dtype in found["tensors"]
    assert found["refusal"] == ""


@needs_data
@pytest.mark.parametrize(
    ("name", "operators", "reason"),
    [
        ("model_invoking_error.tflite", {"fake-op-double": 1}, "fake-op-double"),
        ("person_detect.tflite", {"CONV_2D": 14}, "one scale for each channel of axis 3 of (8,) was wanted"),
    ],
)
def test_what_cannot_be_converted_is_listed_with_the_reason(name: str, operators: dict[str, int], reason: str) -> None:
    pytest.importorskip("ai_edge_litert")
    path = DATA / "weights/negative_fixtures" / name
    found = as_json(path)
    assert operators.items() <= found["operators"].items()
    assert reason in found["refusal"]
    assert "cannot be converted: " in run(path).stdout


@needs_data
def test_quantized_ports_show_scale_and_zero_point() -> None:
    pytest.importorskip("ai_edge_litert")
    (port,) = as_json(DATA / "weights/mlperf_tiny/vww_96_int8.tflite")["inputs"]
    assert (port["shape"], port["dtype"], port["zero_point"]) == ([None, 96, 96, 3], "int8", -128)
    assert port["scale"] == pytest.approx(1 / 255)


@needs_data
def test_a_keras_2_file_is_listed_layer_by_layer() -> None:
    pytest.importorskip("h5py")
    found = as_json(DATA / "weights/mlperf_tiny/vww_96.h5")
    assert found["facts"] == {"keras version": "2.4.0", "model": "Functional", "name": "model"}
    assert found["operators"]["DepthwiseConv2D"] == 13
    assert found["outputs"][0]["shape"] == [None, 2]
    assert (found["tensors"], found["graph"]["macs"]) == ({"float32": 164}, 7_489_664)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml", ".keras", ".h5"])
@pytest.mark.parametrize("content", [b"", b"nothing that any format knows", bytes(64)])
def test_damaged_files_are_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    for package in ("ai_edge_litert", "onnx", "h5py"):
        pytest.importorskip(package)
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match="wanted"):
        inspect(str(path))


@pytest.mark.parametrize("form", ["tflite", "onnx", "openvino"])
def test_a_file_cut_anywhere_ends_in_an_input_file_error_or_a_listing(form: str, tmp_path: Path) -> None:
    for package in ("ai_edge_litert", "onnx"):
        pytest.importorskip(package)
    path = lenet5(tmp_path, form)
    whole, rng, lister = path.read_bytes(), np.random.default_rng(5), registry.load("converters", form)
    for _ in range(60):
        damaged = bytearray(whole[: int(rng.integers(len(whole)))])
        for _ in range(int(rng.integers(4)) if damaged else 0):
            damaged[int(rng.integers(min(len(damaged), 4096)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        with suppress(InputFileError):
            assert isinstance(lister.listing(path), Listing)


def test_what_is_asked_wrongly_is_refused(tmp_path: Path) -> None:
    for arguments in (["lenet5", "lenet5"], ["lenet5", "--diff"], ["lenet5", "--exit-code"]):
        assert isinstance(run(*arguments).exception, UsageError)
    assert isinstance(run(tmp_path / "no.tflite").exception, NotThereError)


def test_the_same_model_in_two_formats_is_identical(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    a, b = lenet5(tmp_path, "openvino"), lenet5(tmp_path, "onnx")
    result = run("--diff", a, b, "--exit-code")
    assert (result.exit_code, result.stdout) == (0, "identical: 8 nodes, 10 constants\n")
    assert as_json("--diff", "lenet5", a)["identical"]


def test_a_difference_exits_with_1_only_when_asked(tmp_path: Path) -> None:
    path = lenet5(tmp_path, "openvino")
    assert run("--diff", "lenet5", path, "--classes", "7").exit_code == 0
    assert isinstance(run("--diff", "lenet5", path, "--classes", "7", "--exit-code").exception, CheckFailedError)


def tiny(*, width: int = 4, stride: int = 1, extra: bool = False, name: str = "first") -> Graph:
    b = GraphBuilder("tiny", initialise=he_normal(0))
    x = b.conv(b.input("image", (1, 8, 8, 3)), name, width, kernel_size=3, stride=stride, use_bias=True)
    x = b.node("tanh", ops.Tanh(), x) if extra else x
    return b.finish({"y": b.conv(x, "last", 2, kernel_size=1)})


def test_equal_graphs_do_not_differ() -> None:
    found = difference(tiny(), tiny())
    assert found.is_identical
    assert (found.nodes, found.constants) == (2, 3)


def test_a_changed_attribute_and_the_shapes_that_follow_are_told() -> None:
    found = difference(tiny(), tiny(stride=2))
    told = [(change.where, change.what, change.a, change.b) for change in found.changes]
    assert ("first", "stride", "(1, 1)", "(2, 2)") in told
    assert ("output 0", "shape", "1x8x8x2", "1x4x4x2") in told
    assert not found.values
    assert not found.removed


def test_an_added_node_is_told_and_the_new_wiring() -> None:
    found = difference(tiny(), tiny(extra=True))
    assert (found.added, found.removed) == ((("tanh", "Tanh"),), ())
    assert [(c.where, c.what, c.a, c.b) for c in found.changes] == [("last", "input 0", "first", "tanh")]
    assert difference(tiny(extra=True), tiny()).removed == (("tanh", "Tanh"),)


def test_a_renamed_and_widened_layer_is_one_change() -> None:
    found = difference(tiny(), tiny(width=6, name="renamed"))
    assert found.nodes == 2
    assert ("first", "input 1, constant", "3x3x3x4", "3x3x3x6") in [(c.where, c.what, c.a, c.b) for c in found.changes]


def test_changed_weights_are_measured() -> None:
    a = tiny()
    data = np.array(a.tensors["first/kernel"].data)
    data[0, 0, 0, :2] += np.float32(0.5)
    b = replace(a, tensors={**a.tensors, "first/kernel": replace(a.tensors["first/kernel"], data=data)})
    (value,) = difference(a, b).values
    assert (value.node, value.operand, value.elements, value.differing) == ("first", "kernel", 108, 2)
    assert value.max_abs_difference == pytest.approx(0.5, rel=1e-6)
    wanted = 10 * np.log10(np.sum(np.square(a.tensors["first/kernel"].value(), dtype=np.float64)) / 0.5)
    assert value.snr_db == pytest.approx(wanted, abs=1e-3)


def test_equal_not_a_numbers_are_equal_and_new_ones_are_not() -> None:
    a = tiny()
    data = np.full(4, np.nan, np.float32)
    b = replace(a, tensors={**a.tensors, "first/bias": replace(a.tensors["first/bias"], data=data)})
    assert difference(b, b).is_identical
    (value,) = difference(a, b).values
    assert (value.differing, value.snr_db) == (4, -np.inf)


def test_float16_storage_is_told_beside_what_it_rounds() -> None:
    found = difference(tiny(), store_float16(tiny()))
    assert {change.what for change in found.changes} == {"input 1, stored as", "input 2, stored as"}
    assert all(60 < value.snr_db < 90 for value in found.values)


def test_what_integers_between_nodes_stand_for_is_compared() -> None:
    graph = GRAPHS["mobile"]
    inner = next(node.output for node in graph.nodes if node.output not in {port.tensor for port in graph.outputs})
    other = replace(graph.tensors[inner], quantization=per_tensor(0.25, 3))
    changes = difference(graph, replace(graph, tensors={**graph.tensors, inner: other})).changes
    told = {change.what: (change.a, change.b) for change in changes}
    assert told.keys() <= {"output quantization", "activation"}  # a range that no longer implies a ReLU
    before, after = told["output quantization"]
    assert before.startswith("int8, scale 0.")
    assert after == "int8, scale 0.25, zero point 3"
    assert difference(graph, graph).is_identical


def test_unsigned_integers_are_the_same_numbers_but_for_the_ports() -> None:
    graph = GRAPHS["mobile"]
    tensors = unsigned_activations(graph).tensors
    shifted = replace(graph, tensors={name: replace(tensors.get(name, t)) for name, t in graph.tensors.items()})
    assert difference(graph, shifted).is_identical
    port = graph.inputs[0].tensor
    narrow = replace(graph.tensors[port], quantization=per_tensor(0.25, 3, "uint8"))
    told = difference(graph, replace(graph, tensors={**graph.tensors, port: narrow})).changes
    assert [(change.where, change.what) for change in told] == [("input 0", "dtype"), ("input 0", "quantization")]


def test_a_relu_that_the_range_implies_is_none() -> None:
    graph = GRAPHS["conv_relu"]
    bare = drop_implied_clamps(graph)
    assert bare.nodes != graph.nodes
    assert difference(graph, bare).is_identical
