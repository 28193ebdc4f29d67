"""TFLite files of quantized Graphs: what LiteRT computes from them, how they are spelled, what is refused."""

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from edgecnn.converters.onnx_file import ONNX
from edgecnn.converters.tflite_file import TFLITE

from edgecnn import ops
from edgecnn.contract import Contract
from edgecnn.errors import UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Node, Port, Tensor, with_batch
from edgecnn.passes.unsigned_activations import signed_kernels, unsigned_activations
from edgecnn.quantization.parameters import Quantization, per_channel, per_tensor
from tests import graphs
from tests.quantized_graphs import FLOATS, GRAPHS, quantized, stored_values, weight_only

FLOAT_RESULT = [name for name in GRAPHS if name.endswith(("_weight_only", "_dynamic_range"))]
OF_16_BITS = [name for name in GRAPHS if name.endswith("_int16")]
INTEGERS = [name for name in GRAPHS if name not in FLOAT_RESULT]

LOOKED_UP = {"sigmoid_int16": 1, "tanh_int16": 1}
"""Graph -> steps by which a table between whose entries the kernel interpolates may differ."""

NO_REFERENCE = {"depth_to_space", "elu", "sum", "tile"}
"""Without a version in LiteRT's table of reference kernels; the sum there is wrong (every output alike)."""

OUTSIDE_XNNPACK = {
    *("average_pool", "average_pool_same", "average_pool_uint8", "gather", "gelu", "gelu_approximate", "hard_swish"),
    *("l2_normalize", "matmul", "maximum", "minimum", "minimum_channels", "pad_with_value", "prelu", "relu", "relu6"),
    *("softmax", "softmax_over_channels", "tile", "requantize_int8_to_uint8", "requantize_int16_to_int8"),
    *("requantize_uint8_to_int8", *OF_16_BITS),
}
"""Graphs of which XNNPACK in LiteRT 2.3 leaves an operator to other kernels."""


def written(graph: Graph, folder: Path, name: str = "m") -> Path:
    path: Path = TFLITE.write(graph, folder / f"{name}.tflite").path
    return path


def run(path: Path, x: Array, kernels: OpResolverType = OpResolverType.AUTO) -> tuple[Array, list[str]]:
    """Return the only output as stored, and the operators, one DELEGATE for each that XNNPACK took."""
    interpreter = Interpreter(
        str(path),
        num_threads=1,
        experimental_op_resolver_type=kernels,
        experimental_disable_delegate_node_fusion=kernels == OpResolverType.AUTO,
    )
    (port,) = interpreter.get_input_details()
    if tuple(port["shape"]) != x.shape:
        interpreter.resize_tensor_input(port["index"], x.shape)
    interpreter.allocate_tensors()
    assert port["dtype"] == x.dtype
    interpreter.set_tensor(port["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found, [operator["op_name"] for operator in interpreter._get_ops_details()]


def steps_apart(graph: Graph, found: Array, x: Array, rounding: Any) -> int:
    wanted = execute(graph, {"image": x}, stored=True, rounding=rounding)["result"]
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    if wanted.dtype.kind == "f":
        (scale,) = next(
            t.quantization.scale
            for t in graph.tensors.values()
            if t.quantization and t.name == graph.nodes[-1].inputs[0]
        )
        return round(float(np.abs(found - wanted).max()) / scale)
    return int(np.abs(found.astype(np.int64) - wanted.astype(np.int64)).max())


@pytest.mark.parametrize("name", INTEGERS)
def test_litert_gives_the_integers_of_the_golden(name: str, tmp_path: Path) -> None:
    """XNNPACK rounds in float32; 16 bits have reference kernels only."""
    graph, x = GRAPHS[name], stored_values(GRAPHS[name])["image"]
    found, operators = run(written(graph, tmp_path), x)
    rounding = "fixed_point" if name in OF_16_BITS else "float32"
    assert steps_apart(graph, found, x, rounding) <= LOOKED_UP.get(name, 0)
    kinds = TFLITE.listing(tmp_path / "m.tflite").operators
    assert (operators.count("DELEGATE") == sum(kinds.values())) == (name not in OUTSIDE_XNNPACK)


@pytest.mark.parametrize("name", [name for name in INTEGERS if name not in NO_REFERENCE])
def test_reference_kernels_give_the_integers_of_the_golden(name: str, tmp_path: Path) -> None:
    graph, x = GRAPHS[name], stored_values(GRAPHS[name])["image"]
    found, _ = run(written(graph, tmp_path), x, OpResolverType.BUILTIN_REF)
    assert steps_apart(graph, found, x, "fixed_point") <= LOOKED_UP.get(name, 0)


@pytest.mark.parametrize("name", FLOAT_RESULT)
def test_quantized_kernels_of_float_layers(name: str, tmp_path: Path) -> None:
    """A kernel made float computes what `execute` does; with a hybrid one, the input is rounded to 8 bits."""
    graph, x = GRAPHS[name], stored_values(GRAPHS[name])["image"]
    found, operators = run(written(graph, tmp_path), x)
    wanted = execute(graph, {"image": x})["result"]
    is_hybrid = name in ("conv_dynamic_range", "dense_dynamic_range")
    apart = float(np.abs(found - wanted).max() / np.ptp(wanted))
    assert apart < (0.01 if is_hybrid else 1e-6)
    assert (apart > 1e-4) == is_hybrid
    assert "DELEGATE" in operators


def test_a_mobilenet_is_one_partition_of_xnnpack(tmp_path: Path) -> None:
    interpreter = Interpreter(str(written(GRAPHS["mobile_with_float_ports"], tmp_path)), num_threads=1)
    interpreter.allocate_tensors()
    assert [operator["op_name"] for operator in interpreter._get_ops_details()].count("DELEGATE") == 1
    assert TFLITE.listing(tmp_path / "m.tflite").operators == {
        "CONV_2D": 6,
        "DEPTHWISE_CONV_2D": 2,
        "ADD": 1,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "QUANTIZE": 1,
        "DEQUANTIZE": 1,
    }


MORE: dict[str, tuple[str, dict[str, int]]] = {
    "conv_transpose_grouped": ("int8", {"SLICE": 2, "TRANSPOSE_CONV": 2, "CONCATENATION": 1}),
    "conv_transpose_depthwise": ("int8", {"RESHAPE": 3, "PAD": 3, "DEPTHWISE_CONV_2D": 1}),
    "conv_transpose_dilated": ("uint8", {"TRANSPOSE_CONV": 1, "SLICE": 1}),
    "conv_1d": ("int8", {"RESHAPE": 2, "CONV_2D": 1}),
    "max_pool_padded": ("int8", {"PADV2": 1, "MAX_POOL_2D": 1}),
    "max_pool_padded_behind_fused": ("int8", {"ADD": 1, "PAD": 1, "MAX_POOL_2D": 1}),
    "average_pool_counting_padding": ("int8", {"PAD": 1, "AVERAGE_POOL_2D": 1}),
    "resize_nearest_doubled": ("int8", {"CONV_2D": 2, "CONCATENATION": 2, "RESHAPE": 2}),
    "pad_edge": ("int8", {"SLICE": 3, "CONCATENATION": 2}),
    "concat_of_many": ("int8", {"LEAKY_RELU": 8, "CONCATENATION": 2}),
    "clip": ("int8", {"QUANTIZE": 1, "MAXIMUM": 1, "MINIMUM": 1}),
    "hard_sigmoid": ("uint8", {"ADD": 1, "MUL": 1}),
    "matmul": ("int8", {"TRANSPOSE": 1, "BATCH_MATMUL": 1}),
}
"""Float Graph that takes several operators or an odd one -> type to try it in, and the operators."""


TIES = {"clip", "concat_of_many"}
"""Graphs whose QUANTIZE, or whose LEAKY_RELU of slope 0, may differ by a step where a half is rounded."""


@pytest.mark.parametrize("name", MORE)
def test_what_becomes_several_operators_is_right_in_integers(name: str, tmp_path: Path) -> None:
    dtype, operators = MORE[name]
    graph = quantized(graphs.GRAPHS[name], activations=dtype, weights=dtype)
    x = stored_values(graph)["image"]
    assert TFLITE.write(graph, tmp_path / "m.tflite").operators == operators
    for kernels, rounding in ((OpResolverType.AUTO, "float32"), (OpResolverType.BUILTIN_REF, "fixed_point")):
        found, _ = run(tmp_path / "m.tflite", x, kernels)
        assert steps_apart(graph, found, x, rounding) <= (name in TIES)


def versions(path: Path) -> dict[str, int]:
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    kinds = {code: kind for kind, code in vars(schema.BuiltinOperator).items()}
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    return {kinds[code.BuiltinCode()]: code.Version() for code in codes}


def dense_per_channel(is_dynamic: bool) -> Graph:
    """A Dense whose kernel has one scale for each output."""
    base = GRAPHS["dense_dynamic_range" if is_dynamic else "dense"]
    float_kernel, float_bias = (FLOATS["dense"].tensors[name].value() for name in ("kernel", "bias"))
    kernel = per_channel(np.abs(float_kernel).max(axis=0) / 127, 1)
    tensors = {**base.tensors, "kernel": stored(base.tensors["kernel"], float_kernel, kernel)}
    image = base.tensors["image"].quantization
    if image is not None:
        bias = per_channel(np.float32(image.scale[0]) * np.asarray(kernel.scale, np.float32), 0, "int32")
        tensors["bias"] = stored(base.tensors["bias"], float_bias, bias)
    return replace(base, tensors=tensors)


def stored(tensor: Tensor, numbers: Array, quantization: Quantization) -> Tensor:
    return replace(tensor, data=quantization.quantize(numbers), quantization=quantization)


VERSIONS = {
    "conv": {"PAD": 2, "CONV_2D": 3},
    "conv_uint8": {"PAD": 1, "CONV_2D": 1},
    "conv_int16": {"PAD": 3, "CONV_2D": 1},
    "conv_grouped": {"CONV_2D": 6},
    "conv_depthwise_dilated": {"DEPTHWISE_CONV_2D": 3},
    "conv_dynamic_range": {"PAD": 1, "CONV_2D": 5},
    "conv_depthwise_dynamic_range": {"DEQUANTIZE": 5, "DEPTHWISE_CONV_2D": 1},
    "dense": {"FULLY_CONNECTED": 4},
    "dense_dynamic_range": {"FULLY_CONNECTED": 9},
    "dense_weight_only": {"DEQUANTIZE": 2, "FULLY_CONNECTED": 1},
    "add_int16": {"ADD": 3},
    "sub_int16": {"SUB": 5},
    "mul_int16": {"MUL": 4},
    "leaky_relu_int16": {"LEAKY_RELU": 2},
    "split": {"SPLIT": 2, "TANH": 2, "CONCATENATION": 2},
    "conv_transpose_without_bias": {"TRANSPOSE_CONV": 2},
    "requantize_int8_to_uint8": {"QUANTIZE": 1},
}


@pytest.mark.parametrize("name", VERSIONS)
def test_operators_have_the_lowest_version_that_fits(name: str, tmp_path: Path) -> None:
    assert versions(written(GRAPHS[name], tmp_path)).items() >= VERSIONS[name].items()


def test_a_product_of_coarse_steps_has_a_version_of_its_own(tmp_path: Path) -> None:
    graph = GRAPHS["mul_scalar"]
    coarse = replace(graph.tensors["image"], quantization=per_tensor(100.0))
    assert versions(written(graph, tmp_path)) == {"MUL": 2}
    assert versions(written(replace(graph, tensors={**graph.tensors, "image": coarse}), tmp_path)) == {"MUL": 3}


@pytest.mark.parametrize("is_dynamic", [False, True])
def test_a_dense_layer_of_several_scales_is_kept_from_runtimes_that_read_one(is_dynamic: bool, tmp_path: Path) -> None:
    graph = dense_per_channel(is_dynamic)
    x = stored_values(graph)["image"]
    path = written(graph, tmp_path)
    assert versions(path) == {"FULLY_CONNECTED": 12}
    found, wanted = run(path, x)[0], execute(graph, {"image": x}, stored=True)["result"]
    np.testing.assert_allclose(found, wanted, atol=0.02 * float(np.ptp(wanted)) if is_dynamic else 0)


def tables(path: Path) -> dict[str, tuple[str, list[float], list[int], int]]:
    """Tensor -> type, scales, zero points, axis."""
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    types = {number: name for name, number in vars(schema.TensorType).items()}
    found = {}
    for tensor in (model.Subgraphs(0).Tensors(i) for i in range(model.Subgraphs(0).TensorsLength())):
        own = tensor.Quantization()
        if own is not None and own.ScaleLength():
            scales, zeros = own.ScaleAsNumpy().tolist(), own.ZeroPointAsNumpy().tolist()
            found[tensor.Name().decode()] = (types[tensor.Type()], scales, zeros, own.QuantizedDimension())
    return found


@pytest.mark.parametrize(("name", "axis"), [("conv", 0), ("conv_depthwise", 3), ("conv_transpose", 0)])
def test_the_axis_of_a_kernel_is_that_of_its_arrangement(name: str, axis: int, tmp_path: Path) -> None:
    graph = GRAPHS[name]
    node = graph.nodes[-1]
    kernel, bias = (graph.tensors[each].quantization for each in node.inputs[1:])
    assert kernel is not None
    assert bias is not None
    found = tables(written(graph, tmp_path))
    assert found[node.inputs[1]] == ("INT8", list(kernel.scale), list(kernel.zero_point), axis)
    assert found[node.inputs[2]] == ("INT32", list(bias.scale), list(bias.zero_point), 0)


def test_a_bias_that_is_missing_has_the_scale_of_the_products(tmp_path: Path) -> None:
    graph = GRAPHS["conv_without_bias"]
    image, kernel = (graph.tensors[name].quantization for name in graph.nodes[0].inputs)
    assert image is not None
    assert kernel is not None
    products = (np.float32(image.scale[0]) * np.asarray(kernel.scale, np.float32)).tolist()
    assert tables(written(graph, tmp_path))["y/bias"] == ("INT32", products, [0] * 5, 0)


@pytest.mark.parametrize("name", ["conv_int16", "dense_int16", "conv_transpose_int16"])
def test_a_bias_of_32_bits_behind_16_is_widened(name: str, tmp_path: Path) -> None:
    graph, bias = GRAPHS[name], GRAPHS[name].nodes[-1].inputs[2]
    tensor = graph.tensors[bias]
    assert tensor.data is not None
    assert tensor.quantization is not None
    narrow = replace(
        tensor, data=tensor.data.astype(np.int32), quantization=replace(tensor.quantization, dtype="int32")
    )
    path = written(replace(graph, tensors={**graph.tensors, bias: narrow}), tmp_path, "narrow")
    assert path.read_bytes() == written(graph, tmp_path, "wide").read_bytes()


def changed(name: str, **quantizations: Quantization | None) -> Graph:
    """Return a Graph with other scales; where there is none, the number as float."""
    graph = GRAPHS[name]
    tensors = dict(graph.tensors)
    for tensor, other in quantizations.items():
        own = tensors[tensor]
        data = own.data if own.data is None else own.value() if other is None else own.data.astype(other.dtype)
        tensors[tensor] = replace(own, quantization=other, data=data)
    return replace(graph, tensors=tensors)


def behind(op: ops.Op, dtype: str = "int8") -> Graph:
    """One operator between integers of one scale."""
    graph = graphs.image_graph(graphs.unary(op))
    zero = 128 if dtype == "uint8" else 0
    tensors = {name: replace(t, quantization=per_tensor(0.05, zero, dtype)) for name, t in graph.tensors.items()}
    return replace(graph, tensors=tensors)


IN_FLOAT = "Keep it in float, between a Dequantize and a Quantize."

REFUSED: dict[str, Callable[[], Graph]] = {
    f"tflite wants float numbers for this Softplus; got int8. {IN_FLOAT}": lambda: behind(ops.Softplus()),
    "tflite wants float numbers for this Swish; got int8. Write it as Sigmoid and Mul.": lambda: behind(ops.Swish()),
    f"tflite wants float numbers for this ELU; got int8. {IN_FLOAT}": lambda: behind(ops.ELU(alpha=0.5)),
    f"tflite wants int8 for this ELU; got uint8. {IN_FLOAT}": lambda: behind(ops.ELU(), "uint8"),
    f"tflite wants int8 or uint8 for this SpaceToDepth; got int16. {IN_FLOAT}": lambda: quantized(
        graphs.image_graph(graphs.unary(ops.SpaceToDepth(block=2)), (1, 4, 4, 1)), activations="int16"
    ),
    "tflite wants one scale for all that Reshape takes and gives; got scale 0.5 with zero point 3 and scale 0.25 with "
    "zero point 3. Put a Quantize before it.": lambda: changed(
        "reshape", image=per_tensor(0.5, 3), y=per_tensor(0.25, 3)
    ),
    "tflite wants Sigmoid to give scale 0.00390625 with zero point -128; got scale 0.01 with zero point 0. "
    "Put a Quantize behind it.": lambda: changed("sigmoid", y=per_tensor(0.01)),
    "tflite wants numbers of one type for this LeakyReLU; got float32 and int8. Put a (De)Quantize between.": lambda: (
        changed("leaky_relu", y=None)
    ),
    "tflite wants int16 with zero point 0; got 5. Quantize it symmetrically.": lambda: changed(
        "relu_int16", y=per_tensor(0.1, 5, "int16")
    ),
    "tflite wants a kernel of int8 for int8; got uint8. Store it so, or in float behind a Dequantize.": lambda: changed(
        "dense", kernel=per_tensor(0.1, 0, "uint8")
    ),
    "tflite wants an int8 kernel with zero point 0; got another one. Store it as uint8, or in float.": lambda: changed(
        "dense", kernel=per_tensor(0.1, 1)
    ),
    f"tflite wants a bias of int32; got float32. {IN_FLOAT}": lambda: changed("dense", bias=None),
    "tflite wants a bias of scale 0.125 (input * kernel); got scale 0.5 with zero point 0. Quantize it so.": lambda: (
        changed("dense", image=per_tensor(0.5), kernel=per_tensor(0.25), bias=per_tensor(0.5, 0, "int32"))
    ),
    "tflite wants an output scale of at least 2.79e-09 (6 / 2^31); got 1e-09. Widen its range.": lambda: changed(
        "relu6", y=per_tensor(1e-9)
    ),
    "tflite wants padding that equals SAME for a mean over int8 that leaves it out; got ((1, 0), (1, 1)). "
    f"{IN_FLOAT}": lambda: behind(ops.AveragePool(kernel_size=(2, 2), stride=(2, 2), padding=((1, 0), (1, 1)))),
}
"""What is said behind the node's name -> Graph of which it is said."""


@pytest.mark.parametrize("reason", REFUSED)
def test_what_the_kernels_would_take_for_something_else_is_refused(reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"^y: {re.escape(reason)}$"):
        TFLITE.write(REFUSED[reason](), tmp_path / "m.tflite")
    assert not (tmp_path / "m.tflite").exists()


def test_uint8_joins_tensors_of_different_scales(tmp_path: Path) -> None:
    """The uint8 kernel brings each input to the output's scale; the golden rounds as it does."""
    coarse = per_tensor(0.11, 120, "uint8")
    second = GRAPHS["concat"].nodes[-1].inputs[1]
    graph = changed("concat_uint8", **{second: coarse})
    x = stored_values(graph)["image"]
    found, _ = run(written(graph, tmp_path), x, OpResolverType.BUILTIN_REF)
    assert steps_apart(graph, found, x, "fixed_point") <= 1
    with pytest.raises(UnsupportedError, match=r"^y: tflite wants one scale for all that Concat takes and gives"):
        TFLITE.write(changed("concat", **{second: per_tensor(0.11, 4)}), tmp_path / "m.tflite")


def test_the_same_quantized_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (written(GRAPHS["mobile"], tmp_path, name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


SIGNED = [name for name in INTEGERS if all(t.stored_dtype != "uint8" for t in GRAPHS[name].tensors.values())]


@pytest.mark.parametrize("name", SIGNED)
def test_unsigned_activations_over_signed_kernels_become_the_integers_that_they_were(name: str, tmp_path: Path) -> None:
    graph = GRAPHS[name]
    if not any(isinstance(node.op, ops.Conv | ops.ConvTranspose | ops.Dense) for node in graph.nodes):
        return  # tflite has kernels for it in uint8 too
    unsigned = unsigned_activations(graph)
    assert written(unsigned, tmp_path, "b").read_bytes() == written(graph, tmp_path, "a").read_bytes()


def test_unsigned_ports_over_signed_kernels_keep_their_type(tmp_path: Path) -> None:
    graph = quantized(FLOATS["conv"], activations="uint8")
    x = stored_values(graph)
    found, _ = run(written(graph, tmp_path), next(iter(x.values())))
    assert found.dtype == "uint8"
    np.testing.assert_array_equal(found, execute(graph, x, stored=True)["result"])


def test_kernels_with_zero_points_become_unsigned_again(tmp_path: Path) -> None:
    graph = GRAPHS["mobile_uint8"]
    signed = signed_kernels(graph)
    assert written(signed, tmp_path, "b").read_bytes() == written(graph, tmp_path, "a").read_bytes()


def test_metadata_of_raw_bytes_states_the_range_of_bytes(tmp_path: Path) -> None:
    contract = Contract(height=32, width=32, mean=(127.5,) * 3, std=(127.5,) * 3)
    content = written(replace(GRAPHS["mobile_uint8"], contract=contract), tmp_path).read_bytes()
    own = content[content.index(b"M001") - 4 :]
    for values in ((127.5,) * 3, (0.0,) * 3, (255.0,) * 3):
        assert struct.pack("<I3f", 3, *values) in own
    assert struct.pack("<I3f", 3, *(1.0,) * 3) not in own


def test_a_float_island_between_integers(tmp_path: Path) -> None:
    """Dequantize, an operator without an integer kernel, Quantize."""
    integers = per_tensor(0.04, 3)
    nodes = (
        Node(name="wide", op=ops.Dequantize(), inputs=("image",), outputs=("wide",)),
        Node(name="soft", op=ops.Softplus(), inputs=("wide",), outputs=("soft",)),
        Node(name="y", op=ops.Quantize(), inputs=("soft",), outputs=("y",)),
    )
    shape = (1, 4, 4, 2)
    tensors = {name: Tensor(name=name, shape=shape) for name in ("image", "wide", "soft", "y")}
    tensors |= {name: replace(tensors[name], quantization=integers) for name in ("image", "y")}
    graph = Graph(
        name="island",
        nodes=nodes,
        tensors=tensors,
        inputs=(Port(name="image", tensor="image"),),
        outputs=(Port(name="result", tensor="y"),),
    )
    x = stored_values(graph)["image"]
    assert steps_apart(graph, run(written(graph, tmp_path), x)[0], x, "float32") <= 1


def test_a_kernel_behind_dequantize_is_stored_as_integers(tmp_path: Path) -> None:
    """Each layer arranges the integers its own way, and makes float numbers of them."""
    graph = weight_only(FLOATS["conv_transpose"])
    found = tables(written(graph, tmp_path))
    kernel = graph.tensors[graph.nodes[0].inputs[0]].quantization
    assert kernel is not None
    assert [each for each in found.values() if each[0] == "INT8"] == [("INT8", list(kernel.scale), [0] * 5, 0)]


WEIGHTED = ("conv_3d", "conv_transpose_3d", "conv_transpose_3d_fused", "conv_transpose_grouped", "conv_1d")


@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize("name", WEIGHTED)
def test_any_layer_may_have_a_quantized_kernel(name: str, is_dynamic: bool, tmp_path: Path) -> None:
    graph = weight_only(graphs.GRAPHS[name], is_dynamic=is_dynamic)
    x = stored_values(graph)["image"]
    found, wanted = run(written(graph, tmp_path), x)[0], execute(graph, {"image": x})["result"]
    np.testing.assert_allclose(found, wanted, atol=(0.02 if is_dynamic else 1e-6) * float(np.ptp(wanted)))


DATA = Path(os.environ.get("EDGECNN_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data") / "weights"
PUBLISHED = (
    "imagenet_tflite/mobilenet_v1_0.25_224_quant.tflite",
    "imagenet_tflite/mobilenet_v2_1.0_224_quant.tflite",
    "mlperf_tiny/pretrainedResnet_quant.tflite",
    "mlperf_tiny/vww_96_int8.tflite",
    "segmentation_voc/deeplabv3_mnv2_dm05_pascal_quant.tflite",
    "detection_coco/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29_no_metadata.tflite",
)


def everything(path: Path, seed: int = 0) -> list[Array]:
    """Return all outputs on random integers."""
    interpreter = Interpreter(str(path), num_threads=2)
    interpreter.allocate_tensors()
    (port,) = interpreter.get_input_details()
    info = np.iinfo(port["dtype"])
    x = np.random.default_rng(seed).integers(info.min, info.max, port["shape"], port["dtype"], endpoint=True)
    interpreter.set_tensor(port["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]


def constants(path: Path) -> list[tuple[bytes, tuple[int, ...]]]:
    """Return the integers of each quantized constant."""
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    subgraph = model.Subgraphs(0)
    found = []
    for tensor in (subgraph.Tensors(i) for i in range(subgraph.TensorsLength())):
        buffer, own = model.Buffers(tensor.Buffer()), tensor.Quantization()
        if buffer.DataLength() and own is not None and own.ScaleLength():
            found.append((buffer.DataAsNumpy().tobytes(), tuple(tensor.ShapeAsNumpy())))
    return sorted(found)


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_integers_are_written_as_they_were_read(name: str, tmp_path: Path) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not here; set EDGECNN_TEST_DATA")
    path = written(TFLITE.read(DATA / name), tmp_path)
    assert constants(path) == constants(DATA / name)
    for found, wanted in zip(everything(path), everything(DATA / name), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED[:5])  # ONNX has no DetectionPostProcess
def test_published_integers_are_the_same_after_onnx(name: str, tmp_path: Path) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not here; set EDGECNN_TEST_DATA")
    ONNX.write(with_batch(TFLITE.read(DATA / name), 1), tmp_path / "m.onnx")
    path = written(with_batch(ONNX.read(tmp_path / "m.onnx"), 1), tmp_path)
    assert constants(path) == constants(DATA / name)
    for found, wanted in zip(everything(path), everything(DATA / name), strict=True):
        np.testing.assert_array_equal(found, wanted)


ONCE = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
for path, x in zip(sys.argv[1::2], sys.argv[2::2]):
    interpreter = Interpreter(path, num_threads=1)
    (port,), x = interpreter.get_input_details(), np.load(x)
    interpreter.resize_tensor_input(port["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(port["index"], x)
    interpreter.invoke()
"""


@pytest.mark.slow
def test_tflite_runtime_loads_and_runs_every_file(tmp_path: Path) -> None:
    """It needs numpy below 2, so an environment of its own, whose Python the variable names."""
    python = os.environ.get("EDGECNN_TFLITE_RUNTIME_PYTHON")
    if not python:
        pytest.skip("EDGECNN_TFLITE_RUNTIME_PYTHON names no Python with tflite-runtime")
    arguments = []
    for name, graph in GRAPHS.items():
        np.save(tmp_path / f"{name}.npy", stored_values(graph)["image"])
        arguments += [str(written(graph, tmp_path, name)), str(tmp_path / f"{name}.npy")]
    done = subprocess.run([python, "-c", ONCE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile", "resize_nearest", "hard_sigmoid"])
def test_vela_maps_every_operator_to_the_npu(name: str, tmp_path: Path) -> None:
    vela = os.environ.get("EDGECNN_VELA") or shutil.which("vela")
    if not vela:
        pytest.skip("vela is not on the path, and EDGECNN_VELA names none")
    command = [vela, str(written(GRAPHS[name], tmp_path)), "--accelerator-config", "ethos-u55-128"]
    done = subprocess.run([*command, "--output-dir", str(tmp_path)], capture_output=True, text=True, check=True)
    assert "CPU operators = 0 (0.0%)" in done.stdout
