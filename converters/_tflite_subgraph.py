"""The tables of a TFLite file: tensors, buffers and operators of its one subgraph, and the model around them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array
from edgecnn.shapes import Shape, show_shape

from ._flatbuffer import AlignedBuffer, pack, schema
from ._tflite_elements import Elements, stored, table
from ._tflite_versions import version_for

SCHEMA_VERSION = 3
SIGNATURE = "serving_default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """How TFLite spells an operator.

    Attributes:
        kind: Its BuiltinOperator.
        options: Its option table's name, without "Options"; empty for none.
        fields: What the option table holds.
        version: The lowest that its options ask for; what its tensors ask for is found out.
        custom: The options of a custom operator, serialised; `kind` is its name.
    """

    kind: str
    options: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    version: int = 1
    custom: bytes = b""


class TfliteSubgraph:
    """Collects tensors, buffers and operators."""

    def __init__(self) -> None:
        self.s = schema()
        self.counts: Counter[str] = Counter()
        self._tensors: list[Any] = []
        self._kinds: list[tuple[Elements, Shape]] = []
        self._buffers: list[AlignedBuffer] = [AlignedBuffer(b"")]
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}

    def tensor(
        self, name: str, shape: Shape, elements: Elements = "float32", data: Array | None = None, sparsity: Any = None
    ) -> int:
        """Add a tensor and return its index; a symbolic batch is 1 in the shape and -1 in the signature.

        Raises:
            UnsupportedError: When it would hold nothing: the kernels of LiteRT 2.3 differ in what they make of that.
        """
        if 0 in shape:
            raise UnsupportedError(f"{name}: tflite wants tensors that hold something; got {show_shape(shape)}")
        buffer = 0
        if data is not None:
            buffer = len(self._buffers)
            self._buffers.append(AlignedBuffer(data))
        signature = [-1 if size is None else size for size in shape] if None in shape else None
        self._tensors.append(
            self.s.TensorT(
                shape=[size or 1 for size in shape],
                type=self.type_number(stored(elements)),
                buffer=buffer,
                name=name,
                quantization=table(elements, self.s),
                shapeSignature=signature,
                sparsity=sparsity,
            )
        )
        self._kinds.append((elements, shape))
        return len(self._kinds) - 1

    def type_number(self, dtype: str) -> int:
        """Return the schema's number for an element type."""
        return int(getattr(self.s.TensorType, dtype.upper()))

    def elements(self, tensor: int) -> Elements:
        """Return what a tensor that was added before holds."""
        return self._kinds[tensor][0]

    def dtype(self, tensor: int) -> str:
        """Return the type in which a tensor that was added before is stored."""
        return stored(self._kinds[tensor][0])

    def sizes(self, tensor: int) -> Shape:
        """Return the shape of a tensor that was added before."""
        return self._kinds[tensor][1]

    def label(self, tensor: int) -> str:
        """Return the name of a tensor that was added before."""
        return str(self._tensors[tensor].name)

    def operator(self, spec: Spec, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Add an operator."""
        self.counts[spec.kind] += 1
        taken, given = ([self.elements(each) for each in tensors] for tensors in (inputs, outputs))
        version = max(spec.version, version_for(spec.kind, taken, given))
        code = self._codes.setdefault((spec.kind, version), len(self._codes))
        operator = self.s.OperatorT(opcodeIndex=code, inputs=list(inputs), outputs=list(outputs))
        if spec.custom:
            operator.customOptions = list(spec.custom)
        if spec.options:
            operator.builtinOptionsType = getattr(self.s.BuiltinOptions, f"{spec.options}Options")
            operator.builtinOptions = getattr(self.s, f"{spec.options}OptionsT")(**spec.fields)
        self._operators.append(operator)

    def step(self, name: str, shape: Shape, spec: Spec, inputs: Sequence[int], elements: Elements = "float32") -> int:
        """Add one of several operators that a node becomes, and return its inner tensor."""
        output = self.tensor(name, shape, elements)
        self.operator(spec, inputs, [output])
        return output

    def packed(
        self,
        name: str,
        inputs: Iterable[tuple[str, int]],
        outputs: Iterable[tuple[str, int]],
        metadata: Mapping[str, bytes],
    ) -> memoryview:
        """Return the finished file.

        Args:
            name: Of the network.
            inputs: Port and tensor of each input.
            outputs: The same of the outputs.
            metadata: Name -> content.
        """
        taken, given = (
            [self.s.TensorMapT(name=port, tensorIndex=index) for port, index in ports] for ports in (inputs, outputs)
        )
        subgraph = self.s.SubGraphT(
            tensors=self._tensors,
            inputs=[each.tensorIndex for each in taken],
            outputs=[each.tensorIndex for each in given],
            operators=self._operators,
            name="main",
        )
        model = self.s.ModelT(
            version=SCHEMA_VERSION,
            operatorCodes=[self._code(*key) for key in self._codes],
            subgraphs=[subgraph],
            description=f"{name}, written by edgecnn",
            signatureDefs=[self.s.SignatureDefT(inputs=taken, outputs=given, signatureKey=SIGNATURE)],
            buffers=self._buffers,
        )
        model.metadata = []
        for key, content in metadata.items():
            model.metadata.append(self.s.MetadataT(name=key, buffer=len(self._buffers)))
            self._buffers.append(AlignedBuffer(content))
        return pack(model, sum(buffer.data.nbytes for buffer in self._buffers))

    def _code(self, kind: str, version: int) -> Any:
        custom = self.s.BuiltinOperator.CUSTOM
        code = getattr(self.s.BuiltinOperator, kind, custom)
        name = kind if code == custom else None
        return self.s.OperatorCodeT(
            deprecatedBuiltinCode=min(code, 127), builtinCode=code, customCode=name, version=version
        )
