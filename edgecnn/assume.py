"""Assume how pixels become the input of a file that does not say so: in the range that its float32 resolves best.

Normalisation is folded into many a network's first layer, which then wants pixels as they are; fed -1..1 it sees almost
the same picture every time, and rounding drowns the difference. The file's own runtime and `execute` round differently,
so the range in which they agree best is the one in which the network tells pictures apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from edgecnn.contract import Contract, assumed_contract
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import SessionOptions
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


def first_guess(graph: Graph) -> Contract | None:
    """Return the contract of an only input that is a picture (N, height, width, 1 or 3): its pixels in -1..1."""
    shapes = [graph.tensors[port.tensor].shape for port in graph.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] not in (1, 3):
        return None
    return assumed_contract(*(size or 0 for size in shapes[0][1:]))


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
    found: dict[Contract, float] = {}
    session = target.open(path, SessionOptions(threads=threads))
    try:
        for mean, std in RANGES:
            contract = replace(whole, mean=(mean,) * whole.channels, std=(std,) * whole.channels)
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
