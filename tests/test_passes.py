"""Each pass in four steps: how many were applied, which nodes remain, numbers equal, graph valid."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Node, Port, validate
from edgecnn.passes import (
    dense_to_convolution,
    fold_batch_norm,
    fold_constants,
    fold_padding,
    fuse_activation,
    lower_batch_norm,
    remove_auxiliary_heads,
    remove_identities,
    volume_pool_in_two_steps,
)
from edgecnn.passes.deploy import DEPLOYMENT, deploy
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.passes.fold_reshape_into_reduction import PASS as FOLD_RESHAPE
from edgecnn.passes.store_float16 import store_float16
from tests.graphs import GRAPHS, image_graph, transposed

IMAGE = np.random.default_rng(7).standard_normal((2, 9, 8, 4)).astype(np.float32)
PAD = ((0, 0), (1, 2), (0, 1), (0, 0))


def run(graph: Graph) -> Array:
    return execute(graph, {"image": IMAGE})["result"]


def four_steps(tried: Pass, graph: Graph, applied: Sequence[str], kinds: Sequence[str]) -> Graph:
    """Apply a pass and check what it did; return the new Graph."""
    result = tried(graph)
    assert result.applied == tuple(applied)
    assert [node.kind for node in result.graph.nodes] == list(kinds)
    assert_allclose(run(result.graph), run(graph), rtol=1e-4, atol=1e-4)
    validate(result.graph)
    assert tried(result.graph).applied == (), "a second time there is nothing left to do"
    return result.graph


def vector(b: GraphBuilder, name: str, size: int, *, low: float = -1.0) -> str:
    rng = np.random.default_rng(len(name))
    return b.constant(name, rng.uniform(low, 2.0, size).astype(np.float32))


def vectors(b: GraphBuilder, rows: int, columns: int) -> str:
    return b.constant("k", he_normal(3)("k", (rows, columns)))


def trained_norm(b: GraphBuilder, x: str, name: str) -> str:
    """A BatchNorm whose parameters are those of no identity."""
    size = b.shape(x)[-1] or 0
    lows = {"gamma": -1.0, "beta": -1.0, "mean": -1.0, "variance": 0.1}
    operands = [vector(b, f"{name}/{operand}", size, low=low) for operand, low in lows.items()]
    return b.node(name, ops.BatchNorm(epsilon=1e-3), x, *operands)


def plain(b: GraphBuilder, x: str) -> str:
    return b.conv(x, "layer", 6, kernel_size=3)


def biased(b: GraphBuilder, x: str) -> str:
    kernel = b.constant("k", he_normal(2)("k", (3, 3, 4, 6)))
    op = ops.Conv(stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 1))
    return b.node("layer", op, x, kernel, vector(b, "bias", 6))


def grouped(b: GraphBuilder, x: str) -> str:
    return b.conv(x, "layer", 6, kernel_size=3, groups=2)


def depthwise(b: GraphBuilder, x: str) -> str:
    return b.depthwise(x, "layer", kernel_size=3, stride=2)


def multiplied(b: GraphBuilder, x: str) -> str:
    return b.conv(x, "layer", 8, kernel_size=3, groups=4)


def dense(b: GraphBuilder, x: str) -> str:
    return b.dense(x, "layer", 5)


def transposed_conv(b: GraphBuilder, x: str) -> str:
    return transposed((3, 2), (2, 2), ((1, 0), (0, 1)), output_padding=(1, 0))(b, x)


@pytest.mark.parametrize("layer", [plain, biased, grouped, depthwise, multiplied, dense, transposed_conv])
def test_batch_norm_folds_into_every_kind_of_layer(layer: Callable[[GraphBuilder, str], str]) -> None:
    graph = image_graph(lambda b, x: trained_norm(b, layer(b, x), "norm"))
    kind = graph.nodes[0].kind
    folded = four_steps(fold_batch_norm.PASS, graph, ["norm"], [kind])
    assert folded.nodes[0].output == "norm", "the layer gives the tensor that the BatchNorm gave"
    assert sum(tensor.is_constant for tensor in folded.tensors.values()) == 2


def test_a_batch_norm_over_a_kernel_stored_in_float16_folds() -> None:
    graph = store_float16(image_graph(lambda b, x: trained_norm(b, plain(b, x), "norm")))
    four_steps(fold_batch_norm.PASS, graph, ["norm"], ["Conv"])


def test_two_batch_norms_in_a_row_both_fold() -> None:
    graph = image_graph(lambda b, x: trained_norm(b, trained_norm(b, plain(b, x), "one"), "second"))
    four_steps(fold_batch_norm.PASS, graph, ["one", "second"], ["Conv"])


def test_batch_norm_is_lowered_to_mul_and_add_and_keeps_its_tensor() -> None:
    graph = image_graph(lambda b, x: trained_norm(b, b.activate(x, "act", ops.ReLU()), "norm"))
    lowered = four_steps(lower_batch_norm.PASS, graph, ["norm"], ["ReLU", "Mul", "Add"])
    assert lowered.nodes[-1].output == "norm"


def test_lowering_takes_no_name_that_another_node_has() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        return trained_norm(b, b.node("norm/scaled", ops.Tanh(), x), "norm")

    four_steps(lower_batch_norm.PASS, image_graph(make), ["norm"], ["Tanh", "Mul", "Add"])


@pytest.mark.parametrize("activation", [ops.ReLU(), ops.ReLU6()])
@pytest.mark.parametrize(
    "layer", [plain, depthwise, dense, lambda b, x: b.add(x, x, "layer")], ids=["conv", "depthwise", "dense", "add"]
)
def test_an_activation_fuses_into_the_layer(
    layer: Callable[[GraphBuilder, str], str], activation: ops.Activation
) -> None:
    graph = image_graph(lambda b, x: b.activate(layer(b, x), "layer", activation))
    fused = four_steps(fuse_activation.PASS, graph, [graph.nodes[-1].name], [graph.nodes[0].kind])
    assert getattr(fused.nodes[0].op, "activation", None) == activation


def test_padding_moves_into_every_convolution_behind_it() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        padded = b.node("pad", ops.Pad(padding=PAD), x)
        left = b.conv(padded, "left", 3, kernel_size=3, padding=((1, 0), (2, 0)))
        return b.add(left, b.conv(padded, "right", 3, kernel_size=3, padding=((1, 0), (2, 0))), "sum")

    folded = four_steps(fold_padding.PASS, image_graph(make), ["pad"], ["Conv", "Conv", "Add"])
    assert [getattr(node.op, "padding", None) for node in folded.nodes[:2]] == [((2, 2), (2, 1))] * 2


def test_what_depends_on_constants_only_is_computed_and_keeps_its_name() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        half = b.add(vector(b, "a", 4), vector(b, "b", 4), "half")
        whole = b.node("whole", ops.Reshape(shape=(1, 1, 1, 4)), half)
        return b.node("result", ops.Mul(), x, whole)

    folded = four_steps(fold_constants.PASS, image_graph(make), ["half", "whole"], ["Mul"])
    assert folded.tensors.keys() == {"image", "whole", "result"}
    assert_array_equal(folded.tensors["whole"].shape, (1, 1, 1, 4))


IDENTITIES = {
    "Dropout": ops.Dropout(rate=0.3),
    "Identity": ops.Identity(),
    "Reshape": ops.Reshape(shape=(None, 9, 8, 4)),
    "Transpose": ops.Transpose(permutation=(0, 1, 2, 3)),
    "Pad": ops.Pad(padding=((0, 0),) * 4, value=3.0),
}


@pytest.mark.parametrize("op", IDENTITIES.values(), ids=IDENTITIES)
def test_an_identity_between_layers_and_one_before_the_output_go(op: ops.Op) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("inner", op, b.node("first", ops.Tanh(), b.node("before", op, x)))
        return b.node("last", op, b.conv(x, "conv", 4, kernel_size=1))

    cleaned = four_steps(remove_identities.PASS, image_graph(make), ["before", "inner", "last"], ["Tanh", "Conv"])
    assert cleaned.outputs[0].tensor == cleaned.nodes[-1].output == "last"


def test_what_also_goes_elsewhere_is_redirected_when_an_output_identity_goes() -> None:
    b = GraphBuilder("forked", initialise=he_normal(0))
    x = b.node("tanh", ops.Tanh(), b.input("image", (1, 9, 8, 4)))
    graph = b.finish({"result": b.node("kept", ops.Identity(), x), "other": b.activate(x, "side", ops.ReLU())})
    cleaned = four_steps(remove_identities.PASS, graph, ["kept"], ["Tanh", "ReLU"])
    assert cleaned.nodes[1].inputs == ("kept",)


def with_auxiliary(*ports: str) -> Graph:
    """A trunk with a head on it and one head before; the named ports are auxiliary."""
    b = GraphBuilder("heads", initialise=he_normal(0))
    x = b.conv(b.input("image", (None, 9, 8, 4)), "trunk", 4, kernel_size=3)
    early = b.node("early/mean", ops.Mean(axes=(1, 2)), b.activate(x, "early", ops.ReLU()))
    late = b.node("late/mean", ops.Mean(axes=(1, 2)), b.activate(x, "late", ops.Tanh()))
    graph = b.finish({"result": b.dense(late, "late/logits", 3), "aux": b.dense(early, "early/logits", 3)})
    outputs = (*graph.outputs, Port(name="again", tensor="late/logits"))
    return replace(graph, outputs=tuple(replace(port, is_auxiliary=port.name in ports) for port in outputs))


def test_an_auxiliary_head_goes_with_all_that_only_it_needs() -> None:
    graph = with_auxiliary("aux")
    kept = four_steps(remove_auxiliary_heads.PASS, graph, ["early/logits"], ["Conv", "Tanh", "Mean", "Dense"])
    assert [port.name for port in kept.outputs] == ["result", "again"]
    assert not any(name.startswith("early") for name in kept.tensors)


def test_what_an_auxiliary_port_shares_with_another_one_stays() -> None:
    kept = four_steps(
        remove_auxiliary_heads.PASS,
        with_auxiliary("again"),
        ["late/logits"],
        ["Conv", "ReLU", "Mean", "Tanh", "Mean", "Dense", "Dense"],
    )
    assert [port.name for port in kept.outputs] == ["result", "aux"]


def test_a_graph_of_auxiliary_heads_only_keeps_them() -> None:
    graph = with_auxiliary("result", "aux", "again")
    result = remove_auxiliary_heads.PASS(graph)
    assert result.graph is graph
    assert {reason for _, reason in result.refused} == {"the Graph has no other output"}


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_a_dense_layer_over_an_image_is_a_convolution_of_kernel_size_1(half: bool) -> None:
    graph = image_graph(
        lambda b, x: b.node("y", ops.Dense(activation=ops.ReLU()), x, vectors(b, 4, 5), vector(b, "c", 5))
    )
    turned = four_steps(dense_to_convolution.PASS, store_float16(graph) if half else graph, ["y"], ["Conv"])
    kernel = turned.tensors["y/kernel_of_1"]
    assert (kernel.shape, kernel.dtype) == ((1, 1, 4, 5), "float32")
    assert str(kernel.data.dtype) == ("float16" if half else "float32")  # type: ignore[union-attr]


def test_float16_storage_rounds_all_but_what_would_become_infinite() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("large", ops.Mul(), x, b.constant("beyond", np.array([65505.0], np.float32)))
        return b.node("small", ops.Mul(), x, b.constant("within", np.array([1 / 3], np.float32)))

    graph = image_graph(make)
    stored = store_float16(graph)
    validate(stored)
    assert [str(stored.tensors[name].data.dtype) for name in ("beyond", "within")] == ["float32", "float16"]  # type: ignore[union-attr]
    assert stored.tensors["within"].value().item() == float(np.float16(1 / 3))
    assert_allclose(run(stored), run(graph), rtol=1e-3)


def test_deployment_leaves_a_trained_block_as_its_layers_alone() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("pad", ops.Pad(padding=((0, 0), (0, 1), (0, 1), (0, 0))), x)
        x = b.conv(x, "stem", 8, kernel_size=3, stride=2, padding="valid")
        x = b.activate(trained_norm(b, b.node("stem/drop", ops.Dropout(rate=0.5), x), "stem/bn"), "stem", ops.ReLU6())
        shortcut, x = x, b.activate(trained_norm(b, b.depthwise(x, "dw", kernel_size=3), "dw/bn"), "dw", ops.ReLU6())
        x = b.add(shortcut, x, "sum")
        return b.dense(b.node("drop", ops.Dropout(rate=0.1), b.node("mean", ops.Mean(axes=(1, 2)), x)), "logits", 3)

    graph = image_graph(make)
    deployed = deploy(graph)
    assert [node.kind for node in deployed.graph.nodes] == ["Conv", "Conv", "Add", "Mean", "Dense"]
    assert {name: times for name, times in deployed.applied.items() if times} == {
        "remove_identities": 2,
        "fold_padding": 1,
        "fold_batch_norm": 2,
        "fuse_activation": 2,
    }
    assert deployed.refused == ()
    assert [each.name for each in DEPLOYMENT] == list(deployed.applied)
    assert_allclose(run(deployed.graph), run(graph), rtol=1e-4, atol=1e-5)


def test_the_editor_keeps_a_name_free_of_tensors_and_nodes() -> None:
    editor = GraphEditor(image_graph(plain))
    assert [editor.free_name(name) for name in ("layer", "layer/kernel", "new")] == ["layer_2", "layer/kernel_2", "new"]
    editor.put(Node(name="renamed", op=ops.Tanh(), inputs=("layer",), outputs=("other",)))
    assert editor.free_name("renamed") == "renamed_2"


def test_a_removed_node_whose_output_is_still_used_does_not_pass_unnoticed() -> None:
    editor = GraphEditor(image_graph(lambda b, x: b.activate(plain(b, x), "act", ops.ReLU())))
    editor.remove(editor.nodes["layer"])
    with pytest.raises(ValueError, match=r"^act/relu: no earlier node produces 'layer' \(a cycle, or missing\)$"):
        editor.finish()


def test_the_graph_that_a_pass_is_given_stays_as_it_was() -> None:
    graph = image_graph(lambda b, x: trained_norm(b, plain(b, x), "norm"))
    nodes, tensors = graph.nodes, dict(graph.tensors)
    deploy(graph)
    assert (graph.nodes, dict(graph.tensors)) == (nodes, tensors)


@pytest.mark.parametrize("kind", [ops.Mean, ops.Sum, ops.Max])
def test_a_reshape_that_puts_reduced_axes_back_goes(kind: type[ops.Mean] | type[ops.Sum] | type[ops.Max]) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        pooled = b.node("pooled", kind(axes=(1, 2)), x)
        gate = b.node("gate", ops.Sigmoid(), b.node("back", ops.Reshape(shape=(None, 1, 1, 4)), pooled))
        return b.node("y", ops.Mul(), x, gate)

    four_steps(FOLD_RESHAPE, image_graph(make), ["back"], [kind.__name__, "Sigmoid", "Mul"])


def test_a_reshape_to_another_shape_stays() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        return b.node("y", ops.Reshape(shape=(None, 2, 2)), b.node("pooled", ops.Mean(axes=(1, 2)), x))

    assert FOLD_RESHAPE(image_graph(make)).applied == ()


@pytest.mark.parametrize("name", ["max_pool_3d", "average_pool_3d"])
def test_a_pool_over_volumes_becomes_two_over_pictures(name: str) -> None:
    graph, volume = GRAPHS[name], np.random.default_rng(8).standard_normal((2, 5, 6, 7, 2), dtype=np.float32)
    result = volume_pool_in_two_steps.PASS(graph)
    kind = graph.nodes[0].kind
    assert result.applied == ("y",)
    assert [node.kind for node in result.graph.nodes] == ["Reshape", kind, "Reshape", kind, "Reshape"]
    found, wanted = (execute(each, {"image": volume})["result"] for each in (result.graph, graph))
    assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    validate(result.graph)
    assert volume_pool_in_two_steps.PASS(result.graph).applied == ()
