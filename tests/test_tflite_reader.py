"""The TFLite reader: real files and every operator against LiteRT, our own files back, damaged ones refused."""

import gc
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from edgecnn.converters._flatbuffer import AlignedBuffer, pack
from edgecnn.converters._tflite_read_custom import flexbuffer_map
from flatbuffers import flexbuffers

from edgecnn import ops, registry
from edgecnn.contract import Contract
from edgecnn.errors import EdgeCNNError, InputFileError, UnsupportedError, UsageError
from edgecnn.execute import execute
from edgecnn.graph import Graph, from_layout, to_layout
from edgecnn.interfaces import SessionOptions
from edgecnn.passes.deploy import deploy
from edgecnn.vision.preprocess import read_image
from tests.graphs import GRAPHS

DATA = next(
    (
        each
        for each in (Path(os.environ.get("EDGECNN_TEST_DATA", "")), Path("../shared/data"))
        if (each / "weights").is_dir()
    ),
    Path("missing"),
)
FLOAT_FILES = {
    "imagenet_tflite/mobilenet_v1_0.25_224_float.tflite": 28,
    "mlperf_tiny/pretrainedResnet.tflite": 9,
    "mlperf_tiny/vww_96_float.tflite": 27,
    "segmentation_voc/deeplabv3.tflite": 55,
    "face/face_detection_short_range-659bce.tflite": 37,
}
"""File -> convolutions."""

TFLITE: Any = registry.load("converters", "tflite")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of real weights (EDGECNN_TEST_DATA)")


def run_litert(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = registry.load("targets", "litert_cpu").open(path, SessionOptions(threads=1))
    try:
        found: dict[str, np.ndarray] = session.run(inputs)
        return found
    finally:
        session.close()


def run_graph(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what `execute` gives, fed and shown in the file's own order of axes."""
    fed = {port.name: from_layout(inputs[port.name], port.layout) for port in graph.inputs}
    found = execute(graph, fed)
    return {port.name: to_layout(found[port.name], port.layout) for port in graph.outputs}


def snr_db(wanted: np.ndarray, found: np.ndarray) -> float:
    error = float(np.square(wanted.astype(np.float64) - found).sum())
    return float(10 * np.log10(np.square(wanted.astype(np.float64)).sum() / max(error, 1e-300)))


@needs_data
@pytest.mark.parametrize("name", FLOAT_FILES)
def test_a_real_file_computes_what_litert_computes(name: str) -> None:
    path = DATA / "weights" / name
    graph = TFLITE.read(path)
    assert graph.kinds()["Conv"] == FLOAT_FILES[name]
    (port,) = graph.inputs
    _, height, width, _ = graph.tensors[port.tensor].shape
    contract = Contract(height=height, width=width)
    pictures = sorted((DATA / "test_images").glob("*.jpg"))[:4]
    assert len(pictures) == 4
    images = [read_image(each, contract)[None].astype(np.float32) for each in pictures]
    wanted = [run_litert(path, {port.name: image}) for image in images]
    found = [execute(graph, {port.name: image}) for image in images]
    for output in wanted[0]:
        assert found[0][output].shape == wanted[0][output].shape
        assert snr_db(*(np.stack([each[output] for each in both]) for both in (wanted, found))) >= 100


@needs_data
def test_constants_are_views_of_the_file_and_outlive_the_reader() -> None:
    graph = TFLITE.read(DATA / "weights/imagenet_tflite/mobilenet_v1_0.25_224_float.tflite")
    gc.collect()
    kernels = [graph.constant(node, "kernel") for node in graph.nodes if isinstance(node.op, ops.Conv)]
    assert all(each is not None and not each.data.flags.owndata for each in kernels)
    assert not any(each.data.flags.writeable for each in kernels)
    assert float(np.abs(kernels[-1].data).sum()) > 0


@needs_data
def test_float16_constants_stay_narrow() -> None:
    graph = TFLITE.read(DATA / "weights/face/face_detection_short_range-659bce.tflite")
    narrow = [each for each in graph.tensors.values() if each.data is not None and each.data.dtype == np.float16]
    assert len(narrow) == 74
    assert {each.dtype for each in narrow} == {"float32"}


@needs_data
def test_the_files_that_no_runtime_accepts_are_refused_by_name(tmp_path: Path) -> None:
    folder = DATA / "weights/negative_fixtures"
    with pytest.raises(InputFileError, match=r"Conv2d_0/Conv2D_bias': one scale for each channel of axis 3 of \(8,\)"):
        TFLITE.read(folder / "person_detect.tflite")
    graph = TFLITE.read(folder / "model_invoking_error.tflite")
    assert [node.op.attributes()["kind"] for node in graph.nodes] == ["fake-op-double"]
    with pytest.raises(UnsupportedError, match="fake-op-double"):
        TFLITE.write(graph, tmp_path / "again.tflite")


def written(graph: Graph, path: Path) -> Path | None:
    """Write a Graph, or None where the writer refuses it."""
    try:
        TFLITE.write(deploy(graph).graph, path)
    except UnsupportedError:
        return None
    return path


@pytest.mark.parametrize("name", GRAPHS)
def test_what_we_write_comes_back(name: str, tmp_path: Path) -> None:
    source = GRAPHS[name]
    path = written(source, tmp_path / "m.tflite")
    if path is None:
        pytest.skip("the writer refuses it")
    found = TFLITE.read(path)
    assert [port.name for port in found.inputs] == [port.name for port in source.inputs]
    for port in source.inputs:
        assert found.tensors[port.tensor].shape == source.tensors[port.tensor].shape
    rng = np.random.default_rng(5)
    inputs = {
        port.name: rng.standard_normal([size or 1 for size in source.tensors[port.tensor].shape], dtype=np.float32)
        for port in source.inputs
    }
    wanted, got = execute(source, inputs), run_graph(found, inputs)
    assert list(wanted) == list(got)
    for output, values in wanted.items():
        assert got[output].shape == values.shape
        np.testing.assert_allclose(got[output], values, atol=2e-5, rtol=1e-4)


def test_the_contract_comes_back(tmp_path: Path) -> None:
    from edgecnn.models.build import ZooOptions, build

    graph = deploy(build("lenet5", ZooOptions())).graph
    TFLITE.write(graph, tmp_path / "m.tflite")
    again = TFLITE.read(tmp_path / "m.tflite")
    assert again.contract == graph.contract is not None
    assert [node.outputs for node in deploy(again).graph.nodes] == [node.outputs for node in graph.nodes]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operator of a file built by hand: operands and results are names."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str] = ("y",)
    options: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    custom: bytes = b""
    version: int = 1


@dataclass(frozen=True, kw_only=True)
class File:
    """A file built by hand.

    Attributes:
        steps: In order.
        inputs: Name -> shape, -1 for an open size.
        constants: Name -> values.
        outputs: Names.
        types: Of computed tensors that are not float32.
        shapes: Of computed tensors, where LiteRT does not work them out in time.
    """

    steps: Sequence[Step]
    inputs: Mapping[str, Sequence[int]]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    outputs: Sequence[str] = ("y",)
    types: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def model(self) -> Any:
        names = list(dict.fromkeys([*self.inputs, *self.constants, *(o for s in self.steps for o in s.outputs)]))
        buffers, tensors = [AlignedBuffer(b"")], []
        for name in names:
            data = self.constants.get(name)
            sizes = data.shape if data is not None else {**self.shapes, **self.inputs}.get(name, ())
            dtype = str(data.dtype) if data is not None else self.types.get(name, "float32")
            if data is not None:
                buffers.append(AlignedBuffer(np.ascontiguousarray(data)))
            tensors.append(
                schema.TensorT(
                    name=name,
                    shape=[abs(size) for size in sizes],
                    shapeSignature=list(sizes) if -1 in sizes else None,
                    type=getattr(schema.TensorType, dtype.upper()),
                    buffer=len(buffers) - 1 if data is not None else 0,
                )
            )
        codes = [self.code(step) for step in self.steps]
        subgraph = schema.SubGraphT(
            tensors=tensors,
            inputs=[names.index(name) for name in self.inputs],
            outputs=[names.index(name) for name in self.outputs],
            operators=[self.operator(number, step, names) for number, step in enumerate(self.steps)],
        )
        return schema.ModelT(version=3, operatorCodes=codes, subgraphs=[subgraph], buffers=buffers)

    @staticmethod
    def code(step: Step) -> Any:
        number = getattr(schema.BuiltinOperator, step.kind, schema.BuiltinOperator.CUSTOM)
        is_custom = number == schema.BuiltinOperator.CUSTOM
        return schema.OperatorCodeT(
            builtinCode=number,
            deprecatedBuiltinCode=min(number, 127),
            customCode=step.kind if is_custom else None,
            version=step.version,
        )

    @staticmethod
    def operator(number: int, step: Step, names: list[str]) -> Any:
        operator = schema.OperatorT(
            opcodeIndex=number,
            inputs=[names.index(name) if name else -1 for name in step.inputs],
            outputs=[names.index(name) for name in step.outputs],
            customOptions=list(step.custom) or None,
        )
        if step.options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{step.options}Options")
            operator.builtinOptions = getattr(schema, f"{step.options}OptionsT")(**step.fields)
        return operator

    def write(self, path: Path) -> Path:
        path.write_bytes(pack(self.model(), sum(each.nbytes for each in self.constants.values())))
        return path


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def single(
    kind: str,
    shape: Sequence[int],
    *constants: np.ndarray,
    options: str = "",
    first: bool = True,
    outputs: int = 1,
    types: Mapping[str, str] | None = None,
    version: int = 1,
    **fields: Any,
) -> File:
    """Return a file of one operator: the input first, then constants (or after them)."""
    others = [f"c{number}" for number in range(len(constants))]
    results = [f"y{number}" for number in range(outputs)] if outputs > 1 else ["y"]
    step = Step(
        kind=kind,
        inputs=["x", *others] if first else [*others, "x"],
        outputs=results,
        options=options,
        fields=fields,
        version=version,
    )
    return File(
        steps=[step],
        inputs={"x": shape},
        constants=dict(zip(others, constants, strict=True)),
        outputs=results,
        types=types or {},
    )


IMAGE = (1, 7, 6, 4)


def strided(begin: Any, end: Any, step: Any, shape: Sequence[int] = IMAGE, **masks: Any) -> File:
    return single("STRIDED_SLICE", shape, ints(*begin), ints(*end), ints(*step), options="StridedSlice", **masks)


def window(**fields: Any) -> dict[str, Any]:
    return {"strideH": 2, "strideW": 1, "padding": 0, **fields}


def resized(kind: str, options: str, coordinates: str) -> File:
    fields: dict[str, Any] = {coordinates: True} if coordinates else {}
    return single(f"RESIZE_{kind}", IMAGE, ints(11, 4), options=options, **fields)


def pool(kind: str, **fields: Any) -> File:
    return single(kind, IMAGE, options="Pool2D", **window(filterHeight=3, filterWidth=2, **fields))


def transposed(sizes: Sequence[int], **fields: Any) -> File:
    constants = {"s": ints(1, *sizes, 5), "k": floats(5, 3, 4, 4), "b": floats(5)}
    step = Step(
        kind="TRANSPOSE_CONV",
        inputs=["s", "k", "x", *(["b"] if fields.pop("bias", False) else [])],
        options="TransposeConv",
        fields={"strideH": 2, "strideW": 3, **fields},
    )
    return File(steps=[step], inputs={"x": (1, 4, 3, 4)}, constants=constants)


def two(kind: str, a: Sequence[int], b: Sequence[int], options: str = "", **fields: Any) -> File:
    step = Step(kind=kind, inputs=["x", "z"], options=options, fields=fields)
    return File(steps=[step], inputs={"x": a, "z": b})


def compared(kind: str) -> File:
    """A comparison, shown as a choice."""
    steps = [Step(kind=kind, inputs=["x", "z"], outputs=["c"]), Step(kind="SELECT_V2", inputs=["c", "x", "z"])]
    return File(steps=steps, inputs={"x": (2, 3), "z": (2, 3)}, types={"c": "bool"})


def flatten_of_a_batch() -> File:
    """What Keras exports for Flatten with an open batch: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    steps = [
        Step(kind="SHAPE", inputs=["x"], outputs=["s"], options="Shape", fields={"outType": 2}),
        Step(
            kind="STRIDED_SLICE",
            inputs=["s", "zero", "one", "one"],
            outputs=["n"],
            options="StridedSlice",
            fields={"shrinkAxisMask": 1},
        ),
        Step(kind="PACK", inputs=["n", "rest"], outputs=["sizes"], options="Pack", fields={"valuesCount": 2}),
        Step(kind="RESHAPE", inputs=["x", "sizes"], options="Reshape"),
    ]
    constants = {"zero": ints(0), "one": ints(1), "rest": np.array(24, np.int32)}
    types = dict.fromkeys(("s", "n", "sizes"), "int32")
    return File(steps=steps, inputs={"x": (-1, 3, 2, 4)}, constants=constants, types=types)


def log_of_positive(kind: str) -> File:
    steps = [Step(kind="EXP", inputs=["x"], outputs=["e"], options="Exp"), Step(kind=kind, inputs=["e"])]
    return File(steps=steps, inputs={"x": (2, 5)})


FILES: dict[str, File] = {
    "conv_same_strided": single(
        "CONV_2D", IMAGE, floats(5, 3, 3, 4), floats(5), options="Conv2D", **window(fusedActivationFunction=3)
    ),
    "conv_fused_n1_to_1": single(
        "CONV_2D", IMAGE, floats(5, 3, 3, 4), floats(5), options="Conv2D", **window(fusedActivationFunction=2)
    ),
    "conv_grouped": single("CONV_2D", IMAGE, floats(6, 3, 3, 2), floats(6), options="Conv2D", **window()),
    "conv_dilated": single(
        "CONV_2D",
        IMAGE,
        floats(5, 3, 2, 4),
        floats(5),
        options="Conv2D",
        strideH=1,
        strideW=1,
        padding=1,
        dilationHFactor=2,
        dilationWFactor=3,
    ),
    "depthwise_multiplied": single(
        "DEPTHWISE_CONV_2D",
        IMAGE,
        floats(1, 3, 3, 8),
        floats(8),
        options="DepthwiseConv2D",
        strideH=2,
        strideW=2,
        padding=0,
        depthMultiplier=2,
    ),
    "conv_3d": single(
        "CONV_3D",
        (1, 4, 5, 6, 3),
        floats(2, 3, 3, 3, 5),
        floats(5),
        options="Conv3D",
        strideD=1,
        strideH=2,
        strideW=1,
        padding=0,
    ),
    "transposed_same": transposed((8, 9), padding=0),
    "transposed_same_odd": transposed((7, 8), padding=0, bias=True),
    "transposed_valid": transposed((9, 10), padding=1),
    "max_pool": pool("MAX_POOL_2D"),
    "average_pool_relu": pool("AVERAGE_POOL_2D", fusedActivationFunction=1),
    "l2_pool": pool("L2_POOL_2D"),
    "dense_of_an_image": single("FULLY_CONNECTED", (2, 3, 4), floats(5, 12), floats(5), options="FullyConnected"),
    "dense_keeping_axes": single(
        "FULLY_CONNECTED", (2, 3, 4), floats(5, 4), floats(5), options="FullyConnected", keepNumDims=True
    ),
    "dense_without_bias": single("FULLY_CONNECTED", (2, 4), floats(5, 4), options="FullyConnected"),
    "dense_of_computed_weights": two("FULLY_CONNECTED", (2, 4), (5, 4), options="FullyConnected"),
    "batch_matmul": two("BATCH_MATMUL", (2, 3, 4), (2, 4, 5), options="BatchMatMul"),
    "batch_matmul_adjoint": two("BATCH_MATMUL", (2, 4, 3), (2, 5, 4), options="BatchMatMul", adjX=True, adjY=True),
    "batch_matmul_constant": single("BATCH_MATMUL", (2, 3, 4), floats(5, 4), options="BatchMatMul", adjY=True),
    "mean": single("MEAN", IMAGE, ints(-2, 1), options="Reducer", keepDims=True),
    "sum": single("SUM", IMAGE, ints(3), options="Reducer"),
    "reduce_max": single("REDUCE_MAX", IMAGE, ints(1, 2), options="Reducer"),
    "reduce_min": single("REDUCE_MIN", IMAGE, ints(1), options="Reducer", keepDims=True),
    "reduce_prod": single("REDUCE_PROD", IMAGE, ints(3), options="Reducer"),
    "add_fused": single("ADD", IMAGE, floats(4), options="Add", fusedActivationFunction=1),
    "sub": single("SUB", IMAGE, floats(4), options="Sub", first=False),
    "mul_tanh": single("MUL", IMAGE, floats(6, 1), options="Mul", fusedActivationFunction=3),
    "div": single("DIV", IMAGE, floats(4), options="Div"),
    "pow": single("POW", (2, 3), np.full((3,), 2, np.float32), options="Pow"),
    "maximum": single("MAXIMUM", IMAGE, floats(4), options="MaximumMinimum"),
    "minimum": single("MINIMUM", IMAGE, floats(4), options="MaximumMinimum"),
    "squared_difference": single("SQUARED_DIFFERENCE", IMAGE, floats(4), options="SquaredDifference"),
    "square": single("SQUARE", IMAGE, options="Square"),
    "floor_div": single("FLOOR_DIV", IMAGE, floats(4), options="FloorDiv"),
    "add_n": two("ADD_N", (2, 3), (2, 3), options="AddN"),
    **{
        kind.lower(): single(kind, IMAGE, options=options, **fields)
        for kind, options, fields in (
            ("RELU", "", {}),
            ("RELU6", "", {}),
            ("RELU_N1_TO_1", "", {}),
            ("RELU_0_TO_1", "", {}),
            ("LOGISTIC", "", {}),
            ("TANH", "", {}),
            ("HARD_SWISH", "HardSwish", {}),
            ("GELU", "Gelu", {"approximate": True}),
            ("LEAKY_RELU", "LeakyRelu", {"alpha": 0.1}),
            ("ELU", "", {}),
            ("ABS", "Abs", {}),
            ("NEG", "Neg", {}),
            ("FLOOR", "", {}),
            ("CEIL", "", {}),
            ("ROUND", "", {}),
            ("SIN", "", {}),
            ("COS", "Cos", {}),
            ("EXP", "Exp", {}),
            ("LOG_SOFTMAX", "LogSoftmax", {}),
            ("L2_NORMALIZATION", "L2Norm", {}),
        )
    },
    **{kind.lower(): log_of_positive(kind) for kind in ("LOG", "SQRT", "RSQRT")},
    "prelu": single("PRELU", IMAGE, floats(1, 1, 4)),
    "softmax_beta": single("SOFTMAX", (2, 5), options="Softmax", beta=0.7),
    "local_response": single(
        "LOCAL_RESPONSE_NORMALIZATION",
        IMAGE,
        options="LocalResponseNormalization",
        radius=2,
        bias=1.0,
        alpha=0.3,
        beta=0.5,
    ),
    "pad": single("PAD", IMAGE, ints((0, 0), (1, 2), (0, 3), (1, 0)), options="Pad"),
    "pad_with_value": single(
        "PADV2", IMAGE, ints((0, 0), (1, 2), (0, 3), (1, 0)), np.array(2.5, np.float32), options="PadV2"
    ),
    "mirror_pad": single("MIRROR_PAD", IMAGE, ints((0, 0), (1, 2), (3, 0), (0, 0)), options="MirrorPad", mode=0),
    "mirror_pad_symmetric": single(
        "MIRROR_PAD", IMAGE, ints((0, 0), (1, 1), (1, 0), (0, 0)), options="MirrorPad", mode=1
    ),
    "reshape_of_options": single("RESHAPE", IMAGE, options="Reshape", newShape=[1, -1, 8]),
    "reshape": single("RESHAPE", IMAGE, ints(6, -1), options="Reshape"),
    "squeeze": single("SQUEEZE", (1, 3, 1, 4), options="Squeeze", squeezeDims=[-2]),
    "squeeze_all": single("SQUEEZE", (1, 3, 1, 4), options="Squeeze"),
    "expand_dims": single("EXPAND_DIMS", (2, 3), ints(-1), options="ExpandDims"),
    "pack": two("PACK", (2, 3), (2, 3), options="Pack", axis=1, valuesCount=2),
    "unpack": single("UNPACK", (2, 3, 4), options="Unpack", outputs=3, axis=1, num=3),
    "transpose": single("TRANSPOSE", IMAGE, ints(0, 3, 1, 2), options="Transpose"),
    "concatenation": two("CONCATENATION", (2, 3), (2, 3), options="Concatenation", axis=-1),
    "split": single("SPLIT", (2, 6, 4), np.array(1, np.int32), options="Split", first=False, outputs=3, numSplits=3),
    "split_v": single(
        "SPLIT_V", (2, 6, 4), ints(1, -1, 3), np.array(-2, np.int32), options="SplitV", outputs=3, numSplits=3
    ),
    "slice": single("SLICE", IMAGE, ints(0, 1, 2, 0), ints(1, 3, -1, 4), options="Slice"),
    "strided_plain": strided((0, 1, 0, 0), (1, 7, 6, 4), (1, 3, 2, 1)),
    "strided_masks": strided((9, 1, 2, 9), (9, 9, 5, 9), (1, 2, 1, 1), beginMask=0b1001, endMask=0b1011),
    "strided_negative_bounds": strided((0, -5, -9, 0), (1, -1, 9, -1), (1, 1, 1, 1)),
    "strided_backwards": strided((0, 0, 5, 0), (1, 7, 1, 4), (1, 1, -2, 1)),
    "strided_backwards_open": strided((0, 0, 0, 0), (1, 7, 6, 0), (1, 1, 1, -1), beginMask=0b1111, endMask=0b1111),
    "strided_shrink": strided((0, -2, 0, 0), (1, 0, 6, 4), (1, 1, 1, 1), shrinkAxisMask=0b10),
    "strided_ellipsis": strided((0, 0, 1), (1, 0, 3), (1, 1, 1), ellipsisMask=0b10),
    "strided_new_axis": strided((0, 0, 2), (1, 0, 5), (1, 1, 1), newAxisMask=0b10),
    "strided_ellipsis_new_axis_shrink": strided(
        (0, 0, 0, 3),
        (0, 0, 0, 4),
        (1, 1, 1, 1),
        ellipsisMask=0b1,
        newAxisMask=0b10,
        shrinkAxisMask=0b1000,
        endMask=0b100,
    ),
    "gather": single("GATHER", IMAGE, ints((3, 0), (1, 1)), options="Gather", axis=-1),
    "reverse": single("REVERSE_V2", IMAGE, ints(2), options="ReverseV2"),
    "tile": single("TILE", (2, 3), ints(2, 3), options="Tile"),
    "broadcast_to": single("BROADCAST_TO", (3, 1), ints(2, 3, 4), options="BroadcastTo", version=2),
    **{
        f"resize_{kind.lower()}_{coordinates or 'asymmetric'}": resized(kind, options, coordinates)
        for kind, options in (("BILINEAR", "ResizeBilinear"), ("NEAREST_NEIGHBOR", "ResizeNearestNeighbor"))
        for coordinates in ("", "alignCorners", "halfPixelCenters")
    },
    "depth_to_space": single("DEPTH_TO_SPACE", IMAGE, options="DepthToSpace", blockSize=2),
    "space_to_depth": single("SPACE_TO_DEPTH", (1, 4, 6, 3), options="SpaceToDepth", blockSize=2),
    "arg_max": single("ARG_MAX", IMAGE, np.array(-1, np.int32), options="ArgMax", outputType=4, types={"y": "int64"}),
    "arg_min": single("ARG_MIN", IMAGE, np.array(3, np.int32), options="ArgMin", outputType=2, types={"y": "int32"}),
    "cast": single("CAST", IMAGE, types={"y": "int32"}),
    **{
        kind.lower(): compared(kind)
        for kind in ("GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "EQUAL", "NOT_EQUAL")
    },
    "flatten_of_a_batch": flatten_of_a_batch(),
    "dequantize": File(
        steps=[
            Step(kind="DEQUANTIZE", inputs=["half"], outputs=["wide"], options="Dequantize"),
            Step(kind="ADD", inputs=["x", "wide"], options="Add"),
        ],
        inputs={"x": (2, 3)},
        constants={"half": floats(3).astype(np.float16)},
        shapes={"wide": (3,)},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_an_operator_computes_what_litert_computes(name: str, tmp_path: Path) -> None:
    file = FILES[name]
    path = file.write(tmp_path / "m.tflite")
    inputs = {each: floats(*map(abs, shape), seed=7) for each, shape in file.inputs.items()}
    wanted = run_litert(path, inputs)
    found = run_graph(TFLITE.read(path), inputs)
    assert list(found) == list(wanted)
    for output, values in wanted.items():
        assert found[output].shape == values.shape
        assert found[output].dtype == values.dtype
        np.testing.assert_allclose(found[output], values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_a_flatten_of_an_open_batch_keeps_it_open(count: int, tmp_path: Path) -> None:
    graph = TFLITE.read(flatten_of_a_batch().write(tmp_path / "m.tflite"))
    assert graph.tensors[graph.outputs[0].tensor].shape == (None, 24)
    assert [node.kind for node in graph.nodes] == ["Reshape"]
    x = floats(count, 3, 2, 4)
    np.testing.assert_array_equal(execute(graph, {"x": x})["y"], x.reshape(count, 24))


def test_input_shapes_fix_what_the_file_leaves_open(tmp_path: Path) -> None:
    file = single("MEAN", (-1, -1, -1, 3), ints(1, 2), options="Reducer")
    path = file.write(tmp_path / "m.tflite")
    wanted = r"input 'x' leaves NxNxNx3 open; only the batch may be. Give its size: --input-shape x:1,H,H,3"
    with pytest.raises(UnsupportedError, match=wanted):
        TFLITE.read(path)
    graph = TFLITE.read(path, {"x": (None, 5, 6, 3)})
    assert graph.tensors["x"].shape == (None, 5, 6, 3)
    with pytest.raises(UsageError, match="no input is named 'z'; it has x"):
        TFLITE.read(path, {"z": (1, 5, 6, 3)})
    with pytest.raises(UsageError, match="input 'x' has 4 positive sizes; got 5x6x3"):
        TFLITE.read(path, {"x": (5, 6, 3)})


def test_detections_are_understood(tmp_path: Path) -> None:
    options = flexbuffers.Dumps(DETECTION)
    assert {name: type(DETECTION[name])(value) for name, value in flexbuffer_map(bytes(options)).items()} == DETECTION
    path = detection(bytes(options)).write(tmp_path / "m.tflite")
    rng = np.random.default_rng(0)
    inputs = {
        "boxes": rng.standard_normal((1, 20, 4), dtype=np.float32),
        "scores": rng.random((1, 20, 4), dtype=np.float32),
    }
    graph = TFLITE.read(path)
    wanted, found = run_litert(path, inputs), execute(graph, inputs)
    assert list(wanted) == list(found) == ["y0", "y1", "y2", "y3"]
    for output, values in wanted.items():
        np.testing.assert_allclose(found[output], values, atol=1e-5)


DETECTION = {
    "max_detections": 6,
    "max_classes_per_detection": 1,
    "detections_per_class": 100,
    "use_regular_nms": False,
    "nms_score_threshold": 0.3,
    "nms_iou_threshold": 0.5,
    "num_classes": 3,
    "y_scale": 10.0,
    "x_scale": 10.0,
    "h_scale": 5.0,
    "w_scale": 5.0,
}


def detection(options: bytes) -> File:
    names = ["y0", "y1", "y2", "y3"]
    step = Step(
        kind="TFLite_Detection_PostProcess", inputs=["boxes", "scores", "anchors"], outputs=names, custom=options
    )
    anchors = np.random.default_rng(1).random((20, 4), dtype=np.float32)
    inputs = {"boxes": (1, 20, 4), "scores": (1, 20, 4)}
    return File(steps=[step], inputs=inputs, constants={"anchors": anchors}, outputs=names)


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 40])
def test_damaged_options_of_a_custom_operator_are_refused(cut: int, tmp_path: Path) -> None:
    options = bytes(flexbuffers.Dumps(DETECTION))
    path = detection(options[:cut]).write(tmp_path / "m.tflite")
    with pytest.raises(InputFileError, match="TFLite_Detection_PostProcess 'y0'"):
        TFLITE.read(path)


@pytest.mark.parametrize("padding", [1, 2])
def test_mediapipes_transposed_convolution(padding: int, tmp_path: Path) -> None:
    """Held against the loop of MediaPipe's kernel."""
    kernel, bias, x = floats(5, 3, 4, 2, seed=1), floats(5, seed=2), floats(1, 4, 3, 2, seed=3)
    step = Step(kind="Convolution2DTransposeBias", inputs=["x", "k", "b"], custom=ints(padding, 3, 2).tobytes())
    file = File(steps=[step], inputs={"x": x.shape}, constants={"k": kernel, "b": bias})
    found = execute(TFLITE.read(file.write(tmp_path / "m.tflite")), {"x": x})["y"]
    laid = np.zeros((1, 2 * 3 + 3, 3 * 2 + 4, 5), np.float32) + bias
    for row in range(4):
        for column in range(3):
            laid[0, 2 * row : 2 * row + 3, 3 * column : 3 * column + 4] += np.einsum(
                "c,ohwc->hwo", x[0, row, column], kernel
            )
    cut = [max(f - (n - 1) % s - 1, 0) if padding == 1 else 0 for f, n, s in ((3, 4, 2), (4, 3, 3))]
    wanted = laid[:, cut[0] // 2 : 9 - (cut[0] - cut[0] // 2), cut[1] // 2 : 10 - (cut[1] - cut[1] // 2)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_unknown_operators_are_listed_and_refused_by_name(tmp_path: Path) -> None:
    for kind in ("CUMSUM", "MyOwn"):
        file = single(kind, (2, 3), np.array(1, np.int32))
        graph = TFLITE.read(file.write(tmp_path / "m.tflite"))
        assert [node.op.attributes()["kind"] for node in graph.nodes] == [kind]
        with pytest.raises(UnsupportedError, match=kind):
            TFLITE.write(graph, tmp_path / "again.tflite")


def test_ports_that_share_a_tensor_or_need_no_operator(tmp_path: Path) -> None:
    file = File(
        steps=[Step(kind="RELU", inputs=["x"])],
        inputs={"x": (2, 3)},
        constants={"c": floats(2)},
        outputs=["y", "y", "x", "c"],
    )
    graph = TFLITE.read(file.write(tmp_path / "m.tflite"))
    assert [port.name for port in graph.outputs] == ["y", "y_2", "x", "c"]
    x = floats(2, 3)
    found = execute(graph, {"x": x})
    np.testing.assert_array_equal(found["y_2"], np.maximum(x, 0))
    np.testing.assert_array_equal(found["x"], x)
    np.testing.assert_array_equal(found["c"], file.constants["c"])


def test_equal_and_empty_names_become_unique(tmp_path: Path) -> None:
    file = File(
        steps=[Step(kind="RELU", inputs=["x"], outputs=["a"]), Step(kind="TANH", inputs=["a"])], inputs={"x": (2, 3)}
    )
    model = file.model()
    for tensor, name in zip(model.subgraphs[0].tensors, ("same", "same", ""), strict=True):
        tensor.name = name
    (tmp_path / "m.tflite").write_bytes(pack(model, 0))
    graph = TFLITE.read(tmp_path / "m.tflite")
    assert list(graph.tensors) == ["same", "same_2", "tensor_2"]
    x = floats(2, 3)
    np.testing.assert_allclose(execute(graph, {"same": x})["tensor_2"], np.tanh(np.maximum(x, 0)), atol=1e-6)


def test_data_behind_the_flatbuffer_are_read(tmp_path: Path) -> None:
    values = floats(4)
    file = single("ADD", IMAGE, values, options="Add")
    model = file.model()
    content = bytes(pack(model, values.nbytes))
    for offset in (len(content), len(content) + 16):
        model.buffers[1] = schema.BufferT(offset=offset, size=values.nbytes)
        content = bytes(pack(model, 0))
    place = len(content) + 16
    model.buffers[1] = schema.BufferT(offset=place, size=values.nbytes)
    content = bytes(pack(model, 0)).ljust(place, b"\0")
    path = tmp_path / "m.tflite"
    path.write_bytes(content + values.tobytes())
    x = floats(*IMAGE)
    np.testing.assert_allclose(execute(TFLITE.read(path), {"x": x})["y"], x + values, atol=1e-6)
    path.write_bytes(content + values.tobytes()[:-1])
    with pytest.raises(InputFileError, match="tensor 'c0': its data lie behind the end of the file"):
        TFLITE.read(path)


def broken(place: str, value: Any) -> Any:
    """Return the model of a file with one thing wrong: the attribute at a dotted place of its main subgraph."""
    model = single("ADD", IMAGE, floats(4), options="Add").model()
    *path, last = place.split(".")
    owner = model.subgraphs[0]
    for each in path:
        owner = owner[int(each)] if each.isdigit() else getattr(owner, each)
    setattr(owner, last, value)
    return model


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("operators.0.inputs", [2, 2], "tensor 'y' is used before an operator gives it"),
        ("operators.0.inputs", [0, 99], "a tensor below 3 was wanted; got 99"),
        ("operators.0.inputs", [0, -7], "a tensor below 3 was wanted; got -7"),
        ("operators.0.inputs", [0], "ADD 'y': input 1 was wanted; it has 1"),
        ("operators.0.outputs", [2, 2], "tensor 'y' is given twice"),
        ("operators.0.outputs", [0], "tensor 'x' is given twice"),
        ("operators.0.outputs", [], "the operator ADD has no outputs"),
        ("operators.0.opcodeIndex", 3, "an operator code below 1 was wanted; got 3"),
        ("operators.0.builtinOptions.fusedActivationFunction", 5, "the activation 5 inside it is not read"),
        ("inputs", [0, 0], "input 'x_2' is listed twice"),
        ("outputs", [3], "a tensor below 3 was wanted; got 3"),
        ("tensors.1.buffer", 9, "a buffer below 2 was wanted; got 9"),
        ("tensors.1.shape", [5], r"20 bytes for shape \(5,\) were wanted; got 16"),
        ("tensors.1.shape", [-4], "a sane shape was wanted"),
        ("tensors.0.shape", [1, 2**31 - 1, 2**31 - 1, 4], "a sane shape was wanted"),
        ("tensors.0.shape", [1, 7, 6, 3], "ADD 'y': y: shapes must broadcast; got 1x7x6x3 and 4"),
        ("tensors.0.type", 5, "tensor 'x' holds string, no numbers"),
        ("tensors.1.sparsity", schema.SparsityParametersT(), "tensor 'c0' is stored sparse"),
        ("operators", [], "tensor 'y' is used before an operator gives it"),
    ],
)
def test_a_wrong_index_or_shape_is_refused(place: str, value: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(pack(broken(place, value), 64))
    with pytest.raises(InputFileError, match=message):
        TFLITE.read(path)


def test_positions_that_an_axis_does_not_have_are_refused(tmp_path: Path) -> None:
    path = single("GATHER", IMAGE, ints(0, 7), options="Gather", axis=1).write(tmp_path / "m.tflite")
    with pytest.raises(InputFileError, match=r"GATHER 'y': positions in 0\.\.6 were wanted; got 0\.\.7"):
        TFLITE.read(path)


def test_options_that_are_no_map_of_numbers_are_refused(tmp_path: Path) -> None:
    options = bytes(flexbuffers.Dumps({**DETECTION, "max_detections": float("nan")}))
    with pytest.raises(InputFileError, match="NaN"):
        TFLITE.read(detection(options).write(tmp_path / "m.tflite"))
    key_without_end = b"k" + bytes([1, 2]) + bytes([1, 1, 1, 5, 4]) + bytes([2, 9 << 2, 1])
    with pytest.raises(InputFileError, match="offsets cannot be followed"):
        flexbuffer_map(key_without_end)


FAR = (1, 1 << 30)
LONGEST = {"a": np.array(-(1 << 63)), "b": np.array((1 << 63) - 1), "c": np.array(1)}
HOSTILE = {
    "range": File(
        steps=[Step(kind="RANGE", inputs=["a", "b", "c"], outputs=["r"]), Step(kind="ADD", inputs=["x", "r"])],
        inputs={"x": (1, 4)},
        constants=LONGEST,
        types={"r": "int64"},
    ),
    "no operands": File(steps=[Step(kind="ADD_N", inputs=[], options="AddN")], inputs={"x": (1, 4)}),
    "far backwards": strided([0, -1], [1, -(1 << 31)], [1, -1], FAR),
    "far reverse": single("REVERSE_V2", FAR, ints(1), options="ReverseV2"),
    "far mirror": single("MIRROR_PAD", FAR, ints([0, 0], [2, 2]), options="MirrorPad", mode=1),
    "small positions": single("GATHER_ND", (2, 300), np.array([[1]], np.int8), options="GatherNd"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_costs_more_than_it_states_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = HOSTILE[name].write(tmp_path / "m.tflite")
    start = time.perf_counter()
    with pytest.raises(InputFileError, match=str(path)):
        TFLITE.read(path)
    assert time.perf_counter() - start < 1


def test_buffers_that_are_shared_without_end_are_refused(tmp_path: Path) -> None:
    model = single("ADD", IMAGE, floats(1000), options="Add").model()
    model.subgraphs[0].tensors += [model.subgraphs[0].tensors[1]] * 200
    (tmp_path / "m.tflite").write_bytes(pack(model, 4096))
    with pytest.raises(InputFileError, match="constants of at most 16 times the file were wanted"):
        TFLITE.read(tmp_path / "m.tflite")


def test_a_file_without_a_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(pack(schema.ModelT(version=3), 0))
    with pytest.raises(InputFileError, match="a subgraph below 0 was wanted; got 0"):
        TFLITE.read(tmp_path / "m.tflite")


def small_file(folder: Path) -> bytes:
    """Return a file with most of what the reader follows: options, shapes, a signature, metadata, a contract."""
    graph = deploy(GRAPHS["squeeze_excite_of_keras"]).graph
    TFLITE.write(graph, folder / "m.tflite")
    return (folder / "m.tflite").read_bytes()


def test_a_truncated_file_is_refused_or_read(tmp_path: Path) -> None:
    content, path = small_file(tmp_path), tmp_path / "cut.tflite"
    refused = 0
    for length in range(0, len(content), max(len(content) // 150, 1)):
        path.write_bytes(content[:length])
        try:
            TFLITE.read(path)
        except InputFileError:
            refused += 1
    assert refused > 100


def test_flipped_bytes_end_in_a_graph_or_a_message(tmp_path: Path) -> None:
    content, path, rng = small_file(tmp_path), tmp_path / "flipped.tflite", np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), int(rng.integers(1, 8))):
            damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            TFLITE.read(path)
        except EdgeCNNError:
            refused += 1
    assert refused > 50


def test_tables_that_name_one_another_again_and_again_are_refused(tmp_path: Path) -> None:
    """A vector that claims more entries than the file has room for."""
    model = single("ADD", IMAGE, floats(4), options="Add").model()
    content = bytearray(pack(model, 64))
    root = schema.Model.GetRootAs(content, 0)
    graph = root.Subgraphs(0)
    place = graph._tab.Vector(graph._tab.Offset(10)) - 4
    assert int.from_bytes(content[place : place + 4], "little") == 1
    content[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match="at most 4000000 table entries were wanted; found more"):
        TFLITE.read(path)


def test_constants_that_share_a_buffer_or_a_kernel_are_stored_once(tmp_path: Path) -> None:
    steps = [
        Step(kind="CONV_2D", inputs=[x, kernel, "b"], outputs=[y], options="Conv2D", fields=window())
        for x, kernel, y in (("x", "k", "a"), ("a", "k", "c"), ("c", "other", "y"))
    ]
    constants = {"k": floats(4, 3, 3, 4), "other": floats(4, 3, 3, 4), "b": floats(4)}
    model = File(steps=steps, inputs={"x": IMAGE}, constants=constants).model()
    model.subgraphs[0].tensors[2].buffer = model.subgraphs[0].tensors[1].buffer
    (tmp_path / "m.tflite").write_bytes(pack(model, 4096))
    graph = TFLITE.read(tmp_path / "m.tflite")
    assert [node.inputs[1:] for node in graph.nodes] == [("k", "b")] * 3


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_what_tensorflow_converts(half: bool, tmp_path: Path) -> None:
    """Idioms of its converter: an open batch, SHAPE chains, masks of STRIDED_SLICE, decomposed normalisation."""
    tf = pytest.importorskip("tensorflow")
    keras = tf.keras
    x = image = keras.Input((24, 20, 3), name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6")(x)
    x = keras.layers.LayerNormalization()(keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(x))
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(keras.ops.silu(x[:, ::2, 1:-1]))
    x = keras.layers.Concatenate()([x, keras.layers.Conv2DTranspose(4, 3, strides=1, padding="same")(x)])
    x = keras.layers.Dense(5)(keras.layers.Flatten()(keras.layers.AveragePooling2D(2, padding="same")(x)))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, keras.layers.Softmax()(x)))
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    path = tmp_path / "m.tflite"
    path.write_bytes(converter.convert())
    graph = TFLITE.read(path)
    assert graph.tensors[graph.inputs[0].tensor].shape == (None, 24, 20, 3)
    inputs = {graph.inputs[0].name: floats(1, 24, 20, 3)}
    wanted, found = run_litert(path, inputs), execute(graph, inputs)
    for output, values in wanted.items():
        assert snr_db(values, found[output]) >= 100
