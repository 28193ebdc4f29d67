"""What a network is fed when it is verified: real images wherever an input is a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.contract import Contract, assumed_contract
from edgecnn.errors import UsageError
from edgecnn.graph import Array, Graph, Port
from edgecnn.vision.photographs import MINIMUM, Images, load_images

SEED = 0
"""Of the numbers that stand in for inputs that are no pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feeds:
    """Values for each input.

    Attributes:
        values: Port name -> (N, ...) values in the Graph's own order, the same N for all.
        origin: Where they come from, for people.
    """

    values: dict[str, Array]
    origin: str


def load_feeds(graph: Graph, contract: Contract | None, folder: Path | None, *, limit: int) -> Feeds:
    """Return at least 16 real images for each input that is a picture, preprocessed by contract.

    A network with several inputs has no contract: its pictures are scaled to -1..1, and each input gets them in another
    order, so that no two inputs see the same picture at once. What is no picture (a vector, four
    channels) is fed seeded normal numbers, and `origin` says so.

    Args:
        graph: The source.
        contract: Of its only input.
        folder: With pictures; None takes an installed package's photographs.
        limit: At most this many.

    Raises:
        UsageError: When there are fewer than 16.
        NotThereError, MissingError: When there are no pictures; see `load_images`.
    """
    loaded = {port.name: _images(graph, port, contract, folder, limit) for port in graph.inputs}
    pictures = [images for images in loaded.values() if images is not None]
    count = len(pictures[0].values) if pictures else limit
    if count < MINIMUM:
        raise UsageError(f"at least {MINIMUM} real images were wanted to verify on; got {count}")
    rng = np.random.default_rng(SEED)
    values, origins = {}, [pictures[0].origin] if pictures else []
    for place, port in enumerate(graph.inputs):
        images = loaded[port.name]
        if images is None:
            shape = [size or 1 for size in graph.tensors[port.tensor].shape[1:]]
            values[port.name] = rng.standard_normal((count, *shape), dtype=np.float32)
            origins.append(f"random normal numbers for '{port.name}', which is no picture")
        else:
            values[port.name] = np.roll(images.values, place, axis=0)
    return Feeds(values=values, origin=", ".join(origins))


def _images(graph: Graph, port: Port, contract: Contract | None, folder: Path | None, limit: int) -> Images | None:
    if contract is None or len(graph.inputs) > 1:
        shape = graph.tensors[port.tensor].shape
        if len(shape) != 4 or shape[-1] not in (1, 3):
            return None
        contract = assumed_contract(shape[1] or 0, shape[2] or 0, shape[3] or 0)
    return load_images(folder, contract, limit=limit)
