"""Read a .tflite file into a Graph: every operator through its row, in the file's own order of execution."""

from collections.abc import Mapping
from pathlib import Path

from edgecnn.errors import GraphError, InputFileError, ShapeError, UnsupportedError, UsageError
from edgecnn.graph import Graph
from edgecnn.shapes import Shape, show_shape

from . import _tflite_read_custom as custom
from . import _tflite_read_elementwise as elementwise
from . import _tflite_read_layers as layers
from . import _tflite_read_moving as moving
from . import _tflite_read_scales as scales
from . import _tflite_read_slicing as slicing
from . import _tflite_read_windows as windows
from ._tflite_read_call import Call, Row
from ._tflite_read_dilated import with_dilation
from ._tflite_read_file import FileRecord, OperatorRecord, read_file
from ._tflite_read_network import Network

ROWS: dict[str, Row] = {
    **windows.ROWS,
    **layers.ROWS,
    **elementwise.ROWS,
    **moving.ROWS,
    **slicing.ROWS,
    **scales.ROWS,
    **windows.CUSTOM,
    **custom.CUSTOM,
}
"""Operator, or name of a custom one -> its row; what is not here becomes an Opaque."""

InputShapes = Mapping[str, tuple[int | None, ...]]


def read_graph(path: Path, input_shapes: InputShapes | None = None) -> Graph:
    """Return the main subgraph of a file, layout not settled yet.

    Where the batch is open and the file does with it what a symbolic one cannot do, it is 1.

    Args:
        path: The file.
        input_shapes: Port -> shape instead of the file's.

    Raises:
        InputFileError: When the file is damaged.
        UnsupportedError: When it holds something that is not read, named.
        UsageError: When input_shapes names no input, or an impossible shape.
    """
    file = with_dilation(read_file(path))
    given = dict(input_shapes or {})
    try:
        return _graph(file, given)
    except (InputFileError, UnsupportedError):
        ones = _with_one_image(file, given)
        if ones == given:
            raise
        return _graph(file, ones)


def _with_one_image(file: FileRecord, given: dict[str, Shape]) -> dict[str, Shape]:
    """Return the shapes with a batch of 1 for each input that leaves it, and nothing else, open."""
    signatures = {name: file.tensors[number].signature for name, number in file.inputs}
    is_open = {name: shape[:1] == (-1,) and min(shape[1:], default=1) > 0 for name, shape in signatures.items()}
    return {**{name: (1, *shape[1:]) for name, shape in signatures.items() if is_open[name]}, **given}


def _graph(file: FileRecord, given: dict[str, Shape]) -> Graph:
    """Return the Graph for inputs of these shapes, the file's own for those that are left out."""
    network, path = Network(file), file.path
    unknown = sorted(given.keys() - {name for name, _ in file.inputs})
    if unknown:
        names = ", ".join(name for name, _ in file.inputs)
        raise UsageError(f"{path}: no input is named '{unknown[0]}'; it has {names}")
    for name, number in file.inputs:
        if number in network.values:
            raise UnsupportedError(f"{path}: input '{name}' is listed twice")
        network.input(number, _input_shape(network, name, number, given.get(name)))
    for operator in file.operators:
        _read(network, operator)
    try:
        return network.finish()
    except (ShapeError, GraphError) as error:
        raise InputFileError(f"{path}: {error}") from None


def _input_shape(network: Network, name: str, number: int, given: Shape | None) -> Shape:
    """Return an input's shape: an open size but for the batch must be given."""
    tensor = network.file.tensors[number]
    stated = tuple(None if size < 0 else size for size in tensor.signature)
    if given is None and None in stated[1:]:
        sizes = ",".join("H" if size is None else str(size) for size in tensor.shape[:1] + stated[1:])
        raise UnsupportedError(
            f"{network.file.path}: input '{name}' leaves {show_shape(stated)} open; only the batch may be. "
            f"Give its size: --input-shape {name}:{sizes}"
        )
    shape = stated if given is None else given
    if len(shape) != len(stated) or None in shape[1:] or any(size is not None and size < 1 for size in shape):
        if given is None:
            raise InputFileError(f"{network.file.path}: input '{name}' of positive sizes was wanted; got {shape}")
        raise UsageError(
            f"{network.file.path}: input '{name}' has {len(stated)} positive sizes; got {show_shape(shape)}"
        )
    if number == network.file.inputs[0][1]:
        network.batch = shape[0] if shape else 1
    return shape


def _read(network: Network, operator: OperatorRecord) -> None:
    """Add one operator's nodes."""
    if not operator.outputs:
        raise UnsupportedError(f"{network.file.path}: the operator {operator.kind} has no outputs, which is not read")
    taken = [number for number in operator.outputs if number in network.values]
    if taken or len(set(operator.outputs)) != len(operator.outputs):
        twice = network.name(taken[0] if taken else operator.outputs[0])
        raise InputFileError(f"{network.file.path}: tensor '{twice}' is given twice")
    call = Call(network, operator)
    try:
        found = ROWS.get(operator.kind, custom.opaque)(call)
    except (ShapeError, GraphError) as error:
        raise InputFileError(f"{call.where}: {error}") from None
    values = found if isinstance(found, tuple) else (found,)
    if len(values) != len(operator.outputs):
        raise InputFileError(f"{call.where}: {len(values)} outputs were wanted; got {len(operator.outputs)}")
    network.values.update(zip(operator.outputs, values, strict=True))
