"""Quantize: a deployed float Graph, a recipe and real inputs become one set of integers for every format."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edgecnn.errors import UsageError
from edgecnn.graph import Array, Graph
from edgecnn.passes.editor import PassResult
from edgecnn.passes.store_float16 import store_float16
from edgecnn.quantization.absorb_bias import absorb_bias
from edgecnn.quantization.assign import assign
from edgecnn.quantization.balance_rounding import balance_rounding
from edgecnn.quantization.bound_scales import bound_scales
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.correct_bias import correct_bias
from edgecnn.quantization.equalize import equalize
from edgecnn.quantization.error_feedback import error_feedback
from edgecnn.quantization.prepare import prepared, take_bytes
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.samples import Remembered
from edgecnn.quantization.separate_ranges import separate_ranges

CORRECTION_IMAGES = 64
"""That a bias correction is measured on at most."""

MOST_THREADS = 8
"""That calibrate unless told otherwise: the layers of small networks, an image at a time, keep no more busy."""

HALFWAY = 0.5

FLOAT_REPAIRS: dict[str, Callable[[Graph, Calibration], PassResult]] = {
    "equalize": equalize,
    "absorb_bias": absorb_bias,
}
"""Repair of the float network, by the recipe's field that asks for it; ranges are taken anew behind each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Inputs to calibrate on.

    Attributes:
        batches: Gives them from the start each time it is called: port name -> (n, ...) values, preprocessed by the
            contract of the Graph that is passed to it.
        origin: Where they come from, for people.
        is_random: Whether they are random numbers.
        judge: Called with what came of them before anything is made of it; raises where they are not fit.
    """

    batches: Callable[[Graph], Iterable[Mapping[str, Array]]]
    origin: str
    is_random: bool = False
    judge: Callable[[Calibration], None] = lambda calibration: None


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
        source: What was quantized.
        graph: Of integers, where the recipe has any.
        reference: The float network that it stands for; the same values have the same names in both.
        recipe: As asked for.
        calibration: None where the recipe is not static.
        repairs: In the order in which they were made.
        notes: What is worth knowing about the result.
    """

    source: Graph
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
    calibration: Calibration | None = None,
    threads: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Quantized:
    """Quantize a deployed float Graph.

    Args:
        graph: See passes.deploy.
        recipe: What to do.
        samples: Real inputs, which a static recipe needs.
        calibration: Of the same Graph on the same inputs, before any repair; None makes one.
        threads: For the runtime that calibrates; None takes one for each core, up to MOST_THREADS.
        advance: Called after each image.

    Raises:
        UsageError: When the Graph is quantized already, a static recipe has no inputs, or an override fits no node.
        UnsupportedError: When bytes cannot be taken as they are.
        CheckFailedError: When an activation is no finite number.
    """
    if recipe.default.kind == "float32" and not recipe.overrides:
        return Quantized(source=graph, graph=graph, reference=graph, recipe=recipe)
    if graph.is_quantized:
        raise UsageError(f"{graph.name}: a float network was wanted; this one is quantized. Give --dequantize.")
    recipe.refuse_unmatched(node.name for node in prepared(graph).nodes)
    if recipe.default.kind == "float16":
        return Quantized(source=graph, graph=store_float16(graph), reference=graph, recipe=recipe)
    if not recipe.is_static:
        return Quantized(source=graph, graph=assign(graph, None, recipe), reference=graph, recipe=recipe)
    if samples is None:
        raise UsageError(f"{graph.name}: {recipe.precision} wants real inputs to calibrate on. Give --data FOLDER.")
    return _static(
        graph, recipe, samples, calibration, threads=threads or min(os.cpu_count() or 1, MOST_THREADS), advance=advance
    )


def _static(
    graph: Graph,
    recipe: Recipe,
    samples: Samples,
    calibration: Calibration | None,
    *,
    threads: int,
    advance: Callable[[], None],
) -> Quantized:
    source, notes = graph, []
    if recipe.io == "uint8":
        raw = take_bytes(graph)
        graph, notes = raw.graph, [raw.note] if raw.note else []
    reference, repairs = prepared(graph), []
    batches = Remembered(samples.batches(reference))

    def calibrated(network: Graph) -> Calibration:
        return calibrate(
            network,
            batches,
            observer=recipe.observer,
            bits=recipe.default.activation_bits or 8,
            threads=threads,
            advance=advance,
            origin=samples.origin,
            is_random=samples.is_random,
        )

    calibration = calibration or calibrated(reference)
    samples.judge(calibration)
    for name, rewrite in FLOAT_REPAIRS.items():
        if getattr(recipe, name):
            result = rewrite(reference, calibration)
            repairs.append(Repair(name=name, nodes=result.applied, refused=result.refused))
            reference, calibration = result.graph, calibrated(result.graph) if result.applied else calibration
    in_float: tuple[str, ...] = ()
    if recipe.separate_ranges:
        apart = separate_ranges(reference, calibration, is_float_output=recipe.io == "float32")
        repairs.append(Repair(name="separate_ranges", nodes=apart.nodes, refused=apart.refused))
        in_float = apart.nodes
    quantized = assign(reference, calibration, recipe, in_float=in_float, ranges=_pixel_ranges(reference))
    bounded = bound_scales(quantized)
    repairs.append(Repair(name="bound_scales", nodes=bounded.applied))
    quantized = bounded.graph
    if recipe.rounding == "balanced":
        balanced = balance_rounding(reference, quantized)
        repairs.append(Repair(name="rounding", nodes=balanced.applied, refused=balanced.refused))
        quantized = balanced.graph
    elif recipe.rounding == "error_feedback":
        is_centred = recipe.bias_correction != "none"
        fed = error_feedback(reference, quantized, batches, is_centred=is_centred, threads=threads)
        repairs.append(Repair(name="rounding", nodes=fed.applied, refused=fed.refused))
        quantized = fed.graph
    if recipe.bias_correction != "none":
        images = _first(batches, CORRECTION_IMAGES) if recipe.bias_correction == "empirical" else None
        quantized, moved = correct_bias(
            reference, quantized, calibration, inputs=images, method=recipe.bias_correction, threads=threads
        )
        repairs.append(Repair(name="bias_correction", nodes=tuple(moved)))
    return Quantized(
        source=source,
        graph=quantized,
        reference=reference,
        recipe=recipe,
        calibration=calibration,
        repairs=tuple(repair for repair in repairs if repair.nodes or repair.refused),
        notes=tuple(notes),
    )


def _pixel_ranges(graph: Graph) -> dict[str, tuple[float, float]]:
    """Return the range of an only picture input: what its contract makes of 0..255, whatever the images hold.

    With mean 127.5 and steps of one pixel every pixel would lie halfway between two integers: runtimes round such ties
    each in its own way, and half to even keeps only every other level. Steps 255 / 254 times as wide move the pixels
    off the ties, and the error becomes that of any other rounding, a third in energy.
    """
    contract = graph.contract
    if contract is None or len(graph.inputs) != 1:
        return {}
    low, high = contract.input_range
    is_halfway = len(set(contract.mean)) == len(set(contract.std)) == 1 and contract.mean[0] % 1 == HALFWAY
    wider = 255 / 254 if is_halfway else 1.0
    return {graph.inputs[0].tensor: (low * wider, high * wider)}


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
