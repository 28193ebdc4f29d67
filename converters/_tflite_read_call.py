"""One operator of a .tflite file as its row sees it: operands, options, and the nodes that it becomes."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array
from edgecnn.ops import known
from edgecnn.shapes import Padding, Shape, broadcast_shapes, same_padding, show_shape

from ._tflite_read_file import MOST_AXES, OperatorRecord
from ._tflite_read_network import BATCH, HINT, MOST_KNOWN, Constant, Network, Value, holds_batch, is_known
from ._tflite_read_quantization import bias_scales

ACTIVATIONS: dict[int, ops.Op | None] = {
    0: None,
    1: ops.ReLU(),
    2: ops.Clip(minimum=-1.0, maximum=1.0),
    3: ops.ReLU6(),
    4: ops.Tanh(),
}
"""ActivationFunctionType -> operator. Source: schema.fbs."""

FUSED = (ops.ReLU, ops.ReLU6)
"""Activations that stay inside a quantized operator, where they clamp its integers."""

SAME = 0
"""Padding of windows, else VALID. Source: schema.fbs, Padding."""


class Call:
    """One operator under reading; its last node takes the name of the output."""

    def __init__(self, network: Network, operator: OperatorRecord) -> None:
        self.network, self.operator = network, operator
        self.name = network.name(operator.outputs[0])
        self._numbers: dict[int, Value] | None = None

    def compute_in_float(self) -> None:
        """Take quantized operands as the numbers that they stand for, and quantize the result of the last node."""
        self._numbers = {}

    def __len__(self) -> int:
        return len(self.operator.inputs)

    def value(self, position: int) -> Value:
        """Return an operand that must be there."""
        if not self.has(position):
            raise InputFileError(f"{self.where}: input {position} was wanted; it has {len(self)}")
        found = self.network.value(self.operator.inputs[position])
        if self._numbers is None or self.network.quantization(found) is None:
            return found
        if position not in self._numbers:
            self._numbers[position] = self.step("numbers", ops.Dequantize(), found)
        return self._numbers[position]

    def values(self) -> list[Value]:
        """Return all operands."""
        return [self.value(position) for position in range(len(self))]

    def has(self, position: int) -> bool:
        """Tell whether an operand is there."""
        return position < len(self) and self.operator.inputs[position] != -1

    def shape(self, position: int) -> Shape:
        """Return the shape of an operand."""
        return self.network.shape(self.value(position))

    def ranked(self, position: int, rank: int) -> Shape:
        """Return the shape of an operand that must have this many axes."""
        shape = self.shape(position)
        if len(shape) != rank:
            raise InputFileError(f"{self.where}: input {position} of {rank} axes was wanted; got {show_shape(shape)}")
        return shape

    def bias(self, position: int, x: Value, kernel: Value) -> tuple[Value, ...]:
        """Return the bias as operands: none, or one, which has a scale where input and kernel have one."""
        if not self.has(position):
            return ()
        value = self.value(position)
        own, given = (self.network.quantization(each) for each in (x, kernel))
        if isinstance(value, Constant) and value.quantization is None and value.dtype in ("int32", "int64"):
            scales = None if own is None or given is None else bias_scales(own, given, value.dtype)
            return (replace(value, dtype="float32", quantization=scales) if scales else value,)
        return (value,)

    def vector(self, position: int) -> Value:
        """Return an operand that must have a last axis."""
        if not self.shape(position):
            raise InputFileError(f"{self.where}: input {position} of at least one axis was wanted; got a scalar")
        return self.value(position)

    def option(self, name: str) -> Any:
        """Return an option, a number, that must be there."""
        found = self.option_or(name, None)
        if found is None:
            raise InputFileError(f"{self.where}: the option {name} was wanted; it has none")
        return found

    def option_or(self, name: str, default: Any) -> Any:
        """Return an option, a number, or what it is where the file has no options."""
        found = getattr(self.operator.options, name, None)
        return found if isinstance(found, int | float) else default

    def option_integers(self, name: str) -> list[int]:
        """Return an option of several integers; none where it is left out."""
        found = getattr(self.operator.options, name, None)
        if not isinstance(found, np.ndarray):
            return []
        if found.size > MOST_AXES:
            raise InputFileError(f"{self.where}: at most {MOST_AXES} numbers as {name} were wanted; got {found.size}")
        return [int(each) for each in found]

    def integer(self, position: int) -> int:
        """Return the only value of an operand."""
        values = self.integers(position)
        if len(values) != 1:
            raise InputFileError(f"{self.where}: one number was wanted as input {position}; got {len(values)}")
        return values[0]

    def integers(self, position: int) -> list[int]:
        """Return the values of an operand of integers that is known, flat."""
        values = self.sizes(position)
        if BATCH in values:
            raise self.unsupported(f"input {position} depends on the batch, which the file leaves open. {HINT}")
        return values

    def sizes(self, position: int) -> list[int]:
        """Return the values of an operand of integers that is known, flat; the symbolic batch is BATCH."""
        value = self.value(position)
        if not isinstance(value, Constant) or value.data.dtype.kind not in "iu":
            raise self.unsupported(f"input {position} must be a constant of integers; it is computed")
        if value.data.size > MOST_KNOWN:
            raise self.unsupported(f"at most {MOST_KNOWN} integers as input {position} are read; got {value.data.size}")
        return [int(each) for each in value.data.reshape(-1)]

    def axis(self, number: int, rank: int) -> int:
        """Return an axis counted from the front."""
        if not -rank <= number < rank:
            raise InputFileError(f"{self.where}: an axis of {rank} was wanted; got {number}")
        return number % rank

    def node(self, op: ops.Op, *inputs: Value) -> Value:
        """Add the last node; the activation inside the operator becomes a node behind it."""
        number = self.option_or("fusedActivationFunction", 0)
        if number not in ACTIVATIONS:
            raise self.unsupported(f"the activation {number} inside it is not read")
        activation, scales = ACTIVATIONS[number], self.network.given(self.operator.outputs[0])
        if scales is not None and self._numbers is not None:
            linear = self.step("linear", op, *inputs)
            active = linear if activation is None else self.step("active", activation, linear)
            return self.network.nodes(self.name, ops.Quantize(), (active,), (self.name,))[0]
        if scales is not None and isinstance(activation, FUSED) and hasattr(op, "activation"):
            op, activation = replace(op, activation=activation), None  # type: ignore[call-arg]
        if activation is None:
            return self.network.nodes(self.name, op, inputs, (self.name,))[0]
        if scales is not None and isinstance(activation, ops.Tanh):
            raise self.unsupported("TANH inside a quantized operator is not read; it has no scale of its own")
        linear = self.step("linear", op, *inputs)
        if isinstance(linear, str):
            self.network.keep(linear, scales)
        return self.network.nodes(self.name, activation, (linear,), (self.name,))[0]

    def step(self, label: str, op: ops.Op, *inputs: Value) -> Value:
        """Add one of several nodes."""
        name = self.network.inner_name(f"{self.name}/{label}")
        return self.network.nodes(name, op, inputs, (name,))[0]

    def constant(self, label: str, data: Array) -> Constant:
        """Return a constant of ours."""
        return Constant(name=self.network.inner_name(f"{self.name}/{label}"), data=data, dtype=str(data.dtype))

    def scalar(self, label: str, value: float) -> Constant:
        """Return a float32 scalar of ours."""
        return self.constant(label, np.asarray(value, np.float32))

    def picked(self, x: Value, axis: int, *runs: range) -> Value:
        """Take runs of positions along an axis, one after another."""
        self.network.spend(sum(map(len, runs)))
        places = np.concatenate([np.arange(run.start, run.stop, run.step, dtype=np.int32) for run in runs])
        return self.step("picked", ops.Gather(axis=axis), x, self.constant("positions", places))

    def on_known_integers(self, function: Callable[[Array, Array], Array]) -> Constant:
        """Return what a function of two operands gives, which must be known integers without the batch."""
        a, b = self.value(0), self.value(1)
        if not (isinstance(a, Constant) and isinstance(b, Constant)) or not (is_known(a) and is_known(b)):
            raise self.unsupported("it is read for known integers only; an operand is computed")
        shape = broadcast_shapes(a.data.shape, b.data.shape)
        if holds_batch(a) or holds_batch(b) or ops.elements(shape) > MOST_KNOWN:
            raise self.unsupported(f"at most {MOST_KNOWN} integers, without an open batch, were wanted. {HINT}")
        with np.errstate(all="ignore"):
            return Constant(name=self.name, data=np.asarray(function(a.data, b.data), a.dtype), dtype=a.dtype)

    def turned(self, value: Value, permutation: tuple[int, ...], label: str) -> Value:
        """Return a value with its axes in another order: a view of a constant, a Transpose of what is computed."""
        if len(self.network.shape(value)) != len(permutation):
            found = show_shape(self.network.shape(value))
            raise InputFileError(f"{self.where}: a {label} of {len(permutation)} axes was wanted; got {found}")
        if isinstance(value, Constant):
            return self.network.turned(value, permutation)
        return self.step(label, ops.Transpose(permutation=permutation), value)

    def target(self, value: Value, sizes: list[int]) -> Shape:
        """Return the shape that sizes with one -1, and BATCH first, mean for a value."""
        source = self.network.shape(value)
        fixed, total = prod(size for size in sizes if size not in (-1, BATCH)), ops.elements(source)
        if sizes.count(-1) > 1 or BATCH in sizes[1:]:
            raise InputFileError(f"{self.where}: at most one open size was wanted; got {sizes}")
        rest = total // max(fixed, 1)
        if None not in source:
            return tuple(rest if size == -1 else size for size in sizes)
        if sizes[:1] != [BATCH] and (sizes[:1] != [-1] or fixed != total):
            raise self.unsupported(f"{show_shape(source)} becomes {sizes}, which ties the batch. {HINT}")
        return (None, *(rest if size == -1 else size for size in sizes[1:]))

    def window_padding(
        self, image: Shape, size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
    ) -> Padding:
        """Return the explicit padding of a window over an image (N, spatial..., C)."""
        if self.operator.padding is not None:
            return self.operator.padding
        if self.option("padding") != SAME:
            return tuple((0, 0) for _ in size)
        return tuple(
            same_padding(known(n), f, stride=max(s, 1), dilation=d)
            for n, f, s, d in zip(image[1:-1], size, stride, dilation, strict=True)
        )

    def unsupported(self, text: str) -> UnsupportedError:
        """Return the error of something that is not read here."""
        return UnsupportedError(f"{self.where}: {text}")

    @property
    def where(self) -> str:
        """The place, for errors."""
        return f"{self.network.file.path}: {self.operator.kind} '{self.name}'"


Row = Callable[[Call], Value | tuple[Value, ...]]
"""Adds an operator's nodes and returns its outputs."""


def in_float(row: Row) -> Row:
    """Return the row of an operator that becomes several nodes, between which no file states a scale."""

    def read(call: Call) -> Value | tuple[Value, ...]:
        call.compute_in_float()
        return row(call)

    return read
