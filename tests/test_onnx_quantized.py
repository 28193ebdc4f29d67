"""Quantized ONNX files: integers and scales as the file has them, results as ONNX Runtime has them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import registry
from edgecnn.errors import InputFileError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, from_layout, to_layout
from edgecnn.ops import Opaque, ReLU
from edgecnn.quantization.parameters import Quantization, per_tensor

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared/data"))
MICROSOFT = "com.microsoft"
IMAGE, FEATURES = (1, 4, 6, 5), (2, 12)
RNG = np.random.default_rng(0)

Node = tuple[str, str, str, dict[str, Any]]
"""(operator, with its domain where that is not ONNX's own; inputs; outputs; attributes)."""

SCALES: dict[str, Any] = {
    **{"xs": np.float32(0.0217), "ys": np.float32(0.0313), "ws": np.float32(0.01), "as": np.float32(0.05)},
    **{"xz": np.uint8(120), "yz": np.uint8(100), "wz": np.int8(0), "az": np.uint8(0)},
    **{
        "wu": np.uint8(130),
        "signed": np.int8(-3),
        "sixteen": np.uint16(30000),
        "ws3": np.array([0.01, 0.02, 0.005], "f"),
    },
    **{"wz3": np.zeros(3, np.int8), "ws5": np.linspace(0.01, 0.02, 5, dtype="f"), "wz5": np.zeros(5, np.int8)},
    "ws12": np.linspace(0.01, 0.02, 12, dtype="f"),
}
KERNELS: dict[str, Any] = {
    "w": RNG.integers(-127, 128, (3, 4, 3, 3), np.int8),
    "wd": RNG.integers(-127, 128, (4, 1, 3, 3), np.int8),
    "wuint8": RNG.integers(0, 256, (3, 4, 3, 3)).astype(np.uint8),
    "m": RNG.integers(-127, 128, (12, 5), np.int8),
    "mt": RNG.integers(-127, 128, (5, 12), np.int8),
    "wt": RNG.integers(-127, 128, (4, 3, 2, 2), np.int8),
    "b3": RNG.integers(-2000, 2000, 3, np.int32),
    "b4": RNG.integers(-2000, 2000, 4, np.int32),
    "b5": RNG.integers(-2000, 2000, 5, np.int32),
    "bf": np.array([0.5, -0.25, 0.125], "f"),
    "shape": np.array([1, -1]),
    "half": np.float16(0.03),
    "bs3": np.float32(0.0217) * SCALES["ws3"],
    "bz3": np.zeros(3, np.int32),
    "bs": np.array([np.float32(0.0217) * np.float32(0.01)], "f"),
    "c": RNG.integers(0, 256, (1, 4, 1, 1)).astype(np.uint8),
    "real": RNG.normal(0, 0.3, (3, 4, 3, 3)).astype(np.float32),
}


def n(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> Node:
    return kind, inputs, outputs, attributes


def model(nodes: Sequence[Node], shape: Sequence[int], dtype: str = "float32", opset: int = 21) -> Any:
    made = []
    for kind, inputs, outputs, attributes in nodes:
        domain, _, name = kind.rpartition(".")
        given = ["" if each == "-" else each for each in inputs.split()]
        made.append(onnx.helper.make_node(name, given, outputs.split(), domain=domain, **attributes))
    used = {each for node in made for each in node.input}
    held = {**SCALES, **KERNELS}
    constants = [onnx.numpy_helper.from_array(np.asarray(held[each]), each) for each in held if each in used]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = onnx.helper.make_tensor_value_info("x", kind, shape)
    graph = onnx.helper.make_graph(made, "quantized", [x], [onnx.helper.make_empty_tensor_value_info("y")], constants)
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(MICROSOFT, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def read(content: bytes, folder: Path) -> Graph:
    path = folder / "model.onnx"
    path.write_bytes(content)
    graph = registry.load("converters", "onnx").read(path)
    assert isinstance(graph, Graph)
    return graph


def expected(content: bytes, x: Array) -> Array:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def executed(graph: Graph, x: Array) -> Array:
    """Run a Graph on what the file takes and return what the file gives, integers as integers."""
    inner, outer = graph.inputs[0], graph.outputs[0]
    fed = from_layout(x, inner.layout or "NCHW") if x.ndim > 3 else x
    found = execute(graph, {inner.name: fed}, stored=True)[outer.name]
    return to_layout(found, outer.layout or "NCHW") if found.ndim > 3 else found


Q, DQ = n("QuantizeLinear", "x xs xz", "q"), n("DequantizeLinear", "q xs xz", "d")
LAST = n("QuantizeLinear", "f ys yz", "r"), n("DequantizeLinear", "r ys yz", "y")
PADDED = {"pads": [1, 1, 1, 1]}
COARSE = ("qlinear_leakyrelu", "qlinear_sigmoid", "qlinear_softmax", "qlinear_concat")
"""Cases where the golden rounds as XNNPACK does (multipliers of 8 bits) and ONNX Runtime otherwise: one step apart."""

CASES: dict[str, tuple[list[Node], dict[str, int], Sequence[int]]] = {
    "qdq_conv": (
        [
            Q,
            DQ,
            n("DequantizeLinear", "w ws3 wz3", "k", axis=0),
            n("DequantizeLinear", "b3 bs3 bz3", "b", axis=0),
            n("Conv", "d k b", "f", **PADDED),
            *LAST,
        ],
        {"Quantize": 1, "Conv": 1, "Dequantize": 1},
        IMAGE,
    ),
    "qdq_conv_relu": (
        [Q, DQ, n("DequantizeLinear", "w ws3 wz3", "k", axis=0), n("Conv", "d k", "g"), n("Relu", "g", "f"), *LAST],
        {"Quantize": 1, "Conv": 1, "Dequantize": 1},
        IMAGE,
    ),
    "qdq_conv_with_float_bias": (
        [Q, DQ, n("DequantizeLinear", "w ws wz", "k"), n("Conv", "d k bf", "f"), *LAST],
        {"Quantize": 1, "Conv": 1, "Dequantize": 1},
        IMAGE,
    ),
    "qdq_conv_of_uint8_kernel": (
        [Q, DQ, n("DequantizeLinear", "wuint8 ws wu", "k"), n("Conv", "d k", "f"), *LAST],
        {"Quantize": 1, "Conv": 1, "Dequantize": 1},
        IMAGE,
    ),
    "qdq_conv_of_rounded_float_kernel": (
        [
            Q,
            DQ,
            n("QuantizeLinear", "real ws3 wz3", "kq", axis=0),
            n("DequantizeLinear", "kq ws3 wz3", "k", axis=0),
            n("Conv", "d k", "g"),
            n("QuantizeLinear", "g ys yz", "r"),
            n("DequantizeLinear", "r ys yz", "y"),
        ],
        {"Quantize": 1, "Conv": 1, "Dequantize": 1},
        IMAGE,
    ),
    "qdq_conv_transpose": (
        [
            Q,
            DQ,
            n("DequantizeLinear", "wt ws3 wz3", "k", axis=1),
            n("ConvTranspose", "d k", "f", strides=[2, 2]),
            *LAST,
        ],
        {"Quantize": 1, "ConvTranspose": 1, "Dequantize": 1},
        IMAGE,
    ),
    "qdq_mat_mul_of_turned_kernel": (
        [
            Q,
            DQ,
            n("DequantizeLinear", "mt ws5 wz5", "t", axis=0),
            n("Transpose", "t", "k", perm=[1, 0]),
            n("MatMul", "d k", "f"),
            *LAST,
        ],
        {"Quantize": 1, "Dense": 1, "Dequantize": 1},
        FEATURES,
    ),
    "qdq_gemm_of_turned_kernel": (
        [Q, DQ, n("DequantizeLinear", "mt ws5 wz5", "k", axis=0), n("Gemm", "d k", "f", transB=1), *LAST],
        {"Quantize": 1, "Dense": 1, "Dequantize": 1},
        FEATURES,
    ),
    "weight_only": (
        [n("DequantizeLinear", "w ws3 wz3", "k", axis=0), n("Conv", "x k", "y", **PADDED)],
        {"Dequantize": 1, "Conv": 1},
        IMAGE,
    ),
    "zero_points_left_out": (
        [
            n("QuantizeLinear", "x xs", "q"),
            n("DequantizeLinear", "q xs", "d"),
            n("Relu", "d", "g"),
            n("QuantizeLinear", "g ys", "r"),
            n("DequantizeLinear", "r ys", "y"),
        ],
        {"Quantize": 1, "ReLU": 1, "Dequantize": 1},
        IMAGE,
    ),
    "sixteen_bits": (
        [n("QuantizeLinear", "x ws sixteen", "q"), n("DequantizeLinear", "q ws sixteen", "y")],
        {"Quantize": 1, "Dequantize": 1},
        IMAGE,
    ),
    "max_pool_over_integers": (
        [Q, n("MaxPool", "q", "p", kernel_shape=[2, 2]), n("DequantizeLinear", "p xs xz", "y")],
        {"Quantize": 1, "MaxPool": 1, "Dequantize": 1},
        IMAGE,
    ),
    "pad_over_integers": (
        [Q, n("Pad", "q pads wu", "p"), n("DequantizeLinear", "p xs xz", "y")],
        {"Quantize": 1, "Pad": 1, "Dequantize": 1},
        IMAGE,
    ),
    "qlinear_conv": (
        [Q, n("QLinearConv", "q xs xz w ws3 wz3 ys yz b3", "r", **PADDED), LAST[1]],
        {"Quantize": 1, "Conv": 1, "Dequantize": 1},
        IMAGE,
    ),
    "qlinear_conv_depthwise": (
        [Q, n("QLinearConv", "q xs xz wd ws wz ys yz b4", "r", group=4), LAST[1]],
        {"Quantize": 1, "Conv": 1, "Dequantize": 1},
        IMAGE,
    ),
    "qlinear_mat_mul": (
        [Q, n("QLinearMatMul", "q xs xz m ws5 wz5 ys yz", "r"), LAST[1]],
        {"Quantize": 1, "Dense": 1, "Dequantize": 1},
        FEATURES,
    ),
    "qgemm": (
        [Q, n(f"{MICROSOFT}.QGemm", "q xs xz mt ws5 wz5 b5 ys yz", "r", transB=1), LAST[1]],
        {"Quantize": 1, "Dense": 1, "Dequantize": 1},
        FEATURES,
    ),
    "qgemm_to_float": (
        [Q, n(f"{MICROSOFT}.QGemm", "q xs xz m ws wz b5", "y")],
        {"Quantize": 1, "Dense": 1, "Dequantize": 3},
        FEATURES,
    ),
    **{
        f"qlinear_{op.lower()}": (
            [Q, n(f"{MICROSOFT}.QLinear{op}", "q xs xz c as az ys yz", "r"), LAST[1]],
            {"Quantize": 1, op: 1, "Dequantize": 1},
            IMAGE,
        )
        for op in ("Add", "Mul")
    },
    **{
        f"qlinear_{op.lower()}": (
            [Q, n(f"{MICROSOFT}.QLinear{op}", "q xs xz ys yz", "r", **attributes), LAST[1]],
            {"Quantize": 1, kind: 1, "Dequantize": 1},
            shape,
        )
        for op, kind, shape, attributes in (
            ("AveragePool", "AveragePool", IMAGE, {"kernel_shape": [2, 2]}),
            ("GlobalAveragePool", "Mean", IMAGE, {}),
            ("Sigmoid", "Sigmoid", IMAGE, {}),
            ("LeakyRelu", "LeakyReLU", IMAGE, {"alpha": 0.2}),
            ("Softmax", "Softmax", FEATURES, {"opset": 13, "axis": -1}),
        )
    },
    "qlinear_concat": (
        [Q, n(f"{MICROSOFT}.QLinearConcat", "ys yz q xs xz q xs xz", "r", axis=1), LAST[1]],
        {"Quantize": 2, "Concat": 1, "Dequantize": 1},
        IMAGE,
    ),
}
KERNELS["pads"] = np.array([0, 0, 1, 0, 0, 0, 0, 2])


@pytest.mark.parametrize("name", CASES)
def test_a_quantized_file_gives_what_onnx_runtime_gives(name: str, tmp_path: Path) -> None:
    nodes, kinds, shape = CASES[name]
    content = model(nodes, shape).SerializeToString()
    graph = read(content, tmp_path)
    assert graph.kinds() == kinds
    x = np.random.default_rng(1).normal(0, 1.5, shape).astype(np.float32)
    wanted, found = expected(content, x), executed(graph, x)
    # One step of what the last integers stand for, where a float sum comes near the middle between two.
    step = 1e-5 if "to_float" in name or name == "weight_only" else float(SCALES["ys"])
    assert found.shape == wanted.shape
    assert np.mean(np.abs(found - wanted) > 1e-4) <= (0.15 if name in COARSE else 0.01)
    np.testing.assert_allclose(found, wanted, atol=1.01 * step, rtol=1e-4)


def test_every_integer_of_a_file_is_kept(tmp_path: Path) -> None:
    graph = read(model(CASES["qdq_conv"][0], IMAGE).SerializeToString(), tmp_path)
    (conv,) = (node for node in graph.nodes if node.kind == "Conv")
    x, kernel, bias, y = (graph.tensors[name] for name in (*conv.inputs, conv.output))
    np.testing.assert_array_equal(kernel.data, KERNELS["w"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(bias.data, KERNELS["b3"])
    three = tuple(SCALES["ws3"].tolist())
    assert kernel.quantization == Quantization(scale=three, zero_point=(0, 0, 0), dtype="int8", axis=3)
    assert bias.quantization is not None
    assert bias.quantization.axis == 0
    assert (x.quantization, y.quantization) == (per_tensor(0.0217, 120, "uint8"), per_tensor(0.0313, 100, "uint8"))
    assert (kernel.name, bias.name) == ("w", "b3")


def test_a_relu_behind_a_layer_is_fused(tmp_path: Path) -> None:
    graph = read(model(CASES["qdq_conv_relu"][0], IMAGE).SerializeToString(), tmp_path)
    (conv,) = (node for node in graph.nodes if node.kind == "Conv")
    assert conv.op.attributes()["activation"] == ReLU()


def test_ports_of_integers_are_quantized_tensors(tmp_path: Path) -> None:
    nodes = [n("QLinearConv", "x xs xz w ws3 wz3 ys yz b3", "y", **PADDED)]
    content = model(nodes, IMAGE, "uint8").SerializeToString()
    graph = read(content, tmp_path)
    assert graph.tensors[graph.inputs[0].tensor].quantization == per_tensor(0.0217, 120, "uint8")
    x = np.random.default_rng(1).integers(0, 256, IMAGE).astype(np.uint8)
    wanted, found = expected(content, x), executed(graph, x)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted)


DYNAMIC = n("DynamicQuantizeLinear", "x", "q s z")


@pytest.mark.parametrize(
    ("nodes", "kind", "shape"),
    [
        (
            [
                DYNAMIC,
                n("ConvInteger", "q w z wz", "i", **PADDED),
                n("Cast", "i", "f", to=1),
                n("Mul", "s ws", "p"),
                n("Mul", "f p", "y"),
            ],
            "Conv",
            IMAGE,
        ),
        (
            [
                DYNAMIC,
                n("MatMulInteger", "q m z wz", "i"),
                n("Cast", "i", "f", to=1),
                n("Mul", "f s", "p"),
                n("Mul", "ws5 p", "y"),
            ],
            "Dense",
            FEATURES,
        ),
    ],
)
def test_dynamic_range_becomes_a_layer_with_a_kernel_of_integers(
    nodes: list[Node], kind: str, shape: Sequence[int], tmp_path: Path
) -> None:
    content = model(nodes, shape).SerializeToString()
    graph = read(content, tmp_path)
    assert graph.kinds() == {kind: 1}
    kernel = graph.tensors[graph.nodes[0].inputs[1]]
    assert kernel.quantization is not None
    assert kernel.stored_dtype == "int8"
    x = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    wanted, found = expected(content, x), executed(graph, x)
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()  # the runtime rounds x to 256 steps


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([DYNAMIC, n("Cast", "q", "y", to=1)], "DynamicQuantizeLinear, ConvInteger or MatMulInteger"),
        ([Q, n("Cast", "q", "y", to=1)], "that move or choose them"),
        ([Q, n("DequantizeLinear", "q ys yz", "y")], "'q' was quantized were wanted; found others"),
        ([n("Relu", "x", "s"), n("QuantizeLinear", "x s xz", "y")], "constant scales was wanted; 's' is computed"),
        ([n("QuantizeLinear", "x ws5 - ", "y", axis=3)], "one scale for the whole of a computed tensor"),
        ([n("QuantizeLinear", "x xs xz", "y", block_size=2)], "found block_size"),
        (
            [Q, n(f"{MICROSOFT}.QLinearAveragePool", "q xs xz ys yz", "y", kernel_shape=[2, 2], channels_last=1)],
            "channels first",
        ),
    ],
)
def test_what_is_not_carried_is_listed_with_its_reason(nodes: list[Node], reason: str, tmp_path: Path) -> None:
    graph = read(model(nodes, IMAGE).SerializeToString(), tmp_path)
    kinds = [node.op.kind for node in graph.nodes if isinstance(node.op, Opaque)]
    assert any(reason in kind for kind in kinds), kinds


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [n("DequantizeLinear", "w ws5 wz5", "k", axis=0)],
            "a scale for each of 3 channels of axis 0 was wanted; found 5",
        ),
        ([n("DequantizeLinear", "w ws3 wz3", "k", axis=4)], r"an axis in -4\.\.3 was wanted; found 4"),
        ([n("DequantizeLinear", "w ws3 wz5", "k", axis=0)], "as many as the 3 scales, were wanted; found 5 of int8"),
        ([n("DequantizeLinear", "w ws xz", "k")], "zero points of type int8.*found 1 of uint8"),
        ([n("DequantizeLinear", "w zero wz", "k")], "finite scales above 0 were wanted"),
        ([n("DequantizeLinear", "w nan wz", "k")], "finite scales above 0 were wanted"),
        ([n("DequantizeLinear", "w b3 wz", "k")], "finite scales above 0 were wanted; found int32"),
        ([Q, n("QLinearConv", "q xs xz w ws wz ys yz bf", "k")], "a bias of int32 was wanted; found float32"),
        ([Q, n("QLinearConv", "q xs xz", "k")], "an input number 4 was wanted; it is left out"),
    ],
)
def test_contradictions_are_refused(nodes: list[Node], message: str, tmp_path: Path) -> None:
    content = model([*nodes, n("Conv", "x k", "y")], IMAGE).SerializeToString()
    with pytest.raises(InputFileError, match=message):
        read(content, tmp_path)


KERNELS["zero"], KERNELS["nan"] = np.float32(0), np.float32(np.nan)


def _node_tests() -> list[Any]:
    """Return ONNX's own tests of single operators whose integers have one scale for each tensor."""
    import warnings

    from onnx.backend.test.case import node

    kinds = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = node.collect_testcases()
    left_out = ("axis", "blocked", "float4", "int4", "int2", "e4m3fn", "e5m2")
    return [
        case
        for case in cases
        if case.model is not None
        and len(case.model.graph.node) == 1
        and case.model.graph.node[0].op_type in kinds
        and not any(word in case.name for word in left_out)
    ]


def test_onnx_s_own_node_tests(tmp_path: Path) -> None:
    cases = _node_tests()
    assert len(cases) >= 15
    for case in cases:
        inputs, outputs = ([np.asarray(each) for each in side] for side in case.data_sets[0])
        bound = type(case.model)()
        bound.CopyFrom(case.model)
        for port, values in zip(list(bound.graph.input)[1:], inputs[1:], strict=True):
            bound.graph.input.remove(port)
            bound.graph.initializer.append(onnx.numpy_helper.from_array(values, port.name))
        graph = read(bound.SerializeToString(), tmp_path)
        found = executed(graph, inputs[0])
        np.testing.assert_allclose(found, outputs[0], atol=1e-6, err_msg=case.name)
        assert found.dtype == outputs[0].dtype, case.name


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}")
def test_a_published_network_gives_the_same_integers_as_onnx_runtime() -> None:
    path = DATA / "weights/imagenet_onnx/mobilenet_v2_quant.onnx"
    graph = registry.load("converters", "onnx").read(path)
    assert graph.kinds() == {"Quantize": 1, "Conv": 52, "Add": 11, "Mean": 1, "Reshape": 1, "Dense": 1, "Dequantize": 1}
    x = np.random.default_rng(0).normal(0, 1, (1, 3, 224, 224)).astype(np.float32)
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"input": x})
    found = execute(graph, {"input": from_layout(x, "NCHW")})["output"]
    assert np.mean(found == wanted) > 0.999
