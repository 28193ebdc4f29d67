"""One graph for each reason for which a pass leaves its pattern alone, and random chains under deployment."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.count import count
from edgecnn.execute import execute
from edgecnn.graph import Graph, Port, validate
from edgecnn.passes import (
    dense_to_convolution,
    flatten_channels_first,
    fold_batch_norm,
    fold_constants,
    fold_padding,
    fold_reshape_into_reduction,
    fuse_activation,
    lower_batch_norm,
    remove_identities,
)
from edgecnn.passes.deploy import deploy
from edgecnn.passes.editor import GraphEditor, Pass
from tests.graphs import Make, image_graph
from tests.test_passes import trained_norm

PLAIN_CONV = ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
REFUSALS: list[tuple[Pass, str, str, Callable[[], Graph]]] = []


def refusal(tried: Pass, node: str, reason: str, *also_outputs: str) -> Callable[[Make], Make]:
    """Register a graph that the pass must leave as it is, with its reason."""

    def register(make: Make) -> Make:
        def graph() -> Graph:
            made = image_graph(make)
            ports = tuple(Port(name=name, tensor=name) for name in also_outputs)
            return replace(made, outputs=(*made.outputs, *ports))

        REFUSALS.append((tried, node, reason, graph))
        return make

    return register


def conv(b: GraphBuilder, x: str, name: str = "conv") -> str:
    return b.conv(x, name, 4, kernel_size=1)


def computed_vector(b: GraphBuilder, x: str) -> str:
    """Four positive numbers that depend on the image."""
    return b.node("vector", ops.Sigmoid(), b.node("mean", ops.Mean(axes=(0, 1, 2)), x))


@refusal(fold_batch_norm.PASS, "norm", "it follows a graph input, not a convolution or dense layer")
def _(b: GraphBuilder, x: str) -> str:
    return trained_norm(b, x, "norm")


@refusal(fold_batch_norm.PASS, "norm", "it follows Tanh, not a convolution or dense layer")
def _(b: GraphBuilder, x: str) -> str:
    return trained_norm(b, b.activate(x, "act", ops.Tanh()), "norm")


@refusal(fold_batch_norm.PASS, "norm", "an activation lies between it and conv")
def _(b: GraphBuilder, x: str) -> str:
    op = replace(PLAIN_CONV, activation=ops.ReLU())
    return trained_norm(b, b.node("conv", op, x, b.constant("k", he_normal(0)("k", (1, 1, 4, 4)))), "norm")


@refusal(fold_batch_norm.PASS, "norm", "the output of conv is used elsewhere too")
def _(b: GraphBuilder, x: str) -> str:
    x = conv(b, x)
    return b.add(x, trained_norm(b, x, "norm"), "sum")


@refusal(fold_batch_norm.PASS, "norm", "the output of conv is used elsewhere too", "conv")
def _(b: GraphBuilder, x: str) -> str:
    return trained_norm(b, conv(b, x), "norm")


@refusal(fold_batch_norm.PASS, "norm", "the parameters of conv are computed, not constant")
def _(b: GraphBuilder, x: str) -> str:
    kernel = b.constant("k", he_normal(0)("k", (1, 1, 4, 4)))
    return trained_norm(b, b.node("conv", PLAIN_CONV, x, kernel, computed_vector(b, x)), "norm")


@refusal(fold_batch_norm.PASS, "norm", "its own parameters are computed, not constant")
@refusal(lower_batch_norm.PASS, "norm", "its parameters are computed, not constant")
def _(b: GraphBuilder, x: str) -> str:
    vectors = [computed_vector(b, x)] * 4
    return b.node("norm", ops.BatchNorm(), conv(b, x), *vectors)


@refusal(fold_batch_norm.PASS, "norm", "the kernel of conv is shared with another layer")
def _(b: GraphBuilder, x: str) -> str:
    kernel = b.constant("k", he_normal(0)("k", (1, 1, 4, 4)))
    left = trained_norm(b, b.node("conv", PLAIN_CONV, x, kernel), "norm")
    return b.add(left, b.node("twin", PLAIN_CONV, x, kernel), "sum")


@refusal(fold_reshape_into_reduction.PASS, "back", "the reduced values are used elsewhere too")
def _(b: GraphBuilder, x: str) -> str:
    pooled = b.node("pooled", ops.Mean(axes=(1, 2)), x)
    return b.add(b.node("back", ops.Reshape(shape=(None, 1, 1, 4)), pooled), pooled, "sum")


@refusal(fuse_activation.PASS, "act/relu", "Softmax cannot carry an activation")
def _(b: GraphBuilder, x: str) -> str:
    return b.activate(b.node("softmax", ops.Softmax(), x), "act", ops.ReLU())


@refusal(fuse_activation.PASS, "act/relu6", "sum has an activation already")
def _(b: GraphBuilder, x: str) -> str:
    return b.activate(b.node("sum", ops.Add(activation=ops.ReLU()), x, x), "act", ops.ReLU6())


@refusal(fuse_activation.PASS, "act/relu", "the output of conv is used elsewhere too")
def _(b: GraphBuilder, x: str) -> str:
    x = conv(b, x)
    return b.add(x, b.activate(x, "act", ops.ReLU()), "sum")


@refusal(fold_padding.PASS, "pad", "it pads with another value than zero")
def _(b: GraphBuilder, x: str) -> str:
    return conv(b, b.node("pad", ops.Pad(padding=((0, 0), (1, 1), (1, 1), (0, 0)), value=1.0), x))


@refusal(fold_padding.PASS, "pad", "it pads the batch or the channels")
def _(b: GraphBuilder, x: str) -> str:
    return conv(b, b.node("pad", ops.Pad(padding=((0, 0), (1, 1), (1, 1), (0, 2))), x))


@refusal(fold_padding.PASS, "pad", "its output is a graph output", "pad")
def _(b: GraphBuilder, x: str) -> str:
    return conv(b, b.node("pad", ops.Pad(padding=((0, 0), (1, 1), (1, 1), (0, 0))), x))


@refusal(fold_padding.PASS, "pad", "act/relu uses it too, and is no convolution over it")
def _(b: GraphBuilder, x: str) -> str:
    x = b.node("pad", ops.Pad(padding=((0, 0), (1, 1), (1, 1), (0, 0))), x)
    return b.add(conv(b, x), b.activate(x, "act", ops.ReLU()), "sum")


@refusal(fold_constants.PASS, "const", "its output is a graph output", "const")
def _(b: GraphBuilder, x: str) -> str:
    return b.add(x, b.node("const", ops.Tanh(), b.constant("c", np.ones(4, np.float32))), "sum")


@refusal(fold_constants.PASS, "grown", "the constant would grow from 4800 to 1440000 bytes")
def _(b: GraphBuilder, x: str) -> str:
    row, column = b.constant("row", np.ones((1, 600), np.float32)), b.constant("column", np.ones((600, 1), np.float32))
    spread = b.node("mean", ops.Mean(axes=(0,)), b.add(row, column, "grown"))
    return b.node("y", ops.Mul(), b.node("wide", ops.Pad(padding=((0, 0),) * 3 + ((0, 596),)), x), spread)


@refusal(fold_constants.PASS, "unknown", "Opaque cannot be executed")
def _(b: GraphBuilder, x: str) -> str:
    op = ops.Opaque(kind="Einsum", shapes=((4,),))
    return b.add(x, b.node("unknown", op, b.constant("c", np.ones(4, np.float32))), "sum")


@refusal(remove_identities.PASS, "same", "it connects a graph input (or constant) to a graph output")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("same", ops.Identity(), x)


@refusal(remove_identities.PASS, "same", "both its sides are graph outputs", "tanh")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("same", ops.Identity(), b.node("tanh", ops.Tanh(), x))


@refusal(dense_to_convolution.PASS, "dense", "its kernel is computed, not constant")
def _(b: GraphBuilder, x: str) -> str:
    kernel = b.node("kernel", ops.Reshape(shape=(4, 1)), computed_vector(b, x))
    return b.node("dense", ops.Dense(), x, kernel)


@refusal(flatten_channels_first.PASS, "flat", "its output is a graph output")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("flat", ops.Reshape(shape=(None, 288)), x)


@refusal(flatten_channels_first.PASS, "flat", "act/relu is no dense layer with a constant kernel")
def _(b: GraphBuilder, x: str) -> str:
    return b.dense(b.activate(b.node("flat", ops.Reshape(shape=(None, 288)), x), "act", ops.ReLU()), "dense", 2)


@pytest.mark.parametrize(("tried", "node", "reason", "make"), REFUSALS, ids=[f"{r[0].name}-{r[2]}" for r in REFUSALS])
def test_a_pass_leaves_its_pattern_alone_and_says_why(
    tried: Pass, node: str, reason: str, make: Callable[[], Graph]
) -> None:
    graph = make()
    result = tried(graph)
    assert result.refused == ((node, reason),)
    assert result.applied == ()
    assert result.graph is graph


@st.composite
def chains(draw: st.DrawFn) -> Graph:
    """A random chain of layers, with residuals, over a 6x6 image of 4 channels."""
    b = GraphBuilder("chain", initialise=he_normal(draw(st.integers(0, 99))))
    x = b.input("image", (None, 6, 6, 4))
    for index in range(draw(st.integers(1, 7))):
        name, before = f"n{index}", x
        kind = draw(
            st.sampled_from(["conv", "dw", "grouped", "pad", "norm", "relu", "tanh", "dropout", "pool", "scale"])
        )
        if kind == "conv":
            x = b.conv(x, name, 4, kernel_size=draw(st.sampled_from([1, 3])), use_bias=draw(st.booleans()))
        elif kind in ("dw", "grouped"):
            x = b.conv(x, name, 4, kernel_size=3, groups=4 if kind == "dw" else 2)
        elif kind == "pad":
            x = b.node(name, ops.Pad(padding=((0, 0), (draw(st.integers(0, 2)), 1), (0, 1), (0, 0))), x)
        elif kind == "norm":
            x = trained_norm(b, x, name)
        elif kind in ("relu", "tanh"):
            x = b.activate(x, name, ops.ReLU() if kind == "relu" else ops.Tanh())
        elif kind == "dropout":
            x = b.node(name, ops.Dropout(rate=0.5), x)
        elif kind == "pool":
            x = b.node(name, ops.AveragePool(kernel_size=(2, 2), stride=(1, 1), padding=((1, 0), (0, 1))), x)
        else:
            x = b.node(
                name, ops.Mul(), x, b.node(f"{name}/c", ops.Sigmoid(), b.constant(f"{name}/v", np.ones(4, "f4")))
            )
        if b.shape(x) == b.shape(before) and draw(st.booleans()):
            x = b.add(before, x, f"{name}/add")
    return b.finish({"result": x})


@given(graph=chains(), seed=st.integers(0, 9))
def test_random_chains_keep_their_outputs_under_deployment(graph: Graph, seed: int) -> None:
    image = np.random.default_rng(seed).standard_normal((2, 6, 6, 4)).astype(np.float32)
    deployed = deploy(graph).graph
    validate(deployed)
    wanted, found = (execute(each, {"image": image})["result"] for each in (graph, deployed))
    assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(wanted).max()))
    assert not deployed.kinds().keys() & {"BatchNorm", "Dropout"}


@given(graph=chains())
def test_tensors_that_keep_their_names_keep_their_values(graph: Graph) -> None:
    image = np.random.default_rng(3).standard_normal((1, 6, 6, 4)).astype(np.float32)
    deployed = deploy(graph).graph
    shared = [name for name, tensor in deployed.tensors.items() if name in graph.tensors and not tensor.is_constant]
    before, after = (execute(each, {"image": image}, fetch=shared) for each in (graph, deployed))
    for name in shared:
        assert_allclose(after[name], before[name], rtol=1e-3, atol=1e-4 * max(1.0, np.abs(before[name]).max()))


@given(graph=chains())
def test_the_count_foretells_the_parameters_of_the_deployed_graph(graph: Graph) -> None:
    cleaned = remove_identities.PASS(graph).graph
    editor = GraphEditor(cleaned)
    kinds = [
        (producer.kind if (producer := editor.producer(node.inputs[0])) else "", node.kind) for node in cleaned.nodes
    ]
    assume(("BatchNorm", "BatchNorm") not in kinds)
    assert count(cleaned).deployed == count(deploy(graph).graph).total
