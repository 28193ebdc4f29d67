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
from edgecnn.quantization.repairs import OF_REFERENCE, OFF
from edgecnn.verify import reference_outputs, snr_db

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
    quantized: Quantized, samples: Samples | None, inputs: Inputs, *, advance: Callable[[], None] = lambda: None
) -> Report:
    """Measure what quantizing did.

    Args:
        quantized: What was made.
        samples: What it was calibrated on.
        inputs: Other images, on which both are compared.
        advance: Called after each step.
    """
    scores, fed = [], inputs(quantized.reference)
    # Repairs of the float network change nothing of what it computes.
    exact = reference_outputs(quantized.reference, fed, fetch=logits(quantized.reference))
    made_in = stages(quantized)
    for name, recipe in made_in:
        made = quantized if name == made_in[-1][0] else _made(quantized, recipe, samples)
        scores.append(score(name, made.reference, made.graph, fed, exact=exact))
        advance()
    layers = sorted(layer_errors(quantized.reference, quantized.graph, fed), key=lambda layer: layer.own_snr_db)
    return Report(scores=tuple(scores), layers=tuple(layers), images=len(next(iter(fed.values()))))


def stages(quantized: Quantized) -> list[tuple[str, Recipe]]:
    """Return the recipe without repairs, and then with one more of those that changed something."""
    recipe, settings = quantized.recipe, dict[str, Any](OFF)
    if not recipe.is_static:
        return [("none", recipe)]
    changed = {repair.name for repair in quantized.repairs if repair.nodes}
    found = [("none", replace(recipe, **settings))]
    for name in settings:
        if name in changed:
            found.append((name, replace(found[-1][1], **{name: getattr(recipe, name)})))
    return found


def _made(quantized: Quantized, recipe: Recipe, samples: Samples | None) -> Quantized:
    """Quantize with fewer repairs, on the ranges that are known where no repair of the float network changed them."""
    is_same = not {repair.name for repair in quantized.repairs if repair.nodes}.intersection(OF_REFERENCE)
    return quantize(quantized.source, recipe, samples, calibration=quantized.calibration if is_same else None)


def score(
    repair: str,
    reference: Graph,
    quantized: Graph,
    inputs: Mapping[str, Array],
    *,
    exact: Mapping[str, Array] | None = None,
) -> Score:
    """Compare a quantized network with its float network on real inputs.

    Args:
        repair: The last one that was made.
        reference: The float network.
        quantized: What was made of it.
        inputs: Port name -> (N, ...) values.
        exact: What the float network gives at its logits; None executes it.
    """
    names = logits(reference)
    exact = exact or reference_outputs(reference, inputs, fetch=names)
    found = reference_outputs(quantized, inputs, fetch=names)
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
