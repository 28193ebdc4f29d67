"""What convert lets a user settle: layouts, shapes, a part, the contract; and what it proves and prints."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgecnn import ops, registry
from edgecnn.bisect import differs
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn
from edgecnn.contract import Contract
from edgecnn.conversion import ParityError
from edgecnn.convert import Plan, convert
from edgecnn.cut import cut
from edgecnn.errors import UnknownNameError, UnsupportedError, UsageError
from edgecnn.execute import execute
from edgecnn.feeding import load_feeds
from edgecnn.graph import Graph
from edgecnn.interfaces import SessionOptions
from edgecnn.ports import Exterior, observed_layout, parse_layouts, with_layouts
from edgecnn.source import Choices, load_source, target_for
from edgecnn.verify import relative_error

FORMATS = ("tflite", "onnx", "openvino")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(edgecnn, list(arguments))


def data_of(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    return json.loads(result.stdout)


def refusal(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code != 0
    return str(result.exception)


def two_headed() -> Graph:
    """(image, signal) -> a picture of five channels and a sequence: ranks 4 and 3 go in and out."""
    b = GraphBuilder("heads", initialise=he_normal(0))
    image, signal = b.input("image", (1, 8, 6, 3)), b.input("signal", (1, 7, 4))
    mask = b.conv(image, "mask", 5, kernel_size=3, use_bias=True)
    wave = b.conv(signal, "wave", 6, kernel_size=3, use_bias=True)
    return b.finish({"mask": mask, "wave": wave})


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with lenet5.onnx and lenet5.tflite, which bring a contract."""
    folder = tmp_path_factory.mktemp("lenet")
    data_of("convert", "lenet5", "--to", "onnx,tflite", "-o", str(folder), "--no-verify")
    return folder


def input_shapes(path: Path) -> dict[str, Any]:
    session = target_for(path, None).open(path, SessionOptions())
    try:
        return dict(session.input_shapes)
    finally:
        session.close()


@pytest.mark.parametrize(
    ("shape", "found", "preferred", "layout"),
    [
        ((1, 8, 9, 3), (None, 3, 8, 9), "NHWC", "NCHW"),
        ((None, 8, 9, 3), (4, 8, 9, 3), "NCHW", "NHWC"),
        ((1, 3, 3, 3), (1, 3, 3, 3), "NCHW", "NCHW"),
        ((1, 7, 4), (1, 4, 7), "NHWC", "NCHW"),
        ((1, 8, 9, 3), (1, None, None, None), "NCHW", "NCHW"),
        ((1, 2, 3, 4, 5), (1, 5, 2, 3, 4), "NHWC", "NCHW"),
        ((1, 10), (1, 10), "NHWC", "NHWC"),
    ],
)
def test_shapes_tell_the_layout(shape: Any, found: Any, preferred: Any, layout: str) -> None:
    assert observed_layout(shape, found, preferred) == layout


def test_where_shapes_do_not_tell_the_choice_comes_before_the_default() -> None:
    cube = (1, 3, 3, 3)
    assert Exterior(default="NCHW").of_input("x", cube, cube) == "NCHW"
    assert Exterior(default="NCHW", inputs={"x": "NHWC"}).of_input("x", cube, cube) == "NHWC"
    assert Exterior(default="NCHW").of_input("x", (1, 3, 3), (1, 3, 3)) == "NHWC"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("chosen", ["nhwc", "nchw", "image:nchw,mask:nhwc", "signal:nchw,wave:nchw"])
def test_layouts_are_kept_and_proved_for_each_port(form: str, chosen: str, tmp_path: Path) -> None:
    graph = with_layouts(two_headed(), parse_layouts(chosen))
    conversion = convert(graph, tmp_path, Plan(formats=(form,)), load=lambda g, c: load_feeds(g, c, None, limit=16))
    assert conversion.passed
    shapes = input_shapes(conversion.artifacts[0].path)
    layout = {port.name: port.layout for port in graph.inputs}
    default = registry.load("converters", form).default_layout
    assert shapes["image"] == ((1, 3, 8, 6) if (layout["image"] or default) == "NCHW" else (1, 8, 6, 3))
    assert shapes["signal"] == ((1, 4, 7) if layout["signal"] == "NCHW" else (1, 7, 4))


def test_names_may_hold_colons() -> None:
    assert parse_layouts("serving:0:nchw, b:NHWC") == {"serving:0": "NCHW", "b": "NHWC"}
    with pytest.raises(UsageError, match="nhwc or nchw, or NAME:nchw for each port was wanted; got 'nwhc'"):
        parse_layouts("nwhc")


def test_layouts_of_unknown_ports_and_of_vectors_are_refused(tmp_path: Path) -> None:
    arguments = ("convert", "lenet5", "-o", str(tmp_path / "o"), "--io-layout")
    assert "No input or output is named 'imag'. Did you mean 'image'?" in refusal(*arguments, "imag:nchw")
    assert "'logits' with spatial axes and channels was wanted; it is " in refusal(*arguments, "logits:nchw")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_a_source_file_is_proved_in_its_own_runtime(suffix: str, lenet: Path, tmp_path: Path) -> None:
    source = lenet / f"lenet5.{suffix}"
    found = data_of("convert", str(source), "-o", str(tmp_path))
    assert found["source"]["parity"]["target"] == {"onnx": "onnxruntime_cpu", "tflite": "litert_cpu"}[suffix]
    assert found["source"]["parity"]["snr_db"] > 80
    assert found["source"]["size_bytes"] == source.stat().st_size
    assert sum(found["source"]["operators"].values()) >= sum(found["operators"].values())
    theirs = {"onnx": ["tflite"], "tflite": ["onnx", "xml"]}[suffix]
    assert [(Path(each["artifact"]).suffix[1:], each["port"]) for each in found["layouts"]] == [
        (each, "image") for each in theirs
    ]
    shown = run("convert", str(source), "-o", str(tmp_path), "--force").stdout
    assert "source file in" in shown
    assert "keeps it." in shown
    assert f"{source.name}, as read" in shown


def test_a_reader_that_is_wrong_is_caught(lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(registry.load("converters", "onnx"))
    read = kind.read

    def wrong(self: Any, path: Path, input_shapes: Any = None) -> Graph:
        graph: Graph = read(self, path)
        tensors = {n: replace(t, data=-t.value()) if n == "c3/kernel" else t for n, t in graph.tensors.items()}
        assert any(tensors[name] is not graph.tensors[name] for name in tensors)
        return replace(graph, tensors=tensors)

    monkeypatch.setattr(kind, "read", wrong)
    result = run("convert", str(lenet / "lenet5.onnx"), "--to", "tflite", "-o", str(tmp_path / "o"), "--json")
    assert isinstance(result.exception, ParityError)
    assert "onnxruntime_cpu computes something else: edgecnn reads the file wrongly" in str(result.exception)
    assert json.loads(result.stdout)["parity"][0]["passed"]
    assert not (tmp_path / "o").exists()


def test_a_source_without_its_runtime_is_said_and_goes_on(
    lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecnn.errors import MissingError

    def missing(paths: Any) -> None:
        raise MissingError("onnxruntime is not installed")

    monkeypatch.setattr("edgecnn.proof.probe", missing)
    found = data_of("convert", str(lenet / "lenet5.onnx"), "--to", "tflite", "-o", str(tmp_path))
    assert found["source"]["parity"] is None
    assert "could not be proved in onnxruntime_cpu: onnxruntime is not installed" in found["source"]["note"]
    assert found["passed"]


def test_a_part_is_cut_out(lenet: Path, tmp_path: Path) -> None:
    whole = load_source("lenet5").graph
    nodes = [node.name for node in whole.nodes]
    found = data_of("convert", "lenet5", "--outputs", nodes[3], "--to", "onnx", "-o", str(tmp_path))
    assert found["passed"]
    assert sum(found["source"]["operators"].values()) == 4
    part = load_source("lenet5", Choices(inputs=(nodes[1],), outputs=(nodes[3],))).graph
    assert [port.name for port in part.inputs] == [nodes[1]]
    assert part.contract is None
    image = np.random.default_rng(0).standard_normal((2, 32, 32, 1)).astype(np.float32)
    shown = {port.name: image for port in whole.inputs}
    inner = execute(whole, shown, fetch=(nodes[1], nodes[3]))
    np.testing.assert_array_equal(execute(part, {nodes[1]: inner[nodes[1]]})[nodes[3]], inner[nodes[3]])


def test_a_cut_keeps_of_the_contract_what_still_holds() -> None:
    b = GraphBuilder("n", initialise=he_normal(0))
    x = b.node("b", ops.ReLU(), b.node("a", ops.Tanh(), b.input("image", (1, 4, 4, 3))))
    graph = b.finish({"out": x}, contract=Contract(height=4, width=4, labels=("x",)))
    ended = cut(graph, outputs=["a"])
    assert ended.contract == Contract(height=4, width=4, output="features")
    assert [port.name for port in ended.outputs] == ["a"]
    assert cut(graph, outputs=["out"]).contract == graph.contract
    assert cut(graph, inputs=["a"]).contract is None


def test_impossible_cuts_are_refused() -> None:
    b = GraphBuilder("n", initialise=he_normal(0))
    image, other = b.input("image", (1, 4, 4, 3)), b.input("other", (1, 4, 4, 3))
    left = b.node("left", ops.ReLU(), image)
    graph = b.finish({"sum": b.add(left, other, "sum"), "side": b.node("side", ops.Tanh(), image)})
    with pytest.raises(UnknownNameError, match=r"No tensor or node is named 'lefd'\. Did you mean 'left'\?"):
        cut(graph, inputs=["lefd"])
    with pytest.raises(UsageError, match="the outputs also need the input 'image'"):
        cut(graph, inputs=["left", "other"])
    assert [port.name for port in cut(graph, ["left", "other"], ["sum"]).inputs] == ["left", "other"]
    with pytest.raises(UsageError, match="the input 'other' leads to no output"):
        cut(graph, ["image", "other"], ["side"])
    with pytest.raises(UsageError, match="'left' is an input and was named as an output"):
        cut(graph, ["left", "other"], ["left"])
    assert [port.name for port in cut(graph, outputs=["side"]).inputs] == ["image"]


def test_a_node_whose_output_became_an_input_may_still_give_another() -> None:
    b = GraphBuilder("n", initialise=he_normal(0))
    halves = b.nodes("split", ops.Split(axis=3, sizes=(1, 2)), [b.input("image", (1, 4, 4, 3))], ["low", "high"])
    graph = b.finish({"low2": b.node("low2", ops.ReLU(), halves[0]), "high2": b.node("high2", ops.ReLU(), halves[1])})
    part = cut(graph, inputs=["low", "image"])
    values = {"image": np.ones((1, 4, 4, 3), np.float32), "low": np.full((1, 4, 4, 1), 7, np.float32)}
    found = execute(part, values)
    assert found["low2"].max() == 7
    assert found["high2"].max() == 1


@pytest.mark.parametrize(("text", "batch"), [("image:4,1,32,32", 4), ("image:1,1,32,32", 1)])
def test_an_input_shape_reaches_the_reader(text: str, batch: int, tmp_path: Path) -> None:
    data_of("convert", "lenet5", "--to", "onnx", "--batch", "dynamic", "-o", str(tmp_path), "--no-verify")
    source = str(tmp_path / "lenet5.onnx")
    data_of("convert", source, "--input-shape", text, "--to", "tflite", "-o", str(tmp_path))
    assert input_shapes(tmp_path / "lenet5.tflite")["image"] == (batch, 32, 32, 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("lenet5", "--input-shape", "image:1,28,28,1"), "only an open size can be chosen; got 1x28x28x1"),
        (("lenet5", "--input-shape", "imag:1,32,32,1"), "No input is named 'imag'. Did you mean 'image'?"),
        (("lenet5", "--input-shape", "image:1,-2,3"), "NAME:1,3,H,W of positive sizes was wanted, once each"),
        (("lenet5", "--input-shape", "image:2,32,32,1", "--batch", "3"), "--batch 3 contradicts --input-shape"),
        (("lenet5", "--outputs", "logit"), "No tensor or node is named 'logit'. Did you mean 'logits'?"),
    ],
)
def test_choices_that_do_not_fit_are_refused(arguments: tuple[str, ...], text: str, tmp_path: Path) -> None:
    assert text in refusal("convert", *arguments, "-o", str(tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_a_contract_is_given_to_a_model_that_brings_none(tmp_path: Path) -> None:
    b = GraphBuilder("plain", initialise=he_normal(0))
    x = b.conv(b.input("image", (1, 16, 16, 3)), "conv", 8, kernel_size=3, use_bias=True)
    plain = b.finish({"features": b.node("pool", ops.Mean(axes=(1, 2), keep_dims=False), x)})
    path = tmp_path / "plain.onnx"
    registry.load("converters", "onnx").write(plain, path)
    given = tmp_path / "edgecnn.json"
    given.write_text(Contract(height=16, width=16, colour_order="BGR", mean=(0,) * 3, std=(1,) * 3).to_json())
    out = tmp_path / "out"
    data_of("convert", str(path), "--contract", str(given), "--to", "onnx", "-o", str(out))
    stored = registry.load("converters", "onnx").read_contract(out / "plain.onnx")
    assert (stored.colour_order, stored.input_range, stored.is_assumed) == ("BGR", (0, 255), False)
    again = refusal("convert", str(out / "plain.onnx"), "--contract", str(given), "-o", str(tmp_path / "o"))
    assert "--contract is for a model that brings none; this one does" in again
    given.write_text(Contract(height=8, width=16).to_json())
    refused = refusal("convert", str(path), "--contract", str(given), "-o", str(tmp_path / "o"))
    assert "was wanted for it; plain has 1x16x16x3" in refused
    shown = run("convert", str(path), "--to", "onnx", "-o", str(tmp_path / "third")).output
    assert "does not say how pixels become its input; RGB in -1..1 is assumed, for verifying here" in shown


def test_unknown_operators_are_refused_together(tmp_path: Path) -> None:
    b = GraphBuilder("odd", initialise=he_normal(0))
    x = b.input("image", (1, 4, 4, 3))
    for number in range(7):
        x = b.node(f"n{number}", ops.Opaque(kind=f"Odd{number}", shapes=((1, 4, 4, 3),)), x)
    graph = b.finish({"out": x})
    with pytest.raises(
        UnsupportedError, match=r"'n0' \(Odd0\), .*'n4' \(Odd4\) and 2 more. .* with --outputs"
    ) as caught:
        convert(graph, tmp_path / "o", Plan(formats=("onnx",)))
    assert "n5" not in str(caught.value)
    assert not (tmp_path / "o").exists()


def test_convert_writes_keras_and_proves_it_in_keras(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    found = data_of("convert", "lenet5", "--to", "keras", "-o", str(tmp_path))
    assert [(p["target"], p["passed"]) for p in found["parity"]] == [("keras_cpu", True)]
    assert (tmp_path / "lenet5.keras").is_file()


def test_transposes_that_remain_are_named() -> None:
    from edgecnn.commands.convert import kept_transposes

    b = GraphBuilder("t", initialise=he_normal(0))
    x = b.node("relu", ops.ReLU(), b.input("image", (1, 4, 5, 3)))
    graph = b.finish({"out": b.node("turn", ops.Transpose(permutation=(0, 2, 1, 3)), x)})
    assert kept_transposes(graph) == [("turn", "between ReLU 'relu' and an output")]


@pytest.mark.parametrize("form", FORMATS)
def test_a_scalar_input_is_fed_too(form: str, tmp_path: Path) -> None:
    b = GraphBuilder("scalar", initialise=he_normal(0))
    factor, image = b.input("factor", ()), b.input("image", (1, 8, 8, 3))
    features = b.node("features", ops.Mean(axes=(1, 2)), b.node("scaled", ops.Mul(), image, factor))
    graph = b.finish({"y": features})
    conversion = convert(graph, tmp_path, Plan(formats=(form,)), load=lambda g, c: load_feeds(g, c, None, limit=16))
    assert conversion.passed


def test_a_network_without_inputs_cannot_be_verified() -> None:
    b = GraphBuilder("fixed", initialise=he_normal(0))
    graph = b.finish({"y": b.node("y", ops.ReLU(), b.constant("c", np.ones((1, 2), np.float32)))})
    with pytest.raises(UsageError, match=r"^fixed: an input was wanted to verify on; it has none\. Use --no-verify\.$"):
        load_feeds(graph, None, None, limit=16)


def test_a_format_that_no_target_opens_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda room: iter(("onnx", "tflite") if room == "converters" else ()))
    with pytest.raises(UsageError, match=r"^a\.onnx: a target that opens onnx files was wanted; none is installed$"):
        target_for(Path("a.onnx"), None)


@pytest.mark.parametrize(("found", "error"), [([1.0, 4.0], 0.25), ([np.nan, 4.0], np.inf), ([-np.inf, 4.0], np.inf)])
def test_what_is_no_number_is_an_error_and_equal_infinities_are_none(found: list[float], error: float) -> None:
    wanted = np.array([0.0, 4.0])
    assert relative_error(wanted, np.array(found)) == error
    assert relative_error(np.array(found), np.array(found)) == 0
    assert differs(wanted[:, None], np.array(found)[:, None])
    masked = np.array([-np.inf, *wanted]), np.array([-np.inf, *found])
    assert relative_error(*masked) == error


def test_integer_inputs_are_fed_integers() -> None:
    b = GraphBuilder("typed", initialise=he_normal(0))
    image = b.node("image/float", ops.Cast(dtype="float32"), b.input("image", (1, 8, 8, 3), dtype="uint8"))
    chosen = b.node("index/float", ops.Cast(dtype="float32"), b.input("index", (1, 5), dtype="int32"))
    feeds = load_feeds(b.finish({"a": image, "b": chosen}), None, None, limit=16)
    assert [str(feeds.values[name].dtype) for name in ("image", "index")] == ["uint8", "int32"]
    assert feeds.values["image"].max() > 100
    assert "as they are, which is assumed" in feeds.origin


def test_pictures_that_are_stored_channels_first_are_fed_so() -> None:
    b = GraphBuilder("first", initialise=he_normal(0))
    feeds = load_feeds(b.finish({"y": b.node("y", ops.ReLU(), b.input("x", (1, 3, 8, 6)))}), None, None, limit=16)
    assert feeds.values["x"].shape == (16, 3, 8, 6)


def test_cost_counts_a_part() -> None:
    whole, part = data_of("cost", "lenet5"), data_of("cost", "lenet5", "--outputs", "c3")
    assert 0 < part["macs"] < whole["macs"]
