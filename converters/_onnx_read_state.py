"""What is known so far of an ONNX file that is being read: its values, and the Graph under construction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.builder import GraphBuilder, no_values
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array
from edgecnn.quantization.parameters import Quantization

from ._onnx_read_sizes import LARGEST
from ._onnx_read_stored import Stored, carried
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
        quantized: Tensor of integers -> what they stand for.
        stored: Float tensor that stands for a constant of integers -> that constant.
        numbers: Computed tensor of integers -> the float tensor of what they stand for, in the file's order.
        widened: Float tensor that stands for a constant of integers -> its numbers.
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
    quantized: dict[str, Quantization] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    widened: dict[str, Array] = field(default_factory=dict)
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

    def store(self, stored: Stored, *, is_arranged: bool) -> str:
        """Add a constant of integers, and return the float tensor of what they stand for.

        Args:
            stored: The constant.
            is_arranged: Whether its axes are in the Graph's order: that one has the file's name.
        """
        name = stored.name if is_arranged or stored.data.ndim < 2 else f"{stored.name}/file"
        name = self.free_name(name) if name in self.dtypes else name
        self.narrow[name], self.quantized[name] = stored.data, stored.quantization
        self.constant(name, np.broadcast_to(np.float32(0), stored.data.shape))
        number = name
        if not stored.is_direct:
            number = self.free_name(f"{name}/dequantized")
            self.add(number, ops.Dequantize(), (name,), (number,))
        self.stored[number] = stored
        return number

    def number(self, tensor: str) -> Array:
        """Return the numbers that the integers of a constant stand for."""
        if tensor not in self.widened:
            stored = self.stored[tensor]
            self.spend(stored.data.size)
            with np.errstate(over="ignore"):  # of scales that only a hostile file has
                self.widened[tensor] = stored.quantization.dequantize(stored.data)
        return self.widened[tensor]

    def add(self, name: str, op: ops.Op, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
        """Add a node and return its outputs.

        Raises:
            UnsupportedError: When it computes with integers that stand for other numbers.
        """
        op, quantization = carried(op, [self.quantized.get(each) for each in inputs])
        if quantization is not None:
            self.quantized.update(dict.fromkeys(outputs, quantization))
        dtype = op.output_dtype([self.dtypes[each] for each in inputs])
        self.dtypes.update(dict.fromkeys(outputs, dtype))
        return self.builder.nodes(name, op, inputs, outputs)
