"""Published quantized networks, end to end on photographs: the golden gives LiteRT's integers, in both roundings."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from edgecnn import registry
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.kernels.quantized import Rounding
from tests.test_integer_runtimes import KERNELS

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
WEIGHTS = DATA / "weights"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of real weights and images (EDGECNN_TEST_DATA)"),
]

NETWORKS = {
    "mlperf_tiny/vww_96_int8.tflite": 8,
    "mlperf_tiny/pretrainedResnet_quant.tflite": 8,
    "imagenet_tflite/mobilenet_v1_0.25_224_quant.tflite": 4,
}
"""File -> photographs."""

LARGER = {
    "imagenet_tflite/mobilenet_v1_0.5_160_quant.tflite": 16,
    "imagenet_tflite/mobilenet_v2_1.0_224_quant.tflite": 16,
    "segmentation_voc/deeplabv3_mnv2_dm05_pascal_quant.tflite": 4,
    "detection_coco/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29_no_metadata.tflite": 8,
}

EVERY = [*NETWORKS.items(), *(pytest.param(*each, marks=pytest.mark.slow) for each in LARGER.items())]


def photographs(graph: Graph, count: int) -> Array:
    """Return pictures as the network's first port stores them; each of these takes plain bytes, or bytes less 128."""
    tensor = graph.tensors[graph.inputs[0].tensor]
    _, height, width, _ = tensor.shape
    paths = sorted(DATA.glob("imagenet_sample_500/**/*.[jJ][pP]*[gG]"))[:count]
    pictures = [np.asarray(Image.open(path).convert("RGB").resize((width or 0, height or 0))) for path in paths]
    assert len(pictures) == count
    return (np.stack(pictures).astype(np.int16) - (128 if tensor.stored_dtype == "int8" else 0)).astype(
        tensor.stored_dtype
    )


def litert(path: Path, kernels: Any, x: Array) -> list[Array]:
    interpreter = Interpreter(str(path), num_threads=2, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]


@pytest.mark.parametrize("rounding", KERNELS)
@pytest.mark.parametrize(("file", "count"), EVERY)
def test_published_networks_give_the_same_integers(file: str, count: int, rounding: Rounding) -> None:
    path = WEIGHTS / file
    graph: Graph = registry.load("converters", "tflite").read(path)
    seen = []
    for picture in photographs(graph, count):
        golden = execute(graph, {graph.inputs[0].name: picture[None]}, rounding=rounding, stored=True)
        wanted = litert(path, KERNELS[rounding], picture[None])
        for port, each in zip(graph.outputs, wanted, strict=True):
            if each.dtype.kind == "f":  # boxes of SSD, decoded in float32
                assert np.allclose(golden[port.name], each, atol=1e-6)
            else:
                assert np.array_equal(golden[port.name], each)
        seen.append(wanted[0])
    assert np.std(np.stack(seen), axis=0).max() > 0
