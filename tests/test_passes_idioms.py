"""The passes that know the idioms of files that users bring: each idiom in every spelling becomes one operator."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from math import pi, sqrt

import numpy as np
import pytest
from numpy.testing import assert_allclose

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.graph import Graph, validate
from edgecnn.passes import (
    focus_to_space_to_depth,
    fold_gather_into_layer,
    fold_reshape_into_reduction,
    fold_scale_before_layer,
    fold_scale_into_layer,
    fuse_gelu,
    fuse_hard_sigmoid,
    fuse_hard_swish,
    fuse_l2_normalize,
    fuse_layer_norm,
    fuse_prelu,
    fuse_swish,
    global_pool_as_mean,
    merge_padding,
    merge_reshapes,
    pattern,
    remove_identities,
)
from edgecnn.passes.deploy import deploy
from edgecnn.passes.editor import GraphEditor
from tests.graphs import Make, image_graph, layer_norm_named
from tests.test_passes import biased, dense, depthwise, four_steps, grouped, multiplied, plain, run, transposed_conv

ZERO_PADDING = ((0, 0), (1, 1), (1, 0), (0, 0))


class Expression:
    """Builds small expressions: every call adds one node with a name of its own; a number becomes a constant."""

    def __init__(self, b: GraphBuilder) -> None:
        self.b, self.nodes, self.constants = b, 0, 0

    def __call__(self, op: ops.Op, *operands: str | float | Sequence[float]) -> str:
        self.nodes += 1
        return self.b.node(f"n{self.nodes}", op, *map(self.tensor, operands))

    def tensor(self, operand: str | float | Sequence[float]) -> str:
        if isinstance(operand, str):
            return operand
        self.constants += 1
        return self.b.constant(f"c{self.constants}", np.asarray(operand, np.float32))

    def mul(self, a: str | float | Sequence[float], b: str | float | Sequence[float]) -> str:
        return self(ops.Mul(), a, b)

    def add(self, a: str | float | Sequence[float], b: str | float | Sequence[float]) -> str:
        return self(ops.Add(), a, b)

    def sub(self, a: str | float | Sequence[float], b: str | float | Sequence[float]) -> str:
        return self(ops.Sub(), a, b)

    def div(self, a: str | float | Sequence[float], b: str | float | Sequence[float]) -> str:
        return self(ops.Div(), a, b)


Spelling = Callable[[Expression, str], str]


def spelled(spelling: Spelling) -> Graph:
    return image_graph(lambda b, x: spelling(Expression(b), x))


def named(rows: dict[str, Spelling]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("spelling", rows.values(), ids=rows)


def scaled_by(scale: Spelling, spelling: Spelling) -> Spelling:
    """Scale a spelled value."""
    return lambda e, x: scale(e, spelling(e, x))


def in_order(order: Sequence[str], gate: Spelling, scalar: float) -> Spelling:
    """Multiply x, its gate and a scalar ("x", "g", "s") in this order."""

    def product(e: Expression, x: str) -> str:
        factors = {"x": x, "g": gate(e, x), "s": e.tensor(scalar)}
        first, second, third = (factors[name] for name in order)
        return e.mul(first, e.mul(second, third))

    return product


Slope = float | list[float]


def with_slope(spelling: Callable[[Expression, str, Slope], str], slope: Slope) -> Spelling:
    return lambda e, x: spelling(e, x, slope)


SWISHES: dict[str, Spelling] = {
    "x first": lambda e, x: e.mul(x, e(ops.Sigmoid(), x)),
    "x last": lambda e, x: e.mul(e(ops.Sigmoid(), x), x),
}
RELU6_OF_3_MORE: dict[str, Spelling] = {
    "clip": lambda e, x: e(ops.Clip(minimum=0, maximum=6), e.add(x, 3)),
    "clip of 3 + x": lambda e, x: e(ops.Clip(minimum=0, maximum=6), e.add(3, x)),
    "relu6": lambda e, x: e(ops.ReLU6(), e.add(x, [3, 3, 3, 3])),
    "fused": lambda e, x: e(ops.Add(activation=ops.ReLU6()), x, 3),
    "minimum of maximum": lambda e, x: e(ops.Minimum(), e(ops.Maximum(), e.add(x, 3), 0), 6),
    "minimum of relu": lambda e, x: e(ops.Minimum(), 6, e(ops.ReLU(), e.add(x, 3))),
}


@named(SWISHES)
def test_swish(spelling: Spelling) -> None:
    four_steps(fuse_swish.PASS, spelled(spelling), ["n2"], ["Swish"])


def test_a_product_with_a_sigmoid_of_something_else_is_no_swish() -> None:
    graph = spelled(lambda e, x: e.mul(x, e(ops.Sigmoid(), e(ops.Tanh(), x))))
    assert fuse_swish.PASS(graph).graph is graph


@named(RELU6_OF_3_MORE)
def test_hard_sigmoid_and_hard_swish_in_each_spelling_of_their_clip(spelling: Spelling) -> None:
    for scale in (lambda e, y: e.div(y, 6), lambda e, y: e.mul(y, 1 / 6), lambda e, y: e.mul(0.16667, y)):
        sigmoid = spelled(scaled_by(scale, spelling))
        four_steps(fuse_hard_sigmoid.PASS, sigmoid, [sigmoid.nodes[-1].name], ["HardSigmoid"])
    for order in permutations("xgs"):
        swish = spelled(in_order(order, spelling, 1 / 6))
        four_steps(fuse_hard_swish.PASS, swish, [swish.nodes[-1].name], ["HardSwish"])


@named(
    {
        "divided": lambda e, x: e.div(e.mul(x, e(ops.Clip(minimum=0, maximum=6), e.add(x, 3))), 6),
        "gate divided": lambda e, x: e.mul(x, e.div(e(ops.ReLU6(), e.add(x, 3)), 6)),
        "x divided": lambda e, x: e.mul(e.div(x, 6), e(ops.ReLU6(), e.add(x, 3))),
        "hard sigmoid": lambda e, x: e.mul(e(ops.HardSigmoid(), x), x),
        "hard sigmoid as PyTorch prints it": lambda e, x: e.mul(x, e(ops.HardSigmoid(slope=0.1666667), x)),
    }
)
def test_hard_swish(spelling: Spelling) -> None:
    graph = spelled(spelling)
    four_steps(fuse_hard_swish.PASS, graph, [graph.nodes[-1].name], ["HardSwish"])


def test_a_hard_sigmoid_of_another_slope_is_no_hard_swish() -> None:
    graph = spelled(lambda e, x: e.mul(x, e(ops.HardSigmoid(slope=0.2), x)))
    assert fuse_hard_swish.PASS(graph).graph is graph


def test_hard_sigmoid_clipped_at_one() -> None:
    graph = spelled(lambda e, x: e(ops.Clip(minimum=0, maximum=1), e.add(e.mul(x, 1 / 6), 0.5)))
    four_steps(fuse_hard_sigmoid.PASS, graph, ["n3"], ["HardSigmoid"])


def test_what_the_hard_swish_is_taken_of_may_be_a_product_itself() -> None:
    def make(e: Expression, x: str) -> str:
        scaled = e.mul(e.mul(x, 2), [1, 2, 3, 4])
        return e.mul(scaled, e.mul(e(ops.ReLU6(), e.add(scaled, 3)), 1 / 6))

    four_steps(fuse_hard_swish.PASS, spelled(make), ["n6"], ["Mul", "Mul", "HardSwish"])


GATES: dict[str, Spelling] = {
    "divided": lambda e, x: e.add(e(ops.Erf(), e.div(x, sqrt(2))), 1),
    "multiplied": lambda e, x: e.add(1, e(ops.Erf(), e.mul(x, 0.70710677))),
    "tanh of a power": lambda e, x: e.add(
        1, e(ops.Tanh(), e.mul(sqrt(2 / pi), e.add(x, e.mul(0.044715, e(ops.Pow(), x, 3)))))
    ),
    "tanh of products": lambda e, x: e.add(
        e(ops.Tanh(), e.mul(e.add(e.mul(e.mul(e.mul(x, x), x), 0.044715), x), 0.797885)), 1
    ),
    "tanh factored out": lambda e, x: e.add(
        e(ops.Tanh(), e.mul(e.mul(x, 0.797885), e.add(e.mul(e.mul(0.044715, x), x), 1))), 1
    ),
}


@named(GATES)
def test_gelu_in_every_order_of_its_product(spelling: Spelling) -> None:
    for order in permutations("xgs"):
        graph = spelled(in_order(order, spelling, 0.5))
        fused = four_steps(fuse_gelu.PASS, graph, [graph.nodes[-1].name], ["GELU"])
        assert fused.nodes[0].op == ops.GELU(approximate="Tanh" in graph.kinds())


@named(
    {
        "PyTorch's halving last": lambda e, x: e.div(e.mul(x, GATES["divided"](e, x)), 2),
        "half of x first": lambda e, x: e.mul(e.mul(x, 0.5), GATES["divided"](e, x)),
    }
)
def test_gelu_in_other_associations(spelling: Spelling) -> None:
    graph = spelled(spelling)
    four_steps(fuse_gelu.PASS, graph, [graph.nodes[-1].name], ["GELU"])


LAST, KEPT = (3,), ops.Mean(axes=(3,), keep_dims=True)
GAMMA, BETA = [0.5, 1.5, -1.0, 2.0], [1.0, -2.0, 0.0, 0.5]
SQUARES: dict[str, Spelling] = {"power": lambda e, c: e(ops.Pow(), c, 2), "product": lambda e, c: e.mul(c, c)}
NORMALS: dict[str, Callable[[Expression, str, str], str]] = {
    "divided by the root": lambda e, c, v: e.div(c, e(ops.Sqrt(), v)),
    "divided by the power": lambda e, c, v: e.div(c, e(ops.Pow(), v, 0.5)),
    "times rsqrt": lambda e, c, v: e.mul(c, e(ops.Rsqrt(), v)),
    "times one by the root": lambda e, c, v: e.mul(e.div(1, e(ops.Sqrt(), v)), c),
}


@pytest.mark.parametrize("normal", NORMALS.values(), ids=NORMALS)
@pytest.mark.parametrize("square", SQUARES.values(), ids=SQUARES)
def test_layer_norm_and_the_gamma_and_beta_behind_it(
    square: Spelling, normal: Callable[[Expression, str, str], str]
) -> None:
    def make(e: Expression, x: str) -> str:
        centred = e.sub(x, e(KEPT, x))
        return normal(e, centred, e.add(e(KEPT, square(e, centred)), 1e-5))

    graph = spelled(make)
    fused = four_steps(fuse_layer_norm.PASS, graph, [graph.nodes[-1].name], ["LayerNorm"])
    assert fused.nodes[0].op.epsilon == pytest.approx(1e-5)  # type: ignore[attr-defined]
    graph = spelled(lambda e, x: e.add(e.mul(GAMMA, make(e, x)), BETA))
    assert list(deploy(graph).graph.kinds()) == ["LayerNorm"]
    assert_allclose(run(deploy(graph).graph), run(graph), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gamma", [None, GAMMA], ids=["no gamma", "gamma"])
def test_layer_norm_as_tensorflow_spells_it(gamma: list[float] | None) -> None:
    def make(e: Expression, x: str) -> str:
        mean = e(KEPT, x)
        centred = e.sub(x, mean)
        scale = e(ops.Rsqrt(), e.add(e(KEPT, e.mul(centred, centred)), 1e-3))
        scale = scale if gamma is None else e.mul(scale, gamma)
        return e.add(e.mul(x, scale), e.sub(BETA, e.mul(mean, scale)))

    graph = spelled(make)
    four_steps(fuse_layer_norm.PASS, graph, [graph.nodes[-1].name], ["LayerNorm"])


ENERGY = ops.Sum(axes=(3,), keep_dims=True)
LENGTHS: dict[str, Spelling] = {
    "PyTorch": lambda e, x: e.div(x, e(ops.Clip(minimum=1e-2, maximum=3.4e38), e(ops.Sqrt(), e(ENERGY, e.mul(x, x))))),
    "spread": lambda e, x: e.div(
        x, e(ops.Tile(multiples=(1, 1, 1, 4)), e(ops.Maximum(), e(ops.Sqrt(), e(ENERGY, e.mul(x, x))), 1e-2))
    ),
    "root of a maximum": lambda e, x: e.div(x, e(ops.Sqrt(), e(ops.Maximum(), e(ENERGY, e(ops.Pow(), x, 2)), 1e-4))),
    "TensorFlow": lambda e, x: e.mul(x, e(ops.Rsqrt(), e(ops.Maximum(), 1e-4, e(ENERGY, e.mul(x, x))))),
}


@named(LENGTHS)
def test_l2_normalize(spelling: Spelling) -> None:
    graph = spelled(spelling)
    fused = four_steps(fuse_l2_normalize.PASS, graph, [graph.nodes[-1].name], ["L2Normalize"])
    assert fused.nodes[0].op.epsilon == pytest.approx(1e-2)  # type: ignore[attr-defined]


SLOPES = [0.5, 0.1, -0.25, 2.0]
LEAKS: dict[str, Callable[[Expression, str, Slope], str]] = {
    "half of x - |x|": lambda e, x, s: e.add(e(ops.ReLU(), x), e.mul(e.mul(s, e.sub(x, e(ops.Abs(), x))), 0.5)),
    "half of the slope": lambda e, x, s: e.add(
        e.mul(np.multiply(s, 0.5).tolist(), e.sub(x, e(ops.Abs(), x))), e(ops.ReLU(), x)
    ),
    "Keras": lambda e, x, s: e.add(e(ops.ReLU(), x), e.mul(np.negative(s).tolist(), e(ops.ReLU(), e(ops.Neg(), x)))),
    "mirrored, fused": lambda e, x, s: e.sub(e(ops.ReLU(), x), e.mul(s, e(ops.Mul(activation=ops.ReLU()), x, -1))),
    "negated": lambda e, x, s: e.add(e(ops.ReLU(), x), e(ops.Neg(), e.mul(s, e(ops.ReLU(), e(ops.Neg(), x))))),
    "minimum": lambda e, x, s: e.add(e.mul(e(ops.Minimum(), x, 0), s), e(ops.Maximum(), x, 0)),
}


@pytest.mark.parametrize("spelling", LEAKS.values(), ids=LEAKS)
def test_leaky_rectifiers_with_one_slope_and_with_many(spelling: Callable[[Expression, str, Slope], str]) -> None:
    rows: tuple[tuple[Slope, str], ...] = ((0.25, "LeakyReLU"), (SLOPES, "PReLU"))
    for slope, kind in rows:
        graph = spelled(with_slope(spelling, slope))
        fused = four_steps(fuse_prelu.PASS, graph, [graph.nodes[-1].name], [kind])
        if kind == "PReLU":
            assert fused.tensors[fused.nodes[0].inputs[1]].shape == (4,)


def test_the_larger_of_x_and_a_part_of_it_is_a_leaky_rectifier() -> None:
    graph = spelled(lambda e, x: e(ops.Maximum(), e.mul(0.1, x), x))
    fused = four_steps(fuse_prelu.PASS, graph, ["n2"], ["LeakyReLU"])
    assert fused.nodes[0].op == ops.LeakyReLU(slope=float(np.float32(0.1)))


def test_a_chain_of_scales_is_looked_through_for_a_few_nodes_only() -> None:
    def make(e: Expression, x: str) -> str:
        gate = e(ops.Sigmoid(), x)
        for _ in range(600):
            x = e.mul(x, 1)
        return e.mul(x, gate)

    assert fuse_swish.PASS(spelled(make)).applied == ()


def test_mish_stays_as_it_is() -> None:
    graph = spelled(lambda e, x: e.mul(x, e(ops.Tanh(), e(ops.Softplus(), x))))
    assert [node.kind for node in deploy(graph).graph.nodes] == ["Softplus", "Tanh", "Mul"]


LAYERS = [plain, biased, grouped, depthwise, multiplied, dense, transposed_conv]


@pytest.mark.parametrize("layer", LAYERS)
def test_scales_and_shifts_fold_into_every_kind_of_layer_before_them(layer: Callable[[GraphBuilder, str], str]) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        e, x = Expression(b), layer(b, x)
        channels = np.linspace(0.5, 2, b.shape(x)[-1] or 0).tolist()
        return e.sub(channels, e.div(e.sub(e.add(e.mul(channels, x), channels), 0.25), channels))

    graph = image_graph(make)
    four_steps(fold_scale_into_layer.PASS, graph, [f"n{i}" for i in range(1, 6)], [graph.nodes[0].kind])


def test_a_scale_brings_its_activation_into_the_layer() -> None:
    graph = image_graph(lambda b, x: Expression(b)(ops.Add(activation=ops.ReLU6()), plain(b, x), 0.5))
    folded = four_steps(fold_scale_into_layer.PASS, graph, ["n1"], ["Conv"])
    assert folded.nodes[0].op.activation == ops.ReLU6()  # type: ignore[attr-defined]


def test_a_scale_folds_into_a_normalisation() -> None:
    graph = image_graph(lambda b, x: Expression(b).mul(layer_norm_named(b, x, "norm"), GAMMA))
    four_steps(fold_scale_into_layer.PASS, graph, ["n1"], ["LayerNorm"])


def unpadded(groups: int) -> Make:
    return lambda b, x: b.conv(x, "layer", 8, kernel_size=3, groups=groups, padding="valid", use_bias=True)


@pytest.mark.parametrize(
    "layer", [unpadded(1), unpadded(2), unpadded(4), dense], ids=["conv", "grouped", "depthwise", "dense"]
)
def test_the_normalisation_of_a_picture_folds_into_the_layer_behind_it(layer: Make) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        e = Expression(b)
        return layer(b, e.mul(e.sub(x, [0.5, 1, -1, 2]), [2, 0.5, 1, -3]))

    graph = image_graph(make)
    four_steps(fold_scale_before_layer.PASS, graph, ["layer"], [graph.nodes[-1].kind])


@pytest.mark.parametrize("layer", [plain, grouped, depthwise, transposed_conv])
def test_a_scale_before_a_padded_layer_folds_and_the_shift_before_it_stays(layer: Make) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        e = Expression(b)
        return layer(b, e.mul(e.sub(x, 0.5), GAMMA))

    graph = image_graph(make)
    result = fold_scale_before_layer.PASS(graph)
    assert [node.kind for node in result.graph.nodes] == ["Sub", graph.nodes[-1].kind]
    assert_allclose(run(result.graph), run(graph), rtol=1e-4, atol=1e-4)
    validate(result.graph)


def pool(kind: type[ops.MaxPool] | type[ops.AveragePool], **changes: object) -> ops.Op:
    made = kind(kernel_size=(3, 2), stride=(2, 2), padding=((0, 0), (0, 0)))
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "value", "op"),
    [
        (None, 0.0, pool(ops.AveragePool)),
        (None, 0.0, pool(ops.AveragePool, padding=((1, 0), (0, 0)), count_include_pad=True)),
        (None, -np.inf, pool(ops.MaxPool)),
        (None, float(np.finfo(np.float32).min), pool(ops.MaxPool, padding=((0, 1), (0, 0)))),
        (ops.ReLU(), 0.0, pool(ops.MaxPool)),
        (ops.Sigmoid(), -1.0, pool(ops.MaxPool)),
    ],
)
def test_padding_moves_into_the_pooling_behind_it(before: ops.Op | None, value: float, op: ops.Op) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("act", before, x) if before else x
        return b.node("pool", op, b.node("pad", ops.Pad(padding=ZERO_PADDING, value=value), x))

    graph = image_graph(make)
    kinds = [node.kind for node in graph.nodes if node.kind != "Pad"]
    four_steps(merge_padding.PASS, graph, ["pool"], kinds)


def test_reshapes_in_a_row_are_one() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("one", ops.Reshape(shape=(None, 72, 4)), x)
        return b.node("two", ops.Tanh(), b.node("three", ops.Reshape(shape=(None, 288)), x))

    merged = four_steps(merge_reshapes.PASS, image_graph(make), ["three"], ["Reshape", "Tanh"])
    assert merged.nodes[0].op == ops.Reshape(shape=(None, 288))


def test_a_reshape_that_is_undone_goes_also_before_an_output() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("one", ops.Reshape(shape=(None, 72, 4)), b.node("tanh", ops.Tanh(), x))
        return b.node("back", ops.Reshape(shape=(None, 9, 8, 4)), x)

    merged = four_steps(merge_reshapes.PASS, image_graph(make), ["back"], ["Tanh"])
    assert merged.nodes[0].output == "back"


def test_a_reshape_of_the_batch_is_written_out_when_it_merges() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("one", ops.Reshape(shape=(9, 8, 4)), x)
        return b.node("two", ops.Reshape(shape=(None, 32)), x)

    graph = image_graph(make)
    merged = merge_reshapes.PASS(graph).graph
    assert [node.op for node in merged.nodes] == [ops.Reshape(shape=(9, 32))]


def test_transposes_in_a_row_are_one_or_none() -> None:
    first = ops.Transpose(permutation=(0, 3, 1, 2))

    def make(second: ops.Op) -> Make:
        return lambda b, x: b.node("y", ops.Tanh(), b.node("two", second, b.node("one", first, x)))

    four_steps(merge_reshapes.PASS, image_graph(make(ops.Transpose(permutation=(0, 2, 3, 1)))), ["two"], ["Tanh"])
    merged = four_steps(merge_reshapes.PASS, image_graph(make(first)), ["two"], ["Transpose", "Tanh"])
    assert merged.nodes[0].op == ops.Transpose(permutation=(0, 2, 3, 1))


def test_slices_in_a_row_are_one_and_the_first_stays_where_it_is_used() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        rows = b.node("rows", ops.Slice(begin=(0, 1, 0, 0), end=(None, 8, None, None), step=(1, 2, 1, 1)), x)
        op = ops.Slice(begin=(0, 1, 1, 0), end=(None, 4, None, 3), step=(1, 2, 3, 1))
        columns = b.node("columns", op, rows)
        return b.node("y", ops.Mul(), columns, b.node("mean", ops.Mean(axes=(1, 2, 3), keep_dims=True), rows))

    merged = four_steps(merge_reshapes.PASS, image_graph(make), ["columns"], ["Slice", "Slice", "Mean", "Mul"])
    (slice_of_all,) = [node.op for node in merged.nodes if node.name == "columns"]
    assert slice_of_all == ops.Slice(begin=(0, 3, 1, 0), end=(None, 8, None, 3), step=(1, 4, 3, 1))


def focus(b: GraphBuilder, x: str, order: Sequence[tuple[int, int]], block: int) -> str:
    parts = [
        b.node(
            f"slice{row}{column}", ops.Slice(begin=(0, row, column, 0), end=(None,) * 4, step=(1, block, block, 1)), x
        )
        for row, column in order
    ]
    return b.node("focus", ops.Concat(axis=3), *parts)


def even(b: GraphBuilder, x: str) -> str:
    return b.node("even", ops.Slice(begin=(0, 0, 0, 0), end=(None, 8, None, None), step=(1, 1, 1, 1)), x)


ROWS_FIRST = [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_focus_in_the_order_of_space_to_depth_is_one_operator() -> None:
    graph = image_graph(lambda b, x: focus(b, even(b, x), ROWS_FIRST, 2))
    four_steps(focus_to_space_to_depth.PASS, graph, ["focus"], ["Slice", "SpaceToDepth"])


@pytest.mark.parametrize("block", [2, 4])
def test_a_focus_in_any_order_is_absorbed_by_the_convolution_behind_it(block: int) -> None:
    columns_first = [(row, column) for column in range(block) for row in range(block)]
    graph = image_graph(lambda b, x: b.conv(focus(b, even(b, x), columns_first, block), "stem", 5, kernel_size=1))
    turned = four_steps(focus_to_space_to_depth.PASS, graph, ["focus"], ["Slice", "SpaceToDepth", "Gather", "Conv"])
    four_steps(fold_gather_into_layer.PASS, turned, ["focus"], ["Slice", "SpaceToDepth", "Conv"])


def test_the_focus_of_yolox_with_one_slice_per_axis_is_deployed_as_space_to_depth() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x, parts = even(b, x), []
        for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
            op = ops.Slice(begin=(0, row, 0, 0), end=(None,) * 4, step=(1, 2, 1, 1))
            rows = b.node(f"rows{row}{column}", op, x)
            op = ops.Slice(begin=(0, 0, column, 0), end=(None,) * 4, step=(1, 1, 2, 1))
            parts.append(b.node(f"part{row}{column}", op, rows))
        return b.conv(b.node("focus", ops.Concat(axis=3), *parts), "stem", 5, kernel_size=3)

    whole = image_graph(lambda b, x: make(b, b.node("tanh", ops.Tanh(), x)), (1, 9, 8, 4))
    deployed = deploy(whole).graph
    assert [node.kind for node in deployed.nodes] == ["Tanh", "Slice", "SpaceToDepth", "Conv"]
    assert_allclose(run(deployed), run(whole), rtol=1e-4, atol=1e-4)


def reordered(b: GraphBuilder, x: str) -> str:
    size = b.shape(x)[-1] or 0
    order = b.constant(f"{x}/order", np.random.default_rng(5).permutation(size))
    return b.node(f"{x}/gather", ops.Gather(axis=len(b.shape(x)) - 1), x, order)


@pytest.mark.parametrize("layer", [plain, biased, dense, transposed_conv])
def test_an_order_of_channels_goes_into_the_layer_behind_it_past_activations_and_poolings(layer: Make) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        return layer(b, b.node("pool", pool(ops.MaxPool), b.activate(reordered(b, x), "act", ops.Tanh())))

    graph = image_graph(make)
    kinds = [node.kind for node in graph.nodes[1:]]
    folded = four_steps(fold_gather_into_layer.PASS, graph, ["image/gather"], kinds)
    assert not {"act/tanh", "pool"} & folded.tensors.keys(), "other values, other names"


@pytest.mark.parametrize("layer", [plain, biased, dense, transposed_conv])
def test_an_order_of_channels_goes_into_the_layer_before_it(layer: Make) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        return reordered(b, b.node("pool", pool(ops.MaxPool), b.activate(layer(b, x), "act", ops.Tanh())))

    graph = image_graph(make)
    folded = four_steps(fold_gather_into_layer.PASS, graph, ["pool/gather"], [node.kind for node in graph.nodes[:-1]])
    assert folded.nodes[-1].output == "pool/gather"
    alone = image_graph(lambda b, x: reordered(b, layer(b, x)))
    four_steps(fold_gather_into_layer.PASS, alone, [alone.nodes[-1].name], [alone.nodes[0].kind])


@pytest.mark.parametrize(
    ("kernel", "padding"), [((9, 8), ((0, 0), (0, 0))), ((10, 9), ((1, 0), (0, 1)))], ids=["exact", "padded"]
)
def test_a_pooling_of_one_window_is_a_mean_and_takes_the_reshape_behind_it(
    kernel: tuple[int, int], padding: tuple[tuple[int, int], ...]
) -> None:
    def make(b: GraphBuilder, x: str) -> str:
        x = b.node("pool", ops.AveragePool(kernel_size=kernel, stride=(1, 1), padding=padding), x)
        return b.dense(b.node("flat", ops.Reshape(shape=(None, 4)), x), "logits", 3)

    graph = four_steps(global_pool_as_mean.PASS, image_graph(make), ["pool"], ["Mean", "Reshape", "Dense"])
    folded = four_steps(fold_reshape_into_reduction.PASS, graph, ["flat"], ["Mean", "Dense"])
    assert folded.nodes[0].op == ops.Mean(axes=(1, 2))


def applied(op: ops.Op) -> Spelling:
    return lambda e, x: e(op, x)


SAME_SIZE = [
    ops.Resize(size=(9, 8), method=method, coordinates=coordinates)
    for method in ("nearest", "bilinear")
    for coordinates in ("half_pixel", "asymmetric", "align_corners")
]
WHOLE = ops.Slice(begin=(0, 0, 0, 0), end=(None, 9, 8, None), step=(1, 1, 1, 1))
NOTHINGS: dict[str, Spelling] = {
    "x + 0": lambda e, x: e.add(x, [0, 0, 0, 0]),
    "0 + x": lambda e, x: e.add(0, x),
    "x - 0": lambda e, x: e.sub(x, 0),
    "x * 1": lambda e, x: e.mul(x, 1),
    "1 * x": lambda e, x: e.mul([1], x),
    "x / 1": lambda e, x: e.div(x, 1),
    "x ^ 1": lambda e, x: e(ops.Pow(), x, 1),
    "slice": lambda e, x: e(WHOLE, x),
    "concat": lambda e, x: e(ops.Concat(axis=3), x),
    "split": lambda e, x: e(ops.Split(axis=3, sizes=(4,)), x),
    "tile": lambda e, x: e(ops.Tile(multiples=(1, 1, 1, 1)), x),
    "cast": lambda e, x: e(ops.Cast(dtype="float32"), x),
    **{f"{op.method} {op.coordinates}": applied(op) for op in SAME_SIZE},
}


@named(NOTHINGS)
def test_what_changes_nothing_goes(spelling: Spelling) -> None:
    graph = spelled(lambda e, x: e(ops.Tanh(), spelling(e, x)))
    four_steps(remove_identities.PASS, graph, ["n1"], ["Tanh"])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ops.ReLU(), ops.ReLU()),
        (ops.ReLU6(), ops.ReLU()),
        (ops.ReLU6(), ops.Clip(minimum=0, maximum=6)),
        (ops.Sigmoid(), ops.ReLU6()),
        (ops.Clip(minimum=1, maximum=2), ops.Clip(minimum=0, maximum=2)),
    ],
)
def test_an_activation_behind_one_that_keeps_within_its_bounds_goes(first: ops.Op, second: ops.Op) -> None:
    graph = image_graph(lambda b, x: b.node("two", second, b.node("pool", pool(ops.MaxPool), b.node("one", first, x))))
    four_steps(remove_identities.PASS, graph, ["two"], [type(first).__name__, "MaxPool"])


@named(
    {
        "relu6 behind relu": lambda e, x: e(ops.ReLU6(), e(ops.ReLU(), x)),
        "0 - x": lambda e, x: e.sub(0, x),
        "1 / x": lambda e, x: e.div(1, e(ops.Exp(), x)),
        "fused": lambda e, x: e(ops.Add(activation=ops.ReLU()), x, 0),
        "spread": lambda e, x: e.add(e(ops.Mean(axes=(1, 2), keep_dims=True), x), np.zeros((1, 9, 8, 4)).tolist()),
        "cast": lambda e, x: e(ops.Cast(dtype="float16"), x),
    }
)
def test_what_looks_like_an_identity_and_is_none_stays(spelling: Spelling) -> None:
    graph = spelled(lambda e, x: e(ops.Tanh(), spelling(e, x)))
    assert remove_identities.PASS(graph).graph is graph


def test_a_mobile_block_as_files_spell_it_is_deployed_in_one_go() -> None:
    """BatchNorm as Mul and Add, hard swish as Add, Clip, Mul, Div, a pooling, a Reshape: what a reader may give."""

    def make(b: GraphBuilder, x: str) -> str:
        e = Expression(b)
        x = e.add(e.mul(b.conv(x, "stem", 4, kernel_size=3), GAMMA), BETA)
        x = e.div(e.mul(x, e(ops.Clip(minimum=0, maximum=6), e.add(x, 3))), 6)
        x = e(ops.ReLU(), e.sub(b.depthwise(x, "dw", kernel_size=3), BETA))
        pooled = e(ops.AveragePool(kernel_size=(9, 8), stride=(1, 1), padding=((0, 0), (0, 0))), x)
        return b.dense(b.node("flat", ops.Reshape(shape=(None, 4)), pooled), "logits", 3)

    graph = image_graph(make)
    deployed = deploy(graph)
    assert [node.kind for node in deployed.graph.nodes] == ["Conv", "HardSwish", "Conv", "Mean", "Dense"]
    assert_allclose(run(deployed.graph), run(graph), rtol=1e-4, atol=1e-4)
    assert [reason for _, _, reason in deployed.refused] == []


def test_a_folded_kernel_is_rounded_once() -> None:
    kernel = he_normal(0)("k", (1, 1, 4, 3))

    def make(b: GraphBuilder, x: str) -> str:
        op = ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
        return Expression(b).div(b.node("conv", op, x, b.constant("k", kernel)), 3)

    folded = fold_scale_into_layer.PASS(image_graph(make)).graph
    wanted = (kernel.astype(np.float64) / 3).astype(np.float32)
    assert np.array_equal(folded.tensors[folded.nodes[0].inputs[1]].value(), wanted)


def test_a_shift_leaves_the_kernel_as_it_is_stored() -> None:
    graph = image_graph(lambda b, x: Expression(b).add(plain(b, x), 0.5))
    folded = four_steps(fold_scale_into_layer.PASS, graph, ["n1"], ["Conv"])
    assert folded.tensors["layer/kernel"].data is graph.tensors["layer/kernel"].data
    assert folded.nodes[0].inputs == ("image", "layer/kernel", "layer/bias_folded")


@pytest.mark.parametrize("order", list(permutations("xyz")))
@pytest.mark.parametrize("is_left_first", [True, False])
def test_a_product_is_found_in_every_order_and_association(order: tuple[str, ...], is_left_first: bool) -> None:
    b = GraphBuilder("product", initialise=he_normal(0))
    e = Expression(b)
    tensors = {"x": b.input("x", (1, 4)), "y": b.input("y", (1, 4)), "z": e.mul(b.input("w", (1, 4)), 4)}
    one, two, three = (tensors[name] for name in order)
    found_in = e.mul(e.mul(one, two), three) if is_left_first else e.div(e.mul(one, e.mul(two, three)), 0.5)
    editor = GraphEditor(b.finish({"product": found_in}))
    number = 4.0 if is_left_first else 8.0
    wanted = pattern.product(number, *(pattern.leaf(name) for name in ("x", "y", "w")))
    found = [each for each in wanted(editor, found_in, pattern.Found()) if each.tensors["w"] == "w"]
    assert {tuple(sorted(each.tensors.values())) for each in found} == {("w", "x", "y")}
    assert found[0].nodes == editor.nodes.keys()
    assert not list(pattern.product(number * 1.01, *map(pattern.leaf, "xyw"))(editor, found_in, pattern.Found()))
