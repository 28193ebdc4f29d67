"""What Keras users write with keras.ops beyond float arithmetic, and how the writer keeps it."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Graph
from tests.graphs import group_norm, image_graph

# Keras 3.15 turns TensorFlow's variables into arrays without NumPy 2's copy keyword; nothing of it is ours to change.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

KERAS = registry.load("converters", "keras")
Function = Callable[[Any, Any], Any]


@pytest.fixture(scope="module")
def keras() -> ModuleType:
    module: ModuleType = KERAS.framework(purpose="the tests")
    return module


READ: dict[str, tuple[Function, dict[str, int]]] = {
    "leaky": (lambda o, x: o.where(x > 0, x, 0.1 * x), {"Greater": 1, "Mul": 1, "Where": 1}),
    "masked": (
        lambda o, x: o.where(o.logical_not(o.less_equal(x, 0.5)), x, 0.0),
        {"LessOrEqual": 1, "Not": 1, "Where": 1},
    ),
    "clamped": (
        lambda o, x: o.where(o.logical_and(x >= -0.5, np.array([True, False, True, True])), x, -0.5),
        {"GreaterOrEqual": 1, "And": 1, "Where": 1},
    ),
    "shuffled": (lambda o, x: o.take(x, [3, -4, 1], axis=-1), {"Gather": 1}),
    "one_row": (lambda o, x: o.take(x, 2, axis=1), {"Gather": 1}),
    "looked_up": (
        lambda o, x: o.take(np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3), o.argmax(x, axis=-1), axis=0),
        {"ArgMax": 1, "Gather": 1},
    ),
    "repeated": (lambda o, x: o.tile(x, (2, 1)), {"Tile": 1}),
    "mirrored": (lambda o, x: o.pad(x, [[0, 0], [1, 2], [0, 0], [0, 1]], mode="reflect"), {"Pad": 1}),
    "scaled": (lambda o, x: o.normalize(x), {"L2Normalize": 1}),
    "attention": (lambda o, x: o.matmul(x, o.transpose(x, (0, 1, 3, 2))), {"MatMul": 1, "Transpose": 1}),
    "rounded": (lambda o, x: o.round(o.abs(x) * 3) - o.floor(-x) + o.ceil(x), {"Mul": 1, "Abs": 1, "Round": 1}),
    "waves": (lambda o, x: o.sin(x) * o.cos(x) + o.erf(x), {"Sin": 1, "Cos": 1, "Erf": 1}),
    "parts": (lambda o, x: o.split(x, [1, 3], axis=-1)[1], {"Split": 1}),
    "counted": (lambda o, x: o.cast(o.cast(x * 9, "int32"), "float32"), {"Mul": 1, "Cast": 2}),
    "least": (lambda o, x: o.min(x, axis=1) * o.prod(x, axis=2), {"Min": 1, "Prod": 1, "Mul": 1}),
}


@pytest.mark.parametrize("name", READ)
def test_functions_are_read_as_one_operator_each(name: str, tmp_path: Path, keras: ModuleType) -> None:
    make, kinds = READ[name]
    x = keras.Input((8, 8, 4))
    model = keras.Model(x, make(keras.ops, x))
    model.save(tmp_path / "a.keras")
    graph = KERAS.read(tmp_path / "a.keras")
    assert kinds.items() <= graph.kinds().items()
    image = np.random.default_rng(0).standard_normal((2, 8, 8, 4), dtype=np.float32)
    (found,) = execute(graph, {graph.inputs[0].name: image}).values()
    np.testing.assert_allclose(found, np.asarray(model(image)), atol=1e-5)


REFUSED: dict[str, tuple[Function, type[Exception], str]] = {
    "far": (lambda o, x: o.take(x, [4], axis=-1), InputFileError, "indices of 4 positions were wanted; found"),
    "batch": (lambda o, x: o.tile(x, (2, 1, 1, 1)), UnsupportedError, "a batch that is not repeated was wanted"),
    "mixed": (
        lambda o, x: o.equal(o.argmax(x, axis=-1, keepdims=True), x),
        UnsupportedError,
        "operands of one type was wanted; found ['float32', 'int32']",
    ),
    "fraction": (
        lambda o, x: o.argmax(x, axis=-1) > np.array([0.5], np.float32),
        UnsupportedError,
        "a constant that int32 holds was wanted; found [0.5]",
    ),
    "wrapped": (
        lambda o, x: o.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]], mode="symmetric"),
        UnsupportedError,
        "a mode of",
    ),
    "decimals": (lambda o, x: o.round(x, 2), UnsupportedError, "decimals=0 was wanted; found 2"),
    "other_norm": (lambda o, x: o.normalize(x, order=1), UnsupportedError, "the last axis and order=2 was wanted"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_graph_has_no_words_for_is_refused(name: str, tmp_path: Path, keras: ModuleType) -> None:
    make, error, message = REFUSED[name]
    x = keras.Input((8, 8, 4))
    keras.Model(x, make(keras.ops, x)).save(tmp_path / "a.keras")
    with pytest.raises(error) as caught:
        KERAS.read(tmp_path / "a.keras")
    assert message in str(caught.value)


def split_shown() -> Graph:
    b = GraphBuilder("shown", initialise=he_normal(0))
    x = b.input("image", (None, 6, 6, 4))
    left, right = b.nodes("s", ops.Split(axis=3, sizes=(1, 3)), (x,), ("left", "right"))
    return b.finish({"right": right, "s": left, "sum": b.node("y", ops.Add(), left, right)})


def test_outputs_of_a_split_keep_their_ports(tmp_path: Path) -> None:
    graph = split_shown()
    KERAS.write(graph, tmp_path / "a.keras")
    found = KERAS.read(tmp_path / "a.keras")
    assert [port.name for port in found.outputs] == ["right", "s", "sum"]
    image = np.random.default_rng(0).standard_normal((2, 6, 6, 4), dtype=np.float32)
    for name, wanted in execute(graph, {"image": image}).items():
        np.testing.assert_array_equal(execute(found, {"image": image})[name], wanted)


def test_an_edge_of_one_axis_is_read_as_the_positions_that_it_repeats(tmp_path: Path) -> None:
    pad = ops.Pad(padding=((0, 0), (1, 2), (0, 0), (0, 0)), mode="edge")
    graph = image_graph(lambda b, x: b.node("y", pad, x))
    KERAS.write(graph, tmp_path / "a.keras")
    found = KERAS.read(tmp_path / "a.keras")
    assert found.kinds() == {"Gather": 1}
    image = np.random.default_rng(0).standard_normal((1, 9, 8, 4), dtype=np.float32)
    np.testing.assert_array_equal(
        execute(found, {"image": image})["result"], execute(graph, {"image": image})["result"]
    )


def test_group_norm_is_trainable(keras: ModuleType) -> None:
    graph = image_graph(group_norm(2))
    model = KERAS.to_keras(graph)
    assert len(model.trainable_weights) == 2
    layer = model.get_layer("y")
    layer.set_weights([2 * value for value in layer.get_weights()])
    changed = KERAS.with_keras_weights(graph, model)
    np.testing.assert_array_equal(changed.tensors["g"].value(), 2 * graph.tensors["g"].value())


IN_THE_BATCH: dict[str, ops.Op] = {
    "Split": ops.Split(axis=0, sizes=(1, 1)),
    "ArgMax": ops.ArgMax(axis=0, dtype="int32"),
    "Tile": ops.Tile(multiples=(2, 1, 1, 1)),
}


@pytest.mark.parametrize("kind", IN_THE_BATCH)
def test_operators_over_the_batch_are_refused_with_a_remedy(kind: str) -> None:
    op = IN_THE_BATCH[kind]
    names = ("y", "z") if isinstance(op, ops.Split) else ("y",)
    graph = image_graph(lambda b, x: b.nodes("y", op, (x,), names)[0], (2, 3, 3, 4))
    with pytest.raises(UnsupportedError, match=rf"y: {kind} for Keras: .* Cut the network with --inputs and --outputs"):
        KERAS.to_keras(graph)
