"""What people run into on the first day: parts of files, files without a contract, pictures that are none, NaN."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn
from edgecnn.contract import assumed_contract
from edgecnn.errors import CheckFailedError, InputFileError, UsageError
from edgecnn.graph import Graph
from edgecnn.vision.photographs import carried_photographs


def run(*arguments: object) -> tuple[Any, Exception | None]:
    result = CliRunner().invoke(edgecnn, [*map(str, arguments), "--json"])
    error = result.exception if isinstance(result.exception, Exception) else None
    return (json.loads(result.stdout) if result.stdout else None), error


def network(scale: float = 1.0) -> Graph:
    """A small classifier of pixels as they are, without a contract."""
    b = GraphBuilder("plain", initialise=he_normal(0))
    x = b.conv(b.input("image", (1, 16, 16, 3)), "conv", 8, kernel_size=3, use_bias=True)
    x = b.node("scaled", ops.Mul(), x, b.constant("scale", np.full(1, scale, np.float32)))
    return b.finish({"scores": b.dense(b.node("flat", ops.Reshape(shape=(1, 2048)), x), "fc", 5)})


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path: Path = registry.load("converters", "onnx").write(network(), tmp_path / "plain.onnx").path
    return path


def test_a_part_of_a_file_without_a_contract_is_verified(plain: Path, tmp_path: Path) -> None:
    found, error = run("convert", plain, "--inputs", "conv", "--to", "tflite", "-o", tmp_path / "out")
    assert error is None
    assert found["verified"]
    assert found["passed"]


def test_verify_agrees_with_convert_about_a_file_without_a_contract(plain: Path, tmp_path: Path) -> None:
    for recipe in ("float32", "float16"):
        out = tmp_path / recipe
        found, _ = run("convert", plain, "--to", "tflite", "--recipe", recipe, "-o", out)
        again, error = run("verify", plain, found["artifacts"][0]["path"])
        assert error is None
        assert again["parity"][0]["snr_db"] == pytest.approx(found["parity"][0]["snr_db"], abs=1)


@pytest.mark.parametrize("batch", ["3", "dynamic"])
def test_the_batch_of_a_file_that_states_its_own_can_be_chosen(batch: str, plain: Path, tmp_path: Path) -> None:
    found, error = run("convert", plain, "--to", "onnx", "--batch", batch, "-o", tmp_path / "out")
    assert error is None
    assert found["passed"]


def test_only_one_range_is_said_to_be_assumed(plain: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(edgecnn, ["convert", str(plain), "--to", "onnx", "-o", str(tmp_path / "out")])
    assert "is assumed, for verifying here" in result.stderr
    assert "which is assumed" not in result.stdout


def test_what_was_not_verified_did_not_pass(plain: Path, tmp_path: Path) -> None:
    found, _ = run("convert", plain, "--to", "tflite", "--no-verify", "-o", tmp_path / "out")
    assert (found["verified"], found["passed"]) == (False, None)


def test_a_picture_that_is_none_is_no_fault_of_the_artifact(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(16):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"no picture")
    _, error = run("convert", plain, "--data", tmp_path / "images", "-o", tmp_path / "out")
    assert isinstance(error, InputFileError)
    assert "0.png" in str(error)


def test_a_network_that_gives_nan_says_so(tmp_path: Path) -> None:
    path = registry.load("converters", "onnx").write(network(float("nan")), tmp_path / "nan.onnx").path
    _, error = run("convert", path, "--to", "tflite", "-o", tmp_path / "out")
    assert isinstance(error, CheckFailedError)
    assert "'scores' holds NaN or infinity on real images" in str(error)
    assert not (tmp_path / "out").exists()


def test_the_source_is_never_replaced(plain: Path) -> None:
    before = plain.read_bytes()
    _, error = run("convert", plain, "--to", "onnx", "-o", plain.parent, "--force", "--no-verify")
    assert isinstance(error, UsageError)
    assert "this is the source itself" in str(error)
    assert plain.read_bytes() == before


def test_keras_cannot_store_float16(tmp_path: Path) -> None:
    _, error = run("convert", "lenet5", "--to", "tflite,keras", "--recipe", "float16", "-o", tmp_path)
    assert isinstance(error, UsageError)
    assert "Keras' layers keep float32" in str(error)


def test_one_output_is_one_output_whatever_its_name(plain: Path, tmp_path: Path) -> None:
    other = GraphBuilder("other", initialise=he_normal(0))
    x = other.conv(other.input("image", (1, 16, 16, 3)), "conv", 8, kernel_size=3, use_bias=True)
    x = other.node("scaled", ops.Mul(), x, other.constant("scale", np.ones(1, np.float32)))
    x = other.dense(other.node("flat", ops.Reshape(shape=(1, 2048)), x), "fc", 5)
    twin = registry.load("converters", "tflite").write(other.finish({"Identity": x}), tmp_path / "twin.tflite").path
    found, error = run("verify", plain, twin)
    assert error is None
    assert found["passed"]


def test_run_says_that_the_contract_is_a_guess_in_json_too(tmp_path: Path) -> None:
    guessed = replace(network(), contract=assumed_contract(16, 16, 3))
    path = registry.load("converters", "tflite").write(guessed, tmp_path / "m.tflite").path
    result = CliRunner().invoke(edgecnn, ["run", str(path), str(carried_photographs()[1][0]), "--json"])
    assert json.loads(result.stdout)["classes"]
    assert "CAUTION: the model does not say how pixels become its input" in result.stderr
