"""The job behind `edgecnn bench`: open artifacts, feed each a real image, measure them against each other."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.contract import Contract
from edgecnn.count import count
from edgecnn.errors import EdgeCNNError, MissingError, UsageError
from edgecnn.feeding import artifact_exterior, as_fed, random_values
from edgecnn.graph import Array, Graph, external_shape, to_layout
from edgecnn.interfaces import Facts, Session, SessionOptions
from edgecnn.shapes import Shape, check_shape, show_shape
from edgecnn.source import existing, format_of, load_model, target_for
from edgecnn.vision.photographs import load_images

from .cautions import Caution, environment_cautions
from .environment import Environment, read_environment
from .latency import LatencyResult, Plan, measure
from .statistics import Interval, median_interval, paired_ratio

RANDOM = "random normal numbers"


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        artifacts: Files; the first is the one that the others are compared with.
        target: Registry name, or None for the CPU target that opens each format.
        threads: Of the runtime.
        plan: Rounds, slices, warm-up and seed.
        data: Folder with images, or None for an installed package's photographs.
        model: Zoo name or file whose MACs the artifacts have; None takes what each artifact's contract says.
    """

    artifacts: tuple[Path, ...]
    target: str | None = None
    threads: int = 1
    plan: Plan = field(default_factory=Plan)
    data: Path | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BenchRow:
    """One artifact, measured here; times are of one invocation.

    Attributes:
        artifact: Its file.
        target: Registry name.
        facts: What the runtime granted.
        batch: Images in one invocation.
        fed: Where the input came from.
        latency: Times in seconds.
        median_s: Median with its interval.
        macs: Of one invocation, as --model or the artifact itself counts them, or None where neither does.
        ratio: Time of this artifact / time of the first, by rounds.
    """

    artifact: Path
    target: str
    facts: Facts
    batch: int
    fed: str
    latency: LatencyResult
    median_s: Interval
    macs: int | None
    ratio: Interval

    @property
    def macs_per_s(self) -> float | None:
        """Multiply-accumulates in a second, at the median."""
        return None if self.macs is None else self.macs / self.latency.median_s


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BenchReport:
    """Everything that one benchmark found.

    Attributes:
        environment: As it was before anything was loaded.
        plan: How it was measured.
        rows: In the order of the artifacts.
        cautions: About the machine; those about one artifact stand in its row.
        notes: What else a person should know, such as inputs that are no images.
    """

    environment: Environment
    plan: Plan
    rows: tuple[BenchRow, ...]
    cautions: tuple[Caution, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Opened:
    path: Path
    target: str
    session: Session
    inputs: Mapping[str, Array]
    fed: str
    macs: int | None

    @property
    def batch(self) -> int:
        return len(next(iter(self.inputs.values())))


def bench(options: BenchOptions, *, report: Callable[[], None] | None = None) -> BenchReport:
    """Measure artifacts against each other, in one process.

    Args:
        options: What to measure.
        report: Called after each round.

    Raises:
        UsageError: When a file cannot be opened by the target, fed by --data, or is another network than --model.
        NotThereError: When a file is not there.
        MissingError: When a runtime is not installed.
    """
    environment = read_environment()
    model = None if options.model is None else load_model(options.model, values=False)
    notes: list[str] = []
    with ExitStack() as stack:
        opened = [_open(path, options, model, stack, notes) for path in options.artifacts]
        names = _unique([str(each.path) for each in opened])
        invocations = {name: each.session.bind(each.inputs) for name, each in zip(names, opened, strict=True)}
        results = list(measure(invocations, options.plan, report=report).values())
        first = results[0].samples_s
        rows = tuple(_row(each, found, first, options.plan.seed) for each, found in zip(opened, results, strict=True))
    cautions = environment_cautions(environment, threads=options.threads)
    return BenchReport(environment=environment, plan=options.plan, rows=rows, cautions=cautions, notes=tuple(notes))


def feed(session: Session, contract: Contract | None, data: Path | None, path: Path) -> tuple[dict[str, Array], str]:
    """Return inputs for one invocation of a session, and where they come from.

    A symbolic batch becomes 1; a larger one repeats the images that there are. An integer port gets the integers that
    stand for the pixels.

    Args:
        session: An open artifact.
        contract: Its contract; without one it is fed random numbers.
        data: Folder with images, or None for an installed package's photographs.
        path: Its file.
    """
    shapes = {name: tuple(size or 1 for size in shape) for name, shape in session.input_shapes.items()}
    if contract is None or len(shapes) != 1:
        if data is not None:
            raise UsageError(f"{path}: --data needs a contract and one input; the file has none. Leave --data out.")
        generator = np.random.default_rng(0)
        return {n: random_values(shape, session.input_dtypes[n], generator) for n, shape in shapes.items()}, RANDOM
    ((name, shape),) = shapes.items()
    images = load_images(data, contract, limit=shape[0])
    batch = np.resize(images.values, (shape[0], *images.values.shape[1:]))
    dtype = session.input_dtypes[name]
    pixels = as_fed(to_layout(batch, contract.layout), contract, dtype)
    if str(pixels.dtype) != dtype:
        pixels = artifact_exterior(path, contract.layout).to_stored(name, pixels, dtype)
    check_shape(f"{path}: input '{name}' by its contract", pixels.shape, shape)
    return {name: pixels}, images.origin


def to_data(report: BenchReport) -> dict[str, Any]:
    """Return the report for JSON: seconds, and one median per round instead of every sample."""
    return {
        "measured": "here",
        "environment": asdict(report.environment),
        "plan": asdict(report.plan),
        "artifacts": [_row_data(row) for row in report.rows],
        "cautions": [_caution_data(caution) for caution in report.cautions],
        "notes": list(report.notes),
    }


def latency_data(latency: LatencyResult) -> dict[str, Any]:
    """Return one artifact's times for JSON."""
    return {
        "median_s": latency.median_s,
        "p10_s": latency.p10_s,
        "p90_s": latency.p90_s,
        "round_medians_s": np.median(latency.samples_s, axis=1).tolist(),
        "runs_per_round": latency.samples_s.shape[1],
        "warmup_runs": latency.warmup_runs,
        "is_steady": latency.is_steady,
        "cautions": [_caution_data(caution) for caution in latency.cautions],
    }


def interval_data(interval: Interval) -> dict[str, float | None]:
    """Return a figure with its 95 % interval for JSON."""
    return {"point": interval.point, "low_95": interval.low, "high_95": interval.high}


def _open(path: Path, options: BenchOptions, model: Graph | None, stack: ExitStack, notes: list[str]) -> _Opened:
    target = target_for(existing(path), options.target)
    session: Session = target.open(path, SessionOptions(threads=options.threads))
    stack.callback(session.close)
    contract = format_of(path).read_contract(path)
    try:
        inputs, fed = feed(session, contract, options.data, path)
    except MissingError as error:
        if options.data is not None:
            raise
        notes.append(str(error))
        inputs, fed = feed(session, None, None, path)
    if fed == RANDOM:
        notes.append(f"{path}: fed {RANDOM}, not an image: it has no contract, or there is no image to read.")
    if model is not None:
        macs = _macs(model, path, inputs)
    else:
        per_image = contract.macs if contract is not None else _read_macs(path)
        macs = None if per_image is None else per_image * len(next(iter(inputs.values())))
    return _Opened(path=path, target=target.name, session=session, inputs=inputs, fed=fed, macs=macs)


def _read_macs(path: Path) -> int | None:
    """Return the MACs of one image as the file itself gives them, or None where we cannot read or count it."""
    try:
        cost = count(load_model(str(path)))
    except EdgeCNNError:
        return None
    return None if cost.unknown else cost.macs


def _macs(model: Graph, path: Path, inputs: Mapping[str, Array]) -> int | None:
    """Return the MACs of one invocation, or None where the model has unknown operators."""
    wanted = [model.tensors[port.tensor].shape for port in model.inputs]
    found = [values.shape for values in inputs.values()]
    if len(wanted) != len(found) or not all(map(_is_same_image, wanted, found)):
        raise UsageError(
            f"--model: an input {' and '.join(map(show_shape, wanted))} was wanted; {path} takes "
            f"{' and '.join(map(show_shape, found))}. Leave --model out, or name the network of the artifacts."
        )
    cost = count(model)
    return None if cost.unknown else cost.macs * found[0][0]


def _is_same_image(wanted: Shape, found: Shape) -> bool:
    """Tell whether an artifact's input is this NHWC one, in either layout and any batch."""
    return found[1:] in (wanted[1:], external_shape(wanted, "NCHW")[1:])


def _row(each: _Opened, latency: LatencyResult, first: Array, seed: int) -> BenchRow:
    return BenchRow(
        artifact=each.path,
        target=each.target,
        facts=each.session.facts,
        batch=each.batch,
        fed=each.fed,
        latency=latency,
        median_s=median_interval(latency.samples_s, seed=seed),
        macs=each.macs,
        ratio=paired_ratio(latency.samples_s, first, seed=seed),
    )


def _row_data(row: BenchRow) -> dict[str, Any]:
    return {
        "artifact": str(row.artifact),
        "target": row.target,
        "runtime": row.facts.runtime,
        "threads": row.facts.threads,
        "precision": row.facts.precision,
        "batch": row.batch,
        "fed": row.fed,
        **latency_data(row.latency),
        "median_interval_s": interval_data(row.median_s),
        "macs": row.macs,
        "macs_per_s": row.macs_per_s,
        "ratio_to_first": interval_data(row.ratio),
    }


def _caution_data(caution: Caution) -> dict[str, str]:
    return {"kind": caution.kind.value, "detail": caution.detail, "next_step": caution.next_step}


def _unique(names: list[str]) -> list[str]:
    """Return the names, numbered where one occurs again: measuring a file against itself shows the noise."""
    return [name if name not in names[:place] else f"{name} ({place + 1})" for place, name in enumerate(names)]
