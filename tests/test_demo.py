"""The demo, cut short: one network, two epochs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgecnn import demo
from edgecnn.cli import edgecnn

for package in ("keras", "sklearn", "ai_edge_litert", "onnxruntime", "openvino"):
    pytest.importorskip(package)


def test_the_demo_leaves_verified_artifacts_and_says_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenet5 = demo.NETWORKS[0]
    short = demo.Network(model="lenet5", options=lenet5.options, epochs=2, learning_rate=2e-3)
    monkeypatch.setattr(demo, "NETWORKS", (short,))
    result = CliRunner().invoke(edgecnn, ["demo", "-o", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = ["digit.png", "lenet5.bin", "lenet5.onnx", "lenet5.tflite", "lenet5.xml"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert len(found["artifacts"]) == 3
    for row in found["artifacts"]:
        assert row["parity"]["passed"]
        assert row["accuracy"] == row["source_accuracy"] > 0.7
        assert row["test_images"] == 359
        assert row["median_s"] > 0
    assert len({guess["label"] for guess in found["guesses"].values()}) == 1
    again = CliRunner().invoke(edgecnn, ["demo", "-o", str(tmp_path)])
    assert "digit.png exists already" in str(again.exception), "nothing is trained before it is known where to put it"


def test_numbers_that_json_does_not_have_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    from edgecnn.console import emit

    emit({"snr_db": float("inf"), "rows": [(1, float("nan"))]}, lambda console: None, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "snr_db": None, "rows": [[1, None]]}
