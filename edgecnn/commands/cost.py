"""`edgecnn cost`: MACs and parameters, layer by layer, and what the network would cost without its savings."""

from dataclasses import asdict
from typing import Any

import click
from rich.console import Console

from edgecnn.commands.choices import part_options
from edgecnn.commands.model_options import json_option
from edgecnn.console import emit, show_bytes, show_count, table
from edgecnn.count import Cost, LayerCost, count
from edgecnn.errors import UsageError
from edgecnn.shapes import show_shape
from edgecnn.source import Choices, load_source
from edgecnn.versus import VERSUS, Comparison, compare


@click.command()
@click.argument("model")
@part_options
@click.option(
    "--versus",
    type=click.Choice(list(VERSUS)),
    help="Add what it would cost with normal convolutions for the separable ones, or without the 1x1 convolutions that "
    "narrow the input of larger ones; with the predicted and the actual ratio.",
)
@json_option
def cost(*, model: str, choices: Choices, versus: str | None, as_json: bool) -> None:
    """Count the MACs and parameters of MODEL for one image.

    One MAC is one multiply with its add. Convolution and dense layers count; biases, normalisation, activations and
    pooling count 0; operators that are not known are listed.
    """
    zoo = choices.zoo
    if zoo is not None and (zoo.weights is not None or zoo.labels is not None):
        raise UsageError(
            "cost counts a definition, which no weights or labels change. Leave --weights and --labels out."
        )
    graph = load_source(model, choices, values=False).graph
    counted = count(graph)
    comparison = compare(graph, versus) if versus else None
    data: dict[str, Any] = {"model": graph.name, **asdict(counted)}
    if comparison is not None:
        data[comparison.versus.key] = _as_data(counted, comparison)

    def show(console: Console) -> None:
        _show_layers(console, graph.name, counted, comparison)
        _show_totals(console, counted, comparison)

    emit(data, show, as_json=as_json)


def _as_data(cost: Cost, comparison: Comparison) -> dict[str, Any]:
    twin = comparison.twin
    return {
        "macs": twin.macs,
        "trainable": twin.trainable,
        "total": twin.total,
        "actual_ratio": cost.macs / twin.macs,
        "pairs": [asdict(pair) for pair in comparison.pairs.values()],
    }


def _show_layers(console: Console, name: str, cost: Cost, comparison: Comparison | None) -> None:
    columns = ["<layer", "<operator", "<output", "MACs", "share", "parameters"]
    if comparison is not None:
        columns += [comparison.versus.column, "predicted ratio", "actual ratio"]
    rows = [[*_layer_cells(layer, cost), *_pair_cells(layer, comparison)] for layer in cost.layers]
    console.print(table(name, columns, rows))


def _layer_cells(layer: LayerCost, cost: Cost) -> list[str]:
    return [
        layer.name,
        layer.kind,
        show_shape(layer.output_shape),
        show_count(layer.macs) if layer.macs != 0 else "",
        f"{layer.macs / cost.macs:.1%}" if layer.macs and cost.macs else "",
        show_count(layer.trainable + layer.statistics) if layer.trainable else "",
    ]


def _pair_cells(layer: LayerCost, comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return []
    pair = comparison.pairs.get(layer.name)
    if pair is None:
        return [""] * 3
    return [show_count(pair.merged_macs), f"{pair.predicted_ratio:.4f}", f"{pair.actual_ratio:.4f}"]


def _show_totals(console: Console, cost: Cost, comparison: Comparison | None) -> None:
    rows = [
        ("MACs", show_count(cost.macs)),
        ("parameters, trainable", show_count(cost.trainable)),
        ("parameters, total with BatchNorm statistics", show_count(cost.total)),
        ("parameters, deployed with BatchNorm folded", show_count(cost.deployed)),
        ("bytes moved, as stored, each tensor once", show_bytes(cost.bytes_moved)),
    ]
    if cost.unknown:
        rows.append(("operators whose MACs are unknown", ", ".join(cost.unknown)))
    if comparison is not None:
        twin, title = comparison.twin, comparison.versus.title
        ratio = f"{cost.macs / twin.macs:.4f} (1 in {twin.macs / cost.macs:.2f})"
        rows += [(f"MACs of the {title}", show_count(twin.macs)), (f"this network / its {title}", ratio)]
    console.print()
    console.print(table("", ("<for one image", ""), rows))
