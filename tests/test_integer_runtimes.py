"""The integer golden against LiteRT's two sets of kernels and ONNX Runtime, operator by operator."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgecnn import registry
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.kernels.quantized import Rounding
from tests.quantized_graphs import GRAPHS, stored_values

SEEDS = (1, 2, 3)
KERNELS = {"float32": OpResolverType.AUTO, "fixed_point": OpResolverType.BUILTIN_REF}
IN_FLOAT = [name for name in GRAPHS if name.endswith(("weight_only", "dynamic_range"))]
IN_16_BITS = [name for name in GRAPHS if "int16" in name]
INTEGER = [name for name in GRAPHS if name not in IN_FLOAT]

WITHOUT_KERNEL = {
    # LiteRT has fixed point alone for 16 bits; "float32" is what ONNX Runtime and OpenVINO compute there.
    *((name, "float32") for name in IN_16_BITS),
    # The reference kernel of SUM reads int8 as uint8; the reference set has no ELU, DEPTH_TO_SPACE or int8 TILE.
    *((name, "fixed_point") for name in ("sum", "elu", "depth_to_space", "tile")),
}
"""(Graph, rounding) for which LiteRT has nothing to compare."""

ORT_APART = {
    # XNNPACK multiplies by 256ths, by 2048ths for a resize; ONNX Runtime by float32.
    **{"leaky_relu": 0.95, "requantize": 0.95, "resize_bilinear": 0.9, "resize_bilinear_align_corners": 0.8},
    # Of 2^16 steps, float32 finds some halves on the other side.
    **dict.fromkeys(IN_16_BITS, 0.99),
    # TFLite rounds halves away from zero, ONNX Runtime to even, and a mean of four is a half very often.
    **{f"average_pool{kind}": 0.8 for kind in ("", "_same", "_uint8", "_int16")},
}
"""Graph -> least share of equal integers in ONNX Runtime, the others one step off."""


def shares(graph: Graph, run: Callable[[Array], Array], rounding: Rounding) -> tuple[float, float]:
    """Return the share of equal integers over all seeds, and the largest difference in steps."""
    differences = []
    for seed in SEEDS:
        fed = stored_values(graph, seed)
        golden = execute(graph, fed, rounding=rounding, stored=True)["result"]
        found = run(fed["image"])
        assert found.dtype == golden.dtype
        assert found.shape == golden.shape
        step = 1 if golden.dtype.kind != "f" else graph.tensors[graph.nodes[-1].inputs[0]].quantization.scale[0]  # type: ignore[union-attr]
        differences.append(np.abs(found.astype(np.float64) - golden).ravel() / step)
    joined = np.concatenate(differences)
    return float((joined < 0.5).mean()), float(joined.max())


def litert(path: Path, kernels: OpResolverType) -> Callable[[Array], Array]:
    interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (into,), (out, *_) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(x: Array) -> Array:
        interpreter.set_tensor(into["index"], x)
        interpreter.invoke()
        found: Array = interpreter.get_tensor(out["index"])
        return found

    return run


@pytest.mark.parametrize(
    ("name", "rounding"),
    [(name, rounding) for name in INTEGER for rounding in KERNELS if (name, rounding) not in WITHOUT_KERNEL],
)
def test_litert_computes_these_integers(name: str, rounding: Rounding, tmp_path: Path) -> None:
    # XNNPACK does not take HARD_SWISH: LiteRT's own kernel multiplies 16-bit integers.
    least = 0.98 if (name, rounding) == ("hard_swish", "float32") else 1.0
    path = tmp_path / "tried.tflite"
    registry.load("converters", "tflite").write(GRAPHS[name], path)
    share, worst = shares(GRAPHS[name], litert(path, KERNELS[rounding]), rounding)
    assert share >= least
    assert worst <= (0.5 if least == 1 else 1)


def ort(path: Path) -> Callable[[Array], Array]:
    """Feed and return int8 as its uint8 twin where the file spells it so."""
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (into,), (out,) = session.get_inputs(), session.get_outputs()

    def run(x: Array) -> Array:
        shifted = x.dtype == np.int8 and into.type == "tensor(uint8)"
        fed = (x.astype(np.int16) + 128).astype(np.uint8) if shifted else x
        found: Array = session.run([out.name], {into.name: fed})[0]
        return (found.astype(np.int16) - 128).astype(np.int8) if shifted and found.dtype == np.uint8 else found

    return run


@pytest.mark.parametrize("name", INTEGER)
def test_onnx_runtime_computes_these_integers(name: str, tmp_path: Path) -> None:
    graph = GRAPHS[name]
    inputs, outputs = (tuple(replace(port, layout="NHWC") for port in ports) for ports in (graph.inputs, graph.outputs))
    path = tmp_path / "tried.onnx"
    registry.load("converters", "onnx").write(replace(graph, inputs=inputs, outputs=outputs), path)
    share, worst = shares(graph, ort(path), "float32")
    assert share >= ORT_APART.get(name, 0.999)
    assert worst <= 1
