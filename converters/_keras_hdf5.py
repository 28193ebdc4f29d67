"""The variables of a Keras file, out of HDF5, read within bounds.

The file is untrusted. A variable is read only when it has the shape that the network's configuration asks for, lies in
the file itself (no link, no external or virtual storage) and is no larger than the file.

Sources: Keras 3, keras/src/saving/saving_lib.py: variable i of a layer of a .keras file is the dataset
layers/<class in snake case>[_<n>]/vars/<i>, with n counting the layers of a class in configuration order; the layers of
an inner model lie below its own group. keras/src/legacy/saving/legacy_h5_format.py, the same since Keras 2: an .h5 file
has the configuration in the attribute model_config, and in model_weights/<layer> the datasets that the attribute
weight_names lists; an inner model's are all in its own group, each named .../<inner layer>/<variable>.
"""

import io
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from edgecnn.errors import InputFileError
from edgecnn.extras import require
from edgecnn.graph import Array
from edgecnn.shapes import show_shape

from ._keras_archive import CONFIG, LIMITS, WEIGHTS, parse_object, read_config, read_member, read_version
from ._keras_topology import Location

HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
"""What h5py makes of libhdf5's errors."""

FLOATS = ("float16", "float32", "float64")

LEGACY = (".h5", ".hdf5")
"""Suffixes of whole models in one HDF5 file."""

OLD_LAYERS = "_layer_checkpoint_dependencies"
"""What "layers" was called by Keras 2.12."""


class VariableFile(Protocol):
    """What is read of a Keras file.

    Attributes:
        config: The model's configuration.
        version: Of the Keras that saved it.
    """

    config: Mapping[str, object]
    version: str

    def variables(self, where: str, place: Location, shapes: Mapping[str, tuple[int, ...]]) -> list[Array]:
        """Return the variables of one layer as float32.

        Args:
            where: The layer, for errors.
            place: Where the layer stands.
            shapes: Variable name -> the shape that the configuration asks for, in the file's order.
        """
        ...

    def stored(self) -> list[tuple[str, int]]:
        """Return the element type and the bytes of every variable in the file, whether a layer asks for it or not."""
        ...


def open_file(path: Path) -> VariableFile:
    """Open a .keras or .h5 file."""
    return LegacyFile(path) if path.suffix.lower() in LEGACY else ArchiveFile(path)


def descend(item: Any, names: Sequence[str]) -> Any:
    """Return what lies at a path of plain (hard) links: links to other files or places are not followed.

    Raises:
        KeyError: When a step of the path is not there, or is another kind of link.
    """
    h5py = require("h5py", purpose="reading Keras files")
    for name in names:
        link = item.get(name, getlink=True) if isinstance(item, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            found = "nothing" if link is None else f"a {type(link).__name__}"
            raise KeyError(f"'{name}' of {'/'.join(names)} is {found}")
        item = item[name]
    return item


class _Hdf5:
    """An HDF5 file held in memory once; variables are views of it."""

    def __init__(self, data: bytes, where: str) -> None:
        self._h5py = require("h5py", purpose="reading Keras files")
        self._data = data
        try:
            self._file = self._h5py.File(io.BytesIO(data), "r")
        except HDF5_ERRORS as error:
            raise InputFileError(f"{where}: an HDF5 file was wanted; it is damaged: {error}") from None

    def _read(self, where: str, shapes: Mapping[str, tuple[int, ...]], paths: list[tuple[str, ...]]) -> list[Array]:
        datasets = [descend(self._file, path) for path in paths]
        for dataset, (name, shape) in zip(datasets, shapes.items(), strict=True):
            self._check(where, name, dataset, shape)
        return [self._values(dataset) for dataset in datasets]

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

    def _stored(self, where: str, root: str) -> list[tuple[str, int]]:
        """Return (type, bytes) of the datasets below a group; HDF5 visits each once, whatever links to it."""
        found: list[tuple[str, int]] = []

        def visit(name: str, item: Any) -> None:
            if isinstance(item, self._h5py.Dataset):
                found.append((str(item.dtype), int(item.nbytes)))

        try:
            if root in self._file:
                descend(self._file, (root,)).visititems(visit)
        except HDF5_ERRORS as error:
            raise InputFileError(f"{where}: variables were wanted; HDF5 cannot list them: {error}") from None
        return found

    def _values(self, dataset: Any) -> Array:
        offset, count = dataset.id.get_offset(), prod(dataset.shape)
        if offset is None:  # chunked, or never written
            return cast(Array, dataset[...].astype(np.float32, copy=False))
        values = np.frombuffer(self._data, dataset.dtype, count=count, offset=offset).reshape(dataset.shape)
        return values.astype(np.float32, copy=False)


class ArchiveFile(_Hdf5):
    """A .keras file; see VariableFile."""

    def __init__(self, path: Path) -> None:
        self.config, self.version = read_config(path), read_version(path)
        data = read_member(path, WEIGHTS)
        if data is None:
            raise InputFileError(
                f"{path}: the member {WEIGHTS} was wanted; there is none. Save the model with Keras 3."
            )
        super().__init__(data, f"{path}: {WEIGHTS}")

    def variables(self, where: str, place: Location, shapes: Mapping[str, tuple[int, ...]]) -> list[Array]:
        """Return the variables of one layer; see VariableFile."""
        try:
            root = OLD_LAYERS if OLD_LAYERS in self._file else "layers"
            groups = tuple(name for group in place.groups for name in (root, group))
            return self._read(where, shapes, [(*groups, "vars", str(index)) for index in range(len(shapes))])
        except InputFileError:
            raise
        except HDF5_ERRORS as error:
            raise _absent(where, shapes, f"{WEIGHTS}/{'/'.join(place.groups)}", error) from None

    def stored(self) -> list[tuple[str, int]]:
        """Return types and bytes of the variables; see VariableFile."""
        return self._stored(WEIGHTS, OLD_LAYERS if OLD_LAYERS in self._file else "layers")


class LegacyFile(_Hdf5):
    """An .h5 file of a whole model; see VariableFile."""

    def __init__(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            if size > LIMITS[WEIGHTS]:
                raise InputFileError(f"{path}: at most {LIMITS[WEIGHTS]} bytes were wanted; found {size}")
            data = path.read_bytes()
        except OSError as error:
            raise InputFileError(f"{path}: a Keras .h5 file was wanted; {error.strerror}") from None
        super().__init__(data, str(path))
        config = self._text(path, "model_config")
        if config is None:
            raise InputFileError(
                f"{path}: a whole model was wanted; this file has weights only (no model_config). "
                "Save it with model.save, or name the architecture and pass the file as its weights."
            )
        self.config = parse_object(f"{path}: model_config", config)
        self.version = self._text(path, "keras_version") or "2"

    def _text(self, path: Path, name: str) -> str | None:
        try:
            value = self._file.attrs.get(name)
        except HDF5_ERRORS as error:
            raise InputFileError(f"{path}: {name}: text was wanted; it is damaged: {error}") from None
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        if value is not None and (not isinstance(value, str) or len(value) > LIMITS[CONFIG]):
            raise InputFileError(f"{path}: {name}: text of at most {LIMITS[CONFIG]} bytes was wanted")
        return value

    def variables(self, where: str, place: Location, shapes: Mapping[str, tuple[int, ...]]) -> list[Array]:
        """Return the variables of one layer; see VariableFile."""
        top = ("model_weights", *place.names[0].split("/"))
        try:
            names = _of_layer(self._weight_names(descend(self._file, top)), place.names)
            if len(names) < len(shapes):
                raise KeyError(f"found {len(names)} of that layer")
            paths = [(*top, *name.split("/")) for name in names[: len(shapes)]]
            return self._read(where, shapes, paths)
        except InputFileError:
            raise
        except HDF5_ERRORS as error:
            raise _absent(where, shapes, "/".join(top), error) from None

    def stored(self) -> list[tuple[str, int]]:
        """Return types and bytes of the variables; see VariableFile."""
        return self._stored("model_weights", "model_weights")

    def _weight_names(self, group: Any) -> list[str]:
        """Return the attribute weight_names, which Keras cuts in pieces (weight_names0, ...) where it is long."""
        keys = ["weight_names"] if "weight_names" in group.attrs else []
        while not keys or (keys[0] != "weight_names" and f"weight_names{len(keys)}" in group.attrs):
            keys.append(f"weight_names{len(keys)}")
        return [name.decode() if isinstance(name, bytes) else str(name) for key in keys for name in group.attrs[key]]


def _of_layer(names: list[str], place: tuple[str, ...]) -> list[str]:
    """Return the weight names of one layer out of its top layer's, told apart by their paths within inner models."""
    if len(place) == 1:
        return names
    for depth in range(1, len(place)):
        end = "/".join(place[-depth:])
        found = [name for name in names if f"/{name.rpartition('/')[0]}".endswith(f"/{end}")]
        variables = [name.rpartition("/")[2] for name in found]
        if len(set(variables)) == len(variables):
            return found
    raise KeyError(f"two layers are named '{place[-1]}'")


def _absent(where: str, shapes: Mapping[str, tuple[int, ...]], place: str, error: Exception) -> InputFileError:
    reason = error.args[0] if error.args else type(error).__name__
    return InputFileError(f"{where}: {len(shapes)} variables were wanted in {place}: {reason}")
