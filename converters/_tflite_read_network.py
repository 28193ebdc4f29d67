"""The Graph under reading: which of a file's tensors are computed, which are constants, and which are known integers.

Shapes that a file computes while it runs (SHAPE, STRIDED_SLICE, PACK, RESHAPE) are computed here at once: a node whose
operands are all small integer constants is evaluated instead of added. A symbolic batch runs through that arithmetic as
BATCH, which may be moved but not calculated with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from edgecnn import ops
from edgecnn.builder import GraphBuilder, no_values
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array, Graph, Node, infer_shapes
from edgecnn.kernels import evaluate_all
from edgecnn.quantization.axes import turned_scales
from edgecnn.quantization.parameters import Quantization
from edgecnn.shapes import Shape

from ._tflite_read_file import MOST_ELEMENTS, NUMPY, FileRecord
from ._tflite_read_quantization import check_agreement
from ._unique_names import unique

BATCH = 977 - (1 << 31)
"""Stands for the symbolic batch among known integers; a size or a position never has this value."""

MOST_KNOWN = 1 << 14
"""Elements up to which integers are computed at once: shapes and positions, not pictures."""

MOST_MADE = 1 << 24
"""Elements of all constants that the file states by a few numbers: what they take in memory once they are written."""

MOVING = (ops.Slice, ops.Concat, ops.Reshape, ops.Gather, ops.Split, ops.Transpose, ops.Tile)
"""What may be done with BATCH."""

COMPUTED_AT_ONCE = (
    *MOVING,
    *(ops.Add, ops.Sub, ops.Mul, ops.Div, ops.Maximum, ops.Minimum, ops.Abs, ops.Neg, ops.Cast),
    *(ops.Sum, ops.Prod, ops.Max, ops.Min, ops.Where, ops.And, ops.Or, ops.Not),
    *(ops.Equal, ops.Greater, ops.GreaterOrEqual, ops.Less, ops.LessOrEqual),
)
"""What is evaluated where all operands are known integers."""

HINT = "Fix the batch: --input-shape NAME:1,..."


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Constant:
    """A constant that no node has taken yet.

    Attributes:
        name: What its tensor will be called, if that is free.
        data: As stored.
        dtype: The type that the arithmetic sees.
        quantization: Of integers that stand for numbers.
        stored_name: What the tensor of the integers will be called where a Dequantize node gives the numbers; empty
            where the constant is taken as it is.
    """

    name: str
    data: Array
    dtype: str
    quantization: Quantization | None = None
    stored_name: str = ""

    def numbers(self) -> Array:
        """Return what the stored integers stand for."""
        return self.data if self.quantization is None else self.quantization.dequantize(self.data)


Value = str | Constant
"""A tensor of the Graph, or a constant that is not in it yet."""


class Network:
    """Collects the Graph; `values` knows what each of the file's tensors is."""

    def __init__(self, file: FileRecord) -> None:
        self.file = file
        self.builder = GraphBuilder(file.path.stem, initialise=no_values)
        self.values: dict[int, Value] = {}
        self.batch: int | None = 1
        self._left = MOST_MADE
        self._names: dict[int, str] = {}
        self._dtypes: dict[str, str] = {}
        self._placed: dict[Constant, str] = {}
        self._shared: dict[tuple[object, ...], Constant] = {}
        self._turned: dict[tuple[Constant, tuple[int, ...]], Constant] = {}
        self._bounds: dict[Constant, tuple[int, int]] = {}
        self._stored: dict[str, Array] = {}
        self._taken: dict[str, int] = {}
        self._given: dict[str, Quantization] = {}
        self._quantizations: dict[str, Quantization] = {}
        for number, tensor in enumerate(file.tensors):
            name = self._names[number] = self.inner_name(tensor.name or f"tensor_{number}")
            if tensor.quantization is not None:
                self._given[name] = tensor.quantization

    def name(self, number: int) -> str:
        """Return the name of a tensor of the file, unique there."""
        return self._names[number]

    def inner_name(self, name: str) -> str:
        """Return a name that nothing in the Graph and no tensor of the file has, and keep it."""
        return unique(name, self._taken)

    def spend(self, elements: int) -> None:
        """Note that a constant of so many elements is made that the file does not hold.

        Raises:
            UnsupportedError: When all of them together are more than any network needs.
        """
        self._left -= elements
        if self._left < 0:
            raise UnsupportedError(
                f"{self.file.path}: at most {MOST_MADE} elements of constants that it does not hold were wanted; got "
                "more. Compute them before the file is written."
            )

    def input(self, number: int, shape: Shape) -> None:
        """Add an input."""
        name, dtype = self._names[number], self.stated_dtype(number)
        self.builder.input(name, shape, dtype=dtype)
        self._dtypes[name], self.values[number] = dtype, name
        self.keep(name, self._given.get(name))

    def value(self, number: int) -> Value:
        """Return what a tensor of the file is, a constant of the file included."""
        if number in self.values:
            return self.values[number]
        tensor, name = self.file.tensors[number], self._names[number]
        if tensor.data is None:
            raise InputFileError(f"{self.file.path}: tensor '{name}' is used before an operator gives it")
        place = (tensor.data.__array_interface__["data"][0], tensor.shape, tensor.kind, tensor.quantization)
        dtype = str(tensor.data.dtype) if tensor.quantization is None else "float32"
        found = Constant(name=name, data=tensor.data, dtype=dtype, quantization=tensor.quantization)
        self.values[number] = self._shared.setdefault(place, found)
        return self.values[number]

    def turned(self, value: Constant, permutation: tuple[int, ...]) -> Constant:
        """Return a constant with its axes in another order, one view for all that take it."""
        scales = turned_scales(value.quantization, permutation)
        found = replace(value, data=value.data.transpose(permutation), quantization=scales)
        return self._turned.setdefault((value, permutation), found)

    def bounds(self, value: Constant) -> tuple[int, int]:
        """Return the smallest and largest of a constant's integers; (0, 0) of none."""
        if value not in self._bounds:
            self._bounds[value] = (int(value.data.min()), int(value.data.max())) if value.data.size else (0, 0)
        return self._bounds[value]

    def shape(self, value: Value) -> Shape:
        """Return a shape."""
        return value.data.shape if isinstance(value, Constant) else self.builder.shape(value)

    def dtype(self, value: Value) -> str:
        """Return the type that the arithmetic sees."""
        return value.dtype if isinstance(value, Constant) else self._dtypes[value]

    def stated_dtype(self, number: int) -> str:
        """Return the type that the arithmetic sees in what the file states for a tensor."""
        kind = self.file.tensors[number].kind
        if self.file.tensors[number].quantization is not None:
            return "float32"
        if kind not in NUMPY:
            raise UnsupportedError(f"{self.file.path}: tensor '{self._names[number]}' holds {kind.lower()}, no numbers")
        return NUMPY[kind]

    def nodes(self, name: str, op: ops.Op, inputs: Sequence[Value], outputs: Sequence[str]) -> tuple[Value, ...]:
        """Add a node, or compute it at once where all its operands are known integers."""
        known = [value for value in inputs if isinstance(value, Constant) and is_known(value)]
        if isinstance(op, COMPUTED_AT_ONCE) and len(known) == len(inputs):
            return self._evaluated(name, op, known, outputs)
        operands = [self.placed(value) for value in inputs]
        found = self.builder.nodes(name, op, operands, outputs)
        if max(ops.elements(self.builder.shape(each)) for each in found) > MOST_ELEMENTS:
            raise UnsupportedError(
                f"{self.file.path}: '{name}': at most {MOST_ELEMENTS} elements were wanted; got more"
            )
        dtype = op.output_dtype([self._dtypes[each] for each in operands])
        self._dtypes.update(dict.fromkeys(found, dtype))
        moved = self._quantizations.get(operands[0]) if isinstance(op, (*MOVING, ops.Identity)) else None
        for each in found:
            self.keep(each, self._given.get(each, moved))
        return found

    def given(self, number: int) -> Quantization | None:
        """Return the quantization that the file states for a tensor."""
        return self.file.tensors[number].quantization

    def quantization(self, value: Value) -> Quantization | None:
        """Return what the integers of a value stand for, or None where operators take it as numbers."""
        if isinstance(value, Constant):
            return None if value.stored_name else value.quantization
        return self._quantizations.get(value)

    def keep(self, name: str, found: Quantization | None) -> None:
        """Note a tensor's quantization; an Opaque's output may be something else than the file states."""
        if found is not None and self._dtypes[name] == "float32":
            self._quantizations[name] = found

    def placed(self, value: Value) -> str:
        """Return the tensor of a value; a constant enters the Graph here."""
        if isinstance(value, str):
            return value
        if value in self._placed:
            return self._placed[value]
        if value.stored_name:
            stored = self.placed(replace(value, name=value.stored_name, stored_name=""))
            name = self.inner_name(value.name) if value.name in self._dtypes else value.name
            self.nodes(name, ops.Dequantize(), (stored,), (name,))
            self._placed[value] = name
            return name
        if holds_batch(value):
            raise UnsupportedError(
                f"{self.file.path}: '{value.name}' depends on the batch, which the file leaves open. {HINT}"
            )
        name = self.inner_name(value.name) if value.name in self._dtypes else value.name
        is_narrow = value.dtype != str(value.data.dtype)
        if is_narrow:
            self._stored[name] = value.data
        self.builder.constant(
            name, np.broadcast_to(np.zeros((), value.dtype), value.data.shape) if is_narrow else value.data
        )
        self._dtypes[name], self._placed[value] = value.dtype, name
        self.keep(name, value.quantization)
        return name

    def finish(self) -> Graph:
        """Return the Graph with the ports that the file names."""
        outputs = {port: self.placed(self.value(number)) for port, number in self.file.outputs}
        graph = self.builder.finish(outputs)
        tensors = {
            name: replace(tensor, data=self._stored.get(name, tensor.data), quantization=self._quantizations.get(name))
            for name, tensor in graph.tensors.items()
        }
        ports = tuple(replace(port, name=name) for port, (name, _) in zip(graph.inputs, self.file.inputs, strict=True))
        graph = replace(graph, inputs=ports, tensors=tensors)
        check_agreement(self.file.path, graph)
        return graph

    def _evaluated(
        self, name: str, op: ops.Op, known: Sequence[Constant], outputs: Sequence[str]
    ) -> tuple[Constant, ...]:
        """Return the outputs of a node on known integers."""
        node = Node(name=name, op=op, inputs=tuple(value.name for value in known), outputs=tuple(outputs))
        shapes = infer_shapes(node, tuple(value.data.shape for value in known))
        if sum(prod(size or 0 for size in shape) for shape in shapes) > MOST_KNOWN:
            raise UnsupportedError(f"{self.file.path}: '{name}': at most {MOST_KNOWN} known integers were wanted")
        keeps = isinstance(op, MOVING) or (isinstance(op, ops.Cast) and op.dtype in ("int32", "int64"))
        if not keeps and any(map(holds_batch, known)):
            raise UnsupportedError(
                f"{self.file.path}: '{name}' calculates with the batch, which the file leaves open. {HINT}"
            )
        dtype = op.output_dtype([value.dtype for value in known])
        with np.errstate(all="ignore"):
            found = evaluate_all(op, [value.data for value in known])
            return tuple(
                Constant(name=output, data=np.asarray(values).astype(dtype), dtype=dtype)
                for output, values in zip(outputs, found, strict=True)
            )


def is_known(value: Value) -> bool:
    """Tell whether a value is a small constant of integers or booleans that stand for themselves."""
    is_whole = isinstance(value, Constant) and value.quantization is None
    return isinstance(value, Constant) and is_whole and value.data.dtype.kind in "iub" and value.data.size <= MOST_KNOWN


def holds_batch(value: Constant) -> bool:
    """Tell whether a symbolic batch is among known integers."""
    return value.data.dtype in (np.int32, np.int64) and is_known(value) and bool((value.data == BATCH).any())
