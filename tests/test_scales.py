"""Which tensors share a scale, which have a fixed one, and which nodes stay float: TFLite's rules over small Graphs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import SessionOptions
from edgecnn.ports import exterior
from edgecnn.quantization.assign import assign
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.parameters import Quantization, per_tensor
from edgecnn.quantization.prepare import prepared
from edgecnn.quantization.ranges import HEADROOM, NARROWEST, activation_quantization
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.rules import FIXED_OUTPUT, INTEGER_OPERATORS, SAME_SCALE, WEIGHTED
from edgecnn.source import target_for
from edgecnn.verify import run_batches
from tests.graphs import GRAPHS

PLAIN = Recipe(rounding="nearest", bias_correction="none")
Make = Callable[[GraphBuilder, str], str]


def made(make: Make, shape: tuple[int, ...] = (1, 8, 6, 4)) -> Graph:
    b = GraphBuilder("tried", initialise=he_normal(1))
    x = b.input("image", shape)
    return prepared(b.finish({"result": make(b, x)}))


def images(graph: Graph, count: int = 4) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {port.name: graph.tensors[port.tensor].shape[1:] for port in graph.inputs}
    return {
        name: rng.standard_normal((count, *map(ops.known, rest)), dtype=np.float32) for name, rest in shapes.items()
    }


def integers(graph: Graph, recipe: Recipe = PLAIN, **options: Any) -> Graph:
    found = calibrate(graph, [images(graph, 16)], origin="noise") if recipe.is_static else None
    return assign(graph, found, recipe, **options)


def known(graph: Graph, name: str) -> Quantization:
    found = graph.tensors[name].quantization
    assert found is not None, name
    return found


def number(b: GraphBuilder, name: str, value: Any) -> str:
    return b.constant(name, np.asarray(value, np.float32))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(["int8", "int16"]))
def test_a_range_is_held_with_zero_exact(one: float, other: float, dtype: str) -> None:
    low, high = sorted((one, other))
    found = activation_quantization(low, high, dtype)
    step, values = found.scale[0], np.array([low, high, 0.0])
    error = np.abs(found.dequantize(found.quantize(values)) - values)
    assert error[2] == 0
    assert error.max() <= 0.5 * step + 1e-6 * np.abs(values).max()
    assert dtype == "int8" or found.zero_point == (0,)


def test_a_tensor_that_is_always_zero_keeps_a_scale() -> None:
    assert activation_quantization(0, 0, "int8").scale[0] == pytest.approx(NARROWEST / 255)
    assert activation_quantization(0, 0, "int16").scale[0] > 0
    assert activation_quantization(-1, 2, "int16").range[1] == pytest.approx(2 * HEADROOM)


@pytest.mark.parametrize("form", ["tflite", "onnx", "openvino"])
@pytest.mark.parametrize("size", [1e-5, 1e-8, 0.0])
def test_what_hardly_leaves_zero_is_the_same_in_every_runtime(form: str, size: float, tmp_path: Path) -> None:
    graph = integers(made(lambda b, x: b.node("y", ops.Mul(), x, number(b, "c", [size] * 4))))
    x, converter = images(graph, 1), registry.load("converters", form)
    path = converter.write(graph, tmp_path / f"a{converter.suffix}").path
    session = target_for(path, None).open(path, SessionOptions(threads=1))
    found = run_batches(session, x, exterior(graph, converter.default_layout))["result"]
    session.close()
    step = known(graph, "y").scale[0]
    np.testing.assert_allclose(found, execute(graph, x)["result"], atol=1.01 * step)


CHAINS: dict[str, Make] = {
    "max_pool": lambda b, x: b.max_pool(x, "y", kernel_size=2, stride=2),
    "average_pool": lambda b, x: b.average_pool(x, "y", kernel_size=2, stride=2),
    "pad": lambda b, x: b.node("y", ops.Pad(padding=((0, 0), (1, 0), (0, 2), (0, 0))), x),
    "resize": lambda b, x: b.node("y", ops.Resize(size=(16, 12), method="nearest", coordinates="half_pixel"), x),
    "concat": lambda b, x: b.node("y", ops.Concat(axis=3), x, b.node("r", ops.ReLU(), x)),
    "slice": lambda b, x: b.node("y", ops.Slice(begin=(0, 1, 0, 0), end=(None, 5, 6, 4), step=(1, 1, 1, 1)), x),
    "gather": lambda b, x: b.node("y", ops.Gather(axis=3), x, b.constant("at", np.array([2, 0], np.int64))),
    "maximum": lambda b, x: b.node("y", ops.Maximum(), x, b.node("h", ops.Mul(), x, number(b, "half", 0.5))),
    "space_to_depth": lambda b, x: b.node("y", ops.SpaceToDepth(block=2), x),
    "transpose": lambda b, x: b.node("y", ops.Transpose(permutation=(0, 2, 1, 3)), x),
    "reshape": lambda b, x: b.node("y", ops.Reshape(shape=(None, 48, 4)), x),
    "max": lambda b, x: b.node("y", ops.Max(axes=(1, 2)), x),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_moves_or_chooses_has_one_scale_and_no_conversion(name: str) -> None:
    graph = integers(made(lambda b, x: CHAINS[name](b, b.conv(x, "before", 4, kernel_size=1))))
    assert known(graph, "before") == known(graph, "y")
    assert graph.kinds()["Quantize"] == graph.kinds()["Dequantize"] == 1


def test_one_scale_runs_through_a_whole_chain_and_covers_all_of_it() -> None:
    def chain(b: GraphBuilder, x: str) -> str:
        cut = b.node("cut", ops.Slice(begin=(0, 0, 0, 0), end=(None, 7, 5, 4), step=(1,) * 4), x)
        small = b.max_pool(b.conv(x, "small", 4, kernel_size=1), "pooled", kernel_size=2, stride=1)
        large = b.node("large", ops.Mul(), cut, number(b, "ten", 10))
        joined = b.node("joined", ops.Concat(axis=3), small, large)
        return b.node("up", ops.Resize(size=(9, 9), method="bilinear", coordinates="half_pixel"), joined)

    graph = made(chain)
    found = integers(graph)
    names = ("small", "pooled", "large", "joined", "up")
    assert len({known(found, name) for name in names}) == 1
    assert known(found, "cut") == known(found, "image/quantized") != known(found, "large")
    widest = execute(graph, images(graph), fetch=["large"])["large"]
    low, high = known(found, "small").range
    assert low <= widest.min() + 0.2
    assert high >= widest.max() - 0.2


@pytest.mark.parametrize(("kind", "dtype"), FIXED_OUTPUT)
def test_a_fixed_output_is_fixed_whatever_was_seen(kind: type[ops.Op], dtype: str) -> None:
    recipe = replace(PLAIN, precision="static_w8_a16" if dtype == "int16" else "static_w8_a8")
    graph = integers(made(lambda b, x: b.node("y", kind(), x), (1, 12)), recipe)
    is_known = kind in INTEGER_OPERATORS[dtype]
    assert graph.tensors["y"].quantization == (FIXED_OUTPUT[kind, dtype] if is_known else None)
    assert is_known


def test_parts_with_the_same_fixed_scale_are_joined_in_it() -> None:
    graph = integers(
        made(lambda b, x: b.node("y", ops.Concat(axis=3), *(b.node(n, ops.Sigmoid(), x) for n in ("a", "b"))))
    )
    assert known(graph, "y") == known(graph, "a") == per_tensor(1 / 256, -128)
    assert graph.kinds()["Quantize"] == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_sigmoid_beside_raw_numbers_is_scaled_anew(order: tuple[int, int]) -> None:
    def mixed(b: GraphBuilder, x: str) -> str:
        parts = (b.node("s", ops.Sigmoid(), x), b.node("m", ops.Mul(), x, number(b, "c", 0.1)))
        return b.node("y", ops.Concat(axis=3), *(parts[place] for place in order))

    graph = integers(made(mixed))
    assert known(graph, "s") == per_tensor(1 / 256, -128)
    assert known(graph, "m") == known(graph, "y") == known(graph, "s/quantized") != known(graph, "s")
    assert known(graph, "y").range[1] > 0.9  # although raw numbers reach only 0.4


def test_two_fixed_scales_meet_in_a_third() -> None:
    graph = integers(
        made(lambda b, x: b.node("y", ops.Concat(axis=3), b.node("s", ops.Sigmoid(), x), b.node("t", ops.Tanh(), x)))
    )
    assert {known(graph, "s"), known(graph, "t")} == {per_tensor(1 / 256, -128), per_tensor(1 / 128)}
    assert known(graph, "s/quantized") == known(graph, "t/quantized") == known(graph, "y")


def test_what_pads_is_in_range() -> None:
    graph = made(lambda b, x: b.node("y", ops.Pad(padding=((0, 0), (1, 1), (0, 0), (0, 0)), value=9.0), x))
    found = integers(graph)
    assert known(found, "y") == known(found, "image/quantized")
    np.testing.assert_allclose(execute(found, images(graph))["result"][:, 0], 9.0, atol=0.03)


@pytest.mark.parametrize(("value", "is_scaled"), [(0.5, False), (-3.0, True)])
def test_what_pads_a_fixed_scale_lies_in_it_or_in_another(value: float, is_scaled: bool) -> None:
    op = ops.Pad(padding=((0, 0), (1, 1), (0, 0), (0, 0)), value=value)
    graph = made(lambda b, x: b.node("y", op, b.node("s", ops.Sigmoid(), x)))
    found = integers(graph)
    assert (known(found, "y") != known(found, "s")) == is_scaled
    np.testing.assert_allclose(execute(found, images(graph))["result"][:, 0], value, atol=0.02)


@pytest.mark.parametrize(("op", "bound"), [(ops.Maximum(), -1e9), (ops.Minimum(), 1e9), (ops.Maximum(), 0.5)])
def test_a_far_bound_costs_no_steps(op: ops.Op, bound: float) -> None:
    graph = made(lambda b, x: b.node("y", op, x, number(b, "bound", bound)))
    found, x = integers(graph), images(graph)
    assert known(found, "image/quantized").scale[0] < 0.04
    np.testing.assert_allclose(execute(found, x)["result"], execute(graph, x)["result"], atol=0.03)


def test_constants_of_elementwise_operators_have_scales_of_their_own() -> None:
    graph = integers(made(lambda b, x: b.node("y", ops.Mul(), x, number(b, "c", [0.1, 0.2, 0.3, 0.4]))))
    constant = graph.tensors["c"]
    assert constant.data is not None
    assert constant.data.dtype == np.int8
    np.testing.assert_allclose(constant.value(), [0.1, 0.2, 0.3, 0.4], atol=0.001)


def test_an_argmax_reads_integers_and_gives_positions() -> None:
    graph = made(lambda b, x: b.node("y", ops.ArgMax(axis=3), b.conv(x, "c", 5, kernel_size=1)))
    found, x = integers(graph), images(graph)
    assert found.tensors["y"].quantization is None
    assert "Dequantize" not in found.kinds()
    assert np.mean(execute(found, x)["result"] == execute(graph, x)["result"]) > 0.95


ISLANDS: dict[str, Make] = {
    "sin": lambda b, x: b.node("y", ops.Sin(), x),
    "scaled_elu": lambda b, x: b.node("y", ops.ELU(alpha=1.7), x),
    "odd_average": lambda b, x: b.node(
        "y", ops.AveragePool(kernel_size=(2, 2), stride=(1, 1), padding=((1, 0), (1, 0))), x
    ),
}


@pytest.mark.parametrize("name", ISLANDS)
def test_what_no_kernel_computes_stays_float_between_conversions(name: str) -> None:
    graph = integers(
        made(lambda b, x: b.conv(ISLANDS[name](b, b.conv(x, "a", 4, kernel_size=1)), "c", 4, kernel_size=1))
    )
    assert [node.kind for node in graph.nodes][:4] == ["Quantize", "Conv", "Dequantize", graph.nodes[3].kind]
    assert graph.tensors["y"].quantization is None
    assert [node.kind for node in graph.nodes][4:] == ["Quantize", "Conv", "Dequantize"]


@pytest.mark.parametrize(
    "name", [name for name, graph in GRAPHS.items() if any(len(getattr(n.op, "stride", ())) == 3 for n in graph.nodes)]
)
def test_volumes_stay_float(name: str) -> None:
    graph = integers(prepared(GRAPHS[name]))
    for node in graph.nodes:
        if len(getattr(node.op, "stride", ())) == 3:
            assert graph.tensors[node.output].quantization is None


def test_computed_kernels_stay_float() -> None:
    def computed(b: GraphBuilder, x: str) -> str:
        kernel = b.node("k", ops.Tanh(), number(b, "raw", np.ones((1, 1, 4, 3))))
        op = ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
        return b.node("y", op, x, kernel)

    graph = integers(made(computed))
    assert graph.tensors["y"].quantization is None
    assert graph.tensors[graph.nodes[-1].inputs[1]].quantization is None


def test_nodes_may_be_kept_float_by_name() -> None:
    graph = integers(made(lambda b, x: b.node("y", ops.ReLU(), b.conv(x, "c", 3, kernel_size=1))), in_float=["y"])
    assert [node.kind for node in graph.nodes] == ["Quantize", "Conv", "Dequantize", "ReLU"]


def test_a_known_range_is_taken_instead_of_what_was_seen() -> None:
    graph = integers(made(lambda b, x: b.conv(x, "c", 3, kernel_size=1)), ranges={"image": (-1.0, 1.55)})
    assert known(graph, "image/quantized") == per_tensor(0.01, -28)


def test_the_rules_name_only_what_computes_in_one_way() -> None:
    for dtype, kinds in INTEGER_OPERATORS.items():
        assert set(WEIGHTED) <= set(kinds), dtype
        assert len(set(kinds)) == len(kinds)
    assert set(SAME_SCALE) <= set(INTEGER_OPERATORS["int8"])
