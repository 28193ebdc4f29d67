"""Quantized Graphs in ONNX: ONNX Runtime computes them in integers, and gives the golden's integers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.builder import GraphBuilder
from edgecnn.errors import UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, to_layout
from edgecnn.quantization.parameters import per_channel
from edgecnn.registry import load
from tests.cut_nodes import alone
from tests.graphs import image_graph, transposed
from tests.quantized_graphs import GRAPHS, quantized, stored_values, weight_only

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

WEIGHT_ONLY = tuple(name for name in GRAPHS if name.endswith("_weight_only"))
REFUSED = ("conv_dynamic_range", "conv_depthwise_dynamic_range")
STEP = ("average_pool", "resize_bilinear", "leaky_relu", "requantize")
"""What ONNX Runtime rounds at other places than XNNPACK, whose rounding the golden follows: within one step, as are the
16 bits that it computes in float."""


def outside(values: Array) -> Array:
    return np.ascontiguousarray(to_layout(values, "NCHW" if values.ndim >= 4 else None))


def written(graph: Graph, path: Path) -> tuple[Any, Counter[str]]:
    """Write a Graph and return its session and the operators that ONNX Runtime made of it."""
    load("converters", "onnx").write(graph, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session, Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in (*REFUSED, *WEIGHT_ONLY)])
def test_each_operator_gives_the_integers_of_the_golden(name: str, tmp_path: Path) -> None:
    for graph, inputs, outputs in alone(GRAPHS[name]):
        session, _ = written(graph, tmp_path / "model.onnx")
        found = session.run(list(outputs), {key: outside(value) for key, value in inputs.items()})
        for each, wanted in zip(found, map(outside, outputs.values()), strict=True):
            assert each.dtype == wanted.dtype
            if wanted.dtype.kind == "f":
                tolerance = 1e-2 if name == "dense_dynamic_range" else 1e-6
                np.testing.assert_allclose(each, wanted, atol=tolerance * np.ptp(wanted))
                continue
            steps = np.abs(each.astype(np.int64) - wanted)
            is_approximate = name.startswith(STEP) or name.endswith("_int16")
            assert steps.max() <= is_approximate, f"{graph.nodes[0].kind}: {np.mean(steps == 0):.2%} equal"


NETWORK = {"QLinearConv": 8, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1}
FUSED = {
    **{key: {"QLinearConv": 1} for key in ("conv_relu6", "conv_depthwise", "conv_uint8", "dense_over_more_axes")},
    "dense": {"QGemm": 1},
    "add": {"QLinearAdd": 1},
    "swish": {"QLinearSigmoid": 1, "QLinearMul": 1},
    **{key: {"QLinearGlobalAveragePool": 1} for key in ("mean", "mean_keep_dims")},
    "average_pool": {"QLinearAveragePool": 1},
    "concat": {"QLinearConcat": 1},
    "leaky_relu": {"QLinearLeakyRelu": 1},
    "softmax": {"QLinearSoftmax": 1},
    **dict.fromkeys(("mobile", "mobile_uint8", "mobile_with_float_ports"), NETWORK),
}
BESIDE = {"QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape"}
"""What ports cost, and the order in which QLinearConv takes images."""


@pytest.mark.parametrize("name", FUSED)
def test_onnx_runtime_computes_in_integers(name: str, tmp_path: Path) -> None:
    _, kinds = written(GRAPHS[name], tmp_path / "model.onnx")
    assert {kind: kinds[kind] for kind in FUSED[name]} == FUSED[name]
    assert all(kind.startswith(("QLinear", "QGemm")) for kind in kinds if kind not in BESIDE)
    assert kinds["QuantizeLinear"] <= 2
    assert kinds["DequantizeLinear"] <= 2


def test_a_whole_network_gives_the_integers_of_the_golden(tmp_path: Path) -> None:
    graph = GRAPHS["mobile"]
    inputs = stored_values(graph)
    session, _ = written(graph, tmp_path / "model.onnx")
    (found,) = session.run(None, {"image": outside(inputs["image"])})
    np.testing.assert_array_equal(found, execute(graph, inputs, stored=True)["result"])


@pytest.mark.parametrize(("name", "opset", "ir"), [("conv", 17, 8), ("conv_int16", 21, 10), ("gelu", 20, 9)])
def test_the_lowest_opset_that_carries_it(name: str, opset: int, ir: int, tmp_path: Path) -> None:
    load("converters", "onnx").write(GRAPHS[name], tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir)


def stored(model: Any) -> dict[str, Array]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}


def test_integers_types_and_ports_are_as_stated(tmp_path: Path) -> None:
    graph = GRAPHS["conv"]
    load("converters", "onnx").write(graph, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    found = stored(model)
    kernel, bias = (graph.tensors[name] for name in ("kernel", "bias"))
    assert kernel.data is not None
    np.testing.assert_array_equal(found["kernel"], kernel.data.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(found["bias"], bias.data)
    by_source = {node.input[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for name, wanted in (("kernel", kernel), ("bias", bias)):
        assert wanted.quantization is not None
        assert [(a.name, a.i) for a in by_source[name].attribute] == [("axis", 0)]
        np.testing.assert_array_equal(
            found[by_source[name].input[1]], np.asarray(wanted.quantization.scale, np.float32)
        )
    numbers = [port.type.tensor_type.elem_type for port in (*model.graph.input, *model.graph.output)]
    assert numbers == [onnx.TensorProto.INT8] * 2
    inside = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert [found[node.input[2]].dtype for node in inside] == [np.uint8, np.uint8, np.int8]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for path in (tmp_path / "a.onnx", tmp_path / "b.onnx"):
        load("converters", "onnx").write(GRAPHS["mobile"], path)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("name", WEIGHT_ONLY)
def test_weights_alone_are_stored_as_bytes_and_folded_when_loaded(name: str, tmp_path: Path) -> None:
    graph = GRAPHS[name]
    inputs = stored_values(graph)
    session, kinds = written(graph, tmp_path / "model.onnx")
    (found,) = session.run(None, {"image": outside(inputs["image"])})
    np.testing.assert_allclose(found, outside(execute(graph, inputs)["result"]), atol=1e-5)
    assert stored(onnx.load(tmp_path / "model.onnx"))["kernel"].dtype == np.int8
    assert not {"DequantizeLinear", "Cast", "Mul"} & set(kinds)


def test_a_flatten_before_a_dense_layer_costs_no_transpose(tmp_path: Path) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        return b.dense(b.node("flat", ops.Reshape(shape=(None, 288)), x), "y", 5)

    graph = weight_only(image_graph(make))
    load("converters", "onnx").write(graph, tmp_path / "model.onnx")
    assert "Transpose" not in [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]


@pytest.mark.parametrize("name", REFUSED)
def test_convolutions_of_dynamic_range_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as error:
        load("converters", "onnx").write(GRAPHS[name], tmp_path / "model.onnx")
    assert str(error.value) == (
        "y: onnx: a convolution in float or of calibrated ranges was wanted; got one whose ranges are found while it "
        "runs, in which ONNX Runtime is half as fast as in float. Choose --recipe weight_only_w8 or static_w8_a8, or "
        "--to tflite."
    )


def test_a_dense_layer_of_dynamic_range_is_fused(tmp_path: Path) -> None:
    assert written(GRAPHS["dense_dynamic_range"], tmp_path / "model.onnx")[1] == {"DynamicQuantizeMatMul": 1}


def test_one_scale_for_each_channel_of_an_activation_is_refused(tmp_path: Path) -> None:
    graph = GRAPHS["relu"]
    tensor = replace(graph.tensors["y"], quantization=per_channel([0.1] * (graph.tensors["y"].shape[3] or 0), 3))
    with pytest.raises(UnsupportedError) as error:
        load("converters", "onnx").write(
            replace(graph, tensors={**graph.tensors, "y": tensor}), tmp_path / "model.onnx"
        )
    assert str(error.value) == ("y: one scale for all channels of an activation was wanted; got 4. Quantize it again.")


def test_scales_along_two_axes_are_a_product(tmp_path: Path) -> None:
    """A grouped transposed convolution's output channels lie on two axes of ONNX' kernel."""
    graph = quantized(image_graph(transposed((2, 2), (2, 2), ((0, 0), (0, 0)), groups=2, out_channels=6)))
    inputs = stored_values(graph)
    session, _ = written(graph, tmp_path / "model.onnx")
    (found,) = session.run(None, {"image": outside(inputs["image"])})
    np.testing.assert_array_equal(found, outside(execute(graph, inputs, stored=True)["result"]))
