"""Assume how pixels become the input of a file that does not say so: in the range that it resolves best.

Normalisation is folded into many a network's first layer, which then wants pixels as they are; fed -1..1 it sees almost
the same picture every time, and rounding drowns the difference. The file's own runtime and `execute` round differently,
so the range in which they agree best is the one in which the network tells pictures apart. A quantized input states its
range itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from edgecnn.contract import Contract, assumed_contract
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import SessionOptions
from edgecnn.ops import Quantize
from edgecnn.ports import exterior
from edgecnn.probe import IN_PYTHON
from edgecnn.source import Source, target_for
from edgecnn.verify import reference_outputs, run_batches, snr_db

RANGES = ((127.5, 127.5), (0.0, 1.0), (0.0, 255.0))
"""(mean, std) of -1..1, 0..255 and 0..1."""

ENOUGH_DB = 95.0
"""Agreement from which on no other range is tried."""

MARGIN_DB = 6.0
"""By how much another range must be better than the first to be believed."""

IMAGES = 2

BYTES = ("int8", "uint8")
"""Types of integers that cover the range of an input and no more."""

NEAR = 0.05
"""Share of a range by which what calibration saw of it may differ at either end."""


def first_guess(graph: Graph) -> Contract | None:
    """Return the contract of an only input that is a picture (N, height, width, 1 or 3).

    Its pixels are in -1..1; those of a quantized input, or of one with a Quantize right behind it, in the usual range
    that is nearly its own, or else in its own.
    """
    shapes = [graph.tensors[port.tensor].shape for port in graph.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] not in (1, 3):
        return None
    whole, stated = assumed_contract(*(size or 0 for size in shapes[0][1:])), _stated_range(graph)
    return whole if stated is None else _of_pixels(whole, *_normalisation(*stated))


def _stated_range(graph: Graph) -> tuple[float, float] | None:
    """Return the range of the 8-bit integers that the only input is, or becomes first (16 bits say half of it)."""
    (port,) = graph.inputs
    rounded = (node.output for node in graph.nodes if isinstance(node.op, Quantize) and node.inputs == (port.tensor,))
    found = (graph.tensors[name].quantization for name in (port.tensor, *rounded))
    return next((q.range for q in found if q is not None and q.axis is None and q.dtype in BYTES), None)


def _normalisation(low: float, high: float) -> tuple[float, float]:
    """Return (mean, std) that bring 0..255 to a range, or to a usual one that is nearly the same."""
    most = NEAR * (high - low)
    for mean, std in RANGES:
        if abs(low + mean / std) <= most and abs(high - (255 - mean) / std) <= most:
            return mean, std
    std = 255 / (high - low)
    return -low * std, std


def _of_pixels(contract: Contract, mean: float, std: float) -> Contract:
    return replace(contract, mean=(mean,) * contract.channels, std=(std,) * contract.channels)


def assume_contract(
    source: Source, inputs: Callable[[Contract], Mapping[str, Array]], *, threads: int = 1
) -> Contract | None:
    """Return the contract that is assumed for feeding a file that brings none.

    Args:
        source: A file of one picture input; its runtime has been tried on it before.
        inputs: Gives real images by a contract: input name -> (N, ...) values.
        threads: For the runtime.

    Returns:
        None where the model says itself, has several inputs or no picture, or has no runtime of its own.
    """
    graph, path = source.read, source.path
    if path is None or source.graph.contract is not None:
        return None
    whole, target = first_guess(graph), target_for(path, None)
    if whole is None or target.name in IN_PYTHON:
        return None
    if _stated_range(graph) is not None:
        return whole
    found: dict[Contract, float] = {}
    session = target.open(path, SessionOptions(threads=threads))
    try:
        for mean, std in RANGES:
            contract = _of_pixels(whole, mean, std)
            few = {name: values[:IMAGES] for name, values in inputs(contract).items()}
            own = run_batches(session, few, exterior(graph, source.default_layout))
            ours = reference_outputs(graph, few)
            found[contract] = min(snr_db(ours[name], own[name]) for name in ours)
            if max(found.values()) >= ENOUGH_DB:
                break
    finally:
        session.close()
    first, best = next(iter(found)), max(found, key=lambda each: found[each])
    return best if found[best] > found[first] + MARGIN_DB else first
