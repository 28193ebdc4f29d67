"""What a quantization did, for people and programs: the report that ends `quantize`, and `convert` with a recipe."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from rich.console import Console

from edgecnn.charts import draw_layers
from edgecnn.commands.calibration_data import CalibrationData
from edgecnn.console import progress, table
from edgecnn.conversion import Conversion
from edgecnn.graph import Array, Graph
from edgecnn.instruction_set import describe, instruction_set
from edgecnn.quantization.image_checks import Flaw
from edgecnn.quantization.quantize import Quantized
from edgecnn.quantization.repairs import Repair
from edgecnn.quantization.report import Report, report, stages
from edgecnn.saturation import IMAGES, Saturation, saturating_layers
from edgecnn.saturation import describe as describe_saturation

LISTED = 12
"""Layers that people are shown; --json has all."""

REFUSED = 3
"""Refusals of a repair that people are shown."""

CHANCE_DB = 0.5
"""A difference that other images may turn round."""

NAMES = {
    "none": "no repair",
    "equalize": "+ cross-layer equalization",
    "equalize_activations": "+ activation equalization",
    "absorb_bias": "+ bias absorption",
    "separate_ranges": "+ separate ranges of outputs",
    "bias_correction": "+ bias correction",
    "rounding": "+ rounding of weights",
    "bound_scales": "+ bounded scale ratios of sums",
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loss:
    """What a quantization lost, and where.

    Attributes:
        quantized: What was made.
        flaws: What is wrong with the images that were calibrated on.
        report: What was measured; None where nothing was to be.
        origin: The images that it was measured on.
        saturation: What each layer would lose on x86 without VNNI; None where nothing was measured.
    """

    quantized: Quantized
    flaws: tuple[Flaw, ...]
    report: Report | None
    origin: str
    saturation: tuple[Saturation, ...] | None = None

    @classmethod
    def of(cls, conversion: Conversion, calibrating: CalibrationData | None, limit: int | None) -> "Loss":
        """Measure what a conversion lost.

        Args:
            conversion: With a recipe.
            calibrating: What it was calibrated on.
            limit: Images to measure on, or None to measure nothing.
        """
        quantized, origins = conversion.quantized, []

        def inputs(graph: Graph) -> Mapping[str, Array]:
            values, origin = (calibrating or CalibrationData(None, 0)).others(graph, limit or 0)
            origins.append(origin)
            return values

        found, saturation, samples = None, None, calibrating.samples if calibrating else None
        if limit is not None:
            with progress("measuring what was lost", len(stages(quantized)) + 1) as advance:
                found = report(quantized, samples, inputs, advance=advance)
                few = {name: values[:IMAGES] for name, values in inputs(quantized.reference).items()}
                saturation = saturating_layers(quantized.graph, few)
                advance()
        flaws = calibrating.flaws(quantized.calibration) if calibrating else ()
        origin = origins[0] if origins else ""
        return cls(quantized=quantized, flaws=flaws, report=found, origin=origin, saturation=saturation)

    def as_data(self) -> dict[str, Any]:
        """Return the report as JSON's objects."""
        calibration, found = self.quantized.calibration, self.report
        return {
            "recipe": asdict(self.quantized.recipe),
            "instruction_set": instruction_set(),
            "saturation": None
            if self.saturation is None
            else [{**asdict(each), "remedy": each.remedy if each.outputs else None} for each in self.saturation],
            "calibration": None
            if calibration is None
            else {
                "images": calibration.images,
                "origin": calibration.origin,
                "is_random": calibration.is_random,
                "backend": calibration.backend,
                "observer": calibration.observer,
                "convergence": {str(images): growth for images, growth in calibration.convergence.items()},
            },
            "lint": [{**asdict(each), "figures": dict(each.figures)} for each in self.flaws],
            "repairs": [asdict(repair) for repair in self.quantized.repairs],
            "notes": list(self.quantized.notes),
            "measured_on": self.origin,
            "scores": [] if found is None else [asdict(score) for score in found.scores],
            "layers": [] if found is None else [asdict(layer) for layer in found.layers],
        }

    def show(self, console: Console) -> None:
        """Print the report."""
        calibration = self.quantized.calibration
        console.print()
        if calibration is not None:
            console.print(
                f"Calibrated on {calibration.images} images of {calibration.origin} with {calibration.backend}; "
                f"ranges by {calibration.observer}."
            )
        if calibration is not None and calibration.is_random:
            console.print("WARNING these ranges come from random numbers: the artifacts are not fit for use.")
        for each in self.flaws:
            console.print(f"{each.severity.upper()} {each.message}")
        for repair in self.quantized.repairs:
            _show_repair(console, repair)
        for note in self.quantized.notes:
            console.print(f"Note: {note}.")
        if self.report is not None:
            _show_scores(console, self.report, self.origin)
            _show_layers(console, self.report)
        console.print(describe(instruction_set()))
        if self.saturation is not None:
            console.print(describe_saturation(self.saturation))

    def draw(self, path: Path) -> None:
        """Draw the error of every layer, where it was measured."""
        if self.report is not None:
            draw_layers(self.report, self.quantized.graph.name, path)


def _show_repair(console: Console, repair: Repair) -> None:
    console.print(f"{NAMES.get(repair.name, repair.name).lstrip('+ ')}: {len(repair.nodes)} layers")
    for node, reason in repair.refused[:REFUSED]:
        console.print(f"  left {node} alone: {reason}")
    if len(repair.refused) > REFUSED:
        console.print(f"  and {len(repair.refused) - REFUSED} more; --json names them")


def _show_scores(console: Console, found: Report, origin: str) -> None:
    before = (-inf, *(score.snr_db for score in found.scores))
    rows = [
        (
            NAMES.get(score.repair, score.repair),
            f"{score.snr_db:.1f} dB",
            "" if score.agreement is None else f"{score.agreement:.1%}",
            "lower than without it" if score.snr_db < last - CHANCE_DB else "",
        )
        for score, last in zip(found.scores, before, strict=False)
    ]
    console.print()
    console.print(table("What the repairs gain", ("<", "SNR at logits", "same class as float", "<"), rows))
    console.print(f"Golden integers against the float network in NumPy, on {origin}.")


def _show_layers(console: Console, found: Report) -> None:
    if not found.layers:
        return
    rows = [
        (layer.node, layer.kind, f"{layer.own_snr_db:.1f} dB", f"{layer.snr_db:.1f} dB", layer.reason)
        for layer in found.layers[:LISTED]
    ]
    console.print()
    columns = ("<layer", "<operator", "SNR alone", "SNR in the network", "<why")
    console.print(table("Where the error comes from, worst layers first", columns, rows))
    if len(found.layers) > LISTED:
        console.print(f"and {len(found.layers) - LISTED} more layers; --json has all.")
