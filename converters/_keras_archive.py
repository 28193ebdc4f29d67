"""The container of a .keras file: members of a zip archive and variables of its HDF5 member, read within bounds.

The file is untrusted. A member is read by its exact name, never extracted, and only after the size that it states is
found reasonable; a variable is read only when it has the shape that the network's configuration asks for, lies in the
file itself (no link, no external or virtual storage) and is no larger than the file.

Source: Keras 3, keras/src/saving/saving_lib.py: `config.json`, `metadata.json` and `model.weights.h5`; variable i of a
layer is the dataset layers/<class in snake case>[_<n>]/vars/<i>, with n counting the layers of a class in configuration
order.
"""

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgecnn.errors import InputFileError
from edgecnn.extras import require
from edgecnn.graph import Array
from edgecnn.shapes import show_shape

CONFIG, WEIGHTS, CONTRACT = "config.json", "model.weights.h5", "edgecnn.json"
LIMITS = {CONFIG: 16 << 20, WEIGHTS: 4 << 30, CONTRACT: 1 << 20}
"""Member -> the most bytes that it may have. A network of a thousand layers has a configuration of about 1 MB."""

EXPANSION = 100
EXPANSION_FREE = 64 << 20
"""A compressed member may be this many times its stored size, and that only counts beyond so many bytes (Keras stores
its members uncompressed; trained weights hardly compress)."""

ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    OverflowError,
    UnicodeDecodeError,
)
"""What zipfile raises on damaged archives."""

HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
"""What h5py makes of libhdf5's errors."""

FLOATS = ("float16", "float32", "float64")


def read_member(path: Path, name: str) -> bytes | None:
    """Return a member's bytes, checksum verified, or None where the archive has no such member.

    Raises:
        InputFileError: When the file is no zip archive, or the member is damaged, encrypted or larger than its limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.NameToInfo.get(name)
            if info is None:
                return None
            _check_size(path, info)
            return archive.read(info)
    except ZIP_ERRORS as error:
        reason = getattr(error, "strerror", None) or error
        raise InputFileError(f"{path}: a .keras file (a zip archive) was wanted; it is damaged: {reason}") from None


def _check_size(path: Path, info: zipfile.ZipInfo) -> None:
    limit = LIMITS[info.filename]
    if info.file_size > limit:
        raise InputFileError(f"{path}: {info.filename} of at most {limit} bytes was wanted; found {info.file_size}")
    if info.file_size > max(EXPANSION_FREE, EXPANSION * info.compress_size):
        raise InputFileError(
            f"{path}: {info.filename} would grow from {info.compress_size} to {info.file_size} bytes; "
            f"at most {EXPANSION} times was wanted. Save the model again with Keras."
        )
    if info.flag_bits & 1:
        raise InputFileError(
            f"{path}: {info.filename} is encrypted; a plain archive was wanted. Save it without a password."
        )


def read_config(path: Path) -> Mapping[str, object]:
    """Return the network's configuration, a JSON object."""
    text = read_member(path, CONFIG)
    if text is None:
        raise InputFileError(f"{path}: the member {CONFIG} was wanted; there is none. Save the model with Keras 3.")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"{path}: {CONFIG}: JSON was wanted; it cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputFileError(f"{path}: {CONFIG}: a JSON object was wanted; found {type(config).__name__}")
    return config


class WeightFile:
    """The variables of a .keras file.

    The HDF5 member is held in memory once; variables are views of it.
    """

    def __init__(self, path: Path) -> None:
        data = read_member(path, WEIGHTS)
        if data is None:
            raise InputFileError(
                f"{path}: the member {WEIGHTS} was wanted; there is none. Save the model with Keras 3."
            )
        self._h5py = require("h5py", purpose="reading .keras files")
        self._path = path
        self._data = data
        try:
            self._file = self._h5py.File(io.BytesIO(data), "r")
        except HDF5_ERRORS as error:
            raise InputFileError(f"{path}: {WEIGHTS}: an HDF5 file was wanted; it is damaged: {error}") from None

    def variables(self, where: str, group: str, shapes: Mapping[str, tuple[int, ...]]) -> list[Array]:
        """Return the variables of one layer as float32.

        Args:
            where: The layer, for errors.
            group: The layer's group, "conv2d_1".
            shapes: Variable name -> the shape that the configuration asks for, in the file's order.
        """
        try:
            datasets = [self._descend(("layers", group, "vars", str(index))) for index in range(len(shapes))]
            for dataset, (name, shape) in zip(datasets, shapes.items(), strict=True):
                self._check(where, name, dataset, shape)
            return [self._values(dataset) for dataset in datasets]
        except InputFileError:
            raise
        except HDF5_ERRORS as error:
            reason = error.args[0] if error.args else type(error).__name__
            raise InputFileError(
                f"{where}: {len(shapes)} variables were wanted in {WEIGHTS}/{group}: {reason}"
            ) from None

    def _descend(self, names: tuple[str, ...]) -> Any:
        """Return what lies at a path of plain (hard) links: links to other files or places are not followed."""
        item = self._file
        for name in names:
            link = item.get(name, getlink=True) if isinstance(item, self._h5py.Group) else None
            if not isinstance(link, self._h5py.HardLink):
                found = "nothing" if link is None else f"a {type(link).__name__}"
                raise KeyError(f"'{name}' of {'/'.join(names)} is {found}")
            item = item[name]
        return item

    def _check(self, where: str, name: str, dataset: Any, shape: tuple[int, ...]) -> None:
        if not isinstance(dataset, self._h5py.Dataset):
            raise InputFileError(f"{where}: variable '{name}' is no HDF5 dataset. Save the model again.")
        if dataset.shape != shape:
            found = show_shape(dataset.shape) if dataset.shape is not None else "nothing"
            raise InputFileError(f"{where}: variable '{name}' of {show_shape(shape)} was wanted; found {found}")
        if dataset.dtype.name not in FLOATS:
            raise InputFileError(f"{where}: variable '{name}' of {', '.join(FLOATS)} was wanted; found {dataset.dtype}")
        if dataset.external or dataset.is_virtual:
            raise InputFileError(
                f"{where}: variable '{name}' lies in another file, which is not opened. Save it whole."
            )
        if prod(shape) * dataset.dtype.itemsize > len(self._data):
            raise InputFileError(
                f"{where}: variable '{name}' of {show_shape(shape)} is larger than the file that holds it"
            )

    def _values(self, dataset: Any) -> Array:
        offset, count = dataset.id.get_offset(), prod(dataset.shape)
        if offset is None:  # chunked, or never written
            return cast(Array, dataset[...].astype(np.float32, copy=False))
        values = np.frombuffer(self._data, dataset.dtype, count=count, offset=offset).reshape(dataset.shape)
        return values.astype(np.float32, copy=False)


def group_name(class_name: str) -> str:
    """Return the HDF5 group of a layer class, before numbering.

    Source: Keras 3, keras/src/utils/naming.py, to_snake_case.

    >>> group_name("DepthwiseConv2D")
    'depthwise_conv2d'
    """
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def append_contract(path: Path, text: str) -> None:
    """Add the contract to a .keras file that Keras has written; Keras passes by members that it does not know."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CONTRACT, text)
