"""Quantize: a deployed float Graph, a recipe and real inputs become one set of integers for every format."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from edgecnn.errors import UsageError
from edgecnn.graph import Array, Graph
from edgecnn.passes.store_float16 import store_float16
from edgecnn.quantization.assign import assign
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.prepare import RawInput, prepared, take_bytes
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.repairs import BEFORE, BEHIND, Draft, Repair, repaired
from edgecnn.quantization.samples import Remembered

MOST_THREADS = 8
"""That calibrate unless told otherwise: the layers of small networks, an image at a time, keep no more busy."""

HALFWAY = 0.5


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
    raw = take_bytes(graph) if recipe.io == "uint8" else None
    reference = prepared(graph if raw is None else raw.graph)
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
    draft = Draft(
        recipe=recipe,
        reference=reference,
        calibration=calibration,
        calibrated=calibrated,
        batches=batches,
        threads=threads,
        graph=reference,
    )
    draft, before = repaired(draft, BEFORE)
    ranges = _pixel_ranges(draft.reference)
    integers = assign(draft.reference, draft.calibration, recipe, in_float=draft.in_float, ranges=ranges)
    draft, behind = repaired(replace(draft, graph=integers), BEHIND)
    return Quantized(
        source=graph,
        graph=draft.graph,
        reference=draft.reference,
        recipe=recipe,
        calibration=draft.calibration,
        repairs=(*before, *behind),
        notes=tuple(_notes(graph, raw)),
    )


def _notes(graph: Graph, raw: RawInput | None) -> Iterator[str]:
    """Yield what is worth knowing about an input."""
    if raw is not None and raw.note:
        yield raw.note
    if graph.contract is not None and graph.contract.is_assumed:
        low, high = graph.contract.input_range
        yield f"nothing says how pixels become the input; {low:g}..{high:g} is assumed, and the integers hold only so"


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
