"""The command line as a user meets it: results, exit codes, and nothing half written."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgecnn.cli import COMMANDS, edgecnn, main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(edgecnn, list(arguments))


def data_of(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return (exit code, stderr) of a command line that is refused; stdout must stay clean."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, captured.err


def test_help_is_fast_and_imports_no_framework() -> None:
    code = "import sys, edgecnn.cli as c\ntry: c.main(['--help'])\nfinally: print(sorted(sys.modules), file=sys.stderr)"
    command = [sys.executable, "-c", code]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    loaded = done.stderr
    for framework in (
        "numpy",
        "onnx",
        "keras",
        "tensorflow",
        "openvino",
        "ai_edge_litert",
        "rich",
        "edgecnn.converters",
    ):
        assert f"'{framework}'" not in loaded
    assert all(name in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.25


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_cost_has_the_published_numbers() -> None:
    v1 = data_of("cost", "mobilenet_v1")
    assert (v1["macs"], v1["trainable"], v1["total"]) == (568_740_352, 4_231_976, 4_253_864)
    assert data_of("cost", "mobilenet_v1", "--convolution", "normal")["macs"] == 4_867_293_184
    v2 = data_of("cost", "mobilenet_v2", "--versus", "normal")
    assert (v2["macs"], v2["trainable"], v2["total"]) == (300_774_272, 3_504_872, 3_538_984)
    assert v2["normal"]["macs"] == 1_224_972_288
    assert v2["schema_version"] == 1
    for pair in v2["normal"]["pairs"]:
        assert pair["predicted_ratio"] == pytest.approx(pair["actual_ratio"])


def test_cost_shows_each_layer_and_its_share() -> None:
    result = run("cost", "lenet5")
    assert "416,520" in result.stdout
    assert "57.6%" in result.stdout, "c3 has 240,000 of 416,520 MACs"


def test_models_lists_the_zoo() -> None:
    assert {"lenet5", "mobilenet_v1", "mobilenet_v2"} <= {row["name"] for row in data_of("models")["models"]}


def test_targets_tells_what_can_be_used() -> None:
    states = {row["name"]: row["state"] for row in data_of("targets")["targets"]}
    assert states["reference"] == "available"
    assert set(states) == {"reference", "keras_cpu", "litert_cpu", "onnxruntime_cpu", "openvino_cpu"}


def test_convert_verify_run_and_bench_work_together(tmp_path: Path) -> None:
    network = ("--width", "0.35", "--resolution", "96")
    made = data_of("convert", "mobilenet_v2", *network, "-o", str(tmp_path))
    assert made["passed"]
    assert [parity["images"] for parity in made["parity"]] == [16, 16, 16]
    paths = [artifact["path"] for artifact in made["artifacts"]]
    assert [Path(path).name for path in paths] == ["mobilenet_v2.tflite", "mobilenet_v2.onnx", "mobilenet_v2.xml"]
    assert data_of("verify", "mobilenet_v2", *network, *paths)["passed"]
    image = photograph()
    first = [data_of("run", path, str(image))["classes"][0]["index"] for path in paths]
    assert len(set(first)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mobilenet_v2.bin",
        "mobilenet_v2.onnx",
        "mobilenet_v2.tflite",
        "mobilenet_v2.xml",
    ]


def test_verify_fails_for_another_network(tmp_path: Path) -> None:
    network = ("--width", "0.35", "--resolution", "96")
    data_of("convert", "mobilenet_v2", *network, "--to", "tflite", "-o", str(tmp_path), "--no-verify")
    result = run("verify", "mobilenet_v2", *network, "--seed", "1", str(tmp_path / "mobilenet_v2.tflite"), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["parity"][0]["passed"] is False


def test_float16_reports_what_the_rounding_costs(tmp_path: Path) -> None:
    arguments = ("convert", "lenet5", "--recipe", "float16", "--to", "onnx", "-o", str(tmp_path))
    parity = data_of(*arguments)["parity"][0]
    assert parity["passed"]
    assert 30 < parity["rounding_snr_db"] < 80
    assert (tmp_path / "lenet5_float16.onnx").is_file()
    assert data_of("verify", "lenet5", str(tmp_path / "lenet5_float16.onnx"))["parity"][0]["rounding_snr_db"] > 30


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["cost", "mobilnet_v2"], 2, "No model is named 'mobilnet_v2'. Did you mean 'mobilenet_v2'?"),
        (["convrt", "lenet5"], 2, "No command is named 'convrt'. Did you mean 'convert'?"),
        (["cost", "lenet5", "--head", "sofmax"], 2, "'sofmax' is not one of 'logits', 'softmax'"),
        (["cost", "lenet5", "--width", "-1"], 2, "width_multiplier must lie in (0, 10000]; got -1.0"),
        (["cost", "lenet5", "--resolution", "8"], 2, "resolution must be at least 16; got 8"),
        (["convert", "lenet5", "--to", "tflight"], 2, "No format is named 'tflight'. Did you mean 'tflite'?"),
        (
            ["cost", "lenet5", "--convolution", "normal"],
            2,
            "no depthwise-separable convolution, so it has no normal twin",
        ),
        (["convert", "lenet5", "--batch", "many"], 2, "--batch must be a number in 1..4096 or 'dynamic'; got 'many'"),
        (["convert", "there/is/none.keras"], 4, "there/is/none.keras: a file was wanted; there is none."),
        (
            ["convert", "net.pb"],
            3,
            "a file that ends in one of .tflite, .onnx, .xml, .keras, .h5, .hdf5 was wanted; got '.pb'",
        ),
        (["run", "none.tflite", "x.png"], 4, "none.tflite: a file was wanted; there is none."),
        (["verify", "lenet5", "none.onnx"], 4, "none.onnx: a file was wanted; there is none."),
    ],
)
def test_bad_usage_is_refused(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if arguments[0] == "convert":
        arguments = [*arguments, "-o", str(tmp_path / "made")]
    found, error = refusal(arguments, capsys)
    assert found == code
    assert text in error
    assert not (tmp_path / "made").exists()


def test_an_existing_output_is_kept_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "lenet5.onnx"
    kept.write_text("mine")
    code, error = refusal(["convert", "lenet5", "-o", str(tmp_path), "--no-verify"], capsys)
    assert (code, kept.read_text(), list(tmp_path.iterdir())) == (2, "mine", [kept])
    assert f"{kept} exists already. Use --force to replace it, or another -o." in error
    data_of("convert", "lenet5", "-o", str(tmp_path), "--no-verify", "--force", "--to", "onnx")
    assert kept.stat().st_size > 100_000


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    code, error = refusal(["convert", "lenet5", "-o", str(tmp_path / "file" / "inside"), "--no-verify"], capsys)
    assert code == 2
    assert "a writable folder was wanted" in error


def test_an_unreadable_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_of("convert", "lenet5", "--to", "onnx", "-o", str(tmp_path), "--no-verify")
    broken = tmp_path / "broken.png"
    broken.write_bytes(photograph().read_bytes()[:1000])
    code, error = refusal(["run", str(tmp_path / "lenet5.onnx"), str(broken)], capsys)
    assert code == 3
    assert f"{broken}: an image was wanted; Pillow cannot read it" in error


def test_a_truncated_keras_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("keras")
    whole = tmp_path / "net.keras"
    data_of("build", "lenet5", "-o", str(whole))
    assert data_of("cost", str(whole))["macs"] == 416_520
    whole.write_bytes(whole.read_bytes()[:50_000])
    code, error = refusal(["convert", str(whole), "-o", str(tmp_path / "made")], capsys)
    assert code == 3
    assert f"{whole}: " in error
    assert not (tmp_path / "made").exists()


def test_too_few_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(photograph().read_bytes())
    arguments = ["convert", "lenet5", "--data", str(tmp_path / "images"), "-o", str(tmp_path / "made")]
    code, error = refusal(arguments, capsys)
    assert code == 2
    assert "at least 16 real images were wanted to verify on; got 1" in error
    assert not (tmp_path / "made").exists()


def test_a_failed_check_hands_nothing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgecnn.proof.maximum_error", lambda proof: 0.0)
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "lenet5", "--to", "onnx", "-o", str(tmp_path / "made"), "--json"])
    captured = capsys.readouterr()
    assert stopped.value.code == 1
    assert json.loads(captured.out)["passed"] is False
    assert "parity was wanted; found an SNR of" in captured.err
    assert "Nothing was written" in captured.err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("extra", ["onnx", "ai_edge_litert"])
def test_a_missing_extra_says_how_to_install_it(extra: str, tmp_path: Path) -> None:
    form = {"onnx": "onnx", "ai_edge_litert": "tflite"}[extra]
    code = f"import sys; sys.modules['{extra}'] = None; from edgecnn.cli import main; main(sys.argv[1:])"
    arguments = ["convert", "lenet5", "--to", form, "-o", str(tmp_path / "made"), "--no-verify"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert f"python -m pip install 'edgecnn[{form}]'" in done.stderr
    assert not (tmp_path / "made").exists()


def photograph() -> Path:
    from edgecnn.vision.photographs import carried_photographs

    return carried_photographs()[1][0]
