"""ONNX and OpenVINO on the hard cases of the vocabulary: several outputs, types, ties, symbolic batches, broadcasts."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Graph, to_layout
from tests.graphs import Make, behind_conv, group_norm, image_graph, unary
from tests.test_writers import layout_of, outputs_of, writer

FORMATS = ("onnx", "openvino")


def typed_graph(make: Make, dtype: str, shape: tuple[int | None, ...] = (1, 9, 8, 4)) -> Graph:
    b = GraphBuilder("typed", initialise=he_normal(1))
    return b.finish({"result": make(b, b.input("image", shape, dtype=dtype))})


def assert_agrees(form: str, graph: Graph, folder: Path, x: np.ndarray) -> None:
    found = outputs_of(form, graph, folder, x)
    for name, wanted in execute(graph, {"image": x}).items():
        turned = to_layout(wanted, layout_of(form, wanted.ndim))
        assert found[name].dtype == wanted.dtype
        np.testing.assert_allclose(found[name], turned, atol=2e-5, rtol=1e-4)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def every_new_operator(b: GraphBuilder, x: str) -> str:
    """All on an image, each in its batch-preserving form."""
    x = group_norm(2)(b, b.conv(x, "conv", 8, kernel_size=3))
    left, right = b.nodes("halves", ops.Split(axis=3, sizes=(3, 5)), (x,), ("left", "right"))
    picked = b.node("picked", ops.Gather(axis=3), right, b.constant("order", np.array([4, 0, 2])))
    mask = b.node("mask", ops.Not(), b.node("equal", ops.LessOrEqual(), left, picked))
    x = b.node("chosen", ops.Where(), mask, left, b.node("abs", ops.Abs(), picked))
    x = b.node("tiled", ops.Tile(multiples=(1, 1, 2, 2)), x)
    x = b.node("mirrored", ops.Pad(padding=((0, 0), (2, 1), (0, 3), (0, 0)), mode="reflect"), x)
    x = b.node("unit", ops.L2Normalize(), b.node("edge", ops.Pad(padding=((0, 0), (0, 2)) * 2, mode="edge"), x))
    best = b.node("best", ops.ArgMax(axis=3, keep_dims=True, dtype="int32"), x)
    return b.node("sum", ops.Add(), x, b.node("float", ops.Cast(dtype="float32"), best))


@pytest.mark.parametrize("form", FORMATS)
def test_new_operators_take_any_number_of_images_and_no_transpose(form: str, tmp_path: Path) -> None:
    graph = image_graph(every_new_operator, (None, 6, 5, 3))
    assert_agrees(form, graph, tmp_path, floats(3, 6, 5, 3))
    assert "Transpose" not in writer(form).write(graph, tmp_path / f"m{writer(form).suffix}").operators


ARG_MAX: dict[str, ops.ArgMax] = {
    "channels": ops.ArgMax(axis=3),
    "channels_kept": ops.ArgMax(axis=3, keep_dims=True, dtype="int32"),
    "width": ops.ArgMax(axis=2, dtype="int32"),
    "height_kept": ops.ArgMax(axis=1, keep_dims=True),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ARG_MAX)
def test_the_first_of_equals_is_the_largest(form: str, name: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 3, (1, 9, 8, 24)).astype(np.float32)
    assert_agrees(form, image_graph(unary(ARG_MAX[name]), x.shape), tmp_path, x)


@pytest.mark.parametrize("form", FORMATS)
def test_each_output_of_a_split_may_be_shown(form: str, tmp_path: Path) -> None:
    b = GraphBuilder("shown", initialise=he_normal(1))
    x = b.input("image", (1, 9, 8, 4))
    left, right = b.nodes("s", ops.Split(axis=1, sizes=(4, 5)), (x,), ("left", "right"))
    graph = b.finish({"first": right, "again": right, "second": left, "third": b.node("r", ops.ReLU(), left)})
    assert_agrees(form, graph, tmp_path, floats(1, 9, 8, 4))


def with_lower_rank(b: GraphBuilder, x: str) -> str:
    """(1, 9, 8, 4) and a computed (1, 4), which broadcasts along the Graph's last axis."""
    x = b.conv(x, "conv", 4, kernel_size=3)
    return b.node("y", ops.Mul(), x, b.node("mean", ops.Mean(axes=(1, 2)), x))


def looked_up(b: GraphBuilder, x: str) -> str:
    """A table of rank 1 at indices of rank 4, stored channels first."""
    index = b.node("index", ops.Cast(dtype="int64"), b.node("gate", ops.Sigmoid(), b.conv(x, "c", 4, kernel_size=1)))
    return b.node("y", ops.Gather(axis=0), b.constant("table", np.array([2.5, -1], np.float32)), index)


def computed_indices(b: GraphBuilder, x: str) -> str:
    """Rows picked by indices that are computed, of an image stored channels first."""
    best = b.node("best", ops.ArgMax(axis=2), b.node("mean", ops.Mean(axes=(2,)), x))
    picked = b.node("indices", ops.Reshape(shape=(9,)), best)
    return b.node("y", ops.Gather(axis=3), b.conv(x, "conv", 5, kernel_size=3), picked)


PLAIN: dict[str, tuple[Make, tuple[int | None, ...]]] = {
    "lower_rank": (with_lower_rank, (1, 9, 8, 4)),
    "table": (looked_up, (1, 9, 8, 4)),
    "computed_indices": (computed_indices, (1, 9, 8, 4)),
    "gather_channel": (behind_conv(lambda b, x: b.node("y", ops.Gather(axis=3), x, one(b))), (1, 9, 8, 4)),
    "gather_images": (
        lambda b, x: b.node("y", ops.Gather(axis=0), x, b.constant("i", np.array([1, 1, 0]))),
        (2, 9, 8, 4),
    ),
    "prod_kept": (unary(ops.Prod(axes=(3,), keep_dims=True)), (2, 3, 4, 5)),
    "min_of_width": (unary(ops.Min(axes=(2,))), (2, 3, 4, 5)),
    "group_norm_3d": (behind_conv(group_norm(2)), (2, 4, 3, 5, 2)),
}


def one(b: GraphBuilder) -> str:
    return b.constant("one", np.array(1))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", PLAIN)
def test_orders_of_axes_meet_where_they_must(form: str, name: str, tmp_path: Path) -> None:
    make, shape = PLAIN[name]
    assert_agrees(form, image_graph(make, shape), tmp_path, floats(*(size or 1 for size in shape)))


def chosen_integers(b: GraphBuilder, x: str) -> str:
    zero = b.constant("zero", np.array(0, np.int32))
    return b.node("y", ops.Where(), b.node("positive", ops.Greater(), x, zero), x, zero)


TYPED: dict[str, tuple[str, Make]] = {
    "clip": ("int32", unary(ops.Clip(minimum=-2, maximum=3))),
    "relu6": ("int32", unary(ops.ReLU6())),
    "fused": ("int32", lambda b, x: b.node("y", ops.Add(activation=ops.ReLU6()), x, x)),
    "pad": ("int32", unary(ops.Pad(padding=((0, 0), (1, 0), (0, 2), (0, 0)), value=7))),
    "where": ("int32", chosen_integers),
    "equal": ("int64", lambda b, x: b.node("y", ops.Equal(), x, b.constant("c", np.array([0, 1, 2, 3])))),
    "not": ("bool", unary(ops.Not())),
    "max": ("int32", unary(ops.Max(axes=(1, 2)))),
    "bytes_to_float": ("uint8", unary(ops.Cast(dtype="float32"))),
    "bool_to_float": ("bool", unary(ops.Cast(dtype="float32"))),
    "to_int8": ("float32", unary(ops.Cast(dtype="int8"))),
    "to_float16": ("float32", unary(ops.Cast(dtype="float16"))),
    "small_to_bool": ("float32", lambda b, x: b.node("y", ops.Cast(dtype="bool"), b.node("t", ops.Tanh(), x))),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", TYPED)
def test_types_survive(form: str, name: str, tmp_path: Path) -> None:
    dtype, make = TYPED[name]
    x = (np.random.default_rng(0).standard_normal((1, 9, 8, 4)) * 5).astype("int8").astype(dtype)
    if dtype == "float32":
        x = floats(1, 9, 8, 4)
    assert_agrees(form, typed_graph(make, dtype), tmp_path, x)


def shuffled(b: GraphBuilder, x: str) -> str:
    """ShuffleNet's halves: every other channel, the second one by way of two Reshapes."""
    x = b.conv(x, "conv", 6, kernel_size=3)
    cut = b.node("cut", ops.Reshape(shape=(72, 3, 2)), x)
    pairs = b.node("pairs", ops.Reshape(shape=(9, 8, 3, 2, 1)), cut)
    halves = [
        b.node(f"half_{n}", ops.Slice(begin=(0, 0, 0, n, 0), end=(9, 8, 3, n + 1, 1), step=(1,) * 5), pairs)
        for n in (0, 1)
    ]
    even, odd = (b.node(f"joined_{n}", ops.Reshape(shape=(1, 9, 8, 3)), half) for n, half in enumerate(halves))
    return b.node("y", ops.Concat(axis=3), odd, even)


@pytest.mark.parametrize("form", FORMATS)
def test_every_other_channel_is_one_slice(form: str, tmp_path: Path) -> None:
    graph = image_graph(shuffled)
    assert_agrees(form, graph, tmp_path, floats(1, 9, 8, 4))
    operators = writer(form).write(graph, tmp_path / f"m{writer(form).suffix}").operators
    assert not {"Transpose", "Reshape"} & operators.keys()


def last_of_a_row(b: GraphBuilder, x: str) -> str:
    """Groups of two positions, not of channels: nothing to fold."""
    x = b.node("pairs", ops.Reshape(shape=(1, 9, 4, 2, 4)), x)
    x = b.node("second", ops.Slice(begin=(0, 0, 0, 1, 0), end=(1, 9, 4, 2, 4), step=(1,) * 5), x)
    return b.node("y", ops.Reshape(shape=(1, 9, 4, 4)), x)


@pytest.mark.parametrize("form", FORMATS)
def test_a_slice_of_positions_stays(form: str, tmp_path: Path) -> None:
    assert_agrees(form, image_graph(last_of_a_row), tmp_path, floats(1, 9, 8, 4))


def test_equal_constants_are_stored_once_in_onnx(tmp_path: Path) -> None:
    b = GraphBuilder("equal", initialise=he_normal(0))
    x = b.input("image", (1, 4, 4, 4))
    for number in range(3):
        x = b.node(f"add_{number}", ops.Add(), x, b.constant(f"ones_{number}", np.ones(4, np.float32)))
    path = writer("onnx").write(b.finish({"result": x}), tmp_path / "m.onnx").path
    assert [each.name for each in onnx.load(path).graph.initializer] == ["ones_0"]


def test_an_output_that_is_turned_last_costs_no_identity(tmp_path: Path) -> None:
    graph = image_graph(lambda b, x: b.node("y", ops.Reshape(shape=(1, 6, 6, 8)), x))
    assert writer("onnx").write(graph, tmp_path / "m.onnx").operators == {"Transpose": 2, "Reshape": 1}
