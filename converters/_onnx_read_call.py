"""One operator of an ONNX file while it is read: its values, its attributes, and the Graph nodes that it becomes.

A value is known (an array: constants, and what follows from constants and shapes) or computed (the name of a tensor of
the Graph, in the file's order of axes). Operators that the Graph has channels-last stand between Transposes: their own
tensor carries the file's name, '<name>/nchw' the file's order, and its twin is remembered, so that a chain of them
meets no Transpose at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array
from edgecnn.passes.axis_order import channels_first, inverse
from edgecnn.shapes import Shape

from ._onnx_read_model import OnnxNode
from ._onnx_read_sizes import Batch, as_sizes
from ._onnx_read_state import Reading, Value
from ._onnx_read_stored import rearranged


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One operator and where it stands; rows of the operator tables read it."""

    reading: Reading
    node: OnnxNode
    title: str
    version: int | None = None

    @property
    def opset(self) -> int:
        """Version of the default domain, or of what the operator holds."""
        return self.version or self.reading.opset

    @property
    def output(self) -> str:
        """Name of the first output."""
        return self.node.outputs[0]

    def has(self, position: int) -> bool:
        """Tell whether an input is given."""
        return position < len(self.node.inputs) and bool(self.node.inputs[position])

    def gives(self, position: int) -> bool:
        """Tell whether something takes an output."""
        return position < len(self.node.outputs) and self.node.outputs[position] in self.reading.used

    def value(self, position: int) -> Value:
        """Return an input, known or computed."""
        if not self.has(position):
            raise InputFileError(f"an input number {position + 1} was wanted; it is left out")
        return self.reading.values[self.node.inputs[position]]

    def known(self, position: int) -> Array | None:
        """Return an input's array, or None where it is left out or computed."""
        value = self.value(position) if self.has(position) else None
        is_known = not isinstance(value, str) or value in self.reading.stored
        return self.constant(position, "numbers") if value is not None and is_known else None

    def constant(self, position: int, what: str) -> Array:
        """Return an input that must be known.

        Raises:
            UnsupportedError: When it is computed.
        """
        value = self.value(position)
        if isinstance(value, str) and value in self.reading.stored:
            return self.reading.number(value)
        if isinstance(value, str):
            raise UnsupportedError(f"constant {what} was wanted; '{self.node.inputs[position]}' is computed")
        if value.dtype == object:
            raise UnsupportedError(f"{what} in numbers was wanted; '{self.node.inputs[position]}' holds the batch")
        return value

    def sizes(self, position: int, what: str) -> tuple[int | Batch, ...]:
        """Return an input that must be known as sizes, the symbolic batch among them."""
        value = self.value(position)
        if not isinstance(value, str) and value.dtype == object:
            return as_sizes(value)
        return as_sizes(self.constant(position, what))

    def integers(self, position: int, what: str) -> tuple[int, ...]:
        """Return an input that must be known as integers."""
        found = self.sizes(position, what)
        if any(isinstance(each, Batch) for each in found):
            raise UnsupportedError(f"{what} in numbers was wanted; it depends on the symbolic batch")
        return tuple(each for each in found if isinstance(each, int))

    def tensor(self, position: int) -> str:
        """Return an input as a tensor of the Graph, in the file's order; what is known becomes a constant."""
        value = self.value(position)
        return value if isinstance(value, str) else self.arranged(position, "", lambda data: data)

    def arranged(self, position: int, arrangement: str, arrange: Callable[[Array], Array]) -> str:
        """Return a known input as a constant in another arrangement, made once however often it is used.

        Integers stay integers where the arrangement only orders them.
        """
        name = self.node.inputs[position]
        key, value = (name, arrangement), self.value(position)
        if key not in self.reading.arranged:
            stored = self.reading.stored.get(value) if isinstance(value, str) else None
            moved = None if stored is None else rearranged(stored, arrange)
            if moved is not None:
                self.reading.spend(moved.data.size)
                return self.reading.arranged.setdefault(key, self.reading.store(moved, is_arranged=True))
            constant = self.constant(position, "values")
            data = arrange(constant)
            self.reading.spend(0 if data is constant else data.size)
            free = self.reading.free_name(name) if name in self.reading.dtypes else name
            self.reading.arranged[key] = self.reading.constant(free, data)
        return self.reading.arranged[key]

    def made(self, suffix: str, values: Any, dtype: str = "float32") -> str:
        """Add a constant that the file does not have, such as the 1 of a reciprocal."""
        data = np.asarray(values, dtype=dtype)
        self.reading.spend(data.size)
        return self.reading.constant(self.reading.free_name(f"{self.output}/{suffix}"), data)

    def shape_of(self, tensor: str) -> Shape:
        """Return the shape of a tensor of the Graph."""
        return self.reading.builder.shape(tensor)

    def shape(self, position: int = 0) -> Shape:
        """Return an input's shape in the file's order."""
        value = self.value(position)
        return self.shape_of(value) if isinstance(value, str) else value.shape

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front."""
        if not -rank <= axis < rank:
            raise InputFileError(f"an axis in {-rank}..{rank - 1} was wanted; found {axis}")
        return axis % rank

    def emit(self, op: ops.Op, *inputs: str, suffix: str = "") -> str:
        """Add a node: the one that gives the file's value, or with a suffix one of the steps before it."""
        if suffix:
            name = self.reading.free_name(f"{self.output}/{suffix}")
            return self.reading.add(name, op, inputs, (name,))[0]
        return self.reading.add(self.title, op, inputs, (self.output,))[0]

    def dtype_of(self, tensor: str) -> str:
        """Return the type that a tensor of the Graph computes in."""
        return self.reading.dtypes[tensor]

    def image(self, position: int = 0) -> str:
        """Return an input channels-last: the twin of its tensor, or behind a Transpose."""
        return self.last(self.tensor(position))

    def last(self, tensor: str) -> str:
        """Return a tensor in the file's order channels-last."""
        rank = len(self.shape_of(tensor))
        if rank < 3:
            return tensor
        twins = self.reading.twins
        if tensor not in twins:
            name = self.reading.free_name(f"{tensor}/nhwc")
            op = ops.Transpose(permutation=inverse(channels_first(rank)))
            (twins[tensor],) = self.reading.add(name, op, (tensor,), (name,))
        return twins[tensor]

    def first(self, tensor: str) -> str:
        """Return a channels-last tensor in the file's order."""
        rank = len(self.shape_of(tensor))
        if rank < 3:
            return tensor
        name = self.reading.free_name(f"{tensor}/nchw")
        op = ops.Transpose(permutation=channels_first(rank))
        (turned,) = self.reading.add(name, op, (tensor,), (name,))
        self.reading.twins[turned] = tensor
        return turned

    def layer(self, op: ops.Op, *inputs: str) -> str:
        """Add the operator that gives the file's value channels-last, and return it in the file's order."""
        return self.first(self.emit(op, *inputs))

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is an integer."""
        found = self.node.attributes.get(name, default)
        if not isinstance(found, int):
            raise InputFileError(f"attribute {name}: an integer was wanted; found {type(found).__name__}")
        return found

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a number."""
        found = self.node.attributes.get(name, default)
        if not isinstance(found, int | float):
            raise InputFileError(f"attribute {name}: a number was wanted; found {type(found).__name__}")
        return float(found)

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is text."""
        found = self.node.attributes.get(name, default)
        if not isinstance(found, str):
            raise InputFileError(f"attribute {name}: text was wanted; found {type(found).__name__}")
        return found

    def several(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an attribute that is a list of integers, as many as the default has where that has any."""
        found = self.node.attributes.get(name, tuple(default))
        if not isinstance(found, tuple) or not all(isinstance(each, int) for each in found):
            raise InputFileError(f"attribute {name}: integers were wanted; found {type(found).__name__}")
        if default and len(found) != len(default):
            raise InputFileError(f"attribute {name}: {len(default)} integers were wanted; found {len(found)}")
        return found

    def axes(self, position: int, rank: int, *, attribute_until: int) -> tuple[int, ...] | None:
        """Return the operator's axes, an attribute up to one opset and an input later; None where there are none."""
        if self.opset <= attribute_until:
            found = self.several("axes", ()) if "axes" in self.node.attributes else None
        else:
            found = self.integers(position, "axes") if self.has(position) else None
        return None if found is None else tuple(sorted({self.axis(axis, rank) for axis in found}))


def require(holds: bool, wanted: str, found: object) -> None:
    """Refuse what an operator asks for and the Graph cannot carry."""
    if not holds:
        raise UnsupportedError(f"{wanted} was wanted; found {found}")


Row = Callable[[Call], "Value | tuple[Value, ...]"]
"""What reads one operator: it returns the operator's outputs, as many as it gives."""
