"""Pictures of results, drawn with matplotlib (the extra `report`) and written as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecnn.evaluate import Evaluation, confusion_matrix
from edgecnn.extras import require
from edgecnn.quantization.report import Report

PANEL_INCHES = 5.0
MOST_NAMES = 25
"""Up to this many classes are named along the axes."""

COLOURS = "Blues"

LAYER_INCHES = 0.16
WORST = 5
"""Layers that are marked."""

MOST_DB = 60.0
"""Bars end here: what is better needs no attention, and may be infinite."""


def draw_confusion(evaluation: Evaluation, path: Path) -> None:
    """Write the confusion matrices of all artifacts side by side: rows are true classes, columns answers.

    Each row is in shares of its class. An answer that is no class of the data has no column.

    Args:
        evaluation: What was found.
        path: A .png file that may be written.

    Raises:
        MissingError: When matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", purpose="edgecnn evaluate --picture")
    count = len(evaluation.results)
    size = (PANEL_INCHES * count, PANEL_INCHES + 0.5)
    figure: Any = figure_module.Figure(figsize=size, layout="constrained")  # no pyplot: nothing global, no window
    panels = figure.subplots(1, count, squeeze=False)[0]
    names = [evaluation.labels[index] for index in evaluation.sizes]
    for panel, result in zip(panels, evaluation.results, strict=True):
        image = panel.imshow(
            confusion_matrix(evaluation, result), vmin=0, vmax=1, cmap=COLOURS, interpolation="nearest"
        )
        panel.set_title(f"{Path(result.artifact).name}\n{result.target}, top-1 {result.top1.value:.1%}")
        panel.set_xlabel("answer")
        _name_axes(panel, names)
    panels[0].set_ylabel("true class")
    figure.colorbar(image, ax=panels, label="share of the class", shrink=0.8)
    figure.savefig(path, format="png", dpi=120)


def draw_layers(report: Report, name: str, path: Path) -> None:
    """Write the error of every layer, from input to output: on its own as bars, in the network as a line.

    Args:
        report: What was measured.
        name: Of the network.
        path: A .png file that may be written.

    Raises:
        MissingError: When matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", purpose="edgecnn quantize --picture")
    layers = sorted(report.layers, key=lambda layer: layer.position)
    places = range(len(layers))
    height = max(3.0, LAYER_INCHES * len(layers))
    figure: Any = figure_module.Figure(figsize=(2 * PANEL_INCHES, height + 1), layout="constrained")
    panel = figure.subplots()
    worst = {layer.node for layer in report.layers[:WORST]}
    colours = ["tab:red" if layer.node in worst else "tab:blue" for layer in layers]
    shown = [min(layer.own_snr_db, MOST_DB) for layer in layers]
    panel.barh(places, shown, color=colours, label="alone, fed with float values")
    panel.plot([min(layer.snr_db, MOST_DB) for layer in layers], places, "k.-", linewidth=1, label="in the network")
    panel.set_yticks(places, [f"{layer.node} ({layer.kind})" for layer in layers], fontsize=7)
    panel.set_ylim(len(layers) - 0.5, -0.5)
    panel.set_xlabel("SNR in dB, float against integers (more is better)")
    for place, layer in enumerate(layers):
        if layer.node in worst and layer.reason:
            panel.text(shown[place] + 1, place, layer.reason, fontsize=6, va="center")
    last = report.scores[-1]
    same = "" if last.agreement is None else f", {last.agreement:.1%} same class"
    panel.set_title(f"{name}: {last.snr_db:.1f} dB at logits{same}; worst {WORST} layers in red", fontsize=9)
    figure.legend(loc="outside lower right", ncols=2, fontsize=7)
    figure.savefig(path, format="png", dpi=120)


def _name_axes(panel: Any, names: Sequence[str]) -> None:
    if len(names) > MOST_NAMES:
        return
    panel.set_xticks(range(len(names)), names, rotation=90)
    panel.set_yticks(range(len(names)), names)
