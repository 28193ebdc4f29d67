"""The demo: the whole way, from a definition to verified and timed artifacts, on real handwritten digits."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.contract import Contract
from edgecnn.conversion import Conversion
from edgecnn.convert import Plan, convert
from edgecnn.errors import UsageError
from edgecnn.execute import execute
from edgecnn.extras import require
from edgecnn.feeding import Feeds
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import SessionOptions
from edgecnn.models.build import ZooOptions, build
from edgecnn.outputs import refuse_existing
from edgecnn.ports import Exterior
from edgecnn.source import format_of, target_for
from edgecnn.training.augmentation import Augmentation
from edgecnn.training.datasets import Dataset, digits
from edgecnn.training.fit import Epoch, train
from edgecnn.verify import Parity, run_batches

FORMATS = ("tflite", "onnx", "openvino")
PICTURE = "digit.png"
BATCH_SIZE = 32
AUGMENTATION = Augmentation(shift=0.08, rotation_degrees=8)
SHOWN = 1
"""Which held-out digit becomes the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A network that the demo trains.

    Attributes:
        model: Zoo name.
        options: Small enough to train on two cores while one waits.
        epochs: Passes over the training digits.
        learning_rate: Adam's at the start.
    """

    model: str
    options: ZooOptions
    epochs: int
    learning_rate: float


NETWORKS = (
    Network(model="lenet5", options=ZooOptions(), epochs=15, learning_rate=2e-3),
    Network(
        model="mobilenet_v2",
        options=ZooOptions(width_multiplier=0.35, resolution=48, classes=10, in_channels=1, dropout=0.0),
        epochs=10,
        learning_rate=5e-3,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoRow:
    """One artifact, measured here.

    Attributes:
        artifact: Its file.
        target: Where it ran.
        accuracy: On the held-out digits.
        source_accuracy: Of the trained network in NumPy, on the same.
        test_images: How many those are.
        parity: With the trained network, on the held-out digits.
        size_bytes: Of all its files.
        median_s: Median latency of one invocation, one thread.
        p10_s: 10th percentile, or None where there are too few samples.
        p90_s: 90th percentile, likewise.
    """

    artifact: Path
    target: str
    accuracy: float
    source_accuracy: float
    test_images: int
    parity: Parity
    size_bytes: int
    median_s: float
    p10_s: float | None
    p90_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """What the demo found.

    Attributes:
        rows: One per artifact.
        picture: A held-out digit.
        truth: What it shows.
    """

    rows: tuple[DemoRow, ...]
    picture: Path
    truth: str


def run_demo(folder: Path, *, force: bool, seed: int = 0, report: Callable[[str], None] = lambda what: None) -> Demo:
    """Train, convert, verify, evaluate and time the demo's networks.

    Args:
        folder: Where the artifacts and the picture go.
        force: Whether existing files may be replaced.
        seed: Of weights, split and training.
        report: Called with what happens next.

    Raises:
        ParityError: When an artifact does not compute what its network computes.
        MissingError: When one of the packages that `edgecnn[demo]` brings is not installed.
    """
    rows: list[DemoRow] = []
    picture = folder / PICTURE
    truth = ""
    refuse_existing([picture], force=force)
    for network in NETWORKS:
        graph = build(network.model, replace(network.options, seed=seed))
        if graph.contract is None:
            raise UsageError(f"{network.model}: the demo feeds images, so a contract was wanted")
        data = digits(graph.contract, seed=seed)
        report(f"training {network.model} on {len(data.train.images)} digits")
        trained = train(
            graph,
            data,
            epochs=network.epochs,
            batch_size=BATCH_SIZE,
            learning_rate=network.learning_rate,
            seed=seed,
            augmentation=AUGMENTATION,
            report=partial(_report_epoch, report, network.epochs),
        )
        report(f"converting and verifying {network.model}")
        plan = Plan(formats=FORMATS, force=force)
        conversion = convert(trained.graph, folder, plan, load=partial(_held_out, data))
        report(f"timing {network.model}")
        rows += _rows(trained.graph, conversion, data)
        truth = _save_picture(data, picture)
    return Demo(rows=tuple(rows), picture=picture, truth=truth)


def _report_epoch(report: Callable[[str], None], epochs: int, epoch: Epoch) -> None:
    report(f"  epoch {epoch.number} of {epochs}: {epoch.accuracy:.1%} of the training digits right")


def _held_out(data: Dataset, graph: Graph, contract: Contract | None) -> Feeds:
    """Return the held-out digits; they were prepared by this very contract."""
    return Feeds(values={graph.inputs[0].name: data.test.images}, origin=data.origin)


def _rows(graph: Graph, conversion: Conversion, data: Dataset) -> list[DemoRow]:
    room = importlib.import_module("edgecnn.benchmarks.bench")
    paths = tuple(artifact.path for artifact in conversion.artifacts)
    measured = room.bench(room.BenchOptions(artifacts=paths)).rows
    expected = _accuracy(execute(graph, {"image": data.test.images})["logits"], data)
    return [
        DemoRow(
            artifact=artifact.path,
            target=parity.target,
            parity=parity,
            size_bytes=artifact.size_bytes,
            accuracy=_accuracy(_logits(artifact.path, data), data),
            source_accuracy=expected,
            test_images=len(data.test.images),
            median_s=row.latency.median_s,
            p10_s=row.latency.p10_s,
            p90_s=row.latency.p90_s,
        )
        for artifact, parity, row in zip(conversion.artifacts, conversion.parity, measured, strict=True)
    ]


def _logits(path: Path, data: Dataset) -> Array:
    contract = format_of(path).read_contract(path)
    session = target_for(path, None).open(path, SessionOptions())
    try:
        return run_batches(
            session, {"image": data.test.images}, Exterior(default=contract.layout if contract else "NHWC")
        )["logits"]
    finally:
        session.close()


def _accuracy(logits: Array, data: Dataset) -> float:
    return float((logits.argmax(axis=1) == data.test.classes).mean())


def _save_picture(data: Dataset, path: Path) -> str:
    """Write a held-out digit as a picture and return what it shows."""
    image: Any = require("PIL.Image", purpose="the demo")
    image.fromarray(to_pixels(data.test.images[SHOWN], data.contract)[:, :, 0]).save(path)
    return data.labels[int(data.test.classes[SHOWN])]


def to_pixels(values: Array, contract: Contract) -> Array:
    """Return a network's input (height, width, channels) as pixels in 0..255."""
    pixels = values * np.asarray(contract.std, np.float32) + np.asarray(contract.mean, np.float32)
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)
