"""One small Graph for each operator of the vocabulary: what every writer is tried on."""

from collections.abc import Callable

import numpy as np

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.graph import Graph

Make = Callable[[GraphBuilder, str], str]


def image_graph(make: Make, shape: tuple[int | None, ...] = (1, 9, 8, 4)) -> Graph:
    """Return input -> make -> output, deployed by nobody."""
    b = GraphBuilder("tried", initialise=he_normal(1))
    x = b.input("image", shape)
    return b.finish({"result": make(b, x)})


def windowed(kind: type[ops.MaxPool] | type[ops.AveragePool], padding: tuple[tuple[int, int], ...]) -> Make:
    return lambda b, x: b.node("y", kind(kernel_size=(3, 2), stride=(2, 2), padding=padding), x)


def binary(op: ops.Op, shape: tuple[int, ...]) -> Make:
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return lambda b, x: b.node("y", op, x, b.constant("other", values))


def grouped(b: GraphBuilder, x: str) -> str:
    return b.conv(x, "y", 6, kernel_size=3, groups=2, use_bias=True)


def multiplied_depthwise(b: GraphBuilder, x: str) -> str:
    return b.conv(x, "y", 8, kernel_size=3, groups=4, stride=2)


def fused(b: GraphBuilder, x: str) -> str:
    kernel = b.constant("kernel", he_normal(0)("k", (3, 3, 4, 5)))
    op = ops.Conv(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), activation=ops.ReLU6())
    return b.node("y", op, x, kernel)


def flattened_dense(b: GraphBuilder, x: str) -> str:
    x = b.conv(x, "c", 3, kernel_size=3)
    x = b.node("flat", ops.Reshape(shape=(None, ops.elements(b.shape(x)[1:]))), x)
    return b.dense(x, "y", 5)


def residual_after_flatten(b: GraphBuilder, x: str) -> str:
    """A flatten that a graph output sees: its order must be the Graph's."""
    x = b.conv(x, "c", 3, kernel_size=3)
    return b.node("y", ops.Reshape(shape=(None, ops.elements(b.shape(x)[1:]))), x)


def name_clash(b: GraphBuilder, x: str) -> str:
    """An inner tensor with the output port's name."""
    return b.node("y", ops.ReLU(), b.node("result", ops.Tanh(), x))


def squeeze_excite(b: GraphBuilder, x: str) -> str:
    pooled = b.node("pool", ops.Mean(axes=(1, 2), keep_dims=True), x)
    gate = b.node("gate", ops.Sigmoid(), b.conv(pooled, "squeeze", 4, kernel_size=1, use_bias=True))
    return b.node("y", ops.Mul(), x, gate)


GRAPHS: dict[str, Graph] = {
    "conv": image_graph(lambda b, x: b.conv(x, "y", 5, kernel_size=3, stride=2, use_bias=True)),
    "conv_valid": image_graph(lambda b, x: b.conv(x, "y", 5, kernel_size=3, padding="valid")),
    "conv_symmetric_padding": image_graph(
        lambda b, x: b.conv(x, "y", 5, kernel_size=3, stride=2, padding=((1, 1), (1, 1))), (1, 8, 8, 4)
    ),
    "conv_dilated": image_graph(lambda b, x: b.conv(x, "y", 5, kernel_size=3, dilation=2)),
    "conv_grouped": image_graph(grouped),
    "conv_depthwise": image_graph(lambda b, x: b.depthwise(x, "y", kernel_size=3, stride=2)),
    "conv_depthwise_multiplied": image_graph(multiplied_depthwise),
    "conv_depthwise_dilated": image_graph(lambda b, x: b.conv(x, "y", 4, kernel_size=3, groups=4, dilation=2)),
    "conv_fused": image_graph(fused),
    "conv_1d": image_graph(lambda b, x: b.conv(x, "y", 5, kernel_size=3, stride=2, use_bias=True), (1, 14, 3)),
    "conv_3d": image_graph(lambda b, x: b.conv(x, "y", 5, kernel_size=2, use_bias=True), (1, 5, 6, 7, 2)),
    "dense": image_graph(lambda b, x: b.dense(x, "y", 6), (1, 12)),
    "dense_over_more_axes": image_graph(lambda b, x: b.dense(x, "y", 6), (1, 3, 5, 4)),
    "flattened_dense": image_graph(flattened_dense),
    "flattened_output": image_graph(residual_after_flatten),
    "max_pool": image_graph(windowed(ops.MaxPool, ((0, 0), (0, 0)))),
    "max_pool_same": image_graph(windowed(ops.MaxPool, ((1, 1), (0, 0)))),
    "average_pool": image_graph(windowed(ops.AveragePool, ((0, 0), (0, 0)))),
    "average_pool_same": image_graph(windowed(ops.AveragePool, ((1, 1), (0, 0)))),
    "max_pool_1d": image_graph(
        lambda b, x: b.node("y", ops.MaxPool(kernel_size=(2,), stride=(2,), padding=((0, 0),)), x), (1, 14, 3)
    ),
    "mean": image_graph(lambda b, x: b.node("y", ops.Mean(axes=(1, 2)), x)),
    "mean_keep_dims": image_graph(lambda b, x: b.node("y", ops.Mean(axes=(1, 2), keep_dims=True), x)),
    "mean_of_height": image_graph(lambda b, x: b.node("y", ops.Mean(axes=(1,)), x)),
    "mean_of_batch_and_width": image_graph(lambda b, x: b.node("y", ops.Mean(axes=(0, 2)), x), (2, 9, 8, 4)),
    "mean_of_channels": image_graph(lambda b, x: b.node("y", ops.Mean(axes=(3,)), x)),
    "add": image_graph(lambda b, x: b.node("y", ops.Add(), x, x)),
    "add_channels": image_graph(binary(ops.Add(), (4,))),
    "add_scalar": image_graph(binary(ops.Add(), ())),
    "sub_row": image_graph(binary(ops.Sub(), (8, 4))),
    "mul_fused": image_graph(binary(ops.Mul(activation=ops.ReLU()), (1, 1, 1, 4))),
    "squeeze_excite": image_graph(squeeze_excite),
    "relu": image_graph(lambda b, x: b.node("y", ops.ReLU(), x)),
    "relu6": image_graph(lambda b, x: b.node("y", ops.ReLU6(), x)),
    "sigmoid": image_graph(lambda b, x: b.node("y", ops.Sigmoid(), x)),
    "tanh": image_graph(lambda b, x: b.node("y", ops.Tanh(), x)),
    "clip": image_graph(lambda b, x: b.node("y", ops.Clip(minimum=-0.5, maximum=0.25), x)),
    "softmax": image_graph(lambda b, x: b.node("y", ops.Softmax(), x), (1, 10)),
    "softmax_over_channels": image_graph(lambda b, x: b.node("y", ops.Softmax(), x)),
    "pad": image_graph(lambda b, x: b.node("y", ops.Pad(padding=((0, 0), (1, 2), (3, 0), (0, 1))), x)),
    "pad_with_value": image_graph(
        lambda b, x: b.node("y", ops.Pad(padding=((0, 0), (1, 2), (0, 0), (0, 0)), value=2.5), x)
    ),
    "reshape": image_graph(lambda b, x: b.node("y", ops.Reshape(shape=(None, 8, 9, 4)), x)),
    "transpose": image_graph(lambda b, x: b.node("y", ops.Transpose(permutation=(0, 2, 1, 3)), x)),
    "transpose_to_channels_first": image_graph(lambda b, x: b.node("y", ops.Transpose(permutation=(0, 3, 1, 2)), x)),
    "concat": image_graph(lambda b, x: b.node("y", ops.Concat(axis=3), x, b.node("r", ops.ReLU(), x), x)),
    "name_clash": image_graph(name_clash),
    "concat_height": image_graph(lambda b, x: b.node("y", ops.Concat(axis=1), x, x)),
}
"""Name -> Graph with the ports "image" and "result"."""
