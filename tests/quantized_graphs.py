"""One small quantized Graph for each operator that has an integer form: what every format and the golden are tried on.

Ranges come from running the float Graph on seeded inputs, so that the integers are well spread.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Node, Port, Tensor, validate
from edgecnn.quantization.parameters import Quantization, per_channel, per_tensor
from edgecnn.quantization.rules import FIXED_OUTPUT, SAME_SCALE, WEIGHTED
from edgecnn.shapes import same_padding
from tests.graphs import (
    Make,
    binary,
    gathered,
    grouped,
    image_graph,
    matrix_product,
    multiplied_depthwise,
    resized,
    split,
    transposed,
    unary,
    windowed,
)


def values(graph: Graph, seed: int = 0, batch: int | None = None) -> dict[str, Array]:
    """Return seeded float inputs of a Graph, a symbolic batch taken as 2."""
    rng = np.random.default_rng(seed)
    shapes = {port.name: graph.tensors[port.tensor].shape for port in graph.inputs}
    return {
        name: 2 * rng.standard_normal([batch or first or 2, *map(ops.known, rest)], dtype=np.float32)
        for name, (first, *rest) in shapes.items()
    }


def activation_parameters(low: float, high: float, dtype: str) -> Quantization:
    """Return what holds a range and zero: asymmetric in 8 bits, symmetric in 16."""
    low, high = min(low, 0.0), max(high, 1e-3)
    if dtype == "int16":
        return per_tensor(max(-low, high) / 32767, 0, dtype)
    scale, least = (high - low) / 255, int(np.iinfo(dtype).min)
    return per_tensor(scale, least + round(-low / scale), dtype)


def quantized(
    graph: Graph, *, activations: str = "int8", weights: str = "int8", is_per_channel: bool = True, seed: int = 0
) -> Graph:
    """Return the Graph with every float tensor quantized, ports included.

    Args:
        graph: A float Graph; each of its operators has an integer form.
        activations: "int8", "uint8" or "int16".
        weights: "int8", symmetric, or "uint8", asymmetric and per tensor.
        is_per_channel: Whether kernels of convolutions have one scale for each output channel.
        seed: Of the inputs that ranges come from.
    """
    tensors = {name: replace(t, quantization=None) for name, t in graph.tensors.items()}
    parameters = _activation_parameters(graph, activations, seed)
    for node in graph.nodes:
        if isinstance(node.op, WEIGHTED):
            kernel = tensors[node.inputs[1]]
            per_axis = is_per_channel and weights == "int8" and not isinstance(node.op, ops.Dense)
            parameters[kernel.name] = _kernel_parameters(kernel.value(), weights, per_axis)
            if len(node.inputs) > 2:
                of_input = parameters[node.inputs[0]]
                parameters[node.inputs[2]] = _bias_parameters(of_input, parameters[kernel.name])
    for name, found in parameters.items():
        data = tensors[name].data
        stored = None if data is None else found.quantize(data, low=-127 if found.dtype == "int8" else None)
        tensors[name] = replace(tensors[name], data=stored, quantization=found)
    result = replace(graph, tensors=tensors)
    validate(result)
    return result


def _activation_parameters(graph: Graph, dtype: str, seed: int) -> dict[str, Quantization]:
    """Return the quantization of every float tensor that is no kernel and no bias."""
    weighted = {name for node in graph.nodes if isinstance(node.op, WEIGHTED) for name in node.inputs[1:]}
    names = [name for name, t in graph.tensors.items() if t.dtype == "float32" and name not in weighted]
    found = execute(graph, values(graph, seed), fetch=names)
    group = {name: name for name in names}
    fixed: dict[str, Quantization] = {}
    for node in graph.nodes:
        members = [name for name in (*node.inputs, *node.outputs) if name in group]
        if type(node.op) in SAME_SCALE:
            joined = {group[name] for name in members}
            group = {name: group[members[0]] if own in joined else own for name, own in group.items()}
        if (type(node.op), dtype) in FIXED_OUTPUT:
            fixed[node.output] = FIXED_OUTPUT[type(node.op), dtype]
    parameters: dict[str, Quantization] = {}
    for leader in set(group.values()):
        own = [name for name in names if group[name] == leader]
        low, high = min(float(found[n].min()) for n in own), max(float(found[n].max()) for n in own)
        chosen = next((fixed[n] for n in own if n in fixed), activation_parameters(low, high, dtype))
        parameters.update(dict.fromkeys(own, chosen))
    return parameters


def _kernel_parameters(kernel: Array, dtype: str, per_axis: bool) -> Quantization:
    if dtype == "uint8":
        return activation_parameters(float(kernel.min()), float(kernel.max()), dtype)
    if per_axis:
        return per_channel(np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0) / 127, kernel.ndim - 1)
    return per_tensor(float(np.abs(kernel).max()) / 127)


def _bias_parameters(of_input: Quantization, of_kernel: Quantization) -> Quantization:
    scales = np.float32(of_input.scale[0]) * np.asarray(of_kernel.scale, np.float32)
    dtype = "int64" if of_input.dtype == "int16" else "int32"
    return per_tensor(float(scales[0]), 0, dtype) if of_kernel.axis is None else per_channel(scales, 0, dtype)


def with_float_ports(graph: Graph) -> Graph:
    """Return the Graph with a Quantize behind each port of its input and a Dequantize before each one of its output."""
    nodes, tensors = list(graph.nodes), dict(graph.tensors)
    inputs, outputs = [], []
    for port in graph.inputs:
        tensor = graph.tensors[port.tensor]
        tensors[f"{port.name}/float"] = Tensor(name=f"{port.name}/float", shape=tensor.shape)
        quantize = Node(
            name=f"{port.name}/quantize", op=ops.Quantize(), inputs=(f"{port.name}/float",), outputs=(tensor.name,)
        )
        nodes.insert(0, quantize)
        inputs.append(replace(port, tensor=f"{port.name}/float"))
    for port in graph.outputs:
        tensor = graph.tensors[port.tensor]
        tensors[f"{port.name}/float"] = Tensor(name=f"{port.name}/float", shape=tensor.shape)
        name = f"{port.name}/dequantize"
        nodes.append(Node(name=name, op=ops.Dequantize(), inputs=(tensor.name,), outputs=(f"{port.name}/float",)))
        outputs.append(replace(port, tensor=f"{port.name}/float"))
    result = replace(graph, nodes=tuple(nodes), tensors=tensors, inputs=tuple(inputs), outputs=tuple(outputs))
    validate(result)
    return result


def requantized(source: str, target: str) -> Graph:
    """A Quantize from integers to integers of another type, scale and zero point."""
    graph = image_graph(lambda b, x: b.node("y", ops.Quantize(), x))
    spread = {"int8": (0.031, -7), "uint8": (0.031, 121), "int16": (1e-4, 0)}
    onto = {"int8": (0.047, 11), "uint8": (0.047, 139), "int16": (3e-4, 0)}
    tensors = dict(graph.tensors)
    tensors["image"] = replace(tensors["image"], quantization=per_tensor(*spread[source], source))
    tensors["y"] = replace(tensors["y"], quantization=per_tensor(*onto[target], target))
    return replace(graph, tensors=tensors)


def weight_only(graph: Graph, *, is_dynamic: bool = False) -> Graph:
    """Return a float Graph with quantized kernels: behind Dequantize nodes, or (is_dynamic) right at the operator."""
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node.op, WEIGHTED):
            kernel = tensors[node.inputs[1]]
            found = _kernel_parameters(kernel.value(), "int8", not isinstance(node.op, ops.Dense))
            stored = replace(kernel, data=found.quantize(kernel.value(), low=-127), quantization=found)
            tensors[kernel.name] = stored
            if not is_dynamic:
                wide = Tensor(name=f"{kernel.name}/float", shape=kernel.shape)
                tensors[wide.name] = wide
                name = f"{kernel.name}/dequantize"
                nodes.append(Node(name=name, op=ops.Dequantize(), inputs=(kernel.name,), outputs=(wide.name,)))
                nodes.append(replace(node, inputs=(node.inputs[0], wide.name, *node.inputs[2:])))
                continue
        nodes.append(node)
    result = replace(graph, nodes=tuple(nodes), tensors=tensors)
    validate(result)
    return result


def biased(op: ops.Conv, kernel_shape: tuple[int, ...]) -> Make:
    """A convolution with a kernel and a bias that is not zero."""

    def make(b: GraphBuilder, x: str) -> str:
        kernel = b.constant("kernel", he_normal(0)("k", kernel_shape))
        return b.node("y", op, x, kernel, b.constant("bias", np.linspace(-1, 1, kernel_shape[-1], dtype=np.float32)))

    return make


def convolution(
    kernel_shape: tuple[int, ...],
    stride: int = 1,
    padding: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1)),
    *,
    dilation: int = 1,
    groups: int = 1,
    activation: ops.Activation | None = None,
) -> Make:
    op = ops.Conv(stride=(stride,) * 2, padding=padding, dilation=(dilation,) * 2, groups=groups, activation=activation)
    return biased(op, kernel_shape)


def dense(activation: ops.Activation | None = None, features: int = 6) -> Make:
    def make(b: GraphBuilder, x: str) -> str:
        kernel = b.constant("kernel", he_normal(0)("k", (b.shape(x)[-1] or 0, features)))
        bias = b.constant("bias", np.linspace(-1, 1, features, dtype=np.float32))
        return b.node("y", ops.Dense(activation=activation), x, kernel, bias)

    return make


def apart(b: GraphBuilder, x: str) -> str:
    """Return a computed tensor that is no multiple of x, with another scale where its reader allows one."""
    factors = np.linspace(-0.7, 0.4, b.shape(x)[-1] or 0, dtype=np.float32)
    return b.node("apart", ops.Mul(), x, b.constant("factors", factors))


def of_two(op: ops.Op) -> Make:
    return lambda b, x: b.node("y", op, x, apart(b, x))


def concatenated(b: GraphBuilder, x: str) -> str:
    return b.node("y", ops.Concat(axis=3), x, apart(b, x), x)


def _layer(
    b: GraphBuilder, x: str, name: str, out: int, size: int, stride: int = 1, *, groups: int = 1, relu: bool = True
) -> str:
    """A convolution with bias, its ReLU6 fused."""
    padding = tuple(same_padding(ops.known(n), size, stride=stride) for n in b.shape(x)[1:3])
    op = ops.Conv(
        stride=(stride,) * 2, padding=padding, dilation=(1, 1), groups=groups, activation=ops.ReLU6() if relu else None
    )
    kernel = b.constant(f"{name}/kernel", he_normal(0)(name, (size, size, (b.shape(x)[-1] or 0) // groups, out)))
    bias = b.constant(f"{name}/bias", np.random.default_rng(len(name)).normal(0, 0.3, out).astype(np.float32))
    return b.node(name, op, x, kernel, bias)


def mobile(b: GraphBuilder, x: str) -> str:
    """A residual MobileNet v2 in small: stem, two inverted bottlenecks, the second one residual, pooling, logits."""
    x = _layer(b, x, "stem", 8, 3, 2)
    x = _layer(b, x, "a/expand", 24, 1)
    x = _layer(b, x, "a/depthwise", 24, 3, 2, groups=24)
    x = shortcut = _layer(b, x, "a/project", 12, 1, relu=False)
    x = _layer(b, x, "bb/expand", 48, 1)
    x = _layer(b, x, "bb/depthwise", 48, 3, groups=48)
    x = b.add(shortcut, _layer(b, x, "bb/project", 12, 1, relu=False), "add")
    x = b.node("pool", ops.Mean(axes=(1, 2)), _layer(b, x, "head", 64, 1))
    return dense(features=10)(b, x)


SAME, NONE = ((1, 1), (1, 0)), ((0, 0), (0, 0))

FLOATS: dict[str, Graph] = {
    "conv": image_graph(convolution((3, 3, 4, 5), 2)),
    "conv_same": image_graph(convolution((3, 3, 4, 5), 2, ((1, 1), (0, 1)))),
    "conv_valid": image_graph(convolution((3, 3, 4, 5), 1, NONE)),
    "conv_padded_oddly": image_graph(convolution((3, 3, 4, 5), 1, ((2, 0), (0, 1)))),
    "conv_dilated": image_graph(convolution((3, 3, 4, 5), 1, ((2, 2), (2, 2)), dilation=2)),
    "conv_pointwise": image_graph(convolution((1, 1, 4, 7), 1, NONE)),
    "conv_without_bias": image_graph(lambda b, x: b.conv(x, "y", 5, kernel_size=3)),
    "conv_relu": image_graph(convolution((3, 3, 4, 5), activation=ops.ReLU())),
    "conv_relu6": image_graph(convolution((3, 3, 4, 40), activation=ops.ReLU6())),
    "conv_of_many_products": image_graph(convolution((3, 3, 96, 4)), (1, 5, 5, 96)),
    "conv_depthwise": image_graph(convolution((3, 3, 1, 4), 2, ((1, 1), (0, 1)), groups=4)),
    "conv_depthwise_multiplied": image_graph(multiplied_depthwise),
    "conv_depthwise_dilated": image_graph(convolution((3, 3, 1, 4), 1, ((2, 2), (2, 2)), dilation=2, groups=4)),
    "conv_depthwise_relu6": image_graph(convolution((3, 3, 1, 4), groups=4, activation=ops.ReLU6())),
    "conv_grouped": image_graph(grouped),
    "conv_transpose": image_graph(transposed((3, 2), (2, 1), NONE)),
    "conv_transpose_same": image_graph(transposed((3, 4), (2, 2), ((0, 1), (1, 1)))),
    "conv_transpose_without_bias": image_graph(transposed((2, 2), (2, 2), NONE, use_bias=False)),
    "dense": image_graph(dense(features=24), (2, 12)),
    "dense_relu": image_graph(dense(ops.ReLU(), 24), (2, 12)),
    "dense_over_more_axes": image_graph(dense(), (1, 3, 5, 4)),
    "add": image_graph(of_two(ops.Add())),
    "add_relu": image_graph(of_two(ops.Add(activation=ops.ReLU()))),
    "add_channels": image_graph(binary(ops.Add(), (4,))),
    "sub": image_graph(of_two(ops.Sub())),
    "mul": image_graph(of_two(ops.Mul())),
    "mul_relu6": image_graph(of_two(ops.Mul(activation=ops.ReLU6()))),
    "mul_channels": image_graph(binary(ops.Mul(), (1, 1, 1, 4))),
    "mul_scalar": image_graph(binary(ops.Mul(), ())),
    "maximum": image_graph(of_two(ops.Maximum())),
    "minimum": image_graph(of_two(ops.Minimum())),
    "minimum_channels": image_graph(binary(ops.Minimum(), (4,))),
    "mean": image_graph(unary(ops.Mean(axes=(1, 2))), (1, 9, 8, 40)),
    "mean_keep_dims": image_graph(unary(ops.Mean(axes=(1, 2), keep_dims=True)), (1, 9, 8, 40)),
    "mean_of_height": image_graph(unary(ops.Mean(axes=(1,)))),
    "mean_of_channels": image_graph(unary(ops.Mean(axes=(3,)))),
    "sum": image_graph(unary(ops.Sum(axes=(1, 2))), (1, 9, 8, 40)),
    "max": image_graph(unary(ops.Max(axes=(1, 2))), (1, 9, 8, 40)),
    "average_pool": image_graph(windowed(ops.AveragePool, NONE)),
    "average_pool_same": image_graph(windowed(ops.AveragePool, ((1, 1), (0, 0)))),
    "max_pool": image_graph(windowed(ops.MaxPool, NONE)),
    "max_pool_same": image_graph(windowed(ops.MaxPool, ((1, 1), (0, 0)))),
    "concat": image_graph(concatenated),
    "split": image_graph(split(3, (2, 2))),
    "slice": image_graph(unary(ops.Slice(begin=(0, 1, 0, 1), end=(None, 8, None, 3), step=(1, 1, 1, 1)))),
    "pad": image_graph(unary(ops.Pad(padding=((0, 0), (1, 2), (3, 0), (0, 1))))),
    "pad_with_value": image_graph(unary(ops.Pad(padding=((0, 0), (1, 2), (0, 0), (0, 0)), value=1.25))),
    "pad_reflect": image_graph(unary(ops.Pad(padding=((0, 0), (1, 2), (2, 0), (0, 0)), mode="reflect"))),
    "reshape": image_graph(unary(ops.Reshape(shape=(None, 8, 9, 4)))),
    "transpose": image_graph(unary(ops.Transpose(permutation=(0, 2, 1, 3)))),
    "resize_nearest": image_graph(resized((18, 16), "nearest", "half_pixel")),
    "resize_bilinear": image_graph(resized((18, 16), "bilinear", "half_pixel")),
    "resize_bilinear_align_corners": image_graph(resized((17, 15), "bilinear", "align_corners")),
    "depth_to_space": image_graph(unary(ops.DepthToSpace(block=2))),
    "space_to_depth": image_graph(unary(ops.SpaceToDepth(block=2)), (1, 6, 4, 3)),
    "gather": image_graph(gathered(3, [2, 0, 3, 3])),
    "relu": image_graph(unary(ops.ReLU())),
    "relu6": image_graph(unary(ops.ReLU6())),
    "leaky_relu": image_graph(unary(ops.LeakyReLU(slope=0.2))),
    "prelu": image_graph(binary(ops.PReLU(), (1, 1, 4))),
    "hard_swish": image_graph(unary(ops.HardSwish())),
    "hard_sigmoid": image_graph(unary(ops.HardSigmoid())),
    "elu": image_graph(unary(ops.ELU())),
    "sigmoid": image_graph(unary(ops.Sigmoid())),
    "tanh": image_graph(unary(ops.Tanh())),
    "swish": image_graph(lambda b, x: b.node("y", ops.Mul(), x, b.node("gate", ops.Sigmoid(), x))),
    "softmax": image_graph(unary(ops.Softmax()), (2, 10)),
    "softmax_over_channels": image_graph(unary(ops.Softmax())),
    "gelu": image_graph(unary(ops.GELU())),
    "gelu_approximate": image_graph(unary(ops.GELU(approximate=True))),
    "tile": image_graph(unary(ops.Tile(multiples=(1, 2, 1, 3)))),
    "matmul": image_graph(matrix_product((0, 2, 1)), (2, 5, 7)),
    "l2_normalize": image_graph(unary(ops.L2Normalize()), (3, 12)),
}
"""The float Graphs, ports "image" and "result"."""

MOBILE = image_graph(mobile, (1, 32, 32, 3))
LEGACY = ("conv", "conv_relu6", "conv_depthwise", "dense", "add", "mul", "mean", "average_pool", "max_pool", "concat")
IN_16_BITS = (
    *("conv", "conv_relu", "conv_depthwise", "conv_transpose", "dense", "add", "sub", "mul", "mean", "average_pool"),
    *("max_pool", "concat", "reshape", "sigmoid", "tanh", "softmax", "leaky_relu", "pad", "relu"),
)

GRAPHS: dict[str, Graph] = {
    **{name: quantized(graph) for name, graph in FLOATS.items()},
    **{
        f"{name}_per_tensor": quantized(FLOATS[name], is_per_channel=False)
        for name in ("conv", "conv_depthwise", "conv_transpose")
    },
    **{f"{name}_uint8": quantized(FLOATS[name], activations="uint8", weights="uint8") for name in LEGACY},
    **{f"{name}_int16": quantized(FLOATS[name], activations="int16") for name in IN_16_BITS},
    **{
        f"{op}_{kind}": weight_only(FLOATS[op], is_dynamic=kind == "dynamic_range")
        for op in ("conv", "conv_depthwise", "dense")
        for kind in ("weight_only", "dynamic_range")
    },
    "quantize_dequantize": with_float_ports(quantized(image_graph(unary(ops.Reshape(shape=(None, 8, 9, 4)))))),
    "requantize": requantized("int8", "int8"),
    "requantize_uint8_to_int8": requantized("uint8", "int8"),
    "requantize_int8_to_uint8": requantized("int8", "uint8"),
    "requantize_int16_to_int8": requantized("int16", "int8"),
    "mobile": quantized(MOBILE),
    "mobile_uint8": quantized(MOBILE, activations="uint8", weights="uint8"),
    "mobile_with_float_ports": with_float_ports(quantized(MOBILE)),
}
"""Name -> quantized Graph, ports "image" and "result"."""


def stored_values(graph: Graph, seed: int = 1) -> Mapping[str, Array]:
    """Return seeded inputs as the ports take them: integers where a port is quantized."""
    found = values(graph, seed)
    return {port.name: _stored(graph, port, found[port.name]) for port in graph.inputs}


def _stored(graph: Graph, port: Port, numbers: Array) -> Array:
    parameters = graph.tensors[port.tensor].quantization
    return numbers if parameters is None else parameters.quantize(numbers)
