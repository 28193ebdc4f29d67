"""NPU-safe networks of the zoo in int8 with int8 ports: nothing is left to the CPU that feeds an Arm Ethos-U.

Vela is looked for as $EDGECNN_VELA, and then on the path.
"""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from edgecnn.execute import with_image_statistics
from edgecnn.feeding import load_feeds
from edgecnn.graph import Array, Graph, with_batch
from edgecnn.models.build import ZooOptions, build
from edgecnn.passes.deploy import deploy
from edgecnn.quantization.quantize import Samples, quantize
from edgecnn.quantization.recipe import Recipe
from edgecnn.registry import load

VELA = os.environ.get("EDGECNN_VELA") or shutil.which("vela")
COUNTS = re.compile(r"^(CPU|NPU) operators = (\d+)", re.MULTILINE)

SMALL = {
    "lenet5": 32,
    "alexnet": 67,
    "vgg16": 32,
    "googlenet": 64,
    "resnet18": 64,
    "resnet50": 64,
    "mobilenet_v1": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_large": 64,
    "mobilenet_v3_small": 64,
    "mobilenet_v3_large_minimalistic": 64,
    "mobilenet_v3_small_minimalistic": 64,
    "efficientnet_b0": 64,
    "efficientnet_lite0": 64,
}
"""One of each kind of network -> a resolution at which it is quantized in seconds."""

FULL = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0", "resnet18")
"""Measured at their own resolution too, where sizes of means and of tiles differ."""


def photographs(graph: Graph) -> dict[str, Array]:
    """Return a few photographs for a network's input."""
    return {name: values[:4] for name, values in load_feeds(graph, graph.contract, None, limit=16).values.items()}


@cache
def integer_network(name: str, resolution: int | None) -> Graph:
    """Return an npu-safe network in int8, ports included; its BatchNorm has the statistics of photographs."""
    graph = with_batch(build(name, ZooOptions(npu_safe=True, resolution=resolution)), 1)
    images = photographs(graph)
    deployed = deploy(with_image_statistics(graph, images)).graph
    recipe = Recipe(io="int8", bias_correction="none", rounding="nearest")
    return quantize(deployed, recipe, Samples(batches=lambda _: [images], origin="photographs")).graph


def operators(path: Path, folder: Path) -> dict[str, int]:
    """Return how many operators Vela gives to the CPU and to the NPU."""
    command = [str(VELA), str(path), "--accelerator-config", "ethos-u55-128", "--output-dir", str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    return {where: int(count) for where, count in COUNTS.findall(told.stdout)}


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v3_small"])
def test_everything_between_integer_ports_is_in_integers(name: str) -> None:
    graph = integer_network(name, SMALL[name])
    assert {tensor.stored_dtype for tensor in graph.tensors.values()} == {"int8", "int32"}
    assert not {"Quantize", "Dequantize"} & graph.kinds().keys()


@pytest.mark.slow
@pytest.mark.skipif(VELA is None, reason="vela (ethos-u-vela) is neither $EDGECNN_VELA nor on the path")
@pytest.mark.parametrize(("name", "resolution"), [*SMALL.items(), *((name, None) for name in FULL)])
def test_vela_leaves_nothing_to_the_cpu(name: str, resolution: int | None, tmp_path: Path) -> None:
    artifact = load("converters", "tflite").write(integer_network(name, resolution), tmp_path / "model.tflite")
    found = operators(artifact.path, tmp_path)
    assert found["CPU"] == 0
    assert found["NPU"] > 0


@pytest.mark.slow
@pytest.mark.skipif(VELA is None, reason="vela (ethos-u-vela) is neither $EDGECNN_VELA nor on the path")
def test_float_ports_leave_their_rounding_to_the_cpu(tmp_path: Path) -> None:
    """Shows that the test above can fail."""
    graph = with_batch(build("lenet5"), 1)
    images = photographs(graph)
    made = quantize(deploy(graph).graph, Recipe(), Samples(batches=lambda _: [images], origin="photographs")).graph
    artifact = load("converters", "tflite").write(made, tmp_path / "model.tflite")
    assert operators(artifact.path, tmp_path)["CPU"] == 2
