"""The zoo on the command line: what `models` and `cost` show, what --npu-safe says, and how fast they are."""

import json
import resource
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from edgecnn import registry
from edgecnn.cli import edgecnn


def data_of(*arguments: str) -> Any:
    result = CliRunner().invoke(edgecnn, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_models_lists_every_network_with_its_numbers_and_the_source_of_its_accuracy() -> None:
    rows = {row["name"]: row for row in data_of("models")["models"]}
    assert list(rows) == list(registry.entries("models"))
    assert rows["efficientnet_b0"] == {
        "name": "efficientnet_b0",
        "input": "Nx224x224x3",
        "resolution": 224,
        "macs": 385_814_752,
        "trainable": 5_288_548,
        "top_1_percent": 77.1,
        "source": "Tan and Le, arXiv:1905.11946v5, table 2",
        "summary": "EfficientNet",
    }
    assert rows["efficientnet_lite0"]["summary"] == "EfficientNet-Lite"
    assert (rows["efficientnet"]["top_1_percent"], rows["efficientnet"]["source"]) == (None, None)
    shown = CliRunner().invoke(edgecnn, ["models"]).stdout
    assert "385,814,752" in shown
    assert "77.1 %" in shown


def test_cost_shows_what_a_convolution_would_cost_without_its_bottleneck() -> None:
    shown = CliRunner().invoke(edgecnn, ["cost", "googlenet", "--versus", "no-bottleneck"]).stdout
    row = next(line for line in shown.splitlines() if line.startswith("inception_3a/conv_5x5 "))
    assert row.split()[-3:] == ["120,422,400", "0.1033", "0.1033"]
    assert "MACs of the twin without bottlenecks" in shown
    data = data_of("cost", "googlenet", "--versus", "no-bottleneck")["no_bottleneck"]
    assert data["actual_ratio"] == pytest.approx(1_582_671_872 / data["macs"])


def test_a_scaled_network_can_be_counted() -> None:
    assert data_of("cost", "efficientnet", "--phi", "0")["macs"] == 385_814_752
    coefficients = ("--width-coefficient", "1.1", "--depth-coefficient", "1.2", "--resolution", "260")
    assert data_of("cost", "efficientnet", *coefficients)["macs"] == data_of("cost", "efficientnet_b2")["macs"]


def test_npu_safe_says_on_stderr_what_it_changed() -> None:
    result = CliRunner().invoke(edgecnn, ["cost", "efficientnet_b0", "--npu-safe", "--json"])
    assert json.loads(result.stdout)["macs"] == 385_187_552
    assert result.stderr == (
        "efficientnet_b0, npu-safe: squeeze-excite x16 removed, Swish x33 became ReLU6. Train it before use.\n"
    )


@pytest.mark.parametrize(("arguments", "seconds"), [(("models",), 2.0), (("cost", "efficientnet_b7"), 1.0)])
def test_listing_and_counting_are_fast_as_whole_processes(arguments: tuple[str, ...], seconds: float) -> None:
    times = []
    for _ in range(3):  # in processor time, which another job on the machine does not lengthen
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        subprocess.run([sys.executable, "-m", "edgecnn", *arguments], check=True, capture_output=True)
        times.append(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before)
    assert min(times) < seconds
