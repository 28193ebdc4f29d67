"""Every writer on every operator, float32 and float16: it loads in its runtime and computes what `execute` computes."""

import importlib
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.contract import Contract
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Graph, Port, to_layout, with_batch
from edgecnn.interfaces import SessionOptions, Writer
from edgecnn.models.build import ZooOptions, build
from edgecnn.passes.deploy import deploy
from edgecnn.passes.store_float16 import store_float16
from edgecnn.source import target_for
from tests.graphs import GRAPHS, image_graph, layer_norm, resized, transposed
from tests.quantized_graphs import GRAPHS as QUANTIZED

FORMATS = ("tflite", "onnx", "openvino")
TRAINING_TIME = {ops.BatchNorm}
VOCABULARY = {
    each
    for each in vars(ops).values()
    if isinstance(each, type) and issubclass(each, ops.Op) and each not in {ops.Op, ops.Activation, ops.Opaque}
}


TURNING = (
    *("transpose", "transpose_to_channels_first", "reshape", "flattened_output"),
    *("mean_of_batch_and_width", "mean_of_height", "reshaped_picture"),
    *("gather_one", "matmul_of_heads"),
)
"""Graphs whose result depends on the order of axes or elements: a channels-first format must turn a tensor."""

ON_IMAGES = [name for name, graph in GRAPHS.items() if len(graph.tensors["image"].shape) == 4 and name not in TURNING]


def writer(name: str) -> Writer:
    found: Writer = registry.load("converters", name)
    return found


REFUSALS = {
    "tflite": "edgecnn.converters._tflite_rows",
    **dict.fromkeys(("onnx", "openvino"), "edgecnn.converters._channels_first"),
}


def rows_of(form: str) -> Mapping[type[ops.Op], object]:
    found: Mapping[type[ops.Op], object] = importlib.import_module(f"edgecnn.converters._{form}_rows").ROWS
    return found


def refusals_of(form: str) -> Mapping[type[ops.Op], str]:
    """Operator that a format cannot carry -> what to do instead."""
    found: Mapping[type[ops.Op], str] = importlib.import_module(REFUSALS[form]).REFUSED
    return found


def carried(form: str) -> list[str]:
    """Names of the Graphs whose operators a format has all."""
    refused = refusals_of(form).keys()
    return [name for name, graph in GRAPHS.items() if not refused & {type(node.op) for node in graph.nodes}]


def layout_of(form: str, rank: int) -> str:
    return "NCHW" if form != "tflite" and rank >= 4 else "NHWC"


def outputs_of(form: str, graph: Graph, folder: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Write, load and run; outputs as the artifact gives them."""
    artifact = writer(form).write(graph, folder / f"tried{writer(form).suffix}")
    session = target_for(artifact.path, None).open(artifact.path, SessionOptions(threads=1))
    try:
        outputs: dict[str, np.ndarray] = session.run(
            {"image": to_layout(x, graph.inputs[0].layout or layout_of(form, x.ndim))}
        )
        return outputs
    finally:
        session.close()


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize(("form", "name"), [(form, name) for form in FORMATS for name in carried(form)])
def test_every_format_computes_what_execute_computes(form: str, name: str, half: bool, tmp_path: Path) -> None:
    graph = store_float16(GRAPHS[name]) if half else GRAPHS[name]
    shape = graph.tensors["image"].shape
    x = np.random.default_rng(3).standard_normal([size or 1 for size in shape], dtype=np.float32)
    wanted = execute(graph, {"image": x})["result"]
    found = outputs_of(form, graph, tmp_path, x)
    assert list(found) == ["result"]
    turned = to_layout(wanted, layout_of(form, wanted.ndim))
    assert found["result"].shape == turned.shape
    assert found["result"].dtype == np.float32
    np.testing.assert_allclose(found["result"], turned, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("model", ["lenet5", "mobilenet_v1", "mobilenet_v2"])
def test_zoo_networks_have_no_overhead(form: str, model: str, tmp_path: Path) -> None:
    options = ZooOptions(width_multiplier=None if model == "lenet5" else 0.25)
    graph = deploy(with_batch(build(model, options), 1)).graph
    operators = writer(form).write(graph, tmp_path / f"m{writer(form).suffix}").operators
    assert not {"TRANSPOSE", "Transpose", "PAD", "Pad", "BatchNormalization", "RELU", "RELU6"} & operators.keys()
    if form != "openvino":
        assert "Mul" not in operators


def test_mobilenet_v2_has_exactly_these_operators(tmp_path: Path) -> None:
    graph = deploy(with_batch(build("mobilenet_v2", ZooOptions(width_multiplier=0.35, resolution=96)), 1)).graph
    assert writer("tflite").write(graph, tmp_path / "m.tflite").operators == {
        "CONV_2D": 35,
        "DEPTHWISE_CONV_2D": 17,
        "ADD": 10,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
    }
    onnx = writer("onnx").write(graph, tmp_path / "m.onnx").operators
    assert onnx == {"Conv": 52, "Clip": 35, "Add": 10, "ReduceMean": 1, "Gemm": 1}


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_graph_gives_the_same_bytes(form: str, tmp_path: Path) -> None:
    graph = deploy(build("lenet5")).graph
    first, second = (tmp_path / f"{name}{writer(form).suffix}" for name in "ab")
    writer(form).write(graph, first)
    writer(form).write(graph, second)
    for a, b in zip(writer(form).files(first), writer(form).files(second), strict=True):
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_a_symbolic_batch_takes_any_number_of_images(form: str, tmp_path: Path) -> None:
    graph = deploy(build("lenet5")).graph
    artifact = writer(form).write(graph, tmp_path / f"m{writer(form).suffix}")
    session = target_for(artifact.path, None).open(artifact.path, SessionOptions(threads=1))
    assert session.input_shapes["image"][0] is None
    for count in (1, 3):
        x = np.random.default_rng(0).standard_normal((count, 32, 32, 1), dtype=np.float32)
        found = session.run({"image": to_layout(x, layout_of(form, 4))})["logits"]
        np.testing.assert_allclose(found, execute(graph, {"image": x})["logits"], atol=1e-5)
    session.close()


def every_kind_of_move(b: GraphBuilder, x: str) -> str:
    x = b.node("large", ops.Resize(size=(7, 6), method="bilinear"), b.conv(x, "conv", 8, kernel_size=3))
    x = b.node("box", ops.Slice(begin=(0, 1, 0, 0), end=(None, 7, 6, 8), step=(1, 2, 1, 1)), x)
    x = b.node("blocks", ops.DepthToSpace(block=2), x)
    x = b.node("sequence", ops.Reshape(shape=(None, 72, 2)), b.node("s", ops.Swish(), layer_norm(b, x)))
    x = b.node("long", ops.Resize(size=(50,), method="nearest"), x)
    return b.node("cut", ops.Slice(begin=(0, 1, 0), end=(None, 50, None), step=(1, 1, 1)), x)


@pytest.mark.parametrize("form", FORMATS)
def test_moving_data_takes_any_number_of_images(form: str, tmp_path: Path) -> None:
    graph = image_graph(every_kind_of_move, (None, 5, 4, 3))
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 3), dtype=np.float32)
    found = outputs_of(form, graph, tmp_path, x)["result"]
    np.testing.assert_allclose(found, execute(graph, {"image": x})["result"], atol=2e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_the_contract_survives(form: str, tmp_path: Path) -> None:
    contract = Contract(height=32, width=32, colour_order="GRAY", mean=(1.5,), std=(2.0,), labels=("nought", "één"))
    graph = replace(deploy(build("lenet5")).graph, contract=contract)
    path = writer(form).write(graph, tmp_path / f"m{writer(form).suffix}").path
    found = writer(form).read_contract(path)
    assert found is not None
    assert found.layout == writer(form).default_layout
    assert found == replace(contract, layout=found.layout)


@pytest.mark.parametrize("form", FORMATS)
def test_another_external_layout_costs_one_transpose(form: str, tmp_path: Path) -> None:
    graph = image_graph(lambda b, x: b.node("pooled", ops.Mean(axes=(1, 2)), b.conv(x, "y", 5, kernel_size=3)))
    other = "NHWC" if writer(form).default_layout == "NCHW" else "NCHW"
    turned = replace(graph, inputs=(Port(name="image", tensor="image", layout=other),))
    x = np.random.default_rng(0).standard_normal((1, 9, 8, 4), dtype=np.float32)
    found = outputs_of(form, turned, tmp_path, x)["result"]
    np.testing.assert_allclose(found, execute(graph, {"image": x})["result"], atol=1e-5)
    operators = writer(form).write(turned, tmp_path / f"m{writer(form).suffix}").operators
    assert operators.get("TRANSPOSE", operators.get("Transpose")) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_an_operator_without_a_row_is_refused_by_name(form: str, tmp_path: Path) -> None:
    b = GraphBuilder("odd", initialise=he_normal(0))
    y = b.node("strange", ops.Opaque(kind="FancyOp", shapes=((1, 4),)), b.input("image", (1, 4)))
    with pytest.raises(UnsupportedError, match=f"strange: {form} has no row for the operator FancyOp"):
        writer(form).write(b.finish({"result": y}), tmp_path / f"m{writer(form).suffix}")


@pytest.mark.parametrize("form", FORMATS)
def test_malformed_artifacts_are_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{writer(form).suffix}"
    writer(form).write(deploy(with_batch(build("lenet5"), 1)).graph, path)
    whole = path.read_bytes()
    for damaged in (b"", b"not a model at all", whole[: len(whole) // 3]):
        path.write_bytes(damaged)
        with pytest.raises(InputFileError, match=str(path)):
            writer(form).read_contract(path)


@pytest.mark.parametrize("form", FORMATS)
def test_every_operator_has_a_row(form: str) -> None:
    rows, refused = rows_of(form).keys(), refusals_of(form).keys()
    emitted: set[type[ops.Op]] = set()
    assert rows | emitted | refused == VOCABULARY - TRAINING_TIME
    assert not rows & refused


@pytest.mark.parametrize(("form", "kind"), [(form, kind) for form in FORMATS for kind in refusals_of(form)])
def test_what_a_format_cannot_carry_is_refused_with_a_remedy(form: str, kind: type[ops.Op], tmp_path: Path) -> None:
    graph = next(graph for graph in GRAPHS.values() if kind in {type(node.op) for node in graph.nodes})
    name = next(node.name for node in graph.nodes if type(node.op) is kind)
    wanted = f"{name}: {form} has no row for the operator {kind.__name__}. {refusals_of(form)[kind]}"
    with pytest.raises(UnsupportedError, match=f"^{re.escape(wanted)}$"):
        writer(form).write(graph, tmp_path / f"m{writer(form).suffix}")


def test_every_operator_is_tried() -> None:
    tried = {type(node.op) for graph in (*GRAPHS.values(), *QUANTIZED.values()) for node in graph.nodes}
    assert tried == VOCABULARY - TRAINING_TIME


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("name", ON_IMAGES)
def test_no_transpose_around_operators_on_images(form: str, name: str, tmp_path: Path) -> None:
    operators = writer(form).write(GRAPHS[name], tmp_path / f"m{writer(form).suffix}").operators
    assert "Transpose" not in operators


def opset(graph: Graph, path: Path) -> tuple[int, int]:
    writer("onnx").write(graph, path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return model.opset_import[0].version, model.ir_version


def test_the_opset_is_the_lowest_that_carries_the_graph(tmp_path: Path) -> None:
    found = {name: opset(GRAPHS[name], tmp_path / "m.onnx") for name in carried("onnx")}
    assert {name: each for name, each in found.items() if each != (17, 8)} == {
        "gelu": (20, 9),
        "gelu_approximate": (20, 9),
        "gelu_before_mean": (20, 9),
        "inverted_bottleneck_of_dense": (20, 9),
    }


@pytest.mark.parametrize(
    ("method", "operators"), [("bilinear", {"Resize"}), ("nearest", {"Shape", "Concat", "Resize"})]
)
def test_onnx_resizes_any_batch_behind_a_transpose(
    method: Literal["bilinear", "nearest"], operators: set[str], tmp_path: Path
) -> None:
    """From 5 to 7: no float32 number times 5 is 7 but the next larger than 7 / 5."""
    b = GraphBuilder("resize", initialise=he_normal(0))
    x = b.node("y", ops.Resize(size=(7, 10), method=method), b.input("image", (None, 5, 5, 3), layout="NHWC"))
    graph = b.finish({"result": x})
    artifact = writer("onnx").write(graph, tmp_path / "m.onnx")
    assert artifact.operators.keys() - {"Transpose"} == operators
    assert opset(graph, artifact.path) == (17, 8)
    image = np.random.default_rng(1).standard_normal((3, 5, 5, 3), dtype=np.float32)
    session = target_for(artifact.path, None).open(artifact.path, SessionOptions(threads=1))
    found = session.run({"image": image})["result"]
    session.close()
    wanted = execute(graph, {"image": image})["result"]
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), wanted, rtol=1e-5, atol=1e-5)
    back = execute(registry.load("converters", "onnx").read(artifact.path), {"image": image})["result"]
    np.testing.assert_allclose(back, wanted, rtol=1e-5, atol=1e-5)


TFLITE_OPERATORS = {
    "max_pool_same": {"MAX_POOL_2D": 1},
    "max_pool_padded": {"PADV2": 1, "MAX_POOL_2D": 1},
    "max_pool_padded_behind_relu": {"RELU": 1, "PAD": 1, "MAX_POOL_2D": 1},
    "max_pool_padded_behind_fused": {"ADD": 1, "PAD": 1, "MAX_POOL_2D": 1},
    "average_pool_padded": {"PAD": 1, "AVERAGE_POOL_2D": 1, "MUL": 1},
    "conv_transpose_valid": {"TRANSPOSE_CONV": 1},
    "conv_transpose_same": {"TRANSPOSE_CONV": 1},
    "conv_transpose_sparse": {"TRANSPOSE_CONV": 1},
    "conv_transpose_cut": {"TRANSPOSE_CONV": 1, "SLICE": 1},
    "conv_transpose_1d": {"RESHAPE": 2, "TRANSPOSE_CONV": 1},
    "conv_transpose_3d": {"CONV_3D_TRANSPOSE": 1, "SLICE": 1},
    "conv_transpose_3d_same": {"CONV_3D_TRANSPOSE": 1},
    "conv_transpose_3d_fused": {"SLICE": 2, "CONV_3D_TRANSPOSE": 2, "CONCATENATION": 1},
    "max_pool_3d": {"RESHAPE": 3, "PADV2": 1, "MAX_POOL_2D": 2},
    "average_pool_3d": {"RESHAPE": 3, "PAD": 1, "AVERAGE_POOL_2D": 2, "MUL": 1},
    "hard_sigmoid": {"ADD": 1, "MUL": 1},
    "hard_swish": {"MUL": 1, "HARD_SWISH": 1},
    "slice": {"SLICE": 1},
    "slice_strided": {"STRIDED_SLICE": 1},
    "split": {"SPLIT": 1, "TANH": 1, "CONCATENATION": 1},
    "split_unequal": {"SLICE": 3, "TANH": 1, "CONCATENATION": 1},
    "concat_of_many": {"LEAKY_RELU": 8, "CONCATENATION": 2},
    "resize_nearest_doubled": {"CONV_2D": 2, "CONCATENATION": 2, "RESHAPE": 2},
    "pad_edge": {"SLICE": 3, "CONCATENATION": 2},
    "pad_edge_wide": {"GATHER": 2, "SLICE": 1, "CONCATENATION": 1},
    "average_pool_counting_padding": {"PAD": 1, "AVERAGE_POOL_2D": 1},
    "conv_transpose_grouped": {"SLICE": 2, "TRANSPOSE_CONV": 2, "CONCATENATION": 1},
    "conv_transpose_depthwise": {"RESHAPE": 3, "PAD": 3, "DEPTHWISE_CONV_2D": 1},
    "argmax": {"ARG_MAX": 1, "CAST": 1},
}


@pytest.mark.parametrize("name", TFLITE_OPERATORS)
def test_tflite_spells_operators_shortest(name: str, tmp_path: Path) -> None:
    assert writer("tflite").write(GRAPHS[name], tmp_path / "m.tflite").operators == TFLITE_OPERATORS[name]


VERSIONS = {
    "conv_transpose_same": {"TRANSPOSE_CONV": 1},
    "conv_transpose_valid": {"TRANSPOSE_CONV": 3},
    "conv_transpose_fused": {"TRANSPOSE_CONV": 4},
    "resize_bilinear": {"RESIZE_BILINEAR": 3},
    "resize_bilinear_asymmetric": {"RESIZE_BILINEAR": 1},
    "resize_bilinear_align_corners": {"RESIZE_BILINEAR": 1},
    "resize_nearest_align_corners": {"RESIZE_NEAREST_NEIGHBOR": 3},
    "resize_nearest_asymmetric": {"RESIZE_NEAREST_NEIGHBOR": 1},
}


def versions(graph: Graph, path: Path) -> dict[str, int]:
    """Operator -> its version in the file."""
    model = schema.Model.GetRootAs(writer("tflite").write(graph, path).path.read_bytes(), 0)
    kinds = {code: kind for kind, code in vars(schema.BuiltinOperator).items()}
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    return {kinds[code.BuiltinCode()]: code.Version() for code in codes}


@pytest.mark.parametrize("name", VERSIONS)
def test_tflite_operators_have_the_lowest_version_that_fits(name: str, tmp_path: Path) -> None:
    assert versions(GRAPHS[name], tmp_path / "m.tflite") == VERSIONS[name]


def test_tflite_versions_follow_the_types_of_tensors(tmp_path: Path) -> None:
    b = GraphBuilder("typed", initialise=he_normal(0))
    wide = b.node("wide", ops.Cast(dtype="int64"), b.input("image", (1, 3, 3, 2)))
    doubled = b.node("doubled", ops.Add(), wide, wide)
    mask = b.node("mask", ops.Transpose(permutation=(0, 2, 1, 3)), b.node("equal", ops.Equal(), wide, doubled))
    graph = b.finish(
        {
            "result": b.node("y", ops.Where(), mask, doubled, wide),
            "half": b.node("half", ops.Cast(dtype="float16"), wide),
        }
    )
    assert versions(graph, tmp_path / "m.tflite") == {"CAST": 5, "ADD": 4, "EQUAL": 1, "TRANSPOSE": 3, "SELECT_V2": 1}
    x = np.arange(18, dtype=np.float32).reshape(1, 3, 3, 2) - 9
    found, wanted = outputs_of("tflite", graph, tmp_path, x), execute(graph, {"image": x})
    for name, dtype in (("result", np.int64), ("half", np.float16)):
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], wanted[name])


TFLITE_REFUSES = {
    "tflite has no grouped 3-D convolution": (lambda b, x: b.conv(x, "y", 4, kernel_size=2, groups=2), (1, 4, 4, 4, 2)),
    "tflite wants a fixed batch for it": (transposed((2, 2), (2, 2), ((0, 0), (0, 0))), (None, 2, 2, 2)),
    "tflite wants output_padding below the stride": (
        transposed((2, 2), (1, 1), ((1, 0), (0, 0)), output_padding=(3, 0)),
        (1, 4, 4, 2),
    ),
    "tflite resizes 1 or 2 dimensions; got 3": (resized((2, 2, 2), "nearest", "half_pixel"), (1, 4, 4, 4, 2)),
    r"tflite normalises images \(N, height, width, C\) locally": (lambda b, x: b.node("y", ops.LRN(), x), (1, 6)),
}


@pytest.mark.parametrize("reason", TFLITE_REFUSES)
def test_what_tflite_cannot_carry_is_refused_with_a_reason(reason: str, tmp_path: Path) -> None:
    make, shape = TFLITE_REFUSES[reason]
    with pytest.raises(UnsupportedError, match=f"^y: {reason}"):
        writer("tflite").write(image_graph(make, shape), tmp_path / "m.tflite")


def test_a_tensor_without_elements_is_refused_by_tflite(tmp_path: Path) -> None:
    graph = image_graph(lambda b, x: b.node("y", ops.ReLU(), x), (1, 0, 6))
    with pytest.raises(UnsupportedError, match=r"^image: tflite wants tensors that hold something; got 1x0x6$"):
        writer("tflite").write(graph, tmp_path / "m.tflite")


def test_tflite_metadata_says_what_task_libraries_ask_for(tmp_path: Path) -> None:
    """Written by hand against metadata_schema.fbs; MediaPipe Tasks 1.2 classifies with it."""
    contract = Contract(height=32, width=32, colour_order="GRAY", mean=(1.5,), std=(2.5,), labels=tuple("0123456789"))
    graph = replace(deploy(with_batch(build("lenet5"), 1)).graph, contract=contract)
    path = writer("tflite").write(graph, tmp_path / "m.tflite").path
    content = path.read_bytes()
    assert content.count(b"TFLITE_METADATA") == 1
    start = content.index(b"M001") - 4
    assert struct.pack("<f", 1.5) in content[start:]
    assert struct.pack("<f", 2.5) in content[start:]
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().split() == list("0123456789")
    guessed = replace(graph, contract=replace(contract, is_assumed=True, labels=()))
    assert b"TFLITE_METADATA" not in writer("tflite").write(guessed, tmp_path / "g.tflite").path.read_bytes()
