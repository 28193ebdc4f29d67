"""A broken writer is found out: the node, the format, and the smallest model that shows it."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgecnn import ops, registry
from edgecnn.bisect import CHUNK_BYTES, Suspect, bisect
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn
from edgecnn.conversion import ParityError
from edgecnn.convert import Plan, convert
from edgecnn.feeding import load_feeds
from edgecnn.graph import Graph
from edgecnn.interfaces import Artifact, SessionOptions
from edgecnn.passes.deploy import deploy
from edgecnn.proof import Load
from edgecnn.source import target_for

FORMATS = ("tflite", "onnx", "openvino")


def residual_network() -> Graph:
    """image -> stem -> (left, right) -> sum -> ReLU -> head, each convolution with a bias."""
    b = GraphBuilder("tried", initialise=he_normal(3))
    x = b.input("image", (1, 12, 10, 3))

    def conv(x: str, name: str, stride: int = 1) -> str:
        kernel = b.constant(f"{name}/kernel", he_normal(3)(name, (3, 3, b.shape(x)[-1] or 0, 6)))
        bias = b.constant(f"{name}/bias", np.linspace(-1, 2, 6, dtype=np.float32))
        return b.node(
            name,
            ops.Conv(stride=(stride, stride), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1),
            x,
            kernel,
            bias,
        )

    stem = b.node("stem/relu", ops.ReLU(), conv(x, "stem", 2))
    total = b.node("sum/relu", ops.ReLU(), b.add(conv(stem, "left"), conv(stem, "right"), "sum"))
    pooled = b.node("pool", ops.Mean(axes=(1, 2), keep_dims=False), conv(total, "head"))
    return b.finish({"logits": b.node("probabilities", ops.Softmax(), pooled)})


def with_negated_bias(graph: Graph, node: str) -> Graph:
    name = f"{node}/bias"
    if all(each.name != node for each in graph.nodes):
        return graph
    tensor = graph.tensors[name]
    return replace(graph, tensors={**graph.tensors, name: replace(tensor, data=-tensor.value())})


def break_writer(form: str, node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a writer write one Conv with the wrong sign of its bias, in whatever part of a network it stands."""
    kind = type(registry.load("converters", form))
    write: Callable[[Any, Graph, Path], Artifact] = kind.write
    monkeypatch.setattr(kind, "write", lambda self, graph, path: write(self, with_negated_bias(graph, node), path))


def photographs() -> Load:
    return lambda graph, contract: load_feeds(graph, contract, None, limit=16)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("node", ["stem", "right", "head"])
def test_a_wrong_bias_is_found_and_the_node_alone_is_saved(
    form: str, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_writer(form, node, monkeypatch)
    out = tmp_path / "out"
    with pytest.raises(ParityError) as caught:
        convert(residual_network(), out, Plan(formats=(form,)), load=photographs())
    (found,) = caught.value.conversion.divergences
    assert (found.format, found.node.partition("/")[0], found.kind, found.operators) == (form, node, "Conv", 1)
    assert found.max_error > 1e-2
    assert f"In {form}, Conv '{found.node}' is the first to differ" in str(caught.value)
    files = registry.load("converters", form).files(found.model)
    assert sorted(out.iterdir()) == sorted([*files, found.values])


@pytest.mark.parametrize("form", FORMATS)
def test_the_saved_values_run_the_saved_model(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_writer(form, "right", monkeypatch)
    with pytest.raises(ParityError) as caught:
        convert(residual_network(), tmp_path, Plan(formats=(form,)), load=photographs())
    (found,) = caught.value.conversion.divergences
    with np.load(found.values, allow_pickle=False) as file:
        values = dict(file)
    inputs = {name.partition("/")[2]: value for name, value in values.items() if name.startswith("input/")}
    with closing(target_for(found.model, None).open(found.model, SessionOptions())) as session:
        outputs = session.run({name: value[:1] for name, value in inputs.items()})
    assert len(outputs) == 1
    for name, output in outputs.items():
        np.testing.assert_array_equal(output, values[f"found/{name}"][:1])
        assert np.abs(output - values[f"expected/{name}"][:1]).max() > 0.1


def test_earlier_evidence_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_writer("onnx", "stem", monkeypatch)
    for _ in range(2):
        with pytest.raises(ParityError):
            convert(residual_network(), tmp_path, Plan(formats=("onnx",)), load=photographs())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tried_diverges.onnx",
        "tried_diverges.onnx.npz",
        "tried_diverges_2.onnx",
        "tried_diverges_2.onnx.npz",
    ]


def test_an_error_that_needs_its_neighbours_is_shown_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(registry.load("converters", "onnx"))
    write = kind.write

    def broken(self: Any, graph: Graph, path: Path) -> Artifact:
        names = {node.name for node in graph.nodes}
        is_hit = {"sum", "right", "left"} <= {name.partition("/")[0] for name in names}
        return write(self, with_negated_bias(graph, "right") if is_hit else graph, path)  # type: ignore[no-any-return]

    monkeypatch.setattr(kind, "write", broken)
    with pytest.raises(ParityError) as caught:
        convert(residual_network(), tmp_path, Plan(formats=("onnx",)), load=photographs())
    (found,) = caught.value.conversion.divergences
    assert found.node.startswith("sum")
    assert found.operators == 3


def test_an_error_that_hides_when_it_is_observed_is_found_by_truncated_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(registry.load("converters", "onnx"))
    write = kind.write

    def broken(self: Any, graph: Graph, path: Path) -> Artifact:
        shy = graph if len(graph.outputs) > 1 else with_negated_bias(graph, "left")
        return write(self, shy, path)  # type: ignore[no-any-return]

    monkeypatch.setattr(kind, "write", broken)
    with pytest.raises(ParityError) as caught:
        convert(residual_network(), tmp_path, Plan(formats=("onnx",)), load=photographs())
    (found,) = caught.value.conversion.divergences
    assert (found.node.partition("/")[0], found.operators) == ("left", 1)


def test_a_healthy_writer_has_nothing_to_find(tmp_path: Path) -> None:
    graph = deploy(residual_network()).graph
    suspect = Suspect(
        graph=graph,
        writer=registry.load("converters", "onnx"),
        target=registry.load("targets", "onnxruntime_cpu"),
        inputs=photographs()(graph, None).values,
    )
    assert bisect(suspect, tmp_path, "healthy") is None
    assert not list(tmp_path.iterdir())


def test_chunks_find_the_same_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHUNK_BYTES > 1
    monkeypatch.setattr("edgecnn.bisect.CHUNK_BYTES", 1)
    break_writer("onnx", "right", monkeypatch)
    with pytest.raises(ParityError) as caught:
        convert(residual_network(), tmp_path, Plan(formats=("onnx",)), load=photographs())
    assert caught.value.conversion.divergences[0].node == "right"


def test_the_command_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(registry.load("converters", "tflite"))
    write = kind.write

    def broken(self: Any, graph: Graph, path: Path) -> Artifact:
        tensors = {
            name: replace(tensor, data=-tensor.value()) if name == "c3/kernel" else tensor
            for name, tensor in graph.tensors.items()
        }
        return write(self, replace(graph, tensors=tensors), path)  # type: ignore[no-any-return]

    monkeypatch.setattr(kind, "write", broken)
    arguments = ["convert", "lenet5", "--to", "tflite,onnx", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(edgecnn, [*arguments, "--json"])
    assert isinstance(result.exception, ParityError)
    data = json.loads(result.stdout)
    (found,) = data["divergences"]
    assert not data["passed"]
    assert (found["format"], found["kind"], found["operators"]) == ("tflite", "Conv", 1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "lenet5_diverges.tflite",
        "lenet5_diverges.tflite.npz",
    ]
    assert "is the first to differ" in CliRunner().invoke(edgecnn, arguments).stdout
