"""Quantize: a deployed float Graph, a recipe and real inputs become one set of integers for every format."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edgecnn.errors import UsageError
from edgecnn.graph import Array, Graph
from edgecnn.passes.store_float16 import store_float16
from edgecnn.quantization.assign import assign
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.correct_bias import correct_bias
from edgecnn.quantization.prepare import prepared, take_bytes
from edgecnn.quantization.recipe import Recipe

CORRECTION_IMAGES = 64
"""That a bias correction is measured on at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Inputs to calibrate on.

    Attributes:
        batches: Gives them from the start each time it is called: port name -> (n, ...) values, preprocessed by the
            contract of the Graph that is passed to it.
        origin: Where they come from, for people.
        is_random: Whether they are random numbers.
    """

    batches: Callable[[Graph], Iterable[Mapping[str, Array]]]
    origin: str
    is_random: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """What one repair did.

    Attributes:
        name: Such as "bias_correction".
        nodes: Which it changed.
        refused: (node, reason) for what it left alone.
    """

    name: str
    nodes: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Quantized:
    """A quantized network and how it came about.

    Attributes:
        graph: Of integers, where the recipe has any.
        reference: The float network that it stands for; the same values have the same names in both.
        recipe: As asked for.
        calibration: None where the recipe is not static.
        repairs: In the order in which they were made.
        notes: What is worth knowing about the result.
    """

    graph: Graph
    reference: Graph
    recipe: Recipe
    calibration: Calibration | None = None
    repairs: tuple[Repair, ...] = ()
    notes: tuple[str, ...] = ()


def quantize(
    graph: Graph,
    recipe: Recipe,
    samples: Samples | None = None,
    *,
    threads: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Quantized:
    """Quantize a deployed float Graph.

    Args:
        graph: See passes.deploy.
        recipe: What to do.
        samples: Real inputs, which a static recipe needs.
        threads: For the runtime that calibrates.
        advance: Called after each image.

    Raises:
        UsageError: When the Graph is quantized already, or a static recipe has no inputs.
        UnsupportedError: When bytes cannot be taken as they are.
        CheckFailedError: When an activation is no finite number.
    """
    if recipe.default.kind == "float32" and not recipe.overrides:
        return Quantized(graph=graph, reference=graph, recipe=recipe)
    if graph.is_quantized:
        raise UsageError(f"{graph.name}: a float network was wanted; this one is quantized. Give --dequantize.")
    if recipe.default.kind == "float16":
        return Quantized(graph=store_float16(graph), reference=graph, recipe=recipe)
    if not recipe.is_static:
        return Quantized(graph=assign(graph, None, recipe), reference=graph, recipe=recipe)
    if samples is None:
        raise UsageError(f"{graph.name}: {recipe.precision} wants real inputs to calibrate on. Give --data FOLDER.")
    return _static(graph, recipe, samples, threads=threads, advance=advance)


def _static(graph: Graph, recipe: Recipe, samples: Samples, *, threads: int, advance: Callable[[], None]) -> Quantized:
    notes: list[str] = []
    if recipe.io == "uint8":
        raw = take_bytes(graph)
        graph, notes = raw.graph, [raw.note] if raw.note else []
    reference, repairs = prepared(graph), []
    calibration = calibrate(
        reference,
        samples.batches(reference),
        observer=recipe.observer,
        bits=recipe.default.activation_bits or 8,
        threads=threads,
        advance=advance,
        origin=samples.origin,
        is_random=samples.is_random,
    )
    quantized = assign(reference, calibration, recipe, ranges=_pixel_ranges(reference))
    if recipe.bias_correction != "none":
        images = (
            _first(samples.batches(reference), CORRECTION_IMAGES) if recipe.bias_correction == "empirical" else None
        )
        quantized, moved = correct_bias(
            reference, quantized, calibration, inputs=images, method=recipe.bias_correction, threads=threads
        )
        repairs.append(Repair(name="bias_correction", nodes=tuple(moved)))
    return Quantized(
        graph=quantized,
        reference=reference,
        recipe=recipe,
        calibration=calibration,
        repairs=tuple(repairs),
        notes=tuple(notes),
    )


def _pixel_ranges(graph: Graph) -> dict[str, tuple[float, float]]:
    """Return the range of an only picture input: what its contract makes of 0..255, whatever the images hold."""
    if graph.contract is None or len(graph.inputs) != 1:
        return {}
    return {graph.inputs[0].tensor: graph.contract.input_range}


def _first(batches: Iterable[Mapping[str, Array]], count: int) -> dict[str, Array]:
    """Return the first inputs of a stream, at most so many."""
    parts: dict[str, list[Array]] = {}
    for values in islice(_singles(batches), count):
        for name, value in values.items():
            parts.setdefault(name, []).append(value)
    return {name: np.concatenate(each) for name, each in parts.items()}


def _singles(batches: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    for batch in batches:
        for place in range(len(next(iter(batch.values())))):
            yield {name: values[place : place + 1] for name, values in batch.items()}
