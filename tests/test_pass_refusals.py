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
    focus_to_space_to_depth,
    fold_batch_norm,
    fold_constants,
    fold_gather_into_layer,
    fold_padding,
    fold_reshape_into_reduction,
    fold_scale_before_layer,
    fold_scale_into_layer,
    fuse_activation,
    fuse_l2_normalize,
    fuse_layer_norm,
    fuse_prelu,
    fuse_swish,
    global_pool_as_mean,
    lower_batch_norm,
    merge_padding,
    merge_reshapes,
    remove_identities,
)
from edgecnn.passes.deploy import deploy
from edgecnn.passes.editor import GraphEditor, Pass
from tests.graphs import Make, image_graph, transposed
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


@refusal(fold_padding.PASS, "pad", "it repeats the picture instead of padding with zeros")
def _(b: GraphBuilder, x: str) -> str:
    return conv(b, b.node("pad", ops.Pad(padding=((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"), x))


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


SPATIAL = ((0, 0), (1, 1), (1, 1), (0, 0))
AVERAGE = ops.AveragePool(kernel_size=(2, 2), stride=(1, 1), padding=((0, 0), (0, 0)))
LARGEST = ops.MaxPool(kernel_size=(2, 2), stride=(1, 1), padding=((0, 0), (0, 0)))


def numbers(b: GraphBuilder, name: str, *values: float) -> str:
    return b.constant(name, np.array(values, np.float32))


@refusal(fuse_swish.PASS, "y", "gate inside it is used elsewhere too", "gate")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("y", ops.Mul(), x, b.node("gate", ops.Sigmoid(), x))


@refusal(fuse_swish.PASS, "y", "gate inside it is used elsewhere too")
def _(b: GraphBuilder, x: str) -> str:
    gate = b.node("gate", ops.Sigmoid(), x)
    return b.add(b.node("y", ops.Mul(), x, gate), gate, "sum")


@refusal(fuse_swish.PASS, "y", "its constants broadcast the input to another shape")
def _(b: GraphBuilder, x: str) -> str:
    mean = b.node("mean", ops.Mean(axes=(0, 1, 2)), x)
    scaled = b.node("scaled", ops.Mul(), b.node("gate", ops.Sigmoid(), mean), b.constant("ones", np.ones((3, 1), "f4")))
    return b.node("y", ops.Mul(), mean, scaled)


def layer_norm_of(b: GraphBuilder, x: str, epsilon: float, gamma: str | None = None) -> str:
    mean = b.node("mean", ops.Mean(axes=(3,), keep_dims=True), x)
    centred = b.node("centred", ops.Sub(), x, mean)
    square = b.node("square", ops.Mul(), centred, centred)
    variance = b.node("variance", ops.Mean(axes=(3,), keep_dims=True), square)
    root = b.node("root", ops.Rsqrt(), b.node("spread", ops.Add(), variance, numbers(b, "epsilon", epsilon)))
    if gamma is None:
        return b.node("y", ops.Mul(), centred, root)
    scale = b.node("scale", ops.Mul(), root, gamma)
    shift = b.node("shift", ops.Sub(), numbers(b, "beta", 1.0, 2, 3, 4), b.node("moved", ops.Mul(), mean, scale))
    return b.node("y", ops.Add(), b.node("scaled", ops.Mul(), x, scale), shift)


@refusal(fuse_layer_norm.PASS, "y", "its epsilon is not positive")
def _(b: GraphBuilder, x: str) -> str:
    return layer_norm_of(b, x, 0.0)


@refusal(fuse_layer_norm.PASS, "y", "its gamma is not one number for each channel")
def _(b: GraphBuilder, x: str) -> str:
    gamma = np.linspace(1, 2, 8, dtype=np.float32).reshape(1, 1, 8, 1)
    return layer_norm_of(b, x, 1e-3, b.constant("gamma", gamma))


@refusal(fuse_l2_normalize.PASS, "y", "its epsilon is not positive")
def _(b: GraphBuilder, x: str) -> str:
    energy = b.node("energy", ops.Sum(axes=(3,), keep_dims=True), b.node("square", ops.Mul(), x, x))
    return b.node("y", ops.Div(), x, b.node("norm", ops.ReLU(), b.node("root", ops.Sqrt(), energy)))


@refusal(fuse_prelu.PASS, "y", "the larger of x and 2 x is no leaky rectifier")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("y", ops.Maximum(), x, b.node("twice", ops.Mul(), x, numbers(b, "two", 2)))


@refusal(fuse_prelu.PASS, "y", "its slopes differ between pictures")
def _(b: GraphBuilder, x: str) -> str:
    pictures = b.node("pictures", ops.Reshape(shape=(2, 36, 4)), x)
    slopes = b.constant("slopes", np.array([0.1, 0.2], np.float32).reshape(2, 1, 1))
    mirrored = b.node("mirrored", ops.ReLU(), b.node("minus", ops.Neg(), pictures))
    scaled = b.node("scaled", ops.Mul(), mirrored, slopes)
    return b.node("y", ops.Sub(), b.node("positive", ops.ReLU(), pictures), scaled)


@refusal(fold_scale_into_layer.PASS, "y", "an activation lies between it and conv")
def _(b: GraphBuilder, x: str) -> str:
    kernel = b.constant("k", he_normal(0)("k", (1, 1, 4, 4)))
    x = b.node("conv", replace(PLAIN_CONV, activation=ops.ReLU()), x, kernel)
    return b.node("y", ops.Mul(), x, numbers(b, "two", 2))


@refusal(fold_scale_into_layer.PASS, "y", "the output of conv is used elsewhere too", "conv")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("y", ops.Mul(), conv(b, x), numbers(b, "two", 2))


@refusal(fold_scale_into_layer.PASS, "y", "the parameters of conv are computed, not constant")
def _(b: GraphBuilder, x: str) -> str:
    kernel = b.constant("k", he_normal(0)("k", (1, 1, 4, 4)))
    return b.node("y", ops.Add(), b.node("conv", PLAIN_CONV, x, kernel, computed_vector(b, x)), numbers(b, "two", 2))


@refusal(fold_scale_into_layer.PASS, "y", "the kernel of conv is shared with another layer")
@refusal(fold_scale_before_layer.PASS, "twin", "the kernel of twin is shared with another layer")
def _(b: GraphBuilder, x: str) -> str:
    kernel = b.constant("k", he_normal(0)("k", (1, 1, 4, 4)))
    scaled = b.node("y", ops.Mul(), b.node("conv", PLAIN_CONV, x, kernel), numbers(b, "two", 2))
    return b.node("twin", PLAIN_CONV, scaled, kernel)


@refusal(fold_scale_into_layer.PASS, "y", "LayerNorm cannot carry its activation")
def _(b: GraphBuilder, x: str) -> str:
    gamma, beta = numbers(b, "gamma", 1, 2, 3, 4), numbers(b, "beta", 1, 2, 3, 4)
    x = b.node("norm", ops.LayerNorm(), x, gamma, beta)
    return b.node("y", ops.Mul(activation=ops.ReLU()), x, numbers(b, "two", 2))


@refusal(fold_scale_before_layer.PASS, "conv", "an activation lies between scaled and it")
def _(b: GraphBuilder, x: str) -> str:
    return conv(b, b.node("scaled", ops.Mul(activation=ops.ReLU()), x, numbers(b, "two", 2)))


@refusal(fold_scale_before_layer.PASS, "conv", "the output of scaled is used elsewhere too", "scaled")
def _(b: GraphBuilder, x: str) -> str:
    return conv(b, b.node("scaled", ops.Mul(), x, numbers(b, "two", 2)))


@refusal(fold_scale_before_layer.PASS, "conv", "scaled shifts what it pads with zeros")
def _(b: GraphBuilder, x: str) -> str:
    return b.conv(b.node("scaled", ops.Add(), x, numbers(b, "two", 2)), "conv", 4, kernel_size=3)


@refusal(
    fold_scale_before_layer.PASS,
    "y",
    "the borders of a transposed convolution see scaled shift only a part of the kernel",
)
def _(b: GraphBuilder, x: str) -> str:
    return transposed((3, 3), (2, 2), ((0, 0), (0, 0)))(b, b.node("scaled", ops.Add(), x, numbers(b, "two", 2)))


@refusal(fold_scale_before_layer.PASS, "conv", "the parameters of conv are computed, not constant")
def _(b: GraphBuilder, x: str) -> str:
    kernel, bias = b.constant("k", he_normal(0)("k", (1, 1, 4, 4))), computed_vector(b, x)
    return b.node("conv", PLAIN_CONV, b.node("scaled", ops.Mul(), x, numbers(b, "two", 2)), kernel, bias)


@refusal(merge_padding.PASS, "pool", "pad does not pad with one value")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("pool", LARGEST, b.node("pad", ops.Pad(padding=SPATIAL, mode="edge"), x))


@refusal(merge_padding.PASS, "pool", "pad pads the batch or the channels")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("pool", AVERAGE, b.node("pad", ops.Pad(padding=((0, 0), (1, 1), (1, 1), (0, 2))), x))


@refusal(merge_padding.PASS, "pool", "the output of pad is used elsewhere too", "pad")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("pool", AVERAGE, b.node("pad", ops.Pad(padding=SPATIAL), x))


@refusal(merge_padding.PASS, "pool", "a window would lie in the padding alone")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("pool", AVERAGE, b.node("pad", ops.Pad(padding=((0, 0), (2, 0), (0, 0), (0, 0))), x))


@refusal(merge_padding.PASS, "pool", "its own padding is not counted")
def _(b: GraphBuilder, x: str) -> str:
    own = replace(AVERAGE, padding=((0, 0), (0, 1)))
    return b.node("pool", own, b.node("pad", ops.Pad(padding=((0, 0), (1, 0), (0, 0), (0, 0))), x))


@refusal(merge_padding.PASS, "pool", "pad pads with another value than zero")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("pool", AVERAGE, b.node("pad", ops.Pad(padding=SPATIAL, value=1.0), x))


@refusal(merge_padding.PASS, "pool", "the 0 of pad may be larger than what it pads")
def _(b: GraphBuilder, x: str) -> str:
    return b.node("pool", LARGEST, b.node("pad", ops.Pad(padding=SPATIAL), x))


def cut(b: GraphBuilder, x: str, name: str, begin: tuple[int, int], end: tuple[int, int], step: int) -> str:
    return b.node(name, ops.Slice(begin=(0, *begin, 0), end=(None, *end, None), step=(1, step, step, 1)), x)


@refusal(merge_reshapes.PASS, "inner", "several take the crop before it", "crop")
def _(b: GraphBuilder, x: str) -> str:
    return cut(b, cut(b, x, "crop", (0, 0), (8, 8), 1), "inner", (0, 0), (8, 8), 2)


@refusal(focus_to_space_to_depth.PASS, "y", "it does not join each position of a block once")
def _(b: GraphBuilder, x: str) -> str:
    parts = [cut(b, x, f"part{row}{column}", (row, column), (8, 8), 2) for row, column in ((0, 0), (0, 1), (1, 0))]
    return b.node("y", ops.Concat(axis=3), *parts, parts[0])


@refusal(focus_to_space_to_depth.PASS, "y", "blocks of 2 do not cover 9x8")
def _(b: GraphBuilder, x: str) -> str:
    parts = [cut(b, x, f"part{row}{column}", (row, column), (8, 8), 2) for row in (0, 1) for column in (0, 1)]
    return b.node("y", ops.Concat(axis=3), *parts)


@refusal(focus_to_space_to_depth.PASS, "y", "its slices leave a part out")
def _(b: GraphBuilder, x: str) -> str:
    x = b.node("even", ops.Pad(padding=((0, 0), (0, 1), (0, 0), (0, 0))), x)
    parts = [cut(b, x, f"part{row}{column}", (row, column), (8, 8), 2) for row in (0, 1) for column in (0, 1)]
    return b.node("y", ops.Concat(axis=3), *parts)


NO_LAYER = "no convolution or dense layer of one group and constant parameters stands next to it"


@refusal(fold_gather_into_layer.PASS, "y", NO_LAYER)
def _(b: GraphBuilder, x: str) -> str:
    x = b.depthwise(x, "dw", kernel_size=3)
    return b.node("y", ops.Gather(axis=3), x, b.constant("order", np.array([2, 0, 1, 3])))


@refusal(fold_gather_into_layer.PASS, "ordered", NO_LAYER, "conv")
def _(b: GraphBuilder, x: str) -> str:
    ordered = b.node("ordered", ops.Gather(axis=3), conv(b, x), b.constant("order", np.array([2, 0, 1, 3])))
    return b.add(conv(b, ordered, "twin"), ordered, "y")


@refusal(global_pool_as_mean.PASS, "y", "a mean cannot carry its activation")
def _(b: GraphBuilder, x: str) -> str:
    op = ops.AveragePool(kernel_size=(9, 8), stride=(1, 1), padding=((0, 0), (0, 0)), activation=ops.ReLU())
    return b.node("y", op, x)


@refusal(global_pool_as_mean.PASS, "y", "it counts its padding")
def _(b: GraphBuilder, x: str) -> str:
    padding = ((1, 0), (0, 0))
    op = ops.AveragePool(kernel_size=(10, 8), stride=(1, 1), padding=padding, count_include_pad=True)
    return b.node("y", op, x)


@pytest.mark.parametrize(("tried", "node", "reason", "make"), REFUSALS, ids=[f"{r[0].name}-{r[2]}" for r in REFUSALS])
def test_a_pass_leaves_its_pattern_alone_and_says_why(
    tried: Pass, node: str, reason: str, make: Callable[[], Graph]
) -> None:
    graph = make()
    result = tried(graph)
    assert result.refused == ((node, reason),)
    assert result.applied == ()
    assert result.graph is graph


def hard_swish(b: GraphBuilder, x: str, name: str) -> str:
    gate = b.node(f"{name}/gate", ops.Add(activation=ops.ReLU6()), x, numbers(b, f"{name}/3", 3))
    return b.node(name, ops.Div(), b.node(f"{name}/product", ops.Mul(), gate, x), numbers(b, f"{name}/6", 6))


def reordered(b: GraphBuilder, x: str, name: str) -> str:
    return b.node(name, ops.Gather(axis=3), x, b.constant(f"{name}/order", np.array([2, 0, 3, 1])))


def shifted(op: ops.Op) -> Callable[[GraphBuilder, str, str], str]:
    return lambda b, x, name: b.node(name, op, x, numbers(b, f"{name}/numbers", 0.5, -1, 2, 1))


IDIOMS: dict[str, Callable[[GraphBuilder, str, str], str]] = {
    "hard_swish": hard_swish,
    "reordered": reordered,
    "add": shifted(ops.Add()),
    "sub": shifted(ops.Sub()),
    "mul": shifted(ops.Mul()),
    "div": shifted(ops.Div(activation=ops.ReLU())),
    "max_pool": lambda b, x, name: b.node(name, LARGEST, x),
    "flip": lambda b, x, name: b.node(name, ops.Transpose(permutation=(0, 2, 1, 3)), x),
    "crop": lambda b, x, name: (
        b.node(name, ops.Slice(begin=(0, 1, 0, 0), end=(None,) * 4, step=(1, 1, 1, 1)), x)
        if (b.shape(x)[1] or 0) > 3
        else x
    ),
}


SIMPLE = {"dropout": lambda b, x, name: b.node(name, ops.Dropout(rate=0.5), x), **IDIOMS}


@st.composite
def chains(draw: st.DrawFn, idioms: tuple[str, ...] = ()) -> Graph:
    """A random chain of layers (and idioms), with residuals, over a 6x6 image of 4 channels."""
    b = GraphBuilder("chain", initialise=he_normal(draw(st.integers(0, 99))))
    x = b.input("image", (None, 6, 6, 4))
    for index in range(draw(st.integers(1, 7))):
        name, before = f"n{index}", x
        kind = draw(
            st.sampled_from(
                ["conv", "dw", "grouped", "pad", "norm", "relu", "tanh", "dropout", "pool", "scale", *idioms]
            )
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
        elif kind == "pool":
            x = b.node(name, ops.AveragePool(kernel_size=(2, 2), stride=(1, 1), padding=((1, 0), (0, 1))), x)
        elif kind in SIMPLE:
            x = SIMPLE[kind](b, x, name)
        else:
            x = b.node(
                name, ops.Mul(), x, b.node(f"{name}/c", ops.Sigmoid(), b.constant(f"{name}/v", np.ones(4, "f4")))
            )
        if b.shape(x) == b.shape(before) and draw(st.booleans()):
            x = b.add(before, x, f"{name}/add")
    return b.finish({"result": x})


def same_values(graph: Graph, seed: int) -> Graph:
    """Deploy a graph, check that its output stays, and return it deployed."""
    image = np.random.default_rng(seed).standard_normal((2, 6, 6, 4)).astype(np.float32)
    deployed = deploy(graph).graph
    validate(deployed)
    wanted, found = (execute(each, {"image": image})["result"] for each in (graph, deployed))
    assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(wanted).max()))
    return deployed


@given(graph=chains(), seed=st.integers(0, 9))
def test_random_chains_keep_their_outputs_under_deployment(graph: Graph, seed: int) -> None:
    deployed = same_values(graph, seed)
    assert not deployed.kinds().keys() & {"BatchNorm", "Dropout"}


@given(graph=chains(idioms=tuple(IDIOMS)), seed=st.integers(0, 9))
def test_random_chains_of_idioms_keep_their_outputs_under_deployment(graph: Graph, seed: int) -> None:
    same_values(graph, seed)


@given(graph=chains(idioms=tuple(IDIOMS)))
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
    deployed = deploy(graph)
    assume(not deployed.applied["fold_scale_into_layer"] and not deployed.applied["fold_scale_before_layer"])
    assert count(cleaned).deployed == count(deployed.graph).total
