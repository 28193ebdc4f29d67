"""Read an OpenVINO model into a Graph: layers in topological order from its results back, constants out of the .bin.

The file is untrusted: every offset, id and shape is checked before it is used, and what a layer's row infers must be
what the file states.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.contract import CONTRACT_KEY, parse_contract
from edgecnn.errors import GraphError, InputFileError, ShapeError, UnsupportedError
from edgecnn.graph import Array, Graph, Port
from edgecnn.passes import implicit_quantization
from edgecnn.passes.explicit_quantization import explicit_constants
from edgecnn.passes.settle_layout import settle_layout
from edgecnn.shapes import Shape, show_shape

from . import _openvino_read_elementwise as elementwise
from . import _openvino_read_integers as integers
from . import _openvino_read_layers as layers
from . import _openvino_read_moving as moving
from . import _openvino_read_windows as windows
from ._computed_dtype import computed_dtype
from ._openvino_listing import DTYPES
from ._openvino_read_call import UNUSED, Call, Known, Reading, Row
from ._openvino_read_xml import IrLayer, IrModel, read_model

OLDEST, NEWEST = 10, 11
"""Versions of the IR that are read. Source: OpenVINO documentation, Intermediate Representation."""

STORED = {
    **{"f32": "<f4", "f16": "<f2", "f64": "<f8", "bf16": "<u2", "boolean": "|u1"},
    **{"i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "|i1", "u8": "|u1"},
}
"""Element type of a constant -> how it is stored."""

SHARING = 16
SHARING_FREE = 256 << 20
"""Constants may be this many times the .bin together, and that only counts beyond so many bytes: views cost nothing,
but a type that must be widened costs what it states."""

FED = ("float32", "float16", "float64", "bfloat16", "bool", "int64", "int32", "int16", "int8", "uint8")
"""Types that inputs may have."""

ROWS: dict[str, Row] = {**windows.ROWS, **layers.ROWS, **elementwise.ROWS, **moving.ROWS, **integers.ROWS}
"""Layer type -> how it is read; every other type becomes an Opaque node."""


def read(path: Path) -> Graph:
    """Read a model. See interfaces.Reader."""
    model = read_model(path)
    if not model.version.isdecimal() or not OLDEST <= int(model.version) <= NEWEST:
        raise UnsupportedError(
            f"{path}: an IR of version {OLDEST} or {NEWEST} was wanted; got {model.version[:20] or 'none'}. "
            "Convert the original model again with a newer OpenVINO."
        )
    reading = Reading(where=str(path), layers=model.layers)
    _connect(reading, model)
    _constants(reading, path.with_suffix(".bin"))
    inputs = _parameters(reading)
    try:
        for layer in _in_order(reading):
            _read_layer(reading, layer)
        graph = _finish(reading, model, inputs)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from None
    except ShapeError as error:
        raise InputFileError(f"{path}: {error}") from None
    text = model.info.get(CONTRACT_KEY)
    contract = None if text is None else parse_contract(text, str(path))
    settled = settle_layout(replace(graph, contract=contract), "NCHW")
    return implicit_quantization.PASS(explicit_constants(settled)).graph if settled.is_quantized else settled


def _connect(reading: Reading, model: IrModel) -> None:
    """Resolve the edges: what each layer reads, and who reads each output."""
    for layer in model.layers.values():
        reading.sources[layer.number] = model.sources(layer)
    for (number, port), (source, output) in model.edges.items():
        known = model.layers.get(source)
        reader = model.layers.get(number)
        if known is None or output not in known.outputs or reader is None or port not in reader.inputs:
            raise InputFileError(
                f"{reading.where}: an edge between ports that are there was wanted; "
                f"got port {output} of layer {source} to port {port} of layer {number}"
            )
        reading.users.setdefault((source, output), []).append(number)


def _constants(reading: Reading, path: Path) -> None:
    """Bind every Const, a view of the .bin, and what only stores or arranges one, in the file's order."""
    consts = [layer for layer in reading.layers.values() if layer.kind == "Const"]
    content = _content(path) if consts else np.zeros(0, np.uint8)
    left = SHARING * content.size + SHARING_FREE
    for layer in (*consts, *(each for each in reading.layers.values() if each.kind in FOLDED)):
        found = _constant(reading, layer, content)
        if found is None:
            continue
        reading.values[layer.number, _only_output(reading, layer)] = found
        left -= found.data.nbytes
        if left < 0:
            raise InputFileError(
                f"{path}: constants that share few bytes were wanted; these are {SHARING} times the file"
            )


def _constant(reading: Reading, layer: IrLayer, content: Array) -> Known | None:
    """Return what a Const holds, or a layer over a constant makes of it where that is known."""
    if layer.kind == "Const":
        data = _values(reading, layer, content)
        return Known(layer.name or "constant", data, computed_dtype(str(data.dtype)))
    sources = reading.sources[layer.number]
    known = reading.values.get(sources[0]) if sources else None
    return FOLDED[layer.kind](Call(reading, layer, layer.name), known) if isinstance(known, Known) else None


def _converted(call: Call, known: Known) -> Known | None:
    """Return a constant in another type; float16 that is widened stays stored as it is."""
    wanted = elementwise.ELEMENTS.get(call.text("destination_type", ""))
    if wanted is None:
        return None
    dtype = computed_dtype(wanted)
    is_wider = dtype == "float32" and (known.data.dtype == np.float16 or str(known.data.dtype) in integers.STORED)
    return known._replace(data=known.data if is_wider else known.value().astype(dtype), dtype=dtype)


def _reshaped(call: Call, known: Known) -> Known | None:
    shape = call.output_shape()
    if None in shape or prod(map(ops.known, shape)) != known.data.size:
        return None
    return known.arranged(lambda data: data.reshape(tuple(map(ops.known, shape))))


def _transposed(call: Call, known: Known) -> Known | None:
    order = call.integers(1)
    if order is None or sorted(order) != list(range(known.data.ndim)):
        return None
    return known.arranged(lambda data: data.transpose(order))


FOLDED: dict[str, Callable[[Call, Known], Known | None]] = {
    "Convert": _converted,
    "Transpose": _transposed,
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _reshaped),
    **integers.FOLDED,
}
"""Layer type -> what it makes of a constant: weights, which the rows of convolutions must know."""


def _content(path: Path) -> Array:
    try:
        is_empty = path.stat().st_size == 0
        return np.zeros(0, np.uint8) if is_empty else np.memmap(path, np.uint8, mode="r").view(np.ndarray)
    except OSError as error:
        raise InputFileError(f"{path}: the constants of the model were wanted beside it; {error.strerror}") from None


def _values(reading: Reading, layer: IrLayer, content: Array) -> Array:
    """Return a constant: a view of the file; bfloat16 is widened to float32."""
    call = Call(reading, layer, layer.name)
    element = call.text("element_type", "")
    shape, offset, size = call.numbers("shape", ()), call.integer("offset", -1), call.integer("size", -1)
    if element not in STORED:
        raise UnsupportedError(f"{call.where}: one of {', '.join(STORED)} was wanted; got {element[:40]!r}")
    item = np.dtype(STORED[element]).itemsize
    if min(shape, default=0) < 0 or len(shape) > 32 or size != prod(shape) * item:
        raise InputFileError(f"{call.where}: {size} bytes do not hold {show_shape(shape)} of {element}")
    if offset < 0 or offset + size > content.size:
        raise InputFileError(
            f"{call.where}: bytes {offset} to {offset + size} were wanted; the .bin has {content.size}"
        )
    data = content[offset : offset + size].view(STORED[element]).reshape(shape)
    if element == "boolean":
        return data.astype(np.bool_)
    return (data.astype(np.uint32) << 16).view(np.float32) if element == "bf16" else data


def _only_output(reading: Reading, layer: IrLayer) -> int:
    if len(layer.outputs) != 1:
        raise InputFileError(
            f"{reading.where}: {layer.kind} '{layer.name}': one output was wanted; got {len(layer.outputs)}"
        )
    return next(iter(layer.outputs))


def _parameters(reading: Reading) -> list[Port]:
    ports = []
    for layer in [each for each in reading.layers.values() if each.kind == "Parameter"]:
        number = _only_output(reading, layer)
        port = layer.outputs[number]
        name = reading.free(port.name or layer.name)
        call = Call(reading, layer, name)
        dtype = DTYPES.get(port.precision, "")
        if dtype not in FED:
            raise UnsupportedError(f"{call.where}: one of {', '.join(FED)} was wanted; got {port.precision[:20]!r}")
        tensor = integers.integer_input(call, name, number, dtype)
        if tensor is None:
            tensor = reading.builder.input(name, call.output_shape(), dtype=computed_dtype(dtype))
        reading.values[layer.number, number] = tensor
        ports.append(Port(name=name, tensor=tensor))
    if not ports:
        raise InputFileError(f"{reading.where}: a model with a Parameter was wanted; it has none")
    return ports


def _in_order(reading: Reading) -> Iterator[IrLayer]:
    """Yield the layers that the results depend on, sources first, without those that are bound already."""
    results = [layer.number for layer in reading.layers.values() if layer.kind == "Result"]
    done, open_ = {number for number, _ in reading.values}, set[int]()
    waiting = [(number, False) for number in reversed(results)]
    while waiting:
        number, is_left = waiting.pop()
        if is_left:
            open_.discard(number)
            done.add(number)
            yield reading.layers[number]
            continue
        if number in done:
            continue
        if number in open_:
            raise InputFileError(f"{reading.where}: layer '{reading.layers[number].name}' depends on itself")
        open_.add(number)
        waiting.append((number, True))
        waiting += [(source, False) for source in reversed(_needed(reading, number)) if source not in done]


def _needed(reading: Reading, number: int) -> list[int]:
    sources = [source for source, _ in reading.sources[number]]
    return sources[:1] if reading.layers[number].kind in moving.SHAPED else sources


def _read_layer(reading: Reading, layer: IrLayer) -> None:
    if layer.kind == "Result":
        return
    is_taken_in = layer.number in reading.absorbed
    call = Call(reading, layer, layer.name if is_taken_in else reading.free(layer.name or layer.kind))
    row = ROWS.get(layer.kind)
    found = row(call) if row is not None else None
    tensors = _opaque(call) if found is None else (found,) if isinstance(found, str) else found
    for position, (port, tensor) in enumerate(zip(call.ports, tensors, strict=False)):
        if tensor == UNUSED:
            continue
        wanted, inferred = call.output_shape(position), reading.builder.shape(tensor)
        if not _agree(wanted, inferred):
            raise InputFileError(
                f"{call.where}: the file states {show_shape(wanted)} where {show_shape(inferred)} follows"
            )
        reading.values[layer.number, port] = tensor


def _agree(stated: Shape, inferred: Shape) -> bool:
    """Tell whether both shapes may be the same; an open batch may turn out to be any number."""
    pairs = zip(stated, inferred, strict=False)
    return len(stated) == len(inferred) and all(a == b or None in (a, b) for a, b in pairs)


def _opaque(call: Call) -> tuple[str, ...]:
    shapes = tuple(call.output_shape(position) for position in range(len(call.layer.outputs)))
    if not len(call) or not shapes:
        raise UnsupportedError(f"{call.where}: a layer with inputs and outputs was wanted; this one is not read")
    names = [call.name, *(call.reading.free(f"{call.name}/{number}") for number in range(1, len(shapes)))]
    inputs = [call.tensor(position) for position in range(len(call))]
    return call.reading.builder.nodes(call.name, ops.Opaque(kind=call.layer.kind, shapes=shapes), inputs, names)


def _finish(reading: Reading, model: IrModel, inputs: list[Port]) -> Graph:
    """Return the Graph with its ports, constants stored as the file stores them."""
    outputs = _outputs(reading, model)
    graph = reading.builder.finish(outputs)
    tensors = dict(graph.tensors)
    for name, data in reading.stored.items():
        tensors[name] = replace(tensors[name], data=data)
    for name, found in reading.quantizations.items():
        tensors[name] = replace(tensors[name], quantization=found)
    return replace(graph, name=model.name, tensors=tensors, inputs=tuple(inputs))


def _outputs(reading: Reading, model: IrModel) -> Mapping[str, str]:
    found: dict[str, Any] = {}
    for layer in [each for each in model.layers.values() if each.kind == "Result"]:
        for number, port in reading.sources[layer.number][:1]:
            source = model.layers[number]
            name = source.outputs[port].name or source.name
            if name in found:
                raise InputFileError(f"{reading.where}: outputs of different names were wanted; two are named '{name}'")
            if (number, port) not in reading.values:
                raise InputFileError(f"{reading.where}: {source.kind} '{source.name}' has no output for port {port}")
            found[name] = reading.tensor(reading.values[number, port])
    if not found:
        raise InputFileError(f"{reading.where}: a model with a Result was wanted; it has none")
    return found
