"""The ONNX reader: every row against ONNX Runtime, PyTorch's idioms, and what is refused."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgecnn.converters._onnx_read_graph import ROWS
from edgecnn.converters.onnx_file import ONNX

from edgecnn.errors import EdgeCNNError, InputFileError, UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Port, external_shape, from_layout, to_layout, validate
from edgecnn.ops import Opaque

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper = onnx.helper

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FLOAT, INT64 = 1, 7
IMAGE = (2, 4, 6, 5)
Node = tuple[str, list[str], list[str], dict[str, Any]]
Constants = Mapping[str, Any]


def n(op_type: str, inputs: str, outputs: str = "y", /, **attributes: Any) -> Node:
    return op_type, inputs.split(" ") if inputs else [], outputs.split(), attributes


def saved(
    path: Path,
    nodes: Sequence[Node],
    constants: Constants | None = None,
    *,
    shape: Sequence[int | str | None] = IMAGE,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    dtype: int = FLOAT,
) -> Path:
    """Save a model whose input is x."""
    made = [helper.make_node(kind, ins, outs, **attributes) for kind, ins, outs, attributes in nodes]
    data = {name: np.asarray(v) for name, v in (constants or {}).items()}
    tensors = [onnx.numpy_helper.from_array(v, name) for name, v in data.items()]
    graph = helper.make_graph(
        made,
        "small",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    del model.graph.output[:]
    model.graph.output.extend(types[name] for name in outputs)
    path.write_bytes(model.SerializeToString())
    return path


def as_stored(graph: Graph, port: Port, values: Array) -> Array:
    """Return what `execute` gives in the file's own order of axes."""
    return to_layout(values, _layout(graph, port))


def as_fed(graph: Graph, port: Port, values: Array) -> Array:
    """Return values in the file's order of axes as `execute` takes them."""
    return from_layout(values, _layout(graph, port))


def _layout(graph: Graph, port: Port) -> str | None:
    return port.layout or ("NCHW" if len(graph.tensors[port.tensor].shape) >= 4 else None)


def seeded(shape: Sequence[int], low: float = -3, high: float = 3) -> Array:
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


def agree(path: Path, graph: Graph, feeds: Mapping[str, Array], *, tolerance: float = 2e-5) -> None:
    """Compare `execute` with ONNX Runtime on the file itself."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, dict(feeds))
    found = execute(graph, {port.name: as_fed(graph, port, feeds[port.name]) for port in graph.inputs})
    for port, want in zip(graph.outputs, wanted, strict=True):
        got = as_stored(graph, port, found[port.name])
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


W = seeded((6, 4, 3, 3)) / 6
SEVEN = (1, 2, 7, 7)
VECTOR = seeded((4,), 0.5, 2)
CASES: dict[str, tuple[list[Node], Constants, dict[str, Any]]] = {
    "conv": (
        [n("Conv", "x w b", pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2])],
        {"w": W, "b": seeded((6,))},
        {},
    ),
    "conv same_lower": ([n("Conv", "x w", auto_pad="SAME_LOWER", strides=[2, 2])], {"w": W[..., :2]}, {}),
    "conv groups": ([n("Conv", "x w", group=2, pads=[1, 1, 1, 1])], {"w": W[:, :2]}, {}),
    "conv computed bias": (
        [n("ReduceMean", "x", "m", axes=[0, 1, 2], keepdims=0), n("Slice", "m z f", "c"), n("Conv", "x w c")],
        {"w": W[:4], "z": [0], "f": [4]},
        {},
    ),
    "conv 1d": ([n("Conv", "x w", pads=[1, 1])], {"w": W[..., 0]}, {"shape": (2, 4, 9)}),
    "conv 3d": ([n("Conv", "x w")], {"w": seeded((3, 2, 2, 2, 2))}, {"shape": (1, 2, 4, 5, 3)}),
    "transposed": (
        [n("ConvTranspose", "x w b", strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 2])],
        {"w": seeded((4, 3, 3, 3)), "b": seeded((3,))},
        {},
    ),
    "transposed groups": ([n("ConvTranspose", "x w", group=2, strides=[2, 2])], {"w": seeded((4, 3, 2, 2))}, {}),
    "transposed output_shape": (
        [n("ConvTranspose", "x w", strides=[2, 2], output_shape=[12, 11])],
        {"w": seeded((4, 2, 3, 3))},
        {},
    ),
    "transposed same": (
        [n("ConvTranspose", "x w", strides=[2, 2], auto_pad="SAME_UPPER")],
        {"w": seeded((4, 2, 3, 3))},
        {},
    ),
    "the largest of one constant": ([n("Max", "c", "d"), n("Add", "x d")], {"c": np.float32(2)}, {}),
    "known sum without axes": (
        [n("ReduceSum", "c a", "s", keepdims=0), n("Add", "x s")],
        {"c": seeded((3, 4)), "a": np.zeros(0, "i8")},
        {},
    ),
    "known sum that does nothing": (
        [n("ReduceSum", "c", "s", keepdims=0, noop_with_empty_axes=1), n("Add", "x s")],
        {"c": seeded((4,))},
        {"shape": (2, 3, 4, 4)},
    ),
    "known division": (
        [n("Div", "a b", "q"), n("Gather", "x q", axis=3)],
        {"a": np.array([-7, 7, (1 << 53) + 1]), "b": np.array([4, 2, (1 << 53) + 1])},
        {"shape": (1, 2, 3, 4)},
    ),
    "slice from before the front": (
        [n("Slice", "x b e a t"), n("Slice", "k b e z t", "q"), n("Gather", "y q", "y2", axis=2)],
        {"b": [-9], "e": [-99], "a": [3], "t": [-1], "k": [2, 1], "z": [0]},
        {"outputs": ("y", "y2")},
    ),
    "known power": (
        [n("Pow", "i e", "p"), n("Gather", "x p", axis=3)],
        {"i": [9, 5], "e": np.array([0.5, 0], "f")},
        {},
    ),
    "clip of integers": (
        [n("ArgMax", "x", "i", axis=1), n("Clip", "i z t", "c"), n("Cast", "c", to=FLOAT)],
        {"z": np.int64(1), "t": np.int64((1 << 63) - 1)},
        {},
    ),
    # 7 * (29 / 7) is not 29 in float64.
    "resize to odd sizes": (
        [n("Resize", "x   s", mode="linear", coordinate_transformation_mode="align_corners")],
        {"s": [1, 2, 29, 29]},
        {"shape": SEVEN},
    ),
    "maxpool ceil": ([n("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1])], {}, {}),
    "maxpool dilated": ([n("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 3], pads=[1, 1, 1, 1])], {}, {}),
    "averagepool pads": ([n("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}, {}),
    "averagepool counted": (
        [n("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
        {},
    ),
    "averagepool dilated": (
        [n("AveragePool", "x", kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 0])],
        {},
        {"opset": 19},
    ),
    "averagepool ceil": ([n("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], {}, {}),
    "global": ([n("GlobalAveragePool", "x", "a"), n("GlobalMaxPool", "x", "b"), n("Add", "a b")], {}, {}),
    "gemm": (
        [n("Gemm", "x w c", alpha=0.5, beta=2.0, transB=1)],
        {"w": seeded((3, 4)), "c": seeded((3,))},
        {"shape": (2, 4)},
    ),
    "gemm transA matrix": (
        [n("Gemm", "x w c", transA=1)],
        {"w": seeded((4, 3)), "c": seeded((2, 3))},
        {"shape": (4, 2)},
    ),
    "gemm computed": ([n("Gemm", "x x", alpha=2.0, transB=1)], {}, {"shape": (3, 4)}),
    "matmul dense": ([n("MatMul", "x w")], {"w": seeded((5, 3))}, {}),
    "matmul stack": ([n("MatMul", "x w")], {"w": seeded((4, 5, 3))}, {}),
    "matmul left": ([n("MatMul", "w x")], {"w": seeded((3, 6))}, {}),
    "matmul vector": ([n("MatMul", "x w")], {"w": seeded((5,))}, {}),
    "matmul vector left": ([n("MatMul", "w x")], {"w": seeded((6,))}, {}),
    "batchnorm": (
        [n("BatchNormalization", "x s b m v", epsilon=1e-3)],
        {"s": VECTOR, "b": VECTOR, "m": VECTOR, "v": VECTOR},
        {},
    ),
    "batchnorm 2d": (
        [n("BatchNormalization", "x s b m v")],
        {"s": VECTOR, "b": VECTOR, "m": VECTOR, "v": VECTOR},
        {"shape": (3, 4)},
    ),
    "instancenorm": ([n("InstanceNormalization", "x s b")], {"s": VECTOR, "b": VECTOR}, {}),
    "layernorm": ([n("LayerNormalization", "x s b")], {"s": seeded((5,)), "b": seeded((5,))}, {}),
    "layernorm axis": ([n("LayerNormalization", "x s", axis=2)], {"s": seeded((6, 5))}, {}),
    "lrn": ([n("LRN", "x", size=3, alpha=0.5)], {}, {}),
    "lpnormalization": ([n("LpNormalization", "x", axis=1)], {}, {}),
    "softmax axis 2": ([n("Softmax", "x", axis=2)], {}, {}),
    "softmax flattened": ([n("Softmax", "x", axis=1)], {}, {"opset": 11}),
    "logsoftmax": ([n("LogSoftmax", "x", axis=1)], {}, {}),
    "logsoftmax flattened": ([n("LogSoftmax", "x")], {}, {"opset": 9}),
    "clip attributes": ([n("Clip", "x", min=0.0, max=6.0)], {}, {"opset": 9}),
    "clip one side": ([n("Clip", "x  h")], {"h": np.float32(1)}, {}),
    "clip inputs": ([n("Clip", "x l h")], {"l": np.float32(-1), "h": np.float32(1)}, {}),
    "prelu": ([n("PRelu", "x s")], {"s": seeded((1, 4, 1, 1))}, {}),
    "activations": (
        [
            *(n(kind, "x" if i == 0 else f"a{i - 1}", f"a{i}") for i, kind in enumerate(["Selu", "Softsign", "Celu"])),
            n("ThresholdedRelu", "a2", "t", alpha=0.1),
            n("HardSwish", "t", "h"),
            n("Add", "h a1", "s"),
            n("Softplus", "s", "p"),
            n("Reciprocal", "p", "r"),
            n("HardSigmoid", "r", "g"),
            n("LeakyRelu", "a2", "l", alpha=0.3),
            n("Max", "g l s"),
        ],
        {},
        {},
    ),
    "mish gelu": ([n("Mish", "x", "m"), n("Gelu", "m", "g"), n("Gelu", "g", approximate="tanh")], {}, {"opset": 20}),
    "mean of three": ([n("Sin", "x", "s"), n("Mean", "x s c")], {"c": seeded((5,))}, {}),
    "where": ([n("Greater", "x z", "g"), n("Not", "g", "q"), n("Where", "q x z")], {"z": np.float32(0)}, {}),
    "pow": ([n("Abs", "x", "a"), n("Pow", "a e", "p"), n("Pow", "p t")], {"e": np.float32(0.5), "t": 2}, {}),
    "pad reflect": ([n("Pad", "x p", mode="reflect")], {"p": [0, 0, 1, 2, 0, 0, 2, 1]}, {}),
    "pad negative": ([n("Pad", "x p v")], {"p": [0, 1, -1, 2, 0, 0, 1, -1], "v": np.float32(3)}, {}),
    "pad attributes": ([n("Pad", "x", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=1.0)], {}, {"opset": 9}),
    "pad axes": ([n("Pad", "x p  a", mode="edge")], {"p": [1, 2], "a": [-1]}, {"opset": 18}),
    "split sizes": ([n("Split", "x s", "a b", axis=1), n("Concat", "b a", axis=1)], {"s": [1, 3]}, {}),
    "split attribute": ([n("Split", "x", "a b", axis=-1, split=[2, 3]), n("Concat", "b a", axis=3)], {}, {"opset": 11}),
    "split num_outputs": (
        [n("Split", "x", "a b", axis=3, num_outputs=2), n("Concat", "b a", axis=3)],
        {},
        {"opset": 18},
    ),
    "slice": ([n("Slice", "x s e a t")], {"s": [-5, 1], "e": [2**63 - 1, -1], "a": [2, -1], "t": [2, 1]}, {}),
    "slice backwards": ([n("Slice", "x s e a t")], {"s": [-1, 0], "e": [-(2**63), 3], "a": [1, 3], "t": [-1, 2]}, {}),
    "slice attributes": ([n("Slice", "x", starts=[1], ends=[100], axes=[2])], {}, {"opset": 9}),
    "gather scalar": ([n("Gather", "x i", axis=1)], {"i": np.int64(-1)}, {}),
    "gather vector": ([n("Gather", "x i", axis=1)], {"i": [3, -4, 1]}, {}),
    "gather matrix": ([n("Gather", "x i", axis=2)], {"i": [[0, 1], [2, 3]]}, {}),
    "tile expand": ([n("Tile", "x r", "t"), n("Expand", "t s")], {"r": [1, 1, 1, 2], "s": [3, 1, 4, 1, 1]}, {}),
    "squeeze": ([n("Squeeze", "x a", "s"), n("Unsqueeze", "s u")], {"a": [2], "u": [0, -1]}, {"shape": (2, 3, 1, 4)}),
    "squeeze attributes": (
        [n("Squeeze", "x", "s"), n("Unsqueeze", "s", axes=[1, 3])],
        {},
        {"shape": (2, 3, 1, 4), "opset": 11},
    ),
    "reshape": ([n("Reshape", "x s")], {"s": [0, -1, 3]}, {}),
    "flatten": ([n("Flatten", "x", "f", axis=2), n("Relu", "f")], {}, {}),
    "transpose": ([n("Transpose", "x", perm=[2, 0, 3, 1])], {}, {}),
    "argmax": ([n("ArgMax", "x", "a", axis=1), n("Cast", "a", to=FLOAT)], {}, {}),
    "argmin last": ([n("ArgMin", "x", "a", axis=1, keepdims=0, select_last_index=1), n("Cast", "a", to=FLOAT)], {}, {}),
    "reductions": (
        [
            n("ReduceL2", "x", "a", axes=[1, 3]),
            n("ReduceLogSumExp", "x", "b", axes=[1, 3]),
            n("ReduceSumSquare", "x", "c", axes=[-1, 1]),
            n("ReduceL1", "x", "d", axes=[1, 3]),
            n("Sum", "a b c d"),
        ],
        {},
        {},
    ),
    "reduce input axes": ([n("ReduceMean", "x a", keepdims=0)], {"a": [2, 3]}, {"opset": 18}),
    "depth to space": ([n("DepthToSpace", "x", blocksize=2)], {}, {"shape": (1, 12, 2, 3)}),
    "pixel shuffle": ([n("DepthToSpace", "x", blocksize=2, mode="CRD")], {}, {"shape": (1, 12, 2, 3)}),
    "space to depth": ([n("SpaceToDepth", "x", blocksize=2)], {}, {"shape": (1, 3, 4, 6)}),
    "resize a part": (
        [
            n(
                "Resize",
                "x r  s",
                mode="linear",
                coordinate_transformation_mode="tf_crop_and_resize",
                extrapolation_value=7.0,
                axes=[2, 3],
            )
        ],
        {"r": np.array([0.2, -0.1, 1.3, 0.8], "f"), "s": [5, 7]},
        {"opset": 18},
    ),
    "upsample": ([n("Upsample", "x s", mode="linear")], {"s": np.array([1, 1, 2, 2], "f")}, {"opset": 9}),
    "dropout": ([n("Dropout", "x", "d"), n("Relu", "d")], {}, {}),
    "known chain": (
        [
            n("Shape", "x", "s"),
            n("Gather", "s i", "b"),
            n("Unsqueeze", "b z", "u"),
            n("Concat", "u m", "t", axis=0),
            n("Reshape", "x t"),
        ],
        {"i": np.int64(0), "z": [0], "m": [-1]},
        {},
    ),
    "constant of shape": (
        [
            n("Constant", "", "k", value_ints=[5]),
            n("ConstantOfShape", "k", "o", value=helper.make_tensor("v", FLOAT, [1], [2.0])),
            n("Range", "a b c", "r"),
            n("Cast", "r", "f", to=FLOAT),
            n("Mul", "o f", "q"),
            n("Add", "x q"),
        ],
        {"a": np.int64(0), "b": np.int64(5), "c": np.int64(1)},
        {},
    ),
}
RESIZES = [
    (mode, coordinates, nearest, scale)
    for mode, nearest in [
        ("nearest", "floor"),
        ("nearest", "ceil"),
        ("nearest", "round_prefer_floor"),
        ("nearest", "round_prefer_ceil"),
        ("linear", "floor"),
        ("cubic", "floor"),
    ]
    for coordinates in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
    for scale in (2.0, 1.5, 0.5)
]


@pytest.mark.parametrize("case", CASES)
def test_a_row_gives_what_onnx_runtime_gives(case: str, tmp_path: Path) -> None:
    nodes, constants, options = CASES[case]
    path = saved(tmp_path / "m.onnx", nodes, constants, **options)
    graph = ONNX.read(path)
    assert not graph.kinds()["Opaque"]
    agree(path, graph, {"x": seeded(options.get("shape", IMAGE))})


@pytest.mark.parametrize("case", [c for c in CASES if len(CASES[c][2].get("shape", IMAGE)) == 4])
def test_a_symbolic_batch_stays_or_becomes_one(case: str, tmp_path: Path) -> None:
    nodes, constants, options = CASES[case]
    shape = options.get("shape", IMAGE)
    path = saved(tmp_path / "m.onnx", nodes, constants, **{**options, "shape": ("n", *shape[1:])})
    graph = ONNX.read(path)
    batch = graph.tensors[graph.inputs[0].tensor].shape[0]
    assert batch in (None, 1)
    agree(path, graph, {"x": seeded((batch or 3, *shape[1:]))})


@pytest.mark.parametrize(("mode", "coordinates", "nearest", "scale"), RESIZES)
def test_resize_reads_the_same_positions(
    mode: str, coordinates: str, nearest: str, scale: float, tmp_path: Path
) -> None:
    node = n("Resize", "x  s", mode=mode, coordinate_transformation_mode=coordinates, nearest_mode=nearest)
    path = saved(tmp_path / "m.onnx", [node], {"s": np.array([1, 1, scale, scale], "f")}, shape=(1, 2, 6, 4))
    agree(path, ONNX.read(path), {"x": seeded((1, 2, 6, 4))}, tolerance=1e-4)


def test_resize_to_sizes_keeps_a_symbolic_batch(tmp_path: Path) -> None:
    nodes = [
        n("Shape", "x", "s"),
        n("Slice", "s z t", "b"),
        n("Concat", "b h", "sizes", axis=0),
        n("Resize", "x   sizes", mode="linear"),
    ]
    path = saved(tmp_path / "m.onnx", nodes, {"z": [0], "t": [2], "h": [7, 11]}, shape=("n", 2, 6, 4))
    graph = ONNX.read(path)
    assert graph.tensors[graph.outputs[0].tensor].shape == (None, 7, 11, 2)
    agree(path, graph, {"x": seeded((3, 2, 6, 4))})


def test_pytorchs_group_norm_becomes_one_operator(tmp_path: Path) -> None:
    nodes = [
        n("Reshape", "x g", "r"),
        n("InstanceNormalization", "r one zero", "i"),
        n("Shape", "x", "s"),
        n("Reshape", "i s", "back"),
        n("Mul", "back w", "m"),
        n("Add", "m w"),
    ]
    constants = {"g": [0, 2, -1], "one": np.ones(2, "f"), "zero": np.zeros(2, "f"), "w": seeded((4, 1, 1))}
    path = saved(tmp_path / "m.onnx", nodes, constants, shape=("n", *IMAGE[1:]))
    graph = ONNX.read(path)
    assert graph.kinds() == {"GroupNorm": 1, "Mul": 1, "Add": 1}
    agree(path, graph, {"x": seeded(IMAGE)})


def test_float16_is_stored_and_float32_computed(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [n("Conv", "x w", "c"), n("Relu", "c")], {"w": W.astype(np.float16)}, dtype=10)
    graph = ONNX.read(path)
    (kernel,) = (tensor for tensor in graph.tensors.values() if tensor.data is not None)
    assert (kernel.dtype, str(kernel.value().dtype)) == ("float32", "float32")
    assert kernel.data is not None
    assert kernel.data.dtype == np.float16
    assert {graph.tensors[port.tensor].dtype for port in (*graph.inputs, *graph.outputs)} == {"float32"}


def test_weights_cast_from_float16_stay_narrow(tmp_path: Path) -> None:
    nodes = [n("Cast", "h", "w", to=FLOAT), n("Conv", "x w")]
    path = saved(tmp_path / "m.onnx", nodes, {"h": W.astype(np.float16)})
    graph = ONNX.read(path)
    assert [str(t.data.dtype) for t in graph.tensors.values() if t.data is not None] == ["float16"]
    agree(path, graph, {"x": seeded(IMAGE)})


def test_constants_are_views_of_the_file(tmp_path: Path) -> None:
    graph = ONNX.read(saved(tmp_path / "m.onnx", [n("Add", "x c")], {"c": seeded((5,))}))
    assert not next(t.data for t in graph.tensors.values() if t.data is not None).flags.writeable


def external(folder: Path, location: str, **entries: str) -> Path:
    path = saved(folder / "m.onnx", [n("Add", "x c")], {"c": seeded((5,))})
    model = onnx.load(path)
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_lie_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(8) + seeded((5,)).tobytes())
    path = external(tmp_path, "w.bin", offset="8", length="20")
    agree(path, ONNX.read(path), {"x": seeded(IMAGE)})


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("../w.bin", {}, "in a file of the same folder were wanted; found '../w.bin'"),
        ("/etc/passwd", {}, "in a file of the same folder were wanted; found '/etc/passwd'"),
        ("a\\w.bin", {}, "in a file of the same folder were wanted"),
        ("link.bin", {}, "'link.bin' leads out"),
        ("none.bin", {}, "there is no such file"),
        ("w.bin", {"offset": "8"}, "found 3"),
        ("w.bin", {"offset": "16", "length": "20"}, "20 bytes at 16 were wanted; 'w.bin' has 20"),
        ("w.bin", {"offset": "-4"}, "offset should be a number of bytes; found '-4'"),
    ],
)
def test_external_data_elsewhere_are_refused(
    location: str, entries: dict[str, str], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for target in (tmp_path / "w.bin", folder / "w.bin"):
        target.write_bytes(seeded((5,)).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(InputFileError, match=message.replace("\\", "\\\\")):
        ONNX.read(external(folder, location, **entries))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([n("Relu", "b", "a"), n("Relu", "a", "b"), n("Relu", "b")], "operators form a cycle"),
        ([n("Relu", "y")], "operators form a cycle"),
        ([n("Relu", "nowhere")], "'nowhere' is never ready: nothing gives it"),
        ([n("Relu", "x"), n("Abs", "x")], "value 'y' is given twice"),
        ([n("Relu", "x", "x"), n("Relu", "x")], "value 'x' is given twice"),
        ([n("Reshape", "x c")], "Reshape 'y': .*keeps the elements"),
        ([n("Transpose", "x", perm=[0, 1, 1, 2])], "permutation must order the axes"),
        ([n("Softmax", "x", axis=9)], "an axis in -4..3 was wanted; found 9"),
    ],
)
def test_contradictions_are_refused(nodes: list[Node], message: str, tmp_path: Path) -> None:
    made = [helper.make_node(kind, ins, outs, **attributes) for kind, ins, outs, attributes in nodes]
    constants = [onnx.numpy_helper.from_array(np.array([7]), "c"), onnx.numpy_helper.from_array(np.float32(1), "s")]
    x, y = (helper.make_tensor_value_info(name, FLOAT, IMAGE) for name in "xy")
    model = helper.make_model(helper.make_graph(made, "bad", [x], [y], constants))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputFileError, match=message):
        ONNX.read(tmp_path / "m.onnx")


def test_an_open_size_names_what_fixes_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [n("Relu", "x")], shape=("n", 3, "h", "w"))
    with pytest.raises(UnsupportedError, match=r"input 'x': .*--input-shape x:1,3,H,W"):
        ONNX.read(path)
    graph = ONNX.read(path, {"x": (1, 3, 8, 6)})
    agree(path, graph, {"x": seeded((1, 3, 8, 6))})
    with pytest.raises(UnsupportedError, match="the file states Nx3xNxN; 1x4x8x6 was asked for"):
        ONNX.read(path, {"x": (1, 4, 8, 6)})


def test_what_is_not_known_is_listed_and_passed_by(tmp_path: Path) -> None:
    nodes = [n("Relu", "x", "r"), n("Hardmax", "r", "h"), n("Det", "h", "d"), n("Neg", "d")]
    graph = ONNX.read(saved(tmp_path / "m.onnx", nodes))
    kinds = [node.op.kind for node in graph.nodes if isinstance(node.op, Opaque)]
    assert kinds[:2] == ["Hardmax", "Det"]
    assert graph.kinds()["ReLU"] == 1


def test_reading_imports_no_framework(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [n("Relu", "x")])
    code = (
        "import sys; from pathlib import Path; from edgecnn.converters.onnx_file import ONNX; "
        f"ONNX.read(Path({str(path)!r})); print({{'onnx', 'google.protobuf', 'onnxruntime'}} & sys.modules.keys())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_nodes_keep_their_names_where_these_are_their_own(tmp_path: Path) -> None:
    nodes = [n("Relu", "x", "a", name="first"), n("Abs", "a", "b", name="y"), n("Neg", "b", "y")]
    graph = ONNX.read(saved(tmp_path / "m.onnx", nodes))
    assert [(node.name, node.output) for node in graph.nodes] == [("first", "a"), ("b", "b"), ("y", "y")]


def test_old_files_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="opset 9 or later was wanted; found 7"):
        ONNX.read(saved(tmp_path / "m.onnx", [n("Relu", "x")], opset=7))
    (tmp_path / "zip.onnx").write_bytes(b"PK\x03\x04" + bytes(64))
    with pytest.raises(InputFileError, match=r"zip\.onnx: an ONNX model was wanted"):
        ONNX.read(tmp_path / "zip.onnx")


@pytest.mark.parametrize("shape", [[2**40], [65536, 65536]])
def test_a_huge_constant_is_never_made(shape: list[int], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    made = [helper.make_node("ConstantOfShape", ["s"], ["h"]), helper.make_node("Add", ["x", "h"], ["y"])]
    x, y = helper.make_tensor_value_info("x", FLOAT, [1]), helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph(made, "huge", [x], [y], [onnx.numpy_helper.from_array(np.array(shape), "s")])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    start = time.perf_counter()
    assert ONNX.read(path).kinds()["Opaque"] >= 1
    assert time.perf_counter() - start < 1


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    nodes, constants, options = CASES["known chain"]
    whole = saved(tmp_path / "m.onnx", [*nodes[:-1], n("Reshape", "x t", "q"), n("Relu", "q")], constants, **options)
    content, rng = whole.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content[: rng.integers(1, len(content))] if rng.random() < 0.2 else content)
        for place in rng.integers(0, len(damaged), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        whole.write_bytes(damaged)
        try:
            ONNX.read(whole)
        except EdgeCNNError:
            continue


INTEGERS = (0, -1, 1, 3, -2, 2**31, 2**62, -(2**62), 2**20)


def contradicted(model: Any, rng: np.random.Generator) -> None:
    """Change one operator, attribute, input, size or version of a valid model."""
    node, values = rng.choice(model.graph.node), ["x", "", *(name for each in model.graph.node for name in each.output)]
    match rng.integers(6):
        case 0:
            node.op_type = str(rng.choice(list(ROWS)))
        case 1 if node.attribute:
            attribute = rng.choice(node.attribute)
            attribute.i = int(rng.choice(INTEGERS))
            attribute.f = float(rng.choice([0, -1, 1e30, np.nan, np.inf]))
            attribute.ints[:] = [int(rng.choice(INTEGERS)) for _ in attribute.ints]
        case 2 if node.input:
            node.input[int(rng.integers(len(node.input)))] = str(rng.choice(values))
        case 3 if node.input:
            del node.input[-1]
        case 4:
            sizes = model.graph.input[0].type.tensor_type.shape.dim
            sizes[int(rng.integers(len(sizes)))].dim_value = int(rng.choice([1, 3, 2**40, 2**62]))
        case _:
            model.opset_import[0].version = int(rng.choice([9, 11, 12, 17, 21, 28]))


@pytest.mark.parametrize("case", CASES)
def test_contradicted_files_are_read_or_refused(case: str, tmp_path: Path) -> None:
    nodes, constants, options = CASES[case]
    path, rng = saved(tmp_path / "m.onnx", nodes, constants, **options), np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(10):
        model = onnx.load_from_string(whole)
        for _ in range(rng.integers(1, 4)):
            contradicted(model, rng)
        path.write_bytes(model.SerializeToString())
        try:
            validate(ONNX.read(path))
        except EdgeCNNError:
            continue


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "lenet_mnist/lenet_mnist.onnx",
        "resnet_cifar10/resnet20_cifar10.onnx",
        "face/mobilefacenet_112.onnx",
        "detection_coco/yolox_nano.onnx",
        "detection_coco/FastestDet.onnx",
    ],
)
def test_real_files_are_read(name: str) -> None:
    path = DATA / "weights" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    graph = ONNX.read(path)
    (port,) = graph.inputs
    shape = [size or 2 for size in external_shape(graph.tensors[port.tensor].shape, "NCHW")]
    x = seeded(shape, 0, 1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {port.name: x})
    found = as_stored(
        graph, graph.outputs[0], execute(graph, {port.name: as_fed(graph, port, x)})[graph.outputs[0].name]
    )
    noise = np.square(found.astype(np.float64) - wanted).sum()
    assert 10 * np.log10(np.square(wanted, dtype=np.float64).sum() / noise) > 100
    assert graph.kinds()["Transpose"] == 0
