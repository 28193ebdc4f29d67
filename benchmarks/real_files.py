"""Task accuracy of published files and of what we make of them: `python -m edgecnn.benchmarks.real_files`.

Each file is measured in its own runtime, then converted to every format that can carry it and measured again there: an
artifact may be 0.2 points worse than its source (0.5 for quantized files, whose integers each runtime rounds in its own
way), and the source must be as near to what the README of the data publishes.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edgecnn import registry
from edgecnn.cli import guarded
from edgecnn.console import emit, message, table
from edgecnn.convert import Plan, convert
from edgecnn.errors import CheckFailedError, EdgeCNNError, NotThereError
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import Session, SessionOptions
from edgecnn.ports import exterior
from edgecnn.shapes import Shape
from edgecnn.source import format_of, load_source
from edgecnn.verify import run_batches

from .quantized_tasks import TASKS as QUANTIZED_TASKS
from .real_tasks import TASKS as FLOAT_TASKS
from .real_tasks import Labelled, Outputs, Task

RUNTIMES = {"tflite": "litert_cpu", "onnx": "onnxruntime_cpu", "openvino": "openvino_cpu", "keras": "keras_cpu"}
TASKS: Sequence[Task] = (*FLOAT_TASKS, *QUANTIZED_TASKS)

BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One measure of one task.

    Attributes:
        task: Its name.
        measure: Its name.
        images: How many.
        published: In %, or None.
        source: In %, of the source file in its runtime.
        artifacts: Format -> %; a format that is not there could not be made.
        refused: Format -> why it could not be made.
        allowed_points: Percentage points that a figure may be off.
    """

    task: str
    measure: str
    images: int
    published: float | None
    source: float
    artifacts: dict[str, float]
    refused: dict[str, str]
    allowed_points: float = 0.2

    @property
    def failures(self) -> list[str]:
        """Return what is wrong, in words."""
        off = {
            form: value
            for form, value in self.artifacts.items()
            if not (value > self.source or self._is_near(value, self.source))
        }
        found = [f"{form} {value:.2f} for {self.source:.2f}" for form, value in off.items()]
        found += [f"no {form}: {reason}" for form, reason in self.refused.items()]
        if self.published is not None and not self._is_near(self.source, self.published):
            found.append(f"source {self.source:.2f} for {self.published:.1f}")
        return [f"{self.task}, {self.measure}: {each}" for each in found]

    def _is_near(self, found: float, wanted: float) -> bool:
        return round(abs(found - wanted), 6) <= self.allowed_points  # the limit itself is allowed; NaN is not


def data_folder() -> Path:
    """Return the folder with the published files.

    Raises:
        NotThereError: When neither $EDGECNN_TEST_DATA nor ../shared/data is there.
    """
    for path in (Path(os.environ.get("EDGECNN_TEST_DATA", "")), Path("../shared/data")):
        if (path / "weights").is_dir():
            return path
    raise NotThereError("the published files were wanted; neither $EDGECNN_TEST_DATA nor ../shared/data has them.")


def measured(task: Task, data: Path, *, formats: Sequence[str], limit: int | None = None) -> list[Result]:
    """Measure a source file and its artifacts.

    Args:
        task: What on.
        data: The folder with the published files.
        formats: To convert to; those that cannot carry the file are left out.
        limit: At most so many images, evenly spread; what is published is not compared then.
    """
    path, truth = data / "weights" / task.file, _limited(task.load(data), limit)
    source = load_source(str(path))
    target = task.source_target or RUNTIMES[format_of(path).name]
    wanted = _run(path, target, source.read, truth.images)
    outputs: dict[str, Outputs] = {}
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgecnn-") as folder:
        for form in (each for each in formats if each in task.formats):
            try:
                artifact = convert(source, Path(folder), Plan(formats=(form,))).artifacts[0]
                outputs[form] = _run(artifact.path, RUNTIMES[form], source.graph, truth.images)
            except EdgeCNNError as error:
                refused[form] = str(error)
    return [
        Result(
            task=task.name,
            measure=measure.name,
            images=len(truth.images),
            published=measure.published if limit is None else None,
            source=100 * measure.score(wanted, wanted, truth),
            artifacts={form: 100 * measure.score(found, wanted, truth) for form, found in outputs.items()},
            refused=refused,
            allowed_points=task.allowed_points,
        )
        for measure in task.measures
    ]


def _limited(truth: Labelled, limit: int | None) -> Labelled:
    if limit is None or limit >= len(truth.images):
        return truth
    chosen = [index * len(truth.images) // limit for index in range(limit)]
    return replace(
        truth,
        images=truth.images[chosen],
        classes=None if truth.classes is None else truth.classes[chosen],
        boxes=tuple(truth.boxes[index] for index in chosen) if truth.boxes else (),
    )


def _run(path: Path, target: str, graph: Graph, images: Array) -> Outputs:
    """Return what a file computes, in the Graph's order of axes."""
    form = format_of(path)
    session = registry.load("targets", target).open(path, SessionOptions(threads=os.cpu_count() or 1))
    try:
        known = exterior(graph, form.default_layout, form.read_contract(path))
        return run_batches(_Batched(session), {graph.inputs[0].name: images}, known)
    finally:
        session.close()


class _Batched:
    """A session whose symbolic batch is BATCH: Keras takes 30 ms for a call, however few images it brings."""

    def __init__(self, session: Session) -> None:
        self.facts, self.run, self.bind, self.close = session.facts, session.run, session.bind, session.close
        self.input_dtypes = session.input_dtypes
        self.input_shapes: Mapping[str, Shape] = {
            name: (shape[0] or BATCH, *shape[1:]) for name, shape in session.input_shapes.items()
        }


def _data(result: Result) -> dict[str, Any]:
    return {**asdict(result), "failures": result.failures}


def _show(results: Sequence[Result], formats: Sequence[str], console: Console) -> None:
    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    rows = [
        (
            each.task,
            each.measure,
            each.images,
            cell(each.published),
            cell(each.source),
            *(cell(each.artifacts.get(form)) for form in formats),
        )
        for each in results
    ]
    console.print(table("", ("<task", "<measure", "images", "published", "source", *formats), rows))


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Else $EDGECNN_TEST_DATA or ../shared/data.")
@click.option("--only", metavar="TEXT", default="", help="Tasks whose name holds this.")
@click.option("--format", "formats", multiple=True, type=click.Choice(list(RUNTIMES)), help="All without it.")
@click.option("--limit", type=click.IntRange(1), help="At most so many images; nothing published is compared then.")
@click.option("--json", "as_json", is_flag=True)
def main(*, data: Path | None, only: str, formats: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """Measure every published file and its artifacts; exits 1 where one is not as accurate as it must be."""
    folder, formats = data or data_folder(), formats or tuple(RUNTIMES)
    if not (folder / "weights").is_dir():
        raise NotThereError(f"{folder}: a folder with the published files below weights/ was wanted; there is none.")
    results: list[Result] = []
    for task in TASKS:
        if only.lower() in task.name.lower():
            message(task.name)
            results += measured(task, folder, formats=formats, limit=limit)
    emit(
        {"measured": "here", "results": [_data(each) for each in results]},
        lambda console: _show(results, formats, console),
        as_json=as_json,
    )
    failures = [text for each in results for text in each.failures]
    if failures:
        raise CheckFailedError(f"real_files: figures nearer to their source were wanted: {'; '.join(failures)}")


if __name__ == "__main__":
    guarded(main)
