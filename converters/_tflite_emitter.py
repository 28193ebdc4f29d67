"""Writes a Graph's tensors and operators into a TFLite subgraph."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Graph, Node, Tensor
from edgecnn.quantization.parameters import Quantization
from edgecnn.shapes import Padding, Shape

from ._tflite_elements import Elements, elements_of, of_bias, of_channels, stored
from ._tflite_sparse import compressed, is_sparse
from ._tflite_subgraph import Spec, TfliteSubgraph

__all__ = ["DEQUANTIZE", "Spec", "TfliteEmitter"]

SMALL_BYTES = 1 << 12
"""Constants up to here are shared where their numbers are equal, larger ones where they lie in the same place."""

EVERY = slice(None)

FUSED = {type(None): "NONE", ops.ReLU: "RELU", ops.ReLU6: "RELU6"}
"""Activation inside an operator -> ActivationFunctionType."""

DEQUANTIZE = Spec(kind="DEQUANTIZE", options="Dequantize")


class TfliteEmitter(TfliteSubgraph):
    """Adds tensors and operators for those of a Graph."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self._index: dict[str, int] = {}
        self._constants: dict[tuple[object, ...], tuple[int, Array]] = {}
        self._producers = {name: node for node in graph.nodes for name in node.outputs}

    def layer(self, node: Node, spec: Spec, inputs: Sequence[int]) -> None:
        """Add a node's operator, which carries no activation, and behind it the activation that the node has."""
        activation = getattr(node.op, "activation", None)
        if activation is not None:
            elements = self.elements(self.value(node.output))
            inputs = [self.step(f"{node.name}/linear", self.shape(node.output), spec, inputs, elements)]
            spec = Spec(kind=self._fused_name(node))
        self.operator(spec, inputs, [self.value(node.output)])

    def value(self, name: str) -> int:
        """Return the tensor index of a Graph tensor; a constant is added when it is first asked for."""
        if name not in self._index:
            tensor, constant = self.graph.tensors[name], self.constant_behind(name)
            if constant is None or constant.data is None:
                self._index[name] = self.tensor(name, tensor.shape, elements_of(tensor))
            else:
                self._index[name] = self.constant(name, constant.data, elements_of(tensor), constant.quantization)
        return self._index[name]

    def constant_behind(self, name: str) -> Tensor | None:
        """Return the constant that a tensor is, or whose integers a Dequantize makes it of."""
        node = self.producer(name)
        tensor = self.graph.tensors[node.inputs[0] if node and isinstance(node.op, ops.Dequantize) else name]
        return tensor if tensor.is_constant else None

    def constant(self, name: str, data: Array, elements: Elements, own: Quantization | None = None) -> int:
        """Add a constant, once for all that ask for the same numbers.

        Args:
            name: What it is called.
            data: As stored.
            elements: What the operators that take it see.
            own: How the data stand for numbers, where the elements do not say it: they are what a DEQUANTIZE makes.
        """
        place = data.tobytes() if data.nbytes <= SMALL_BYTES else data.__array_interface__["data"][0]
        key = (place, data.shape, data.strides if isinstance(place, int) else (), str(data.dtype), elements, own)
        if key not in self._constants:  # the data are held, so that their place is not given away
            self._constants[key] = (self._added(name, data, elements, own), data)
        return self._constants[key][0]

    def _added(self, name: str, data: Array, elements: Elements, own: Quantization | None) -> int:
        """Add a constant, a DENSIFY where it is stored sparse, and a DEQUANTIZE where it is stored narrower."""
        dtype = str(data.dtype)
        if dtype == stored(elements):
            return self._stored(name, data, elements)
        narrow = self._stored(f"{name}/{dtype}", data, own or dtype)
        return self.step(name, data.shape, DEQUANTIZE, [narrow], elements)

    def _stored(self, name: str, data: Array, elements: Elements) -> int:
        """Add a constant as it is stored; runtimes make a sparse one dense when they load the file."""
        if not is_sparse(data):
            return self.tensor(name, data.shape, elements, data)
        values, sparsity = compressed(np.ascontiguousarray(data), self.s)
        spared = self.tensor(f"{name}/sparse", data.shape, elements, values, sparsity)
        return self.step(name, data.shape, Spec(kind="DENSIFY", options="Densify"), [spared], elements)

    def kernel(
        self,
        node: Node,
        arrange: Callable[[Array], Array],
        *,
        axis: int = 0,
        part: slice = EVERY,
        label: str = "",
        is_wide: bool = False,
    ) -> int:
        """Return a layer's constant kernel in the format's own arrangement.

        Args:
            node: The layer.
            arrange: Gives the arrangement of a kernel whose last axis is that of the output channels.
            axis: Where the output channels lie in it.
            part: Which output channels.
            label: Follows its name.
            is_wide: Whether float numbers are made of its integers where the layer works on float numbers.
        """
        name = node.inputs[1]
        constant = self.constant_behind(name)
        if constant is None or constant.data is None:
            raise UnsupportedError(f"{node.name}: tflite wants a constant kernel; got a computed one")
        own = of_channels(constant.quantization, constant.data.ndim, axis, part, constant.name)
        is_float = is_wide and self.dtype(self.value(node.inputs[0])) == "float32"
        seen = "float32" if own is None or name != constant.name or is_float else own
        return self.constant(f"{constant.name}{label}", arrange(constant.data[..., part]), seen, own)

    def bias(self, node: Node, kernel: int, *, part: slice = EVERY, label: str = "") -> int:
        """Return a layer's bias; zeros where it has none, since operators without one need newer runtimes.

        Args:
            node: The layer.
            kernel: Its kernel.
            part: Which output channels.
            label: Follows its name.
        """
        wanted = of_bias(self.elements(self.value(node.inputs[0])), self.elements(kernel))
        name = node.operand("bias")
        if name is None:
            zeros = np.zeros(self.shape(node.output)[-1] or 0, stored(wanted))
            return self.constant(f"{node.name}/bias", zeros, wanted)
        constant = self.constant_behind(name)
        if constant is None or constant.data is None:
            if part == EVERY:
                return self.value(name)
            raise UnsupportedError(f"{node.name}: tflite wants a constant bias for groups; got a computed one")
        own = of_channels(constant.quantization, 1, 0, part, name)
        data, seen = constant.data[part], constant.dtype if own is None or name != constant.name else own
        if seen == own and own is not None and own.dtype != stored(wanted):
            # int32 behind int16: only of 64 bits does every runtime take it
            data, seen = data.astype(stored(wanted)), replace(own, dtype=stored(wanted))
        return self.constant(f"{name}{label}", data, seen, own)

    def integers(self, name: str, values: Sequence[int] | Sequence[Sequence[int]]) -> int:
        """Add an int32 constant."""
        return self.constant(name, np.asarray(values, np.int32), "int32")

    def scalar(self, name: str, value: float, elements: Elements = "float32") -> int:
        """Add a scalar; of quantized elements, the integer that stands for the value."""
        data = np.asarray(value, elements) if isinstance(elements, str) else elements.quantize(np.asarray(value))
        return self.constant(name, data, elements)

    def shape(self, name: str) -> Shape:
        """Return the shape of a Graph tensor."""
        return self.graph.tensors[name].shape

    def reshaped(self, source: int, name: str, shape: Shape, into: int | None = None) -> int:
        """Add a RESHAPE and return its output."""
        sizes = [-1 if size is None else size for size in shape]
        output = self.tensor(name, shape, self.elements(source)) if into is None else into
        spec = Spec(kind="RESHAPE", options="Reshape", fields={"newShape": sizes})
        self.operator(spec, [source, self.integers(f"{name}/shape", sizes)], [output])
        return output

    def padded(self, source: int, name: str, shape: Shape, padding: Padding, value: float = 0.0) -> int:
        """Add a PAD (or PADV2) over all axes of a tensor of this shape and return its output."""
        output = tuple(n if n is None else n + sum(p) for n, p in zip(shape, padding, strict=True))
        return self.step(f"{name}/padded", output, *self.padding(source, name, padding, value), self.elements(source))

    def padding(self, source: int, name: str, padding: Padding, value: float) -> tuple[Spec, list[int]]:
        """Return the operator that pads with a value, and its inputs."""
        inputs = [source, self.integers(f"{name}/padding", padding)]
        version = 4 if len(padding) > 4 else 1
        elements = self.elements(source)
        if (value if isinstance(elements, str) else elements.quantize(np.asarray(value)) - elements.zero_point[0]) == 0:
            return Spec(kind="PAD", options="Pad", version=version), inputs
        inputs.append(self.scalar(f"{name}/value", value, elements))
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
        ports = (self.graph.outputs, self.graph.inputs)
        outputs, inputs = ([(port.name, self.value(port.tensor)) for port in each] for each in ports)
        return self.packed(self.graph.name, inputs, outputs, metadata)

    def _fused_name(self, node: Node) -> str:
        activation = getattr(node.op, "activation", None)
        name = FUSED.get(type(activation))
        if name is None:
            found = type(activation).__name__
            raise UnsupportedError(f"{node.name}: tflite fuses {', '.join(FUSED.values())}; got {found}")
        return name
