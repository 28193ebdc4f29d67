"""Collects the tensors, buffers and operators of a TFLite subgraph."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Graph, Node
from edgecnn.shapes import Padding, Shape, show_shape

from ._flatbuffer import AlignedBuffer, pack, schema
from ._tflite_sparse import compressed, is_sparse

SCHEMA_VERSION = 3
SIGNATURE = "serving_default"
SMALL_BYTES = 1 << 12
"""Constants up to here are shared where their numbers are equal, larger ones where they lie in the same place."""

FUSED = {type(None): "NONE", ops.ReLU: "RELU", ops.ReLU6: "RELU6"}
"""Activation inside an operator -> ActivationFunctionType."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """How TFLite spells an operator.

    Attributes:
        kind: Its BuiltinOperator.
        options: Its option table's name, without "Options"; empty for none.
        fields: What the option table holds.
        version: The lowest that fits.
        custom: The options of a custom operator, serialised; `kind` is its name.
    """

    kind: str
    options: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    version: int = 1
    custom: bytes = b""


TYPED_VERSIONS = {
    ("ABS", "int32"): 5,
    ("ADD", "int64"): 4,
    ("ARG_MAX", "bool"): 3,
    ("GATHER", "bool"): 3,
    ("MUL", "int64"): 5,
    ("PAD", "bool"): 5,
    ("SPLIT", "int32"): 3,
    ("STRIDED_SLICE", "bool"): 3,
    ("SUB", "int64"): 4,
    ("TRANSPOSE", "bool"): 3,
}
"""(operator, type of its data) -> the lowest version that takes it. Source: LiteRT, op_version.cc."""


class TfliteEmitter:
    """Collects tensors, buffers and operators of the one subgraph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.s = schema()
        self.counts: Counter[str] = Counter()
        self._tensors: list[Any] = []
        self._kinds: list[tuple[str, Shape]] = []
        self._buffers: list[AlignedBuffer] = [AlignedBuffer(b"")]
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}
        self._index: dict[str, int] = {}
        self._constants: dict[tuple[object, ...], tuple[int, Array]] = {}
        self._producers = {name: node for node in graph.nodes for name in node.outputs}

    def tensor(
        self, name: str, shape: Shape, dtype: str = "float32", data: Array | None = None, sparsity: Any = None
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
                type=self.type_number(dtype),
                buffer=buffer,
                name=name,
                shapeSignature=signature,
                sparsity=sparsity,
            )
        )
        self._kinds.append((dtype, shape))
        return len(self._kinds) - 1

    def type_number(self, dtype: str) -> int:
        """Return the schema's number for an element type."""
        return int(getattr(self.s.TensorType, dtype.upper()))

    def dtype(self, tensor: int) -> str:
        """Return the type of a tensor that was added before."""
        return self._kinds[tensor][0]

    def sizes(self, tensor: int) -> Shape:
        """Return the shape of a tensor that was added before."""
        return self._kinds[tensor][1]

    def label(self, tensor: int) -> str:
        """Return the name of a tensor that was added before."""
        return str(self._tensors[tensor].name)

    def operator(self, spec: Spec, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Add an operator."""
        self.counts[spec.kind] += 1
        version = max([spec.version, *(TYPED_VERSIONS.get((spec.kind, self.dtype(each)), 1) for each in inputs)])
        code = self._codes.setdefault((spec.kind, version), len(self._codes))
        operator = self.s.OperatorT(opcodeIndex=code, inputs=list(inputs), outputs=list(outputs))
        if spec.custom:
            operator.customOptions = list(spec.custom)
        if spec.options:
            operator.builtinOptionsType = getattr(self.s.BuiltinOptions, f"{spec.options}Options")
            operator.builtinOptions = getattr(self.s, f"{spec.options}OptionsT")(**spec.fields)
        self._operators.append(operator)

    def step(self, name: str, shape: Shape, spec: Spec, inputs: Sequence[int], dtype: str = "float32") -> int:
        """Add one of several operators that a node becomes, and return its inner tensor."""
        output = self.tensor(name, shape, dtype)
        self.operator(spec, inputs, [output])
        return output

    def layer(self, node: Node, spec: Spec, inputs: Sequence[int]) -> None:
        """Add a node's operator, which carries no activation, and behind it the activation that the node has."""
        activation = getattr(node.op, "activation", None)
        if activation is not None:
            dtype = self.graph.tensors[node.output].dtype
            inputs = [self.step(f"{node.name}/linear", self.shape(node.output), spec, inputs, dtype)]
            spec = Spec(kind=self._fused_name(node))
        self.operator(spec, inputs, [self.value(node.output)])

    def value(self, name: str) -> int:
        """Return the tensor index of a Graph tensor; a constant is added when it is first asked for."""
        if name not in self._index:
            tensor = self.graph.tensors[name]
            if tensor.data is None:
                self._index[name] = self.tensor(name, tensor.shape, tensor.dtype)
            else:
                self._index[name] = self.constant(name, tensor.data, tensor.dtype)
        return self._index[name]

    def constant(self, name: str, data: Array, dtype: str) -> int:
        """Add a constant, once for all that ask for the same numbers."""
        place = data.tobytes() if data.nbytes <= SMALL_BYTES else data.__array_interface__["data"][0]
        key = (place, data.shape, data.strides if isinstance(place, int) else (), str(data.dtype), dtype)
        if key not in self._constants:  # the data are held, so that their place is not given away
            self._constants[key] = (self._added(name, data, dtype), data)
        return self._constants[key][0]

    def _added(self, name: str, data: Array, dtype: str) -> int:
        """Add a constant, a DENSIFY where it is stored sparse, and a DEQUANTIZE where it is stored as float16."""
        stored = self._stored(name if str(data.dtype) == dtype else f"{name}/{data.dtype}", data)
        if str(data.dtype) == dtype:
            return stored
        wide = self.tensor(name, data.shape, dtype)
        self.operator(Spec(kind="DEQUANTIZE", options="Dequantize", version=3), [stored], [wide])
        return wide

    def _stored(self, name: str, data: Array) -> int:
        """Add a constant as it is stored; runtimes make a sparse one dense when they load the file."""
        dtype = str(data.dtype)
        if not is_sparse(data):
            return self.tensor(name, data.shape, dtype, data)
        values, sparsity = compressed(np.ascontiguousarray(data), self.s)
        spared = self.tensor(f"{name}/sparse", data.shape, dtype, values, sparsity)
        return self.step(name, data.shape, Spec(kind="DENSIFY", options="Densify"), [spared], dtype)

    def arranged(self, node: Node, operand: str, arrange: Callable[[Array], Array], label: str = "") -> int:
        """Return a constant operand in the format's own arrangement, its name followed by a label."""
        tensor = self.graph.constant(node, operand)
        if tensor is None or tensor.data is None:
            raise UnsupportedError(f"{node.name}: tflite wants a constant {operand}; got a computed one")
        return self.constant(f"{tensor.name}{label}", arrange(tensor.data), tensor.dtype)

    def bias(self, node: Node, channels: int) -> int:
        """Return the bias, zeros where there is none: operators without one need newer runtimes."""
        name = node.operand("bias")
        return (
            self.value(name) if name else self.constant(f"{node.name}/bias", np.zeros(channels, np.float32), "float32")
        )

    def integers(self, name: str, values: Sequence[int] | Sequence[Sequence[int]]) -> int:
        """Add an int32 constant."""
        return self.constant(name, np.asarray(values, np.int32), "int32")

    def scalar(self, name: str, value: float, dtype: str = "float32") -> int:
        """Add a scalar."""
        return self.constant(name, np.asarray(value, dtype), dtype)

    def shape(self, name: str) -> Shape:
        """Return the shape of a Graph tensor."""
        return self.graph.tensors[name].shape

    def reshaped(self, source: int, name: str, shape: Shape, into: int | None = None) -> int:
        """Add a RESHAPE and return its output."""
        sizes = [-1 if size is None else size for size in shape]
        output = self.tensor(name, shape, self.dtype(source)) if into is None else into
        spec = Spec(kind="RESHAPE", options="Reshape", fields={"newShape": sizes})
        self.operator(spec, [source, self.integers(f"{name}/shape", sizes)], [output])
        return output

    def padded(self, source: int, name: str, shape: Shape, padding: Padding, value: float = 0.0) -> int:
        """Add a PAD (or PADV2) over all axes of a tensor of this shape and return its output."""
        output = tuple(n if n is None else n + sum(p) for n, p in zip(shape, padding, strict=True))
        return self.step(f"{name}/padded", output, *self.padding(source, name, padding, value), self.dtype(source))

    def padding(self, source: int, name: str, padding: Padding, value: float) -> tuple[Spec, list[int]]:
        """Return the operator that pads with a value, and its inputs."""
        inputs = [source, self.integers(f"{name}/padding", padding)]
        version = 4 if len(padding) > 4 else 1
        if value == 0:
            return Spec(kind="PAD", options="Pad", version=version), inputs
        inputs.append(self.scalar(f"{name}/value", value, self.dtype(source)))
        return Spec(kind="PADV2", options="PadV2", version=version), inputs

    def fused(self, node: Node) -> int:
        """Return the schema's number for the activation inside an operator."""
        return int(getattr(self.s.ActivationFunctionType, self._fused_name(node)))

    def producer(self, tensor: str) -> Node | None:
        """Return the node that gives a tensor, or None for inputs and constants."""
        return self._producers.get(tensor)

    def transpose(self, source: int, permutation: Sequence[int], output: int, name: str) -> None:
        """Add a TRANSPOSE; op_version.cc gives five axes version 4, six 6."""
        order = self.integers(f"{name}/permutation", permutation)
        version = 6 if len(permutation) > 5 else 4 if len(permutation) > 4 else 1
        spec = Spec(kind="TRANSPOSE", options="Transpose", version=version)
        self.operator(spec, [source, order], [output])

    def file(self, metadata: Mapping[str, bytes]) -> memoryview:
        """Return the finished file with its named metadata."""
        outputs = [self.value(port.tensor) for port in self.graph.outputs]
        inputs = [self.value(port.tensor) for port in self.graph.inputs]
        signature = self.s.SignatureDefT(
            inputs=[self._named(port.name, index) for port, index in zip(self.graph.inputs, inputs, strict=True)],
            outputs=[self._named(port.name, index) for port, index in zip(self.graph.outputs, outputs, strict=True)],
            signatureKey=SIGNATURE,
        )
        subgraph = self.s.SubGraphT(
            tensors=self._tensors, inputs=inputs, outputs=outputs, operators=self._operators, name="main"
        )
        model = self.s.ModelT(
            version=SCHEMA_VERSION,
            operatorCodes=[self._code(*key) for key in self._codes],
            subgraphs=[subgraph],
            description=f"{self.graph.name}, written by edgecnn",
            signatureDefs=[signature],
            buffers=self._buffers,
        )
        model.metadata = []
        for name, content in metadata.items():
            model.metadata.append(self.s.MetadataT(name=name, buffer=len(self._buffers)))
            self._buffers.append(AlignedBuffer(content))
        return pack(model, sum(buffer.data.nbytes for buffer in self._buffers))

    def _named(self, name: str, index: int) -> Any:
        return self.s.TensorMapT(name=name, tensorIndex=index)

    def _code(self, kind: str, version: int) -> Any:
        custom = self.s.BuiltinOperator.CUSTOM
        code = getattr(self.s.BuiltinOperator, kind, custom)
        name = kind if code == custom else None
        return self.s.OperatorCodeT(
            deprecatedBuiltinCode=min(code, 127), builtinCode=code, customCode=name, version=version
        )

    def _fused_name(self, node: Node) -> str:
        activation = getattr(node.op, "activation", None)
        name = FUSED.get(type(activation))
        if name is None:
            found = type(activation).__name__
            raise UnsupportedError(f"{node.name}: tflite fuses {', '.join(FUSED.values())}; got {found}")
        return name
