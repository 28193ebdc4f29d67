"""Random Graphs, written to every format, run and read back: all agree with `execute`."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecnn import ops, registry
from edgecnn.errors import UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import Reader, SessionOptions
from edgecnn.passes.deploy import deploy
from edgecnn.ports import exterior
from edgecnn.source import target_for
from edgecnn.verify import run_batches
from tests.random_graphs import STEPS, graphs
from tests.test_writers import TRAINING_TIME, VOCABULARY

FORMATS = ("tflite", "onnx", "openvino")
UNREACHED = {ops.DetectionPostProcess, ops.Erf}
"""Detection has its own test; TFLite has no error function, so that it would hide what stands beside it."""


def fed(graph: Graph) -> dict[str, Array]:
    (port,) = graph.inputs
    shape = [size or 2 for size in graph.tensors[port.tensor].shape]
    return {port.name: np.random.default_rng(5).standard_normal(shape, dtype=np.float32)}


def assert_close(found: Mapping[str, Array], wanted: Mapping[str, Array], where: str) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        scale = max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(found[name], values, atol=1e-4 * scale, rtol=1e-4, err_msg=f"{where}: {name}")


def check(graph: Graph, form: str, folder: Path) -> None:
    """Write, run, read back and execute."""
    converter, x = registry.load("converters", form), fed(graph)
    wanted, shipped = execute(graph, x), deploy(graph).graph
    assert_close(execute(shipped, x), wanted, "deployed")
    try:
        path = converter.write(shipped, folder / f"tried{converter.suffix}").path
    except UnsupportedError as error:
        if form not in str(error):
            raise
        return
    session = target_for(path, None).open(path, SessionOptions(threads=1))
    try:
        found = run_batches(session, x, exterior(shipped, converter.default_layout))
    finally:
        session.close()
    assert_close(found, wanted, form)
    if isinstance(converter, Reader):
        back = converter.read(path)
        assert_close(execute(back, x), wanted, f"{form} read back")


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
@pytest.mark.parametrize("form", FORMATS)
def test_random_networks_agree_in_every_format(form: str, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        check(data.draw(graphs()), form, Path(folder))


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_ten_thousand_random_networks_agree(graph: Graph) -> None:
    for form in FORMATS:
        with TemporaryDirectory() as folder:
            check(graph, form, Path(folder))


def test_the_strategy_reaches_the_whole_vocabulary() -> None:
    found: set[type[ops.Op]] = set()

    @settings(
        max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    @given(graphs())
    def collect(graph: Graph) -> None:
        found.update(type(node.op) for node in graph.nodes)

    collect()
    assert len(STEPS) > 20
    assert VOCABULARY - found <= UNREACHED
    assert found >= TRAINING_TIME
