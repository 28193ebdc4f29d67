"""A float Graph in the words that integers have, and one that takes the bytes of a picture: numbers stay."""

from dataclasses import replace

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.contract import Contract
from edgecnn.errors import UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.passes import lower_activation, unfuse_activation
from edgecnn.quantization.prepare import prepared, take_bytes
from tests.graphs import GRAPHS, image_graph

CAFFE = Contract(height=9, width=7, colour_order="BGR", mean=(104.0, 117.0, 123.0), std=(57.0, 58.0, 61.0))
PLAIN = Contract(height=9, width=7)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3)).astype(np.float32)

CHANGED = {
    "swish": {"Sigmoid": 1, "Mul": 1},
    "hard_sigmoid": {"Add": 1, "Mul": 1},
    "hard_sigmoid_keras_2": {"Mul": 2, "Add": 1},
}


def random_values(graph: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    shapes = {port.name: graph.tensors[port.tensor].shape for port in graph.inputs}
    return {name: 4 * rng.standard_normal([n or 2 for n in shape], dtype=np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", CHANGED)
def test_activations_without_integers_are_spelt_with_others(name: str) -> None:
    graph = GRAPHS[name]
    result = lower_activation.PASS(graph)
    assert (result.applied, result.refused, result.graph.kinds()) == (("y",), (), CHANGED[name])
    x = random_values(graph)
    np.testing.assert_allclose(execute(result.graph, x)["result"], execute(graph, x)["result"], atol=2e-6)


@pytest.mark.parametrize(
    "activation", [ops.Swish(), ops.HardSwish(), ops.Sigmoid(), ops.Tanh(), ops.LeakyReLU(slope=0.1)]
)
def test_a_fused_activation_gets_a_node_and_its_input_a_range(activation: ops.Activation) -> None:
    graph = image_graph(lambda b, x: b.node("y", ops.Add(activation=activation), x, x))
    result = unfuse_activation.PASS(graph)
    assert result.applied == ("y",)
    assert [node.kind for node in result.graph.nodes] == ["Add", type(activation).__name__]
    assert result.graph.nodes[-1].output == "y"  # which keeps its name, since it keeps its values
    x = random_values(graph)
    np.testing.assert_array_equal(execute(result.graph, x)["result"], execute(graph, x)["result"])


@pytest.mark.parametrize("activation", [None, ops.ReLU(), ops.ReLU6()])
def test_clamps_stay_fused(activation: ops.Activation | None) -> None:
    graph = image_graph(lambda b, x: b.node("y", ops.Add(activation=activation), x, x))
    assert prepared(graph) is graph


@pytest.mark.parametrize("name", GRAPHS)
def test_preparing_changes_no_number(name: str) -> None:
    graph = GRAPHS[name]
    x = random_values(graph)
    exact, found = execute(graph, x), execute(prepared(graph), x)
    for port, values in exact.items():
        np.testing.assert_allclose(found[port], values, rtol=1e-5, atol=1e-5)


def classifier(padding: str, contract: Contract | None = CAFFE, *, groups: int = 1) -> Graph:
    b = GraphBuilder("bytes", initialise=he_normal(0))
    x = b.input("image", (None, 9, 7, 3))
    one, other = (b.conv(x, n, 6, kernel_size=3, padding=padding, groups=groups, use_bias=n == "a") for n in "ab")
    return replace(b.finish({"y": b.add(one, other, "sum"), "z": b.dense(x, "d", 4)}), contract=contract)


def fed(graph: Graph) -> dict[str, Array]:
    contract = graph.contract
    assert contract is not None
    return execute(
        graph, {"image": (PIXELS - np.asarray(contract.mean, np.float32)) / np.asarray(contract.std, np.float32)}
    )


@pytest.mark.parametrize("contract", [CAFFE, PLAIN, replace(PLAIN, mean=(0.0,) * 3, std=(255.0,) * 3)])
@pytest.mark.parametrize("groups", [1, 3])
def test_bytes_give_what_normalised_pixels_give(contract: Contract, groups: int) -> None:
    graph = classifier("valid", contract, groups=groups)
    raw = take_bytes(graph)
    for name, values in fed(graph).items():
        np.testing.assert_allclose(fed(raw.graph)[name], values, atol=2e-5)
    assert raw.graph.contract is not None
    assert raw.graph.contract.std == (1.0,) * 3
    assert set(raw.graph.contract.mean) == {float(round(float(np.mean(contract.mean))))}
    assert raw.graph.contract.height == 9


def test_padding_with_one_byte_costs_what_the_note_says() -> None:
    graph = classifier("same")
    raw = take_bytes(graph)
    assert raw.note == "the first layer pads with pixel 115, which is up to 0.19 from the contract's 0"
    exact, found = fed(graph), fed(raw.graph)
    np.testing.assert_allclose(found["y"][:, 1:-1, 1:-1], exact["y"][:, 1:-1, 1:-1], atol=2e-5)
    assert np.abs(found["y"] - exact["y"]).max() > 1e-3
    assert take_bytes(classifier("same", replace(PLAIN, mean=(128.0,) * 3))).note == ""


def test_a_mean_that_is_no_pixel_takes_the_nearest() -> None:
    contract = replace(PLAIN, mean=(-30.0,) * 3)
    raw = take_bytes(classifier("valid", contract))
    assert raw.graph.contract is not None
    assert raw.graph.contract.mean == (0.0,) * 3
    graph = classifier("valid", contract)
    np.testing.assert_allclose(fed(raw.graph)["y"], fed(graph)["y"], atol=2e-5)


def behind(op: ops.Op) -> Graph:
    b = GraphBuilder("bytes", initialise=he_normal(0))
    x = b.input("image", (None, 9, 7, 3))
    return replace(b.finish({"y": b.conv(b.node("first", op, x), "c", 3, kernel_size=1)}), contract=PLAIN)


def computed_kernel() -> Graph:
    b = GraphBuilder("bytes", initialise=he_normal(0))
    x = b.input("image", (None, 9, 7, 3))
    kernel = b.node("k", ops.Tanh(), b.constant("raw", np.ones((1, 1, 3, 2), np.float32)))
    op = ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
    return replace(b.finish({"y": b.node("c", op, x, kernel)}), contract=PLAIN)


def shown_input() -> Graph:
    graph = classifier("valid")
    return replace(graph, outputs=(*graph.outputs, replace(graph.inputs[0], name="fed")))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (classifier("valid", None), "bytes: uint8 inputs want one picture with a contract"),
        (behind(ops.Tanh()), "first: uint8 inputs want layers .*; got Tanh. Take --io int8"),
        (computed_kernel(), "c: uint8 inputs want layers .*; got computed weights"),
        (shown_input(), "a: uint8 inputs want layers .*; got an output, too"),
    ],
)
def test_what_cannot_take_bytes_is_refused(graph: Graph, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        take_bytes(graph)
