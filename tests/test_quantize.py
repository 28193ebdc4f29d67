"""Quantize: one set of integers for every format, on small networks and on random ones."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from edgecnn import ops, registry
from edgecnn.contract import Contract
from edgecnn.errors import CheckFailedError, UnknownNameError, UnsupportedError, UsageError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, validate
from edgecnn.passes.deploy import deploy
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.quantize import Quantized, Samples, quantize
from edgecnn.quantization.recipe import Correction, Observer, PortType, Recipe, Rounding, Spread
from edgecnn.verify import snr_db
from tests.random_graphs import graphs
from tests.test_assign import network
from tests.test_differential import channels_last, executed_outside, fed, is_steady, outside
from tests.test_prepare import classifier
from tests.test_scales import images, known

FORMATS = ("tflite", "onnx", "openvino")
ROUND = 50
"""Random Graphs of one seed."""

FLOOR_DB = 30.0
"""Of a random network whose operators neither jump nor amplify, on the inputs that it was calibrated on."""

UNSTEADY = (ops.Floor, ops.Ceil, ops.Round, ops.ArgMax, ops.Div, ops.Log, ops.Pow, ops.Exp, ops.Prod, ops.Rsqrt)
"""Operators that turn half a step into anything, or make outputs span many powers of ten."""


def samples(graph: Graph, count: int = 16) -> Samples:
    return Samples(batches=lambda network: [images(graph, count)], origin="noise")


def stored(graph: Graph) -> list[bytes]:
    tensors = graph.tensors.values()
    return sorted(t.data.tobytes() for t in tensors if t.quantization is not None and t.data is not None)


def test_nothing_is_rounded_unless_asked_for() -> None:
    graph = network()
    assert quantize(graph, Recipe(precision="float32")).graph is graph


def test_float16_stores_constants_so() -> None:
    graph = network()
    found = quantize(graph, Recipe(precision="float16")).graph
    assert {str(t.data.dtype) for t in found.tensors.values() if t.data is not None} == {"float16"}
    assert snr_db(execute(graph, images(graph))["logits"], execute(found, images(graph))["logits"]) > 50


def test_the_same_inputs_give_the_same_integers() -> None:
    one, other = (quantize(network(), Recipe(), samples(network())).graph for _ in range(2))
    assert stored(one) == stored(other)
    assert [known(one, n).scale for n in ("stem", "pw")] == [known(other, n).scale for n in ("stem", "pw")]


def test_repairs_are_named_with_what_they_changed() -> None:
    recipe = Recipe(equalize=True, absorb_bias=True)
    found = quantize(network(), recipe, samples(network()))
    repairs = {repair.name: repair for repair in found.repairs}
    assert set(repairs["bias_correction"].nodes) == {"stem", "dw", "pw", "head"}
    assert set(repairs["rounding"].nodes) <= {"stem", "dw", "pw", "head"}
    assert "equalize" in repairs
    assert all(repair.nodes or repair.refused for repair in found.repairs)
    assert found.calibration is not None
    assert (found.calibration.images, found.calibration.origin) == (16, "noise")


@pytest.mark.parametrize("method", get_args(Correction)[1:])
def test_a_correction_removes_the_mean_error(method: Correction) -> None:
    graph, x = network(), images(network(), 16)
    bare = Recipe(precision="static_w4_a8", rounding="nearest", bias_correction="none", separate_ranges=False)
    exact = execute(graph, x)["logits"].mean(axis=0)

    def shift(recipe: Recipe) -> float:
        found = execute(quantize(graph, recipe, samples(graph)).graph, x)["logits"].mean(axis=0)
        return float(np.abs(found - exact).max())

    assert shift(replace(bare, bias_correction=method)) < (0.3 if method == "empirical" else 0.8) * shift(bare)


def test_errors_are_said_before_anything_is_made() -> None:
    graph = network()
    quantized = quantize(graph, Recipe(precision="dynamic_w8")).graph
    with pytest.raises(UsageError, match=r"a float network was wanted; this one is quantized. Give --dequantize"):
        quantize(quantized, Recipe(precision="weight_only_w8"))
    with pytest.raises(UsageError, match="static_w8_a8 wants real inputs to calibrate on"):
        quantize(graph, Recipe())
    with pytest.raises(UnknownNameError, match=r"'haed' fits none\. Did you mean 'head'"):
        quantize(graph, Recipe(precision="dynamic_w8", overrides=(("haed", "float32"),)))
    with pytest.raises(UnsupportedError, match="uint8 inputs want one picture with a contract"):
        quantize(graph, Recipe(io="uint8"), samples(graph))


def test_a_pattern_may_name_an_activation_that_got_a_node() -> None:
    graph = deploy(network()).graph
    found = quantize(graph, Recipe(overrides=(("*/sigmoid", "float32"),)), samples(graph)).graph
    assert {n.kind: found.tensors[n.output].stored_dtype for n in found.nodes}["Sigmoid"] == "float32"


def test_images_that_are_not_fit_are_judged_first() -> None:
    graph, seen = network(), []

    def judge(calibration: Calibration) -> None:
        seen.append(calibration.images)
        raise CheckFailedError("not these")

    with pytest.raises(CheckFailedError, match="not these"):
        quantize(graph, Recipe(), replace(samples(graph, 3), judge=judge))
    assert seen == [3]


def test_what_is_no_number_is_refused() -> None:
    graph = network()
    broken = Samples(batches=lambda network: [{"image": np.full((1, 8, 8, 3), np.nan, np.float32)}], origin="nan")
    with pytest.raises(CheckFailedError, match="finite"):
        quantize(graph, Recipe(), broken)


def normalised(pixels: Array, contract: Contract) -> Array:
    return np.asarray((pixels - np.asarray(contract.mean)) / np.asarray(contract.std), np.float32)


@pytest.mark.parametrize("mean", [(0.0,) * 3, (127.5,) * 3, (104.0, 117.0, 123.0)])
def test_bytes_go_in_as_they_are(mean: tuple[float, float, float]) -> None:
    contract = Contract(height=9, width=7, mean=mean, std=(60.0,) * 3)
    graph = classifier("valid", contract)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 9, 7, 3))

    def batches(network: Graph) -> list[Mapping[str, Array]]:
        assert network.contract is not None
        return [{"image": normalised(pixels, network.contract)}]

    found = quantize(graph, Recipe(io="uint8"), Samples(batches=batches, origin="noise"))
    port = known(found.graph, "image")
    assert (port.scale, port.zero_point, port.dtype) == ((1.0,), (round(float(np.mean(mean))),), "uint8")
    exact = execute(graph, {"image": normalised(pixels, contract)})
    got = execute(found.graph, {"image": pixels.astype(np.uint8)})
    for name, values in exact.items():
        assert snr_db(values, got[name]) > 30, name
        assert known(found.graph, {p.name: p.tensor for p in found.graph.outputs}[name]).dtype == "uint8"


RECIPES = st.builds(
    Recipe,
    precision=st.sampled_from(
        ["static_w8_a8", "static_w8_a8", "static_w7_a8", "static_w8_a16", "dynamic_w8", "weight_only_w8"]
    ),
    observer=st.sampled_from(get_args(Observer)),
    scales=st.sampled_from(get_args(Spread)),
    rounding=st.sampled_from(get_args(Rounding)),
    bias_correction=st.sampled_from(get_args(Correction)),
    equalize=st.booleans(),
    absorb_bias=st.booleans(),
    separate_ranges=st.booleans(),
)


def written(graph: Graph, form: str, folder: Path) -> Path | None:
    """Write a Graph; what a format cannot carry is refused by its name or the node's."""
    converter = registry.load("converters", form)
    try:
        return Path(converter.write(graph, folder / f"tried{converter.suffix}").path)
    except UnsupportedError as error:
        if not any(name in str(error) for name in (form, *(node.name for node in graph.nodes))):
            raise
        return None


def check_tflite(graph: Graph, path: Path, x: Mapping[str, Array]) -> None:
    """Read a file back: its integers are those that were written, and so are its results."""
    back = registry.load("converters", "tflite").read(path)
    transposed = [node.op for node in graph.nodes if isinstance(node.op, ops.ConvTranspose)]
    if not any(op.groups > 1 or set(op.dilation) != {1} for op in transposed):  # which are cut up, or spread out
        assert set(stored(graph)) <= set(stored(back))
    exact = outside(graph, execute(graph, x), "NHWC")
    found = executed_outside(back, outside(graph, x, "NHWC"), "NHWC")
    for name, values in exact.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-6, atol=2e-6 * max(1.0, float(np.abs(values).max())))


def is_calm(graph: Graph) -> bool:
    return not any(
        isinstance(node.op, UNSTEADY) or node.op.output_dtype(["float32"] * 3) != "float32" for node in graph.nodes
    )


def judge(graph: Graph, recipe: Recipe, io: PortType, formats: tuple[str, ...]) -> float | None:
    """Quantize, execute, write and read back; return the SNR on the inputs that ranges were taken from."""
    graph = channels_last(deploy(graph).graph)
    x = fed(graph)
    exact = execute(graph, x)
    if not is_steady(graph, x, exact):
        return None
    recipe = replace(recipe, io=io if recipe.is_static else "float32")
    found: Quantized = quantize(graph, recipe, Samples(batches=lambda network: [x], origin="noise"))
    validate(found.graph)
    assert {port.name for port in found.graph.outputs} == exact.keys()
    got = execute(found.graph, x)
    fixed = execute(found.graph, x, rounding="fixed_point")
    for name, values in exact.items():
        assert got[name].shape == fixed[name].shape == values.shape
        assert np.isfinite(got[name]).all()
    with TemporaryDirectory() as folder:
        paths = {form: written(found.graph, form, Path(folder)) for form in formats}
        if paths.get("tflite") is not None:
            check_tflite(found.graph, Path(folder) / "tried.tflite", x)
    noise = [
        np.square(got[name] - values).mean() / max(np.square(values).mean(), 1e-9) for name, values in exact.items()
    ]
    is_judged = recipe.is_static and recipe.observer == "min_max" and is_calm(graph)
    return -10 * float(np.log10(max(*noise, 1e-12))) if is_judged else None


def for_graphs(count: int, formats: tuple[str, ...]) -> list[float]:
    """Judge random Graphs, and return what could be judged of their SNR."""
    found: list[float | None] = []
    for number in range(-(-count // ROUND)):

        @seed(number)
        @settings(deadline=None, suppress_health_check=list(HealthCheck), database=None, max_examples=ROUND)
        @given(graphs(), RECIPES, st.sampled_from(["float32", "float32", "int8"]))
        def run(graph: Graph, recipe: Recipe, io: PortType) -> None:
            found.append(judge(graph, recipe, io, formats))

        run()
    return [each for each in found if each is not None]


def test_random_networks_have_integers_that_every_format_carries() -> None:
    found = for_graphs(300, FORMATS)
    assert len(found) > 30
    assert np.median(found) > 35
    assert np.quantile(found, 0.05) > FLOOR_DB


@pytest.mark.slow
def test_thousands_of_random_networks_have_integers() -> None:
    found = for_graphs(3000, FORMATS)
    assert np.quantile(found, 0.02) > FLOOR_DB - 5
