"""Build a Graph node by node: shapes are inferred, names are made, parameters are initialised.

Readers and zoo models both build through GraphBuilder, so every Graph comes from one place.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from edgecnn.contract import Contract
from edgecnn.errors import GraphError, ShapeError
from edgecnn.graph import Array, Graph, Node, Port, Tensor, infer_shapes, validate
from edgecnn.ops import Activation, Add, AveragePool, BatchNorm, Conv, Dense, MaxPool, Op
from edgecnn.shapes import Padding, Shape, explicit_padding

Initialiser = Callable[[str, tuple[int, ...]], Array]
"""(tensor name, kernel shape with the output last) -> values."""


def he_normal(seed: int) -> Initialiser:
    """Return an initialiser: normal with variance 2 / fan_in, seeded by tensor name, so that order does not matter.

    Source: He et al., Delving Deep into Rectifiers, arXiv:1502.01852, equation 10.
    """

    def initialise(name: str, shape: tuple[int, ...]) -> Array:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        values = rng.standard_normal(shape, dtype=np.float32)
        values *= np.float32(np.sqrt(2.0 / prod(shape[:-1])))
        return values

    return initialise


def no_values(name: str, shape: tuple[int, ...]) -> Array:
    """Initialise with zeros that take no memory: enough for counting."""
    return np.broadcast_to(np.float32(0), shape)


class GraphBuilder:
    """Collects nodes and tensors; `finish` returns the validated Graph.

    Every method that adds a node takes the name of its input tensor and returns the name of its output tensor.

    >>> b = GraphBuilder("tiny", initialise=he_normal(0))
    >>> x = b.input("image", (None, 8, 8, 3))
    >>> x = b.conv(x, "stem", 16, kernel_size=3, stride=2, padding="same")
    >>> b.shape(x)
    (None, 4, 4, 16)
    """

    def __init__(self, name: str, *, initialise: Initialiser, batch_norm: BatchNorm | None = None) -> None:
        """Start an empty Graph.

        Args:
            name: What the artifacts are called.
            initialise: Gives each kernel its first values.
            batch_norm: Epsilon and momentum of the network's BatchNorms; 1e-3 and 0.99 unless given.
        """
        self.name = name
        self._initialise = initialise
        self._batch_norm = batch_norm or BatchNorm()
        self._nodes: list[Node] = []
        self._tensors: dict[str, Tensor] = {}
        self._inputs: list[Port] = []

    def shape(self, tensor: str) -> Shape:
        """Return the shape of a tensor added before."""
        return self._tensors[tensor].shape

    def dtype(self, tensor: str) -> str:
        """Return the element type of a tensor added before."""
        return self._tensors[tensor].dtype

    def input(self, name: str, shape: Shape, *, dtype: str = "float32", layout: str | None = None) -> str:
        """Add an input port and its tensor."""
        self._add(Tensor(name=name, shape=shape, dtype=dtype))
        self._inputs.append(Port(name=name, tensor=name, layout=layout))
        return name

    def constant(self, name: str, data: Array) -> str:
        """Add a constant."""
        self._add(Tensor(name=name, shape=data.shape, dtype=str(data.dtype), data=data))
        return name

    def node(self, name: str, op: Op, *inputs: str) -> str:
        """Add a node with one output, which takes the node's name."""
        return self.nodes(name, op, inputs, (name,))[0]

    def nodes(self, name: str, op: Op, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
        """Add a node with outputs of these names."""
        node = Node(name=name, op=op, inputs=tuple(inputs), outputs=tuple(outputs))
        shapes = infer_shapes(node, tuple(self.shape(i) for i in inputs))
        dtype = op.output_dtype([self._tensors[i].dtype for i in inputs])
        if len(shapes) != len(node.outputs):
            raise GraphError(f"{name}: {len(shapes)} outputs were wanted; got {len(node.outputs)}")
        for output, shape in zip(node.outputs, shapes, strict=True):
            self._add(Tensor(name=output, shape=shape, dtype=dtype))
        self._nodes.append(node)
        return node.outputs

    def conv(
        self,
        x: str,
        name: str,
        out_channels: int,
        *,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | Padding = "same",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = False,
    ) -> str:
        """Add a convolution with fresh parameters over as many dimensions as the input has."""
        *spatial, in_channels = self.shape(x)[1:]
        rank = len(spatial)
        kernel_size, stride, dilation = (spread(v, rank) for v in (kernel_size, stride, dilation))
        sizes = [int(n or 0) for n in spatial]
        op = Conv(
            stride=stride,
            dilation=dilation,
            groups=groups,
            padding=explicit_padding(padding, sizes, kernel_size, stride, dilation),
        )
        kernel = self.constant(
            f"{name}/kernel", self._initialise(name, (*kernel_size, int(in_channels or 0) // groups, out_channels))
        )
        return self.node(name, op, x, kernel, *self._bias(name, out_channels, use_bias))

    def depthwise(self, x: str, name: str, *, kernel_size: int | Sequence[int], stride: int | Sequence[int] = 1) -> str:
        """Add a depthwise convolution: one filter for each channel, no bias, padding "same"."""
        channels = int(self.shape(x)[-1] or 0)
        return self.conv(x, name, channels, kernel_size=kernel_size, stride=stride, groups=channels)

    def dense(self, x: str, name: str, out_features: int, *, use_bias: bool = True) -> str:
        """Add a dense layer over the last axis with fresh parameters."""
        kernel = self.constant(f"{name}/kernel", self._initialise(name, (int(self.shape(x)[-1] or 0), out_features)))
        return self.node(name, Dense(), x, kernel, *self._bias(name, out_features, use_bias))

    def batch_norm(self, x: str, name: str) -> str:
        """Add a BatchNorm that starts as (almost) the identity."""
        starts = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0}
        shape = (int(self.shape(x)[-1] or 0),)
        operands = [self.constant(f"{name}/{k}", np.full(shape, v, np.float32)) for k, v in starts.items()]
        return self.node(name, self._batch_norm, x, *operands)

    def conv_bn(
        self,
        x: str,
        name: str,
        out_channels: int,
        activation: Activation | None,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: str | Padding = "same",
        use_bias: bool = False,
    ) -> str:
        """Add convolution, BatchNorm and (unless None) activation, named name, name/bn and name/relu6."""
        x = self.conv(x, name, out_channels, kernel_size=kernel_size, stride=stride, padding=padding, use_bias=use_bias)
        x = self.batch_norm(x, f"{name}/bn")
        return x if activation is None else self.activate(x, name, activation)

    def max_pool(self, x: str, name: str, *, kernel_size: int, stride: int, padding: str | Padding = "valid") -> str:
        """Add max pooling over as many dimensions as the input has."""
        window = self._window(x, kernel_size, stride, padding)
        return self.node(name, MaxPool(kernel_size=window[0], stride=window[1], padding=window[2]), x)

    def average_pool(
        self, x: str, name: str, *, kernel_size: int, stride: int, padding: str | Padding = "valid"
    ) -> str:
        """Add average pooling over as many dimensions as the input has."""
        window = self._window(x, kernel_size, stride, padding)
        return self.node(name, AveragePool(kernel_size=window[0], stride=window[1], padding=window[2]), x)

    def activate(self, x: str, name: str, activation: Activation) -> str:
        """Add an activation named after the layer that it follows: name/relu6."""
        return self.node(f"{name}/{type(activation).__name__.lower()}", activation, x)

    def add(self, a: str, b: str, name: str) -> str:
        """Add the elementwise sum of two tensors."""
        return self.node(name, Add(), a, b)

    def finish(
        self,
        outputs: Mapping[str, str],
        *,
        contract: Contract | None = None,
        auxiliary: Mapping[str, str] | None = None,
    ) -> Graph:
        """Return the validated Graph.

        Args:
            outputs: Port name -> tensor.
            contract: What an app must know.
            auxiliary: Port name -> tensor of the outputs that only training uses.
        """
        ports = [Port(name=name, tensor=tensor) for name, tensor in outputs.items()]
        ports += [Port(name=name, tensor=tensor, is_auxiliary=True) for name, tensor in (auxiliary or {}).items()]
        graph = Graph(
            name=self.name,
            nodes=tuple(self._nodes),
            tensors=self._tensors,
            inputs=tuple(self._inputs),
            outputs=tuple(ports),
            contract=contract,
        )
        validate(graph)
        return graph

    def _window(
        self, x: str, kernel_size: int, stride: int, padding: str | Padding
    ) -> tuple[tuple[int, ...], tuple[int, ...], Padding]:
        sizes = [int(size or 0) for size in self.shape(x)[1:-1]]
        kernel, step = spread(kernel_size, len(sizes)), spread(stride, len(sizes))
        return kernel, step, explicit_padding(padding, sizes, kernel, step, spread(1, len(sizes)))

    def _bias(self, name: str, size: int, use_bias: bool) -> tuple[str, ...]:
        return (self.constant(f"{name}/bias", np.zeros(size, np.float32)),) if use_bias else ()

    def _add(self, tensor: Tensor) -> None:
        if tensor.name in self._tensors:
            raise GraphError(f"{self.name}: two tensors are named '{tensor.name}'")
        self._tensors[tensor.name] = tensor


def spread(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """Return one number for each of `rank` spatial dimensions.

    >>> spread(3, 2)
    (3, 3)
    """
    numbers = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(numbers) != rank:
        raise ShapeError(f"one number, or one for each of {rank} dimensions was wanted; got {numbers}")
    return numbers
