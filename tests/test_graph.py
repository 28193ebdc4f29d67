"""The rules that a Graph keeps, other batches, topological order and layouts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal, no_values, spread
from edgecnn.errors import GraphError, ShapeError, UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import (
    Graph,
    Node,
    Port,
    Tensor,
    external_shape,
    from_layout,
    in_topological_order,
    to_layout,
    validate,
    with_batch,
)
from edgecnn.models.build import ZooOptions, build


def small() -> Graph:
    b = GraphBuilder("small", initialise=he_normal(0))
    x = b.conv(b.input("image", (None, 4, 4, 2)), "conv", 3, kernel_size=3, use_bias=True)
    return b.finish({"y": b.activate(x, "act", ops.ReLU())})


def retensor(graph: Graph, name: str, **changes: Any) -> Graph:
    return replace(graph, tensors={**graph.tensors, name: replace(graph.tensors[name], **changes)})


def renode(graph: Graph, index: int, **changes: Any) -> Graph:
    nodes = list(graph.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(graph, nodes=tuple(nodes))


def without_tensor(graph: Graph, name: str) -> Graph:
    return replace(graph, tensors={key: tensor for key, tensor in graph.tensors.items() if key != name})


BROKEN: list[tuple[Callable[[Graph], Graph], str]] = [
    (lambda g: renode(g, 1, name="conv"), "small: two nodes are named 'conv'"),
    (lambda g: replace(g, inputs=g.inputs * 2), "small: two inputs are named 'image'"),
    (lambda g: replace(g, outputs=g.outputs * 2), "small: two outputs are named 'y'"),
    (
        lambda g: replace(g, outputs=(Port(name="y", tensor="gone"),)),
        "small: port 'y' names tensor 'gone', which is not there",
    ),
    (lambda g: retensor(g, "conv/bias", shape=(4,)), "conv/bias: data of shape 4 were wanted; got 3"),
    (
        lambda g: replace(g, nodes=g.nodes[::-1]),
        "act/relu: input 'conv' is not ready here: it is unknown, or comes later",
    ),
    (lambda g: renode(g, 1, outputs=("conv",)), "act/relu: output 'conv' is produced twice"),
    (lambda g: renode(g, 1, outputs=("conv/bias",)), "act/relu: output 'conv/bias' is produced twice"),
    (lambda g: without_tensor(g, "conv"), "conv: output 'conv' names a tensor that is not there"),
    (lambda g: renode(g, 1, outputs=("act/relu", "more")), "act/relu: 1 outputs were wanted; got 2"),
    (
        lambda g: retensor(g, "act/relu", shape=(None, 4, 4, 2)),
        "act/relu: output Nx4x4x3 float32 was wanted; the Graph states Nx4x4x2 float32",
    ),
    (lambda g: replace(g, nodes=g.nodes[:1]), "small: output 'y' is never produced"),
]


@pytest.mark.parametrize(("break_it", "text"), BROKEN, ids=[text for _, text in BROKEN])
def test_a_graph_that_breaks_a_rule_is_refused(break_it: Callable[[Graph], Graph], text: str) -> None:
    validate(small())
    with pytest.raises(GraphError) as caught:
        validate(break_it(small()))
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("index", "inputs", "text"),
    [
        (0, ("image",), "conv: Conv takes input, kernel, bias?; got 1 inputs"),
        (0, ("image", "conv/kernel", "conv/bias", "conv/bias"), "conv: Conv takes input, kernel, bias?; got 4 inputs"),
        (1, (), "act/relu: ReLU takes input; got 0 inputs"),
        (0, ("image", "conv/kernel", "conv/kernel"), "conv: bias must have shape 3; got 3x3x2x3"),
    ],
)
def test_operands_that_do_not_fit_the_operator_are_refused_with_the_nodes_name(
    index: int, inputs: tuple[str, ...], text: str
) -> None:
    with pytest.raises(ShapeError) as caught:
        validate(renode(small(), index, inputs=inputs))
    assert str(caught.value) == text


def test_an_optional_operand_may_be_left_out() -> None:
    graph = renode(small(), 0, inputs=("image", "conv/kernel"))
    validate(graph)
    assert graph.nodes[0].operand("bias") is None
    assert graph.constant(graph.nodes[0], "bias") is None
    assert small().nodes[0].operand("bias") == "conv/bias"


def test_two_tensors_of_one_name_cannot_be_built() -> None:
    b = GraphBuilder("small", initialise=no_values)
    b.input("image", (1, 2))
    with pytest.raises(GraphError, match=r"^small: two tensors are named 'image'$"):
        b.input("image", (1, 2))


def test_the_builder_names_the_node_whose_shapes_do_not_fit() -> None:
    b = GraphBuilder("small", initialise=no_values)
    x = b.input("image", (1, 8, 8, 30))
    with pytest.raises(
        ShapeError, match=r"^block_3/expand: groups must divide in_channels; got in_channels=30, groups=4$"
    ):
        b.conv(x, "block_3/expand", 8, kernel_size=1, groups=4)
    with pytest.raises(ShapeError, match=r"^one number, or one for each of 2 dimensions was wanted; got \(1, 2, 3\)$"):
        spread((1, 2, 3), 2)


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1", "mobilenet_v2"])
@pytest.mark.parametrize("batch", [1, 3, None])
def test_another_batch_reaches_every_computed_tensor(name: str, batch: int | None) -> None:
    graph = with_batch(build(name, ZooOptions(resolution=32), values=False), batch)
    validate(graph)
    assert {tensor.shape[0] for tensor in graph.tensors.values() if not tensor.is_constant} == {batch}


def test_a_batch_that_an_operator_ties_to_a_number_is_refused() -> None:
    b = GraphBuilder("tied", initialise=no_values)
    x = b.node("flat", ops.Reshape(shape=(2, 4)), b.input("image", (1, 2, 2, 2)))
    with pytest.raises(ShapeError, match=r"^flat: a reshape keeps the elements; got 2x2x2x2 to 2x4$"):
        with_batch(b.finish({"y": x}), 2)


def test_a_batch_that_is_only_stated_is_taken_from_the_input() -> None:
    b = GraphBuilder("stated", initialise=no_values)
    x = b.node("cut", ops.Slice(begin=(0, 0, 1), end=(1, 4, 2), step=(1, 1, 1)), b.input("image", (1, 4, 3)))
    graph = with_batch(b.finish({"y": b.node("flat", ops.Reshape(shape=(1, 4)), x)}), None)
    assert graph.tensors["flat"].shape == (None, 4)
    assert with_batch(graph, 5).tensors["flat"].shape == (5, 4)


def test_the_batch_behind_an_unknown_operator_cannot_be_changed() -> None:
    b = GraphBuilder("opaque", initialise=no_values)
    x = b.node("node", ops.Opaque(kind="Einsum", shapes=((1, 3),)), b.input("image", (1, 3)))
    with pytest.raises(UnsupportedError, match=r"^node: the batch cannot be changed behind the operator Einsum$"):
        with_batch(b.finish({"y": x}), None)


def chain(count: int) -> list[Node]:
    """Each node also takes what the node before the last gave."""
    return [
        Node(name=f"n{i}", op=ops.Add(), inputs=(f"t{i}", f"t{max(0, i - 1)}"), outputs=(f"t{i + 1}",))
        for i in range(count)
    ]


@given(order=st.permutations(range(7)))
def test_nodes_of_any_order_are_put_in_topological_order(order: list[int]) -> None:
    nodes = chain(7)
    assert in_topological_order([nodes[i] for i in order], {"t0"}) == tuple(nodes)


def test_an_order_that_is_right_already_is_kept() -> None:
    relus = [Node(name=name, op=ops.ReLU(), inputs=("t0",), outputs=(name,)) for name in "dbca"]
    assert in_topological_order(relus, {"t0"}) == tuple(relus)


def test_cycles_and_missing_tensors_are_refused() -> None:
    a = Node(name="a", op=ops.Add(), inputs=("x", "from_b"), outputs=("from_a",))
    b = Node(name="b", op=ops.ReLU(), inputs=("from_a",), outputs=("from_b",))
    with pytest.raises(GraphError, match=r"^a: no earlier node produces 'from_b' \(a cycle, or missing\)$"):
        in_topological_order([a, b], {"x"})
    with pytest.raises(GraphError, match=r"^a: no earlier node produces 'from_b', 'x' \(a cycle, or missing\)$"):
        in_topological_order([a], ())


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 4, 3), (2, 5, 4, 6, 3), (2, 3)])
def test_layouts_there_and_back_again(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape)).reshape(shape)
    outside = to_layout(values, "NCHW")
    assert outside.shape == external_shape(shape, "NCHW")
    assert outside.flags.c_contiguous
    assert_array_equal(from_layout(outside, "NCHW"), values)
    assert to_layout(values, "NHWC") is values
    assert to_layout(values, None) is from_layout(values, None) is values


def test_a_computed_tensor_has_no_value() -> None:
    with pytest.raises(GraphError, match=r"^x: a constant was wanted; this tensor is computed$"):
        Tensor(name="x", shape=(1,)).value()


def test_counting_takes_no_memory_for_the_kernels() -> None:
    kernel = build("mobilenet_v1", values=False).tensors["logits/kernel"].data
    assert kernel is not None
    assert (kernel.shape, kernel.strides) == ((1024, 1000), (0, 0))
    assert not execute(build("lenet5", values=False), {"image": np.ones((1, 32, 32, 1), np.float32)})["logits"].any()
