"""What is assumed of pixels: the range that a quantized input states, a usual one where that is nearly the same."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.assume import assume_contract, first_guess
from edgecnn.builder import GraphBuilder, no_values
from edgecnn.graph import Graph, Node, Tensor
from edgecnn.quantization.parameters import Quantization, per_channel, per_tensor
from edgecnn.source import load_source

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs the folder shared/data (or $EDGECNN_TEST_DATA)")


def graph_of(known: Quantization | None, *, has_float_port: bool = False, channels: int = 3) -> Graph:
    """Return max pooling of a picture in these integers."""
    b = GraphBuilder("pooled", initialise=no_values)
    x = b.input("image", (1, 8, 8, channels))
    y = b.node("y", ops.MaxPool(kernel_size=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0))), x)
    graph = b.finish({"result": y})
    if not has_float_port:
        tensors = {name: replace(tensor, quantization=known) for name, tensor in graph.tensors.items()}
        return replace(graph, tensors=tensors)
    inside = Tensor(name="inside", shape=graph.tensors[x].shape, quantization=known)
    tensors = {x: graph.tensors[x], "inside": inside, y: replace(graph.tensors[y], quantization=known)}
    nodes = (
        Node(name="q", op=ops.Quantize(), inputs=(x,), outputs=("inside",)),
        replace(graph.nodes[0], inputs=("inside",)),
    )
    return replace(graph, nodes=nodes, tensors=tensors)


RANGES = {
    "raw bytes": (per_tensor(1, 0, "uint8"), (0, 255)),
    "raw bytes minus 128": (per_tensor(1, -128), (0, 255)),
    "0 to 1": (per_tensor(1 / 255, -128), (0, 1)),
    "-1 to 1": (per_tensor(1 / 128, 128, "uint8"), (-1, 1)),
    "what images reached": (per_tensor(1.96 / 255, 0), (-1, 1)),
    "no usual one": (per_tensor(4.75 / 255, 114, "uint8"), (-114 * 4.75 / 255, 141 * 4.75 / 255)),
    "16 bits, half of them idle": (per_tensor(255 / 32767, 0, "int16"), (-1, 1)),
    "a scale for each channel": (per_channel([1.0, 1.0, 1.0], 3), (-1, 1)),
    "float": (None, (-1, 1)),
}


@pytest.mark.parametrize("has_float_port", [False, True])
@pytest.mark.parametrize("name", RANGES)
def test_the_range_of_the_first_integers_is_that_of_pixels(name: str, has_float_port: bool) -> None:
    known, wanted = RANGES[name]
    if known is None and has_float_port:
        return
    guess = first_guess(graph_of(known, has_float_port=has_float_port))
    assert guess is not None
    assert guess.is_assumed
    assert guess.input_range == pytest.approx(wanted, rel=1e-6)


def test_what_is_no_picture_has_no_range() -> None:
    assert first_guess(graph_of(per_tensor(1, 0), channels=4)) is None


@needs_data
@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("mlperf_tiny/pretrainedResnet_quant.tflite", (0, 255)),
        ("mlperf_tiny/vww_96_int8.tflite", (0, 1)),
        ("imagenet_tflite/mobilenet_v1_0.25_224_quant.tflite", (-1, 1)),
        ("imagenet_onnx/mobilenet_v2_quant.onnx", (-2.127063, 2.630841)),
    ],
)
def test_published_files_say_their_range_without_being_run(file: str, wanted: tuple[float, float]) -> None:
    def never(contract: object) -> dict[str, np.ndarray]:
        raise AssertionError(f"{contract} was tried")

    contract = assume_contract(load_source(str(DATA / "weights" / file)), never)
    assert contract is not None
    assert contract.input_range == pytest.approx(wanted, rel=1e-6)
