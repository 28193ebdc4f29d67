"""Every writer on every operator, float32 and float16: it loads in its runtime and computes what `execute` computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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
from tests.graphs import GRAPHS, image_graph

FORMATS = ("tflite", "onnx", "openvino")
REFUSED = {("tflite", "max_pool_same"): None}


def writer(name: str) -> Writer:
    found: Writer = registry.load("converters", name)
    return found


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
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("form", FORMATS)
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


def test_a_tflite_pool_that_is_neither_same_nor_valid_is_refused(tmp_path: Path) -> None:
    op = ops.MaxPool(kernel_size=(2, 2), stride=(1, 1), padding=((1, 1), (1, 1)))
    graph = image_graph(lambda b, x: b.node("pooled", op, x))
    with pytest.raises(UnsupportedError, match="pooled: tflite pools with SAME or VALID padding"):
        writer("tflite").write(graph, tmp_path / "m.tflite")
