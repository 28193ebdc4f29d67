"""Random Graphs, written to every format, run and read back: all agree with `execute`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from edgecnn import ops, registry
from edgecnn.contract import Layout
from edgecnn.errors import UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, from_layout, to_layout
from edgecnn.interfaces import Reader, SessionOptions
from edgecnn.kernels import evaluate_all
from edgecnn.passes.deploy import deploy
from edgecnn.ports import default_layout, exterior
from edgecnn.source import target_for
from edgecnn.verify import run_batches
from tests.random_graphs import graphs
from tests.test_writers import TRAINING_TIME, VOCABULARY

FORMATS = {"tflite": 250, "onnx": 250, "openvino": 150}
"""Format -> Graphs in the default run."""

ROUND = 50
"""Graphs of one seed."""

CONDITIONS = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)
UNREACHED = {ops.DetectionPostProcess, ops.Quantize, ops.Dequantize}
"""They have their own tests: what is quantized is compared integer by integer."""

EXACT = (ops.Floor, ops.Ceil, ops.Round, ops.Cast)
"""Operators whose result no runtime rounds."""

Values = Mapping[str, Array]


def fed(graph: Graph) -> dict[str, Array]:
    """Return normal numbers for each input; a symbolic batch is 2."""
    rng, found = np.random.default_rng(5), {}
    for port in graph.inputs:
        shape = [size or 2 for size in graph.tensors[port.tensor].shape]
        found[port.name] = rng.standard_normal(shape, dtype=np.float32)
    return found


def is_steady(graph: Graph, inputs: Values, wanted: Values) -> bool:
    """Tell whether float32 determines the outputs, which steps (Floor, ArgMax) and cancellation can prevent.

    Each operator's result is moved by a few roundings, as another runtime may give it: the outputs must stay.
    """
    rng = np.random.default_rng(6)
    for _ in range(2):
        values = {port.tensor: inputs[port.name] for port in graph.inputs}
        for node in graph.nodes:
            operands = [values[name] if name in values else graph.tensors[name].value() for name in node.inputs]
            for name, found in zip(node.outputs, evaluate_all(node.op, operands), strict=True):
                is_exact = isinstance(node.op, EXACT) or found.dtype != np.float32
                noise = 0 if is_exact else rng.uniform(-2e-6, 2e-6, found.shape).astype(np.float32)
                values[name] = found * (1 + noise)
        if not all(is_near(values[port.tensor], wanted[port.name], 1e-4) for port in graph.outputs):
            return False
    return True


def is_near(found: Array, wanted: Array, tolerance: float) -> bool:
    return bool(np.abs(found - wanted).max() <= tolerance * max(1.0, float(np.abs(wanted).max())))


def assert_close(found: Values, wanted: Values, where: str) -> None:
    assert found.keys() == wanted.keys(), where
    for name, values in wanted.items():
        assert found[name].shape == values.shape, f"{where}: {name}"
        scale = max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(found[name], values, atol=1e-4 * scale, rtol=1e-4, err_msg=f"{where}: {name}")


def outside(graph: Graph, values: Values, default: Layout) -> dict[str, Array]:
    """Return a Graph's inputs or outputs as callers of its file see them."""
    ports = {port.name: port for port in (*graph.inputs, *graph.outputs)}
    return {
        name: to_layout(each, ports[name].layout or default_layout(each.shape, default))
        for name, each in values.items()
    }


def executed_outside(graph: Graph, values: Values, default: Layout) -> dict[str, Array]:
    """Execute a Graph that was read on what callers of its file feed; return what they get."""
    ports = {port.name: port for port in graph.inputs}
    inner = {
        name: from_layout(each, ports[name].layout or default_layout(each.shape, default))
        for name, each in values.items()
    }
    return outside(graph, execute(graph, inner), default)


def channels_last(graph: Graph) -> Graph:
    """Return the Graph with the ports that a Keras file has, whatever was chosen."""
    inputs, outputs = ([replace(port, layout=None) for port in ports] for ports in (graph.inputs, graph.outputs))
    return replace(graph, inputs=tuple(inputs), outputs=tuple(outputs))


def check(graph: Graph, form: str, folder: Path) -> bool:
    """Write, run, read back and execute; tell whether there was anything to compare."""
    converter, x = registry.load("converters", form), fed(graph)
    if form == "keras":
        graph = channels_last(graph)
        if any(graph.tensors[port.tensor].shape[0] not in (None, 1) for port in graph.inputs):
            return False  # a Keras file leaves the batch open, which a constant for each of two images ties
    wanted, shipped = execute(graph, x), deploy(graph).graph
    if not is_steady(graph, x, wanted):
        return False
    assert_close(execute(shipped, x), wanted, "deployed")
    try:
        path = converter.write(shipped, folder / f"tried{converter.suffix}").path
    except UnsupportedError as error:
        if form not in str(error).lower():
            raise
        return False
    session = target_for(path, None).open(path, SessionOptions(threads=1))
    try:
        found = run_batches(session, x, exterior(shipped, converter.default_layout))
    finally:
        session.close()
    assert_close(found, wanted, form)
    if isinstance(converter, Reader):
        default = converter.default_layout
        back = executed_outside(converter.read(path), outside(shipped, x, default), default)
        assert_close(back, outside(shipped, wanted, default), f"{form} read back")
    return True


def for_graphs(count: int, judge: Callable[[Graph], object]) -> None:
    """Judge the first Graphs of several seeds: Hypothesis varies what it drew the longer, the more it goes on."""
    for number in range(-(-count // ROUND)):

        @seed(number)
        @settings(CONDITIONS, max_examples=ROUND)
        @given(graphs())
        def run(graph: Graph) -> None:
            judge(graph)

        run()


def agrees(graph: Graph, form: str) -> None:
    with TemporaryDirectory() as folder:
        check(graph, form, Path(folder))


@pytest.mark.parametrize("form", FORMATS)
def test_random_networks_agree_in_every_format(form: str) -> None:
    for_graphs(FORMATS[form], lambda graph: agrees(graph, form))


@pytest.mark.slow
def test_random_networks_agree_in_keras() -> None:
    for_graphs(300, lambda graph: agrees(graph, "keras"))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_ten_thousand_random_networks_agree(form: str) -> None:
    for_graphs(10_000, lambda graph: agrees(graph, form))


def test_the_strategy_reaches_the_whole_vocabulary_and_most_of_it_can_be_compared() -> None:
    found: set[type[ops.Op]] = set()
    steady: list[bool] = []

    def collect(graph: Graph) -> None:
        found.update(type(node.op) for node in graph.nodes)
        if len(steady) < 100:
            x = fed(graph)
            steady.append(is_steady(graph, x, execute(graph, x)))

    for_graphs(1000, collect)
    assert VOCABULARY - found <= UNREACHED
    assert found >= TRAINING_TIME
    assert sum(steady) > 90


def test_a_wrong_number_is_found() -> None:
    wanted = {"result": np.asarray([1.0, 2.0])}
    with pytest.raises(AssertionError, match="tflite: result"):
        assert_close({"result": np.asarray([1.0, 2.001])}, wanted, "tflite")
