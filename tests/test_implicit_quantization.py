"""The pass that lets operators between Dequantize and Quantize nodes compute in integers."""

from dataclasses import replace

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Node, Port, Tensor, validate
from edgecnn.passes.editor import GraphEditor
from edgecnn.passes.explicit_quantization import drop_implied_clamps, explicit_quantization
from edgecnn.passes.implicit_quantization import implicit_quantization
from edgecnn.quantization.parameters import Quantization, per_tensor
from tests.quantized_graphs import GRAPHS


def _described(graph: Graph) -> list[Node]:
    return sorted(graph.nodes, key=lambda node: node.outputs)


@pytest.mark.parametrize("name", GRAPHS)
def test_it_undoes_explicit_quantization(name: str) -> None:
    graph = drop_implied_clamps(GRAPHS[name])
    found = implicit_quantization(explicit_quantization(graph)).graph
    validate(found)
    assert _described(found) == _described(graph)
    assert (found.inputs, found.outputs) == (graph.inputs, graph.outputs)
    assert found.tensors.keys() == graph.tensors.keys()
    for each, tensor in graph.tensors.items():
        assert found.tensors[each].quantization == tensor.quantization
        if tensor.data is not None:
            np.testing.assert_array_equal(found.tensors[each].data, tensor.data, strict=True)


TENTH, HALF = per_tensor(0.1, -3), per_tensor(0.5, 7)


def _explicit(nodes: list[Node], quantized: dict[str, Quantization], **constants: Array) -> Graph:
    """Return a Graph over float port x (1, 2, 2, 3), whose tensors of integers are named."""
    editor = GraphEditor(Graph(name="g", nodes=(), tensors={}, inputs=(X,), outputs=()))
    editor.tensors["x"] = Tensor(name="x", shape=(1, 2, 2, 3))
    for name, data in constants.items():
        found = quantized.get(name)
        dtype = "float32" if found else str(data.dtype)
        editor.tensors[name] = Tensor(name=name, shape=data.shape, data=data, quantization=found, dtype=dtype)
    for node in nodes:
        editor.put(node)
        for name in node.outputs:
            editor.tensors[name] = replace(editor.tensors[name], quantization=quantized.get(name))
    editor.output_ports = [Port(name="y", tensor="y")]
    return editor.finish()


X = Port(name="x", tensor="x")


def n(op: ops.Op, inputs: str, outputs: str) -> Node:
    return Node(name=f"{outputs}/node", op=op, inputs=tuple(inputs.split()), outputs=tuple(outputs.split()))


QUANTIZED = [n(ops.Quantize(), "x", "q"), n(ops.Dequantize(), "q", "d")]


def _same(graph: Graph, found: Graph) -> None:
    x = np.random.default_rng(0).normal(0, 4, (1, 2, 2, 3)).astype(np.float32)
    wanted, got = (execute(each, {"x": x}, stored=True)["y"] for each in (graph, found))
    np.testing.assert_array_equal(got, wanted, strict=True)


def test_integers_that_are_rounded_to_themselves_need_no_node() -> None:
    graph = _explicit([*QUANTIZED, n(ops.Quantize(), "d", "y")], {"q": TENTH, "y": TENTH})
    found = implicit_quantization(graph).graph
    assert found.kinds() == {"Quantize": 1}
    _same(graph, found)


def test_twins_become_one_and_a_requantization_is_one_node() -> None:
    nodes = [*QUANTIZED, n(ops.Sigmoid(), "d", "s"), n(ops.Quantize(), "s", "a"), n(ops.Quantize(), "s", "b")]
    nodes += [n(ops.Dequantize(), "a", "c"), n(ops.Dequantize(), "b", "e"), n(ops.Add(), "c e", "f")]
    nodes += [n(ops.Quantize(), "f", "g"), n(ops.Dequantize(), "g", "h"), n(ops.Quantize(), "h", "y")]
    unit = per_tensor(1 / 256, -128)
    graph = _explicit(nodes, {"q": TENTH, "a": unit, "b": unit, "g": TENTH, "y": HALF})
    found = implicit_quantization(graph).graph
    assert found.kinds() == {"Quantize": 2, "Sigmoid": 1, "Add": 1}


@pytest.mark.parametrize(
    "op", [ops.ReLU(), ops.Clip(minimum=-0.3, maximum=1.7), ops.Transpose(permutation=(0, 2, 1, 3))]
)
def test_what_limits_or_moves_trades_places_with_a_quantize(op: ops.Op) -> None:
    nodes = [*QUANTIZED, n(ops.Softmax(), "d", "s"), n(op, "s", "m"), n(ops.Quantize(), "m", "y")]
    graph = _explicit(nodes, {"q": TENTH, "y": per_tensor(1 / 200, -100)})
    found = implicit_quantization(graph).graph
    assert found.kinds() == {"Quantize": 1, "Softmax": 1, type(op).__name__: 1}
    assert all(found.tensors[node.output].quantization is not None for node in found.nodes)


def test_what_is_needed_in_float_stays_explicit_and_says_so() -> None:
    nodes = [*QUANTIZED, n(ops.Sigmoid(), "d", "s"), n(ops.Quantize(), "s", "t"), n(ops.Dequantize(), "t", "u")]
    graph = _explicit([*nodes, n(ops.Div(), "u s", "y")], {"q": TENTH, "t": TENTH})
    result = implicit_quantization(graph)
    assert result.graph is graph
    assert result.refused == (("t/node", "s is needed in float, or what it is computed from is not all integers"),)


@pytest.mark.parametrize(("scale", "kinds"), [(0.1 * 0.25, {"Quantize": 1, "Dense": 1}), (0.03, None)])
def test_a_bias_is_taken_at_the_scale_of_the_products_only(scale: float, kinds: dict[str, int] | None) -> None:
    nodes = [*QUANTIZED, n(ops.Dequantize(), "k", "kf"), n(ops.Dequantize(), "b", "bf")]
    nodes += [n(ops.Dense(), "d kf bf", "f"), n(ops.Quantize(), "f", "y")]
    quantized = {"q": TENTH, "k": per_tensor(0.25), "b": per_tensor(scale, 0, "int32"), "y": HALF}
    kernel, bias = np.arange(-6, 6, dtype=np.int8).reshape(3, 4), np.array([9, -9, 90, 0], np.int32)
    graph = _explicit(nodes, quantized, k=kernel, b=bias)
    result = implicit_quantization(graph)
    assert result.graph.kinds() == (kinds or graph.kinds())
    _same(graph, result.graph)


def test_a_float_bias_becomes_integers_of_that_scale() -> None:
    nodes = [*QUANTIZED, n(ops.Dequantize(), "k", "kf"), n(ops.Dense(), "d kf b", "f")]
    quantized = {"q": TENTH, "k": per_tensor(0.25), "y": HALF}
    kernel, bias = np.arange(-6, 6, dtype=np.int8).reshape(3, 4), np.array([0.26, -1, 3, 0], np.float32)
    found = implicit_quantization(_explicit([*nodes, n(ops.Quantize(), "f", "y")], quantized, k=kernel, b=bias)).graph
    (dense,) = (node for node in found.nodes if node.kind == "Dense")
    stored = found.tensors[dense.inputs[2]]
    assert stored.quantization == per_tensor(float(np.float32(0.1) * np.float32(0.25)), 0, "int32")
    assert stored.data is not None
    assert stored.data.tolist() == [10, -40, 120, 0]
