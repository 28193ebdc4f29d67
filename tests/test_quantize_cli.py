"""`edgecnn quantize` and `convert --recipe` on a small network and pictures of the tests' own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn
from edgecnn.contract import Contract
from edgecnn.errors import CheckFailedError, InputFileError, OutputError, UnknownNameError, UsageError
from edgecnn.execute import execute
from edgecnn.quantization.recipe import Recipe, load_recipe
from edgecnn.source import Choices, load_source

SIZE = 12


def save_pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
        coarse.resize((2 * SIZE, 2 * SIZE)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with small.tflite, which brings a contract, and 40 pictures."""
    folder = tmp_path_factory.mktemp("quantize")
    save_pictures(folder / "pictures", 40)
    b = GraphBuilder("small", initialise=he_normal(3))
    x = b.conv(b.input("image", (1, SIZE, SIZE, 3)), "stem", 8, kernel_size=3, stride=2, use_bias=True)
    x = b.activate(b.depthwise(b.activate(x, "clamp", ops.ReLU6()), "dw", kernel_size=3), "swish", ops.Swish())
    x = b.node("pool", ops.Mean(axes=(1, 2)), b.conv(x, "pw", 8, kernel_size=1, use_bias=True))
    contract = Contract(height=SIZE, width=SIZE, crop_fraction=1.0)
    graph = replace(b.finish({"logits": b.dense(x, "head", 5)}), contract=contract)
    registry.load("converters", "tflite").write(graph, folder / "small.tflite")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(edgecnn, list(map(str, arguments)))


def data_of(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    return json.loads(result.stdout)


def refused(kind: type[Exception], message: str, *arguments: object) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, kind), f"{result.output} {result.exception}"
    assert message in str(result.exception)


def test_quantize_writes_verified_integers_and_says_what_they_cost(work: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, recipe, picture = tmp_path / "out", tmp_path / "made" / "recipe.json", tmp_path / "made" / "layers.png"
    options = ["--data", work / "pictures", "--calibration-images", "20", "--io", "int8", "--equalize"]
    found = data_of(
        *("quantize", work / "small.tflite", "-o", out, *options, "--save-recipe", recipe, "--picture", picture)
    )
    assert [parity["passed"] for parity in found["parity"]] == [True] * 3
    assert {path.name for path in out.iterdir()} == {
        f"small_static_w8_a8.{end}" for end in ("tflite", "onnx", "xml", "bin")
    }
    assert load_recipe(str(recipe)) == Recipe(io="int8", equalize=True)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in recipe.parent.iterdir()) == ["layers.png", "recipe.json"]
    lost = found["quantization"]
    assert lost["scores"][0]["repair"] == "none"
    assert lost["scores"][-1]["repair"] == "bias_correction"
    assert {layer["node"] for layer in lost["layers"]} >= {"stem", "dw", "pw", "head"}
    assert lost["layers"] == sorted(lost["layers"], key=lambda layer: layer["own_snr_db"])
    assert (lost["calibration"]["images"], lost["calibration"]["is_random"]) == (20, False)
    assert lost["measured_on"] == "16 images, not calibrated on"


def test_the_report_is_readable(work: Path, tmp_path: Path) -> None:
    result = run("quantize", work / "small.tflite", "-o", tmp_path, "--data", work / "pictures", "--to", "tflite")
    assert result.exit_code == 0, result.output
    for text in ("Calibrated on 40 images", "no repair", "+ bias correction", "worst layers first", "Instruction set"):
        assert text in result.stdout


def test_a_saved_recipe_makes_the_same_bytes_again(work: Path, tmp_path: Path) -> None:
    common = [work / "small.tflite", "--data", work / "pictures", "--to", "tflite", "--no-verify"]
    data_of("quantize", *common, "-o", tmp_path / "a", "--scales", "tensor", "--save-recipe", tmp_path / "r.json")
    data_of("convert", *common, "-o", tmp_path / "b", "--recipe", tmp_path / "r.json")
    one, other = (tmp_path / name / "small_static_w8_a8.tflite" for name in "ab")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("recipe", ["weight_only_w8", "dynamic_w8", "float16", "static_w8_a16"])
def test_every_recipe_goes_through_the_command_line(recipe: str, work: Path, tmp_path: Path) -> None:
    options = ["--data", work / "pictures", "--to", "tflite", "-o", tmp_path]
    found = data_of("convert", work / "small.tflite", "--recipe", recipe, *options)
    assert [parity["passed"] for parity in found["parity"]] == [True]
    assert (tmp_path / f"small_{recipe}.tflite").is_file()


def test_bytes_of_a_picture_are_taken(work: Path, tmp_path: Path) -> None:
    options = ["--data", work / "pictures", "--io", "uint8", "-o", tmp_path]
    found = data_of("quantize", work / "small.tflite", *options)
    assert [parity["passed"] for parity in found["parity"]] == [True] * 3
    graph = load_source(str(tmp_path / "small_static_w8_a8.tflite"), Choices(), report=lambda text: None).graph
    port = graph.tensors[graph.inputs[0].tensor].quantization
    assert port is not None
    assert (port.scale, port.zero_point, port.dtype) == ((1.0,), (128,), "uint8")
    assert execute(graph, {"image": np.zeros((1, SIZE, SIZE, 3), np.uint8)})["logits"].shape == (1, 5)


def test_layers_may_be_kept_and_a_misspelt_one_is_refused(work: Path, tmp_path: Path) -> None:
    common = ["quantize", work / "small.tflite", "--data", work / "pictures", "--to", "onnx", "-o", tmp_path]
    found = data_of(*common, "--layer", "he*=float32", "--no-verify")
    assert found["quantization"]["recipe"]["overrides"] == [["he*", "float32"]]
    (tmp_path / "r.json").write_text(Recipe(overrides=(("stem", "float32"),)).to_json())
    options = ["--recipe", tmp_path / "r.json", "--layer", "*=static_w7_a8", "--no-verify", "--force"]
    found = data_of(*common, *options)
    assert found["quantization"]["recipe"]["overrides"] == [["*", "static_w7_a8"], ["stem", "float32"]]
    refused(UnknownNameError, "'haed' fits none. Did you mean 'head'?", *common, "--layer", "haed=float32", "--force")
    refused(UsageError, "--layer: PATTERN=PRECISION was wanted; got 'head'", *common, "--layer", "head")


def test_random_numbers_are_stamped_into_the_artifact(work: Path, tmp_path: Path) -> None:
    options = ["--random-data", "--calibration-images", "8", "--to", "tflite", "--no-verify", "-o", tmp_path]
    found = data_of("quantize", work / "small.tflite", *options)
    assert found["quantization"]["calibration"]["is_random"] is True
    graph = load_source(str(tmp_path / "small_static_w8_a8.tflite"), Choices(), report=lambda text: None).graph
    assert graph.contract is not None
    assert graph.contract.calibration == "8 random inputs: not fit for use"
    assert graph.contract.recipe == "static_w8_a8"


def test_images_that_contradict_the_contract_are_refused_unless_told(work: Path, tmp_path: Path) -> None:
    dull = np.full((20, SIZE, SIZE, 3), 200.0, np.float32) + np.random.default_rng(0).normal(0, 20, (20, SIZE, SIZE, 3))
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "raw.npy", dull.astype(np.float32))  # pixels where -1..1 were wanted
    common = ["quantize", work / "small.tflite", "--data", tmp_path / "data", "--to", "tflite", "--no-verify"]
    refused(UsageError, "--ignore-lint takes them all the same", *common, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    found = data_of(*common, "-o", tmp_path / "out", "--ignore-lint")
    assert "error" in {finding["severity"] for finding in found["quantization"]["lint"]}


def test_inputs_that_are_no_pictures_take_arrays_and_never_random_numbers_unasked(tmp_path: Path) -> None:
    b = GraphBuilder("two", initialise=he_normal(0))
    one, two = b.input("one", (1, 6)), b.input("two", (1, 6))
    graph = b.finish({"y": b.dense(b.node("sum", ops.Add(), one, two), "head", 4)})
    registry.load("converters", "tflite").write(graph, tmp_path / "two.tflite")
    (tmp_path / "data").mkdir()
    options = ["--data", tmp_path / "data", "--to", "tflite", "-o", tmp_path / "out"]
    common = ["quantize", tmp_path / "two.tflite", *options]
    wanted = "one .npz file with an array (N, ...) for each input was wanted, since 'one' is no picture; found 0."
    refused(UsageError, wanted, *common)
    values = np.random.default_rng(0).uniform(-3, 3, (2, 24, 6)).astype(np.float32)
    np.savez(tmp_path / "data" / "values.npz", one=values[0], two=values[1])
    found = data_of(*common)
    assert found["quantization"]["calibration"]["images"] == 24
    assert found["quantization"]["calibration"]["is_random"] is False
    assert found["quantization"]["measured_on"] == "16 inputs, calibrated on, too"
    made = load_source(str(tmp_path / "out" / "two_static_w8_a8.tflite"), Choices(), report=lambda text: None).graph
    scale = next(t.quantization.scale[0] for t in made.tensors.values() if t.name.startswith("sum") and t.quantization)
    assert scale == pytest.approx(np.ptp(values.sum(axis=0)) / 255, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "message", "options"),
    [
        (UsageError, "--data: a folder with real images was wanted to calibrate static_w8_a8 on", []),
        (UsageError, "--picture: a file that ends in .png was wanted; got p.jpg", ["--picture", "p.jpg"]),
        (UsageError, "--save-recipe: a file that ends in .json was wanted; got r", ["--save-recipe", "r"]),
        (UsageError, "--picture: there is nothing to draw", ["--picture", "p.png", "--no-verify"]),
        (UsageError, "--picture: layers of integers were wanted", ["--recipe", "dynamic_w8", "--picture", "p.png"]),
        (UsageError, "--equalize: a static recipe was wanted", ["--recipe", "dynamic_w8", "--equalize"]),
        (UsageError, "--bias-correction: a static", ["--recipe", "float32", "--bias-correction", "none"]),
        (UsageError, "need a static precision; got dynamic_w8", ["--recipe", "dynamic_w8", "--io", "int8"]),
        (UsageError, "one of float32, float16, dynamic_w8", ["--recipe", "int8"]),
        (UsageError, "there is no such file", ["--recipe", "none.json"]),
        (UsageError, "Keras' layers keep float32", ["--to", "keras", "--recipe", "weight_only_w8"]),
    ],
)
def test_wrong_usage_is_refused(
    kind: type[Exception], message: str, options: list[str], work: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    refused(kind, message, "quantize", work / "small.tflite", "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_what_is_quantized_is_not_quantized_again(work: Path, tmp_path: Path) -> None:
    data_of("convert", work / "small.tflite", "--recipe", "dynamic_w8", "--to", "tflite", "-o", tmp_path, "--no-verify")
    data_of("quantize", work / "small.tflite", "--random-data", "--to", "tflite", "-o", tmp_path, "--no-verify")
    made = tmp_path / "small_static_w8_a8.tflite"
    common = ["quantize", made, "--data", work / "pictures", "--to", "onnx", "--no-verify", "-o", tmp_path / "out"]
    refused(UsageError, "this one is quantized. Give --dequantize.", *common)
    assert not (tmp_path / "out").exists()
    assert data_of(*common, "--dequantize")["quantization"]["recipe"]["precision"] == "static_w8_a8"


def test_a_damaged_recipe_is_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{")
    refused(
        InputFileError, "a recipe cannot be read", "quantize", work / "small.tflite", "--recipe", tmp_path / "r.json"
    )


@pytest.mark.parametrize("option", ["--save-recipe", "--picture"])
def test_a_file_that_is_there_or_cannot_be_written_ends_it_before_it_begins(
    option: str, work: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    name = {"--save-recipe": "r.json", "--picture": "p.png"}[option]
    (tmp_path / name).write_text("kept")
    common = ["quantize", work / "small.tflite", "--data", work / "pictures", "--to", "tflite", "-o", tmp_path / "out"]
    refused(OutputError, "exists already. Use --force", *common, option, tmp_path / name)
    refused(OutputError, "a writable folder was wanted", *common, option, tmp_path / name / name)
    assert (tmp_path / name).read_text() == "kept"
    assert not (tmp_path / "out").exists()
    data_of(*common, option, tmp_path / name, "--force")
    assert (tmp_path / name).read_bytes() != b"kept"


def test_a_failed_check_hands_nothing_over(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecnn.tolerance.MINIMUM_SNR_DB", 1000.0)
    monkeypatch.setattr("edgecnn.tolerance.computes_in_integers", lambda graph: False)
    common = ["quantize", work / "small.tflite", "--data", work / "pictures", "--to", "tflite", "-o", tmp_path / "out"]
    result = run(*common, "--recipe", "weight_only_w8", "--save-recipe", tmp_path / "r.json")
    assert result.exit_code == 1
    assert isinstance(result.exception, CheckFailedError)
    assert not list((tmp_path / "out").glob("small_*.tflite"))
