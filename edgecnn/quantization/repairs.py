"""The repairs of a quantization, in the order in which they are made: one row each.

Those BEFORE look at the float network and its ranges; those BEHIND at the integers that came of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from edgecnn.graph import Array, Graph
from edgecnn.passes.editor import PassResult
from edgecnn.quantization.absorb_bias import absorb_bias
from edgecnn.quantization.balance_rounding import balance_rounding
from edgecnn.quantization.bound_scales import bound_scales
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.correct_bias import correct_bias
from edgecnn.quantization.equalize import equalize
from edgecnn.quantization.equalize_activations import equalize_activations
from edgecnn.quantization.error_feedback import error_feedback
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.separate_ranges import separate_ranges

CORRECTION_IMAGES = 64
"""That a bias correction is measured on at most."""

ALWAYS = object()
"""Stands where no setting leaves a repair out."""


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
class Draft:
    """A quantization under way.

    Attributes:
        recipe: As asked for.
        reference: The float network.
        calibration: Of the reference.
        calibrated: Takes the ranges of a changed reference anew.
        batches: What they are taken from.
        threads: For runtimes.
        in_float: Nodes that stay float whatever the recipe says.
        graph: The quantized network; the reference until there is one.
    """

    recipe: Recipe
    reference: Graph
    calibration: Calibration
    calibrated: Callable[[Graph], Calibration]
    batches: Iterable[Mapping[str, Array]]
    threads: int
    in_float: tuple[str, ...] = ()
    graph: Graph


Step = Callable[[Draft, str], tuple[Draft, Repair]]
"""(draft, name of the repair) -> what became of it."""


def _of_reference(rewrite: Callable[[Graph, Calibration], PassResult]) -> Step:
    """Return the step that rewrites the float network; ranges are taken anew behind it."""

    def step(draft: Draft, name: str) -> tuple[Draft, Repair]:
        found = rewrite(draft.reference, draft.calibration)
        if found.applied:
            calibration = draft.calibrated(found.graph)
            draft = replace(draft, reference=found.graph, graph=found.graph, calibration=calibration)
        return draft, Repair(name=name, nodes=found.applied, refused=found.refused)

    return step


def _of_integers(rewrite: Callable[[Draft], PassResult]) -> Step:
    """Return the step that rewrites the quantized network."""

    def step(draft: Draft, name: str) -> tuple[Draft, Repair]:
        found = rewrite(draft)
        return replace(draft, graph=found.graph), Repair(name=name, nodes=found.applied, refused=found.refused)

    return step


def _separated(draft: Draft, name: str) -> tuple[Draft, Repair]:
    found = separate_ranges(draft.reference, draft.calibration, is_float_output=draft.recipe.io == "float32")
    return replace(draft, in_float=found.nodes), Repair(name=name, nodes=found.nodes, refused=found.refused)


def _rounded(draft: Draft) -> PassResult:
    if draft.recipe.rounding == "balanced":
        return balance_rounding(draft.reference, draft.graph)
    is_centred = draft.recipe.bias_correction != "none"
    return error_feedback(draft.reference, draft.graph, draft.batches, is_centred=is_centred, threads=draft.threads)


def _corrected(draft: Draft, name: str) -> tuple[Draft, Repair]:
    method = draft.recipe.bias_correction
    images = _first(draft.batches, CORRECTION_IMAGES) if method == "empirical" else None
    graph, moved = correct_bias(
        draft.reference,
        draft.graph,
        draft.calibration,
        inputs=images,
        method="empirical" if method == "empirical" else "analytic",
        threads=draft.threads,
    )
    return replace(draft, graph=graph), Repair(name=name, nodes=tuple(moved))


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One repair.

    Attributes:
        off: What the recipe's field of its name says where it is left out; ALWAYS for one that has no field.
        step: Makes it.
        is_of_reference: Whether it changes the float network, and with it the ranges.
    """

    off: object
    step: Step
    is_of_reference: bool = False


BEFORE: dict[str, Row] = {
    "equalize": Row(off=False, step=_of_reference(equalize), is_of_reference=True),
    "equalize_activations": Row(off=False, step=_of_reference(equalize_activations), is_of_reference=True),
    "absorb_bias": Row(off=False, step=_of_reference(absorb_bias), is_of_reference=True),
    "separate_ranges": Row(off=False, step=_separated),
}
BEHIND: dict[str, Row] = {
    "bound_scales": Row(off=ALWAYS, step=_of_integers(lambda draft: bound_scales(draft.graph))),
    "rounding": Row(off="nearest", step=_of_integers(_rounded)),
    "bias_correction": Row(off="none", step=_corrected),
}
OFF = {name: row.off for name, row in (*BEFORE.items(), *BEHIND.items()) if row.off is not ALWAYS}
"""Field of a recipe -> the setting that leaves its repair out, in the order in which repairs are made."""

OF_REFERENCE = tuple(name for name, row in BEFORE.items() if row.is_of_reference)
"""Repairs that change the float network, and with it the ranges."""


def repaired(draft: Draft, rows: Mapping[str, Row]) -> tuple[Draft, list[Repair]]:
    """Make the repairs that a recipe asks for, in order."""
    made = []
    for name, row in rows.items():
        if row.off is ALWAYS or getattr(draft.recipe, name) != row.off:
            draft, repair = row.step(draft, name)
            made.append(repair)
    return draft, [each for each in made if each.nodes or each.refused]


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
