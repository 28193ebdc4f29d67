"""Quantized files through the whole tool: no integer changes, and every command knows what they stand for."""

import json
import os
from collections import Counter
from collections.abc import Hashable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from edgecnn.benchmarks.bench import feed
from edgecnn.benchmarks.quantized_tasks import TASKS, ssd
from edgecnn.benchmarks.real_files import measured

from edgecnn import registry
from edgecnn.cli import edgecnn
from edgecnn.contract import Contract
from edgecnn.convert import Plan, convert
from edgecnn.count import count
from edgecnn.errors import UnsupportedError, UsageError
from edgecnn.execute import execute
from edgecnn.graph import Graph, Port
from edgecnn.interfaces import SessionOptions
from edgecnn.passes.dequantize import dequantize
from edgecnn.quantization.parameters import per_tensor
from edgecnn.source import Choices, load_source, target_for
from edgecnn.tolerance import NOISE_MARGIN_DB
from tests.quantized_graphs import GRAPHS, MOBILE, values

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
WEIGHTS = DATA / "weights"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of real weights (EDGECNN_TEST_DATA)")

FORMATS = ("tflite", "onnx", "openvino")
VWW, RESNET = "mlperf_tiny/vww_96_int8.tflite", "mlperf_tiny/pretrainedResnet_quant.tflite"
SSD = "detection_coco/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29_no_metadata.tflite"
FILES = [
    pytest.param(name, marks=[pytest.mark.slow] if is_heavy else [])
    for name, is_heavy in {
        VWW: False,
        RESNET: False,
        "imagenet_tflite/mobilenet_v1_0.25_224_quant.tflite": False,
        "imagenet_onnx/mobilenet_v2_quant.onnx": False,
        "imagenet_tflite/mobilenet_v1_0.5_160_quant.tflite": True,
        "imagenet_tflite/mobilenet_v2_1.0_224_quant.tflite": True,
        "segmentation_voc/deeplabv3_mnv2_dm05_pascal_quant.tflite": True,
    }.items()
]
CONTRACT = Contract(height=32, width=32)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(edgecnn, list(map(str, arguments)))


def meaning(graph: Graph, digits: int = 9) -> Counter[Hashable]:
    """Count what the integers of constants are, int8 and uint8 alike, and list the scales of activations.

    Args:
        graph: Any.
        digits: Of the activations' scales that count; 9 tell any two float32 numbers apart.
    """
    found: Counter[Hashable] = Counter()
    for tensor in graph.tensors.values():
        scales = tensor.quantization
        if scales is None:
            continue
        if tensor.data is not None:
            found["constant", scales.scale, (tensor.data - scales.zero_points(tensor.data.ndim)).tobytes()] += 1
        else:
            lowest = tuple(scales.limits[0] - zero for zero in scales.zero_point)
            steps = tuple(f"{scale:.{digits}g}" for scale in scales.scale)
            found["activation", steps, lowest, np.dtype(scales.dtype).itemsize] = 1
    return found


def reread(graph: Graph, form: str, folder: Path) -> Graph:
    artifact = convert(graph, folder, Plan(formats=(form,), force=True)).artifacts[0]
    return load_source(str(artifact.path)).graph


def written(graph: Graph, form: str, folder: Path, name: str = "m") -> Path:
    writer = registry.load("converters", form)
    contract = replace(CONTRACT, recipe="static_w8_a8" if graph.is_quantized else "float32")
    path: Path = writer.write(replace(graph, contract=contract), folder / f"{name}{writer.suffix}").path
    return path


# --- integers --------------------------------------------------------------------------------------------------------


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", FILES)
def test_every_format_keeps_every_integer_and_scale_of_a_published_file(name: str, tmp_path: Path) -> None:
    source = load_source(str(WEIGHTS / name)).graph
    for form in FORMATS:
        digits = 6 if form == "openvino" else 9  # FakeQuantize stores a range, of which the scale is a rounded quotient
        wanted, found = meaning(source, digits), meaning(reread(source, form, tmp_path), digits)
        assert wanted - found == Counter(), f"{form} lost some"
        added = found - wanted
        # TFLite's PAD and its bias of zeros, an ONNX port's other type: nothing else may come.
        assert added.total() <= 6, f"{form}: {[each[:2] for each in added if isinstance(each, tuple)]}"
    own = Path(name).suffix[1:]
    assert meaning(reread(source, own, tmp_path)) == meaning(source)


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", [VWW, RESNET, "imagenet_tflite/mobilenet_v1_0.25_224_quant.tflite"])
def test_what_an_onnx_file_gives_back_computes_the_same_integers(name: str, tmp_path: Path) -> None:
    source = load_source(str(WEIGHTS / name)).graph
    back = reread(source, "onnx", tmp_path)
    fed = {port.name: each for port, each in zip(source.inputs, values(source, batch=1).values(), strict=True)}
    (wanted,), (found,) = (execute(graph, fed, stored=True).values() for graph in (source, back))
    assert np.array_equal(wanted, found)


@pytest.mark.parametrize("name", [name for name in GRAPHS if name.endswith(("_weight_only", "_dynamic_range"))])
def test_weights_alone_stay_integers(name: str, tmp_path: Path) -> None:
    graph = reread(GRAPHS[name], "tflite", tmp_path)
    assert meaning(GRAPHS[name]) - meaning(graph) == Counter()


def test_halves_are_rounded_before_an_odd_zero_point_is_added() -> None:
    """As ONNX, XNNPACK and OpenVINO do."""
    found = per_tensor(1.0, 3).quantize(np.array([-1.5, -0.5, 0.5, 1.5, 2.5], np.float32))
    assert found.tolist() == [1, 3, 3, 5, 5]


# --- the float network that integers stand for -----------------------------------------------------------------------


def test_dequantize_reads_the_float_equivalent(tmp_path: Path) -> None:
    stamped = replace(CONTRACT, recipe="static_w8_a8", calibration="16 images")
    path = (
        registry.load("converters", "tflite")
        .write(replace(GRAPHS["mobile"], contract=stamped), tmp_path / "m.tflite")
        .path
    )
    source = load_source(str(path), Choices(dequantize=True))
    assert source.read.is_quantized
    assert not source.graph.is_quantized
    assert source.graph.contract is not None
    assert (source.graph.contract.recipe, source.graph.contract.calibration) == ("float32", "")
    fed = values(MOBILE)
    (wanted,), (found,) = (execute(graph, fed).values() for graph in (dequantize(source.read), source.graph))
    np.testing.assert_array_equal(found, wanted)


def test_a_float_file_is_what_it_is_with_dequantize(tmp_path: Path) -> None:
    source = load_source(str(written(MOBILE, "tflite", tmp_path)), Choices(dequantize=True))
    assert source.graph is source.read


def test_keras_takes_no_integers(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"keep float32 variables; this one is quantized\. Give --dequantize"):
        convert(GRAPHS["mobile"], tmp_path, Plan(formats=("keras",)))
    assert list(tmp_path.iterdir()) == []


def test_keras_takes_the_float_equivalent(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    path = written(GRAPHS["mobile"], "tflite", tmp_path)
    result = run("convert", path, "--to", "keras", "--dequantize", "-o", tmp_path / "out", "--no-verify")
    assert result.exit_code == 0, result.output
    assert not load_source(str(tmp_path / "out/m.keras")).graph.is_quantized


def test_a_quantized_file_is_quantized_anew_only_with_dequantize(tmp_path: Path) -> None:
    path = written(GRAPHS["mobile"], "tflite", tmp_path)
    arguments = ("convert", path, "--to", "tflite", "--recipe", "weight_only_w8", "--no-verify", "-o", tmp_path / "out")
    refused = run(*arguments)
    assert isinstance(refused.exception, UsageError)
    assert "this one is quantized. Give --dequantize." in str(refused.exception)
    result = run(*arguments, "--dequantize")
    assert result.exit_code == 0, result.output


# --- commands --------------------------------------------------------------------------------------------------------


def test_an_artifact_of_integers_is_verified_against_its_float_source(tmp_path: Path) -> None:
    """Its only output may have another name than the source's."""
    source = written(MOBILE, "tflite", tmp_path, "float")
    other = replace(GRAPHS["mobile"], outputs=(replace(GRAPHS["mobile"].outputs[0], name="Identity_int8"),))
    artifacts = [written(other, form, tmp_path, "int8") for form in ("tflite", "onnx")]
    result = run("verify", source, *artifacts, "--json")
    assert result.exit_code == 0, result.output
    for parity in json.loads(result.stdout)["parity"]:
        assert parity["passed"]
        assert parity["minimum_snr_db"] == pytest.approx(parity["rounding_snr_db"] - NOISE_MARGIN_DB)
        assert parity["rounding_snr_db"] > 0


def test_outputs_of_another_model_are_refused(tmp_path: Path) -> None:
    more = Port(name="more", tensor=GRAPHS["mobile"].nodes[-2].output)
    two = replace(GRAPHS["mobile"], outputs=(*GRAPHS["mobile"].outputs, more))
    paths = [written(graph, "tflite", tmp_path, name) for name, graph in (("a", two), ("b", GRAPHS["mobile"]))]
    result = run("verify", *paths)
    assert isinstance(result.exception, UsageError)
    assert "Is it of this model?" in str(result.exception)


def test_bench_feeds_an_integer_port_the_integers_that_stand_for_pixels(tmp_path: Path) -> None:
    path = written(GRAPHS["mobile"], "tflite", tmp_path)
    scales = GRAPHS["mobile"].tensors[GRAPHS["mobile"].inputs[0].tensor].quantization
    assert scales is not None
    with closing(target_for(path, None).open(path, SessionOptions())) as session:
        inputs, origin = feed(session, CONTRACT, None, path)
    (fed,) = inputs.values()
    assert "photographs" in origin
    assert fed.dtype == np.int8
    assert -1 - scales.scale[0] <= scales.dequantize(fed).min() < -0.5 < 0.5 < scales.dequantize(fed).max()


def test_cost_counts_bytes_as_they_are_stored() -> None:
    stored, as_float = count(GRAPHS["mobile"]), count(MOBILE)
    assert (stored.macs, stored.trainable) == (as_float.macs, as_float.trainable)
    assert 0.25 <= stored.bytes_moved / as_float.bytes_moved < 0.3, "biases stay four bytes wide"


def test_the_difference_to_a_float_twin_is_a_few_rows(tmp_path: Path) -> None:
    twins = [written(graph, "tflite", tmp_path, name) for name, graph in (("a", MOBILE), ("b", GRAPHS["mobile"]))]
    lines = run("inspect", "--diff", *twins).stdout.splitlines()
    rows = [line.split() for line in lines if "stored as" in line]
    layers = "9"
    assert rows == [
        [layers, "nodes", "input", "1,", "stored", "as", "float32", "int8"],
        [layers, "nodes", "input", "2,", "stored", "as", "float32", "int32"],
    ]


# --- published files -------------------------------------------------------------------------------------------------


@pytest.mark.data
@needs_data
def test_the_operator_that_only_tflite_has_is_refused_by_name_elsewhere(tmp_path: Path) -> None:
    result = run("convert", WEIGHTS / SSD, "--to", "onnx", "--no-verify", "-o", tmp_path)
    assert isinstance(result.exception, UnsupportedError)
    assert "onnx has no row for the operator DetectionPostProcess. Cut the network before it with --outputs." in str(
        result.exception
    )
    cut = run("convert", WEIGHTS / SSD, "--to", "onnx", "--no-verify", "-o", tmp_path, "--outputs", "convert_scores")
    assert cut.exit_code == 0, cut.output
    assert load_source(str(next(tmp_path.glob("*.onnx")))).graph.is_quantized


@pytest.mark.data
@needs_data
def test_every_quantized_file_has_a_task() -> None:
    assert {task.file for task in TASKS} == {SSD, *(param.values[0] for param in FILES)}


@pytest.mark.data
@needs_data
def test_a_quantized_file_and_its_artifacts_decide_alike() -> None:
    task = next(each for each in TASKS if each.file == RESNET and "JPEG" in each.name)
    (result,) = measured(task, DATA, formats=(*FORMATS, "keras"))
    assert result.published == 75.2
    assert set(result.artifacts) == set(FORMATS)
    assert result.failures == []


def test_classes_of_the_detector_are_counted_without_the_gaps() -> None:
    found = ssd(np.zeros((3, 4)), np.array([0.0, 12.0, 89.0]), np.ones(3))
    assert found.classes.tolist() == [0, 11, 79], "person, stop sign, toothbrush"
