"""Our artifacts against those that Keras exports of the same weights: same runtime, one thread, interleaved.

    python -m edgecnn.benchmarks.keras_export mobilenet_v2

The network gets the BatchNorm statistics of real images first; both artifacts must agree on these images before their
times mean anything. Both have batch 1: Keras leaves the batch open unless it is given an input signature, so it is
given one. The OpenVINO pair holds float32 constants (Keras serializes without compression), and the target asks for
float32. Each pair is opened anew several times, because where a session's memory lies moves its times by a percent or
more for as long as it is open.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from edgecnn import registry
from edgecnn.cli import guarded
from edgecnn.console import emit, message, table
from edgecnn.contract import Contract, Layout
from edgecnn.errors import CheckFailedError, MissingError, UnsupportedError, UsageError
from edgecnn.execute import with_image_statistics
from edgecnn.extras import require
from edgecnn.graph import Array, Graph, to_layout, with_batch
from edgecnn.interfaces import Facts, Format, SessionOptions, Target
from edgecnn.passes.deploy import deploy
from edgecnn.ports import Exterior
from edgecnn.source import load_model
from edgecnn.verify import MINIMUM_SNR_DB, run_batches, snr_db
from edgecnn.vision.photographs import MINIMUM, load_images

from .bench import interval_data, latency_data
from .cautions import environment_cautions
from .environment import read_environment, show_environment
from .latency import LatencyResult, Plan, measure
from .statistics import MINIMUM_ROUNDS, Interval, median, nested_ratio

PEERS = {
    "tflite": ("litert", "litert_cpu"),
    "onnx": ("onnx", "onnxruntime_cpu"),
    "openvino": ("openvino", "openvino_cpu"),
}
"""Our format -> (Keras's name for it, target that runs both)."""

Pair = dict[str, tuple[Path, Layout]]
"""Two artifacts of one format, "ours" and "keras", and the layout of their input."""

BUDGET = 1.03
"""Largest point of the ratio ours / Keras; its interval must reach 1.00. Source: the project's latency budget."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """One format, measured here.

    Attributes:
        format: Ours.
        facts: What the runtime granted, to both alike.
        snr_db: Of our outputs against Keras's, over the images.
        ours: Times of our artifact, for each opening.
        keras: Times of Keras's, likewise.
        ratio: Ours / Keras's, by openings and rounds.
    """

    format: str
    facts: Facts
    snr_db: float
    ours: tuple[LatencyResult, ...]
    keras: tuple[LatencyResult, ...]
    ratio: Interval

    @property
    def is_within_budget(self) -> bool:
        """Tell whether the interval reaches 1.00 or lies below, and the point is at most BUDGET."""
        return self.ratio.low is not None and self.ratio.low <= 1.0 and self.ratio.point <= BUDGET


def compare_exports(
    graph: Graph, images: Array, plan: Plan, *, formats: Sequence[str], openings: int
) -> list[Comparison]:
    """Write a network both ways and measure each pair.

    Args:
        graph: With BatchNorm statistics that fit the images, and a contract.
        images: (N, height, width, channels) float32, by the contract.
        plan: How to measure each opening.
        formats: Ours, by name.
        openings: How often each pair is opened anew; MINIMUM_ROUNDS rounds or more over all of them.

    Raises:
        CheckFailedError: When the two outputs disagree.
    """
    if plan.rounds * openings < MINIMUM_ROUNDS:
        raise UsageError(
            f"keras_export: at least {MINIMUM_ROUNDS} rounds were wanted for an interval; got {plan.rounds * openings}"
        )
    single = with_batch(graph, 1)
    peer, deployed = keras_model(single), deploy(single).graph
    found = []
    with tempfile.TemporaryDirectory(prefix="edgecnn-") as folder:
        for name in formats:
            form: Format = registry.load("converters", name)
            ours, theirs = (Path(folder) / f"{stem}_{name}{form.suffix}" for stem in ("ours", "keras"))
            registry.load("converters", name).write(deployed, ours)
            export(peer, PEERS[name][0], theirs, (1, *images.shape[1:]))
            layout = (form.read_contract(ours) or _contract(graph)).layout
            pair: Pair = {"ours": (ours, layout), "keras": (theirs, "NHWC")}
            found.append(compare(name, pair, images, plan, openings=openings))
    return found


def keras_model(graph: Graph) -> Any:
    """Return the network as a Keras model on the TensorFlow backend.

    Raises:
        MissingError: When Keras, TensorFlow or tf2onnx is not installed.
        UnsupportedError: When Keras runs on another backend.
    """
    if find_spec("tf2onnx") is None:
        raise MissingError(
            "Keras's ONNX export needs the package tf2onnx, which is not installed. "
            "Run: python -m pip install 'edgecnn[dev]'"
        )
    require("tensorflow", purpose="edgecnn.benchmarks.keras_export")
    keras = require("keras", purpose="edgecnn.benchmarks.keras_export")
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedError(
            f"keras_export: the tensorflow backend was wanted, because only it exports all three formats; "
            f"got {keras.backend.backend()}. Unset KERAS_BACKEND."
        )
    return registry.load("converters", "keras").to_keras(graph)


def export(model: Any, kind: str, path: Path, shape: tuple[int, ...]) -> None:
    """Write what `model.export` makes of a Keras model, for a float32 input (N, height, width, channels).

    The input signature fixes the batch and spares the call that the ONNX export asks for otherwise.
    """
    keras = require("keras", purpose="edgecnn.benchmarks.keras_export")
    signature = [keras.InputSpec(shape=shape, dtype="float32", name="image")]
    with redirect_stdout(sys.stderr):
        model.export(str(path), format=kind, input_signature=signature, verbose=False)


def compare(name: str, pair: Pair, images: Array, plan: Plan, *, openings: int) -> Comparison:
    """Check that two artifacts agree on the images, then measure them against each other.

    Args:
        name: Of their format.
        pair: The artifacts.
        images: (N, height, width, channels) float32.
        plan: How to measure each opening.
        openings: How often both are opened anew, in alternating order.

    Raises:
        CheckFailedError: When the two outputs disagree.
    """
    target = registry.load("targets", PEERS[name][1])
    snr = _parity(name, target, pair, images)
    runs = [_opening(target, pair, images[:1], replace(plan, seed=plan.seed + turn)) for turn in range(openings)]
    ours, keras = (tuple(results[who] for results, _ in runs) for who in ("ours", "keras"))
    samples = [(mine.samples_s, peer.samples_s) for mine, peer in zip(ours, keras, strict=True)]
    ratio = nested_ratio(samples, seed=plan.seed)
    return Comparison(format=name, facts=runs[0][1], snr_db=snr, ours=ours, keras=keras, ratio=ratio)


def _parity(name: str, target: Target, pair: Pair, images: Array) -> float:
    outputs = {}
    for who, (path, layout) in pair.items():
        with closing(target.open(path, SessionOptions(threads=1))) as session:
            outputs[who] = next(iter(run_batches(session, {"image": images}, Exterior(default=layout)).values()))
    snr = snr_db(outputs["keras"], outputs["ours"])
    if not snr >= MINIMUM_SNR_DB:
        raise CheckFailedError(
            f"{name}: an SNR of {MINIMUM_SNR_DB:g} dB between our output and Keras's was wanted; got {snr:.1f} dB. "
            "Their times cannot be compared: find the first layer that differs."
        )
    return snr


def _opening(target: Target, pair: Pair, image: Array, plan: Plan) -> tuple[dict[str, LatencyResult], Facts]:
    """Open both artifacts, measure them against each other, and close them."""
    bound = {}
    with ExitStack() as stack:
        for who in sorted(pair, reverse=bool(plan.seed % 2)):
            path, layout = pair[who]
            session = stack.enter_context(closing(target.open(path, SessionOptions(threads=1))))
            (name,) = session.input_shapes
            bound[who] = session.bind({name: to_layout(image, layout)})
        return measure(bound, plan), session.facts


def _contract(graph: Graph) -> Contract:
    if graph.contract is None:
        raise UsageError(f"{graph.name}: a model with a contract was wanted; this one has none. Take a zoo name.")
    return graph.contract


def _median_s(openings: Sequence[LatencyResult]) -> float:
    return median(np.concatenate([each.samples_s.ravel() for each in openings]))


def _data(comparison: Comparison) -> dict[str, Any]:
    facts = comparison.facts
    return {
        "format": comparison.format,
        "runtime": facts.runtime,
        "threads": facts.threads,
        "precision": facts.precision,
        "snr_db": comparison.snr_db,
        "ours": [latency_data(each) for each in comparison.ours],
        "keras": [latency_data(each) for each in comparison.keras],
        "ratio": interval_data(comparison.ratio),
        "is_within_budget": comparison.is_within_budget,
    }


def _show(comparisons: Sequence[Comparison], what: str, console: Console) -> None:
    columns = ("<format", "<runtime", "threads", "SNR dB", "ours ms", "Keras ms", "ours / Keras", "95 %", "<budget")
    rows = [
        (
            each.format,
            each.facts.runtime,
            each.facts.threads,
            f"{each.snr_db:.0f}",
            f"{_median_s(each.ours) * 1e3:.3f}",
            f"{_median_s(each.keras) * 1e3:.3f}",
            f"{each.ratio.point:.3f}",
            f"{each.ratio.low:.3f} - {each.ratio.high:.3f}",
            "within" if each.is_within_budget else "OVER",
        )
        for each in comparisons
    ]
    console.print(table(f"{what}, measured here: medians of one invocation with 1 image", columns, rows))


@click.command()
@click.argument("model")
@click.option("--rounds", default=8, show_default=True, type=click.IntRange(min=1), help="Of each opening.")
@click.option("--openings", default=6, show_default=True, type=click.IntRange(min=1), help="Of each pair of artifacts.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--format", "formats", multiple=True, type=click.Choice(list(PEERS)), help="All without it.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with 16 or more images.")
@click.option("--json", "as_json", is_flag=True)
def main(
    *, model: str, rounds: int, openings: int, seed: int, formats: tuple[str, ...], data: Path | None, as_json: bool
) -> None:
    """Compare our artifacts of a zoo MODEL with those that Keras exports; exits 1 where one is over the budget."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    environment, plan = read_environment(), Plan(rounds=rounds, seed=seed)
    graph = load_model(model)
    images = load_images(data, _contract(graph), limit=MINIMUM)
    graph = with_image_statistics(graph, {graph.inputs[0].name: images.values})
    found = compare_exports(graph, images.values, plan, formats=formats or tuple(PEERS), openings=openings)
    for caution in environment_cautions(environment, threads=1):
        message(f"caution: {caution.detail}. {caution.next_step}")
    message(show_environment(environment))
    result = {
        "measured": "here",
        "model": model,
        "images": images.origin,
        "environment": asdict(environment),
        "comparisons": [_data(each) for each in found],
    }
    emit(
        result,
        lambda console: _show(found, f"{model}, {openings} openings of {rounds} rounds", console),
        as_json=as_json,
    )
    over = [each.format for each in found if not each.is_within_budget]
    if over:
        raise CheckFailedError(
            f"{model}: a ratio within the budget was wanted; {', '.join(over)} is slower than Keras's."
        )


if __name__ == "__main__":
    guarded(main)
