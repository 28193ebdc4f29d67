"""The explicit form computes what fake quantization computes, and holds every integer of the quantized Graph."""

from dataclasses import replace

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.builder import GraphBuilder
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, validate
from edgecnn.kernels import evaluate_all
from edgecnn.kernels.quantized import evaluate_quantized
from edgecnn.passes import dense_to_convolution, spatial_mean_in_two_steps
from edgecnn.passes.explicit_quantization import (
    bare_constants,
    drop_implied_clamps,
    dynamic_nodes,
    explicit_quantization,
)
from edgecnn.passes.unsigned_activations import (
    signed_activations,
    signed_kernels,
    unsigned_activations,
    unsigned_kernels,
)
from edgecnn.quantization.parameters import Quantization, per_tensor
from tests.graphs import image_graph, unary
from tests.quantized_graphs import FLOATS, GRAPHS, convolution, quantized, stored_values, weight_only


def rounded(numbers: Array, q: Quantization) -> Array:
    """Return the integers that a Quantize gives: halves are its own affair."""
    return evaluate_quantized(ops.Quantize(), [numbers], [None], [q], "float32")[0]


def fake_quantized(graph: Graph) -> Array:
    """Run a Graph with float operators, each result rounded to its integers: the definition, written again."""
    values: dict[str, Array] = {}
    fed = stored_values(graph)
    for port in graph.inputs:
        q = graph.tensors[port.tensor].quantization
        values[port.tensor] = fed[port.name] if q is None else q.dequantize(fed[port.name])
    for node in graph.nodes:
        operands = [values[n] if n in values else graph.tensors[n].value() for n in node.inputs]
        for name, found in zip(node.outputs, evaluate_all(node.op, operands), strict=True):
            q = graph.tensors[name].quantization
            values[name] = found if q is None else q.dequantize(rounded(found, q))
    return values[graph.outputs[0].tensor]


@pytest.mark.parametrize("name", GRAPHS)
def test_explicit_graph_computes_what_fake_quantization_does(name: str) -> None:
    graph = GRAPHS[name]
    explicit = explicit_quantization(graph)
    validate(explicit)
    found = execute(explicit, stored_values(graph))["result"]
    if dynamic_nodes(graph):
        # Right under float activations nothing is spelled out: the operator is the quantized Graph's own.
        np.testing.assert_array_equal(found, execute(graph, stored_values(graph))["result"])
    else:
        np.testing.assert_array_equal(found, fake_quantized(graph))


@pytest.mark.parametrize("name", GRAPHS)
def test_operators_see_numbers_and_every_tensor_keeps_its_integers(name: str) -> None:
    graph = GRAPHS[name]
    explicit = explicit_quantization(graph)
    dynamic = dynamic_nodes(graph)
    for node in explicit.nodes:
        if node.name in dynamic:
            continue
        stored = [explicit.tensors[n].quantization is not None for n in node.inputs]
        given = [explicit.tensors[n].quantization is not None for n in node.outputs]
        wanted = (True, False) if node.kind == "Dequantize" else (False, node.kind == "Quantize")
        assert (set(stored), set(given)) == ({wanted[0]}, {wanted[1]}) or node.kind == "Gather"
    for tensor in graph.tensors.values():
        kept = explicit.tensors[tensor.name]
        assert kept.quantization == tensor.quantization
        if tensor.data is not None:
            np.testing.assert_array_equal(kept.data, tensor.data)


@pytest.mark.parametrize("name", GRAPHS)
def test_unsigned_activations_are_the_same_numbers(name: str) -> None:
    graph = GRAPHS[name]
    unsigned = unsigned_activations(graph)
    validate(unsigned)
    np.testing.assert_array_equal(fake_quantized(unsigned), fake_quantized(graph))
    ports = {port.tensor for port in (*unsigned.inputs, *unsigned.outputs)}
    kernels = {n.inputs[1] for n in unsigned.nodes if isinstance(n.op, ops.Conv | ops.ConvTranspose | ops.Dense)}
    for tensor in unsigned.tensors.values():
        if tensor.quantization is not None and tensor.name not in ports:
            wanted = ("int8",) if tensor.name in kernels else ("uint8", "uint16", "int32", "int64")
            assert tensor.stored_dtype in wanted
    for before, after in zip((*graph.inputs, *graph.outputs), (*unsigned.inputs, *unsigned.outputs), strict=True):
        assert unsigned.tensors[after.tensor].quantization == graph.tensors[before.tensor].quantization


@pytest.mark.parametrize("name", GRAPHS)
def test_signed_activations_are_the_inverse(name: str) -> None:
    graph = GRAPHS[name]
    signed = signed_activations(unsigned_activations(graph))
    validate(signed)
    np.testing.assert_array_equal(fake_quantized(signed), fake_quantized(graph))
    if any(tensor.stored_dtype == "uint8" for tensor in graph.tensors.values()):
        return
    assert sorted(node.name for node in signed.nodes) == sorted(node.name for node in graph.nodes)
    for tensor in graph.tensors.values():
        found = signed.tensors[tensor.name]
        assert found.quantization == tensor.quantization
        np.testing.assert_array_equal(found.data, tensor.data)


@pytest.mark.parametrize("name", ["mobile_uint8", "concat_uint8", "conv_uint8"])
def test_unsigned_ports_keep_their_type_beside_signed_activations(name: str) -> None:
    graph = GRAPHS[name]
    signed = signed_activations(graph)
    ports = [port.tensor for port in (*signed.inputs, *signed.outputs)]
    assert [signed.tensors[each].quantization for each in ports] == [graph.tensors[each].quantization for each in ports]
    inner = [t.stored_dtype for t in signed.tensors.values() if t.quantization is not None and t.name not in ports]
    assert "int8" in inner
    assert {*inner} <= {"int8", "int32"}


def with_output(graph: Graph, scale: float, zero_point: int) -> Graph:
    tensor = replace(graph.tensors["y"], quantization=per_tensor(scale, zero_point))
    return replace(graph, tensors={**graph.tensors, "y": tensor})


@pytest.mark.parametrize(
    ("activation", "scale", "zero_point", "stays"),
    [
        (ops.ReLU(), 0.1, -128, False),
        (ops.ReLU(), 0.1, -127, True),
        (ops.ReLU6(), 6 / 255, -128, False),
        (ops.ReLU6(), 5 / 255, -128, False),
        (ops.ReLU6(), 6.1 / 255, -128, True),
        (ops.ReLU6(), 6 / 255, 0, True),
    ],
)
def test_a_clamp_goes_only_where_the_range_clamps_alike(
    activation: ops.Activation, scale: float, zero_point: int, stays: bool
) -> None:
    graph = with_output(
        quantized(image_graph(convolution((1, 1, 4, 3), 1, ((0, 0), (0, 0)), activation=activation))), scale, zero_point
    )
    dropped = drop_implied_clamps(graph)
    op = dropped.nodes[0].op
    assert isinstance(op, ops.Conv)
    assert (op.activation is not None) == stays
    np.testing.assert_array_equal(fake_quantized(dropped), fake_quantized(graph))


def test_clamps_of_other_kinds_stay() -> None:
    graph = GRAPHS["relu6"]
    assert drop_implied_clamps(graph).kinds() == graph.kinds()


def test_bare_constants_are_the_form_without_dequantize_and_lead_back() -> None:
    graph = GRAPHS["conv_weight_only"]
    bare = bare_constants(graph)
    assert bare.kinds() == {"Conv": 1}
    np.testing.assert_array_equal(
        execute(bare, stored_values(graph))["result"], execute(graph, stored_values(graph))["result"]
    )


def test_a_requantize_reads_numbers() -> None:
    explicit = explicit_quantization(GRAPHS["requantize"])
    assert [node.kind for node in explicit.nodes] == ["Dequantize", "Quantize"]


def test_an_operator_that_gives_positions_is_not_rounded() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        return b.node("y", ops.ArgMax(axis=3), x)

    graph = image_graph(make)
    stored = replace(graph.tensors["image"], quantization=per_tensor(0.02, 3))
    explicit = explicit_quantization(replace(graph, tensors={**graph.tensors, "image": stored}))
    assert [node.kind for node in explicit.nodes] == ["Dequantize", "ArgMax"]


def test_names_that_are_taken_are_passed_by() -> None:
    def make(b: GraphBuilder, x: str) -> str:
        return b.node("y", ops.ReLU(), b.node("image/dequantized", ops.Sigmoid(), x))

    graph = quantized(image_graph(make))
    np.testing.assert_array_equal(
        execute(explicit_quantization(graph), stored_values(graph))["result"], fake_quantized(graph)
    )


def test_spatial_mean_in_two_steps() -> None:
    result = spatial_mean_in_two_steps.PASS(GRAPHS["mean"])
    assert result.applied == ("y",)
    assert [node.kind for node in result.graph.nodes] == ["Mean", "Reshape"]
    np.testing.assert_array_equal(fake_quantized(result.graph), fake_quantized(GRAPHS["mean"]))


@pytest.mark.parametrize("name", ["mean_of_height", "mean_of_channels", "mean_keep_dims"])
def test_other_means_stay(name: str) -> None:
    assert spatial_mean_in_two_steps.PASS(GRAPHS[name]).applied == ()
    assert spatial_mean_in_two_steps.PASS(FLOATS["mean"]).applied == ()


def test_a_mean_without_positions_is_refused() -> None:
    graph = quantized(image_graph(unary(ops.Mean(axes=())), (2, 12)))
    assert spatial_mean_in_two_steps.PASS(graph).refused == (("y", "it has no positions"),)


def test_dense_to_convolution_keeps_what_the_kernel_stands_for() -> None:
    graph = GRAPHS["dense_over_more_axes"]
    per_axis = bare_constants(weight_only(FLOATS["conv_pointwise"])).tensors["kernel"].quantization
    assert per_axis is not None
    assert per_axis.axis == 3
    result = dense_to_convolution.PASS(graph)
    assert result.applied == ("y",)
    np.testing.assert_array_equal(fake_quantized(result.graph), fake_quantized(graph))


def test_signed_kernels_touch_nothing_else() -> None:
    graph = GRAPHS["mobile_uint8"]
    signed = signed_kernels(graph)
    changed = {name for name, t in signed.tensors.items() if t.stored_dtype != graph.tensors[name].stored_dtype}
    assert changed == {node.inputs[1] for node in graph.nodes if isinstance(node.op, ops.Conv | ops.Dense)}


def test_unsigned_kernels_are_the_inverse_of_signed_ones() -> None:
    graph = GRAPHS["mobile_uint8"]
    back = unsigned_kernels(signed_kernels(graph))
    for name, tensor in graph.tensors.items():
        assert back.tensors[name].quantization == tensor.quantization
        np.testing.assert_array_equal(back.tensors[name].data, tensor.data)
    dynamic = GRAPHS["conv_dynamic_range"]
    assert unsigned_kernels(dynamic).tensors == dynamic.tensors, "a float layer's kernel stays signed"
