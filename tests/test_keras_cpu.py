"""A .keras file in Keras itself computes what `execute` computes."""

from pathlib import Path

import numpy as np
import pytest

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.errors import InputFileError
from edgecnn.execute import execute
from edgecnn.graph import Graph
from edgecnn.interfaces import SessionOptions
from edgecnn.source import target_for

keras = pytest.importorskip("keras")


def several_ports(count: int) -> Graph:
    """A Graph with as many inputs as outputs, the last output shown under a name of its own."""
    b = GraphBuilder("ports", initialise=he_normal(0))
    inputs = [b.input(f"in_{i}", (None, 6, 5, 3)) for i in range(count)]
    x = inputs[0]
    for other in inputs[1:]:
        x = b.node(f"{other}/joined", ops.Sub(), x, other)
    inner = b.conv(x, "conv", 4, kernel_size=3)
    return b.finish({"last": b.node("mean", ops.Mean(axes=(1, 2)), inner), **({"inner": inner} if count > 1 else {})})


@pytest.mark.parametrize("count", [1, 2])
def test_keras_computes_what_execute_computes(count: int, tmp_path: Path) -> None:
    graph = several_ports(count)
    path = registry.load("converters", "keras").write(graph, tmp_path / "m.keras").path
    rng = np.random.default_rng(0)
    x = {port.name: rng.standard_normal((2, 6, 5, 3), dtype=np.float32) for port in graph.inputs}
    session = target_for(path, "keras_cpu").open(path, SessionOptions())
    found, wanted = session.run(x), execute(graph, x)
    session.close()
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)
    assert session.facts.runtime.startswith("keras ")


def test_a_lambda_is_refused_before_keras_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "lambda.keras"
    image = keras.Input((4, 4, 3), name="image")
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2, name="twice")(image)).save(path)
    with pytest.raises(InputFileError, match="Lambda"):
        target_for(path, "keras_cpu").open(path, SessionOptions())
