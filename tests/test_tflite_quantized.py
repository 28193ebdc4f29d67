"""Quantized .tflite files: every integer is kept, the Graph computes what LiteRT does, wrong tables are refused."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from click.testing import CliRunner
from edgecnn.converters._flatbuffer import pack

from edgecnn import ops
from edgecnn.cli import edgecnn
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Node, Port, Tensor, to_layout, validate
from edgecnn.kernels.quantized import evaluate_quantized
from edgecnn.passes.dequantize import dequantize, implied_activation
from edgecnn.passes.settle_layout import settle_layout
from edgecnn.quantization.parameters import Quantization, per_channel, per_tensor
from tests.test_tflite_reader import DATA, TFLITE, File, Step, floats, ints, needs_data, single, window

Scales = Mapping[str, Quantization]

FILES = {
    "imagenet_tflite/mobilenet_v1_0.25_224_quant.tflite": 28,
    "imagenet_tflite/mobilenet_v1_0.5_160_quant.tflite": 28,
    "imagenet_tflite/mobilenet_v2_1.0_224_quant.tflite": 53,
    "mlperf_tiny/pretrainedResnet_quant.tflite": 10,
    "mlperf_tiny/vww_96_int8.tflite": 28,
    "segmentation_voc/deeplabv3_mnv2_dm05_pascal_quant.tflite": 55,
    "detection_coco/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29_no_metadata.tflite": 47,
}
"""File -> layers with a kernel."""


# --- what LiteRT's reference kernels say -----------------------------------------------------------------------------


def opened(path: Path) -> Any:
    found = Interpreter(
        str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, experimental_preserve_all_tensors=True
    )
    found.allocate_tensors()
    return found


def all_values(path: Path, inputs: Sequence[Array]) -> dict[str, Array]:
    """Return every tensor of a file by name."""
    interpreter = opened(path)
    for entry, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(entry["index"], values)
    interpreter.invoke()
    found = {}
    for entry in interpreter.get_tensor_details():
        try:
            found[entry["name"]] = interpreter.get_tensor(entry["index"])
        except ValueError:
            continue  # scratch memory has no data
    return found


def seeded(graph: Graph, seed: int = 0) -> list[Array]:
    """Return what the graph's inputs take, as stored: noise over blocks, so that deep layers see something."""
    rng, found = np.random.default_rng(seed), []
    for port in graph.inputs:
        tensor = graph.tensors[port.tensor]
        shape = [size or 1 for size in tensor.shape]
        coarse = rng.standard_normal(
            [-(-n // 8) if len(shape) == 4 and a in (1, 2) else n for a, n in enumerate(shape)]
        )
        for axis in (1, 2) if len(shape) == 4 else ():
            coarse = coarse.repeat(8, axis)
        values = coarse[tuple(slice(n) for n in shape)] + 0.2 * rng.standard_normal(shape)
        scales = tensor.quantization
        if scales is None:
            found.append(values.astype(tensor.dtype))
        else:
            low, high = scales.range
            found.append(scales.quantize(((low + high) / 2 + values * (high - low) / 5).astype(np.float32)))
    return found


def steps_apart(graph: Graph, wanted: Mapping[str, Array]) -> dict[str, tuple[str, float, float]]:
    """Run each node on LiteRT's own operands; return name -> kind, most steps apart, share of equal integers."""
    found = {}
    for node in graph.nodes:
        tensors = [graph.tensors[name] for name in (*node.inputs, *node.outputs)]
        if any(each.data is None and each.name not in wanted for each in tensors):
            continue
        values = [wanted[each.name] if each.data is None else each.data for each in tensors[: len(node.inputs)]]
        own = [each.quantization for each in tensors]
        count = len(node.inputs)
        results = evaluate_quantized(node.op, values, own[:count], own[count:], "fixed_point")
        for name, result, scales in zip(node.outputs, results, own[count:], strict=True):
            unit = 1e-4 * max(float(np.abs(wanted[name]).max()), 1e-6) if scales is None else 1.0
            apart = np.abs(result.astype(np.float64) - wanted[name].reshape(result.shape).astype(np.float64)) / unit
            found[node.name] = (node.kind, float(apart.max()), float((apart <= (scales is None)).mean()))
    return found


# --- real files ------------------------------------------------------------------------------------------------------


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", FILES)
def test_every_integer_and_scale_of_a_real_file_is_kept(name: str) -> None:
    path = DATA / "weights" / name
    graph, interpreter = TFLITE.read(path), opened(path)
    layers = [node for node in graph.nodes if isinstance(node.op, ops.Conv | ops.Dense)]
    assert len(layers) == FILES[name]
    details = {entry["name"]: entry for entry in interpreter.get_tensor_details()}
    compared = 0
    for tensor in graph.tensors.values():
        if tensor.quantization is None:
            continue
        entry, scales = details[tensor.name], tensor.quantization
        assert np.dtype(entry["dtype"]).name == scales.dtype
        assert entry["quantization_parameters"]["scales"].tolist() == list(scales.scale)
        assert entry["quantization_parameters"]["zero_points"].tolist() == list(scales.zero_point)
        if tensor.data is not None:
            stored = interpreter.get_tensor(entry["index"])
            assert np.array_equal(np.sort(stored, axis=None), np.sort(tensor.data, axis=None))
            compared += 1
    assert compared >= 2 * len(layers)
    kernels = [graph.tensors[node.inputs[1]] for node in layers]
    assert all(each.quantization is not None for each in kernels)
    assert {each.quantization and each.quantization.axis for each in kernels} <= {None, 3}


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", FILES)
def test_each_layer_of_a_real_file_computes_what_litert_computes(name: str) -> None:
    path = DATA / "weights" / name
    graph = TFLITE.read(path)
    wanted = all_values(path, seeded(graph))
    found = steps_apart(graph, wanted)
    del found[graph.nodes[-1].name]  # detections and positions are compared below
    assert len(found) == len(graph.nodes) - 1
    assert {kind: apart for kind, apart, _ in found.values() if apart > 1} == {}
    assert min(equal for _, _, equal in found.values()) > 0.9999


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("imagenet", "mlperf"))])
def test_a_real_file_decides_as_litert_does(name: str) -> None:
    path = DATA / "weights" / name
    graph = TFLITE.read(path)
    agreed = 0
    for seed in range(4):
        fed = seeded(graph, seed)
        wanted = all_values(path, fed)
        found = execute(graph, {graph.inputs[0].name: fed[0]}, stored=True, rounding="fixed_point")
        result, reference = found[graph.outputs[0].name], wanted[graph.outputs[0].tensor]
        assert result.dtype == reference.dtype
        agreed += int(result.argmax() == reference.argmax())
    assert agreed >= 3


@pytest.mark.data
@needs_data
def test_detections_behind_uint8_are_numbers() -> None:
    path = DATA / "weights" / list(FILES)[-1]
    graph = TFLITE.read(path)
    node = graph.nodes[-1]
    assert isinstance(node.op, ops.DetectionPostProcess)
    assert [graph.tensors[name].stored_dtype for name in (*node.inputs, *node.outputs)] == ["uint8"] * 3 + [
        "float32"
    ] * 4
    wanted = all_values(path, seeded(graph))
    own = [graph.tensors[name] for name in node.inputs]
    values = [wanted[each.name] if each.data is None else each.data for each in own]
    boxes, classes, scores, count = evaluate_quantized(
        node.op, values, [each.quantization for each in own], [None] * 4, "fixed_point"
    )
    assert count == wanted[node.outputs[3]]
    assert np.allclose(np.sort(scores), np.sort(wanted[node.outputs[2]]), atol=1e-5)
    assert boxes.shape == wanted[node.outputs[0]].shape
    assert classes.shape == wanted[node.outputs[1]].shape


@pytest.mark.data
@needs_data
def test_a_file_that_litert_refuses_is_refused() -> None:
    wanted = r"Conv2d_0/Conv2D_bias': one scale for each channel of axis 3 of \(8,\) was wanted; got 8"
    with pytest.raises(InputFileError, match=wanted):
        TFLITE.read(DATA / "weights/negative_fixtures/person_detect.tflite")


# --- files built by hand ---------------------------------------------------------------------------------------------


def table(found: Quantization) -> Any:
    return schema.QuantizationParametersT(
        scale=list(found.scale), zeroPoint=list(found.zero_point), quantizedDimension=found.axis or 0
    )


def model(file: File, scales: Scales) -> Any:
    """Return a file's tables, with scales for the tensors of these names."""
    made = file.model()
    for tensor in made.subgraphs[0].tensors:
        if tensor.name in scales:
            tensor.quantization = table(scales[tensor.name])
            tensor.type = getattr(schema.TensorType, scales[tensor.name].dtype.upper())
    return made


def write(made: Any, path: Path) -> Path:
    path.write_bytes(pack(made, sum(len(bytes(each.data)) for each in made.buffers if each.data is not None)))
    return path


def integers(*shape: int, dtype: str = "int8", seed: int = 0, low: int = -127, high: int = 127) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def conv_file(kernel: Array, bias: Array, version: int = 3, **fields: Any) -> File:
    name = "DepthwiseConv2D" if "depthMultiplier" in fields else "Conv2D"
    kind = {"Conv2D": "CONV_2D", "DepthwiseConv2D": "DEPTHWISE_CONV_2D"}[name]
    return single(kind, (1, 7, 6, 4), kernel, bias, options=name, version=version, **window(), **fields)


def spread(count: int, axis: int, least: float = 0.002) -> Quantization:
    return per_channel(np.linspace(least, 3 * least, count), axis)


def bias_of(x: Quantization, kernel: Quantization, dtype: str = "int32") -> Quantization:
    scales = [float(np.float32(x.scale[0]) * np.float32(each)) for each in kernel.scale]
    return per_tensor(scales[0], 0, dtype) if kernel.axis is None else per_channel(scales, 0, dtype)


X8, Y8, Z8 = per_tensor(0.05, 7), per_tensor(0.11, -20), per_tensor(0.03, 11)
XU, YU = per_tensor(0.05, 120, "uint8"), per_tensor(0.11, 90, "uint8")
X16, Y16 = per_tensor(1e-4, 0, "int16"), per_tensor(2e-4, 0, "int16")
BY_CHANNEL, WHOLE, OLD = spread(5, 0), per_tensor(0.004), per_tensor(0.004, 131, "uint8")

Case = tuple[File, Scales]


def int8_conv(activation: int = 0) -> Case:
    file = conv_file(integers(5, 3, 3, 4), integers(5, dtype="int32"), fusedActivationFunction=activation)
    return file, {"x": X8, "y": Y8, "c0": BY_CHANNEL, "c1": bias_of(X8, BY_CHANNEL)}


def depthwise_conv() -> Case:
    kernel = spread(8, 3)
    file = conv_file(integers(1, 3, 3, 8), integers(8, dtype="int32"), depthMultiplier=2)
    return file, {"x": X8, "y": Y8, "c0": kernel, "c1": bias_of(X8, kernel)}


def old_conv() -> Case:
    kernel = integers(5, 3, 3, 4, dtype="uint8", low=0, high=255)
    file = conv_file(kernel, integers(5, dtype="int32"), 1, fusedActivationFunction=3)
    return file, {"x": XU, "y": YU, "c0": OLD, "c1": bias_of(XU, OLD)}


def wide_conv() -> Case:
    file = conv_file(integers(5, 3, 3, 4), integers(5, dtype="int64"), 4)
    return file, {"x": X16, "y": Y16, "c0": BY_CHANNEL, "c1": bias_of(X16, BY_CHANNEL, "int64")}


def hybrid_conv() -> Case:
    return conv_file(integers(5, 3, 3, 4), floats(5), 5), {"c0": BY_CHANNEL}


def dense(scales: Scales, bias: Array, version: int, **fields: Any) -> Case:
    step = {"options": "FullyConnected", "version": version, **fields}
    return single("FULLY_CONNECTED", (2, 3, 4), integers(5, 4), bias, **step), {"c0": WHOLE, **scales}


def stored(kernel: Quantization) -> Case:
    """Weight-only: DEQUANTIZE of a constant, then a float convolution, which takes it with its axes turned."""
    steps = [
        Step(kind="DEQUANTIZE", inputs=["k"], outputs=["wide"], version=5),
        Step(kind="CONV_2D", inputs=["x", "wide", "b"], options="Conv2D", fields=window()),
    ]
    return File(steps=steps, inputs={"x": (1, 7, 6, 4)}, constants={"k": integers(5, 3, 3, 4), "b": floats(5)}), {
        "k": kernel
    }


def dilated() -> Case:
    """SPACE_TO_BATCH_ND pads with what stands for 0."""
    steps = [
        Step(
            kind="SPACE_TO_BATCH_ND", inputs=["x", "block", "pads"], outputs=["s"], options="SpaceToBatchND", version=2
        ),
        Step(
            kind="CONV_2D",
            inputs=["s", "k", "b"],
            outputs=["c"],
            options="Conv2D",
            version=3,
            fields={"strideH": 1, "strideW": 1, "padding": 1},
        ),
        Step(kind="BATCH_TO_SPACE_ND", inputs=["c", "block", "crops"], options="BatchToSpaceND", version=2),
    ]
    constants = {
        "block": ints(2, 2),
        "pads": ints((2, 3), (2, 2)),
        "crops": ints((0, 1), (0, 0)),
        "k": integers(5, 3, 3, 4),
        "b": integers(5, dtype="int32"),
    }
    scales = {"x": X8, "s": X8, "c": Y8, "y": Y8, "k": BY_CHANNEL, "b": bias_of(X8, BY_CHANNEL)}
    shapes = {"s": (4, 6, 5, 4), "c": (4, 4, 3, 5)}
    return File(steps=steps, inputs={"x": (1, 7, 6, 4)}, constants=constants, shapes=shapes), scales


def laid() -> Case:
    constants = {"s": ints(1, 8, 6, 5), "k": integers(5, 3, 4, 4)}
    step = Step(
        kind="TRANSPOSE_CONV",
        inputs=["s", "k", "x"],
        options="TransposeConv",
        version=2,
        fields={"strideH": 2, "strideW": 2, "padding": 0},
    )
    return File(steps=[step], inputs={"x": (1, 4, 3, 4)}, constants=constants), {"x": X8, "y": Y8, "k": BY_CHANNEL}


def joined(a: Quantization, b: Quantization, y: Quantization) -> Case:
    step = Step(kind="CONCATENATION", inputs=["x", "z"], options="Concatenation", fields={"axis": -1})
    return File(steps=[step], inputs={"x": (2, 3), "z": (2, 3)}), {"x": a, "z": b, "y": y}


def of_two(kind: str, options: str = "", **fields: Any) -> Case:
    step = Step(kind=kind, inputs=["x", "z"], options=options, fields=fields, version=2)
    return File(steps=[step], inputs={"x": (1, 4, 3, 4), "z": (1, 4, 3, 4)}), {"x": X8, "z": Z8, "y": Y8}


def of_one(kind: str, *constants: Array, y: Quantization = X8, **more: Any) -> Case:
    return single(kind, (1, 7, 6, 4), *constants, **{"version": 2, **more}), {"x": X8, "y": y}


def padded_with_a_number() -> Case:
    pads, value = ints((0, 0), (1, 2), (0, 3), (1, 0)), np.asarray([33], np.int8)
    file, scales = of_one("PADV2", pads, value, options="PadV2")
    return file, {**scales, "c1": X8}


def prelu() -> Case:
    file, scales = of_one("PRELU", integers(1, 1, 1, 4), y=Y8, version=1)
    return file, {**scales, "c0": per_tensor(0.007)}


def changed(x: Quantization | None, y: Quantization) -> Case:
    scales = {"y": y} if x is None else {"x": x, "y": y}
    return single("QUANTIZE", (1, 7, 6, 4), options="Quantize", version=2), scales


CASES: dict[str, Case] = {
    "conv": int8_conv(),
    "conv_relu": int8_conv(1),
    "conv_relu6": int8_conv(3),
    "conv_relu_n1_to_1": int8_conv(2),
    "depthwise": depthwise_conv(),
    "old_uint8_conv": old_conv(),
    "int16_conv": wide_conv(),
    "hybrid_conv": hybrid_conv(),
    "dense": dense({"x": X8, "y": Y8, "c1": bias_of(X8, WHOLE)}, integers(5, dtype="int32"), 4),
    "dense_relu": dense(
        {"x": X8, "y": Y8, "c1": bias_of(X8, WHOLE)}, integers(5, dtype="int32"), 4, fusedActivationFunction=1
    ),
    "hybrid_dense": dense({}, floats(5), 3),
    "stored_by_channel": stored(BY_CHANNEL),
    "stored_whole": stored(WHOLE),
    "dilated": dilated(),
    "transposed_conv": laid(),
    "concat": joined(X8, X8, X8),
    "old_concat_of_two_scales": joined(XU, YU, per_tensor(0.09, 100, "uint8")),
    "add": of_two("ADD", "Add"),
    "add_relu": of_two("ADD", "Add", fusedActivationFunction=1),
    "mul": of_two("MUL", "Mul"),
    "sub": of_two("SUB", "Sub"),
    "squared_difference": of_two("SQUARED_DIFFERENCE", "SquaredDifference"),
    "max_pool": of_one("MAX_POOL_2D", options="Pool2D", **window(filterHeight=3, filterWidth=2)),
    "average_pool_relu": of_one(
        "AVERAGE_POOL_2D", options="Pool2D", **window(filterHeight=3, filterWidth=2, fusedActivationFunction=1)
    ),
    "mean": of_one("MEAN", ints(1, 2), y=Y8, options="Reducer"),
    "pad": of_one("PAD", ints((0, 0), (1, 2), (0, 3), (0, 0)), options="Pad"),
    "pad_with_a_number": padded_with_a_number(),
    "reshape": of_one("RESHAPE", ints(1, 21, 8), options="Reshape", version=1),
    "strided_slice": of_one(
        "STRIDED_SLICE", ints(0, 1, 5, 1), ints(1, 7, 0, 2), ints(1, 2, -2, 1), options="StridedSlice", shrinkAxisMask=8
    ),
    "transpose": of_one("TRANSPOSE", ints(0, 3, 1, 2), options="Transpose"),
    "gather": of_one("GATHER", ints(3, 1), options="Gather", axis=3),
    "resize": of_one("RESIZE_BILINEAR", ints(11, 4), options="ResizeBilinear"),
    "logistic": of_one("LOGISTIC", y=per_tensor(1 / 256, -128)),
    "tanh": of_one("TANH", y=per_tensor(1 / 128)),
    "softmax": of_one("SOFTMAX", y=per_tensor(1 / 256, -128), options="Softmax", beta=1.0),
    "softmax_of_half": of_one("SOFTMAX", y=per_tensor(1 / 256, -128), options="Softmax", beta=0.5),
    "log_softmax": of_one("LOG_SOFTMAX", y=per_tensor(16 / 256, 127), options="LogSoftmax"),
    "leaky_relu": of_one("LEAKY_RELU", y=Y8, options="LeakyRelu", alpha=0.1),
    "hard_swish": of_one("HARD_SWISH", y=Y8, version=1),
    "prelu": prelu(),
    "arg_min": (
        replace(of_one("ARG_MIN", ints(3), options="ArgMin", outputType=2)[0], types={"y": "int32"}),
        {"x": X8},
    ),
    "quantize": changed(None, Y8),
    "requantize": changed(X8, Y8),
    "requantize_to_uint8": changed(X8, per_tensor(0.05, 135, "uint8")),
    "dequantize": (single("DEQUANTIZE", (1, 7, 6, 4), version=2), {"x": X8}),
    "fake_quant": (single("FAKE_QUANT", (1, 7, 6, 4), options="FakeQuant", min=-1.3, max=2.1, numBits=8), {}),
    "fake_quant_of_5_bits": (single("FAKE_QUANT", (1, 7, 6, 4), options="FakeQuant", min=-0.4, max=0.9, numBits=5), {}),
    "arg_max": (
        replace(of_one("ARG_MAX", ints(3), options="ArgMax", outputType=2)[0], types={"y": "int32"}),
        {"x": X8},
    ),
}
"""What converters write -> how; within one step of LiteRT's reference kernels, hybrid ones within their own noise."""


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_litert_computes(name: str, tmp_path: Path) -> None:
    file, scales = CASES[name]
    path = write(model(file, scales), tmp_path / "m.tflite")
    graph = TFLITE.read(path)
    assert "Opaque" not in graph.kinds()
    fed = seeded(graph)
    wanted = all_values(path, fed)["y"]
    found = execute(
        graph, dict(zip([port.name for port in graph.inputs], fed, strict=True)), stored=True, rounding="fixed_point"
    )["y"]
    found = to_layout(found, graph.outputs[0].layout)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    apart = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max()
    assert apart <= (1 if "y" in scales else 0.02 * np.abs(wanted).max() if "hybrid" in name else 1e-5)
    assert len(np.unique(wanted)) > 1


@pytest.mark.parametrize("name", CASES)
def test_the_float_equivalent_is_float_and_near(name: str, tmp_path: Path) -> None:
    file, scales = CASES[name]
    graph = TFLITE.read(write(model(file, scales), tmp_path / "m.tflite"))
    plain = dequantize(graph)
    assert not plain.is_quantized
    assert not {"Quantize", "Dequantize"} & plain.kinds().keys()
    assert (plain is graph) == (not graph.is_quantized)
    names = [port.name for port in graph.inputs]
    numbers = [
        each if port is None else port.dequantize(each)
        for each, port in zip(
            seeded(graph), [graph.tensors[port.tensor].quantization for port in graph.inputs], strict=True
        )
    ]
    wanted = execute(graph, dict(zip(names, numbers, strict=True)))["y"]
    found = execute(plain, dict(zip(names, numbers, strict=True)))["y"]
    assert found.dtype == wanted.dtype
    given = graph.tensors[graph.outputs[0].tensor].quantization
    if given is not None:
        found = np.clip(found, *given.range)
    step = 0.15 if "fake" in name else 1e-6 if given is None else 1.01 * given.scale[0]
    assert np.abs(found.astype(np.float64) - wanted).max() <= step


def test_a_narrow_range_leaves_the_lowest_step_out(tmp_path: Path) -> None:
    file = single("FAKE_QUANT", (1, 7, 6, 4), options="FakeQuant", min=-0.4, max=0.9, numBits=5, narrowRange=True)
    graph = TFLITE.read(write(file.model(), tmp_path / "m.tflite"))
    assert [node.kind for node in graph.nodes] == ["Clip", "Quantize", "Dequantize"]
    stored = execute(graph, {"x": floats(1, 7, 6, 4)}, fetch=["y/stored"], stored=True)["y/stored"]
    assert (stored.min(), stored.max()) == (1, 31)


def test_int4_is_unpacked(tmp_path: Path) -> None:
    file, scales = dense({}, floats(5), 3)
    numbers = integers(5, 4, low=-8, high=8)
    made = model(file, scales)
    kernel = next(each for each in made.subgraphs[0].tensors if each.name == "c0")
    kernel.type = schema.TensorType.INT4
    flat = numbers.reshape(-1).view(np.uint8)
    made.buffers[kernel.buffer].data = (flat[::2] & 15) | (flat[1::2] << 4)
    graph = TFLITE.read(write(made, tmp_path / "m.tflite"))
    found = graph.tensors[next(node for node in graph.nodes if node.kind == "Dense").inputs[1]]
    assert found.data is not None
    assert np.array_equal(found.data, numbers.T)
    assert found.quantization == WHOLE


def test_the_axis_of_the_scales_follows_the_kernel(tmp_path: Path) -> None:
    found = {}
    for name in ("conv", "depthwise", "transposed_conv", "stored_by_channel", "int16_conv", "hybrid_conv"):
        file, scales = CASES[name]
        graph = TFLITE.read(write(model(file, scales), tmp_path / "m.tflite"))
        kernels = [each for each in graph.tensors.values() if each.data is not None and each.data.ndim == 4]
        found[name] = [(each.quantization and each.quantization.axis, each.shape[-1]) for each in kernels]
    assert found == {name: [(3, 8 if name == "depthwise" else 5)] for name in found}


def test_what_is_stored_for_a_float_layer_lies_behind_one_node(tmp_path: Path) -> None:
    file, scales = CASES["stored_by_channel"]
    graph = TFLITE.read(write(model(file, scales), tmp_path / "m.tflite"))
    assert [node.kind for node in graph.nodes] == ["Dequantize", "Conv"]
    assert graph.tensors["k"].stored_dtype == "int8"
    assert graph.tensors["wide"].stored_dtype == "float32"


def test_a_dilation_is_folded_among_integers_of_one_scale_only(tmp_path: Path) -> None:
    file, scales = dilated()
    graph = TFLITE.read(write(model(file, scales), tmp_path / "m.tflite"))
    assert [(node.kind, node.op.attributes()["dilation"]) for node in graph.nodes] == [("Conv", (2, 2))]
    graph = TFLITE.read(write(model(file, {**scales, "s": Z8}), tmp_path / "n.tflite"))
    assert graph.kinds()["Opaque"] == 2


def test_constants_that_share_their_bytes_keep_their_own_scales(tmp_path: Path) -> None:
    steps = [
        Step(kind="ADD", inputs=["x", "a"], outputs=["s"], options="Add", version=2),
        Step(kind="ADD", inputs=["s", "b"], options="Add", version=2),
    ]
    same = integers(4)
    file = File(steps=steps, inputs={"x": (1, 2, 2, 4)}, constants={"a": same, "b": same})
    made = model(file, {"x": X8, "a": X8, "b": Z8, "s": Y8, "y": Y8})
    a, b = (next(each for each in made.subgraphs[0].tensors if each.name == name) for name in "ab")
    b.buffer = a.buffer
    graph = TFLITE.read(write(made, tmp_path / "m.tflite"))
    assert [graph.tensors[node.inputs[1]].quantization for node in graph.nodes] == [X8, Z8]


@pytest.mark.parametrize("name", ["conv", "depthwise", "dense", "old_uint8_conv", "int16_conv"])
def test_a_bias_without_a_scale_has_that_of_the_products(name: str, tmp_path: Path) -> None:
    """LiteRT takes such files, and never looks at a bias' own scale but to check it."""
    whole = TFLITE.read(write(model(*CASES[name]), tmp_path / "whole.tflite"))
    path = write(damaged(name, "c1", is_bare=True), tmp_path / "bare.tflite")
    bare = TFLITE.read(path)
    assert bare.tensors["c1"].quantization == whole.tensors["c1"].quantization
    assert all_values(path, seeded(bare))["y"].dtype == bare.tensors["y"].stored_dtype


def test_a_batch_that_looks_like_a_bias_is_not_open(tmp_path: Path) -> None:
    """The number that stands for an open batch among sizes may well occur in an int32 bias."""
    file = conv_file(integers(5, 3, 3, 4), np.full(5, 977 - (1 << 31), np.int32))
    scales = {"x": X8, "y": Y8, "c0": BY_CHANNEL, "c1": bias_of(X8, BY_CHANNEL)}
    assert TFLITE.read(write(model(file, scales), tmp_path / "m.tflite")).kinds() == {"Conv": 1}


# --- the layout walk -------------------------------------------------------------------------------------------------


def test_scales_follow_constants_that_the_layout_walk_turns() -> None:
    """Channels first in the file: kernel (out, in, h, w) and slopes (channels, 1, 1) with a scale for each channel."""
    kernel, bias = per_channel([0.1, 0.2, 0.4], 0), per_channel([0.1, 0.3, 0.2], 0)
    tensors = [
        Tensor(name="x", shape=(1, 2, 5, 4)),
        Tensor(name="k", shape=(3, 2, 3, 3), data=integers(3, 2, 3, 3), quantization=kernel),
        Tensor(name="b", shape=(3, 1, 1), data=integers(3, 1, 1), quantization=bias),
        Tensor(name="last", shape=(1, 5, 4, 2)),
        Tensor(name="turned", shape=(3, 3, 2, 3), quantization=replace(kernel, axis=3)),
        Tensor(name="c", shape=(1, 3, 2, 3)),
        Tensor(name="first", shape=(1, 3, 3, 2)),
        Tensor(name="y", shape=(1, 3, 3, 2)),
    ]
    conv = ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)
    nodes = [
        Node(name="t", op=ops.Transpose(permutation=(0, 2, 3, 1)), inputs=("x",), outputs=("last",)),
        Node(name="kt", op=ops.Transpose(permutation=(2, 3, 1, 0)), inputs=("k",), outputs=("turned",)),
        Node(name="conv", op=conv, inputs=("last", "turned"), outputs=("c",)),
        Node(name="back", op=ops.Transpose(permutation=(0, 3, 1, 2)), inputs=("c",), outputs=("first",)),
        Node(name="add", op=ops.Add(), inputs=("first", "b"), outputs=("y",)),
    ]
    graph = Graph(
        name="first",
        nodes=tuple(nodes),
        tensors={each.name: each for each in tensors},
        inputs=(Port(name="x", tensor="x"),),
        outputs=(Port(name="y", tensor="y"),),
    )
    validate(graph)
    settled = settle_layout(graph, "NHWC")
    assert settled.kinds() == {"Conv": 1, "Add": 1}
    by_node = {node.kind: settled.tensors[node.inputs[1]] for node in settled.nodes}
    assert by_node["Conv"].quantization == replace(kernel, axis=3)
    assert (by_node["Add"].shape, by_node["Add"].quantization) == ((3,), bias)
    x = floats(1, 2, 5, 4)
    wanted = execute(dequantize(graph), {"x": x})["y"]
    found = execute(settled, {"x": x.transpose(0, 2, 3, 1)})["y"]
    assert np.allclose(found.transpose(0, 3, 1, 2), wanted, rtol=1e-5)


def test_scales_of_rows_are_shuffled_with_the_rows() -> None:
    """A flatten of channels-first data before a dense layer whose kernel has a scale for each row."""
    rows = per_channel(np.linspace(0.1, 0.9, 12), 0)
    tensors = [
        Tensor(name="x", shape=(1, 2, 2, 3)),
        Tensor(name="first", shape=(1, 3, 2, 2)),
        Tensor(name="flat", shape=(1, 12)),
        Tensor(name="k", shape=(12, 4), data=integers(12, 4), quantization=rows),
        Tensor(name="y", shape=(1, 4)),
    ]
    nodes = (
        Node(name="t", op=ops.Transpose(permutation=(0, 3, 1, 2)), inputs=("x",), outputs=("first",)),
        Node(name="r", op=ops.Reshape(shape=(1, 12)), inputs=("first",), outputs=("flat",)),
        Node(name="d", op=ops.Dense(), inputs=("flat", "k"), outputs=("y",)),
    )
    graph = Graph(
        name="rows",
        nodes=nodes,
        tensors={each.name: each for each in tensors},
        inputs=(Port(name="x", tensor="x"),),
        outputs=(Port(name="y", tensor="y"),),
    )
    settled = settle_layout(graph, "NHWC")
    assert settled.kinds() == {"Reshape": 1, "Dense": 1}
    wanted, found = (execute(each, {"x": floats(1, 2, 2, 3)})["y"] for each in (graph, settled))
    assert np.allclose(found, wanted, rtol=1e-5)
    kernel = settled.tensors[settled.nodes[-1].inputs[1]]
    assert kernel.quantization is not None
    assert kernel.quantization.scale != rows.scale


# --- the float equivalent --------------------------------------------------------------------------------------------


def test_the_clamp_that_a_range_is_becomes_an_activation() -> None:
    assert implied_activation(per_tensor(6 / 255, 0, "uint8")) == ops.ReLU6()
    assert implied_activation(per_tensor(0.0235273, 0, "uint8")) == ops.ReLU6()
    assert implied_activation(per_tensor(0.05, -128)) == ops.ReLU()
    assert implied_activation(X8) is None
    assert implied_activation(None) is None


def test_ports_of_the_float_equivalent_are_float(tmp_path: Path) -> None:
    graph = TFLITE.read(write(model(*changed(None, Y8)), tmp_path / "m.tflite"))
    plain = dequantize(graph)
    assert plain.kinds() == {"Identity": 1}
    assert [plain.tensors[port.tensor].stored_dtype for port in (*plain.inputs, *plain.outputs)] == ["float32"] * 2


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("imagenet", "mlperf"))])
def test_the_float_equivalent_of_a_real_file_decides_alike(name: str) -> None:
    """TensorFlow 1 leaves RELU6 to the range of the output: without it, MobileNet is another network."""
    graph = TFLITE.read(DATA / "weights" / name)
    plain, port = dequantize(graph), graph.inputs[0].name
    scales = graph.tensors[graph.inputs[0].tensor].quantization
    assert scales is not None
    near = []
    for seed in range(3):
        x = scales.dequantize(seeded(graph, seed)[0])
        wanted, found = (next(iter(execute(each, {port: x}).values())) for each in (graph, plain))
        near.append(np.corrcoef(wanted.ravel(), found.ravel())[0, 1])
    assert np.median(near) > 0.8


# --- damaged tables --------------------------------------------------------------------------------------------------


def damaged(name: str, tensor: str, **fields: Any) -> Any:
    made = model(*CASES[name])
    found = next(each for each in made.subgraphs[0].tensors if each.name == tensor)
    if fields.get("is_bare"):
        found.quantization = None
    else:
        for key, value in fields.items():
            setattr(found.quantization, key, value)
    return made


@pytest.mark.parametrize(
    ("case", "tensor", "fields", "message"),
    [
        ("conv", "x", {"scale": [0.0]}, "tensor 'x': quantization: finite scales above 0 were wanted; got 0.0"),
        ("conv", "x", {"scale": [float("nan")]}, "finite scales above 0 were wanted"),
        ("conv", "x", {"scale": [float("inf")]}, "finite scales above 0 were wanted"),
        ("conv", "x", {"scale": [-0.5]}, "finite scales above 0 were wanted; got -0.5"),
        ("conv", "x", {"zeroPoint": [200]}, "zero points in -128..127 were wanted; got 200"),
        ("conv", "x", {"zeroPoint": [1, 2]}, "as many zero points as scales"),
        ("conv", "c0", {"quantizedDimension": 3}, r"channel of axis 3 of \(5, 3, 3, 4\) was wanted; got 5"),
        ("conv", "c0", {"quantizedDimension": -1}, "channel of axis -1 of"),
        ("conv", "c0", {"quantizedDimension": 9}, "channel of axis 9 of"),
        ("conv", "c0", {"scale": [0.1] * 4}, r"channel of axis 0 of \(5, 3, 3, 4\) was wanted; got 4"),
        ("conv", "c0", {"zeroPoint": [0, 0]}, "as many zero points as scales"),
        ("conv", "x", {"is_bare": True}, r"'y' \(Conv\): integers with a scale were wanted; tensor 'x' has none"),
        ("conv", "c0", {"is_bare": True}, "integers with a scale were wanted; tensor 'c0' has none"),
        ("conv", "y", {"is_bare": True}, "operands and outputs that all have a scale were wanted; tensor 'y' has none"),
        ("add", "z", {"is_bare": True}, "tensor 'z' has none"),
        (
            "conv",
            "c0",
            {"scale": [0.1] * 4, "zeroPoint": [0], "quantizedDimension": 3},
            "kernel 'c0' has them by another",
        ),
        ("hybrid_conv", "c0", {"scale": [0.1] * 3, "zeroPoint": [0], "quantizedDimension": 1}, "by another axis"),
        ("pad", "x", {"scale": [0.1] * 4, "zeroPoint": [0], "quantizedDimension": 3}, "whole of tensor 'x' was wanted"),
        ("requantize", "y", {"is_bare": True}, r"'y' \(Quantize\): a scale was wanted; tensor 'y' has none"),
        ("requantize", "x", {"is_bare": True}, "QUANTIZE 'y': float32 was wanted; got int8"),
        ("dequantize", "x", {"is_bare": True}, "float16, or integers with a scale, were wanted; got int8"),
    ],
)
def test_a_wrong_table_is_refused(case: str, tensor: str, fields: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=message):
        TFLITE.read(write(damaged(case, tensor, **fields), tmp_path / "m.tflite"))


def test_scales_of_blocks_are_refused_by_name(tmp_path: Path) -> None:
    made = damaged("conv", "c0", detailsType=2, details=schema.BlockwiseQuantizationT(scales=0, blockSize=32))
    with pytest.raises(UnsupportedError, match="tensor 'c0': one scale, or one for each channel, was wanted"):
        TFLITE.read(write(made, tmp_path / "m.tflite"))


@pytest.mark.parametrize(
    ("file", "scales", "message"),
    [
        (single("CAST", (2, 3)), {"x": X8}, "changes the type of integers that have a scale"),
        (
            conv_file(integers(5, 3, 3, 4), integers(5, dtype="int32"), fusedActivationFunction=4),
            int8_conv()[1],
            "TANH",
        ),
        (single("FAKE_QUANT", (2, 3), options="FakeQuant", min=1.0, max=2.0, numBits=8), {}, "a range around 0"),
    ],
)
def test_what_is_not_read_is_said(file: File, scales: Scales, message: str, tmp_path: Path) -> None:
    with pytest.raises((UnsupportedError, InputFileError), match=message):
        TFLITE.read(write(model(file, scales), tmp_path / "m.tflite"))


EXTREMES = (0, 1, -1, 127, 128, 255, 1 << 15, (1 << 31) - 1, -(1 << 31), (1 << 62))


def mutate(made: Any, rng: random.Random) -> None:
    """Put one wrong thing into the quantization of a tensor."""
    tensors = made.subgraphs[0].tensors
    scaled = [each for each in tensors if each.quantization is not None]
    tensor = rng.choice(scaled or tensors)
    found = tensor.quantization or schema.QuantizationParametersT()
    count = rng.choice((0, 1, 2, 5, 300))
    rng.choice(
        (
            lambda: setattr(found, "scale", [rng.choice((0.0, -1.0, 1e-45, 3e38, float("nan"), 0.1))] * count),
            lambda: setattr(found, "zeroPoint", [rng.choice(EXTREMES)] * count),
            lambda: setattr(found, "quantizedDimension", rng.choice(EXTREMES[:-1])),
            lambda: setattr(rng.choice(tensors), "quantization", found),
            lambda: setattr(tensor, "quantization", None),
            lambda: setattr(tensor, "type", rng.randrange(18)),
            lambda: setattr(tensor, "shape", [rng.choice((0, 1, 5, 1 << 30)) for _ in range(rng.randrange(6))]),
            lambda: setattr(tensor, "buffer", rng.randrange(len(made.buffers))),
        )
    )()


@pytest.mark.parametrize(
    "name", ["conv", "old_uint8_conv", "int16_conv", "hybrid_dense", "stored_by_channel", "dilated"]
)
def test_mutated_tables_end_in_a_graph_or_a_message(name: str, tmp_path: Path) -> None:
    refused = read = 0
    for seed in range(60):
        made, rng = model(*CASES[name]), random.Random(seed)
        for _ in range(rng.choice((1, 1, 2))):
            mutate(made, rng)
        try:
            validate(TFLITE.read(write(made, tmp_path / "mutated.tflite")))
        except (InputFileError, UnsupportedError) as error:
            refused += "mutated.tflite" in str(error)
        else:
            read += 1
    assert (refused + read, refused > 10) == (60, True)


# --- inspect ---------------------------------------------------------------------------------------------------------


def shown(path: Path) -> Any:
    result = CliRunner().invoke(edgecnn, ["inspect", str(path), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("name", "precision", "kernels"),
    [
        ("conv", "static_w8_a8", {"int8 per channel": 1}),
        ("old_uint8_conv", "static_w8_a8", {"uint8 per tensor": 1}),
        ("int16_conv", "static_w8_a16", {"int8 per channel": 1}),
        ("hybrid_dense", "dynamic_w8", {"int8 per tensor": 1}),
        ("stored_by_channel", "weight_only_w8", {"int8 per channel": 1}),
        ("add", "float32", {}),
    ],
)
def test_inspect_tells_how_numbers_are_stored(
    name: str, precision: str, kernels: dict[str, int], tmp_path: Path
) -> None:
    found = shown(write(model(*CASES[name]), tmp_path / "m.tflite"))
    assert (found["graph"]["storage"]["precision"], found["graph"]["storage"]["kernels"]) == (precision, kernels)
    assert found["refusal"] == ""


def test_inspect_shows_people_scales_and_types(tmp_path: Path) -> None:
    path = write(model(*CASES["conv"]), tmp_path / "m.tflite")
    lines = CliRunner().invoke(edgecnn, ["inspect", str(path)]).stdout.splitlines()
    assert any("precision of layers" in line and "1 static_w8_a8" in line for line in lines)
    assert any("kernels, biases" in line and "1 int8 per channel; 1 int32" in line for line in lines)
    assert any(line.startswith("input") and "int8" in line and "0.05 * (q - 7)" in line for line in lines)
