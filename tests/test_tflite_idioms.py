"""What public .tflite files hold besides plain operators: read, rewritten for delegates, and written back no larger."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from edgecnn.converters._flatbuffer import pack
from edgecnn.converters._tflite_sparse import compressed

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder
from edgecnn.errors import InputFileError
from edgecnn.execute import execute
from edgecnn.graph import Graph
from edgecnn.interfaces import SessionOptions
from edgecnn.passes import fuse_repeat
from edgecnn.passes.deploy import deploy
from edgecnn.passes.store_float16 import store_float16
from tests.graphs import image_graph
from tests.test_passes import four_steps, run
from tests.test_tflite_reader import File, Step, floats, ints, run_graph, run_litert, snr_db

TFLITE: Any = registry.load("converters", "tflite")

PLAIN = {"strideH": 1, "strideW": 1, "padding": 1}
"""A window without SAME padding."""


def dilated(
    kind: str = "CONV_2D",
    block: Sequence[int] = (2, 2),
    padding: Sequence[Sequence[int]] = ((2, 3), (2, 2)),
    crops: Sequence[Sequence[int]] = ((0, 1), (0, 0)),
    batch: int = 1,
    **fields: Any,
) -> File:
    """Return what converters write for a dilated convolution of 9 x 10, with a scale for each channel inside."""
    depthwise = kind == "DEPTHWISE_CONV_2D"
    steps = [
        Step(kind="SPACE_TO_BATCH_ND", inputs=["x", "block", "padding"], outputs=["s"], options="SpaceToBatchND"),
        Step(
            kind=kind,
            inputs=["s", "k", "b"],
            outputs=["c"],
            options="DepthwiseConv2D" if depthwise else "Conv2D",
            fields={**PLAIN, **({"depthMultiplier": 1} if depthwise else {}), **fields},
        ),
        Step(kind="MUL", inputs=["c", "scale"], outputs=["m"], options="Mul"),
        Step(kind="BATCH_TO_SPACE_ND", inputs=["m", "block", "crops"], options="BatchToSpaceND"),
    ]
    constants = {
        "block": ints(*block),
        "padding": ints(*padding),
        "crops": ints(*crops),
        "k": floats(1, 3, 3, 4) if depthwise else floats(4, 3, 3, 4),
        "b": floats(4),
        "scale": floats(4),
    }
    return File(steps=steps, inputs={"x": (batch, 9, 10, 4)}, constants=constants)


DILATED = {
    "conv": dilated(),
    "depthwise": dilated("DEPTHWISE_CONV_2D"),
    "relu6": dilated(fusedActivationFunction=3),
    "uneven": dilated(block=(3, 2), padding=((3, 3), (0, 0)), crops=((1, 2), (0, 0))),
    "open_batch": dilated(batch=-1),
}


@pytest.mark.parametrize("name", DILATED)
def test_a_convolution_between_space_to_batch_and_back_is_dilated(name: str, tmp_path: Path) -> None:
    file = DILATED[name]
    path = file.write(tmp_path / "m.tflite")
    graph = TFLITE.read(path)
    assert set(graph.kinds()) <= {"Conv", "Mul", "ReLU6"}
    block = tuple(file.constants["block"].tolist())
    assert [node.op.dilation for node in graph.nodes if isinstance(node.op, ops.Conv)] == [block]
    x = floats(1, 9, 10, 4, seed=7)
    np.testing.assert_allclose(run_graph(graph, {"x": x})["y"], run_litert(path, {"x": x})["y"], atol=1e-5)


def test_a_dilated_convolution_of_one_dimension(tmp_path: Path) -> None:
    """What Keras' Conv1D exports: the row becomes an image of height 1, and a row again."""
    steps = [
        Step(kind="SPACE_TO_BATCH_ND", inputs=["x", "block", "padding"], outputs=["s"], options="SpaceToBatchND"),
        Step(kind="EXPAND_DIMS", inputs=["s", "axis"], outputs=["i"], options="ExpandDims"),
        Step(kind="CONV_2D", inputs=["i", "k", "b"], outputs=["c"], options="Conv2D", fields=PLAIN),
        Step(kind="RESHAPE", inputs=["c", "sizes"], outputs=["r"], options="Reshape"),
        Step(kind="BATCH_TO_SPACE_ND", inputs=["r", "block", "crops"], options="BatchToSpaceND"),
    ]
    constants = {
        "block": ints(2),
        "padding": ints((4, 0)),
        "crops": ints((0, 0)),
        "axis": ints(1),
        "sizes": ints(-1, 8, 5),
        "k": floats(5, 1, 3, 4),
        "b": floats(5),
    }
    shapes = {"s": (2, 10, 4), "i": (2, 1, 10, 4), "c": (2, 1, 8, 5), "r": (2, 8, 5)}
    path = File(steps=steps, inputs={"x": (1, 16, 4)}, constants=constants, shapes=shapes).write(tmp_path / "m.tflite")
    graph = TFLITE.read(path)
    assert graph.kinds()["Conv"] == 1
    assert "Opaque" not in graph.kinds()
    x = floats(1, 16, 4, seed=7)
    np.testing.assert_allclose(run_graph(graph, {"x": x})["y"], run_litert(path, {"x": x})["y"], atol=1e-5)


UNFIT = {
    "crops_more_than_it_pads": dilated(padding=((0, 1), (0, 0)), crops=((1, 0), (0, 0))),
    "dilated_inside": dilated(dilationHFactor=2),
    "strided_inside": dilated(strideH=2),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_no_dilated_convolution_stays_what_it_is(name: str, tmp_path: Path) -> None:
    file = replace(UNFIT[name], shapes={"s": (4, 9, 9, 4), "y": (1, 9, 10, 4)})
    graph = TFLITE.read(file.write(tmp_path / "m.tflite"))
    assert graph.kinds()["Opaque"] == 2


def moved(kind: str, *constants: np.ndarray, options: str = "", **fields: Any) -> File:
    """Return a file of one operator over an image of 4 x 5 x 3, the input first."""
    names = [f"c{number}" for number in range(len(constants))]
    step = Step(kind=kind, inputs=["x", *names], options=options, fields=fields)
    return File(steps=[step], inputs={"x": (1, 4, 5, 3)}, constants=dict(zip(names, constants, strict=True)))


def peak_of_a_heat_map() -> File:
    """What MoveNet ends in: the offset at the largest value of each map, by GATHER_ND at computed positions."""
    steps = [
        Step(kind="RESHAPE", inputs=["x", "flat"], outputs=["f"], options="Reshape"),
        Step(kind="ARG_MAX", inputs=["f", "axis"], outputs=["p"], options="ArgMax", fields={"outputType": 2}),
        Step(kind="FLOOR_DIV", inputs=["p", "width"], outputs=["row"], options="FloorDiv"),
        Step(kind="FLOOR_MOD", inputs=["p", "width"], outputs=["column"], options="FloorMod"),
        Step(kind="PACK", inputs=["row", "column", "map"], outputs=["at"], options="Pack"),
        Step(kind="RESHAPE", inputs=["x", "maps"], outputs=["m"], options="Reshape"),
        Step(kind="GATHER_ND", inputs=["m", "at"], options="GatherNd"),
    ]
    steps[4] = replace(steps[4], fields={"valuesCount": 3, "axis": -1})
    constants = {
        "flat": ints(20, 3),
        "axis": ints(0),
        "width": np.array(5, np.int32),
        "map": ints(0, 1, 2),
        "maps": ints(4, 5, 3),
    }
    types = dict.fromkeys(("p", "row", "column", "at"), "int32")
    return File(steps=steps, inputs={"x": (1, 4, 5, 3)}, constants=constants, types=types)


def chosen_zeros() -> File:
    """What Keras' hard_shrink exports: zeros for what is small."""
    steps = [
        Step(kind="ABS", inputs=["x"], outputs=["a"], options="Abs"),
        Step(kind="GREATER", inputs=["a", "half"], outputs=["c"], options="Greater"),
        Step(kind="ZEROS_LIKE", inputs=["x"], outputs=["z"], options="ZerosLike"),
        Step(kind="SELECT_V2", inputs=["c", "x", "z"], options="SelectV2"),
    ]
    return File(
        steps=steps, inputs={"x": (1, 4, 5, 3)}, constants={"half": np.array(0.5, np.float32)}, types={"c": "bool"}
    )


def spread_to_a_broadcast_shape() -> File:
    steps = [
        Step(kind="SHAPE", inputs=["x"], outputs=["s"], options="Shape", fields={"outType": 2}),
        Step(kind="BROADCAST_ARGS", inputs=["s", "other"], outputs=["both"]),
        Step(kind="BROADCAST_TO", inputs=["x", "both"], options="BroadcastTo", version=2),
    ]
    types = dict.fromkeys(("s", "both"), "int32")
    return File(steps=steps, inputs={"x": (1, 4, 5, 3)}, constants={"other": ints(2, 1, 1, 1)}, types=types)


FILES = {
    "symmetric_by_two": moved("MIRROR_PAD", ints((0, 0), (2, 1), (3, 4), (0, 0)), options="MirrorPad", **{"mode": 1}),
    "gather_nd": moved("GATHER_ND", ints([[0, 1, 1], [0, 3, 4]]), options="GatherNd"),
    "gather_nd_whole_image": moved("GATHER_ND", ints([[0], [0]]), options="GatherNd"),
    "floor_mod": moved("FLOOR_MOD", np.array(0.25, np.float32), options="FloorMod"),
    "peak_of_a_heat_map": peak_of_a_heat_map(),
    "chosen_zeros": chosen_zeros(),
    "broadcast_shape": spread_to_a_broadcast_shape(),
}


@pytest.mark.parametrize("name", FILES)
def test_an_idiom_computes_what_litert_computes(name: str, tmp_path: Path) -> None:
    path = FILES[name].write(tmp_path / "m.tflite")
    x = floats(1, 4, 5, 3, seed=7)
    wanted = run_litert(path, {"x": x})["y"]
    graph = TFLITE.read(path)
    np.testing.assert_allclose(run_graph(graph, {"x": x})["y"], wanted, atol=1e-5)
    TFLITE.write(deploy(graph).graph, tmp_path / "again.tflite")
    np.testing.assert_allclose(run_litert(tmp_path / "again.tflite", {"x": x})["y"], wanted, atol=1e-5)


def test_zeros_that_are_chosen_take_no_room(tmp_path: Path) -> None:
    graph = deploy(TFLITE.read(chosen_zeros().write(tmp_path / "m.tflite"))).graph
    assert max(tensor.value().size for tensor in graph.tensors.values() if tensor.is_constant) == 1


def test_positions_outside_are_refused(tmp_path: Path) -> None:
    file = moved("GATHER_ND", ints([[0, 4, 0]]), options="GatherNd")
    with pytest.raises(InputFileError, match="positions within 1x4x5 were wanted; got others"):
        TFLITE.read(file.write(tmp_path / "m.tflite"))


def test_a_batch_that_the_file_moves_is_one(tmp_path: Path) -> None:
    step = Step(kind="TRANSPOSE", inputs=["x", "order"], options="Transpose")
    file = File(steps=[step], inputs={"x": (-1, 4, 5)}, constants={"order": ints(1, 0, 2)})
    graph = TFLITE.read(file.write(tmp_path / "m.tflite"))
    assert graph.tensors[graph.inputs[0].tensor].shape == (1, 4, 5)


def pruned(*, share: float = 0.75, size: int = 24) -> Graph:
    """Return a 1 x 1 convolution most of whose weights are zero, and a 3 x 3 one."""

    def make(b: GraphBuilder, x: str) -> str:
        kernel = floats(1, 1, 4, size)
        kernel[np.random.default_rng(1).random(kernel.shape) < share] = 0
        wide = ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
        x = b.node("wide", wide, x, b.constant("k", kernel.transpose(0, 1, 3, 2)[:, :, :4, :4].copy()))
        return b.node("y", wide, x, b.constant("sparse", kernel))

    return image_graph(make)


@pytest.mark.parametrize("recipe", [lambda graph: graph, store_float16], ids=["float32", "float16"])
def test_a_pruned_kernel_is_stored_without_its_zeros(recipe: Callable[[Graph], Graph], tmp_path: Path) -> None:
    graph = recipe(pruned(size=300))
    artifact = TFLITE.write(graph, tmp_path / "m.tflite")
    dense_bytes = TFLITE.write(recipe(pruned(share=0, size=300)), tmp_path / "dense.tflite").size_bytes
    assert artifact.operators["DENSIFY"] == 1
    assert artifact.size_bytes < 0.9 * dense_bytes
    back = TFLITE.read(artifact.path)
    wanted, found = (each.tensors[each.nodes[-1].inputs[1]] for each in (graph, deploy(back).graph))
    np.testing.assert_array_equal(found.value(), wanted.value())
    x = floats(1, 9, 8, 4)
    np.testing.assert_allclose(
        run_litert(artifact.path, {"image": x})["result"], execute(graph, {"image": x})["result"], atol=1e-4
    )
    again = TFLITE.write(deploy(back).graph, tmp_path / "again.tflite")
    assert again.operators == artifact.operators
    assert again.size_bytes <= 1.02 * artifact.size_bytes


def sparse_file(change: Callable[[Any], object] = lambda table: None) -> bytes:
    """Return a file of one DENSIFY, after a change of its table."""
    data = floats(2, 1, 1, 8)
    data[data < 0] = 0
    values, table = compressed(data, schema)
    steps = [
        Step(kind="DENSIFY", inputs=["k"], outputs=["d"], options="Densify"),
        Step(kind="ADD", inputs=["x", "d"], options="Add"),
    ]
    file = File(steps=steps, inputs={"x": (2, 1, 1, 8)}, constants={"k": values}, shapes={"d": (2, 1, 1, 8)})
    model = file.model()
    model.subgraphs[0].tensors[1].shape = [2, 1, 1, 8]
    model.subgraphs[0].tensors[1].sparsity = table
    change(table)
    return bytes(pack(model, 1024))


def test_a_sparse_constant_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(sparse_file())
    x = floats(2, 1, 1, 8, seed=3)
    found = execute(TFLITE.read(tmp_path / "m.tflite"), {"x": x})["y"]
    np.testing.assert_allclose(found, x + np.maximum(floats(2, 1, 1, 8), 0), atol=1e-6)


def test_a_tensor_of_sparse_blocks_is_read(tmp_path: Path) -> None:
    """Blocks of 1 x 4 along the last axis, of which each row keeps one."""
    level = schema.DimensionMetadataT
    kept = schema.Int32VectorT
    last = level(format=1, arraySegmentsType=1, arraySegments=kept(values=[0, 1, 2]))
    last.arrayIndicesType, last.arrayIndices = 1, kept(values=[1, 0])
    values = np.arange(1, 9, dtype=np.float32)

    def change(table: Any) -> None:
        table.traversalOrder, table.blockMap = [0, 1, 2, 3, 4], [3]
        table.dimMetadata = [*(level(format=0, denseSize=size) for size in (2, 1, 1)), last, level(denseSize=4)]

    steps = [Step(kind="DENSIFY", inputs=["k"], outputs=["d"], options="Densify")]
    steps.append(Step(kind="ADD", inputs=["x", "d"], options="Add"))
    model = File(steps=steps, inputs={"x": (2, 1, 1, 8)}, constants={"k": values}).model()
    model.subgraphs[0].tensors[1].shape = [2, 1, 1, 8]
    model.subgraphs[0].tensors[1].sparsity = schema.SparsityParametersT()
    change(model.subgraphs[0].tensors[1].sparsity)
    (tmp_path / "m.tflite").write_bytes(pack(model, 1024))
    found = execute(TFLITE.read(tmp_path / "m.tflite"), {"x": np.zeros((2, 1, 1, 8), np.float32)})["y"]
    np.testing.assert_array_equal(found.reshape(2, 8), [[0, 0, 0, 0, 1, 2, 3, 4], [5, 6, 7, 8, 0, 0, 0, 0]])


DAMAGED: dict[str, tuple[Callable[[Any], object], str]] = {
    "axes_twice": (lambda t: setattr(t, "traversalOrder", [0, 1, 1, 3]), "the axes of"),
    "too_few_axes": (lambda t: setattr(t, "traversalOrder", [0, 1, 2]), "the axes of"),
    "a_block_of_no_axis": (lambda t: setattr(t, "blockMap", [9]), "the axes of"),
    "another_size": (lambda t: setattr(t.dimMetadata[0], "denseSize", 3), "a dense axis of 2 was wanted; got 3"),
    "segments_elsewhere": (
        lambda t: setattr(t.dimMetadata[3].arraySegments, "values", np.asarray([0, 200, 3], np.uint8)),
        "segments of indices below 8 were wanted",
    ),
    "an_index_too_large": (
        lambda t: setattr(t.dimMetadata[3].arrayIndices, "values", t.dimMetadata[3].arrayIndices.values + 8),
        "segments of indices below 8 were wanted",
    ),
    "all_dense": (
        lambda t: t.dimMetadata.__setitem__(3, schema.DimensionMetadataT(format=0, denseSize=8)),
        "16 values were wanted",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_sparse_constant_is_refused(name: str, tmp_path: Path) -> None:
    change, message = DAMAGED[name]
    (tmp_path / "m.tflite").write_bytes(sparse_file(change))
    with pytest.raises(InputFileError, match=message):
        TFLITE.read(tmp_path / "m.tflite")


def repeated(b: GraphBuilder, x: str) -> str:
    """What keras.ops.repeat exports, along height and then width."""
    batch, height, width, channels = b.shape(x)
    assert height
    assert width
    x = b.node("rows", ops.Reshape(shape=(batch, height, 1, width, channels)), x)
    x = b.node("tiled_rows", ops.Tile(multiples=(1, 1, 2, 1, 1)), x)
    x = b.node("high", ops.Reshape(shape=(batch, 2 * height, width, channels)), x)
    x = b.node("columns", ops.Reshape(shape=(batch, 2 * height, width, 1, channels)), x)
    x = b.node("tiled_columns", ops.Tile(multiples=(1, 1, 1, 3, 1)), x)
    return b.node("wide", ops.Reshape(shape=(batch, 2 * height, 3 * width, channels)), x)


@pytest.mark.parametrize("batch", [2, None])
def test_repetitions_of_positions_are_one_resize(batch: int | None) -> None:
    graph = image_graph(repeated, (batch, 9, 8, 4))
    fused = four_steps(fuse_repeat.PASS, graph, ["high", "wide"], ["Resize"])
    assert fused.nodes[0].op == ops.Resize(size=(18, 24), method="nearest", coordinates="asymmetric")


def test_a_tile_of_whole_pictures_is_no_resize() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("tiled", ops.Tile(multiples=(1, 2, 1, 1)), x)
        return b.node("y", ops.Reshape(shape=(1, 18, 8, 4)), x)

    graph = image_graph(make)
    assert fuse_repeat.PASS(graph).graph is graph


def test_repetitions_that_are_used_elsewhere_stay() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("rows", ops.Reshape(shape=(1, 9, 1, 8, 4)), x)
        tiled = b.node("tiled", ops.Tile(multiples=(1, 1, 2, 1, 1)), x)
        high = b.node("high", ops.Reshape(shape=(1, 18, 8, 4)), tiled)
        return b.node("y", ops.Add(), high, b.node("mean", ops.Mean(axes=(1, 2, 3), keep_dims=False), tiled))

    result = fuse_repeat.PASS(image_graph(make))
    assert result.refused == (("high", "the repetitions are used elsewhere too"),)


STRIDED = {"from_the_first": ((0, 0, 0, 0), (None, None, None, None)), "within": ((0, 3, 1, 1), (None, 8, None, 3))}


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("step", [2, 3])
def test_every_second_position_needs_no_strided_slice(name: str, step: int, tmp_path: Path) -> None:
    begin, end = STRIDED[name]
    op = ops.Slice(begin=begin, end=end, step=(1, step, step, 1))
    graph = image_graph(lambda b, x: b.node("y", op, x))
    artifact = TFLITE.write(graph, tmp_path / "m.tflite")
    assert set(artifact.operators) <= {"PAD", "SPACE_TO_DEPTH", "SLICE"}
    x = floats(1, 9, 8, 4)
    wanted = execute(graph, {"image": x})["result"]
    np.testing.assert_array_equal(run_litert(artifact.path, {"image": x})["result"], wanted)


def test_a_pool_of_one_position_is_such_a_slice(tmp_path: Path) -> None:
    """The shortcuts of Keras' ResNet50V2."""
    op = ops.MaxPool(kernel_size=(1, 1), stride=(2, 2), padding=((0, 0), (0, 0)))
    graph = image_graph(lambda b, x: b.node("y", op, x))
    artifact = TFLITE.write(graph, tmp_path / "m.tflite")
    assert dict(artifact.operators) == {"PAD": 1, "SPACE_TO_DEPTH": 1, "SLICE": 1}
    x = floats(1, 9, 8, 4)
    np.testing.assert_array_equal(run_litert(artifact.path, {"image": x})["result"], x[:, ::2, ::2])


def test_zeros_around_negative_numbers_win_in_onnx_runtime(tmp_path: Path) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("padded", ops.Pad(padding=((0, 0), (1, 1), (1, 1), (0, 0))), x)
        return b.node("y", ops.MaxPool(kernel_size=(3, 3), stride=(2, 2), padding=((0, 0), (0, 0))), x)

    graph, x = image_graph(make), -1 - np.abs(floats(1, 9, 8, 4))
    artifact: Any = registry.load("converters", "onnx")
    path = artifact.write(graph, tmp_path / "m.onnx").path
    session = registry.load("targets", "onnxruntime_cpu").open(path, SessionOptions(threads=1))
    found = session.run({"image": np.moveaxis(x, -1, 1)})["result"]
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), execute(graph, {"image": x})["result"], atol=1e-30)


def test_equal_constants_are_stored_once(tmp_path: Path) -> None:
    """TensorFlow's converter does so: a file that is read and written again must not grow."""

    def make(b: GraphBuilder, x: str) -> str:
        kernel, op = (
            b.constant("k", floats(3, 3, 4, 4)),
            ops.Conv(stride=(1, 1), padding=((1, 1),) * 2, dilation=(1, 1)),
        )
        for number in range(3):
            x = b.node(f"y{number}", op, x, kernel)
        return x

    size = TFLITE.write(image_graph(make), tmp_path / "m.tflite").size_bytes
    assert size < 2 * floats(3, 3, 4, 4).nbytes + 2048


def test_a_shift_leaves_a_shared_kernel_alone() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        kernel, op = (
            b.constant("k", floats(1, 1, 4, 4)),
            ops.Conv(stride=(1, 1), padding=((0, 0),) * 2, dilation=(1, 1)),
        )
        for number in range(2):
            x = b.node(f"c{number}", op, x, kernel)
            x = b.node(f"y{number}", ops.Add(), x, b.constant(f"b{number}", floats(4, seed=number)))
        return x

    graph = image_graph(make)
    deployed = deploy(graph).graph
    assert dict(deployed.kinds()) == {"Conv": 2}
    np.testing.assert_allclose(run(deployed), run(graph), rtol=1e-4, atol=1e-5)


def test_layers_that_share_a_bias_only_are_two_layers_of_keras(tmp_path: Path) -> None:
    """TensorFlow's converter stores zero biases of equal size once."""

    def make(b: GraphBuilder, x: str) -> str:
        bias, op = b.constant("b", floats(4)), ops.Conv(stride=(1, 1), padding=((0, 0),) * 2, dilation=(1, 1))
        for number in range(2):
            x = b.node(f"y{number}", op, x, b.constant(f"k{number}", floats(1, 1, 4, 4, seed=number)), bias)
        return x

    graph = image_graph(make)
    keras: Any = registry.load("converters", "keras")
    back = deploy(keras.read(keras.write(graph, tmp_path / "m.keras").path)).graph
    assert dict(back.kinds()) == {"Conv": 2}
    np.testing.assert_allclose(run(back), run(graph), rtol=1e-4, atol=1e-5)


def test_the_first_of_several_signatures_is_run(tmp_path: Path) -> None:
    model = moved("MUL", floats(3), options="Mul").model()
    for key in ("first", "second"):
        named = [schema.TensorMapT(name=f"{key}_{name}", tensorIndex=place) for name, place in (("in", 0), ("out", 2))]
        definition = schema.SignatureDefT(inputs=named[:1], outputs=named[1:], signatureKey=key)
        model.signatureDefs = [*(model.signatureDefs or ()), definition]
    path = tmp_path / "m.tflite"
    path.write_bytes(pack(model, 1024))
    graph, x = TFLITE.read(path), floats(1, 4, 5, 3, seed=2)
    assert [port.name for port in (*graph.inputs, *graph.outputs)] == ["first_in", "first_out"]
    np.testing.assert_allclose(run_litert(path, {"first_in": x})["first_out"], x * floats(3), atol=1e-6)


def upsampled(tf: Any) -> Any:
    layers = tf.keras.layers
    image = x = tf.keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="relu")(x)
    x = layers.UpSampling2D(2)(layers.DepthwiseConv2D(3, dilation_rate=(3, 3), padding="same")(x))
    return tf.keras.Model(image, layers.Conv2D(2, 1, activation="softmax")(x))


def attention(tf: Any) -> Any:
    layers = tf.keras.layers
    image = x = tf.keras.Input((16, 16, 3))
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 4, strides=4)(x))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 6)(layers.LayerNormalization()(x), x)])
    return tf.keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


@pytest.mark.slow
@pytest.mark.parametrize("make", [upsampled, attention])
def test_what_tensorflow_converts_comes_back_no_larger(make: Callable[[Any], Any], tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "m.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(make(tf)).convert())
    graph = deploy(TFLITE.read(path, {})).graph
    again = TFLITE.write(graph, tmp_path / "again.tflite")
    assert again.size_bytes <= 1.02 * path.stat().st_size
    inputs = {graph.inputs[0].name: floats(1, 16, 16, 3)}
    (wanted,), (found,) = run_litert(path, inputs).values(), run_litert(again.path, inputs).values()
    assert snr_db(wanted, found) >= 100
    assert not graph.kinds().keys() & {"Opaque", "Tile"}
