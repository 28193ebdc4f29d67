"""Published float files: read, round-tripped in their own format, converted to all; what cannot be read is refused."""

import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Invocation
from edgecnn.benchmarks.real_files import TASKS, Result, measured
from edgecnn.benchmarks.real_tasks import TASKS as FLOAT_TASKS
from edgecnn.benchmarks.real_tasks import Task
from PIL import Image

from edgecnn import registry
from edgecnn.cli import edgecnn, main
from edgecnn.commands.convert import transposes
from edgecnn.contract import Contract
from edgecnn.convert import Plan, convert
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import SessionOptions
from edgecnn.ports import exterior
from edgecnn.source import format_of, load_source, target_for
from edgecnn.verify import run_batches, snr_db
from edgecnn.vision.letterbox import letterbox
from edgecnn.vision.preprocess import read_image

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
WEIGHTS = DATA / "weights"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of real weights and images (EDGECNN_TEST_DATA)"),
]

IMAGES = 16
MINIMUM_SNR_DB = 100.0
MOST_GROWTH = 1.02
TRANSPOSES = {"tflite": {}, "onnx": {"yolox": 1, "blazeface": 4}}
"""What each artifact is left with: the rows of boxes that YOLOX and BlazeFace give have their channels last."""

REFUSED = {
    "negative_fixtures/model_invoking_error.tflite": "it does not know 'tensor_1' (fake-op-double)",
    "negative_fixtures/person_detect.tflite": "one scale for each channel of axis 3 of (8,) was wanted",
}
"""File -> what is said of it. Quantized files: test_quantized_files."""

Preprocessing = Callable[[Path], Array]


def by(**settings: Any) -> Preprocessing:
    contract = Contract(**settings)
    return lambda path: read_image(path, contract)


def square(side: int, scale: float, **settings: Any) -> Preprocessing:
    return by(height=side, width=side, mean=(0.0,) * 3, std=(scale,) * 3, **settings)


def yolox(path: Path) -> Array:
    return letterbox(np.asarray(Image.open(path).convert("RGB")), 416, fill=114)[0][:, :, ::-1].astype(np.float32)


GREY = by(height=28, width=28, colour_order="GRAY", mean=(0.0,), std=(256.0,))
IMAGENET = by(height=32, width=32, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A float file.

    Attributes:
        file: Below the folder weights.
        preprocessing: By the README of the data.
        is_heavy: Whether the default run leaves it out.
    """

    file: str
    preprocessing: Preprocessing
    is_heavy: bool = False


FILES = {
    "yolox": Published(file="detection_coco/yolox_nano.onnx", preprocessing=yolox),
    "fastestdet": Published(
        file="detection_coco/FastestDet.onnx", preprocessing=square(352, 255, colour_order="BGR", resize="stretch")
    ),
    "mobilefacenet": Published(file="face/mobilefacenet_112.onnx", preprocessing=square(112, 1)),
    "lenet": Published(file="lenet_mnist/lenet_mnist.onnx", preprocessing=GREY),
    "resnet20": Published(file="resnet_cifar10/resnet20_cifar10.onnx", preprocessing=IMAGENET),
    "deeplab": Published(
        file="segmentation_voc/deeplabv3.tflite", preprocessing=by(height=257, width=257), is_heavy=True
    ),
    "blazeface": Published(
        file="face/face_detection_short_range-659bce.tflite", preprocessing=by(height=128, width=128)
    ),
    "mobilenet": Published(
        file="imagenet_tflite/mobilenet_v1_0.25_224_float.tflite", preprocessing=by(height=224, width=224)
    ),
    "vww": Published(file="mlperf_tiny/vww_96_float.tflite", preprocessing=square(96, 255)),
    "resnet8": Published(file="mlperf_tiny/pretrainedResnet.tflite", preprocessing=square(32, 1)),
}
KERAS_2 = {
    "vww_h5": Published(file="mlperf_tiny/vww_96.h5", preprocessing=square(96, 255)),
    "resnet8_h5": Published(file="mlperf_tiny/pretrainedResnet.h5", preprocessing=square(32, 1)),
}


ALL = {**FILES, **KERAS_2}
CASES = [pytest.param(name, marks=[pytest.mark.slow] if row.is_heavy else []) for name, row in FILES.items()]


def images(published: Published) -> Array:
    paths = sorted((DATA / "coco128_train" / "images").glob("*.jpg"))[:IMAGES]
    return np.stack([published.preprocessing(path) for path in paths])


def outputs(path: Path, graph: Graph, values: Array) -> dict[str, Array]:
    """Run a file in the first runtime that opens it, one image at a time."""
    form = format_of(path)
    session = target_for(path, None).open(path, SessionOptions())
    try:
        return run_batches(session, {graph.inputs[0].name: values}, exterior(graph, form.default_layout))
    finally:
        session.close()


# --- reading and writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_round_trip_keeps_what_a_file_computes_and_its_size(name: str, tmp_path: Path) -> None:
    path = WEIGHTS / FILES[name].file
    source, own = load_source(str(path)), format_of(path).name
    artifact = convert(source, tmp_path, Plan(formats=(own,))).artifacts[0]
    assert artifact.size_bytes <= MOST_GROWTH * path.stat().st_size
    values = images(FILES[name])
    wanted, found = outputs(path, source.read, values), outputs(artifact.path, source.graph, values)
    assert [p.name for p in load_source(str(artifact.path)).graph.outputs] == [p.name for p in source.read.outputs]
    assert min(snr_db(wanted[port], found[port]) for port in wanted) >= MINIMUM_SNR_DB


@pytest.mark.parametrize("name", CASES)
def test_every_format_is_left_with_the_transposes_that_it_needs(name: str, tmp_path: Path) -> None:
    source = load_source(str(WEIGHTS / FILES[name].file))
    artifacts = convert(source, tmp_path, Plan(formats=tuple(TRANSPOSES))).artifacts
    assert {each.format: transposes(each) for each in artifacts} == {
        form: needed.get(name, 0) for form, needed in TRANSPOSES.items()
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match the expected structure")
@pytest.mark.parametrize("name", ALL)
def test_every_file_reaches_every_format_with_parity(name: str, tmp_path: Path) -> None:
    path = WEIGHTS / ALL[name].file
    photographs, formats = DATA / "coco128_train" / "images", "tflite,onnx,openvino,keras"
    arguments = ["convert", str(path), "--to", formats, "--data", str(photographs), "-o", str(tmp_path), "--json"]
    found = json.loads(invoke(arguments).stdout)
    assert [parity["passed"] for parity in found["parity"]] == [True] * 4
    assert path.suffix == ".h5" or found["source"]["parity"]["passed"], "no runtime opens the .h5 files of Keras 2"


def test_yolox_is_one_partition_of_litert_without_a_transpose(tmp_path: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    source = load_source(str(WEIGHTS / FILES["yolox"].file))
    artifact = convert(source, tmp_path, Plan(formats=("tflite",))).artifacts[0]

    def kinds(**options: bool) -> Counter[str]:
        opened = interpreter.Interpreter(model_path=str(artifact.path), num_threads=1, **options)
        opened.allocate_tensors()
        return Counter(each["op_name"] for each in opened._get_ops_details())

    assert kinds()["DELEGATE"] == 1
    assert kinds()["TRANSPOSE"] == 0
    apart = kinds(experimental_disable_delegate_node_fusion=True)
    assert apart["DELEGATE"] == sum(artifact.operators.values()), "an operator that the delegate does not take"


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", REFUSED)
def test_what_cannot_be_read_is_refused_with_exit_code_3(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(WEIGHTS / file), "--to", "onnx", "-o", str(tmp_path / "out")])
    assert ended.value.code == 3
    assert REFUSED[file] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- accuracy --------------------------------------------------------------------------------------------------------


def test_every_float_file_has_a_task() -> None:
    assert {task.file for task in FLOAT_TASKS} == {each.file for each in ALL.values()}


def test_lenet_and_its_artifacts_are_as_accurate_as_published() -> None:
    task = next(each for each in TASKS if each.name == "LeNet, MNIST")
    (result,) = measured(task, DATA, formats=("tflite", "onnx", "openvino"))
    assert result.published == 99.0
    assert result.failures == []


def test_a_figure_that_is_off_or_missing_is_a_failure() -> None:
    result = Result(
        task="t", measure="m", images=1, published=50.0, source=50.2, artifacts={"a": 50.0, "b": 49.9}, refused={}
    )
    assert result.failures == ["t, m: b 49.90 for 50.20"]
    wrong = replace(result, source=float("nan"), artifacts={}, refused={"keras": "why"})
    assert wrong.failures == ["t, m: no keras: why", "t, m: source nan for 50.0"]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_all_tasks_are_as_accurate_as_published(task: Task) -> None:
    results = measured(task, DATA, formats=("tflite", "onnx", "openvino", "keras"))
    assert [failure for result in results for failure in result.failures] == []


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--head-only", "--learning-rate", "1e-2"), ("--learning-rate", "3e-4")])
def test_a_published_tflite_file_learns_other_classes_and_goes_back(options: Sequence[str], tmp_path: Path) -> None:
    flowers, trained = flowers_folder(tmp_path / "flowers"), tmp_path / "trained.keras"
    source = WEIGHTS / FILES["mobilenet"].file
    invoke(["convert", str(source), "--to", "keras", "-o", str(tmp_path), "--no-verify"])
    model = tmp_path / f"{source.stem}.keras"
    arguments = ["train", str(model), "--data", str(flowers), "--epochs", "1", "--batch-size", "8", "--new-head"]
    learned = json.loads(invoke([*arguments, *options, "-o", str(trained), "--json"]).stdout)
    assert learned["accuracy"] > 0.3, "five classes: chance is 0.2"
    converted = json.loads(invoke(["convert", str(trained), "--to", "tflite", "-o", str(tmp_path), "--json"]).stdout)
    assert converted["parity"][0]["passed"]
    contract = registry.load("converters", "tflite").read_contract(tmp_path / "trained.tflite")
    assert contract.labels == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert (contract.output, contract.is_assumed, contract.input_range) == ("logits", False, (-1.0, 1.0))
    frozen = "MobilenetV1/MobilenetV1/Conv2d_0/Relu6/linear/kernel"
    before, after = (load_source(str(path)).graph.tensors[frozen].value() for path in (model, trained))
    assert np.array_equal(before, after) == ("--head-only" in options)


def invoke(arguments: Sequence[str]) -> Invocation:
    result = CliRunner().invoke(edgecnn, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def flowers_folder(folder: Path, *, images_per_class: int = 40) -> Path:
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(DATA / "flowers128" / "train.zip") as archive:
        for name in sorted(archive.namelist()):
            kind = name.partition("/")[0]
            if name.endswith(".jpg") and taken[kind] < images_per_class:
                taken[kind] += 1
                archive.extract(name, folder)
    return folder
