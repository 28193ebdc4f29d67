"""One call of a Keras layer under reading: its configuration with checked types, its variables, its nodes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np

from edgecnn.builder import GraphBuilder
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array
from edgecnn.ops import Op
from edgecnn.shapes import Padding, Shape

from ._keras_arguments import Arguments
from ._keras_hdf5 import VariableFile
from ._keras_json import show
from ._keras_topology import LayerEntry, Location

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
"""Type policies whose variables are float32; the Graph computes in float32."""

LARGEST = 2**31 - 1
"""No size in a configuration is larger: the runtimes' tensors count in int32."""

LONGEST = 8
"""No list of sizes in a configuration is longer: ranks end at 5."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerConfig:
    """A layer's configuration; each method returns one entry with its type checked, or raises InputFileError.

    Attributes:
        where: File, layer and class, for errors.
        values: The JSON object.
    """

    where: str
    values: Mapping[str, object]

    def text(self, key: str, default: str) -> str:
        """Return a text."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "text")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def number(self, key: str, default: float) -> float:
        """Return a finite number."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self._wrong(key, "a number")
        return float(value)

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1) -> int:
        """Return an integer."""
        return self._integers(key, self.values.get(key, default), 1, minimum, "an integer")[0]

    def numbers(self, key: str) -> Array:
        """Return a number, or (nested) lists of numbers, as an array."""
        try:
            values = np.array(self.values.get(key), dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            raise self._wrong(key, "numbers") from None
        if not np.isfinite(values).all():
            raise self._wrong(key, "numbers")
        return values

    def sizes(self, key: str, rank: int, default: object = None) -> tuple[int, ...]:
        """Return one positive integer per spatial dimension; a single one in the file stands for all."""
        return self._integers(key, self.values.get(key) or default, rank, 1, f"a list of {rank} positive integer(s)")

    def spread(self, key: str, rank: int) -> tuple[int, ...]:
        """Return one integer of 0 or more per spatial dimension; a single one in the file stands for all."""
        return self._integers(key, self.values.get(key), rank, 0, f"a list of {rank} integer(s)")

    def integers(self, key: str, *, minimum: int) -> tuple[int, ...]:
        """Return a list of integers."""
        return self.check_integers(key, self.values.get(key), minimum=minimum)

    def check_integers(self, key: str, value: object, *, minimum: int) -> tuple[int, ...]:
        """Return a value as a list of integers, of which there are at most LONGEST."""
        length = min(len(value), LONGEST) if isinstance(value, list) else 1
        return self._integers(key, value, length, minimum, "a list of integers")

    def pairs(self, key: str, rank: int) -> Padding:
        """Return (before, after) per spatial dimension from n, [n, n], [before, after] (rank 1) or [[b, a], ...]."""
        value = self.values.get(key)
        wanted = f"a list of {rank} pair(s) of integers"
        if rank == 1 and isinstance(value, list) and len(value) == 2:
            value = [value]
        rows = value if isinstance(value, list) else [value] * rank
        if len(rows) != rank:
            raise self._wrong(key, wanted)
        flat = [self._integers(key, row, 2, 0, wanted) for row in rows]
        return tuple((before, after) for before, after in flat)

    def require_channels_last(self) -> None:
        """Raise UnsupportedError for a layer whose channels come first."""
        found = self.text("data_format", "channels_last")
        if found != "channels_last":
            raise UnsupportedError(
                f"{self.where}: data_format 'channels_last' was wanted; found '{found}'. Build the model channels-last."
            )

    def require_float32(self) -> None:
        """Raise UnsupportedError for a layer whose variables are not float32 (quantized, float16)."""
        policy = self.values.get("dtype", "float32")
        inner = policy.get("config") if isinstance(policy, dict) else None
        name = inner.get("name") if isinstance(inner, dict) else policy
        if name not in PRECISIONS:
            raise UnsupportedError(
                f"{self.where}: a dtype policy of {', '.join(PRECISIONS)} was wanted; found {show(name)}. "
                "Save the float32 model; edgecnn quantizes it itself."
            )

    def _integers(self, key: str, value: object, length: int, minimum: int, wanted: str) -> tuple[int, ...]:
        values = value if isinstance(value, list) else [value] * length
        if len(values) != length or any(type(each) is not int or not minimum <= each <= LARGEST for each in values):
            raise self._wrong(key, wanted)
        return tuple(values)

    def _wrong(self, key: str, wanted: str) -> InputFileError:
        return InputFileError(f"{self.where}: {key}: {wanted} was wanted; found {show(self.values.get(key))}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A variable of a layer.

    Attributes:
        name: With us.
        file_shape: Its shape in the file.
        shape: With us, where that is another view of the same elements.
        fill: The value of all its elements where the layer goes without it, and so does the file.
        is_swapped: Whether its last two axes are the other way round with us.
    """

    name: str
    file_shape: tuple[int, ...]
    shape: tuple[int, ...] | None = None
    fill: float | None = None
    is_swapped: bool = False

    def ours(self, data: Array) -> Array:
        """Return the stored values as the Graph has them."""
        if self.is_swapped:
            return np.ascontiguousarray(data.swapaxes(-1, -2))
        return data.reshape(self.shape or data.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCall:
    """One call of a layer: what a row of the layer table gets.

    Attributes:
        name: Of the node that the call becomes; further nodes are named name/...
        prefix: Of the layer's constants: the same in every call of a shared layer.
        layer: Class name and configuration.
        place: Where its variables lie.
        config: With checked types.
        inputs: Tensors that the layer is called on, in order.
        arguments: All of the call's arguments, each Source replaced by its tensor's name (as Tensor).
        builder: Takes the nodes.
        weights: Holds the variables.
        constants: Prefix -> constants of the layers that were called before.
    """

    name: str
    prefix: str
    layer: LayerEntry
    place: Location
    config: LayerConfig
    inputs: tuple[str, ...]
    arguments: Arguments
    builder: GraphBuilder
    weights: VariableFile
    constants: dict[str, tuple[str, ...]]

    @property
    def input(self) -> str:
        """The only input.

        Raises:
            InputFileError: When the layer is called on none or several.
        """
        if len(self.inputs) != 1:
            raise InputFileError(f"{self.config.where}: one input was wanted; found {len(self.inputs)}")
        return self.inputs[0]

    @property
    def rank(self) -> int:
        """Number of spatial dimensions: what the class name states ("Conv2D"), and the input has."""
        rank, found = int(re.sub(r"\D", "", self.layer.class_name)), len(self.builder.shape(self.input)) - 2
        if rank != found:
            raise InputFileError(
                f"{self.config.where}: an input of {rank} spatial dimension(s) was wanted; found {found}"
            )
        return rank

    @property
    def shape(self) -> Shape:
        """The input's shape."""
        return self.builder.shape(self.input)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The input's sizes without the batch: spatial..., channels."""
        return tuple(size or 0 for size in self.shape[1:])

    def node(self, op: Op, *inputs: str, suffix: str = "") -> str:
        """Add a node named after the call and return its output tensor."""
        return self.builder.node(f"{self.name}{suffix}", op, *inputs)

    def constant(self, name: str, values: object) -> str:
        """Add a constant that the configuration states and return its tensor."""
        return self.builder.constant(f"{self.name}/{name}", np.asarray(values, np.float32))

    def parameters(self, *wanted: Parameter) -> tuple[str, ...]:
        """Return the layer's constants in this order, read from the file at the layer's first call."""
        if self.prefix not in self.constants:
            stored = {each.name: each.file_shape for each in wanted if each.fill is None}
            values = self.weights.variables(self.config.where, self.place, stored) if stored else []
            by_name = dict(zip(stored, values, strict=True))
            self.constants[self.prefix] = tuple(self._constant(each, by_name.get(each.name)) for each in wanted)
        return self.constants[self.prefix]

    def refuse(self, wanted: str, found: object) -> UnsupportedError:
        """Return the error for a layer with arguments that are not read."""
        return UnsupportedError(f"{self.config.where}: {wanted} was wanted; found {found}")

    def _constant(self, parameter: Parameter, data: Array | None) -> str:
        if data is None:
            data = np.full(parameter.file_shape, parameter.fill, np.float32)
        return self.builder.constant(f"{self.prefix}/{parameter.name}", parameter.ours(data))
