"""`edgecnn convert`: a network into verified artifacts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edgecnn.commands.calibration_data import CalibrationData
from edgecnn.commands.choices import source_options
from edgecnn.commands.model_options import data_option, force_option, json_option, threads_option
from edgecnn.commands.quantization_report import Loss
from edgecnn.commands.recipe_options import Quantizing, recipe_options
from edgecnn.commands.verify import assumption, limit_option, loader, show_parity
from edgecnn.console import emit, message, progress, show_bytes, table
from edgecnn.conversion import Conversion, ParityError, describe
from edgecnn.convert import FLOAT32, Plan
from edgecnn.convert import convert as convert_graph
from edgecnn.errors import UsageError
from edgecnn.graph import Graph, Node
from edgecnn.interfaces import Artifact
from edgecnn.ports import differing_layouts
from edgecnn.proof import Load
from edgecnn.source import Choices, Source, format_of, load_source
from edgecnn.verify import Parity

LISTED = 5
"""How many Transposes are described to people."""

FORMATS = ("tflite", "onnx", "openvino")


CONVERT = """Write MODEL as TFLite, ONNX and OpenVINO artifacts (--to keras: Keras), each verified on real images.

A source file that has a runtime of its own runs there too, so that our reading of it is proved. When a check fails,
nothing is handed over but the smallest model that shows where, and the exit code is 1.
"""


def conversion_command(name: str, text: str, *, recipe: str) -> click.Command:
    """Return the command that converts.

    Args:
        name: On the command line.
        text: Its help.
        recipe: The precision where the user names none.
    """

    @click.command(name, help=text)
    @click.argument("model")
    @click.option("--to", "formats", default=",".join(FORMATS), show_default=True, help="Formats, separated by commas.")
    @click.option("-o", "--output", "folder", default=".", show_default=True, help="Folder for the artifacts.")
    @recipe_options(recipe)
    @click.option("--batch", help="Batch size, or 'dynamic' for a symbolic one; 1 unless --input-shape says otherwise.")
    @click.option("--no-verify", is_flag=True, help="Hand the artifacts over without holding them against the source.")
    @data_option
    @limit_option
    @threads_option
    @source_options
    @force_option
    @json_option
    def command(
        *,
        model: str,
        formats: str,
        folder: str,
        quantizing: Quantizing,
        batch: str | None,
        no_verify: bool,
        data: str | None,
        limit: int,
        threads: int,
        choices: Choices,
        force: bool,
        as_json: bool,
    ) -> None:
        names = tuple(name.strip() for name in formats.split(",") if name.strip())
        quantizing.refuse(force=force, is_measured=not no_verify)
        calibrating = quantizing.data(data)
        plan = Plan(formats=names, recipe=quantizing.recipe, batch=_batch(batch, choices), force=force, threads=threads)
        source = load_source(model, choices, report=message)
        if source.graph.contract is not None and source.graph.contract.is_assumed:
            message(assumption(source.graph.contract))
        origin: list[str] = []
        load = None if no_verify else loader(data, limit, origin)
        with quantizing.files(force=force) as picture:
            conversion, failure = _convert(source, Path(folder), plan, load, calibrating)
            lost = _lost(conversion, plan, calibrating, None if no_verify else limit, picture)
        _emit(source, conversion, lost, origin, as_json=as_json)
        if failure is not None:
            raise failure

    return command


def _lost(
    conversion: Conversion, plan: Plan, calibrating: CalibrationData | None, limit: int | None, picture: Path | None
) -> Loss | None:
    """Return what a recipe lost, drawn where that is wanted; None for one that rounds nothing."""
    if plan.recipe == FLOAT32:
        return None
    lost = Loss.of(conversion, calibrating, limit)
    if picture is not None:
        lost.draw(picture)
    return lost


def _emit(source: Source, conversion: Conversion, lost: Loss | None, origin: list[str], *, as_json: bool) -> None:
    """Print what was made, and what it lost."""

    def show(console: Console) -> None:
        _show(console, source, conversion, origin)
        if lost is not None:
            lost.show(console)

    found = {"quantization": None if lost is None else lost.as_data()}
    emit({**_as_data(source, conversion), **found}, show, as_json=as_json)


def _convert(
    source: Source, folder: Path, plan: Plan, load: Load | None, calibrating: CalibrationData | None
) -> tuple[Conversion, ParityError | None]:
    """Convert with progress, and return what was made, or what was found when a check failed."""
    steps = len(plan.formats) * (1 if load is None else 2) + (calibrating.images if calibrating else 0)
    with progress(f"converting {source.graph.name}", steps) as advance:
        samples, failure = calibrating.samples if calibrating else None, None
        try:
            found = convert_graph(source, folder, plan, load=load, samples=samples, advance=lambda what: advance())
        except ParityError as error:
            found, failure = error.conversion, error
    if found.source_proof is not None and found.source_proof.assumed is not None:
        message(assumption(found.source_proof.assumed, "for verifying here; --contract FILE says it"))
    return found, failure


convert = conversion_command("convert", CONVERT, recipe=FLOAT32.precision)


def transposes(artifact: Artifact) -> int:
    """Return how many Transposes an artifact is left with, whatever its format calls them."""
    return sum(times for kind, times in artifact.operators.items() if kind.lower() == "transpose")


def _batch(text: str | None, choices: Choices) -> int | None:
    shaped = {shape[0] for shape in choices.input_shapes.values()}
    if text is None:
        return next(iter(shaped), 1)
    if text == "dynamic":
        batch = None
    elif text.isdecimal() and 0 < int(text) <= 4096:
        batch = int(text)
    else:
        raise UsageError(f"--batch must be a number in 1..4096 or 'dynamic'; got {text!r}")
    if shaped - {batch}:
        raise UsageError(f"--batch {text} contradicts --input-shape, whose batch is {shaped.pop()}. Leave one out.")
    return batch


def _as_data(source: Source, conversion: Conversion) -> dict[str, Any]:
    deployment, proof = conversion.deployment, conversion.source_proof
    return {
        "model": source.graph.name,
        "source": {
            "path": None if source.path is None else str(source.path),
            "size_bytes": source.size_bytes,
            "operators": dict(source.graph.kinds()),
            "parity": None if proof is None or proof.parity is None else asdict(proof.parity),
            "note": "" if proof is None else proof.note,
            "assumed_input_range": None if proof is None or proof.assumed is None else proof.assumed.input_range,
        },
        "operators": dict(deployment.graph.kinds()),
        "applied": deployment.applied,
        "refused": [{"pass": p, "node": node, "reason": reason} for p, node, reason in deployment.refused],
        "transposes": [{"node": name, "between": text} for name, text in kept_transposes(deployment.graph)],
        "layouts": _layouts(source, conversion),
        "artifacts": [
            {**asdict(a), "path": str(a.path), "operators": dict(a.operators), "transposes": transposes(a)}
            for a in conversion.artifacts
        ],
        "parity": [asdict(parity) for parity in conversion.parity],
        "divergences": [{**asdict(d), "model": str(d.model), "values": str(d.values)} for d in conversion.divergences],
        "notes": conversion.notes,
        "verified": bool(conversion.parity),
        "passed": conversion.passed if conversion.parity else None,
    }


def kept_transposes(graph: Graph) -> list[tuple[str, str]]:
    """Return (node, what it stands between) for each Transpose that a network itself is left with."""
    producers = {name: node for node in graph.nodes for name in node.outputs}

    def shown(nodes: list[Node], port: str) -> str:
        return " and ".join(f"{node.kind} '{node.name}'" for node in nodes) or port

    found = []
    for node in graph.nodes:
        if node.kind == "Transpose":
            before = [producers[name] for name in node.inputs if name in producers]
            behind = [each for each in graph.nodes if node.output in each.inputs]
            found.append((node.name, f"between {shown(before, 'an input')} and {shown(behind, 'an output')}"))
    return found


def _layouts(source: Source, conversion: Conversion) -> list[dict[str, str]]:
    """Return each port that a source file and an artifact show in different orders of axes."""
    if source.path is None:
        return []
    return [
        {"artifact": str(artifact.path), "port": port, "source": ours, "layout": theirs}
        for artifact in conversion.artifacts
        for port, ours, theirs in differing_layouts(
            conversion.deployment.graph, source.default_layout, format_of(artifact.path).default_layout
        )
    ]


def _show(console: Console, source: Source, conversion: Conversion, origin: list[str]) -> None:
    _show_deployment(console, conversion)
    console.print()
    console.print(table("", ("<", "size", "operators", "<which"), _sizes(source, conversion)))
    for artifact in conversion.artifacts:
        left = transposes(artifact)
        if left:
            console.print(f"{artifact.path}: {left} Transposes are left, where the order of elements itself matters.")
    for each in _layouts(source, conversion):
        console.print(
            f"{each['artifact']}: '{each['port']}' is {each['layout']}, in the source {each['source']}; "
            f"--io-layout {each['source'].lower()} keeps it."
        )
    proof = conversion.source_proof
    if conversion.parity:
        console.print()
        read = () if proof is None or proof.parity is None else (_of_source(proof.parity),)
        show_parity(console, (*read, *conversion.parity), origin)
    else:
        console.print("Not verified (--no-verify): whether these compute what the source computes is not known.")
    if proof is not None and proof.note:
        console.print(proof.note)
    for text in (*map(describe, conversion.divergences), *conversion.notes):
        console.print(text)


def _of_source(parity: Parity) -> Parity:
    """Return the parity of a source file, so named in the table."""
    return replace(parity, target=f"source file in {parity.target}")


def _show_deployment(console: Console, conversion: Conversion) -> None:
    """Print what was folded, what was kept, and why."""
    done = [f"{name} x{times}" for name, times in conversion.deployment.applied.items() if times]
    console.print(f"Passes: {', '.join(done) or 'none applied'}")
    for name, node, reason in conversion.deployment.refused:
        console.print(f"  kept {node}: {name} was refused because {reason}")
    left = kept_transposes(conversion.deployment.graph)
    for name, text in left[:LISTED]:
        console.print(f"  kept the Transpose {name} {text}, where the order of elements itself matters")
    if len(left) > LISTED:
        console.print(f"  and {len(left) - LISTED} more Transposes; --json names them")


def _sizes(source: Source, conversion: Conversion) -> list[tuple[str, str, int, str]]:
    """Return a row for the source, the deployed network and each artifact."""

    def row(what: str, size: int | None, operators: Mapping[str, int]) -> tuple[str, str, int, str]:
        listed = ", ".join(f"{times} {kind}" for kind, times in Counter(operators).most_common())
        return what, "" if size is None else show_bytes(size), sum(operators.values()), listed

    found = source.path.name if source.path else source.graph.name
    return [
        row(f"{found}, as read", source.size_bytes, source.graph.kinds()),
        row("deployed", None, conversion.deployment.graph.kinds()),
        *(row(each.path.name, each.size_bytes, each.operators) for each in conversion.artifacts),
    ]
