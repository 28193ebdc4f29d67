"""`edgecnn diagnose`: what a float network alone tells about its future in 8-bit integers."""

from dataclasses import asdict
from typing import Any, get_args

import click
from rich.console import Console

from edgecnn.commands.choices import source_options
from edgecnn.commands.model_options import json_option
from edgecnn.console import emit, message, table
from edgecnn.graph import Graph
from edgecnn.quantization.diagnose import diagnose as findings_of
from edgecnn.quantization.finding import Finding
from edgecnn.quantization.recipe import Spread
from edgecnn.source import Choices, is_zoo_name, load_source

SHOWN = 3
"""Layers of each finding in the tables, unless all are wanted."""


@click.command()
@click.argument("model")
@source_options
@click.option(
    "--scales",
    type=click.Choice(get_args(Spread)),
    default="channel",
    show_default=True,
    help="Of kernels: one per channel or one, as the target takes them.",
)
@click.option("--all", "show_all", is_flag=True, help="List every layer of each finding, not the worst alone.")
@json_option
def diagnose(*, model: str, choices: Choices, scales: Spread, show_all: bool, as_json: bool) -> None:
    """Tell what MODEL, a float network, will suffer from in 8-bit integers, which layers, and what helps.

    Nothing is run and no image is needed: what layers will lose is predicted from weights and BatchNorm statistics.
    `edgecnn quantize` measures it. Remedies are options of `edgecnn quantize`, or of the zoo network.
    """
    graph = load_source(model, choices, report=message).graph
    found = findings_of(graph, scales=scales, is_zoo=is_zoo_name(model))
    data: dict[str, Any] = {"model": graph.name, "scales": scales, "findings": [asdict(each) for each in found]}
    emit(data, lambda console: _show(console, graph, found, show_all=show_all), as_json=as_json)


def _show(console: Console, graph: Graph, found: tuple[Finding, ...], *, show_all: bool) -> None:
    if not found:
        console.print(f"{graph.name}: nothing is expected to suffer in 8-bit integers.")
        return
    rows = [(str(number), each.severity, each.cause, each.remedy) for number, each in enumerate(found, start=1)]
    console.print(table(f"{graph.name} in 8-bit integers", ("", "<severity", "<cause", "<remedy"), rows))
    for number, each in enumerate(found, start=1):
        console.print(f"\n{number}. {each.cause}: {each.what}")
        victims = each.victims if show_all else each.victims[:SHOWN]
        if victims:
            console.print(table("", ("<layer", "<what was found"), [(v.node, v.figure) for v in victims]))
        if len(victims) < len(each.victims):
            console.print(f"and {len(each.victims) - len(victims)} more; --all lists them")
