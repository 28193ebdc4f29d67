"""One operator of an ONNX file while it is read: its values, its attributes, and the Graph nodes that it becomes.

A value is known (an array: constants, and what follows from constants and shapes) or computed (the name of a tensor of
the Graph, in the file's order of axes). Operators that the Graph has channels-last stand between Transposes: their own
tensor carries the file's name, '<name>/nchw' the file's order, and its twin is remembered, so that a chain of them
meets no Transpose at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.builder import GraphBuilder, no_values
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array
from edgecnn.passes.axis_order import channels_first, inverse
from edgecnn.shapes import Shape

from ._onnx_read_model import OnnxNode
from ._onnx_read_sizes import LARGEST, Batch, as_sizes
from ._unique_names import unique

Value = Array | str
"""Known, or the name of a tensor of the Graph."""

MOST_MADE, MOST_TIMES = 4 * LARGEST, 16
"""Elements that may be made of known values in one file: so many, and so many times those that the file holds."""


@dataclass(kw_only=True, slots=True)
class Reading:
    """What is known so far of the Graph under construction.

    Attributes:
        opset: Version of the default domain.
        used: Values that something takes.
        builder: Collects the nodes.
        values: Value of the file -> what it is.
        names: Of the file's values and nodes, and all that were made; none is given twice. See unique.
        twins: Tensor in the file's order -> the same channels-last.
        arranged: (value, arrangement) -> the constant that holds it.
        dtypes: Tensor -> the type that it computes in.
        unknown: Tensors whose shape nothing states.
        narrow: Constant -> its data, stored narrower than it computes.
        left: Elements that may still be computed or made, beside those that the file holds.
        origins: Tensor -> (operator, its input tensors, more) for idioms that span several operators.
    """

    opset: int
    used: frozenset[str] = frozenset()
    builder: GraphBuilder = field(default_factory=lambda: GraphBuilder("onnx", initialise=no_values))
    values: dict[str, Value] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)
    arranged: dict[tuple[str, str], str] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    narrow: dict[str, Array] = field(default_factory=dict)
    origins: dict[str, tuple[str, tuple[Any, ...]]] = field(default_factory=dict)
    left: int = MOST_MADE

    def spend(self, elements: int) -> None:
        """Note that a value of so many elements is made.

        Raises:
            UnsupportedError: When that is more than any network needs.
        """
        self.left -= elements
        if self.left < 0:
            raise UnsupportedError(
                "known values in proportion to the file were wanted; computing them all takes more. Fold them: onnxsim"
            )

    def free_name(self, name: str) -> str:
        """Return a name that starts with `name` and that nothing has, and take it."""
        return unique(name, self.names)

    def constant(self, name: str, data: Array) -> str:
        """Add a constant under exactly this name; float16 is stored as it is and computes in float32."""
        if data.dtype == np.float64:
            data = data.astype(np.float32)
        if data.dtype == np.float16:
            self.narrow[name] = data
            data = np.broadcast_to(np.float32(0), data.shape)
        self.dtypes[name] = str(data.dtype)
        return self.builder.constant(name, data)

    def add(self, name: str, op: ops.Op, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
        """Add a node and return its outputs."""
        dtype = op.output_dtype([self.dtypes[each] for each in inputs])
        self.dtypes.update(dict.fromkeys(outputs, dtype))
        return self.builder.nodes(name, op, inputs, outputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One operator and where it stands; rows of the operator tables read it."""

    reading: Reading
    node: OnnxNode
    title: str

    @property
    def opset(self) -> int:
        """Version of the default domain."""
        return self.reading.opset

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
        return None if value is None or isinstance(value, str) else self.constant(position, "numbers")

    def constant(self, position: int, what: str) -> Array:
        """Return an input that must be known.

        Raises:
            UnsupportedError: When it is computed.
        """
        value = self.value(position)
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
        """Return a known input as a constant in another arrangement, made once however often it is used."""
        constant = self.constant(position, "values")
        name = self.node.inputs[position]
        key = (name, arrangement)
        if key not in self.reading.arranged:
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
