"""One layer of an OpenVINO model while it is read: its values, its attributes, and the Graph nodes that it becomes.

A value is Known (a constant of the file) or the name of a computed tensor, in the file's order of axes. Operators that
the Graph has channels-last stand between two Transposes, which passes.settle_layout takes away again.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from edgecnn import ops
from edgecnn.builder import GraphBuilder, no_values
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array
from edgecnn.quantization.parameters import Quantization
from edgecnn.shapes import Shape, show_shape

from ._channels_first import channels_first, channels_last
from ._openvino_read_xml import IrLayer
from ._unique_names import unique

INTEGER = re.compile(r"\s*[-+]?[0-9]{1,18}\s*")


class Known(NamedTuple):
    """A constant: what it is called, its stored values, and the type that it computes in.

    Attributes:
        name: Of its Const.
        data: As stored.
        dtype: NumPy's name of the type that it computes in.
        scale: Where integers stand for scale * (integer - zero_point): float32, of the data's shape. Else None.
        zero_point: int64, of the data's shape; None for 0.
    """

    name: str
    data: Array
    dtype: str
    scale: Array | None = None
    zero_point: Array | None = None

    def value(self) -> Array:
        """Return the numbers as the arithmetic sees them."""
        if self.scale is None and self.zero_point is None:
            return self.data.astype(self.dtype, copy=False)
        centred = self.data.astype(np.int64) - (0 if self.zero_point is None else self.zero_point)
        return centred.astype(np.float32) * (np.float32(1) if self.scale is None else self.scale)

    def arranged(self, arrange: Callable[[Array], Array]) -> "Known":
        """Return the constant with its axes in another order."""
        scale, zero_point = (None if each is None else arrange(each) for each in (self.scale, self.zero_point))
        return Known(self.name, arrange(self.data), self.dtype, scale, zero_point)

    def quantization(self) -> Quantization | None:
        """Return what its integers stand for; None where they are numbers, or have scales along more than one axis."""
        if self.scale is None:
            return None
        zero = np.broadcast_to(np.int64(0), self.scale.shape) if self.zero_point is None else self.zero_point
        axes = [axis for axis in range(self.scale.ndim) if _varies(self.scale, axis) or _varies(zero, axis)]
        if len(axes) > 1 or not self.scale.size:
            return None
        place = tuple(slice(None) if axis in axes else 0 for axis in range(self.scale.ndim))
        scales, zeros = (np.atleast_1d(each[place]).tolist() for each in (self.scale, zero))
        axis = axes[0] if axes else None
        return Quantization(scale=tuple(scales), zero_point=tuple(zeros), dtype=str(self.data.dtype), axis=axis)

    def widened(self) -> Array:
        """Return the data as a tensor without quantization stores them: float16 as it is, other types as numbers."""
        is_as_it_is = self.data.dtype == np.float16 or (str(self.data.dtype) == self.dtype and self.scale is None)
        return self.data if is_as_it_is else self.value()


def _varies(values: Array, axis: int) -> bool:
    return values.shape[axis] > 1 and bool(np.any(values != values.take([0], axis)))


Value = Known | str


@dataclass(kw_only=True, slots=True)
class Reading:
    """What is known so far of the Graph under construction.

    Attributes:
        where: The file, for errors.
        builder: Collects the nodes.
        values: (layer, output port) -> what it gives.
        users: (layer, output port) -> the layers that read it.
        layers: Those of the file, by number.
        absorbed: Add layers that a layer before them has taken in as its bias.
        stored: Tensor -> data as they are stored, which may be narrower than they compute.
        quantizations: Tensor of integers -> what they stand for.
        held: What a constant is called, where and how it lies in memory -> its tensor.
        names: That are taken, the empty one among them. See unique.
    """

    where: str
    layers: dict[int, IrLayer]
    builder: GraphBuilder = field(default_factory=lambda: GraphBuilder("openvino", initialise=no_values))
    values: dict[tuple[int, int], Value] = field(default_factory=dict)
    users: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    sources: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    absorbed: set[int] = field(default_factory=set)
    stored: dict[str, Array] = field(default_factory=dict)
    quantizations: dict[str, Quantization] = field(default_factory=dict)
    held: dict[tuple[Any, ...], str] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=lambda: {"": 1})

    def free(self, name: str) -> str:
        """Return a name that nothing has yet, and take it."""
        return unique(name, self.names)

    def tensor(self, value: Value, *, is_bias: bool = False) -> str:
        """Return the tensor of a value; a constant is added once.

        Integers of known meaning stay integers; of 32 bits and more only as a bias, since files compute with others.
        """
        if isinstance(value, str):
            return value
        # Layers that share a constant arrange it alike: the same view of the file, whose data `stored` keeps alive.
        place = value.data.__array_interface__["data"][0]
        found = value.quantization() if is_bias or value.data.dtype.itemsize < 4 else None
        key = (value.name, place, value.data.shape, value.data.strides, str(value.data.dtype), value.dtype, found)
        if key not in self.held:
            name = self.held[key] = self.free(value.name)
            self.stored[name] = value.widened() if found is None else value.data
            if found is not None:
                self.quantizations[name] = found
            self.builder.constant(name, np.broadcast_to(np.zeros((), value.dtype), value.data.shape))
        return self.held[key]

    def dtype(self, value: Value) -> str:
        """Return the type that a value computes in."""
        return self.builder.dtype(value) if isinstance(value, str) else value.dtype

    def shape(self, value: Value) -> Shape:
        """Return the shape of a value."""
        return self.builder.shape(value) if isinstance(value, str) else value.data.shape


class Call:
    """One layer under reading; its main node takes its name."""

    def __init__(self, reading: Reading, layer: IrLayer, name: str) -> None:
        self.reading, self.layer, self.name = reading, layer, name
        self._sources = reading.sources[layer.number]
        self.ports = sorted(layer.outputs)

    @property
    def where(self) -> str:
        """The place, for errors."""
        return f"{self.reading.where}: {self.layer.kind} '{self.layer.name}'"

    def __len__(self) -> int:
        return len(self._sources)

    def value(self, position: int) -> Value:
        """Return an input that must be there."""
        if position >= len(self._sources):
            raise InputFileError(f"{self.where}: {position + 1} inputs were wanted; it has {len(self._sources)}")
        if self._sources[position] not in self.reading.values:
            raise UnsupportedError(f"{self.where}: input {position} must be a constant; it is computed")
        return self.reading.values[self._sources[position]]

    def known(self, position: int) -> Array | None:
        """Return a constant input, or None where it is left out or computed."""
        found = self.reading.values.get(self._sources[position]) if position < len(self._sources) else None
        return found.value() if isinstance(found, Known) else None

    def integers(self, position: int) -> list[int] | None:
        """Return a constant input of integers, flat, or None."""
        found = self.known(position)
        return None if found is None or found.dtype.kind not in "iu" else [int(each) for each in found.reshape(-1)]

    def axes(self, position: int, rank: int) -> tuple[int, ...] | None:
        """Return constant axes counted from the front and sorted, or None."""
        found = self.integers(position)
        return None if found is None else tuple(sorted({self.axis(number, rank) for number in found}))

    def axis(self, number: int, rank: int) -> int:
        """Return an axis counted from the front."""
        if not -rank <= number < rank:
            raise InputFileError(f"{self.where}: an axis of {rank} was wanted; got {number}")
        return number % rank

    def tensor(self, position: int) -> str:
        """Return the tensor of an input."""
        return self.reading.tensor(self.value(position))

    def shape(self, position: int = 0) -> Shape:
        """Return the shape of an input, in the file's order."""
        return self.reading.shape(self.value(position))

    def output_shape(self, position: int = 0) -> Shape:
        """Return the shape that the file states for an output."""
        if position >= len(self.ports):
            raise InputFileError(f"{self.where}: output {position} was wanted; it has {len(self.ports)}")
        shape = self.layer.outputs[self.ports[position]].shape
        if None in shape[1:]:
            raise UnsupportedError(
                f"{self.where}: only the batch may be open; got {show_shape(shape)}. Reshape the model in OpenVINO."
            )
        return shape

    def is_used(self, position: int) -> bool:
        """Tell whether a layer reads an output."""
        return position < len(self.ports) and (self.layer.number, self.ports[position]) in self.reading.users

    def text(self, name: str, default: str) -> str:
        """Return an attribute in lower case: the runtime writes some words in capitals."""
        return self.layer.data.get(name, default).lower()

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a truth value."""
        return self.text(name, str(default)) in ("true", "1")

    def number(self, name: str, default: float) -> float:
        """Return a number."""
        try:
            return float(self.text(name, str(default)))
        except ValueError:
            raise InputFileError(f"{self.where}: {name}: a number was wanted; got {self.text(name, '')!r}") from None

    def integer(self, name: str, default: int) -> int:
        """Return a whole number."""
        return self.numbers(name, (default,))[0]

    def numbers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return whole numbers; an empty attribute is the default."""
        text = self.text(name, "")
        parts = text.split(",") if text else []
        if not all(INTEGER.fullmatch(part) for part in parts):
            raise InputFileError(f"{self.where}: {name}: whole numbers were wanted; got {text[:40]!r}")
        return tuple(int(part) for part in parts) or tuple(default)

    def node(self, op: ops.Op, *inputs: str) -> str:
        """Add the layer's main node."""
        return self.reading.builder.node(self.name, op, *inputs)

    def step(self, label: str, op: ops.Op, *inputs: str) -> str:
        """Add one of several nodes."""
        return self.reading.builder.node(self.reading.free(f"{self.name}/{label}"), op, *inputs)

    def constant(self, label: str, data: Array) -> str:
        """Add a constant of ours."""
        return self.reading.builder.constant(self.reading.free(f"{self.name}/{label}"), data)

    def arranged(self, position: int, arrange: Callable[[Array], Array]) -> str | None:
        """Return a constant input as the Graph wants it, stored as narrow as the file has it; None where computed."""
        found = self.value(position)
        if not isinstance(found, Known):
            return None
        return self.reading.tensor(found.arranged(arrange))

    def turned(self, tensor: str, permutation: Sequence[int], label: str) -> str:
        """Return a tensor with its axes in another order."""
        if tuple(permutation) == tuple(range(len(permutation))):
            return tensor
        return self.step(label, ops.Transpose(permutation=tuple(permutation)), tensor)

    def channels_last(self, position: int = 0) -> str:
        """Return an input with its axis 1 last."""
        return self.turned(self.tensor(position), channels_last(len(self.shape(position))), "nhwc")

    def channels_first(self, tensor: str) -> str:
        """Return a channels-last tensor in the file's order."""
        return self.turned(tensor, channels_first(len(self.reading.builder.shape(tensor))), "nchw")

    def absorbed_bias(self, is_bias: Callable[[Shape], bool]) -> tuple[str, ...]:
        """Return the constant of an Add that is the only user of this layer, as a vector; the Add is taken in.

        Args:
            is_bias: Tells from its shape in the file whether it is one number for each output channel.
        """
        users = self.reading.users.get((self.layer.number, next(iter(self.layer.outputs), 0)), [])
        if len(users) != 1 or self.reading.layers[users[0]].kind != "Add":
            return ()
        found = [self.reading.values.get(source) for source in self.reading.sources[users[0]]]
        known = [value for value in found if isinstance(value, Known)]
        if len(known) != 1 or not is_bias(known[0].data.shape):
            return ()
        self.reading.absorbed.add(users[0])
        return (self.reading.tensor(known[0].arranged(np.ravel), is_bias=True),)


UNUSED = ""
"""What a row returns for an output that nothing reads."""

Row = Callable[[Call], str | tuple[str, ...] | None]
"""Adds a layer's nodes and returns its outputs; None where this form of it has no counterpart in the Graph."""
