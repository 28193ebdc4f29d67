"""OpenVINO IR and its CPU target: what the tests over all writers do not ask."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgecnn.converters import _openvino_read_xml
from edgecnn.converters.openvino_ir import OPENVINO
from edgecnn.targets.openvino_cpu import OPENVINO_CPU

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.contract import CONTRACT_KEY, Contract
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Graph, Port, from_layout, to_layout, with_batch
from edgecnn.interfaces import SessionOptions
from edgecnn.models.build import ZooOptions, build
from edgecnn.passes.deploy import deploy
from edgecnn.passes.store_float16 import store_float16
from tests.graphs import Make, image_graph

ov = pytest.importorskip("openvino")


@pytest.fixture
def lenet5(tmp_path: Path) -> Path:
    OPENVINO.write(deploy(with_batch(build("lenet5"), 1)).graph, tmp_path / "lenet5.xml")
    return tmp_path / "lenet5.xml"


def layout_of(graph: Graph, port: Port) -> str | None:
    return port.layout or ("NCHW" if len(graph.tensors[port.tensor].shape) >= 4 else None)


def run(graph: Graph, path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Write, load and run; outputs NHWC."""
    OPENVINO.write(graph, path)
    session = OPENVINO_CPU.open(path, SessionOptions(threads=1))
    found = session.run({"image": to_layout(x, layout_of(graph, graph.inputs[0]))})
    session.close()
    return {port.name: from_layout(found[port.name], layout_of(graph, port)) for port in graph.outputs}


def agree(graph: Graph, path: Path) -> None:
    shape = [size or 2 for size in graph.tensors["image"].shape]
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    found, wanted = run(graph, path, x), execute(graph, {"image": x})
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("batch", [1, 4, None])
@pytest.mark.parametrize("model", ["lenet5", "mobilenet_v1", "mobilenet_v2"])
def test_zoo_networks_agree_with_execute(model: str, batch: int | None, half: bool, tmp_path: Path) -> None:
    options = ZooOptions(resolution=None if model == "lenet5" else 96)
    graph = deploy(with_batch(build(model, options), batch)).graph
    graph = store_float16(graph) if half else graph
    shape = graph.tensors["image"].shape
    x = np.random.default_rng(1).standard_normal([size or 2 for size in shape], dtype=np.float32)
    found, wanted = run(graph, tmp_path / "m.xml", x)["logits"], execute(graph, {"image": x})["logits"]
    assert np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted)


def test_mobilenet_v2_has_exactly_these_layers(tmp_path: Path) -> None:
    graph = deploy(with_batch(build("mobilenet_v2", ZooOptions(width_multiplier=0.35, resolution=96)), 1)).graph
    assert OPENVINO.write(graph, tmp_path / "m.xml").operators == {
        "Add": 10 + 52 + 1,
        "Convolution": 35,
        "Clamp": 35,
        "GroupConvolution": 17,
        "ReduceMean": 1,
        "MatMul": 1,
    }


def constant(b: GraphBuilder, name: str, shape: tuple[int, ...]) -> str:
    return b.constant(name, np.random.default_rng(2).standard_normal(shape, dtype=np.float32))


def pooled(kind: type[ops.MaxPool] | type[ops.AveragePool]) -> Make:
    op = kind(kernel_size=(3, 2), stride=(2, 1), padding=((0, 2), (1, 0)), activation=ops.ReLU())
    return lambda b, x: b.node("y", op, x)


def pooled_3d(b: GraphBuilder, x: str) -> str:
    op = ops.AveragePool(kernel_size=(2, 2, 2), stride=(1, 2, 1), padding=((0, 1), (0, 0), (1, 0)))
    return b.node("y", op, x)


def scaled_by_its_mean(b: GraphBuilder, x: str) -> str:
    return b.node("y", ops.Mul(), x, b.node("mean", ops.Mean(axes=(1, 2)), x))


def dense_with_everything(b: GraphBuilder, x: str) -> str:
    op = ops.Dense(activation=ops.Clip(minimum=-0.1, maximum=float("inf")))
    return b.node("y", op, x, constant(b, "k", (4, 3)), constant(b, "bias", (3,)))


def shared_by_dense_and_add(b: GraphBuilder, x: str) -> str:
    kernel = constant(b, "k", (4, 4))
    return b.node("y", ops.Add(), b.node("d", ops.Dense(), x, kernel), kernel)


def oddly_named(b: GraphBuilder, x: str) -> str:
    return b.node('a,b "q" <&>\n\t é, \\', ops.ReLU(), b.node("it's", ops.Sigmoid(), x))


SQUARE = (1, 4, 4, 4)
CASES: dict[str, tuple[Make, tuple[int | None, ...]]] = {
    "max_pool_asymmetric": (pooled(ops.MaxPool), (1, 9, 8, 4)),
    "average_pool_asymmetric": (pooled(ops.AveragePool), (1, 9, 8, 4)),
    "average_pool_3d": (pooled_3d, (1, 4, 5, 6, 2)),
    "constant_minus_image": (lambda b, x: b.node("y", ops.Sub(), constant(b, "c", (4,)), x), SQUARE),
    "lower_rank_computed": (scaled_by_its_mean, SQUARE),
    "mean_of_rows_and_batch": (lambda b, x: b.node("y", ops.Mean(axes=(0, 1)), x), (1, 3, 4, 5)),
    "mean_of_rows": (lambda b, x: b.node("y", ops.Mean(axes=(1,)), x), (1, 3, 4, 5)),
    "mean_of_rows_kept": (lambda b, x: b.node("y", ops.Mean(axes=(1,), keep_dims=True), x), (1, 3, 4, 5)),
    "mean_of_all": (lambda b, x: b.node("y", ops.Mean(axes=(1, 2, 3)), x), (1, 3, 4, 5)),
    "dense_fused": (dense_with_everything, (None, 5, 4)),
    "constant_shared": (shared_by_dense_and_add, (4, 4)),
    "pad_everywhere": (
        lambda b, x: b.node("y", ops.Pad(padding=((1, 0), (1, 2), (0, 3), (2, 1)), value=-2.5), x),
        SQUARE,
    ),
    "concat_with_constant": (lambda b, x: b.node("y", ops.Concat(axis=3), x, constant(b, "c", (1, 4, 4, 2))), SQUARE),
    "reshape_symbolic": (lambda b, x: b.node("y", ops.Reshape(shape=(None, 8, 2, 4)), x), (None, 4, 4, 4)),
    "odd_names": (oddly_named, SQUARE),
}


@pytest.mark.parametrize("name", CASES)
def test_corners_agree_with_execute(name: str, tmp_path: Path) -> None:
    agree(image_graph(*CASES[name]), tmp_path / "m.xml")


def test_no_transpose_where_a_constant_stands_first(tmp_path: Path) -> None:
    graph = image_graph(*CASES["constant_minus_image"])
    assert OPENVINO.write(graph, tmp_path / "m.xml").operators == {"Subtract": 1}


def test_every_output_port_has_its_own_name(tmp_path: Path) -> None:
    """Outputs that share a value, are an input, a constant, or carry the name of another tensor."""
    b = GraphBuilder("ports", initialise=he_normal(0))
    x = b.input("image", (1, 4, 4, 3))
    y = b.node("second", ops.ReLU(), x)
    ports = {
        "first": y,
        "second": b.node("z", ops.Sigmoid(), y),
        "third": y,
        "same": x,
        "fixed": constant(b, "c", (3,)),
    }
    agree(b.finish(ports), tmp_path / "m.xml")


def test_a_channels_last_port_costs_exactly_one_transpose(tmp_path: Path) -> None:
    graph = image_graph(lambda b, x: b.conv(b.conv(x, "c", 4, kernel_size=3), "y", 5, kernel_size=3))
    turned = replace(graph, inputs=(replace(graph.inputs[0], layout="NHWC"),))
    agree(turned, tmp_path / "m.xml")
    assert OPENVINO.write(turned, tmp_path / "m.xml").operators == {"Convolution": 2, "Transpose": 1}


def test_openvino_finds_names_layouts_and_contract(tmp_path: Path) -> None:
    contract = Contract(height=9, width=8, mean=(1.5,) * 3, labels=('"nought" & <één>', "tab\tline\n"))
    graph = replace(image_graph(lambda b, x: b.conv(x, "y", 5, kernel_size=3), (None, 9, 8, 3)), contract=contract)
    path = OPENVINO.write(graph, tmp_path / "m.xml").path
    model = ov.Core().read_model(path)
    assert model.friendly_name == "tried"
    assert (model.input("image").partial_shape, model.output("result").partial_shape) == (
        ov.PartialShape([-1, 3, 9, 8]),
        ov.PartialShape([-1, 5, 9, 8]),
    )
    assert ov.layout_helpers.get_layout(model.input(0)) == ov.Layout("[N,C,H,W]")
    seen = model.get_rt_info(CONTRACT_KEY)
    assert getattr(seen, "value", seen) == replace(contract, layout="NCHW").to_json()
    assert OPENVINO.read_contract(path) == replace(contract, layout="NCHW")


def test_a_contract_survives_openvinos_own_saving(lenet5: Path) -> None:
    ov.save_model(ov.Core().read_model(lenet5), lenet5.with_name("again.xml"))
    assert OPENVINO.read_contract(lenet5.with_name("again.xml")) == OPENVINO.read_contract(lenet5) != None  # noqa: E711


def test_writing_imports_no_openvino(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgecnn.converters.openvino_ir import OPENVINO as f;"
        "from edgecnn.models.build import build; from edgecnn.passes.deploy import deploy;"
        f"p = f.write(deploy(build('lenet5')).graph, Path({str(tmp_path / 'm.xml')!r})).path; f.read_contract(p);"
        "sys.exit('openvino' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def attributes(path: Path, kind: str) -> Iterator[tuple[int, int]]:
    """Yield offset and size of each constant of an element type."""
    for match in re.finditer(rf'<data element_type="{kind}" .*offset="(\d+)" size="(\d+)"', path.read_text()):
        yield int(match[1]), int(match[2])


def test_constants_are_aligned_and_equal_ones_are_stored_once(tmp_path: Path) -> None:
    b = GraphBuilder("equal", initialise=he_normal(0))
    x = b.input("image", (1, 4, 4, 4))
    for number in range(3):
        x = b.node(f"add_{number}", ops.Add(), x, b.constant(f"ones_{number}", np.ones(4, np.float32)))
    x = b.node("last", ops.Mul(), x, b.constant("twos", np.full(4, 2, np.float32)))
    path = OPENVINO.write(b.finish({"result": x}), tmp_path / "m.xml").path
    assert list(attributes(path, "f32")) == [(0, 16), (0, 16), (0, 16), (64, 16)]
    assert path.with_suffix(".bin").stat().st_size == 64 + 16


def test_float16_halves_the_constants_and_computes_in_float32(tmp_path: Path) -> None:
    graph = deploy(with_batch(build("mobilenet_v2", ZooOptions(width_multiplier=0.35, resolution=64)), 1)).graph
    sizes = [
        OPENVINO.write(each, tmp_path / f"{name}.xml").path.with_suffix(".bin").stat().st_size
        for name, each in (("float", graph), ("half", store_float16(graph)))
    ]
    assert sizes[1] < 0.51 * sizes[0]
    compiled = ov.Core().compile_model(tmp_path / "half.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops()]
    assert "Convert" not in {text(info["layerType"]) for info in layers}
    kinds = {text(info["primitiveType"]) for info in layers if text(info["layerType"]) == "Convolution"}
    assert all(kind.endswith("f32") for kind in kinds)


def text(entry: Any) -> str:
    return entry if isinstance(entry, str) else str(entry.astype(str))


def test_a_name_that_xml_cannot_hold_is_refused(tmp_path: Path) -> None:
    graph = image_graph(lambda b, x: b.node("bell\x07", ops.ReLU(), x))
    with pytest.raises(UnsupportedError, match=r"tried: names of characters that XML holds were wanted; got .*bell"):
        OPENVINO.write(graph, tmp_path / "m.xml")


def test_a_type_without_a_name_is_refused(tmp_path: Path) -> None:
    graph = image_graph(lambda b, x: b.node("y", ops.Add(), x, b.constant("wide", np.ones(4, np.uint16))))
    with pytest.raises(UnsupportedError, match=r"wide: one of float32, .* was wanted; got uint16\."):
        OPENVINO.write(graph, tmp_path / "m.xml")


def test_a_computed_kernel_is_refused(tmp_path: Path) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        kernel = b.node("k", ops.ReLU(), constant(b, "c", (3, 3, 4, 2)))
        return b.node("y", ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1)), x, kernel)

    with pytest.raises(UnsupportedError, match="y: a constant kernel was wanted; got a computed one"):
        OPENVINO.write(image_graph(make), tmp_path / "m.xml")


MALFORMED = {
    "text": ("hello", "its XML is malformed"),
    "no_end": ("<net><layers>", "its XML is malformed"),
    "other_root": ("<html><net/></html>", "got XML whose root is <html>"),
    "doctype": ('<?xml version="1.0"?><!DOCTYPE net><net/>', "got a DOCTYPE"),
    "entity": ('<!DOCTYPE net [<!ENTITY a "b">]><net name="&a;"/>', "got a DOCTYPE"),
    "external_entity": ('<!DOCTYPE net SYSTEM "file:///etc/passwd"><net/>', "got a DOCTYPE"),
    "contract": (
        f'<net><rt_info><{CONTRACT_KEY} value="{{}}"/></rt_info></net>',
        "a contract of schema_version 1 was wanted; got None",
    ),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused(name: str, encoding: str, tmp_path: Path) -> None:
    content, message = MALFORMED[name]
    (tmp_path / "m.xml").write_bytes(content.encode(encoding))
    with pytest.raises(InputFileError, match=rf"m\.xml: .*{re.escape(message)}"):
        OPENVINO.read_contract(tmp_path / "m.xml")


def test_only_the_models_own_rt_info_is_a_contract(tmp_path: Path) -> None:
    entry = f'<rt_info><{CONTRACT_KEY} value="{{}}"/></rt_info>'
    nested = f"<net><layers><rt_info><{CONTRACT_KEY}/></rt_info><layer id='0'>{entry}</layer></layers><rt_info/></net>"
    (tmp_path / "m.xml").write_text(nested)
    assert OPENVINO.read_contract(tmp_path / "m.xml") is None


def test_a_huge_file_is_refused_before_it_is_parsed(lenet5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openvino_read_xml, "LARGEST_XML_BYTES", 1000)
    with pytest.raises(InputFileError, match="at most 1000 bytes of XML were wanted; got"):
        OPENVINO.read_contract(lenet5)


def test_the_registry_knows_the_format() -> None:
    assert registry.load("converters", "openvino") is OPENVINO
