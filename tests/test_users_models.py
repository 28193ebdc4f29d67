"""Models that users bring, through the command line: what is verified, what is said, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgecnn.cli import edgecnn
from tests.test_keras_models import users_model

keras = pytest.importorskip("keras")


def saved(model: Any, folder: Path) -> Path:
    path = folder / "users.keras"
    model.save(path)
    return path


def test_a_model_with_two_inputs_is_verified_in_all_formats_and_has_no_transpose(tmp_path: Path) -> None:
    path = saved(users_model(keras), tmp_path)
    result = CliRunner().invoke(edgecnn, ["convert", str(path), "-o", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [parity["passed"] for parity in found["parity"]] == [True] * 3
    assert [artifact["transposes"] for artifact in found["artifacts"]] == [0, 0, 0]


def test_two_inputs_never_see_the_same_picture_at_once(tmp_path: Path) -> None:
    a, b = (keras.Input((16, 16, 3), name=name) for name in "ab")
    difference = keras.layers.GlobalAveragePooling2D()(keras.layers.Subtract()([a, b]))
    path = saved(keras.Model([a, b], keras.layers.Dense(3)(difference)), tmp_path)
    result = CliRunner().invoke(edgecnn, ["convert", str(path), "--to", "onnx", "-o", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    assert 80 < json.loads(result.stdout)["parity"][0]["snr_db"] < 200


def test_a_model_whose_output_never_changes_proves_nothing(tmp_path: Path) -> None:
    x = keras.Input((16, 16, 3))
    y = keras.layers.Dense(3, kernel_initializer="zeros")(keras.layers.GlobalAveragePooling2D()(x))
    result = CliRunner().invoke(
        edgecnn, ["convert", str(saved(keras.Model(x, y), tmp_path)), "-o", str(tmp_path / "o")]
    )
    assert result.exit_code == 1
    assert "SNR of -inf dB" in str(result.exception)
    assert "float32 itself resolves only -inf dB of that, so nothing can be proved" in str(result.exception)


@pytest.mark.parametrize(("rescaled", "wanted"), [(True, "0..255"), (False, "-1..1")])
def test_a_guessed_range_is_announced_and_rescaling_is_seen(rescaled: bool, wanted: str, tmp_path: Path) -> None:
    x = keras.Input((16, 16, 3))
    scaled = keras.layers.Rescaling(1 / 255)(x) if rescaled else x
    y = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(scaled)))
    path = saved(keras.Model(x, y), tmp_path)
    result = CliRunner().invoke(edgecnn, ["convert", str(path), "--to", "onnx", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert f"RGB in {wanted} is assumed" in result.stderr


def test_sizes_that_no_memory_holds_are_refused_before_they_are_made(tmp_path: Path) -> None:
    for arguments in (["mobilenet_v1", "--width", "50"], ["lenet5", "--resolution", "10000", "--to", "onnx"]):
        result = CliRunner().invoke(edgecnn, ["convert", *arguments, "-o", str(tmp_path / "out")])
        assert result.exit_code != 0
        assert "were wanted; these would take" in str(result.exception) or "was wanted; " in str(result.exception)
    assert not (tmp_path / "out").exists()
