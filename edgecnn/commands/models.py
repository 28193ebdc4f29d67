"""`edgecnn models`: what can be built."""

from dataclasses import asdict, dataclass

import click
from rich.console import Console

from edgecnn import registry
from edgecnn.commands.model_options import json_option
from edgecnn.console import emit, show_count, table
from edgecnn.count import count
from edgecnn.models.build import build
from edgecnn.shapes import show_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One network at its default size."""

    name: str
    input: str
    macs: int
    trainable: int
    summary: str


@click.command()
@json_option
def models(*, as_json: bool) -> None:
    """List the networks that can be built, at their default size."""
    rows = [_row(name) for name in registry.entries("models")]

    def show(console: Console) -> None:
        lines = [(r.name, r.input, show_count(r.macs), show_count(r.trainable), r.summary) for r in rows]
        console.print(table("", ("<model", "<input", "MACs", "parameters", "<what it is"), lines))

    emit({"models": [asdict(row) for row in rows]}, show, as_json=as_json)


def _row(name: str) -> Row:
    graph = build(name, values=False)
    cost = count(graph)
    family = registry.load("models", name)
    summary = (__import__("sys").modules[family.__module__].__doc__ or "").partition(":")[0].strip()
    return Row(
        name=name,
        input=show_shape(graph.tensors[graph.inputs[0].tensor].shape),
        macs=cost.macs,
        trainable=cost.trainable,
        summary=summary.splitlines()[0].rstrip("."),
    )
