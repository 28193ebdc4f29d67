"""Our quantized artifacts against those of the specialists' tools: `python -m edgecnn.benchmarks.quantizers [TASK...]`.

Everybody gets the same float network, as our verified float artifact of the format, and the same images to calibrate
on; everybody's artifact runs in the same runtime on the same other images, and is compared with the float network.
Each tool works in a child process with a time limit, so that what ends one of them takes nothing with it.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from edgecnn.cli import guarded
from edgecnn.console import emit, message
from edgecnn.convert import Plan, convert
from edgecnn.errors import CheckFailedError, EdgeCNNError, UnknownNameError
from edgecnn.feeding import Feeds
from edgecnn.graph import Array, Graph
from edgecnn.isolated import Limits, Worker
from edgecnn.quantization.quantize import Samples
from edgecnn.quantization.recipe import Recipe
from edgecnn.source import format_of
from edgecnn.vision.photographs import MINIMUM

from ._quantizer_contests import CONTESTS, Contest, Loaded, part
from ._quantizer_figures import Figures, measured
from ._quantizer_latency import Times, times
from ._quantizer_peers import PEERS, RUNTIMES, Peer
from ._quantizer_report import OURS, Outcome, Row, page, show, table_rows, to_data
from .environment import read_environment, show_environment
from .real_files import data_folder

MODULE = "edgecnn.benchmarks._quantizer_peers"
LIMITS = Limits(seconds=900, memory_bytes=24 << 30)
"""Of one tool on one network. TensorFlow reserves far more memory than it uses."""

BATCH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """An artifact to be measured, or why there is none."""

    tool: str
    version: str
    settings: str
    format: str
    path: Path | None = None
    refusal: str = ""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Field:
    """Where a contest takes place: its folder, its images as files, and the outputs of the float network."""

    contest: Contest
    loaded: Loaded
    folder: Path
    floats: Mapping[str, Path]
    runner: Worker
    reference: Array

    @property
    def calibration(self) -> str:
        return str(self.folder / "calibration.npy")


def compete(
    contest: Contest,
    data: Path,
    *,
    peers: Sequence[Peer] = PEERS,
    limit: int | None = None,
    with_latency: bool = False,
    report: Callable[[str], None] = lambda what: None,
) -> list[Outcome]:
    """Quantize a network with every tool and measure all artifacts; one outcome for each recipe and format.

    Args:
        contest: What on.
        data: The folder with the published files.
        peers: The tools besides ours.
        limit: At most so many images to measure on, spread evenly.
        with_latency: Whether times are measured, too.
        report: Called with what is done next.

    Raises:
        EdgeCNNError: When the float network cannot be written; what quantizing it ends in is part of the outcomes.
    """
    report(f"{contest.name}: float artifacts")
    loaded = contest.load(data, contest.calibration)
    most = min(len(loaded.evaluation.images), limit or sys.maxsize, contest.evaluation or sys.maxsize)
    places = np.linspace(0, len(loaded.evaluation.images) - 1, most).astype(int)
    loaded = replace(loaded, evaluation=part(loaded.evaluation, places))
    with tempfile.TemporaryDirectory(prefix="edgecnn-") as folder, Worker() as runner:
        field = _opened(contest, loaded, Path(folder), runner)
        found = []
        for recipe in contest.goals:
            entries = [*_ours(field, recipe), *_theirs(field, recipe, peers, report)]
            found += [
                _outcome(field, recipe, form, [each for each in entries if each.format == form], with_latency, report)
                for form in RUNTIMES
            ]
    return found


def _opened(contest: Contest, loaded: Loaded, folder: Path, runner: Worker) -> _Field:
    """Write the images and the float artifacts, and run the float network."""
    np.save(folder / "calibration.npy", loaded.calibration)
    np.save(folder / "evaluation.npy", loaded.evaluation.images)
    feeds = Feeds(values={loaded.graph.inputs[0].name: loaded.calibration[:MINIMUM]}, origin="calibration")
    plan = Plan(formats=tuple(RUNTIMES), threads=os.cpu_count() or 1)
    made = convert(loaded.graph, folder / "float", plan, load=lambda graph, contract: feeds)
    floats = {artifact.format: artifact.path for artifact in made.artifacts}
    reference = _run(runner, floats["onnx"], folder)
    return _Field(contest=contest, loaded=loaded, folder=folder, floats=floats, runner=runner, reference=reference)


def _run(runner: Worker, artifact: Path, folder: Path) -> Array:
    """Return what an artifact computes on the images to measure on."""
    wanted = f"{artifact.name}: a file that {RUNTIMES[format_of(artifact).name]} can run was wanted"
    images, found = folder / "evaluation.npy", folder / "found.npy"
    runner.call(f"{MODULE}:run", str(artifact), str(images), str(found), wanted=wanted, limits=LIMITS)
    return np.asarray(np.load(found))


def _ours(field: _Field, recipe: str, formats: tuple[str, ...] = tuple(RUNTIMES)) -> list[_Entry]:
    """Return our artifacts, all from one calibration; each format on its own where one refuses."""
    graph, images = field.loaded.graph, field.loaded.calibration

    def batches(of: Graph) -> Iterator[dict[str, Array]]:
        return ({of.inputs[0].name: images[at : at + BATCH]} for at in range(0, len(images), BATCH))

    plan = Plan(formats=formats, recipe=Recipe(precision=recipe), threads=os.cpu_count() or 1)
    entry = _Entry(tool=OURS, version="", settings=recipe, format=formats[0])
    try:
        made = convert(graph, field.folder / OURS, plan, samples=Samples(batches=batches, origin="calibration"))
    except EdgeCNNError as error:
        if len(formats) == 1:
            return [replace(entry, refusal=str(error))]
        return [each for form in formats for each in _ours(field, recipe, (form,))]
    return [replace(entry, format=artifact.format, path=artifact.path) for artifact in made.artifacts]


def _theirs(field: _Field, recipe: str, peers: Sequence[Peer], report: Callable[[str], None]) -> Iterator[_Entry]:
    """Yield each tool's artifacts, one for each of its settings."""
    for peer in peers:
        for place, settings in enumerate(peer.settings.get(recipe, ())):
            report(f"{field.contest.name}, {recipe}: {peer.name} {settings}")
            source = field.floats[peer.format]
            path = field.folder / f"{peer.function}_{recipe}_{place}{source.suffix}"
            yield _made(field, peer, settings, source, path)


def _made(field: _Field, peer: Peer, settings: str, source: Path, path: Path) -> _Entry:
    entry = _Entry(tool=peer.name, version="", settings=settings, format=peer.format)
    wanted = f"{peer.name}: a quantized {field.contest.name} was wanted"
    try:
        entry = replace(entry, version=peer.version())
        with Worker() as child:
            arguments = (str(source), field.calibration, str(path), settings)
            child.call(f"{MODULE}:{peer.function}", *arguments, wanted=wanted, limits=LIMITS)
    except EdgeCNNError as error:
        return replace(entry, refusal=str(error))
    return replace(entry, path=path)


def _outcome(
    field: _Field, recipe: str, form: str, entries: Sequence[_Entry], with_latency: bool, report: Callable[[str], None]
) -> Outcome:
    """Run all artifacts of a recipe and format."""
    report(f"{field.contest.name}, {recipe}: {form} artifacts")
    rows = [_row(field, entry) for entry in entries]
    found: dict[str, Times] = {}
    runnable = {row.name: entry.path for row, entry in zip(rows, entries, strict=True) if row.figures and entry.path}
    if with_latency and runnable and rows[0].name in runnable:
        found = times(runnable, rows[0].name, field.loaded.evaluation.images[:1])
    truth = field.loaded.evaluation
    right = None if truth.classes is None else float((field.reference.argmax(axis=1) == truth.classes).mean())
    outcome = Outcome(
        contest=field.contest.name,
        recipe=recipe,
        format=form,
        goal=field.contest.goals[recipe],
        calibration=len(field.loaded.calibration),
        evaluation=len(truth.images),
        float_top1=right,
        rows=tuple(replace(row, times=found.get(row.name)) for row in rows),
    )
    for cells in table_rows(outcome):
        report("  " + "  ".join(filter(None, cells)))
    return outcome


def _row(field: _Field, entry: _Entry) -> Row:
    row = Row(tool=entry.tool, version=entry.version, settings=entry.settings, refusal=entry.refusal)
    if entry.path is None:
        return row
    try:
        found = _run(field.runner, entry.path, field.folder)
        figures: Figures = measured(field.reference, found, field.loaded.evaluation, field.contest.figures)
    except EdgeCNNError as error:
        return replace(row, refusal=str(error))
    files = [file for file in format_of(entry.path).files(entry.path) if file.is_file()]
    return replace(row, figures=figures, size_bytes=sum(file.stat().st_size for file in files))


def _chosen(names: Sequence[str]) -> list[Contest]:
    """Return the contests whose names begin with one of some texts; all without any."""
    for name in names:
        if not any(contest.name.lower().startswith(name.lower()) for contest in CONTESTS):
            raise UnknownNameError(f"No network is named '{name}'. There are: {', '.join(c.name for c in CONTESTS)}.")
    beginnings = tuple(name.lower() for name in names)
    return [contest for contest in CONTESTS if not names or contest.name.lower().startswith(beginnings)]


@click.command()
@click.argument("names", metavar="[TASK]...", nargs=-1)
@click.option("--data", type=click.Path(path_type=Path), help="Else $EDGECNN_TEST_DATA or ../shared/data.")
@click.option("--limit", type=click.IntRange(2), help="At most so many images to measure on.")
@click.option("--latency", "with_latency", is_flag=True, help="Measure times, too: one thread, interleaved.")
@click.option("--page", "target", type=click.Path(path_type=Path), help="Write the page here: docs/quantization.md.")
@click.option("--json", "as_json", is_flag=True)
def main(
    *,
    names: tuple[str, ...],
    data: Path | None,
    limit: int | None,
    with_latency: bool,
    target: Path | None,
    as_json: bool,
) -> None:
    """Quantize every published float network with every tool; exits 1 where ours misses a goal or is beaten."""
    environment, folder = read_environment(), data or data_folder()
    outcomes: list[Outcome] = []
    failures: list[str] = []
    for contest in _chosen(names):
        try:
            outcomes += compete(contest, folder, limit=limit, with_latency=with_latency, report=message)
        except EdgeCNNError as error:  # the other networks are still worth measuring
            failures.append(f"{contest.name}: {error}")
    machine = show_environment(environment)
    if target is not None:
        target.write_text(page(outcomes, machine), encoding="utf-8")
    emit(to_data(outcomes, machine), lambda console: show(outcomes, console), as_json=as_json)
    failures += [text for each in outcomes for text in each.failures]
    if failures:
        raise CheckFailedError(f"quantizers: every goal and no better peer was wanted; {'; '.join(failures)}")


if __name__ == "__main__":
    guarded(main)
