"""From a float Graph to integers: ports, islands, shared constants, mixed precisions; names are kept."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.errors import UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Graph
from edgecnn.kernels.quantized import Rounding
from edgecnn.quantization.assign import FEWEST_WEIGHTS, assign
from edgecnn.quantization.parameters import per_tensor
from edgecnn.quantization.prepare import prepared
from edgecnn.quantization.recipe import PortType, Recipe, Spread
from edgecnn.verify import snr_db
from tests.test_scales import PLAIN, images, integers, known, made, number


def network(*, use_bias: bool = True) -> Graph:
    """Return a convolution, a depthwise one, a swish and a dense layer: 16 to 4096 weights each."""
    b = GraphBuilder("network", initialise=he_normal(2))
    x = b.conv(b.input("image", (None, 8, 8, 3)), "stem", 16, kernel_size=3, use_bias=use_bias)
    x = b.activate(b.depthwise(x, "dw", kernel_size=3), "swish", ops.Swish())
    x = b.conv(x, "pw", 64, kernel_size=1, use_bias=use_bias)
    return prepared(b.finish({"logits": b.dense(b.node("pool", ops.Mean(axes=(1, 2)), x), "head", 20)}))


@pytest.mark.parametrize("precision", ["static_w8_a8", "static_w7_a8", "static_w8_a16"])
@pytest.mark.parametrize("rounding", ["float32", "fixed_point"])
def test_integers_are_near_the_float_network_at_every_point_of_the_same_name(
    precision: str, rounding: Rounding
) -> None:
    graph = network()
    found, x = integers(graph, replace(PLAIN, precision=precision)), images(graph, 16)
    names = [name for node in graph.nodes for name in node.outputs]
    exact, got = execute(graph, x, fetch=names), execute(found, x, fetch=names, rounding=rounding)
    assert min(snr_db(exact[name], got[name]) for name in names) > (38 if precision.endswith("a16") else 17)
    assert {node.name for node in graph.nodes} <= {node.name for node in found.nodes}
    assert [port.name for port in found.outputs] == ["logits"]


def test_biases_are_in_steps_of_the_products() -> None:
    for precision, dtype in (("static_w8_a8", "int32"), ("static_w8_a16", "int64")):
        graph = integers(network(use_bias=False), replace(PLAIN, precision=precision))
        for node in graph.nodes:
            if isinstance(node.op, ops.Conv | ops.Dense):
                source, kernel, bias = (known(graph, name) for name in node.inputs)
                expected = np.float32(source.scale[0]) * np.asarray(kernel.scale, np.float32)
                np.testing.assert_array_equal(np.asarray(bias.scale, np.float32), expected)
                data = graph.tensors[node.inputs[2]].data
                assert data is not None
                assert (str(data.dtype), np.abs(data).max()) == (dtype, 0)  # there is none in the float network


@pytest.mark.parametrize(("precision", "limit"), [("static_w8_a8", 127), ("static_w7_a8", 63), ("static_w4_a8", 7)])
@pytest.mark.parametrize("scales", get_args(Spread))
def test_kernels_are_symmetric_within_their_bits(precision: str, limit: int, scales: Spread) -> None:
    graph = integers(network(), replace(PLAIN, precision=precision, scales=scales))
    for node in graph.nodes:
        if isinstance(node.op, ops.Conv | ops.Dense):
            kernel, quantization = graph.tensors[node.inputs[1]], known(graph, node.inputs[1])
            assert kernel.data is not None
            assert (kernel.data.max(), set(quantization.zero_point)) == (limit, {0}) or kernel.data.min() == -limit
            assert kernel.data.min() >= -limit
            is_per_channel = scales == "channel" and isinstance(node.op, ops.Conv)
            assert quantization.axis == (len(kernel.shape) - 1 if is_per_channel else None)


@pytest.mark.parametrize(("io", "zero"), [("int8", -28), ("uint8", 100)])
def test_integer_ports(io: PortType, zero: int) -> None:
    graph = network()
    found = integers(graph, replace(PLAIN, io=io), ranges={"image": (-1.0, 1.55)})
    assert known(found, "image") == per_tensor(0.01, zero, io)
    assert known(found, found.outputs[0].tensor).dtype == io
    wanted = {"uint8": 2, "int8": 0}[io]  # Quantize nodes from and to int8, which layers compute in
    assert (found.kinds()["Quantize"], found.kinds()["Dequantize"]) == (wanted, 0)
    x = images(graph)
    inner = execute(integers(graph, ranges={"image": (-1.0, 1.55)}), x)["logits"]
    np.testing.assert_array_equal(execute(found, x)["logits"], inner)


def test_bytes_and_16_bits_meet_over_int8_which_runtimes_have_kernels_for() -> None:
    graph = network()
    found, x = integers(graph, replace(PLAIN, precision="static_w8_a16", io="uint8")), images(graph, 16)
    types = [tuple(found.tensors[n].stored_dtype for n in (node.inputs[0], node.output)) for node in found.nodes]
    assert (types[:2], types[-2:]) == ([("uint8", "int8"), ("int8", "int16")], [("int16", "int8"), ("int8", "uint8")])
    assert snr_db(execute(graph, x)["logits"], execute(found, x)["logits"]) > 20


@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
def test_several_ports_one_of_them_inner_one_an_input_one_positions(io: PortType) -> None:
    b = GraphBuilder("ports", initialise=he_normal(0))
    one, other = b.input("one", (None, 4, 4, 3)), b.input("other", (None, 4, 4, 3))
    inner = b.conv(b.add(one, other, "sum"), "inner", 5, kernel_size=1)
    result = b.conv(inner, "last", 4, kernel_size=1)
    graph = b.finish(
        {"result": result, "inner": inner, "fed": one, "again": inner, "at": b.node("at", ops.ArgMax(axis=3), result)}
    )
    found, x = integers(graph, replace(PLAIN, io=io)), images(graph)
    exact, got = execute(graph, x), execute(found, x)
    assert list(exact) == list(got)
    for name in ("result", "inner", "fed", "again"):
        np.testing.assert_allclose(got[name], exact[name], atol=0.1)
        assert found.tensors[{p.name: p.tensor for p in found.outputs}[name]].stored_dtype == io
    assert (got["again"] == got["inner"]).all()
    assert np.mean(got["at"] == exact["at"]) > 0.8
    assert got["at"].dtype == exact["at"].dtype


def test_float_numbers_are_converted_once_for_all_that_want_them() -> None:
    graph = made(
        lambda b, x: b.add(b.node("s", ops.Sin(), b.node("r", ops.ReLU(), x)), b.node("c", ops.Cos(), "r"), "y")
    )
    found = integers(graph)
    assert [node.kind for node in found.nodes].count("Dequantize") == 2  # of r, and of the result
    assert {node.inputs for node in found.nodes if node.kind in ("Sin", "Cos")} == {("r/dequantized",)}


def test_a_name_that_a_conversion_would_take_stays_with_its_owner() -> None:
    b = GraphBuilder("names", initialise=he_normal(0))
    x = b.input("image", (None, 4, 4, 3))
    graph = b.finish({"y": b.conv(b.node("image/quantized", ops.Sin(), x), "c", 3, kernel_size=1)})
    found = integers(graph)
    x_values = images(graph)
    exact = execute(graph, x_values, fetch=["image/quantized"])["image/quantized"]
    np.testing.assert_array_equal(execute(found, x_values, fetch=["image/quantized"])["image/quantized"], exact)


def twice(op: ops.Op, *, precision: str = "float32") -> tuple[Graph, Graph]:
    """Return two layers with the same kernel and bias behind `op` and behind nothing, the first in `precision`."""
    b = GraphBuilder("shared", initialise=he_normal(0))
    x = b.input("image", (None, 6, 6, 3))
    first = b.conv(x, "first", 3, kernel_size=1, use_bias=True)
    graph = b.finish({"result": b.node("y", op, first)})
    node = next(node for node in graph.nodes if node.name == "first")
    tensors = {**graph.tensors, "second": replace(graph.tensors["first"], name="second")}
    second = replace(node, name="second", inputs=("y", *node.inputs[1:]), outputs=("second",))
    graph = replace(graph, nodes=(*graph.nodes, second), tensors=tensors)
    graph = replace(graph, outputs=(replace(graph.outputs[0], tensor="second"),))
    return graph, integers(graph, replace(PLAIN, overrides=(("first", precision),)))


@pytest.mark.parametrize("precision", ["float32", "static_w8_a8", "static_w8_a16", "static_w4_a8"])
def test_layers_that_share_constants_have_each_its_own_form_of_them(precision: str) -> None:
    graph, found = twice(ops.Tanh(), precision=precision)
    x = images(graph)
    assert snr_db(execute(graph, x)["result"], execute(found, x)["result"]) > (12 if "w4" in precision else 25)
    kinds = {node.name: found.tensors[node.inputs[1]].stored_dtype for node in found.nodes if node.kind == "Conv"}
    assert kinds == {"first": "float32" if precision == "float32" else "int8", "second": "int8"}
    for node in found.nodes:  # no constant is converted while the network runs
        assert node.kind not in ("Quantize", "Dequantize") or not found.tensors[node.inputs[0]].is_constant


def test_a_constant_is_a_bias_here_and_a_summand_there() -> None:
    b = GraphBuilder("both", initialise=he_normal(0))
    layer = b.conv(b.input("image", (None, 6, 6, 3)), "first", 3, kernel_size=1, use_bias=True)
    offsets = number(b, "offsets", [0.5, -1, 2])
    graph = b.finish({"y": b.add(layer, offsets, "sum"), "z": b.node("sin", ops.Mul(), layer, offsets)})
    nodes = tuple(replace(n, inputs=(*n.inputs[:2], "offsets")) if n.name == "first" else n for n in graph.nodes)
    graph = replace(graph, nodes=nodes)
    found, x = integers(graph), images(graph)
    for name, values in execute(graph, x).items():
        assert snr_db(values, execute(found, x)[name]) > 25
    assert {t.stored_dtype for name, t in found.tensors.items() if name.startswith("offsets")} == {"int8", "int32"}


def test_mixed_precisions_meet_in_conversions() -> None:
    graph = network()
    overrides = (("pw", "float32"), ("head", "static_w8_a16"), ("dw*", "weight_only_w8"))
    found, x = integers(graph, replace(PLAIN, overrides=overrides)), images(graph, 16)
    types = {node.name: found.tensors[node.output].stored_dtype for node in found.nodes}
    assert {name: types[name] for name in ("stem", "dw", "pw", "pool", "head")} == {
        "stem": "int8",
        "dw": "float32",
        "pw": "float32",
        "pool": "int8",
        "head": "int16",
    }
    assert snr_db(execute(graph, x)["logits"], execute(found, x)["logits"]) > 20


@pytest.mark.parametrize("precision", ["weight_only_w8", "dynamic_w8", "weight_only_w4"])
def test_weights_alone_need_no_calibration(precision: str) -> None:
    graph = network()
    found, x = assign(graph, None, Recipe(precision=precision)), images(graph, 16)
    stored = {
        node.name: found.tensors[node.inputs[1]] for node in found.nodes if isinstance(node.op, ops.Conv | ops.Dense)
    }
    large = [n for n in stored if graph.tensors[f"{n}/kernel"].value().size >= FEWEST_WEIGHTS]
    assert large == ["pw", "head"]
    assert all((stored[name].quantization is not None) == (precision == "dynamic_w8") for name in large)
    assert found.kinds()["Dequantize"] == (0 if precision == "dynamic_w8" else 2)
    assert stored["stem"].data is not None
    assert str(stored["stem"].data.dtype) == "float32"
    assert snr_db(execute(graph, x)["logits"], execute(found, x)["logits"]) > (15 if precision.endswith("w4") else 35)


def test_a_static_precision_without_a_calibration_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="a static precision wants a calibration; there is none"):
        assign(network(), None, Recipe(io="int8"))


def test_a_static_file_keeps_every_integer_in_tflite(tmp_path: Path) -> None:
    found = integers(network())
    converter = registry.load("converters", "tflite")
    back = converter.read(converter.write(found, tmp_path / "a.tflite").path)
    ours, theirs = (
        sorted(t.data.tobytes() for t in g.tensors.values() if t.quantization and t.data is not None)
        for g in (found, back)
    )
    assert ours == theirs
    x = images(network())
    np.testing.assert_array_equal(execute(found, x)["logits"], execute(back, x)["logits"])
