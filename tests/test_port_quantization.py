"""Integer ports: callers feed and get real numbers, whatever integers an artifact takes and gives."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecnn import registry
from edgecnn.contract import Contract
from edgecnn.errors import UsageError
from edgecnn.execute import execute
from edgecnn.feeding import artifact_exterior, as_fed, load_feeds
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import Facts, SessionOptions
from edgecnn.ports import Exterior, exterior
from edgecnn.quantization.parameters import Quantization, per_tensor
from edgecnn.shapes import Shape
from edgecnn.source import target_for
from edgecnn.verify import run_batches
from tests.quantized_graphs import GRAPHS, values

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
BYTES = per_tensor(1 / 128, 128, "uint8")
RAW = Contract(height=2, width=2, mean=(0.0,) * 3, std=(1.0,) * 3)


class Echo:
    """A session that gives back what it is fed, and remembers it."""

    def __init__(self, dtype: str, shape: Shape = (1, 2)) -> None:
        self.facts = Facts(runtime="echo", threads=1, precision="float32")
        self.input_shapes: Mapping[str, Shape] = {"x": shape}
        self.input_dtypes: Mapping[str, str] = {"x": dtype}
        self.fed: list[Array] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.fed.append(inputs["x"])
        return {"y": inputs["x"]}

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        return lambda: self.run(inputs)

    def close(self) -> None:
        pass


def known(quantization: Quantization) -> Exterior:
    return Exterior(default="NHWC", input_integers={"x": quantization}, output_integers={"y": quantization})


def test_real_numbers_go_in_as_integers_and_come_out_as_numbers() -> None:
    session = Echo("uint8")
    found = run_batches(session, {"x": np.array([[0.0, -9.0], [0.5, 0.4961]], np.float32)}, known(BYTES))
    assert [fed.tolist() for fed in session.fed] == [[[128, 0]], [[192, 192]]]  # 0.4961 * 128 + 128 = 191.5008
    assert (str(found["y"].dtype), found["y"].tolist()) == ("float32", [[0, -1], [0.5, 0.5]])


def test_stored_integers_go_in_as_they_are() -> None:
    session = Echo("uint8")
    found = run_batches(session, {"x": np.array([[3, 255]], np.uint8)}, known(BYTES))
    assert session.fed[0].tolist() == [[3, 255]]
    assert found["y"].tolist() == [[-125 / 128, 127 / 128]]


def test_bytes_are_numbers_for_a_signed_port() -> None:
    session = Echo("int8")
    run_batches(session, {"x": np.array([[3, 255]], np.uint8)}, known(per_tensor(1.0, -128)))
    assert session.fed[0].tolist() == [[-125, 127]]


def test_an_only_port_may_have_another_name() -> None:
    session = Echo("int8")
    known_otherwise = Exterior(default="NHWC", input_integers={"image": per_tensor(0.5)})
    run_batches(session, {"picture": np.array([[1.0, 2.0]], np.float32)}, known_otherwise)
    assert session.fed[0].tolist() == [[2, 4]]


def test_a_float_artifact_of_a_quantized_graph_is_fed_floats() -> None:
    session = Echo("float32")
    found = run_batches(session, {"x": np.array([[0.123, 4.0]], np.float32)}, known(BYTES))
    assert found["y"].tolist() == session.fed[0].tolist() == [[np.float32(0.123), 4.0]]


def test_whole_numbers_go_into_a_port_whose_integers_mean_themselves() -> None:
    session = Echo("uint8")
    run_batches(session, {"x": np.array([[0.0, 255.0]], np.float32)}, Exterior(default="NHWC"))
    assert session.fed[0].tolist() == [[0, 255]]


@pytest.mark.parametrize("wrong", [[0.5, 1.0], [-1.0, 0.0], [0.0, 256.0], [np.nan, 0.0]])
def test_nothing_is_rounded_where_nobody_says_what_integers_mean(wrong: list[float]) -> None:
    with pytest.raises(UsageError) as caught:
        run_batches(Echo("uint8"), {"x": np.array([wrong], np.float32)}, Exterior(default="NHWC"))
    assert str(caught.value) == (
        "input 'x': uint8 integers were wanted; got numbers that uint8 cannot hold, and nothing says what the port's "
        "integers stand for. Feed integers, or give a contract of raw pixels (mean 0, std 1)."
    )


def test_a_channels_first_integer_port_is_turned_and_scaled() -> None:
    session, image = Echo("int8", (1, 3, 4, 5)), np.arange(60, dtype=np.float32).reshape(1, 4, 5, 3)
    both = Exterior(default="NCHW", input_integers={"x": per_tensor(1.0)}, output_integers={"y": per_tensor(1.0)})
    found = run_batches(session, {"x": image}, both)
    assert (session.fed[0].shape, str(session.fed[0].dtype)) == ((1, 3, 4, 5), "int8")
    np.testing.assert_array_equal(found["y"], image)


def test_only_raw_pixels_for_bytes_are_bytes() -> None:
    pixels = np.array([[[[0.0, 7.0, 255.0]]]], np.float32)
    assert as_fed(pixels, RAW, "uint8").dtype == np.uint8
    assert as_fed(pixels, RAW, "int8") is pixels
    assert as_fed(pixels, Contract(height=2, width=2), "uint8") is pixels


@pytest.mark.parametrize("name", ["mobile", "mobile_uint8", "mobile_with_float_ports"])
@pytest.mark.parametrize("form", ["tflite", "openvino", "onnx"])
def test_an_artifacts_own_tables_say_the_same_as_the_graph(name: str, form: str, tmp_path: Path) -> None:
    graph, converter = GRAPHS[name], registry.load("converters", form)
    path = tmp_path / f"net{converter.suffix}"
    converter.write(graph, path)
    own, wanted = artifact_exterior(path, converter.default_layout), exterior(graph, converter.default_layout)
    for found, stated in ((own.input_integers, wanted.input_integers), (own.output_integers, wanted.output_integers)):
        assert found.keys() == stated.keys()
        for port, quantization in stated.items():
            assert (found[port].zero_point, found[port].dtype) == (quantization.zero_point, quantization.dtype)
            assert found[port].scale == pytest.approx(quantization.scale, rel=1e-6)


@pytest.mark.parametrize("name", ["mobile", "mobile_uint8", "mobile_with_float_ports"])
@pytest.mark.parametrize("form", ["tflite", "openvino", "onnx"])
@pytest.mark.parametrize("target", [None, "reference"])
def test_every_target_takes_numbers_and_gives_what_the_golden_gives(
    name: str, form: str, target: str | None, tmp_path: Path
) -> None:
    graph, converter = GRAPHS[name], registry.load("converters", form)
    path = tmp_path / f"net{converter.suffix}"
    converter.write(graph, path)
    session = target_for(path, target).open(path, SessionOptions())
    fed = values(graph, batch=3)
    found = run_batches(session, fed, exterior(graph, converter.default_layout))["result"]
    golden = execute(graph, fed)["result"]
    step = output_step(graph)
    assert found.dtype == golden.dtype == np.float32
    assert (np.abs(found - golden) <= 1.01 * step).mean() >= 0.99
    assert np.ptp(golden) > 20 * step


def output_step(graph: Graph) -> float:
    """Return the scale of what the output was last quantized to."""
    found = [tensor.quantization for tensor in graph.tensors.values() if tensor.data is None]
    last = [quantization for quantization in found if quantization is not None][-1]
    return last.scale[0]


def picture_input(quantization: Quantization) -> Graph:
    graph = GRAPHS["mobile"]
    port = graph.tensors[graph.inputs[0].tensor]
    return replace(graph, tensors={**graph.tensors, port.name: replace(port, quantization=quantization)})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    for index in range(16):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        image.fromarray(pixels).save(tmp_path / f"{index:02}.png")
    return tmp_path


def test_a_quantized_input_without_a_contract_is_given_the_range_that_it_holds(pictures: Path) -> None:
    feeds = load_feeds(picture_input(per_tensor(1 / 128)), None, pictures, limit=16)
    (fed,) = feeds.values.values()
    assert (fed.min(), fed.max()) == pytest.approx((-1, 127 / 128), abs=0.05)
    assert "scaled to the range of its integers, which is assumed" in feeds.origin


def test_raw_bytes_are_fed_as_the_numbers_that_they_stand_for(pictures: Path) -> None:
    """So that a float artifact of the same network gets the same picture as one that takes the bytes."""
    raw = Contract(height=32, width=32, mean=(0.0,) * 3, std=(1.0,) * 3, resize="stretch")
    (fed,) = load_feeds(picture_input(BYTES), raw, pictures, limit=16).values.values()
    wanted = np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(fed[3], (wanted.astype(np.float32) - 128) / 128)
    np.testing.assert_array_equal(BYTES.quantize(fed[3]), wanted)


PUBLISHED = {
    "imagenet_tflite/mobilenet_v1_0.25_224_quant.tflite": ("uint8", BYTES),
    "imagenet_tflite/mobilenet_v2_1.0_224_quant.tflite": ("uint8", BYTES),
    "mlperf_tiny/pretrainedResnet_quant.tflite": ("int8", per_tensor(1.0, -128)),
    "mlperf_tiny/vww_96_int8.tflite": ("int8", per_tensor(1 / 255, -128)),
}


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of real weights and images (EDGECNN_TEST_DATA)")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_say_what_their_integers_are(name: str) -> None:
    path = DATA / "weights" / name
    dtype, wanted = PUBLISHED[name]
    session = target_for(path, None).open(path, SessionOptions())
    own = artifact_exterior(path, "NHWC")
    ((port, shape),) = session.input_shapes.items()
    assert session.input_dtypes == {port: dtype}
    assert own.input_integers == {port: wanted}
    low, high = wanted.range
    numbers = np.linspace(low, high, 256, dtype=np.float32)
    picture = np.resize(numbers, (2, *(size or 1 for size in shape[1:])))
    (found,) = run_batches(session, {"image": picture}, own).values()
    stored = {"image": wanted.quantize(picture)}
    (again,) = run_batches(session, stored, own).values()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, again)
    (output,) = own.output_integers.values()
    np.testing.assert_array_equal(output.dequantize(output.quantize(found)), found)
