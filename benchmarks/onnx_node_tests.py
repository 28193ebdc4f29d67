"""ONNX's own node tests through reader, `execute` and writers: `python -m edgecnn.benchmarks.onnx_node_tests`.

The onnx package carries one small model with inputs and expected outputs for each form of each operator. A case counts
when its operator is one that we read and its first input is float32 (an 8-bit integer for the operators that take what
quantized tensors store); the operands after the first become constants.
Each is read, and must give the expected outputs through `execute`, a written ONNX file in ONNX Runtime and a written
TFLite file in LiteRT, within the case's own tolerances.
Source: onnx/onnx, onnx/backend/test/case/node.
"""

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import registry
from edgecnn.cli import guarded
from edgecnn.errors import EdgeCNNError
from edgecnn.execute import execute
from edgecnn.extras import require
from edgecnn.graph import Array, Graph, Port, from_layout, to_layout
from edgecnn.interfaces import SessionOptions
from edgecnn.ops import Opaque
from edgecnn.passes.deploy import deploy
from edgecnn.ports import default_layout

STAGES = ("execute", "onnx", "tflite")
RUNTIMES = {"onnx": "onnxruntime_cpu", "tflite": "litert_cpu"}
TABLE = Path("docs/onnx_node_tests.md")

OF_INTEGERS = ("DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
"""Operators whose first input stores numbers as integers."""

QUANTIZED = (*OF_INTEGERS, "QuantizeLinear", "DynamicQuantizeLinear")

OF_TRAINING = "test_training_"
"""How cases begin that only training has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One node test.

    Attributes:
        name: As the onnx package calls it.
        kind: Its operator.
        model: The ModelProto, serialized, with one input.
        first: What that input is fed.
        wanted: Expected outputs, in order.
        atol: Absolute tolerance.
        rtol: Relative tolerance.
    """

    name: str
    kind: str
    model: bytes
    first: Array
    wanted: tuple[Array, ...]
    atol: float
    rtol: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one case.

    Attributes:
        name: Of the case.
        kind: Its operator.
        reasons: Stage -> why it failed; a stage that is not there passed.
    """

    name: str
    kind: str
    reasons: dict[str, str]


def cases_of(kinds: Container[str]) -> Iterator[Case]:
    """Yield the single-node cases of these operators whose first input stands for real numbers."""
    node = require("onnx.backend.test.case.node", purpose="running ONNX's node tests")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = node.collect_testcases()
    for case in found:
        if case.model is None or len(case.model.graph.node) != 1 or case.model.graph.node[0].op_type not in kinds:
            continue
        if case.name.startswith(OF_TRAINING):
            continue
        inputs, outputs = ([_array(each) for each in side] for side in case.data_sets[0])
        if not inputs or not all(each is None or isinstance(each, np.ndarray) for each in (*inputs, *outputs)):
            continue
        fitting = ("int8", "uint8") if case.model.graph.node[0].op_type in OF_INTEGERS else ("float32",)
        if str(inputs[0].dtype) in fitting:
            yield _bound(case, inputs, outputs)


def _array(value: Any) -> Any:
    """Return a scalar of NumPy as an array, and anything else (a sequence, nothing) as it is."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def _bound(case: Any, inputs: Sequence[Array], outputs: Sequence[Array]) -> Case:
    """Bind every operand after the first as an initializer."""
    numpy_helper = require("onnx.numpy_helper", purpose="running ONNX's node tests")
    model = type(case.model)()
    model.CopyFrom(case.model)
    for port, value in zip(list(model.graph.input)[1:], inputs[1:], strict=True):
        model.graph.input.remove(port)
        if value is not None:
            model.graph.initializer.append(numpy_helper.from_array(value, port.name))
    kind = model.graph.node[0].op_type
    tolerances = {"atol": max(case.atol, 1e-5), "rtol": case.rtol}
    content = model.SerializeToString()
    return Case(name=case.name, kind=kind, model=content, first=inputs[0], wanted=tuple(outputs), **tolerances)


def tried(case: Case, folder: Path) -> Outcome:
    """Read a case and run it through every stage."""
    path = folder / "case.onnx"
    path.write_bytes(case.model)
    try:
        graph = registry.load("converters", "onnx").read(path)
        shipped = deploy(graph).graph
    except EdgeCNNError as error:
        return Outcome(name=case.name, kind=case.kind, reasons=dict.fromkeys(STAGES, _shown(error, path)))
    unread = next((node.op.kind for node in graph.nodes if isinstance(node.op, Opaque)), None)
    if unread is not None:
        return Outcome(name=case.name, kind=case.kind, reasons=dict.fromkeys(STAGES, unread))
    runs: dict[str, Callable[[], Sequence[Array]]] = {
        "execute": lambda: _executed(graph, case.first),
        "onnx": lambda: _run(shipped, "onnx", folder, case.first),
        "tflite": lambda: _run(shipped, "tflite", folder, case.first),
    }
    reasons = {}
    for stage, run in runs.items():
        try:
            np.testing.assert_equal(len(found := run()), len(case.wanted))
            for each, wanted in zip(found, case.wanted, strict=True):
                np.testing.assert_allclose(each, wanted, atol=case.atol, rtol=case.rtol)
        except (EdgeCNNError, AssertionError, ValueError, TypeError) as error:
            reasons[stage] = _shown(error, path)
    return Outcome(name=case.name, kind=case.kind, reasons=reasons)


def _shown(error: Exception, path: Path) -> str:
    lines = [line.strip() for line in str(error).replace(f"{path}: ", "").splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def _executed(graph: Graph, first: Array) -> list[Array]:
    values = execute(graph, {graph.inputs[0].name: _graph_order(graph.inputs[0], first)}, stored=True)
    return [to_layout(values[port.name], _layout(port, values[port.name], "NCHW")) for port in graph.outputs]


def _run(graph: Graph, form: str, folder: Path, first: Array) -> list[Array]:
    """Write the Graph, feed the artifact in its own layout, and return its outputs in the case's."""
    writer = registry.load("converters", form)
    path = writer.write(graph, folder / f"written{writer.suffix}").path
    session = registry.load("targets", RUNTIMES[form]).open(path, SessionOptions())
    try:
        fed = to_layout(_graph_order(graph.inputs[0], first), _layout(graph.inputs[0], first, writer.default_layout))
        found = session.run({graph.inputs[0].name: np.ascontiguousarray(fed)})
    finally:
        session.close()
    return [_case_order(port, found[port.name], writer.default_layout) for port in graph.outputs]


def _layout(port: Port, values: Array, default: Any) -> str:
    return port.layout or default_layout(values.shape, default)


def _graph_order(port: Port, first: Array) -> Array:
    return from_layout(first, _layout(port, first, "NCHW"))


def _case_order(port: Port, values: Array, default: Any) -> Array:
    return to_layout(from_layout(values, _layout(port, values, default)), _layout(port, values, "NCHW"))


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the page: one row for each operator, and every case that fails with its reason."""
    cases = Counter(outcome.kind for outcome in outcomes)
    passed = {stage: Counter(o.kind for o in outcomes if stage not in o.reasons) for stage in STAGES}
    lines = [
        "# ONNX's node tests",
        "",
        "Written by `python -m edgecnn.benchmarks.onnx_node_tests`, which says what is counted.",
        "",
        f"Of {len(cases)} operators, those that take or give integers which stand for numbers are counted apart.",
        "",
        f"- float: {_shares([each for each in outcomes if each.kind not in QUANTIZED])}",
        f"- quantized: {_shares([each for each in outcomes if each.kind in QUANTIZED])}",
        "",
        "| operator | cases | " + " | ".join(STAGES) + " |",
        "|---|---|" + "---|" * len(STAGES),
        *(
            f"| {kind} | {cases[kind]} | " + " | ".join(str(passed[stage][kind]) for stage in STAGES) + " |"
            for kind in sorted(cases)
        ),
        "",
        "## What fails, and why",
        "",
        *(
            f"- `{outcome.name}` ({', '.join(outcome.reasons)}): {'; '.join(dict.fromkeys(outcome.reasons.values()))}"
            for outcome in outcomes
            if outcome.reasons
        ),
        "",
    ]
    return "\n".join(lines)


def _shares(outcomes: Sequence[Outcome]) -> str:
    passed = {stage: sum(stage not in outcome.reasons for outcome in outcomes) for stage in STAGES}
    listed = ", ".join(f"{stage} {count} ({share(outcomes, stage):.1%})" for stage, count in passed.items())
    return f"of {len(outcomes)} cases pass {listed}."


def share(outcomes: Sequence[Outcome], stage: str) -> float:
    """Return the share of the cases that pass a stage."""
    return sum(stage not in outcome.reasons for outcome in outcomes) / len(outcomes)


def all_cases() -> list[Case]:
    """Return the cases of every operator that the ONNX reader has a row for."""
    return list(cases_of(registry.load("converters", "onnx").readable_operators()))


def run_cases(cases: Iterable[Case]) -> list[Outcome]:
    """Run each case through every stage."""
    with tempfile.TemporaryDirectory() as folder:
        return [tried(case, Path(folder)) for case in cases]


def main() -> None:
    """Run every case and write the page."""
    page = table(run_cases(all_cases()))
    TABLE.write_text(page, encoding="utf-8")
    sys.stdout.write(page)


if __name__ == "__main__":
    guarded(main)
