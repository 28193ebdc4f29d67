"""Scales that no runtime refuses: dead channels, sums of very different ranges, concatenated boxes and scores."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Node
from edgecnn.quantization.assign import assign
from edgecnn.quantization.bound_scales import LEAST_RATIO, MOST_RATIO, bound_scales
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.protect_scales import LARGEST_BIAS, LEAST_MULTIPLIER, protected_scales
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.separate_ranges import separate_ranges

IMAGES = np.random.default_rng(0).standard_normal((3, 8, 8, 3), dtype=np.float32)
POSITIVE = st.floats(1e-12, 1e6)


def seen(graph: Graph) -> Calibration:
    return calibrate(graph, [{"image": IMAGES}], origin="noise")


@given(st.floats(0, 1e3), st.floats(-1e6, 1e6), POSITIVE, POSITIVE)
def test_no_scale_lets_32_bits_overflow(largest: float, bias: float, source: float, output: float) -> None:
    (scale,) = protected_scales(np.array([largest]), np.array([bias]), input_scale=source, output_scale=output)
    slack = 1 + 1e-6
    assert abs(bias) / (source * float(scale)) <= LARGEST_BIAS * slack
    assert source * float(scale) / output >= LEAST_MULTIPLIER / slack
    assert float(scale) * 127 >= largest / slack


def test_usual_weights_keep_their_scales() -> None:
    found = protected_scales(
        np.array([1.27, 0.127]), np.array([3.0, -2.0]), input_scale=0.02, output_scale=0.05, limit=127
    )
    np.testing.assert_allclose(found, [0.01, 0.001], rtol=1e-6)
    whole = protected_scales(np.array([1e-20]), np.array([0.1, -5.0]), input_scale=0.02, output_scale=0.05)
    assert whole.shape == (1,)
    assert whole[0] == pytest.approx(5 / (0.02 * 2**30))


def summed(small: float, *, large: float = 1.0, is_shared: bool = False) -> Graph:
    """Return the integer sum of two convolutions with ranges of about `large` and `small`."""
    b = GraphBuilder(
        "summed", initialise=lambda name, shape: he_normal(0)(name, shape) * (small if name == "b" else large)
    )
    x = b.input("image", (None, 8, 8, 3))
    first, second = (b.conv(x, name, 4, kernel_size=1) for name in "ab")
    outputs = {"y": b.add(first, second, "sum"), **({"other": second} if is_shared else {})}
    graph = b.finish(outputs)
    return assign(graph, seen(graph), Recipe())


def ratios(graph: Graph) -> list[float]:
    node = next(node for node in graph.nodes if isinstance(node.op, ops.Add))
    scales = [graph.tensors[name].quantization.scale[0] for name in (*node.inputs, node.output)]  # type: ignore[union-attr]
    return [float(np.float32(scale) / np.float32(scales[-1])) for scale in scales[:-1]]


def run(graph: Graph) -> Array:
    return execute(graph, {"image": IMAGES})["y"]


def test_sums_of_like_ranges_stay_as_they_are() -> None:
    graph = summed(0.01)
    result = bound_scales(graph)
    assert (result.graph, result.applied) == (graph, ())


@pytest.mark.parametrize("is_shared", [False, True])
def test_an_operand_too_small_to_matter_gets_a_wider_scale(is_shared: bool) -> None:
    graph = summed(1e-4, is_shared=is_shared)
    assert min(ratios(graph)) < LEAST_RATIO
    result = bound_scales(graph)
    assert result.applied == ("sum",)
    assert min(ratios(result.graph)) >= LEAST_RATIO
    assert result.graph.kinds()["Quantize"] - graph.kinds()["Quantize"] == is_shared
    step = next(t.quantization.scale[0] for t in graph.tensors.values() if t.name == "sum" and t.quantization)
    assert np.abs(run(graph) - run(result.graph)).max() <= 1.01 * step


def test_a_sum_finer_than_its_operands_is_scaled_behind() -> None:
    graph = summed(1.0)
    found = graph.tensors["sum"].quantization
    assert found is not None
    fine = replace(graph.tensors["sum"], quantization=replace(found, scale=(found.scale[0] / 2000,)))
    graph = replace(graph, tensors={**graph.tensors, "sum": fine})
    assert max(ratios(graph)) >= MOST_RATIO
    result = bound_scales(graph)
    assert max(ratios(result.graph)) < MOST_RATIO
    assert result.graph.kinds()["Quantize"] == graph.kinds()["Quantize"] + 1
    assert np.abs(run(graph) - run(result.graph)).max() <= 1.01 * found.scale[0]


def detector(*, is_read: bool = False, ratio: float = 50.0, is_scored: bool = True) -> Graph:
    """Return boxes and (sigmoid) scores, concatenated level by level, flattened, concatenated and transposed."""
    b = GraphBuilder("detector", initialise=lambda name, shape: he_normal(0)(name, shape) * ratio)
    x, levels = b.input("image", (None, 8, 8, 3)), []
    for name, stride in (("fine", 1), ("coarse", 2)):
        boxes = b.conv(x, f"{name}/boxes", 4, kernel_size=1, stride=stride)
        scores = b.conv(x, f"{name}/scores", 2, kernel_size=1, stride=stride)
        scores = b.node(f"{name}/sigmoid", ops.Sigmoid(), scores) if is_scored else scores
        joined = b.node(f"{name}/joined", ops.Concat(axis=3), boxes, scores)
        levels.append(b.node(f"{name}/flat", ops.Reshape(shape=(None, (8 // stride) ** 2, 6)), joined))
    y = b.node("transposed", ops.Transpose(permutation=(0, 2, 1)), b.node("levels", ops.Concat(axis=1), *levels))
    return b.finish({"y": b.dense(y, "reader", 3) if is_read else y})


TAIL = ("fine/joined", "fine/flat", "coarse/joined", "coarse/flat", "levels", "transposed")


def test_boxes_and_scores_keep_ranges_of_their_own() -> None:
    graph = detector()
    calibration = seen(graph)
    found = separate_ranges(graph, calibration)
    assert set(found.nodes) == {*TAIL, "fine/sigmoid", "coarse/sigmoid"}  # nothing but the outputs reads the scores
    assert found.refused == ()
    wanted = run(graph)
    mixed, apart = (run(assign(graph, calibration, Recipe(), in_float=nodes)) for nodes in ((), found.nodes))
    errors = [np.abs(wanted - each)[:, 4:].max() for each in (mixed, apart)]
    assert errors[0] > 0.2  # scores of 0..1 in steps of the boxes
    assert errors[1] < 0.5 * errors[0]


def test_like_ranges_stay_together() -> None:
    graph = detector(ratio=0.2, is_scored=False)
    assert separate_ranges(graph, seen(graph)).nodes == ()


@pytest.mark.parametrize(
    ("is_read", "reason"), [(True, "and layers read what it gives"), (False, "and an integer output has one scale")]
)
def test_what_cannot_be_kept_apart_is_said(is_read: bool, reason: str) -> None:
    graph = detector(is_read=is_read)
    found = separate_ranges(graph, seen(graph), is_float_output=is_read)
    assert found.nodes == ()
    assert [name for name, _ in found.refused] == ["fine/joined", "coarse/joined"]
    assert all(each.startswith("ranges differ ") and each.endswith(f"times, {reason}") for _, each in found.refused)


def test_a_branch_that_a_layer_reads_is_no_tail() -> None:
    graph = detector()
    loud = Node(name="late", op=ops.Tanh(), inputs=("transposed",), outputs=("late",))
    tensors = {**graph.tensors, "late": replace(graph.tensors["transposed"], name="late")}
    late = replace(graph, nodes=(*graph.nodes, loud), tensors=tensors)
    late = replace(late, outputs=(replace(late.outputs[0], tensor="late"),))
    assert separate_ranges(late, seen(late)).nodes == ()
