"""Read the layers of a Keras weight file: legacy .h5, .weights.h5, or the weights inside a .keras file.

Legacy files (Keras 1, 2 and 3) list `layer_names`, and for each layer `weight_names`, as HDF5 attributes; Keras 3's own
files number the layers of each class and the variables of each layer. Which kind a layer is follows from the ranks of
its arrays in legacy files, and from its class elsewhere; layers without parameters that a network learns are passed by.
"""

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError
from edgecnn.extras import require
from edgecnn.graph import Array
from edgecnn.models.pretrained import LayerWeights

from ._keras_archive import WEIGHTS, read_member
from ._keras_hdf5 import FLOATS, HDF5_ERRORS, descend

CLASSES = {
    "conv1d": "conv",
    "conv2d": "conv",
    "conv3d": "conv",
    "depthwise_conv1d": "depthwise",
    "depthwise_conv2d": "depthwise",
    "dense": "dense",
    "batch_normalization": "batch_norm",
}
"""Class in snake case, as Keras 3 names its groups -> kind of layer."""

NORMS = {4: ("gamma", "beta", "mean", "variance"), 3: ("beta", "mean", "variance")}
"""Arrays of a BatchNorm -> what they are; with three it has no scale."""

LARGEST_BYTES = 4 << 30


def read_weights(path: Path) -> tuple[LayerWeights, ...]:
    """Return the layers that have parameters, in the file's order.

    Raises:
        InputFileError: When the file is damaged, refers to other files, or has no layers.
    """
    h5py = require("h5py", purpose="reading Keras weight files")
    try:
        with h5py.File(_source(path), "r") as file:
            root = descend(file, ("model_weights",)) if "model_weights" in file else file
            read = _legacy_layers if "layer_names" in root.attrs or "layer_names0" in root.attrs else _numbered_layers
            layers = tuple(layer for layer in read(h5py, root) if layer is not None)
    except HDF5_ERRORS as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"{path}: a Keras weight file (HDF5) was wanted; it cannot be read: {error}") from None
    if not layers:
        raise InputFileError(f"{path}: a Keras weight file was wanted; it holds no layer with parameters")
    return layers


def _source(path: Path) -> Path | io.BytesIO:
    if path.suffix != ".keras":
        if path.stat().st_size > LARGEST_BYTES:
            raise InputFileError(f"{path}: at most {LARGEST_BYTES} bytes were wanted")
        return path
    data = read_member(path, WEIGHTS)
    if data is None:
        raise InputFileError(f"{path}: the member {WEIGHTS} was wanted; there is none")
    return io.BytesIO(data)


def _legacy_layers(h5py: Any, root: Any) -> Iterator[LayerWeights | None]:
    for name in _texts(root.attrs, "layer_names"):
        group = descend(root, name.split("/"))
        names = _texts(group.attrs, "weight_names")
        arrays = [_values(h5py, descend(group, weight.split("/"))) for weight in names]
        yield _layer(name, _legacy_kind(names, arrays), arrays)


def _legacy_kind(names: Sequence[str], arrays: Sequence[Array]) -> str | None:
    """Return the kind of a layer; Keras 3 calls a depthwise kernel plain "kernel", but its last axis gives it away."""
    ranks = [array.ndim for array in arrays]
    if ranks and set(ranks) == {1}:
        return "batch_norm" if len(ranks) in NORMS else None
    if ranks[1:] not in ([], [1]) or not ranks or ranks[0] < 2:
        return None
    if ranks[0] == 2:
        return "dense"
    is_depthwise = "depthwise" in names[0] or arrays[0].shape[-1] == 1 < arrays[0].shape[-2]
    return "depthwise" if is_depthwise else "conv"


def _numbered_layers(h5py: Any, root: Any) -> Iterator[LayerWeights | None]:
    layers = descend(root, ("layers",))
    for name in sorted(layers, key=_class_and_number):
        kind = CLASSES.get(_class_and_number(name)[0])
        group = descend(layers, (name,))
        if kind is None or "vars" not in group:
            continue
        variables = descend(group, ("vars",))
        arrays = [_values(h5py, descend(variables, (index,))) for index in sorted(variables, key=int)]
        yield _layer(name, kind, arrays) if arrays else None


def _class_and_number(group: str) -> tuple[str, int]:
    """Return the class and place of a group that Keras 3 numbered.

    >>> _class_and_number("depthwise_conv2d_12")
    ('depthwise_conv2d', 12)
    """
    found = re.fullmatch(r"(.*?)(?:_(\d+))?", group)
    return (found[1], int(found[2] or 0)) if found else (group, 0)


def _layer(name: str, kind: str | None, arrays: Sequence[Array]) -> LayerWeights | None:
    if kind is None:
        return None
    operands = NORMS.get(len(arrays), ()) if kind == "batch_norm" else ("kernel", "bias")[: len(arrays)]
    if len(operands) != len(arrays):
        raise InputFileError(f"layer '{name}': parameters of a {kind} were wanted; found {len(arrays)} arrays")
    parameters = dict(zip(operands, arrays, strict=True))
    if kind == "depthwise":
        kernel = parameters["kernel"]
        parameters["kernel"] = kernel.reshape(*kernel.shape[:-2], 1, -1)
    return LayerWeights(name=name, kind=kind, parameters=parameters)


def _texts(attributes: Any, name: str) -> list[str]:
    """Return a list of names; Keras spreads a long one over name0, name1, ..."""
    parts = [attributes[name]] if name in attributes else []
    while f"{name}{len(parts)}" in attributes:
        parts.append(attributes[f"{name}{len(parts)}"])
    return [text.decode() if isinstance(text, bytes) else str(text) for part in parts for text in part]


def _values(h5py: Any, dataset: Any) -> Array:
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise InputFileError(f"{dataset.name}: an array of the file itself was wanted")
    if dataset.dtype.name not in (*FLOATS, "int32", "int64") or dataset.nbytes > LARGEST_BYTES:
        raise InputFileError(f"{dataset.name}: numbers of reasonable size were wanted; found {dataset.dtype}")
    if dataset.nbytes and not dataset.id.get_storage_size():
        raise InputFileError(f"{dataset.name}: it states {dataset.nbytes} bytes and stores none")
    return np.asarray(dataset[...], np.float32)
