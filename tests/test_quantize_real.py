"""Published weights on real photographs: what per-tensor weights lose, what the repairs win back, and per channel."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from edgecnn import registry
from edgecnn.contract import Contract
from edgecnn.cut import cut
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import SessionOptions
from edgecnn.passes.deploy import deploy
from edgecnn.ports import exterior
from edgecnn.quantization.quantize import Samples, quantize
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.report import logits
from edgecnn.quantization.samples import Sample, image_batches, read_samples, samples
from edgecnn.source import load_source, target_for
from edgecnn.verify import run_batches

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
FLOAT = DATA / "weights" / "imagenet_tflite" / "mobilenet_v1_0.25_224_float.tflite"
PHOTOGRAPHS = DATA / "imagenet_sample_500"

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not FLOAT.is_file() or not PHOTOGRAPHS.is_dir(), reason=f"{DATA} holds the weights"),
]

CONTRACT = Contract(height=224, width=224)
CALIBRATION, EVALUATION = 100, 400


@cache
def mobilenet() -> Graph:
    """Return MobileNet v1 0.25 to its logits."""
    graph = deploy(load_source(str(FLOAT)).graph).graph
    return deploy(replace(cut(graph, (), tuple(logits(graph))), contract=CONTRACT)).graph


@cache
def photographs() -> tuple[list[Path], list[Sample]]:
    """Return photographs to calibrate on, and others to evaluate on."""
    every = samples(PHOTOGRAPHS, CONTRACT)
    chosen = every[:: len(every) // CALIBRATION][:CALIBRATION]
    return [each.path for each in chosen], [each for each in every if each not in chosen][:EVALUATION]


@cache
def classes(recipe: Recipe | None) -> Array:
    """Return the class of each photograph that was not calibrated on, in LiteRT; no recipe: of the float network."""
    graph = mobilenet()
    chosen, others = photographs()
    if recipe is not None:
        port = graph.inputs[0].name
        data = Samples(batches=lambda network: image_batches(chosen, CONTRACT, port=port), origin="photographs")
        graph = quantize(graph, recipe, data).graph
    with TemporaryDirectory() as folder:
        path = registry.load("converters", "tflite").write(graph, Path(folder) / "tried.tflite").path
        session = target_for(path, None).open(path, SessionOptions(threads=1))
        values = np.stack(list(read_samples(others, CONTRACT)))
        found = run_batches(session, {graph.inputs[0].name: values}, exterior(graph, "NHWC"))
        session.close()
    return np.asarray(next(iter(found.values())).reshape(len(others), -1).argmax(axis=-1))


def agreement(recipe: Recipe) -> float:
    return float(np.mean(classes(recipe) == classes(None)))


BARE = Recipe(scales="tensor", rounding="nearest", bias_correction="none")


def test_one_scale_for_each_kernel_collapses_and_the_repairs_win_most_of_it_back() -> None:
    assert agreement(BARE) < 0.10
    repaired = replace(BARE, equalize=True, bias_correction="empirical")
    assert agreement(repaired) >= 0.75
    assert agreement(replace(BARE, equalize=True)) < agreement(repaired)  # each of them is needed
    assert agreement(replace(BARE, bias_correction="empirical")) < agreement(repaired)


def test_a_scale_for_each_channel_keeps_88_in_100_classes() -> None:
    assert len(photographs()[1]) == EVALUATION
    assert agreement(Recipe()) >= 0.88
