"""`edgecnn models`: what can be built, what it costs, and what it is known to reach."""

import sys
from dataclasses import asdict, dataclass

import click
from rich.console import Console

from edgecnn import registry
from edgecnn.commands.model_options import json_option
from edgecnn.console import emit, show_count, table
from edgecnn.count import count
from edgecnn.models.build import build
from edgecnn.models.published import RESULTS
from edgecnn.shapes import show_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One network at its default size; top_1_percent is ImageNet's, as published by `source`."""

    name: str
    input: str
    resolution: int | None
    macs: int
    trainable: int
    top_1_percent: float | None
    source: str | None
    summary: str


@click.command()
@json_option
def models(*, as_json: bool) -> None:
    """List the networks that can be built, at their default size, with published ImageNet accuracy."""
    rows = [_row(name) for name in registry.entries("models")]

    def show(console: Console) -> None:
        columns = ("<model", "<input", "MACs", "parameters", "top-1", "<what it is", "<source of top-1")
        console.print(table("", columns, [_cells(row) for row in rows]))

    emit({"models": [asdict(row) for row in rows]}, show, as_json=as_json)


def _cells(row: Row) -> tuple[str, ...]:
    top_1 = "" if row.top_1_percent is None else f"{row.top_1_percent:.1f} %"
    return (row.name, row.input, show_count(row.macs), show_count(row.trainable), top_1, row.summary, row.source or "")


def _row(name: str) -> Row:
    graph = build(name, values=False)
    cost = count(graph)
    module = registry.entries("models")[name].partition(":")[0]
    summary = (sys.modules[module].__doc__ or "").partition(":")[0].strip()
    published = RESULTS.get(name)
    return Row(
        name=name,
        input=show_shape(graph.tensors[graph.inputs[0].tensor].shape),
        resolution=None if graph.contract is None else graph.contract.height,
        macs=cost.macs,
        trainable=cost.trainable,
        top_1_percent=published.top_1 if published else None,
        source=published.source if published else None,
        summary=summary.splitlines()[0].rstrip("."),
    )
