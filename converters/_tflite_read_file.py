"""The tables of a .tflite file as plain records, every index and length checked before it is followed.

Constants are views of the mapped file. A table costs what following it visits; the sum is bounded, so that tables that
name one another again and again end in an error and not in a full memory.
Source: LiteRT, tflite/schema/schema.fbs.
"""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array
from edgecnn.quantization.parameters import Quantization
from edgecnn.shapes import Padding

from ._flatbuffer import followed, mapped, schema
from ._tflite_read_quantization import quantization, unpacked
from ._tflite_sparse import dense, levels
from ._unique_names import unique

MOST_VISITS = 4_000_000
"""Table entries, numbers and characters that one file may make us look at; the largest vision models need 1 % of it."""

MOST_SHARING = 16
"""How often, on average, the bytes of a file may be constants: tensors share buffers."""

MOST_AXES, MOST_ELEMENTS = 16, (1 << 31) - 1
PLACEHOLDER = 127
"""The old field for operators holds this where the number no longer fits. Source: schema.fbs, OperatorCode."""

OUTSIDE = 1
"""A Buffer's offset above this points behind the flatbuffer. Source: schema.fbs, Buffer."""

PACKED = "INT4"
NUMPY = {
    "BOOL": "bool",
    **{name: name.lower() for name in ("FLOAT16", "FLOAT32", "FLOAT64", "INT8", "INT16", "INT32", "INT64")},
    **{name: name.lower() for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
    PACKED: "int8",
}
"""TensorType -> NumPy's name, for those that NumPy holds; two numbers of int4 are one byte of the file."""


Ports = tuple[tuple[str, int], ...]
"""(name, index of the tensor) of each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRecord:
    """One tensor of the main subgraph.

    Attributes:
        name: As the file has it; may be empty or not unique.
        shape: Sizes.
        signature: Sizes with -1 for those that are open; the shape where the file has none.
        kind: TensorType, by name.
        data: A constant's values, or None.
        quantization: Of integers that stand for numbers; None where numbers are stored as they are.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    kind: str
    data: Array | None
    quantization: Quantization | None


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorRecord:
    """One operator; inputs are indices of tensors, -1 where one is left out.

    Attributes:
        kind: BuiltinOperator by name, or a custom operator's own name.
        options: The schema's plain record, or None.
        custom: Options of a custom operator.
        inputs: See above.
        outputs: Indices of tensors.
        padding: Of a window, explicit, instead of what its options say.
    """

    kind: str
    options: Any
    custom: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    padding: Padding | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """The main subgraph; port names are the tensors' own where no signature names them."""

    path: Path
    tensors: tuple[TensorRecord, ...]
    operators: tuple[OperatorRecord, ...]
    inputs: Ports
    outputs: Ports


def read_file(path: Path) -> FileRecord:
    """Return the records of a .tflite file.

    Raises:
        InputFileError: When the file is damaged.
        UnsupportedError: When its scales are of a kind that is not read.
    """
    content = mapped(path)
    with followed(path):
        return _Tables(path, content).record()


class _Tables:
    """Follows one mapped model."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path, self._content, self._left = path, content, MOST_VISITS
        self._bytes_left = MOST_SHARING * len(content)
        self._schema = schema()
        self._model = self._schema.Model.GetRootAs(content, 0)
        self._types, self._builtins, self._options = (
            {number: name for name, number in vars(getattr(self._schema, each)).items() if isinstance(number, int)}
            for each in ("TensorType", "BuiltinOperator", "BuiltinOptions")
        )

    def record(self) -> FileRecord:
        self._indexed(0, self._model.SubgraphsLength(), "a subgraph")
        main = self._model.Subgraphs(0)
        tensors = tuple(self._tensor(main.Tensors(i)) for i in self._range(main.TensorsLength()))
        operators = tuple(self._operator(main.Operators(i), len(tensors)) for i in self._range(main.OperatorsLength()))
        signature = self._signature()
        return FileRecord(
            path=self._path,
            tensors=tensors,
            operators=operators,
            inputs=self._ports(main.InputsAsNumpy, tensors, signature and (signature.Inputs, signature.InputsLength)),
            outputs=self._ports(
                main.OutputsAsNumpy, tensors, signature and (signature.Outputs, signature.OutputsLength)
            ),
        )

    def _tensor(self, table: Any) -> TensorRecord:
        name, shape = self._text(table.Name()), self._numbers(table.ShapeAsNumpy)
        signature = self._numbers(table.ShapeSignatureAsNumpy)
        if len(shape) > MOST_AXES or min(shape, default=0) < 0 or prod(shape) > MOST_ELEMENTS:
            raise InputFileError(f"{self._path}: tensor '{name}': a sane shape was wanted; got {shape[:MOST_AXES]}")
        kind = self._types.get(table.Type(), f"type {table.Type()}")
        return TensorRecord(
            name=name,
            shape=shape,
            signature=signature if len(signature) == len(shape) else shape,
            kind=kind,
            data=self._data(name, table, kind, shape),
            quantization=self._quantization(name, table, kind, shape),
        )

    def _quantization(self, name: str, table: Any, kind: str, shape: tuple[int, ...]) -> Quantization | None:
        found = table.Quantization()
        self._visit(0 if found is None else found.ScaleLength() + found.ZeroPointLength())
        try:
            return quantization(table, kind, shape)
        except (InputFileError, UnsupportedError) as error:
            raise type(error)(f"{self._path}: tensor '{name}': {error}") from None

    def _data(self, name: str, table: Any, kind: str, shape: tuple[int, ...]) -> Array | None:
        if table.Buffer() == 0:  # the empty one, which some files leave out
            return np.zeros(shape, NUMPY[kind]) if kind in NUMPY and 0 in shape else None
        stored = self._stored(name, table.Buffer())
        if kind not in NUMPY or (not len(stored) and 0 not in shape):
            return None
        dtype, sparsity = np.dtype(NUMPY[kind]), table.Sparsity()
        size = -(-prod(shape) // 2) if kind == PACKED else prod(shape) * dtype.itemsize
        is_made = sparsity is not None or kind == PACKED
        self._bytes_left -= max(len(stored), prod(shape) * dtype.itemsize if is_made else 0)
        if self._bytes_left < 0:
            raise InputFileError(f"{self._path}: constants of at most {MOST_SHARING} times the file were wanted")
        if sparsity is not None:
            return self._dense(name, sparsity, stored.view(dtype), shape)
        if size != len(stored) and len(stored):
            wanted = f"{size} bytes for shape {shape}"
            raise InputFileError(f"{self._path}: tensor '{name}': {wanted} were wanted; got {len(stored)}")
        values: Array = stored[:size]
        if kind == PACKED:
            return unpacked(values, prod(shape)).reshape(shape)
        if kind == "BOOL":  # a copy, for bytes other than 0 and 1
            self._visit(len(values))
            return np.not_equal(values, 0).reshape(shape)
        return values.view(dtype).reshape(shape)

    def _stored(self, name: str, number: int) -> Array:
        """Return the bytes of a buffer, which may lie behind the flatbuffer."""
        buffer = self._model.Buffers(self._indexed(number, self._model.BuffersLength(), "a buffer"))
        offset, size = buffer.Offset(), buffer.Size()
        if offset > OUTSIDE:
            if offset + size > len(self._content):
                raise InputFileError(f"{self._path}: tensor '{name}': its data lie behind the end of the file")
            return np.frombuffer(self._content, np.uint8, count=size, offset=offset)
        return np.zeros(0, np.uint8) if buffer.DataIsNone() else buffer.DataAsNumpy()

    def _dense(self, name: str, sparsity: Any, values: Array, shape: tuple[int, ...]) -> Array:
        """Return a constant that is stored sparse."""
        try:
            return dense(values, levels(sparsity, shape, self._schema), shape)
        except InputFileError as error:
            raise InputFileError(f"{self._path}: tensor '{name}' is stored sparse: {error}") from None

    def _operator(self, table: Any, tensors: int) -> OperatorRecord:
        codes = self._model.OperatorCodesLength()
        code = self._model.OperatorCodes(self._indexed(table.OpcodeIndex(), codes, "an operator code"))
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        kind = self._builtins.get(number, f"operator {number}")
        inputs, outputs = self._numbers(table.InputsAsNumpy), self._numbers(table.OutputsAsNumpy)
        for each in (*(each for each in inputs if each != -1), *outputs):
            self._indexed(each, tensors, "a tensor")
        custom = self._bytes(table.CustomOptionsAsNumpy)
        if number == self._schema.BuiltinOperator.CUSTOM:
            kind = self._text(code.CustomCode())
        return OperatorRecord(
            kind=kind, options=self._option_table(table), custom=custom, inputs=inputs, outputs=outputs
        )

    def _option_table(self, table: Any) -> Any:
        """Return the options as the schema's plain record, or None."""
        name, options = self._options.get(table.BuiltinOptionsType(), "NONE"), table.BuiltinOptions()
        if name == "NONE" or options is None:
            return None
        return getattr(self._schema, f"{name}T").InitFromBuf(options.Bytes, options.Pos)

    def _signature(self) -> Any:
        """Return the first signature of the main subgraph."""
        found = (self._model.SignatureDefs(i) for i in self._range(self._model.SignatureDefsLength()))
        return next((each for each in found if each.SubgraphIndex() == 0), None)

    def _ports(self, numbers: Callable[[], Any], tensors: tuple[TensorRecord, ...], named: Any) -> Ports:
        """Return (name, tensor) of each port, in the subgraph's order; two names of one tensor are two ports."""
        names: dict[int, list[str]] = {}
        for entry in (named[0](i) for i in self._range(named[1]())) if named else ():
            names.setdefault(entry.TensorIndex(), []).append(self._text(entry.Name()))
        found: list[tuple[str, int]] = []
        used: dict[str, int] = {}
        for number in self._numbers(numbers):
            self._indexed(number, len(tensors), "a tensor")
            own = names.get(number) or [tensors[number].name or f"tensor_{number}"]
            found.append((unique(own.pop(0) if len(own) > 1 else own[0], used), number))
        return tuple(found)

    def _indexed(self, number: int, length: int, what: str) -> int:
        if not 0 <= number < length:
            raise InputFileError(f"{self._path}: {what} below {length} was wanted; got {number}")
        return number

    def _visit(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise InputFileError(f"{self._path}: at most {MOST_VISITS} table entries were wanted; found more")

    def _range(self, length: int) -> range:
        self._visit(length)
        return range(length)

    def _numbers(self, numbers: Callable[[], Any]) -> tuple[int, ...]:
        found = numbers()
        if isinstance(found, int):  # what the generated code returns for a vector that is not there
            return ()
        self._visit(len(found))
        return tuple(found.tolist())

    def _bytes(self, numbers: Callable[[], Any]) -> bytes:
        found = numbers()
        if isinstance(found, int):
            return b""
        self._visit(len(found))
        return bytes(found)

    def _text(self, text: bytes | None) -> str:
        self._visit(len(text or b""))
        return (text or b"").decode(errors="replace")
