"""What quantizing a network did: what each repair gained, what is lost in all, and which layers lose it.

Both networks are executed in NumPy on real images; the SNR is measured at logits, in front of a softmax that ends the
network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecnn.graph import Array, Graph
from edgecnn.ops import Dequantize, Reshape, Softmax
from edgecnn.quantization.layer_errors import LayerError, layer_errors
from edgecnn.quantization.quantize import Quantized, Samples, quantize
from edgecnn.quantization.recipe import Recipe
from edgecnn.verify import reference_outputs, snr_db

REPAIRS: dict[str, Any] = {"equalize": False, "absorb_bias": False, "separate_ranges": False, "bias_correction": "none"}
"""Repair, in the order in which they are made -> the setting that leaves it out."""

Inputs = Callable[[Graph], Mapping[str, Array]]
"""Gives real images, preprocessed as a Graph's contract says: port name -> (N, ...) values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How near a quantized network is to its float network.

    Attributes:
        repair: The last repair that was made, or "none".
        snr_db: At logits; smallest over the outputs.
        agreement: Share of images (or pixels) with the same class; None where the output holds no classes.
    """

    repair: str
    snr_db: float
    agreement: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What quantizing did.

    Attributes:
        scores: Without repairs, and then with one more each; the last one is of what was made.
        layers: Every layer, those that lose most on their own first.
        images: How many both networks were executed on.
    """

    scores: tuple[Score, ...]
    layers: tuple[LayerError, ...]
    images: int


def report(
    quantized: Quantized,
    samples: Samples | None,
    inputs: Inputs,
    *,
    threads: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Measure what quantizing did.

    Args:
        quantized: What was made.
        samples: What it was calibrated on.
        inputs: Other images, on which both are compared.
        threads: For the runtimes that calibrate.
        advance: Called after each step.
    """
    scores = []
    for name, recipe in stages(quantized.recipe):
        made = quantized if recipe == quantized.recipe else quantize(quantized.source, recipe, samples, threads=threads)
        scores.append(score(name, made.reference, made.graph, inputs(made.reference)))
        advance()
    fed = inputs(quantized.reference)
    layers = sorted(layer_errors(quantized.reference, quantized.graph, fed), key=lambda layer: layer.own_snr_db)
    return Report(scores=tuple(scores), layers=tuple(layers), images=len(next(iter(fed.values()))))


def stages(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """Return the recipe without repairs, and then with one more of those that it has."""
    if not recipe.is_static:
        return [("none", recipe)]
    wanted = {name: getattr(recipe, name) for name, off in REPAIRS.items() if getattr(recipe, name) != off}
    found = [("none", replace(recipe, **REPAIRS))]
    for name, setting in wanted.items():
        found.append((name, replace(found[-1][1], **{name: setting})))
    return found


def score(repair: str, reference: Graph, quantized: Graph, inputs: Mapping[str, Array]) -> Score:
    """Compare a quantized network with its float network on real inputs."""
    names = logits(reference)
    exact, found = (reference_outputs(graph, inputs, fetch=names) for graph in (reference, quantized))
    return Score(
        repair=repair,
        snr_db=min(snr_db(exact[name], found[name]) for name in names),
        agreement=class_agreement(exact[names[0]], found[names[0]]),
    )


def logits(graph: Graph) -> list[str]:
    """Return the tensor in front of the softmax that each output ends with, or the output's own."""
    producers = {name: node for node in graph.nodes for name in node.outputs}
    found = []
    for port in graph.outputs:
        tensor = port.tensor
        while tensor in producers and isinstance(producers[tensor].op, Reshape | Dequantize):
            tensor = producers[tensor].inputs[0]
        is_softmax = tensor in producers and isinstance(producers[tensor].op, Softmax)
        found.append(producers[tensor].inputs[0] if is_softmax else port.tensor)
    return found


def class_agreement(exact: Array, found: Array) -> float | None:
    """Return the share of images, or pixels, with the same largest channel; None where one channel is all there is."""
    if exact.ndim not in (2, 4) or exact.shape[-1] < 2:
        return None
    return float(np.mean(exact.argmax(axis=-1) == found.argmax(axis=-1)))
