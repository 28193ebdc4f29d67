"""What PyTorch's exporters write for one operator or for none: small files, each held against ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgecnn.converters.onnx_file import ONNX
from edgecnn.converters.openvino_ir import OPENVINO

from edgecnn import ops
from edgecnn.builder import GraphBuilder, no_values
from edgecnn.errors import InputFileError
from edgecnn.graph import Graph
from edgecnn.passes import broadcast_instead_of_tile, settle_layout
from edgecnn.probe import probe
from tests.test_onnx_reader import FLOAT, Node, agree, n, saved, seeded
from tests.test_passes import four_steps, run

onnx = pytest.importorskip("onnx")
helper = onnx.helper

PICTURE = (1, 4, 6, 8)
UNSHUFFLED, SHUFFLED = (1, 16, 3, 4), (1, 1, 12, 16)


@pytest.mark.parametrize(
    ("apart", "perm", "target", "kinds"),
    [
        ((1, 4, 3, 2, 4, 2), (0, 1, 3, 5, 2, 4), UNSHUFFLED, {"SpaceToDepth": 1, "Gather": 1}),
        ((1, 4, 3, 2, 4, 2), (0, 3, 5, 1, 2, 4), UNSHUFFLED, {"SpaceToDepth": 1}),
        ((1, 1, 2, 2, 6, 8), (0, 1, 4, 2, 5, 3), SHUFFLED, {"Gather": 1, "DepthToSpace": 1}),
        ((1, 2, 2, 1, 6, 8), (0, 3, 4, 1, 5, 2), SHUFFLED, {"DepthToSpace": 1}),
    ],
)
def test_blocks_moved_by_hand_are_one_operator(
    apart: Sequence[int], perm: Sequence[int], target: Sequence[int], kinds: dict[str, int], tmp_path: Path
) -> None:
    nodes = [n("Reshape", "x a", "r"), n("Transpose", "r", "t", perm=perm), n("Reshape", "t b")]
    path = saved(tmp_path / "m.onnx", nodes, {"a": apart, "b": target}, shape=PICTURE)
    graph = ONNX.read(path)
    assert graph.kinds() == kinds
    agree(path, graph, {"x": seeded(PICTURE)})


@pytest.mark.parametrize(
    ("apart", "perm", "target"),
    [
        ((1, 4, 2, 3, 4, 2), (0, 1, 3, 5, 2, 4), UNSHUFFLED),  # blocks of 3x2
        ((1, 2, 6, 2, 4, 2), (0, 1, 3, 5, 2, 4), (1, 8, 6, 4)),  # runs that are no rows
        ((1, 4, 3, 2, 4, 2), (0, 1, 3, 5, 2, 4), (1, 4, 12, 4)),
        ((1, 4, 3, 2, 4, 2), (0, 1, 3, 4, 2, 5), UNSHUFFLED),
    ],
)
def test_what_only_looks_like_blocks_stays(
    apart: Sequence[int], perm: Sequence[int], target: Sequence[int], tmp_path: Path
) -> None:
    nodes = [n("Reshape", "x a", "r"), n("Transpose", "r", "t", perm=perm), n("Reshape", "t b")]
    path = saved(tmp_path / "m.onnx", nodes, {"a": apart, "b": target}, shape=PICTURE)
    graph = ONNX.read(path)
    assert not graph.kinds().keys() & {"SpaceToDepth", "DepthToSpace"}
    agree(path, graph, {"x": seeded(PICTURE)})


def test_expand_as_before_a_product_is_a_broadcast(tmp_path: Path) -> None:
    nodes = [
        n("Conv", "x w", "c"),
        n("ReduceMean", "c", "m", axes=[2, 3], keepdims=0),
        n("Gemm", "m k", "g"),
        n("Reshape", "g four", "s"),
        n("Shape", "c", "size"),
        n("Expand", "s size", "e"),
        n("Mul", "c e", "p"),
        n("Conv", "p w"),
    ]
    constants = {"w": seeded((4, 4, 1, 1)), "k": seeded((4, 4)), "four": [0, 4, 1, 1]}
    path = saved(tmp_path / "m.onnx", nodes, constants, shape=("n", *PICTURE[1:]))
    graph = ONNX.read(path)
    assert not graph.kinds().keys() & {"Tile", "Transpose"}
    agree(path, graph, {"x": seeded((2, *PICTURE[1:]))}, tolerance=1e-4)


def tiled(op: ops.Op, axes: tuple[int, ...], multiples: Sequence[int]) -> Graph:
    """Return tile(mean(image)) and another mean of the image, joined by an operator."""
    b = GraphBuilder("g", initialise=no_values)
    image = b.input("image", (None, 9, 8, 4))
    mean = b.node("mean", ops.Mean(axes=(1, 2), keep_dims=True), image)
    other = b.node("other", ops.Mean(axes=axes, keep_dims=True), image) if axes else image
    tile = b.node("tile", ops.Tile(multiples=tuple(multiples)), mean)
    return b.finish({"result": b.node("joined", op, tile, other)})


def test_a_tile_before_an_elementwise_operator_goes() -> None:
    fused = four_steps(broadcast_instead_of_tile.PASS, tiled(ops.Sub(), (), (1, 9, 8, 1)), ["tile"], ["Mean", "Sub"])
    assert fused.nodes[1].inputs == ("mean", "image")


def test_a_tile_that_gives_the_shape_stays() -> None:
    result = broadcast_instead_of_tile.PASS(tiled(ops.Add(), (1,), (1, 9, 8, 1)))
    assert result.refused == (("tile", "joined has no other operand of the repeated shape"),)


def test_a_tile_of_more_than_one_position_is_none_of_these() -> None:
    result = broadcast_instead_of_tile.PASS(tiled(ops.Add(), (3,), (1, 9, 8, 1)))
    assert result.applied == ("tile",)
    b = GraphBuilder("g", initialise=no_values)
    y = b.node("tile", ops.Tile(multiples=(1, 2)), b.input("x", (1, 4)))
    graph = b.finish({"y": b.node("sum", ops.Add(), y, b.input("z", (1, 8)))})
    result = broadcast_instead_of_tile.PASS(graph)
    assert (result.applied, result.refused) == ((), ())


def test_a_gather_of_all_positions_in_order_is_a_reshape(tmp_path: Path) -> None:
    nodes = [n("ReduceMean", "x", "m", axes=[2, 3]), n("Reshape", "m flat", "f"), n("Gather", "f places", axis=0)]
    constants = {"flat": [4], "places": np.arange(4).reshape(1, 4, 1, 1)}
    path = saved(tmp_path / "m.onnx", nodes, constants, shape=PICTURE)
    graph = ONNX.read(path)
    assert graph.kinds().keys() <= {"Mean", "Reshape"}
    agree(path, graph, {"x": seeded(PICTURE)})


TURNED = n("Transpose", "x", "w", perm=[0, 2, 1])


@pytest.mark.parametrize(
    ("equation", "shape", "before"),
    [
        ("bij,bjk->bik", ("n", 3, 5), [TURNED]),
        ("nhic, nhjc -> nhij", ("n", 3, 4, 5), [n("Relu", "x", "w")]),
        ("bhwc,hkc->bhwk", (2, 3, 4, 5), (3, 6, 5)),
        ("bhwc,wkc->bhwk", (2, 3, 4, 5), (4, 6, 5)),
        ("bchw,bqc->bqhw", (2, 3, 4, 5), (2, 6, 3)),
        ("bi,bi->b", (2, 3), (2, 3)),
        ("bi,j->bji", (2, 3), (4,)),
    ],
)
def test_einsum_is_a_matrix_product(
    equation: str, shape: Sequence[int | str], before: list[Node] | tuple[int, ...], tmp_path: Path
) -> None:
    constants = {"w": seeded(before)} if isinstance(before, tuple) else {}
    nodes = [*(before if isinstance(before, list) else []), n("Einsum", "x w", equation=equation)]
    path = saved(tmp_path / "m.onnx", nodes, constants, shape=shape)
    graph = ONNX.read(path)
    assert graph.kinds()["MatMul"] == 1
    agree(path, graph, {"x": seeded([size if isinstance(size, int) else 2 for size in shape])})


@pytest.mark.parametrize(
    ("equation", "reason"),
    [
        ("bii,bj->bij", "an equation of two operands such as bij,bjk->bik was wanted; found bii,bj->bij"),
        ("b...,b->b", "an equation of two operands"),
        ("bij,bk->bk", "letters summed only where both operands have them was wanted"),
    ],
)
def test_einsum_that_is_no_matrix_product_is_listed(equation: str, reason: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [n("Einsum", "x w", equation=equation)], {"w": seeded((2, 3))}, shape=(2, 3, 3))
    (node,) = ONNX.read(path).nodes
    assert reason in node.op.kind


MASK_AT = np.stack(np.meshgrid([0], [0, 1, 2], [4, 5], indexing="ij"), -1)
KNOWN: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "a slice assigned, as in Swin's masks": (
        [n("ScatterND", "zeros at ones", "k"), n("Add", "x k")],
        {"zeros": np.zeros((1, 6, 8), "f"), "at": MASK_AT, "ones": np.ones((1, 3, 2), "f")},
    ),
    "positions counted up": (
        [n("CumSum", "ones axis", "k"), n("Add", "x k")],
        {"ones": np.ones((1, 6, 8), "f"), "axis": [-1]},
    ),
    "sizes clipped, as for padding SAME": (
        [
            n("Shape", "x", "s"),
            n("Gather", "s two", "h"),
            n("Sub", "h nine", "d"),
            n("Clip", "d zero", "c"),
            n("Add", "c one", "p"),
            n("Concat", "none p none none none p none none", "pads", axis=0),
            n("Pad", "x pads"),
        ],
        {"two": [2], "nine": [9], "zero": np.int64(0), "one": [1], "none": [0]},
    ),
    "weights standardised": (
        [
            n("Reshape", "w flat", "f"),
            n("BatchNormalization", "f gain zeros zeros zeros", "b m v", training_mode=1, epsilon=1e-3),
            n("Reshape", "b back", "k"),
            n("Conv", "x k"),
        ],
        {
            "w": seeded((5, 4, 3, 3)),
            "flat": [1, 5, -1],
            "back": [5, 4, 3, 3],
            "gain": seeded((5,)),
            "zeros": np.zeros(5, "f"),
        },
    ),
    "the largest of sizes": (
        [
            n("Shape", "x", "s"),
            n("ReduceMax", "s", "m", axes=[0], keepdims=1),
            n("ReduceMin", "s", "l", axes=[0], keepdims=1),
            n("Concat", "l m rest", "t", axis=0),
            n("Reshape", "x t"),
        ],
        {"rest": [-1]},
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_is_computed_while_reading(name: str, tmp_path: Path) -> None:
    nodes, constants = KNOWN[name]
    path = saved(tmp_path / "m.onnx", nodes, constants, shape=PICTURE)
    graph = ONNX.read(path)
    assert len(graph.nodes) == 1
    agree(path, graph, {"x": seeded(PICTURE)})


@pytest.mark.parametrize(
    ("at", "updates", "message"),
    [
        (np.zeros((2, 1), "q"), np.ones((1, 8), "f"), "updates for each of the indices"),
        (np.full((1, 1), 9), np.ones((1, 8), "f"), "do not fit together"),
        (np.zeros((1, 5), "q"), np.ones((1,), "f"), "do not fit together"),
    ],
)
def test_parts_that_do_not_fit_are_refused(at: Any, updates: Any, message: str, tmp_path: Path) -> None:
    nodes = [n("ScatterND", "zeros at updates", "k"), n("Add", "x k")]
    model = helper.make_graph(
        [helper.make_node(kind, ins, outs) for kind, ins, outs, _ in nodes],
        "small",
        [helper.make_tensor_value_info("x", FLOAT, (6, 8))],
        [helper.make_tensor_value_info("y", FLOAT, (6, 8))],
        [
            onnx.numpy_helper.from_array(value, name)
            for name, value in {"zeros": np.zeros((6, 8), "f"), "at": at, "updates": updates}.items()
        ],
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(model).SerializeToString())
    with pytest.raises(InputFileError, match=message):
        ONNX.read(path)


def branching(
    path: Path, condition: Any, *, then: Sequence[Node] = (), nested: int = 0, outputs: Sequence[str] = ("y",)
) -> Path:
    """Save x -> y, an If whose one side is a ReLU and an addition and whose other side x as it is."""

    def side(name: str, nodes: Sequence[Node], output: str, constants: dict[str, Any]) -> Any:
        made = [helper.make_node(kind, ins, outs, **attributes) for kind, ins, outs, attributes in nodes]
        tensors = [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()]
        value = helper.make_tensor_value_info(output, FLOAT, None)
        return helper.make_graph(made, name, [], [value], tensors)

    nodes = list(then) or [n("Relu", "x", "r"), n("Add", "r c", "a")]
    one = side("then", nodes, "a", {"c": np.float32(2)})
    for depth in range(nested):
        inner = helper.make_node("If", ["yes"], [f"i{depth}"], then_branch=one, else_branch=one)
        one = side(f"t{depth}", [], f"i{depth}", {})
        one.node.append(inner)
    other = side("else", [n("Identity", "x", "b")], "b", {})
    node = helper.make_node("If", ["yes"], outputs, name="choice", then_branch=one, else_branch=other)
    constants = [] if condition is None else [onnx.numpy_helper.from_array(np.asarray(condition), "yes")]
    before = [helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0), helper.make_node("Cast", ["m"], ["yes"], to=9)]
    graph = helper.make_graph(
        [*(before if condition is None else []), node],
        "small",
        [helper.make_tensor_value_info("x", FLOAT, PICTURE)],
        [helper.make_tensor_value_info("y", FLOAT, PICTURE)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("condition", "kinds"), [(True, {"ReLU": 1, "Add": 1}), (False, {})])
def test_of_a_known_condition_one_side_is_read(condition: bool, kinds: dict[str, int], tmp_path: Path) -> None:
    path = branching(tmp_path / "m.onnx", condition)
    graph = ONNX.read(path)
    assert graph.kinds() == kinds
    agree(path, graph, {"x": seeded(PICTURE)})


def test_a_side_that_is_not_taken_may_hold_anything(tmp_path: Path) -> None:
    odd = [n("Constant", "", "words", value_strings=["a"]), n("FromNowhere", "x words", "a")]
    graph = ONNX.read(branching(tmp_path / "m.onnx", False, then=odd))
    assert graph.kinds() == {}


def test_a_computed_condition_is_listed(tmp_path: Path) -> None:
    graph = ONNX.read(branching(tmp_path / "m.onnx", None))
    assert [node.op.kind for node in graph.nodes if isinstance(node.op, ops.Opaque)] == ["If"]


def test_branches_are_no_deeper_than_exporters_write_them(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="at most 8 branches within branches were wanted; found more"):
        ONNX.read(branching(tmp_path / "m.onnx", True, nested=9))


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ([n("Relu", "nothing", "a")], "the input 'nothing' is never ready"),
        ([n("Relu", "x", "other")], "the input 'a' is never ready"),
        ([n("Relu", "x", "x"), n("Relu", "x", "a")], "value 'x' is given twice"),
    ],
)
def test_damaged_branches_are_refused(then: list[Node], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=message):
        ONNX.read(branching(tmp_path / "m.onnx", True, then=then))


def test_a_branch_gives_as_much_as_its_if(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="If 'choice': a branch that gives 2 values was wanted"):
        ONNX.read(branching(tmp_path / "m.onnx", True, outputs=("y", "z")))


def test_a_pointwise_convolution_of_turned_positions_needs_no_transpose() -> None:
    b = GraphBuilder("g", initialise=no_values)
    x = b.node("turned", ops.Transpose(permutation=(0, 2, 1, 3)), b.input("image", (None, 9, 8, 4)))
    op = ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)
    y = b.node("conv", op, x, b.constant("kernel", seeded((1, 1, 4, 3))))
    graph = b.finish({"result": b.node("most", ops.Max(axes=(1, 2), keep_dims=False), y)})
    result = settle_layout.PASS(graph)
    assert (result.applied, result.refused) == (("turned",), ())
    assert [node.kind for node in result.graph.nodes] == ["Conv", "Max"]
    np.testing.assert_allclose(run(result.graph), run(graph), rtol=1e-5)


def test_openvino_compiles_a_residual_block_with_group_norms(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    b = GraphBuilder("g", initialise=lambda name, shape: seeded(shape))
    x = b.input("x", (1, 16, 16, 32))
    vectors = [b.constant(name, seeded((32,))) for name in ("gamma", "beta")]

    def block(x: str, name: str) -> str:
        return b.node(f"{name}/norm", ops.GroupNorm(groups=4), b.conv(x, name, 32, kernel_size=3), *vectors)

    first = b.node("relu", ops.ReLU(), block(x, "a"))
    path = tmp_path / "m.xml"
    OPENVINO.write(b.finish({"y": b.add(first, block(first, "b"), "y")}), path)
    probe([path])
