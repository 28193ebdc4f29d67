"""What a network is fed: real images wherever an input is a picture; bytes where a port takes raw pixels."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecnn.contract import Contract, Layout, assumed_contract
from edgecnn.errors import UnsupportedError, UsageError
from edgecnn.graph import Array, Graph, Tensor, to_layout
from edgecnn.interfaces import ListedPort, Lister, Reader
from edgecnn.ports import Exterior, port_integers
from edgecnn.quantization.parameters import NARROW, Quantization, per_tensor
from edgecnn.shapes import Shape
from edgecnn.source import format_of
from edgecnn.vision.photographs import MINIMUM, Images, load_images

SEED = 0
"""Of the numbers that stand in for inputs that are no pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feeds:
    """Values for each input.

    Attributes:
        values: Port name -> (N, ...) values in the Graph's own order, the same N for all.
        origin: Where they come from, for people.
        random: Ports whose values are random numbers.
    """

    values: dict[str, Array]
    origin: str
    random: tuple[str, ...] = ()


def load_feeds(graph: Graph, contract: Contract | None, folder: Path | None, *, limit: int) -> Feeds:
    """Return at least 16 real images for each input that is a picture, preprocessed by contract.

    Without a contract, or with several inputs, pictures are scaled to -1..1 (an integer input takes the pixels as they
    are, a quantized one the range that its integers can hold), and each input gets them in another order, so that no
    two inputs see the same picture at once. What is no picture (a vector, four channels) is fed seeded normal numbers,
    an integer one zeros and ones. `origin` says so.

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
            rolled = np.roll(images.values, place, axis=0).astype(tensors[name].dtype, copy=False)
            how = contracts[name]
            values[name] = rolled if how is None else _meant(rolled, how, tensors[name])
            if how is None:
                scale = "as they are" if _is_integer(tensors[name].dtype) else _assumed_scale(tensors[name])
                origins.append(f"pixels for '{name}' {scale}, which is assumed")
    made = tuple(name for name, images in loaded.items() if images is None)
    return Feeds(values=values, origin=", ".join(origins), random=made)


def as_fed(values: Array, contract: Contract, dtype: str) -> Array:
    """Return preprocessed pictures as a port takes them: bytes where a uint8 port is given raw pixels.

    A port of raw bytes takes them whatever numbers its scale says that they stand for: pixels of mean 0 and std 1 are
    the bytes themselves. All others are real numbers, which run_batches and execute quantize.

    Args:
        values: Pictures by the contract, float32.
        contract: How they were made.
        dtype: Element type that the port takes.
    """
    is_raw = dtype == "uint8" and not any(contract.mean) and set(contract.std) == {1.0}
    return np.rint(values).astype(np.uint8) if is_raw else values


def _meant(values: Array, contract: Contract, tensor: Tensor) -> Array:
    """Return pictures as real numbers: of raw bytes, those that a quantized port's scale says they stand for."""
    fed = as_fed(values, contract, tensor.stored_dtype)
    return values if tensor.quantization is None or fed is values else tensor.quantization.dequantize(fed)


def artifact_exterior(path: Path, layout: Layout) -> Exterior:
    """Return what an artifact itself says of its ports.

    Integers are what its own tables state; where they do not, what reading it finds out (in an ONNX file the scale of
    a port stands in the operator behind it).

    Args:
        path: Any file with a format of ours.
        layout: Of its picture, by its contract.

    Raises:
        InputFileError: When the file is damaged.
    """
    form = format_of(path)
    listing = form.listing(path) if isinstance(form, Lister) else None
    ports = () if listing is None else (*listing.inputs, *listing.outputs)
    if listing is None or not any(port.dtype in NARROW for port in ports):
        return Exterior(default=layout)
    inputs, outputs = _listed(listing.inputs), _listed(listing.outputs)
    if isinstance(form, Reader) and any(port.dtype in NARROW and port.scale is None for port in ports):
        with suppress(UnsupportedError):
            graph = form.read(path)
            inputs = {**port_integers(graph, graph.inputs), **inputs}
            outputs = {**port_integers(graph, graph.outputs), **outputs}
    return Exterior(default=layout, input_integers=inputs, output_integers=outputs)


def _listed(ports: tuple[ListedPort, ...]) -> dict[str, Quantization]:
    return {
        port.name: per_tensor(port.scale, port.zero_point or 0, port.dtype)
        for port in ports
        if port.scale is not None and port.dtype in NARROW
    }


def _assumed_scale(tensor: Tensor) -> str:
    return "scaled to -1..1" if tensor.quantization is None else "scaled to the range of its integers"


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
        elif tensor.quantization is not None:
            low, high = tensor.quantization.range
            std = 255 / (high - low)
            contract = replace(contract, mean=(-low * std,) * channels, std=(std,) * channels)
    images = load_images(folder, contract, limit=limit)
    return replace(images, values=to_layout(images.values, layout))


def _picture_layout(shape: Shape) -> Layout | None:
    """Return where a picture of 1 or 3 channels has them, or None for what is no picture."""
    if len(shape) != 4 or not {1, 3}.intersection((shape[3], shape[1])):
        return None
    return "NHWC" if shape[3] in (1, 3) else "NCHW"
