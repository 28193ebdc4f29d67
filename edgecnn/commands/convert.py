"""`edgecnn convert`: a network into verified artifacts."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edgecnn.commands.model_options import data_option, force_option, json_option, model_options, threads_option
from edgecnn.commands.verify import limit_option, loader, show_parity
from edgecnn.console import emit, message, progress, show_bytes, table
from edgecnn.contract import Contract
from edgecnn.convert import RECIPES, Conversion, ParityError, Plan
from edgecnn.convert import convert as convert_graph
from edgecnn.errors import UsageError
from edgecnn.interfaces import Artifact
from edgecnn.models.build import ZooOptions
from edgecnn.source import load_model

FORMATS = ("tflite", "onnx", "openvino")


@click.command()
@click.argument("model")
@click.option("--to", "formats", default=",".join(FORMATS), show_default=True, help="Formats, separated by commas.")
@click.option("-o", "--output", "folder", default=".", show_default=True, help="Folder for the artifacts.")
@click.option(
    "--recipe", type=click.Choice(list(RECIPES)), default="float32", show_default=True, help="How constants are stored."
)
@click.option("--batch", default="1", show_default=True, help="Batch size, or 'dynamic' for a symbolic one.")
@click.option("--no-verify", is_flag=True, help="Hand the artifacts over without holding them against the source.")
@data_option
@limit_option
@threads_option
@model_options
@force_option
@json_option
def convert(
    *,
    model: str,
    formats: str,
    folder: str,
    recipe: Any,
    batch: str,
    no_verify: bool,
    data: str | None,
    limit: int,
    threads: int,
    options: ZooOptions,
    force: bool,
    as_json: bool,
) -> None:
    """Write MODEL as TFLite, ONNX and OpenVINO artifacts, and verify each on real images.

    When a check fails, nothing is handed over and the exit code is 1.
    """
    names = tuple(name.strip() for name in formats.split(",") if name.strip())
    plan = Plan(formats=names, recipe=recipe, batch=_batch(batch), force=force, threads=threads)
    graph = load_model(model, options, report=message)
    origin: list[str] = []
    if graph.contract is not None and graph.contract.is_assumed:
        message(assumption(graph.contract))
    failure = None
    with progress(f"converting {graph.name}", len(names) * (1 if no_verify else 2)) as advance:
        load = None if no_verify else loader(data, limit, origin)
        try:
            conversion = convert_graph(graph, Path(folder), plan, load=load, advance=lambda what: advance())
        except ParityError as error:
            failure, conversion = error, error.conversion
    emit(_as_data(graph.name, conversion), lambda console: _show(console, conversion, origin), as_json=as_json)
    if failure is not None:
        raise failure


def assumption(contract: Contract) -> str:
    """Return what is said of a contract that is only a guess."""
    low, high = (bound + 0.0 for bound in contract.input_range)
    return (
        f"CAUTION: the model does not say how pixels become its input; {contract.colour_order} in "
        f"{low:g}..{high:g} is assumed, for verifying here and for edgecnn run."
    )


def transposes(artifact: Artifact) -> int:
    """Return how many Transposes an artifact is left with, whatever its format calls them."""
    return sum(times for kind, times in artifact.operators.items() if kind.lower() == "transpose")


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or not 0 < int(text) <= 4096:
        raise UsageError(f"--batch must be a number in 1..4096 or 'dynamic'; got {text!r}")
    return int(text)


def _as_data(name: str, conversion: Conversion) -> dict[str, Any]:
    deployment = conversion.deployment
    return {
        "model": name,
        "applied": deployment.applied,
        "refused": [{"pass": p, "node": node, "reason": reason} for p, node, reason in deployment.refused],
        "artifacts": [{**asdict(a), "path": str(a.path), "transposes": transposes(a)} for a in conversion.artifacts],
        "parity": [asdict(parity) for parity in conversion.parity],
        "passed": conversion.passed,
    }


def _show(console: Console, conversion: Conversion, origin: list[str]) -> None:
    done = [f"{name} x{times}" for name, times in conversion.deployment.applied.items() if times]
    console.print(f"Passes: {', '.join(done) or 'none applied'}")
    for name, node, reason in conversion.deployment.refused:
        console.print(f"  kept {node}: {name} was refused because {reason}")
    rows = [
        (str(a.path), show_bytes(a.size_bytes), ", ".join(f"{count} {kind}" for kind, count in a.operators.items()))
        for a in conversion.artifacts
    ]
    console.print()
    console.print(table("", ("<artifact", "size", "<operators"), rows))
    for artifact in conversion.artifacts:
        left = transposes(artifact)
        if left:
            console.print(f"{artifact.path}: {left} Transposes are left, where the order of elements itself matters.")
    if conversion.parity:
        console.print()
        show_parity(console, conversion.parity, origin)
