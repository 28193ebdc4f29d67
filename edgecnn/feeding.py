"""What a network is fed when it is verified: real images wherever an input is a picture."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecnn.contract import Contract, Layout, assumed_contract
from edgecnn.errors import UsageError
from edgecnn.graph import Array, Graph, Tensor, to_layout
from edgecnn.shapes import Shape
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

    Without a contract, or with several inputs, pictures are scaled to -1..1 (an integer input takes the pixels as they
    are), and each input gets them in another order, so that no two inputs see the same picture at once. What is no
    picture (a vector, four channels) is fed seeded normal numbers, an integer one zeros and ones. `origin` says so.

    Args:
        graph: The source; its pictures may be stored channels first.
        contract: Of its only input.
        folder: With pictures; None takes an installed package's photographs.
        limit: At most this many.

    Raises:
        UsageError: When there are fewer than 16, or no input.
        NotThereError, MissingError: When there are no pictures; see `load_images`.
    """
    if not graph.inputs:
        raise UsageError(f"{graph.name}: an input was wanted to verify on; it has none. Use --no-verify.")
    contracts = {port.name: contract if len(graph.inputs) == 1 else None for port in graph.inputs}
    tensors = {port.name: graph.tensors[port.tensor] for port in graph.inputs}
    loaded = {name: _images(tensor, contracts[name], folder, limit) for name, tensor in tensors.items()}
    pictures = [images for images in loaded.values() if images is not None]
    count = len(pictures[0].values) if pictures else limit
    if count < MINIMUM:
        raise UsageError(f"at least {MINIMUM} real images were wanted to verify on; got {count}")
    rng = np.random.default_rng(SEED)
    values, origins = {}, [pictures[0].origin] if pictures else []
    for place, (name, images) in enumerate(loaded.items()):
        if images is None:
            shape = tuple(size or 1 for size in tensors[name].shape[1:])
            values[name] = random_values((count, *shape), tensors[name].dtype, rng)
            origins.append(f"random numbers for '{name}', which is no picture")
        else:
            values[name] = np.roll(images.values, place, axis=0).astype(tensors[name].dtype, copy=False)
            if contracts[name] is None:
                scale = "as they are" if _is_integer(tensors[name].dtype) else "scaled to -1..1"
                origins.append(f"pixels for '{name}' {scale}, which is assumed")
    return Feeds(values=values, origin=", ".join(origins))


def random_values(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> Array:
    """Return normal numbers, or zeros and ones of an integer type: what any table has a row for."""
    if _is_integer(dtype):
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)


def _is_integer(dtype: str) -> bool:
    return not dtype.startswith("float")


def _images(tensor: Tensor, contract: Contract | None, folder: Path | None, limit: int) -> Images | None:
    """Return pictures in a tensor's own order of axes, or None where it holds none."""
    layout = _picture_layout(tensor.shape)
    if contract is None:
        if layout is None:
            return None
        height, width, channels = (tensor.shape[axis] or 0 for axis in ((2, 3, 1) if layout == "NCHW" else (1, 2, 3)))
        contract = assumed_contract(height, width, channels)
        if _is_integer(tensor.dtype):
            contract = replace(contract, mean=(0.0,) * channels, std=(1.0,) * channels)
    images = load_images(folder, contract, limit=limit)
    return replace(images, values=to_layout(images.values, layout))


def _picture_layout(shape: Shape) -> Layout | None:
    """Return where a picture of 1 or 3 channels has them, or None for what is no picture."""
    if len(shape) != 4 or not {1, 3}.intersection((shape[3], shape[1])):
        return None
    return "NHWC" if shape[3] in (1, 3) else "NCHW"
