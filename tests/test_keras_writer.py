"""Every operator of the vocabulary as a trainable keras.Model, and back unchanged."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from edgecnn.converters._keras_groups import EXPANSIONS
from edgecnn.converters._keras_operators import WRITERS

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.errors import UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Graph, Node
from tests.graphs import GRAPHS, image_graph, unary

# Keras 3.15 turns TensorFlow's variables into arrays without NumPy 2's copy keyword; nothing of it is ours to change.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

KERAS = registry.load("converters", "keras")
REMEDY = ". Cut the network with --inputs and --outputs, or choose another format (--to onnx)."
REFUSED = {
    "mean_of_batch_and_width": f"y: Mean for Keras: axes behind the batch was wanted; found (0, 2){REMEDY}",
    "matmul_broadcast": "one: Mean for Keras: axes behind the batch was wanted; found (0,)",
    "matmul_of_matrices": "t: Transpose for Keras: a permutation that leaves the batch first was wanted; found (1, 0)",
    **{
        name: f"{node.name}: ConvTranspose for Keras: groups=1 was wanted; found groups={node.op.groups}{REMEDY}"
        for name, graph in GRAPHS.items()
        for node in graph.nodes
        if isinstance(node.op, ops.ConvTranspose) and node.op.groups > 1
    },
    **{
        name: f"{node.name}: the Keras writer has no layer for DetectionPostProcess{REMEDY}"
        for name, graph in GRAPHS.items()
        for node in graph.nodes
        if isinstance(node.op, ops.DetectionPostProcess)
    },
}
SAME: Mapping[str, ops.Op] = {
    "conv_transpose_cut": ops.ConvTranspose(
        stride=(2, 2), padding=((1, 0), (2, 0)), dilation=(1, 1), output_padding=(0, 0)
    )
}
"""What comes back written another way: padding cut behind and added behind cancel out."""


@pytest.fixture(scope="module")
def keras() -> ModuleType:
    module: ModuleType = KERAS.framework(purpose="the tests")
    return module


def as_read(graph: Graph, found: Graph, node: Node) -> ops.Op:
    """Return an operator as the reader states it: ends of a slice in numbers, and the batch always symbolic."""
    op = node.op
    if isinstance(op, ops.Reshape):
        return replace(op, shape=found.tensors[node.output].shape)
    if not isinstance(op, ops.Slice):
        return op
    sizes = graph.tensors[node.inputs[0]].shape
    ends = (size if end is None else end for end, size in zip(op.end[1:], sizes[1:], strict=True))
    return replace(op, end=(None, *ends))


def assert_comes_back(name: str, found: Graph, wanted: Graph) -> None:
    assert [port.name for port in found.outputs] == [port.name for port in wanted.outputs]
    assert [node.name for node in found.nodes] == [node.name for node in wanted.nodes]
    renamed: dict[str, str] = {}
    for a, b in zip(found.nodes, wanted.nodes, strict=True):
        assert a.op == SAME.get(name, as_read(wanted, found, b))
        if len(a.outputs) == 1:
            assert a.outputs == b.outputs
        renamed |= zip(a.outputs, b.outputs, strict=True)
        for x, y in zip(a.inputs, b.inputs, strict=True):
            if wanted.tensors[y].is_constant:
                values = wanted.tensors[y].value()
                np.testing.assert_array_equal(found.tensors[x].value().reshape(values.shape), values)
            else:
                assert renamed.get(x, x) == y


def assert_agrees(found: Any, wanted: np.ndarray) -> None:
    assert np.shape(found) == wanted.shape
    assert np.abs(np.asarray(found) - wanted).max() <= 1e-5 * np.ptp(wanted)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_operator_comes_back(name: str, tmp_path: Path, keras: ModuleType) -> None:
    graph = GRAPHS[name]
    if name in REFUSED:
        with pytest.raises(UnsupportedError) as caught:
            KERAS.to_keras(graph)
        assert REFUSED[name] in str(caught.value)
        return
    shape = graph.tensors[graph.inputs[0].tensor].shape
    x = np.random.default_rng(0).standard_normal((shape[0] or 2, *(size or 0 for size in shape[1:])), dtype=np.float32)
    (wanted,) = execute(graph, {graph.inputs[0].name: x}).values()
    model = KERAS.to_keras(graph)
    assert_agrees(model(x, training=False), wanted)
    model.save(tmp_path / "a.keras")
    assert_comes_back(name, KERAS.read(tmp_path / "a.keras"), graph)
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert_agrees(loaded(x, training=False), wanted)


WITHOUT = {ops.Opaque, ops.DetectionPostProcess, ops.Quantize, ops.Dequantize}
"""Operators that Keras has no layers for."""


def test_every_operator_has_a_row_or_a_group() -> None:
    known = {op for op in vars(ops).values() if isinstance(op, type) and issubclass(op, ops.Op)}
    assert set(WRITERS) | set(EXPANSIONS) == known - {ops.Op, ops.Activation, *WITHOUT}


def test_operators_without_a_layer_are_refused() -> None:
    odd = image_graph(unary(ops.Opaque(kind="Einsum", shapes=((None, 2),))))
    with pytest.raises(UnsupportedError, match="y: the Keras writer has no layer for Einsum"):
        KERAS.to_keras(odd)


def strided_and_dilated(b: GraphBuilder, x: str) -> str:
    return b.conv(x, "y", 5, kernel_size=3, stride=2, dilation=2, use_bias=True)


def test_a_convolution_with_stride_and_dilation_comes_back(tmp_path: Path) -> None:
    graph = image_graph(strided_and_dilated)
    KERAS.write(graph, tmp_path / "a.keras")
    assert_comes_back("", KERAS.read(tmp_path / "a.keras"), graph)


def test_a_group_is_one_only_where_all_of_it_fits(tmp_path: Path) -> None:
    """A user's own reshape, transpose, reshape of the same names, but another order, stays three nodes."""
    b = GraphBuilder("own", initialise=he_normal(0))
    x = b.input("image", (None, 3, 4, 12))
    x = b.node("y/split", ops.Reshape(shape=(None, 3, 4, 2, 2, 3)), x)
    x = b.node("y/turned", ops.Transpose(permutation=(0, 1, 4, 2, 3, 5)), x)
    graph = b.finish({"y": b.node("y", ops.Reshape(shape=(None, 6, 8, 3)), x)})
    KERAS.write(graph, tmp_path / "a.keras")
    assert KERAS.read(tmp_path / "a.keras").nodes == graph.nodes


def test_all_of_a_graph_is_trainable_but_the_matrices_of_a_resize(keras: ModuleType) -> None:
    model = KERAS.to_keras(GRAPHS["resize_bilinear_align_corners"])
    assert model.count_params()
    assert not model.trainable_weights
    model = KERAS.to_keras(GRAPHS["conv_transpose_cut"])
    assert len(model.trainable_weights) == 2
    changed = KERAS.with_keras_weights(GRAPHS["conv_transpose_cut"], model)
    np.testing.assert_array_equal(
        changed.tensors["kernel"].value(), GRAPHS["conv_transpose_cut"].tensors["kernel"].value()
    )


def test_a_large_constant_is_refused() -> None:
    b = GraphBuilder("large", initialise=he_normal(0))
    x = b.input("image", (None, 600, 600))
    y = b.node("y", ops.Add(), x, b.constant("other", np.zeros((600, 600), np.float32)))
    with pytest.raises(UnsupportedError, match="y: a constant of at most 262144 numbers was wanted"):
        KERAS.to_keras(b.finish({"y": y}))


def named_as_tensorflow_never_would(first: str, second: str) -> Graph:
    b = GraphBuilder("résumé/1;2", initialise=he_normal(0))
    x = b.conv(b.input("im age:0", (1, 6, 6, 3)), first, 4, kernel_size=3)
    x = b.conv(x, second, 4, kernel_size=1)
    graph = b.finish({"scores;0": x, "scores:0": b.node("_last", ops.Tanh(), x)})
    fused = [
        replace(n, op=replace(n.op, activation=ops.ReLU())) if isinstance(n.op, ops.Conv) else n for n in graph.nodes
    ]
    return replace(graph, nodes=tuple(fused))


@pytest.mark.parametrize(
    ("first", "second", "layers"),
    [
        ("a/conv;a/bias", "b@1", ["a.conv_a.bias", "a.conv_a.bias..relu", "b_1", "b_1..relu"]),
        ("a;b", "a:b", ["a_b", "a_b..relu", "a_b_2", "a_b..relu_2"]),
        ("im age/0", "im age_0", ["im_age.0", "im_age.0..relu", "im_age_0_2", "im_age_0..relu"]),
    ],
)
def test_names_are_what_tensorflow_takes_and_each_is_there_once(first: str, second: str, layers: list[str]) -> None:
    graph = named_as_tensorflow_never_would(first, second)
    model = KERAS.to_keras(graph)
    names = [layer.name for layer in model.layers]
    assert names == ["im_age_0", *layers, "._last", "scores_0", "scores_0..port"]
    assert model.name == "r_sum_.1_2"
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 3), dtype=np.float32)
    for found, wanted in zip(model(x), execute(graph, {"im age:0": x}).values(), strict=True):
        assert_agrees(found, wanted)
    kernel = f"{first}/kernel"
    assert np.array_equal(KERAS.with_keras_weights(graph, model).tensors[kernel].value(), graph.tensors[kernel].value())


def test_a_network_of_any_names_is_exported_as_saved_model(tmp_path: Path) -> None:
    KERAS.to_keras(named_as_tensorflow_never_would("a;b", "-c")).export(tmp_path / "saved", verbose=False)
    assert (tmp_path / "saved" / "saved_model.pb").is_file()
