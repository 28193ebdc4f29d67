"""Representative data as a stream: pictures and arrays of a folder, a batch at a time; random numbers only when asked.

Pictures are preprocessed by contract. The arrays of .npy and .npz files are taken as values that already are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgecnn.contract import Contract
from edgecnn.errors import InputFileError, NotThereError, UsageError
from edgecnn.feeding import random_values
from edgecnn.graph import Array, Graph
from edgecnn.quantization.arrays import SUFFIXES as ARRAYS
from edgecnn.quantization.arrays import StoredArray, stored_arrays, stored_rows
from edgecnn.vision.preprocess import SUFFIXES, read_image

Item = TypeVar("Item")

Batch = Mapping[str, Array]
"""Port name -> (n, ...) values."""

BATCH = 8
"""Images that are held at a time."""

KEPT_BYTES = 64 << 20
"""Of batches that are not read again: 106 pictures of 224x224."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One input of the network, not yet read.

    Attributes:
        path: Its file.
        array: The array that it is a row of; None for a picture.
        row: Its place there.
    """

    path: Path
    array: StoredArray | None = None
    row: int = 0

    @property
    def name(self) -> str:
        """What a person finds it by: photo.jpg, or values.npz[x][3]."""
        return self.path.name if self.array is None else f"{self.array.name}[{self.row}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """Batches for one network, read anew each time they are gone through.

    Attributes:
        make: Starts reading: port name -> (n, ...) values, for each batch.
        count: How many images there are in all.
        origin: Where they come from, for people.
        is_random: Whether they are random numbers.
    """

    make: Callable[[], Iterator[dict[str, Array]]]
    count: int
    origin: str
    is_random: bool = False

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """Start reading."""
        return self.make()


class Remembered:
    """Batches of which the first ones, as far as KEPT_BYTES reach, are read once and kept for the next time."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        """Read nothing yet.

        Args:
            batches: Give the same each time.
        """
        self._batches = batches
        self._kept: list[Batch] = []
        self._room = KEPT_BYTES
        self._is_whole = False

    def __iter__(self) -> Iterator[Batch]:
        """Go through all from the start."""
        yield from self._kept
        if self._is_whole:
            return
        for batch in islice(self._batches, len(self._kept), None):
            self._room -= sum(values.nbytes for values in batch.values())
            if self._room >= 0:
                self._kept.append(batch)
            yield batch
        self._is_whole = self._room >= 0


def image_batches(
    source: Path | Sequence[Path],
    contract: Contract,
    *,
    port: str,
    limit: int | None = None,
    batch: int = BATCH,
    watch: Callable[[Sample, Array], None] = lambda sample, values: None,
) -> Batches:
    """Return the pictures and arrays of a folder or of some files as batches; no more than one is held.

    Args:
        source: A folder, searched recursively in name order, or files.
        contract: How pictures are cropped, resized and scaled, and the size that arrays must have.
        port: The input that they are for.
        limit: At most this many, spread evenly over what there is.
        batch: Images in a batch; the last one may have fewer.
        watch: Called with each sample and its values as it is read: lint.Inspection.add looks at them on the way.

    Raises:
        NotThereError: When there is nothing.
        InputFileError: When a file holds no picture, or no array of the contract's size; pictures are only looked at
            when their turn comes.
    """
    if batch < 1 or (limit is not None and limit < 1):
        raise UsageError(f"limit and batch: 1 or more was wanted; got {limit} and {batch}")
    chosen = samples(source, contract, limit=limit)

    def make() -> Iterator[dict[str, Array]]:
        values: list[Array] = []
        for sample, each in zip(chosen, read_samples(chosen, contract), strict=True):
            watch(sample, each)
            values.append(each)
            if len(values) == batch:
                yield {port: np.stack(values)}
                values = []
        if values:
            yield {port: np.stack(values)}

    origin = str(source) if isinstance(source, Path) else f"{len(source)} files"
    return Batches(make=make, count=len(chosen), origin=f"{len(chosen)} images of {origin}")


def array_batches(path: Path, graph: Graph, *, limit: int | None = None, batch: int = BATCH) -> Batches:
    """Return the arrays of an .npz file as batches, one array for each input: for inputs that are no pictures.

    Args:
        path: With an array (N, ...) named after each port, in the Graph's order of axes and already preprocessed.
        graph: Whose inputs are to be fed.
        limit: At most this many rows, spread evenly.
        batch: Rows in a batch.

    Raises:
        InputFileError: When an input has no array, or one that does not fit it.
    """
    stored = {array.member: array for array in stored_arrays(path)}
    counts = {stored[port.name].shape[0] for port in graph.inputs if port.name in stored}
    for port in graph.inputs:
        shape = graph.tensors[port.tensor].shape[1:]
        found = stored[port.name].shape if port.name in stored else "none"
        if found == "none" or found[1:] != shape or len(counts) != 1:
            wanted = ", ".join(("N", *map(str, shape)))
            raise InputFileError(
                f"{path}: an array '{port.name}' ({wanted}), N the same for all, was wanted; got {found}"
            )
    rows = _spread(range(counts.pop() if counts else 0), limit)
    if not rows:
        raise NotThereError(f"{path}: rows to calibrate on were wanted; there are none.")

    def make() -> Iterator[dict[str, Array]]:
        types = {port.name: graph.tensors[port.tensor].dtype for port in graph.inputs}
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            yield {name: np.stack(list(stored_rows(stored[name], part))).astype(types[name]) for name in types}

    return Batches(make=make, count=len(rows), origin=f"{len(rows)} rows of {path}")


def random_batches(graph: Graph, count: int, seed: int, *, batch: int = BATCH) -> Batches:
    """Return random inputs: pixels through the contract where there is one, else normal numbers.

    Whatever is calibrated on them says so: activations of noise have other ranges than those of pictures.

    Args:
        graph: Whose inputs are to be fed.
        count: How many images.
        seed: The same seed gives the same numbers.
        batch: Images in a batch.
    """

    def make() -> Iterator[dict[str, Array]]:
        rng = np.random.default_rng(seed)
        for start in range(0, count, batch):
            yield {port.name: _noise(graph, port.tensor, min(batch, count - start), rng) for port in graph.inputs}

    if min(count, batch) < 1:
        raise UsageError(f"1 or more random images were wanted; got {count}, {batch} in a batch")
    return Batches(make=make, count=count, origin=f"{count} random inputs, seed {seed}", is_random=True)


def _noise(graph: Graph, tensor: str, count: int, rng: np.random.Generator) -> Array:
    found, contract = graph.tensors[tensor], graph.contract
    shape = (count, *(size or 1 for size in found.shape[1:]))
    if contract is None or found.dtype != "float32" or shape[-1] != contract.channels:
        return random_values(shape, found.dtype, rng)
    pixels = rng.integers(0, 256, shape).astype(np.float32)
    return (pixels - np.asarray(contract.mean, np.float32)) / np.asarray(contract.std, np.float32)


def samples(source: Path | Sequence[Path], contract: Contract, *, limit: int | None = None) -> list[Sample]:
    """Return what there is to read, in name order and at most `limit`; see image_batches."""
    found = [sample for path in _files(source) for sample in _inside(path, contract)]
    if not found:
        raise NotThereError(f"{source}: images were wanted; the arrays there have no rows.")
    return _spread(found, limit)


def _spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """Return at most `limit` items, evenly spread over all of them."""
    count = min(limit or len(items), len(items))
    return [items[place] for place in np.linspace(0, len(items) - 1, count).astype(int)]


def read_samples(chosen: Sequence[Sample], contract: Contract) -> Iterator[Array]:
    """Yield each sample as (height, width, channels) float32, as the network takes it.

    Raises:
        InputFileError: When one cannot be read.
    """
    at = 0
    while at < len(chosen):
        first = chosen[at]
        end = at + 1
        if first.array is None:
            yield read_image(first.path, contract)
        else:
            while end < len(chosen) and chosen[end].array == first.array:
                end += 1
            for values in stored_rows(first.array, [each.row for each in chosen[at:end]]):
                yield _as_picture(values, contract)
        at = end


def _files(source: Path | Sequence[Path]) -> list[Path]:
    """Return the pictures and arrays of a folder, or the files that were named."""
    known = SUFFIXES | ARRAYS
    if not isinstance(source, Path):
        other = [path for path in source if path.suffix.lower() not in known]
        if other or not source:
            raise NotThereError(
                f"{other[0] if other else 'no file'}: files that end in one of {_list(known)} were wanted."
            )
        return list(source)
    if source.is_file():
        return _files([source])
    if not source.is_dir():
        raise NotThereError(f"{source}: a folder with images was wanted; there is none.")
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in known and path.is_file())
    if not paths:
        raise NotThereError(f"{source}: images ({_list(known)}) were wanted; the folder has none.")
    return paths


def _list(suffixes: frozenset[str]) -> str:
    return ", ".join(sorted(suffixes))


def _inside(path: Path, contract: Contract) -> list[Sample]:
    """Return the samples in a file."""
    if path.suffix.lower() not in ARRAYS:
        return [Sample(path=path)]
    found = []
    for stored in stored_arrays(path):
        array = _pictures(stored, contract)
        found += [Sample(path=path, array=array, row=row) for row in range(array.shape[0])]
    return found


def _pictures(array: StoredArray, contract: Contract) -> StoredArray:
    """Return an array with its rows cut into pictures of the contract's size; refuse one that holds none."""
    height, width, channels = contract.height, contract.width, contract.channels
    fitting = [(height, width, channels), (channels, height, width), *([(height, width)] if channels == 1 else [])]
    if array.shape in fitting:
        return replace(array, shape=(1, *array.shape))
    if array.shape[1:] not in fitting:
        wanted = f"(N, {height}, {width}, {channels})"
        raise InputFileError(f"{array.name}: an array {wanted} was wanted, as the contract says; got {array.shape}")
    return array


def _as_picture(values: Array, contract: Contract) -> Array:
    """Return a row as (height, width, channels) float32."""
    shape = (contract.height, contract.width, contract.channels)
    if values.shape != shape and values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    return values.reshape(shape).astype(np.float32)
