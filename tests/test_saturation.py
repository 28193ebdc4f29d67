"""Layers that saturate on x86 without VNNI: found, seen in OpenVINO itself, and said with what prevents it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn
from edgecnn.contract import Contract
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.instruction_set import instruction_set
from edgecnn.quantization.parameters import Quantization, per_channel, per_tensor
from edgecnn.quantization.quantize import Samples, quantize
from edgecnn.quantization.recipe import Recipe
from edgecnn.registry import load
from edgecnn.saturation import SAFE, Saturation, describe, pair_errors, saturating_layers

RUN = """
import sys
import numpy as np
import openvino
model = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
np.save(sys.argv[3], next(iter(model(np.load(sys.argv[2])).values())))
"""
"""Runs a model in a process of its own: oneDNN reads its environment once."""


def bright_layer(weight_limit: int = 127) -> Graph:
    """A quantized convolution (1, 8, 8, 16) -> (1, 8, 8, 24) of large weights, whose integers are its numbers."""
    rng = np.random.default_rng(0)
    weights = np.rint(np.sign(rng.uniform(-1, 1, (3, 3, 16, 24))) * rng.uniform(0.7, 1, (3, 3, 16, 24)) * weight_limit)
    b = GraphBuilder("bright", initialise=he_normal(0))
    x = b.input("image", (1, 8, 8, 16))
    kernel = b.constant("kernel", weights.astype(np.float32))
    conv = ops.Conv(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    graph = b.finish({"result": b.node("y", conv, x, kernel)})
    known: dict[str, Quantization] = {
        x: per_tensor(1.0, -128, "int8"),
        "y": per_tensor(2000.0, 0, "int8"),
        kernel: per_channel(np.ones(24), 3),
    }
    tensors = {name: replace(graph.tensors[name], quantization=each) for name, each in known.items()}
    tensors[kernel] = replace(tensors[kernel], data=weights.astype(np.int8))
    return replace(graph, tensors={**graph.tensors, **tensors})


def pixels(seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, (1, 8, 8, 16)).astype(np.int8)


def foretold(graph: Graph, image: Array) -> Array:
    """Return the outputs with pair sums of 16 bits, NHWC: im2col by hand."""
    weights = np.asarray(graph.tensors["kernel"].data, np.int64).reshape(-1, 24)
    padded = np.pad(image.astype(np.int64) + 128, ((0, 0), (1, 1), (1, 1), (0, 0)))
    columns = np.stack([padded[0, r : r + 3, c : c + 3].reshape(-1) for r in range(8) for c in range(8)])
    errors, _ = pair_errors(columns[None], weights[None])
    found: Array = np.clip(np.rint((columns @ weights + errors[0]) / 2000), -128, 127).reshape(1, 8, 8, 24)
    return found


def in_openvino(graph: Graph, image: Array, folder: Path, **environment: str) -> Array:
    """Return what OpenVINO gives, NHWC, in a process with more environment variables."""
    load("converters", "openvino").write(graph, folder / "model.xml")
    np.save(folder / "x.npy", image.transpose(0, 3, 1, 2))
    files = [str(folder / name) for name in ("model.xml", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", RUN, *files], env={**os.environ, **environment}, check=True, timeout=120)
    found: Array = np.load(folder / "y.npy").transpose(0, 2, 3, 1)
    return found


@pytest.mark.skipif("avx2" not in (instruction_set() or ()), reason="oneDNN can be held to AVX2 on x86 alone")
def test_openvino_held_to_avx2_gives_the_very_integers_that_are_foretold(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    graph, image = bright_layer(), pixels()
    exact, wrong = execute(graph, {"image": image}, stored=True)["result"], foretold(graph, image)
    assert np.mean(exact != wrong) > 0.5
    np.testing.assert_array_equal(in_openvino(graph, image, tmp_path, ONEDNN_MAX_CPU_ISA="AVX2"), wrong)


@pytest.mark.skipif("avx2" not in (instruction_set() or ()), reason="oneDNN can be held to AVX2 on x86 alone")
def test_weights_of_seven_bits_are_exact_there(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    graph, image = bright_layer(63), pixels()
    exact = execute(graph, {"image": image}, stored=True)["result"]
    np.testing.assert_array_equal(in_openvino(graph, image, tmp_path, ONEDNN_MAX_CPU_ISA="AVX2"), exact)
    (found,) = saturating_layers(graph, {"image": image})
    assert (found.pairs, found.outputs) == (0, 0)


def bright_network() -> tuple[Graph, Array]:
    """Two convolutions of which the first has pairs of large weights of one sign under bright pixels, and images."""
    b = GraphBuilder("two", initialise=he_normal(0))
    x = b.input("image", (1, 16, 16, 3))
    first = np.random.default_rng(2).uniform(0.5, 1, (3, 3, 3, 8)).astype(np.float32)
    one = ops.Conv(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1, activation=ops.ReLU())
    y = b.node("block[1]/bright", one, x, b.constant("bright/kernel", first))
    second = np.random.default_rng(3).normal(0, 0.02, (1, 1, 8, 4)).astype(np.float32)
    second[0, 0, 0] = 1
    two = replace(one, padding=((0, 0), (0, 0)), activation=None)
    z = b.node("dim", two, y, b.constant("dim/kernel", second))
    contract = Contract(height=16, width=16, mean=(0.0,) * 3, std=(255.0,) * 3)
    images = np.random.default_rng(4).uniform(0.5, 1, (4, 16, 16, 3)).astype(np.float32)
    return replace(b.finish({"result": z}), contract=contract), images


def quantized(recipe: Recipe) -> Graph:
    graph, images = bright_network()
    return quantize(graph, recipe, Samples(batches=lambda _: [{"image": images}], origin="test")).graph


def test_the_option_that_is_named_prevents_it_and_leaves_other_layers_as_they_are() -> None:
    images = bright_network()[1]
    found = saturating_layers(quantized(Recipe()), {"image": images})
    assert [each.node for each in found if each.outputs] == ["block[1]/bright"]
    option, argument = found[0].remedy.split(" ")
    assert option == "--layer"
    pattern, _, precision = argument.strip("'").rpartition("=")
    safe = quantized(Recipe(overrides=((pattern, precision),)))
    assert not any(each.outputs for each in saturating_layers(safe, {"image": images}))
    kernels = {name: np.asarray(safe.tensors[f"{name}/kernel"].data, np.int64) for name in ("bright", "dim")}
    largest = {name: int(np.abs(kernel).max()) for name, kernel in kernels.items()}
    assert (largest["bright"] <= 63, largest["dim"]) == (True, 127)


def test_all_weights_of_seven_bits_are_safe() -> None:
    found = saturating_layers(quantized(Recipe(precision=SAFE)), {"image": bright_network()[1]})
    assert [(each.pairs, each.outputs) for each in found] == [(0, 0)] * 2


def seen(node: str, outputs: float) -> Saturation:
    return Saturation(node=node, pairs=outputs / 2, outputs=outputs, largest_step=7, sampled=100)


def test_people_read_the_worst_layers_and_the_options() -> None:
    told = describe([seen("a", 0.0), seen("b", 0.01), seen("c", 0.2), seen("d", 0.1)], listed=2)
    assert told == (
        "On x86 without VNNI (AVX2) 3 layers saturate in ONNX Runtime and OpenVINO: c (20.0% of its outputs, by up to "
        "7), d (10.0% of its outputs, by up to 7) and 1 more, which --json names. 7-bit weights prevent it: "
        "--layer c=static_w7_a8 --layer d=static_w7_a8"
    )
    assert describe([seen("a", 0.0)]) == (
        "On x86 without VNNI (AVX2), too, none of the 1 layers of 8-bit products saturates."
    )
    assert "none saturates" in describe([])


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(edgecnn, ["quantize", *arguments])


def test_the_report_says_it_on_machines_with_vnni_too(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    load("converters", "onnx").write(bright_network()[0], tmp_path / "two.onnx")
    data = tmp_path / "data"
    data.mkdir()
    for number in range(20):
        bytes_ = np.random.default_rng(number).integers(128, 256, (16, 16, 3), np.uint8)
        image.fromarray(bytes_).save(data / f"{number}.png")
    arguments = (str(tmp_path / "two.onnx"), "--to", "onnx", "--data", str(data), "--ignore-lint", "-o")
    result = invoke(*arguments, str(tmp_path / "a"), "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["quantization"]["saturation"]
    (hit,) = [row for row in rows if row["outputs"]]
    assert hit["node"] in hit["remedy"].replace("[[]", "[")
    assert [row["remedy"] for row in rows if not row["outputs"]] == [None]
    told = invoke(*arguments, str(tmp_path / "b"))
    assert "On x86 without VNNI (AVX2) 1 layer saturates in ONNX Runtime and OpenVINO" in told.stdout.replace("\n", " ")
    unmeasured = invoke(*arguments, str(tmp_path / "c"), "--json", "--no-verify")
    assert json.loads(unmeasured.stdout)["quantization"]["saturation"] is None
