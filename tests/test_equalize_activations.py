"""Activation equalization: the function stays, channels get like ranges, integers get nearer, refusals say why."""

from dataclasses import replace

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, validate
from edgecnn.passes.editor import GraphEditor
from edgecnn.quantization.assign import assign
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.equalize_activations import equalize_activations
from edgecnn.quantization.prepare import prepared
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.swish_gates import SWISH_REACH, swish_gate

IMAGES = np.random.default_rng(0).standard_normal((4, 9, 9, 3), dtype=np.float32)


def snr_db(wanted: Array, found: Array) -> float:
    return float(10 * np.log10(np.square(wanted, dtype=np.float64).sum() / np.square(found - wanted).sum()))


def seen(graph: Graph) -> Calibration:
    return calibrate(graph, [{"image": IMAGES}], origin="noise")


def output(graph: Graph) -> Array:
    return execute(graph, {"image": IMAGES})["y"]


def uneven(activation: ops.Activation, *, groups: int = 1, ending: ops.Op | None = None) -> Graph:
    """Return two layers; the channels of the first one's activation have ranges 1000 times apart."""
    b = GraphBuilder("uneven", initialise=he_normal(0))
    x = b.conv(b.input("image", (None, 9, 9, 3)), "first", 8, kernel_size=3, use_bias=True)
    x = b.activate(x, "first", activation)
    x = x if ending is None else b.node("between", ending, x)
    graph = b.finish({"y": b.conv(x, "second", 8, kernel_size=3, groups=groups, use_bias=True)})
    node = next(node for node in graph.nodes if node.name == "first")
    factors = np.float32(np.geomspace(0.03, 30, 8))
    tensors = dict(graph.tensors)
    kernel = tensors[node.inputs[1]]
    tensors[kernel.name] = replace(kernel, data=kernel.value() * factors)
    last = tensors[next(node for node in graph.nodes if node.name == "second").inputs[1]]
    shape = (8, 1) if groups == 1 else (8,)
    tensors[last.name] = replace(last, data=last.value() / factors.reshape(shape))  # small channels matter as much
    return prepared(replace(graph, tensors=tensors))


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("activation", [ops.ReLU(), ops.LeakyReLU(slope=0.1), ops.Swish()])
def test_the_function_stays_and_integers_get_nearer(activation: ops.Activation, groups: int) -> None:
    graph = uneven(activation, groups=groups)
    before = seen(graph)
    found = equalize_activations(graph, before)
    assert len(found.applied) == 1
    assert found.refused == ()
    validate(found.graph)
    added = 1 if isinstance(activation, ops.Swish) else 0
    assert len(found.graph.nodes) == len(graph.nodes) + added
    wanted = output(graph)
    assert snr_db(wanted, output(found.graph)) > 100
    plain = assign(graph, before, Recipe())
    better = assign(found.graph, seen(found.graph), Recipe())
    # A depthwise layer gives channels of its own energy: the small ones are lost in the plain network.
    assert snr_db(wanted, output(better)) > snr_db(wanted, output(plain)) + 6


def test_like_channels_are_left_alone() -> None:
    b = GraphBuilder("even", initialise=he_normal(0))
    x = b.activate(b.conv(b.input("image", (None, 9, 9, 3)), "first", 8, kernel_size=3), "first", ops.Swish())
    graph = prepared(b.finish({"y": b.conv(x, "second", 8, kernel_size=3)}))
    found = equalize_activations(graph, seen(graph))
    assert found.graph is graph
    assert found.applied == ()
    assert found.refused == ()


def test_it_is_done_once() -> None:
    graph = equalize_activations(uneven(ops.Swish()), seen(uneven(ops.Swish()))).graph
    assert equalize_activations(graph, seen(graph)).applied == ()


def test_a_reader_without_weights_refuses() -> None:
    graph = uneven(ops.ReLU(), ending=ops.MaxPool(kernel_size=(2, 2), stride=(1, 1), padding=((0, 1), (0, 1))))
    found = equalize_activations(graph, seen(graph))
    assert found.applied == ()
    (refusal,) = found.refused
    assert refusal[1] == "between (MaxPool) takes it, which cannot take over its scale"


def test_integers_of_a_swish_do_not_reach_where_it_is_0() -> None:
    graph = uneven(ops.Swish())
    calibration = seen(graph)
    gate = next(filter(None, (swish_gate(GraphEditor(graph), node) for node in graph.nodes)))
    assert calibration.statistics[gate.source].low < -2 * SWISH_REACH
    known = assign(graph, calibration, Recipe()).tensors[gate.source].quantization
    assert known is not None
    lowest = (-128 - known.zero_point[0]) * known.scale[0]
    assert lowest == pytest.approx(-SWISH_REACH, abs=known.scale[0])
