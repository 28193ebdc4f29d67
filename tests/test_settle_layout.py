"""Transposes that a file's order of axes needs are pushed, cancelled and absorbed; the values stay."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Graph, to_layout
from edgecnn.passes.settle_layout import push_transposes, settle_layout
from edgecnn.passes.turned_reshape import turned_reshape

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class FileBuilder(GraphBuilder):
    """Builds as a reader of a channels-first file does: everything in the file's order, windows between Transposes."""

    def __init__(self) -> None:
        super().__init__("file", initialise=he_normal(0))
        self.count = 0

    def fresh(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def then(self, op: ops.Op, *inputs: str) -> str:
        return self.node(self.fresh(), op, *inputs)

    def const(self, *shape: int) -> str:
        return self.constant(self.fresh(), np.random.default_rng(self.count).standard_normal(shape, dtype=np.float32))

    def turn(self, x: str, order: tuple[int, ...]) -> str:
        return self.then(ops.Transpose(permutation=order), x)

    def first_conv(self, x: str, channels: int, *, kernel_size: int = 3) -> str:
        y = self.conv(self.turn(x, TO_LAST), self.fresh(), channels, kernel_size=kernel_size, use_bias=True)
        return self.turn(y, TO_FIRST)

    def reshape(self, x: str, *shape: int | None) -> str:
        return self.then(ops.Reshape(shape=shape), x)


Make = Callable[[FileBuilder, str], str]


def residual(b: FileBuilder, x: str) -> str:
    y = b.then(ops.ReLU(), b.then(ops.Add(), b.first_conv(x, 8), b.const(8, 1, 1)))
    return b.first_conv(b.then(ops.Add(), y, b.first_conv(y, 8)), 4)


def classifier(b: FileBuilder, x: str) -> str:
    x = b.then(ops.ReLU(), b.reshape(b.first_conv(x, 5), 1, 5 * 48))
    return b.dense(x, "fc", 7)


def normalised_classifier(b: FileBuilder, x: str) -> str:
    x = b.batch_norm(b.reshape(b.first_conv(x, 5), 1, 5 * 48), "bn")
    return b.dense(x, "fc", 7)


def global_pool(b: FileBuilder, x: str) -> str:
    x = b.then(ops.Mean(axes=(2, 3), keep_dims=True), b.first_conv(x, 6))
    return b.dense(b.reshape(x, 1, 6), "fc", 3)


def squeeze_excite(b: FileBuilder, x: str) -> str:
    x = b.first_conv(x, 6)
    gate = b.then(ops.Sigmoid(), b.dense(b.then(ops.Mean(axes=(2, 3)), x), "fc", 6))
    return b.first_conv(b.then(ops.Mul(), x, b.reshape(gate, 1, 6, 1, 1)), 4)


def channel_shuffle(b: FileBuilder, x: str) -> str:
    x = b.reshape(b.first_conv(x, 6), 1, 2, 3, 8, 6)
    x = b.then(ops.Transpose(permutation=(0, 2, 1, 3, 4)), x)
    return b.first_conv(b.reshape(x, 1, 6, 8, 6), 4)


def shuffle_over_the_batch(b: FileBuilder, x: str) -> str:
    """As FastestDet's blocks cut the channels into even and odd ones."""
    x = b.turn(b.reshape(b.first_conv(x, 6), 3, 2, 48), (1, 0, 2))
    x = b.reshape(x, 2, 1, 3, 8, 6)
    index = b.constant("one", np.array(1, np.int64))
    return b.first_conv(b.node("odd", ops.Gather(axis=0), x, index), 4)


def detector(b: FileBuilder, x: str) -> str:
    """As YOLOX joins its scales: (1, 85, h, w) -> (1, 85, h w), joined, turned at last."""
    scales = [b.first_conv(x, 7), b.first_conv(x, 7, kernel_size=1)]
    flat = [b.reshape(each, 1, 7, 48) for each in scales]
    return b.turn(b.then(ops.Concat(axis=2), *flat), (0, 2, 1))


def softmax_of_channels(b: FileBuilder, x: str) -> str:
    return b.turn(b.then(ops.Softmax(), b.turn(b.first_conv(x, 5), TO_LAST)), TO_FIRST)


def cut_and_joined(b: FileBuilder, x: str) -> str:
    parts = b.nodes("parts", ops.Split(axis=1, sizes=(2, 4)), (b.first_conv(x, 6),), ("left", "right"))
    padded = b.then(ops.Pad(padding=((0, 0), (2, 0), (0, 0), (0, 0))), parts[0])
    cut = b.then(ops.Slice(begin=(0, 0, 0, 0), end=(None, 4, None, None), step=(1, 1, 1, 1)), parts[1])
    return b.first_conv(b.then(ops.Concat(axis=1), padded, cut), 4)


WITHOUT = {
    each.__name__: each
    for each in (
        *(residual, classifier, normalised_classifier, global_pool, squeeze_excite, channel_shuffle),
        *(detector, softmax_of_channels, cut_and_joined),
    )
}
"""Networks that keep no Transpose (the shuffle keeps the one that it is)."""


def as_file(make: Make, shape: tuple[int | None, ...] = (1, 4, 8, 6)) -> Graph:
    b = FileBuilder()
    return b.finish({"y": make(b, b.input("x", shape))})


def same_values(graph: Graph, settled: Graph) -> None:
    """Feed both the same picture, each in its own order of axes, and compare outputs in the file's order."""
    shape = [size or 2 for size in graph.tensors["x"].shape]
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    is_turned = settled.inputs[0].layout is None and len(shape) >= 4
    found = execute(settled, {"x": np.moveaxis(x, 1, -1) if is_turned else x})["y"]
    if settled.outputs[0].layout is None and found.ndim >= 4:
        found = to_layout(found, "NCHW")
    np.testing.assert_allclose(found, execute(graph, {"x": x})["y"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", WITHOUT)
def test_no_transpose_is_left(name: str) -> None:
    graph = as_file(WITHOUT[name])
    settled = settle_layout(graph, "NCHW")
    same_values(graph, settled)
    assert settled.inputs[0].layout is None
    assert settled.kinds()["Transpose"] == (1 if name == "channel_shuffle" else 0)


def test_channels_cut_through_the_batch_need_no_transpose() -> None:
    graph = as_file(shuffle_over_the_batch)
    settled = settle_layout(graph, "NCHW")
    same_values(graph, settled)
    assert settled.kinds()["Transpose"] == 0


def test_a_symbolic_batch_stays_symbolic() -> None:
    graph = as_file(lambda b, x: b.reshape(b.first_conv(x, 5), None, 5, 48), (None, 4, 8, 6))
    settled = settle_layout(graph, "NCHW")
    assert settled.tensors["x"].shape == (None, 8, 6, 4)
    same_values(graph, settled)


def test_a_channels_last_file_keeps_its_ports() -> None:
    """As tf2onnx writes: the picture is turned to channels first inside."""
    graph = as_file(lambda b, x: b.turn(b.first_conv(b.turn(x, TO_FIRST), 5), TO_LAST), (1, 8, 6, 4))
    settled = settle_layout(graph, "NCHW")
    assert [port.layout for port in (*settled.inputs, *settled.outputs)] == ["NHWC", "NHWC"]
    assert settled.kinds() == {"Conv": 1}
    same_values(graph, settled)


def test_a_channels_first_tflite_file_says_so() -> None:
    graph = as_file(lambda b, x: b.first_conv(x, 5))
    settled = settle_layout(graph, "NHWC")
    assert [port.layout for port in (*settled.inputs, *settled.outputs)] == ["NCHW", "NCHW"]
    assert settled.kinds() == {"Conv": 1}


def test_what_must_stay_is_one_transpose_with_a_reason() -> None:
    graph = as_file(lambda b, x: b.dense(b.first_conv(x, 5), "over_width", 3))
    settled = settle_layout(graph, "NCHW")
    same_values(graph, settled)
    assert settled.kinds()["Transpose"] == 1
    result = push_transposes(settled)
    assert result.refused == (("t3/turned", "over_width (Dense) needs this order of axes"),)


def test_a_graph_without_transposes_is_left_alone() -> None:
    graph = settle_layout(as_file(residual), "NCHW")
    assert push_transposes(graph).graph is graph


def test_transposes_of_constants_are_turned_offline() -> None:
    def make(b: FileBuilder, x: str) -> str:
        return b.then(ops.Mul(), b.first_conv(x, 5), b.turn(b.const(8, 6, 5), (2, 0, 1)))

    graph = as_file(make)
    settled = settle_layout(graph, "NCHW")
    same_values(graph, settled)
    assert settled.kinds() == {"Conv": 1, "Mul": 1}


def sliced(b: FileBuilder, x: str, axis: int) -> str:
    boxes = [(0, size or 1, 2 if place == axis and size != 1 else 1) for place, size in enumerate(b.shape(x))]
    begin, end, step = zip(*boxes, strict=True)
    return b.then(ops.Slice(begin=begin, end=end, step=step), x)


def add_to_turned(b: FileBuilder, x: str, data: st.DataObject) -> str:
    order = tuple(data.draw(st.permutations(range(len(b.shape(x))))))
    back = tuple(order.index(axis) for axis in range(len(order)))
    return b.then(ops.Add(), b.turn(b.then(ops.Neg(), b.turn(x, order)), back), x)


def gathered(b: FileBuilder, x: str, axis: int, indices: list[int] | int) -> str:
    return b.then(ops.Gather(axis=axis), x, b.constant(b.fresh(), np.array(indices, np.int64)))


def reshapes(shape: list[int]) -> list[tuple[int, ...]]:
    """Return a few shapes of the same number of elements."""
    total = int(np.prod(shape))
    joined = [(*shape[:i], shape[i] * shape[i + 1], *shape[i + 2 :]) for i in range(len(shape) - 1)]
    halved = [(*shape[:i], 2, n // 2, *shape[i + 1 :]) for i, n in enumerate(shape) if n % 2 == 0]
    return [(total,), (1, total), (1, *shape), (*shape, 1), *joined, *halved]


STEPS: dict[str, Callable[[FileBuilder, str, int, st.DataObject], str]] = {
    "turn": lambda b, x, axis, data: b.turn(x, tuple(data.draw(st.permutations(range(len(b.shape(x))))))),
    "reshape": lambda b, x, axis, data: b.reshape(
        x, *data.draw(st.sampled_from(reshapes([size or 1 for size in b.shape(x)])))
    ),
    "relu": lambda b, x, axis, data: b.then(ops.ReLU(), x),
    "concat": lambda b, x, axis, data: b.then(ops.Concat(axis=axis), x, b.then(ops.Neg(), x)),
    "mean": lambda b, x, axis, data: b.then(ops.Mean(axes=(axis,), keep_dims=data.draw(st.booleans())), x),
    "slice": lambda b, x, axis, data: sliced(b, x, axis),
    "add": lambda b, x, axis, data: b.then(ops.Add(), x, b.const(*(size or 1 for size in b.shape(x)[axis:]))),
    "add_to_turned": lambda b, x, axis, data: add_to_turned(b, x, data),
    "conv": lambda b, x, axis, data: b.first_conv(x, 3, kernel_size=1) if len(b.shape(x)) == 4 else x,
    "gather": lambda b, x, axis, data: gathered(b, x, axis, 0),
    "gather_two": lambda b, x, axis, data: gathered(b, x, axis, [(b.shape(x)[axis] or 1) - 1, 0]),
}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_networks_keep_their_values(data: st.DataObject) -> None:
    b = FileBuilder()
    x = b.input("x", (1, 4, 2, 3))
    for _ in range(data.draw(st.integers(1, 8))):
        shape = b.shape(x)
        if 0 < len(shape) <= 6 and ops.elements(shape) < 2000:
            x = STEPS[data.draw(st.sampled_from(list(STEPS)))](b, x, data.draw(st.integers(0, len(shape) - 1)), data)
    if x == "x":
        x = b.then(ops.ReLU(), x)
    graph = b.finish({"y": x})
    settled = settle_layout(graph, "NCHW")
    same_values(graph, settled)
    assert settled.kinds()["Transpose"] <= graph.kinds()["Transpose"]
    pushed = push_transposes(settled).graph
    same_values(graph, pushed)


def test_runs_of_axes() -> None:
    assert turned_reshape((None, 8, 5, 5), (None, 2, 4, 25), (0, 3, 1, 2)) == ((None, 25, 2, 4), (0, 2, 3, 1))
    assert turned_reshape((1, 6, 1, 1), (1, 6), (0, 3, 1, 2)) == ((1, 6), (0, 1))
    assert turned_reshape((2, 3), (4, 2), (0, 1)) is None


def test_a_transpose_that_is_written_takes_the_name_of_no_node() -> None:
    b = FileBuilder()
    turned = b.turn(b.input("image", (1, 3, 4, 2)), (0, 2, 1, 3))
    b.nodes(f"{turned}/turned", ops.ReLU(), ("image",), ("other",))
    graph = b.finish({"result": b.then(ops.LRN(), turned), "other": "other"})
    settled = settle_layout(graph, "NHWC")
    assert [node.name for node in settled.nodes] == [f"{turned}/turned", f"{turned}/turned_", "t2"]
    x = {"image": np.random.default_rng(3).standard_normal((1, 3, 4, 2), dtype=np.float32)}
    np.testing.assert_array_equal(execute(settled, x)["result"], execute(graph, x)["result"])
