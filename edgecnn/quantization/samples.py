"""Representative data as a stream: pictures and arrays of a folder, a batch at a time; random numbers only when asked.

Pictures are preprocessed by contract. The arrays of .npy and .npz files are taken as values that already are; they are
read row by row without pickle, so that neither a large file nor a hostile one fills the memory.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from edgecnn.contract import Contract
from edgecnn.errors import InputFileError, NotThereError, UsageError
from edgecnn.feeding import random_values
from edgecnn.graph import Array, Graph, external_shape, from_layout
from edgecnn.vision.preprocess import SUFFIXES, read_image

ARRAYS = frozenset({".npy", ".npz"})
"""Suffixes of files with values that are already preprocessed."""

MOST_ROWS = 1 << 20
"""Of one array: a header may state any number, and each row is listed before it is read."""

BATCH = 8
"""Images that are held at a time."""

REFUSALS = (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""What NumPy and zipfile raise on files that they cannot read; RuntimeError asks for a password."""

HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
"""Version of the .npy format -> reads (shape, is in Fortran's order, type)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One input of the network, not yet read.

    Attributes:
        path: Its file.
        member: Name of the array in an .npz file.
        row: Its place in an array; None for a picture.
    """

    path: Path
    member: str = ""
    row: int | None = None

    @property
    def name(self) -> str:
        """What a person finds it by: photo.jpg, or values.npz[x][3]."""
        inside = f"[{self.member}]" if self.member else ""
        return self.path.name if self.row is None else f"{self.path.name}{inside}[{self.row}]"


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


def image_batches(
    source: Path | Sequence[Path], contract: Contract, *, port: str, limit: int | None = None, batch: int = BATCH
) -> Batches:
    """Return the pictures and arrays of a folder or of some files as batches; no more than one is held.

    Args:
        source: A folder, searched recursively in name order, or files.
        contract: How pictures are cropped, resized and scaled, and the size that arrays must have.
        port: The input that they are for.
        limit: At most this many, spread evenly over what there is.
        batch: Images in a batch; the last one may have fewer.

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
        for each in read_samples(chosen, contract):
            values.append(each)
            if len(values) == batch:
                yield {port: np.stack(values)}
                values = []
        if values:
            yield {port: np.stack(values)}

    origin = str(source) if isinstance(source, Path) else f"{len(source)} files"
    return Batches(make=make, count=len(chosen), origin=f"{len(chosen)} images of {origin}")


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
    places = np.linspace(0, len(found) - 1, min(limit or len(found), len(found))).astype(int)
    return [found[place] for place in places]


def read_samples(chosen: Sequence[Sample], contract: Contract) -> Iterator[Array]:
    """Yield each sample as (height, width, channels) float32, as the network takes it.

    Raises:
        InputFileError: When one cannot be read.
    """
    at = 0
    while at < len(chosen):
        first = chosen[at]
        end = at + 1
        if first.row is None:
            yield read_image(first.path, contract)
        else:
            while end < len(chosen) and replace(chosen[end], row=first.row) == first:
                end += 1
            with _opened(first.path, first.member) as file:
                yield from _rows(file, first, [each.row or 0 for each in chosen[at:end]], contract)
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
    for member in _members(path):
        with _opened(path, member) as file:
            shape, _ = _header(file, Sample(path=path, member=member, row=0), contract)
        found += [Sample(path=path, member=member, row=row) for row in range(shape[0])]
    return found


def _members(path: Path) -> list[str]:
    """Return the names of the arrays in an .npz file; an .npy file has one without a name."""
    if path.suffix.lower() == ".npy":
        return [""]
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except REFUSALS as error:
        raise InputFileError(f"{path}: a file of NumPy's arrays was wanted; it cannot be read: {error}") from None


@contextmanager
def _opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    """Open an array; whatever is wrong with it while it is open is the file's fault."""
    try:
        if not member:
            with path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as inner:
                yield inner
    except REFUSALS as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"{path}: an array of NumPy was wanted; it cannot be read: {error}") from None


def _header(file: IO[bytes], sample: Sample, contract: Contract) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return (rows, and the shape of each) and the type of an array, after checking that it fits the contract."""
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise InputFileError(f"{sample.path}: .npy version 1.0 or 2.0 was wanted; got {version}")
    shape, is_fortran, dtype = HEADERS[version](file)
    if dtype.kind not in "fiu" or dtype.itemsize > 8 or is_fortran:
        what = "Fortran's order" if is_fortran else str(dtype)
        raise InputFileError(f"{sample.name}: numbers in C's order were wanted; got {what}. Save them so.")
    height, width, channels = size = (contract.height, contract.width, contract.channels)
    fitting = [size, (channels, height, width), *([(height, width)] if channels == 1 else [])]
    if shape in fitting:
        shape = (1, *shape)
    if shape[1:] not in fitting or not 0 <= shape[0] <= MOST_ROWS:
        wanted = f"(N, {height}, {width}, {channels})"
        raise InputFileError(f"{sample.name}: an array {wanted} was wanted, as the contract says; got {shape}")
    return shape, dtype


def _rows(file: IO[bytes], sample: Sample, rows: Sequence[int], contract: Contract) -> Iterator[Array]:
    """Yield rows of an array, in rising order, as (height, width, channels) float32."""
    shape, dtype = _header(file, sample, contract)
    size = prod(shape[1:]) * dtype.itemsize
    start = file.tell()
    picture = (1, contract.height, contract.width, contract.channels)
    is_first = shape[1:] == external_shape(picture, "NCHW")[1:] != picture[1:]
    for row in rows:
        file.seek(start + row * size)
        data = file.read(size)
        if len(data) != size:
            raise InputFileError(f"{sample.name}: {size} bytes were wanted for row {row}; got {len(data)}")
        values = np.frombuffer(data, dtype).reshape(external_shape(picture, "NCHW") if is_first else picture)
        yield from_layout(values.astype(np.float32), "NCHW" if is_first else None)[0]
