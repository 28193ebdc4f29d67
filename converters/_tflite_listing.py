"""What the tables of a .tflite file state: read without running it, quantized and custom operators included.

Source: LiteRT, tflite/schema/schema.fbs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from edgecnn.errors import InputFileError
from edgecnn.interfaces import ListedPort, Listing
from edgecnn.shapes import Shape

from ._flatbuffer import opened, schema

MOST_ENTRIES = 1 << 20
"""Of all tables that are followed: entries of a damaged file may name one table again and again."""

MOST_AXES = 64
PLACEHOLDER = 127
"""The old field for operators holds this where the number no longer fits. Source: schema.fbs, OperatorCode."""


def listing(path: Path) -> Listing:
    """Return what a file states. See interfaces.Lister."""
    with opened(path) as model:
        return _Tables(path, model).listing()


class _Tables:
    """One mapped model; every table that is followed counts towards MOST_ENTRIES."""

    def __init__(self, path: Path, model: Any) -> None:
        self._path, self._model, self._left = path, model, MOST_ENTRIES
        self._types, self._operators = _names("TensorType"), _names("BuiltinOperator")

    def listing(self) -> Listing:
        model = self._model
        graphs = [model.Subgraphs(i) for i in self._range(model.SubgraphsLength())]
        if not graphs:
            raise InputFileError(f"{self._path}: a TFLite model was wanted; the file holds no graph")
        signatures = [model.SignatureDefs(i) for i in self._range(model.SignatureDefsLength())]
        named = next((each for each in signatures if each.SubgraphIndex() == 0), None)
        main = graphs[0]
        tensors, constant_bytes = self._stored(graphs)
        return Listing(
            facts=self._facts(len(graphs), signatures),
            inputs=tuple(self._ports(main, main.InputsAsNumpy, main.InputsLength(), named and self._inputs(named))),
            outputs=tuple(self._ports(main, main.OutputsAsNumpy, main.OutputsLength(), named and self._outputs(named))),
            operators=dict(self._kinds(graphs).most_common()),
            tensors=dict(tensors.most_common()),
            constant_bytes=dict(constant_bytes.most_common()),
        )

    def _facts(self, graphs: int, signatures: list[Any]) -> dict[str, str]:
        facts = {"schema version": str(self._model.Version())}
        if self._model.Description():
            facts["description"] = _text(self._model.Description())
        facts["signatures"] = ", ".join(_text(each.SignatureKey()) for each in signatures) or "none"
        facts["subgraphs"] = str(graphs)
        return facts

    def _inputs(self, signature: Any) -> dict[int, str]:
        return _tensor_names(signature.Inputs(i) for i in self._range(signature.InputsLength()))

    def _outputs(self, signature: Any) -> dict[int, str]:
        return _tensor_names(signature.Outputs(i) for i in self._range(signature.OutputsLength()))

    def _ports(self, graph: Any, numbers: Any, length: int, names: dict[int, str] | None) -> Iterator[ListedPort]:
        for number in numbers() if self._range(length) else ():
            if not 0 <= number < graph.TensorsLength():
                raise InputFileError(f"{self._path}: a tensor below {graph.TensorsLength()} was wanted; got {number}")
            tensor = graph.Tensors(int(number))
            yield ListedPort(
                name=(names or {}).get(int(number)) or _text(tensor.Name()),
                shape=self._shape(tensor),
                dtype=self._type(tensor),
                **_quantization(tensor),
            )

    def _shape(self, tensor: Any) -> Shape | None:
        """Return the signature's shape, which leaves sizes open; None where the number of axes is not stated."""
        lengths = tensor.ShapeLength(), tensor.ShapeSignatureLength()
        if max(lengths) > MOST_AXES:
            raise InputFileError(f"{self._path}: tensors of at most {MOST_AXES} axes were wanted; got {max(lengths)}")
        if not lengths[0] and not tensor.HasRank():
            return None
        sizes = [tensor.ShapeSignature(i) if lengths[1] == lengths[0] else tensor.Shape(i) for i in range(lengths[0])]
        return tuple(None if size < 0 else size for size in sizes)

    def _type(self, tensor: Any) -> str:
        return self._types.get(tensor.Type(), f"type {tensor.Type()}")

    def _kinds(self, graphs: list[Any]) -> Counter[str]:
        model = self._model
        codes = [self._kind(model.OperatorCodes(i)) for i in self._range(model.OperatorCodesLength())]
        kinds: Counter[str] = Counter()
        for graph in graphs:
            for i in self._range(graph.OperatorsLength()):
                number = graph.Operators(i).OpcodeIndex()
                kinds[codes[number] if number < len(codes) else f"operator code {number}, which is not there"] += 1
        return kinds

    def _kind(self, code: Any) -> str:
        old, new = code.DeprecatedBuiltinCode(), code.BuiltinCode()
        kind = self._operators.get(new if old == PLACEHOLDER else max(old, new), f"operator {max(old, new)}").upper()
        return _text(code.CustomCode()) or kind if kind == "CUSTOM" else kind

    def _stored(self, graphs: list[Any]) -> tuple[Counter[str], Counter[str]]:
        """Count the tensors by type, and the bytes of the buffers behind them, each once."""
        tensors, sizes, seen = Counter[str](), Counter[str](), {0}
        buffers = self._model.BuffersLength()
        for graph in graphs:
            for i in self._range(graph.TensorsLength()):
                tensor = graph.Tensors(i)
                kind, number = self._type(tensor), tensor.Buffer()
                tensors[kind] += 1
                if number not in seen and number < buffers:
                    seen.add(number)
                    buffer = self._model.Buffers(number)
                    size = buffer.DataLength() or buffer.Size()
                    sizes.update({kind: size} if size else {})
        return tensors, sizes

    def _range(self, length: int) -> range:
        self._left -= length
        if self._left < 0:
            raise InputFileError(f"{self._path}: at most {MOST_ENTRIES} table entries were wanted; found more")
        return range(length)


def _quantization(tensor: Any) -> dict[str, Any]:
    """Return scale and zero point where the tensor has one of each."""
    known = tensor.Quantization()
    if known is None or known.ScaleLength() != 1:
        return {}
    return {"scale": float(known.Scale(0)), "zero_point": int(known.ZeroPoint(0)) if known.ZeroPointLength() else 0}


def _tensor_names(entries: Iterable[Any]) -> dict[int, str]:
    return {entry.TensorIndex(): _text(entry.Name()) for entry in entries}


def _names(table: str) -> dict[int, str]:
    """Return number -> lower-case name of one of the schema's enumerations."""
    return {number: name.lower() for name, number in vars(getattr(schema(), table)).items() if isinstance(number, int)}


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", errors="replace")
