"""Walk the operators of an ONNX file in order and build the Graph that they make."""

from collections import Counter, deque
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgecnn.errors import InputFileError, ShapeError, UnsupportedError, UsageError
from edgecnn.graph import Graph
from edgecnn.ops import Opaque
from edgecnn.shapes import Shape, show_shape

from . import (
    _onnx_read_blocks,
    _onnx_read_dynamic,
    _onnx_read_einsum,
    _onnx_read_elementwise,
    _onnx_read_layers,
    _onnx_read_moving,
    _onnx_read_qlinear,
    _onnx_read_quantized,
    _onnx_read_reductions,
    _onnx_read_resize,
    _onnx_read_windows,
)
from ._computed_dtype import computed_dtype
from ._onnx_read_call import Call, Row
from ._onnx_read_known import fold
from ._onnx_read_model import Branch, OnnxModel, OnnxNode, Value, flat
from ._onnx_read_ports import port_quantizations
from ._onnx_read_state import MOST_TIMES, Reading
from ._onnx_read_state import Value as Read

ROWS: dict[str, Row] = {
    **_onnx_read_windows.ROWS,
    **_onnx_read_layers.ROWS,
    **_onnx_read_elementwise.ROWS,
    **_onnx_read_moving.ROWS,
    **_onnx_read_resize.ROWS,
    **_onnx_read_blocks.ROWS,
    **_onnx_read_einsum.ROWS,
    **_onnx_read_reductions.ROWS,
    **_onnx_read_quantized.ROWS,
    **_onnx_read_qlinear.ROWS,
    **_onnx_read_dynamic.ROWS,
}
"""Operator, with its domain where that is not ONNX's own -> its row."""

InputShapes = Mapping[str, Shape]


def build_graph(model: OnnxModel, input_shapes: InputShapes, *, batch: int | None) -> Graph:
    """Return the Graph in the file's own order of axes.

    Args:
        model: What was read of the file.
        input_shapes: Shapes that the caller fixes, by input.
        batch: What a batch that the file leaves open becomes; None keeps it symbolic.

    Raises:
        InputFileError: When operators form a cycle, or use and give values that contradict each other.
        UnsupportedError: When an input's size is open.
    """
    model = _onnx_read_dynamic.with_dynamic_range(model)
    nodes = list(flat(model.nodes))
    used = {name for node in nodes for name in node.taken} | {value.name for value in model.outputs}
    reading = Reading(opset=model.opset, used=frozenset(used))
    held = (*model.initializers.values(), *(each for node in nodes for each in node.arrays))
    reading.left += MOST_TIMES * sum(each.size for each in held)
    named = (*model.initializers, *(name for node in nodes for name in (node.name, *node.outputs)))
    reading.names.update(dict.fromkeys(named, 1))
    unknown = sorted(input_shapes.keys() - {value.name for value in model.inputs})
    if unknown:
        known = ", ".join(f"'{value.name}'" for value in model.inputs)
        raise UsageError(f"--input-shape: an input of the file was wanted ({known}); got '{unknown[0]}'")
    reading.values.update(model.initializers)
    reading.quantized.update(port_quantizations(model))
    for value in model.inputs:
        _read_input(reading, value, input_shapes.get(value.name), batch)
    # A node without a name of its own takes its first output's, which no other node may have then.
    titles = Counter(node.name for node in nodes)
    titles.update(name for node in nodes for name in node.outputs if name != node.name)
    _read_nodes(reading, model, model.nodes, titles)
    return _finish(reading, model)


def _read_nodes(reading: Reading, model: OnnxModel, nodes: Iterable[OnnxNode], titles: Mapping[str, int]) -> None:
    """Read operators; of an If whose condition is known, those of the side that is taken."""
    for node in in_order(nodes, reading.values):
        taken = _taken(reading, node)
        if taken is None:
            _read_node(reading, model, node, is_titled=bool(node.name) and titles[node.name] == 1)
            continue
        for name in taken.initializers:
            if name in reading.values:
                raise InputFileError(f"{node.label}: value '{name}' is given twice")
        reading.values.update(taken.initializers)
        _read_nodes(reading, model, taken.nodes, titles)
        if len(taken.outputs) != len(node.outputs):
            raise InputFileError(f"{node.label}: a branch that gives {len(node.outputs)} values was wanted")
        reading.values.update(
            {own: reading.values[name] for own, name in zip(node.outputs, taken.outputs, strict=True)}
        )


def _taken(reading: Reading, node: OnnxNode) -> Branch | None:
    """Return the side that an If takes, or None where that depends on what is fed."""
    if node.op_type != "If" or node.domain or not any(node.inputs[:1]):
        return None
    condition = reading.values[node.inputs[0]]
    if isinstance(condition, str) or condition.dtype == object or condition.size != 1:
        return None
    found = node.attributes.get("then_branch" if condition.ravel()[0] else "else_branch")
    return found if isinstance(found, Branch) else None


def _read_input(reading: Reading, value: Value, fixed: Shape | None, batch: int | None) -> None:
    if not value.dtype:
        raise UnsupportedError(f"input '{value.name}': a tensor of numbers was wanted; found another type")
    shape = _input_shape(value, fixed)
    if shape and shape[0] is None:
        shape = (batch, *shape[1:])
    if value.name in reading.values:
        raise InputFileError(f"two inputs are named '{value.name}'")
    reading.names[value.name] = 1
    # Integers that stand for numbers compute as these; the tensor's quantization says how they are stored.
    dtype = "float32" if value.name in reading.quantized else computed_dtype(value.dtype)
    reading.values[value.name] = reading.builder.input(value.name, shape, dtype=dtype)
    reading.dtypes[value.name] = dtype


def _input_shape(value: Value, fixed: Shape | None) -> Shape:
    """Return an input's shape, of which only the batch may be open."""
    shape = value.shape if fixed is None else fixed
    if shape is None or None in shape[1:]:
        shown = ",".join("?" if size is None else str(size) for size in shape or ())
        raise UnsupportedError(
            f"input '{value.name}': sizes that are known but for the batch were wanted; found {shown or 'none'}. "
            f"Fix them: --input-shape {value.name}:1,3,H,W (in the file's order)."
        )
    stated = shape if value.shape is None else value.shape
    if len(shape) != len(stated) or any(a not in (None, b) for a, b in zip(stated, shape, strict=True)):
        raise UnsupportedError(
            f"input '{value.name}': the file states {show_shape(stated)}; {show_shape(shape)} was asked for"
        )
    return shape


@dataclass(slots=True)
class _Waiting:
    """An operator and how many of its inputs are not ready yet."""

    node: OnnxNode
    missing: int


def in_order(nodes: Iterable[OnnxNode], ready: Container[str]) -> list[OnnxNode]:
    """Return the operators so that inputs come first, in one pass; the file's own order is kept where it does already.

    Raises:
        InputFileError: When a value is given twice, or never (a cycle, or missing).
    """
    # What is ready is asked, not copied: a file may hold as many branches as values around them.
    done, given = set[str](), set[str]()
    for name in (name for node in nodes for name in node.outputs if name):
        if name in given or name in ready:
            raise InputFileError(f"value '{name}' is given twice")
        given.add(name)
    ordered: list[OnnxNode] = []
    waiting: dict[str, list[_Waiting]] = {}
    for node in nodes:
        missing = {name for name in node.taken if name not in done and name not in ready}
        entry = _Waiting(node, len(missing))
        for name in missing:
            waiting.setdefault(name, []).append(entry)
        if not missing:
            _place(node, ordered, done, waiting)
    if waiting:
        name = next(iter(waiting))
        reason = "operators form a cycle" if name in given else "nothing gives it"
        raise InputFileError(f"{waiting[name][0].node.label}: the input '{name}' is never ready: {reason}")
    return ordered


def _place(node: OnnxNode, ordered: list[OnnxNode], done: set[str], waiting: dict[str, list[_Waiting]]) -> None:
    """Take an operator, and those that waited for what it gives."""
    free = deque([node])
    while free:
        node = free.popleft()
        ordered.append(node)
        for name in node.outputs:
            done.add(name)
            for entry in waiting.pop(name, []):
                entry.missing -= 1
                if not entry.missing:
                    free.append(entry.node)


def _read_node(reading: Reading, model: OnnxModel, node: OnnxNode, *, is_titled: bool) -> None:
    if not node.outputs or not any(node.outputs):
        raise InputFileError(f"{node.label}: an operator with an output was wanted; found none")
    first = node.outputs[0] or reading.free_name("unnamed")
    node = replace(node, outputs=(first, *node.outputs[1:]))
    call = Call(reading=reading, node=node, title=node.name if is_titled else first)
    try:
        found = _outputs(call)
        missing = [name for name in node.outputs[len(found) :] if name in reading.used]
        if missing:
            raise UnsupportedError(f"its first {len(found)} outputs only were wanted; '{missing[0]}' is used")
        reading.values.update(zip(node.outputs, found, strict=False))
    except UnsupportedError as error:
        _read_opaque(call, model, f"{node.op_type} ({error})" if str(error) else node.op_type)
    except InputFileError as error:
        raise type(error)(f"{node.label}: {error}") from None
    except ShapeError as error:
        raise InputFileError(f"{node.label}: {error}") from None


def _outputs(call: Call) -> tuple[Read, ...]:
    node = call.node
    row = ROWS.get(f"{node.domain}.{node.op_type}" if node.domain else node.op_type)
    if (node.domain and row is None) or any(_is_unknown(call, name) for name in node.inputs if name):
        raise UnsupportedError("")
    for folding in () if node.domain else (fold, _onnx_read_quantized.ordered):
        folded = folding(call)
        if folded is not None:
            return (folded,)
    if row is None:
        raise UnsupportedError("")
    found = row(call)
    return found if isinstance(found, tuple) else (found,)


def _is_unknown(call: Call, name: str) -> bool:
    value = call.reading.values[name]
    return isinstance(value, str) and value in call.reading.unknown


def _read_opaque(call: Call, model: OnnxModel, kind: str) -> None:
    """List an operator that is not read: its outputs have the shapes that the file states, or are unknown."""
    reading, node = call.reading, call.node
    inputs = [call.tensor(position) for position, name in enumerate(node.inputs) if name]
    if not inputs:
        raise UnsupportedError(f"{node.label}: this operator is not read. Replace it, or cut the model behind it.")
    outputs = [name for name in node.outputs if name]
    shapes = []
    for name in outputs:
        stated = model.stated.get(name)
        shape = None if stated is None else stated.shape
        is_known = shape is not None and None not in shape[1:]
        shapes.append(shape if is_known and shape is not None else ())
        if not is_known:
            reading.unknown.add(name)
    domain = f"{node.domain}." if node.domain else ""
    title = call.title if call.title not in reading.dtypes else reading.free_name(f"{call.title}/opaque")
    reading.add(title, Opaque(kind=f"{domain}{kind}", shapes=tuple(shapes)), inputs, outputs)
    reading.values.update({name: name for name in outputs})


def _finish(reading: Reading, model: OnnxModel) -> Graph:
    ports = {}
    for value in model.outputs:
        if value.name not in reading.values:
            raise InputFileError(f"output '{value.name}' is never given")
        found = reading.values[value.name]
        if not isinstance(found, str):
            if found.dtype == object:
                raise UnsupportedError(f"output '{value.name}': numbers were wanted; it depends on the batch")
            found = reading.constant(reading.free_name(f"{value.name}/value"), np.asarray(found))
        ports[value.name] = found
    graph = without_unused(reading.builder.finish(ports))
    tensors = {
        name: replace(tensor, data=reading.narrow.get(name, tensor.data), quantization=reading.quantized.get(name))
        for name, tensor in graph.tensors.items()
    }
    return replace(graph, name=model.name or "onnx", tensors=tensors)


def without_unused(graph: Graph) -> Graph:
    """Return the Graph without nodes and constants that no output needs."""
    needed = {port.tensor for port in graph.outputs}
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs, node.outputs)
            kept.append(node)
    needed.update(port.tensor for port in graph.inputs)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(kept)), tensors=tensors)
