"""What the configuration and the variables of a Keras file state: read without Keras, custom classes included."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgecnn.interfaces import ListedPort, Listing
from edgecnn.shapes import Shape

from ._keras_hdf5 import open_file

SILENT = "InputLayer"
"""The layer that computes nothing."""


def listing(path: Path) -> Listing:
    """Return what a file states; inner models are listed layer by layer. See interfaces.Lister."""
    file = open_file(path)
    tensors, constant_bytes = Counter[str](), Counter[str]()
    for dtype, size in file.stored():
        tensors[dtype] += 1
        constant_bytes[dtype] += size
    return Listing(
        facts={
            "keras version": file.version,
            "model": str(file.config.get("class_name")),
            "name": str(_config(file.config).get("name", "")),
        },
        inputs=tuple(_inputs(file.config)),
        outputs=tuple(ListedPort(name=name, shape=None, dtype="") for name in _outputs(file.config)),
        operators=dict(Counter(kind for kind in _layers(file.config) if kind != SILENT).most_common()),
        tensors=dict(tensors.most_common()),
        constant_bytes=dict(constant_bytes.most_common()),
    )


def _layers(model: Mapping[str, object]) -> Iterator[str]:
    """Yield the class of every layer that is no model itself; a wrong type anywhere is passed by."""
    waiting = _rows(model)[::-1]
    while waiting:
        row = waiting.pop()
        inner = _rows(row)
        waiting += inner[::-1]
        if not inner:
            yield str(row.get("class_name"))


def _rows(model: Mapping[str, object]) -> list[Mapping[str, object]]:
    config = model.get("config")
    rows = config.get("layers") if isinstance(config, dict) else config
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _config(row: Mapping[str, object]) -> Mapping[str, object]:
    config = row.get("config")
    return config if isinstance(config, dict) else {}


def _inputs(model: Mapping[str, object]) -> Iterator[ListedPort]:
    """Yield the InputLayers; a Sequential model of Keras 2 states its input's shape in its first layer."""
    rows = _rows(model)
    found = [row for row in rows if row.get("class_name") == SILENT] or rows[:1]
    for row in found:
        config = _config(row)
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        yield ListedPort(
            name=str(config.get("name", row.get("name", ""))), shape=_shape(shape), dtype=_dtype(config.get("dtype"))
        )


def _shape(value: object) -> Shape | None:
    """Return a shape, or None where the configuration holds something else."""
    if not isinstance(value, list) or not all(size is None or type(size) is int for size in value):
        return None
    return tuple(value)


def _dtype(value: object) -> str:
    """Return the type's name: text, or (Keras 3) a policy's configuration."""
    policy = value.get("config") if isinstance(value, dict) else value
    name = policy.get("name") if isinstance(policy, dict) else policy
    return name if isinstance(name, str) else ""


def _outputs(model: Mapping[str, object]) -> list[str]:
    """Return the names of the layers that give the outputs: ["name", 0, 0], a list of these, or the last layer."""
    histories = _config(model).get("output_layers")
    if isinstance(histories, list):
        entries = [histories] if histories and isinstance(histories[0], str) else histories
        return [str(entry[0]) for entry in entries if isinstance(entry, list) and entry]
    return [str(_config(row).get("name", "")) for row in _rows(model)[-1:]]
