"""`edgecnn cost`: MACs and parameters, layer by layer, and what normal convolutions would cost."""

from dataclasses import asdict
from typing import Any

import click
from rich.console import Console

from edgecnn.builder import no_values
from edgecnn.commands.model_options import json_option, model_options
from edgecnn.console import emit, show_bytes, show_count, table
from edgecnn.count import Cost, count
from edgecnn.models.build import ZooOptions
from edgecnn.models.normal_twin import normal_twin
from edgecnn.shapes import show_shape
from edgecnn.source import load_model
from edgecnn.versus import PairCost, compare_with_normal


@click.command()
@click.argument("model")
@model_options
@click.option("--versus", type=click.Choice(["normal"]), help="Add the twin's MACs and the predicted and actual ratio.")
@json_option
def cost(*, model: str, options: ZooOptions, versus: str | None, as_json: bool) -> None:
    """Count the MACs and parameters of MODEL for one image.

    One MAC is one multiply with its add. Convolution and dense layers count; biases, normalisation, activations and
    pooling count 0; operators that are not known are listed.
    """
    graph = load_model(model, options, values=False)
    counted = count(graph)
    pairs = compare_with_normal(graph) if versus else {}
    data: dict[str, Any] = {"model": graph.name, **asdict(counted)}
    twin = None
    if versus:
        twin = count(normal_twin(graph, no_values))
        data["normal"] = {
            "macs": twin.macs,
            "trainable": twin.trainable,
            "total": twin.total,
            "actual_ratio": counted.macs / twin.macs,
            "pairs": [asdict(pair) for pair in pairs.values()],
        }

    def show(console: Console) -> None:
        _show_layers(console, graph.name, counted, pairs if versus else None)
        _show_totals(console, counted, twin)

    emit(data, show, as_json=as_json)


def _show_layers(console: Console, name: str, cost: Cost, pairs: dict[str, PairCost] | None) -> None:
    columns = ["<layer", "<operator", "<output", "MACs", "share", "parameters"]
    if pairs is not None:
        columns += ["normal MACs", "predicted ratio", "actual ratio"]
    rows = []
    for layer in cost.layers:
        share = f"{layer.macs / cost.macs:.1%}" if layer.macs and cost.macs else ""
        cells = [
            layer.name,
            layer.kind,
            show_shape(layer.output_shape),
            show_count(layer.macs) if layer.macs != 0 else "",
            share,
            show_count(layer.trainable + layer.statistics) if layer.trainable else "",
        ]
        if pairs is not None:
            pair = pairs.get(layer.name)
            cells += (
                [show_count(pair.normal_macs), f"{pair.predicted_ratio:.4f}", f"{pair.actual_ratio:.4f}"]
                if pair
                else [""] * 3
            )
        rows.append(cells)
    console.print(table(name, columns, rows))


def _show_totals(console: Console, cost: Cost, twin: Cost | None) -> None:
    rows = [
        ("MACs", show_count(cost.macs)),
        ("parameters, trainable", show_count(cost.trainable)),
        ("parameters, total with BatchNorm statistics", show_count(cost.total)),
        ("parameters, deployed with BatchNorm folded", show_count(cost.deployed)),
        ("bytes moved, float32, each tensor once", show_bytes(cost.bytes_moved)),
    ]
    if cost.unknown:
        rows.append(("operators whose MACs are unknown", ", ".join(cost.unknown)))
    if twin is not None:
        rows += [
            ("MACs of the normal twin", show_count(twin.macs)),
            ("this network / its normal twin", f"{cost.macs / twin.macs:.4f} (1 in {twin.macs / cost.macs:.2f})"),
        ]
    console.print()
    console.print(table("", ("<for one image", ""), rows))
