"""One small Graph for each operator of the vocabulary: what every writer is tried on."""

from collections.abc import Callable
from typing import Any

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


def unary(op: ops.Op, *, is_positive: bool = False) -> Make:
    """An operator alone, or behind exp, which keeps roots and logarithms defined."""
    return lambda b, x: b.node("y", op, b.node("positive", ops.Exp(), x) if is_positive else x)


def power(b: GraphBuilder, x: str) -> str:
    return b.node(
        "y", ops.Pow(), b.node("positive", ops.Exp(), x), b.constant("other", np.array([0.5, 2, -1, 3], np.float32))
    )


def binary_then(op: ops.Op, value: float, then: ops.Op) -> Make:
    """Reach values far from zero before an operator."""
    return lambda b, x: b.node("y", then, b.node("far", op, x, b.constant("other", np.array(value, np.float32))))


def transposed(
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    *,
    dilation: tuple[int, ...] = (1, 1),
    output_padding: tuple[int, ...] = (0, 0),
    activation: ops.Activation | None = None,
    use_bias: bool = True,
    groups: int = 1,
    out_channels: int = 5,
) -> Make:
    op = ops.ConvTranspose(
        stride=stride,
        padding=padding,
        dilation=dilation,
        output_padding=output_padding,
        activation=activation,
        groups=groups,
    )

    def make(b: GraphBuilder, x: str) -> str:
        kernel = b.constant("kernel", he_normal(0)("k", (*kernel_size, (b.shape(x)[-1] or 0) // groups, out_channels)))
        bias = (b.constant("bias", np.linspace(-1, 1, out_channels, dtype=np.float32)),) if use_bias else ()
        return b.node("y", op, x, kernel, *bias)

    return make


def layer_norm(b: GraphBuilder, x: str) -> str:
    return layer_norm_named(b, x, "y")


def layer_norm_named(b: GraphBuilder, x: str, name: str) -> str:
    size = b.shape(x)[-1] or 0
    gamma, beta = (
        b.constant(name, np.linspace(low, 2, size, dtype=np.float32)) for name, low in (("g", 0.5), ("b", -1))
    )
    return b.node(name, ops.LayerNorm(epsilon=1e-2), x, gamma, beta)


def resized(size: tuple[int, ...], method: Any, coordinates: Any) -> Make:
    return lambda b, x: b.node("y", ops.Resize(size=size, method=method, coordinates=coordinates), x)


def padded_max_pool(make_input: Make) -> Make:
    """ResNet's pooling, whose padding is neither "same" nor "valid"."""
    op = ops.MaxPool(kernel_size=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1)))
    return lambda b, x: b.node("y", op, make_input(b, x))


def behind_conv(make: Make) -> Make:
    """An operator between two convolutions, where channels-first formats store its input channels first."""
    return lambda b, x: b.conv(make(b, b.conv(x, "before", 4, kernel_size=1)), "after", 3, kernel_size=1)


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


def reshaped_picture(b: GraphBuilder, x: str) -> str:
    """A picture that is computed channels-last and shown channels-first."""
    x = b.node("flat", ops.Reshape(shape=(None, 72, 4)), b.node("first", ops.ReLU(), x))
    return b.node("result", ops.Reshape(shape=(None, 9, 8, 4)), x)


def squeeze_excite(b: GraphBuilder, x: str) -> str:
    pooled = b.node("pool", ops.Mean(axes=(1, 2), keep_dims=True), x)
    gate = b.node("gate", ops.Sigmoid(), b.conv(pooled, "squeeze", 4, kernel_size=1, use_bias=True))
    return b.node("y", ops.Mul(), x, gate)


def squeeze_excite_of_keras(b: GraphBuilder, x: str) -> str:
    """Squeeze-excite as Keras Applications write it: pooled to a vector, dense layers, and an image of one position."""
    x = b.conv(x, "before", 4, kernel_size=1)
    squeezed = b.dense(b.node("pool", ops.Mean(axes=(1, 2)), x), "squeeze", 4)
    gate = b.node("gate", ops.HardSigmoid(), b.node("image_of_one", ops.Reshape(shape=(None, 1, 1, 4)), squeezed))
    x = b.node("scaled", ops.Mul(), x, gate)
    x = b.conv(b.node("pool_again", ops.Mean(axes=(1, 2), keep_dims=True), x), "after", 3, kernel_size=1)
    return b.node("y", ops.Reshape(shape=(None, 3)), x)


def inverted_bottleneck(b: GraphBuilder, x: str) -> str:
    """A ConvNeXt block: depthwise convolution, LayerNorm, two dense layers over the channels, residual."""
    y = b.node("scaled", ops.GELU(), b.dense(layer_norm_named(b, b.depthwise(x, "dw", kernel_size=7), "norm"), "up", 8))
    return b.add(x, b.dense(y, "down", 4), "y")


def group_norm(groups: int) -> Make:
    def make(b: GraphBuilder, x: str) -> str:
        size = b.shape(x)[-1] or 0
        gamma, beta = (np.linspace(low, 2, size, dtype=np.float32) for low in (0.5, -1))
        op = ops.GroupNorm(groups=groups, epsilon=1e-2)
        return b.node("y", op, x, b.constant("g", gamma), b.constant("b", beta))

    return make


def split(axis: int, sizes: tuple[int, ...]) -> Make:
    """The outputs in another order: the first and the last of them swap places."""

    def make(b: GraphBuilder, x: str) -> str:
        first, *inner, last = b.nodes(
            "y", ops.Split(axis=axis, sizes=sizes), (x,), [f"y{i}" for i in range(len(sizes))]
        )
        return b.node("joined", ops.Concat(axis=axis), last, *inner, b.node("r", ops.Tanh(), first))

    return make


def gathered(axis: int, indices: Any) -> Make:
    return lambda b, x: b.node("y", ops.Gather(axis=axis), x, b.constant("indices", np.array(indices, np.int64)))


def matrix_product(permutation: tuple[int, ...]) -> Make:
    """A product of a tensor and itself, turned."""
    return lambda b, x: b.node("y", ops.MatMul(), x, b.node("t", ops.Transpose(permutation=permutation), x))


def as_float(op: ops.Op) -> Make:
    """An operator whose result is no float, behind it a Cast to float32."""
    return lambda b, x: b.node("f", ops.Cast(dtype="float32"), b.node("y", op, x))


def cast_and_back(dtype: str) -> Make:
    """Numbers that every type holds: 0 to 100."""

    def make(b: GraphBuilder, x: str) -> str:
        far = b.node("far", ops.Mul(), b.node("gate", ops.Sigmoid(), x), b.constant("c", np.array(100, np.float32)))
        return as_float(ops.Cast(dtype=dtype))(b, far)

    return make


def chosen(op: ops.Op) -> Make:
    """A comparison, and what it chooses between."""

    def make(b: GraphBuilder, x: str) -> str:
        limit = b.constant("limit", np.array([0.5, 0, -0.25, -1], np.float32))
        clipped = b.node("clipped", ops.Maximum(), x, limit)
        return b.node("w", ops.Where(), b.node("y", op, clipped, limit), b.node("t", ops.Tanh(), x), limit)

    return make


def logical(op: ops.Op) -> Make:
    """Two booleans, the second one broadcast, and what they choose between."""

    def make(b: GraphBuilder, x: str) -> str:
        zero = b.constant("zero", np.array(0, np.float32))
        positive = b.node("positive", ops.Greater(), x, zero)
        mask = b.constant("mask", np.array([True, False, True, False]))
        found = b.node("y", op, positive) if isinstance(op, ops.Not) else b.node("y", op, positive, mask)
        return b.node("w", ops.Where(), found, x, zero)

    return make


def chosen_by_mask(b: GraphBuilder, x: str) -> str:
    mask = b.constant("mask", np.array([True, False, False, True]))
    return b.node("y", ops.Where(), mask, x, b.node("t", ops.Tanh(), x))


def detection(**options: Any) -> Make:
    """Boxes and scores out of one tensor (1, anchors, 4 + classes), and all four outputs in one (1, D, 6)."""

    def make(b: GraphBuilder, x: str) -> str:
        _, anchors, width = b.shape(x)
        op = ops.DetectionPostProcess(score_threshold=0.4, iou_threshold=0.5, scales=(10.0, 10.0, 5.0, 5.0), **options)
        boxes, scores = b.nodes("s", ops.Split(axis=2, sizes=(4, (width or 0) - 4)), (x,), ("boxes", "logits"))
        grid = np.stack([np.linspace(low, 0.8, anchors or 0) for low in (0.2, 0.5, 0.3, 0.4)], axis=1)
        inputs = (boxes, b.node("scores", ops.Sigmoid(), scores), b.constant("anchors", grid.astype(np.float32)))
        found, classes, best, count = b.nodes("y", op, inputs, ("found", "classes", "best", "count"))
        column = ops.Reshape(shape=(1, op.max_detections * op.max_classes, 1))
        parts = (found, b.node("column", column, classes), b.node("another", column, best))
        joined = b.node("joined", ops.Concat(axis=2), *parts)
        return b.node("counted", ops.Add(), joined, count) if op.max_classes == 1 else joined

    return make


OVER_VOLUMES: Any = {"kernel_size": (3, 2, 2), "stride": (2, 1, 2), "padding": ((1, 1), (1, 0), (0, 1))}

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
    "conv_of_1_strided_padded": image_graph(
        lambda b, x: b.conv(x, "y", 3, kernel_size=1, stride=2, padding=((1, 0), (1, 0))), (1, 8, 8, 4)
    ),
    "conv_of_1_strided_padded_3d": image_graph(
        lambda b, x: b.conv(x, "y", 3, kernel_size=1, stride=2, padding=((2, 1),) * 3), (1, 4, 5, 3, 2)
    ),
    "dense": image_graph(lambda b, x: b.dense(x, "y", 6), (1, 12)),
    "dense_over_more_axes": image_graph(lambda b, x: b.dense(x, "y", 6), (1, 3, 5, 4)),
    "dense_over_a_sequence": image_graph(lambda b, x: b.dense(x, "y", 6), (2, 5, 4)),
    "dense_over_a_volume": image_graph(lambda b, x: b.dense(x, "y", 6, use_bias=False), (1, 2, 3, 2, 4)),
    "inverted_bottleneck_of_dense": image_graph(inverted_bottleneck),
    "flattened_dense": image_graph(flattened_dense),
    "flattened_output": image_graph(residual_after_flatten),
    "max_pool": image_graph(windowed(ops.MaxPool, ((0, 0), (0, 0)))),
    "max_pool_same": image_graph(windowed(ops.MaxPool, ((1, 1), (0, 0)))),
    "average_pool": image_graph(windowed(ops.AveragePool, ((0, 0), (0, 0)))),
    "average_pool_same": image_graph(windowed(ops.AveragePool, ((1, 1), (0, 0)))),
    "max_pool_1d": image_graph(
        lambda b, x: b.node("y", ops.MaxPool(kernel_size=(2,), stride=(2,), padding=((0, 0),)), x), (1, 14, 3)
    ),
    "max_pool_3d": image_graph(lambda b, x: b.node("y", ops.MaxPool(**OVER_VOLUMES), x), (2, 5, 6, 7, 2)),
    "average_pool_3d": image_graph(
        lambda b, x: b.node("y", ops.AveragePool(**OVER_VOLUMES, activation=ops.ReLU()), x), (None, 5, 6, 7, 2)
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
    "squeeze_excite_of_keras": image_graph(squeeze_excite_of_keras),
    "relu": image_graph(lambda b, x: b.node("y", ops.ReLU(), x)),
    "relu6": image_graph(lambda b, x: b.node("y", ops.ReLU6(), x)),
    "sigmoid": image_graph(lambda b, x: b.node("y", ops.Sigmoid(), x)),
    "abs_of_pool": image_graph(
        lambda b, x: b.node("y", ops.Abs(), b.max_pool(b.conv(x, "c", 2, kernel_size=1), "p", kernel_size=2, stride=1))
    ),
    "identity": image_graph(lambda b, x: b.node("y", ops.Identity(), x)),
    "dropout": image_graph(lambda b, x: b.node("y", ops.Dropout(rate=0.5), x)),
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
    "reshaped_picture": image_graph(reshaped_picture),
    "name_clash": image_graph(name_clash),
    "concat_height": image_graph(lambda b, x: b.node("y", ops.Concat(axis=1), x, x)),
    "conv_transpose_valid": image_graph(transposed((3, 2), (2, 1), ((0, 0), (0, 0)))),
    "conv_transpose_same": image_graph(transposed((3, 4), (2, 2), ((0, 1), (1, 1)), use_bias=False)),
    "conv_transpose_sparse": image_graph(transposed((2, 2), (3, 3), ((0, 0), (0, 0)), output_padding=(1, 1))),
    "conv_transpose_cut": image_graph(transposed((3, 3), (2, 2), ((1, 1), (2, 0)), output_padding=(1, 0))),
    "conv_transpose_dilated": image_graph(transposed((3, 2), (1, 1), ((0, 1), (0, 0)), dilation=(2, 3))),
    "conv_transpose_fused": image_graph(transposed((2, 2), (2, 2), ((0, 0), (0, 0)), activation=ops.ReLU())),
    "conv_transpose_1d": image_graph(transposed((3,), (2,), ((0, 1),), dilation=(1,), output_padding=(0,)), (1, 7, 3)),
    "conv_transpose_3d": image_graph(
        transposed((2, 3, 2), (2, 2, 1), ((0, 0), (1, 0), (0, 0)), dilation=(1,) * 3, output_padding=(0,) * 3),
        (1, 3, 4, 3, 2),
    ),
    "conv_transpose_3d_same": image_graph(
        transposed((2,) * 3, (2,) * 3, ((0, 0),) * 3, dilation=(1,) * 3, output_padding=(0,) * 3, use_bias=False),
        (1, 3, 4, 3, 2),
    ),
    "conv_transpose_3d_fused": image_graph(
        transposed(
            *((3,) * 3, (2,) * 3, ((1, 1),) * 3),
            dilation=(1,) * 3,
            output_padding=(0,) * 3,
            activation=ops.ReLU(),
            groups=2,
            out_channels=4,
        ),
        (1, 3, 4, 3, 6),
    ),
    "layer_norm": image_graph(layer_norm, (2, 6, 12)),
    "layer_norm_of_features": image_graph(layer_norm, (2, 12)),
    "layer_norm_behind_conv": image_graph(behind_conv(layer_norm)),
    "lrn": image_graph(unary(ops.LRN(size=3, alpha=0.3, beta=0.6, bias=1.5))),
    "lrn_wider_than_the_channels": image_graph(unary(ops.LRN(size=11, alpha=0.1))),
    "div": image_graph(binary(ops.Div(activation=ops.ReLU6()), (4,))),
    "maximum": image_graph(binary(ops.Maximum(), (8, 4))),
    "maximum_fused": image_graph(binary(ops.Maximum(activation=ops.ReLU6()), (4,))),
    "minimum": image_graph(binary(ops.Minimum(), ())),
    "minimum_of_two": image_graph(lambda b, x: b.node("y", ops.Minimum(), x, b.node("t", ops.Tanh(), x))),
    "pow": image_graph(power),
    "leaky_relu": image_graph(unary(ops.LeakyReLU(slope=0.2))),
    "prelu": image_graph(binary(ops.PReLU(), (4,))),
    "prelu_of_channels": image_graph(binary(ops.PReLU(), (1, 1, 4))),
    "prelu_of_positions": image_graph(binary(ops.PReLU(), (9, 8, 4))),
    "prelu_of_features": image_graph(binary(ops.PReLU(), (12,)), (1, 12)),
    "prelu_of_sequence": image_graph(binary(ops.PReLU(), (7,)), (1, 7, 7)),
    "elu": image_graph(unary(ops.ELU())),
    "elu_scaled": image_graph(unary(ops.ELU(alpha=1.7))),
    "softplus": image_graph(binary_then(ops.Mul(), 40.0, ops.Softplus())),
    "swish": image_graph(unary(ops.Swish())),
    "hard_sigmoid": image_graph(unary(ops.HardSigmoid())),
    "hard_sigmoid_keras_2": image_graph(unary(ops.HardSigmoid(slope=0.2))),
    "hard_swish": image_graph(binary_then(ops.Mul(), 3.0, ops.HardSwish())),
    "gelu": image_graph(unary(ops.GELU())),
    "gelu_approximate": image_graph(unary(ops.GELU(approximate=True))),
    "gelu_before_mean": image_graph(lambda b, x: b.node("y", ops.Mean(axes=(1, 2)), b.node("g", ops.GELU(), x))),
    "sqrt": image_graph(unary(ops.Sqrt(), is_positive=True)),
    "exp": image_graph(unary(ops.Exp())),
    "log": image_graph(unary(ops.Log(), is_positive=True)),
    "sum": image_graph(unary(ops.Sum(axes=(1, 2)))),
    "sum_of_channels": image_graph(unary(ops.Sum(axes=(3,), keep_dims=True))),
    "max": image_graph(unary(ops.Max(axes=(1, 2)))),
    "max_keep_dims": image_graph(unary(ops.Max(axes=(1, 2), keep_dims=True))),
    "slice": image_graph(unary(ops.Slice(begin=(0, 1, 0, 1), end=(None, 8, None, 3), step=(1, 1, 1, 1)))),
    "slice_strided": image_graph(unary(ops.Slice(begin=(0, 1, 0, 0), end=(1, 9, 7, None), step=(1, 3, 2, 2)))),
    "slice_behind_conv": image_graph(
        behind_conv(unary(ops.Slice(begin=(0, 1, 2, 0), end=(None, 9, 8, None), step=(1, 1, 1, 1))))
    ),
    "resize_nearest": image_graph(resized((13, 5), "nearest", "half_pixel")),
    "resize_nearest_asymmetric": image_graph(resized((7, 13), "nearest", "asymmetric")),
    "resize_nearest_align_corners": image_graph(resized((14, 6), "nearest", "align_corners"), (1, 9, 7, 4)),
    "resize_bilinear": image_graph(resized((7, 5), "bilinear", "half_pixel"), (1, 5, 7, 3)),
    "resize_bilinear_asymmetric": image_graph(resized((5, 13), "bilinear", "asymmetric")),
    "resize_bilinear_align_corners": image_graph(resized((7, 5), "bilinear", "align_corners"), (1, 5, 7, 3)),
    "resize_doubled": image_graph(behind_conv(resized((8, 8), "bilinear", "half_pixel")), (1, 4, 4, 3)),
    "resize_1d": image_graph(resized((9,), "bilinear", "half_pixel"), (1, 7, 3)),
    "resize_of_any_batch": image_graph(resized((7, 5), "nearest", "half_pixel"), (None, 5, 7, 3)),
    "depth_to_space": image_graph(unary(ops.DepthToSpace(block=2)), (1, 3, 4, 12)),
    "space_to_depth": image_graph(unary(ops.SpaceToDepth(block=2)), (1, 6, 4, 3)),
    "max_pool_padded": image_graph(padded_max_pool(lambda b, x: x)),
    "max_pool_padded_behind_relu": image_graph(padded_max_pool(lambda b, x: b.node("r", ops.ReLU(), x))),
    "max_pool_padded_behind_fused": image_graph(
        padded_max_pool(lambda b, x: b.node("a", ops.Add(activation=ops.ReLU()), x, x))
    ),
    "average_pool_padded": image_graph(windowed(ops.AveragePool, ((2, 1), (0, 1)))),
    "matmul": image_graph(matrix_product((0, 2, 1)), (2, 5, 3)),
    "matmul_of_matrices": image_graph(matrix_product((1, 0)), (5, 3)),
    "matmul_of_heads": image_graph(matrix_product((0, 1, 3, 2)), (1, 2, 5, 3)),
    "matmul_broadcast": image_graph(
        lambda b, x: b.node("y", ops.MatMul(), x, b.node("one", ops.Mean(axes=(0,), keep_dims=True), x)), (2, 3, 3)
    ),
    "split": image_graph(split(3, (2, 2))),
    "split_unequal": image_graph(split(1, (2, 4, 3))),
    "split_behind_conv": image_graph(behind_conv(split(3, (1, 3)))),
    "gather": image_graph(gathered(3, [2, 0, 3, 3])),
    "gather_one": image_graph(gathered(1, 4)),
    "gather_more_axes": image_graph(gathered(1, [[0, 2, 1], [5, 5, 3]]), (2, 6, 3)),
    "tile": image_graph(unary(ops.Tile(multiples=(1, 2, 1, 3)))),
    "pad_reflect": image_graph(unary(ops.Pad(padding=((0, 0), (1, 2), (7, 0), (0, 3)), mode="reflect"))),
    "pad_edge": image_graph(unary(ops.Pad(padding=((0, 0), (1, 1), (1, 0), (0, 0)), mode="edge"))),
    "pad_edge_wide": image_graph(unary(ops.Pad(padding=((0, 0), (5, 2), (0, 20), (0, 1)), mode="edge"))),
    "group_norm": image_graph(group_norm(2)),
    "group_norm_of_one_group": image_graph(group_norm(1)),
    "group_norm_of_instances": image_graph(group_norm(4)),
    "group_norm_of_sequence": image_graph(group_norm(2), (2, 7, 6)),
    "group_norm_behind_conv": image_graph(behind_conv(group_norm(2))),
    "l2_normalize": image_graph(unary(ops.L2Normalize())),
    "l2_normalize_of_small": image_graph(binary_then(ops.Mul(), 1e-3, ops.L2Normalize(epsilon=2e-3))),
    "l2_normalize_of_features": image_graph(unary(ops.L2Normalize(epsilon=1e-12)), (2, 12)),
    "min": image_graph(unary(ops.Min(axes=(1, 2)))),
    "prod": image_graph(unary(ops.Prod(axes=(2,), keep_dims=True))),
    "argmax": image_graph(as_float(ops.ArgMax(axis=3))),
    "argmax_keep_dims": image_graph(as_float(ops.ArgMax(axis=1, keep_dims=True, dtype="int32"))),
    "cast_to_integers": image_graph(cast_and_back("int32")),
    "cast_to_long_integers": image_graph(cast_and_back("int64")),
    "cast_to_bytes": image_graph(cast_and_back("uint8")),
    "cast_to_bool": image_graph(cast_and_back("bool")),
    "greater": image_graph(chosen(ops.Greater())),
    "greater_or_equal": image_graph(chosen(ops.GreaterOrEqual())),
    "less": image_graph(chosen(ops.Less())),
    "less_or_equal": image_graph(chosen(ops.LessOrEqual())),
    "equal": image_graph(chosen(ops.Equal())),
    "and": image_graph(logical(ops.And())),
    "or": image_graph(logical(ops.Or())),
    "not": image_graph(logical(ops.Not())),
    "where_broadcast": image_graph(chosen_by_mask),
    "rsqrt": image_graph(unary(ops.Rsqrt(), is_positive=True)),
    "abs": image_graph(unary(ops.Abs())),
    "neg": image_graph(unary(ops.Neg())),
    "floor": image_graph(binary_then(ops.Mul(), 3.0, ops.Floor())),
    "ceil": image_graph(binary_then(ops.Mul(), 3.0, ops.Ceil())),
    "round": image_graph(binary_then(ops.Mul(), 3.0, ops.Round())),
    "round_halves": image_graph(
        lambda b, x: b.node(
            "y",
            ops.Round(),
            b.node("half", ops.Add(), b.node("f", ops.Floor(), x), b.constant("c", np.array(0.5, np.float32))),
        )
    ),
    "sin": image_graph(unary(ops.Sin())),
    "cos": image_graph(unary(ops.Cos())),
    "erf": image_graph(unary(ops.Erf())),
    "detection": image_graph(detection(max_detections=4, max_classes=1, classes=3), (1, 9, 7)),
    "detection_with_background": image_graph(detection(max_detections=3, max_classes=2, classes=3), (1, 12, 8)),
    "detection_per_class": image_graph(
        detection(max_detections=8, max_classes=1, classes=2, is_per_class=True, detections_per_class=4), (1, 12, 7)
    ),
    "conv_transpose_grouped": image_graph(transposed((3, 2), (2, 2), ((0, 1), (0, 0)), groups=2, out_channels=6)),
    "conv_transpose_depthwise": image_graph(
        transposed((3, 3), (2, 2), ((1, 1), (1, 1)), groups=12, out_channels=12, use_bias=False), (1, 4, 3, 12)
    ),
    "conv_transpose_of_many_groups": image_graph(
        transposed((2, 3), (3, 2), ((0, 3), (2, 0)), dilation=(2, 1), groups=9, out_channels=18), (1, 4, 3, 18)
    ),
    "conv_transpose_cut_deeply": image_graph(
        transposed((1, 2), (2, 2), ((1, 0), (2, 2)), output_padding=(1, 0), groups=9, out_channels=9), (1, 4, 5, 9)
    ),
    "conv_transpose_1d_depthwise": image_graph(
        transposed(
            *((3,), (2,), ((1, 0),)),
            dilation=(1,),
            output_padding=(0,),
            groups=10,
            out_channels=10,
            activation=ops.ReLU(),
        ),
        (1, 7, 10),
    ),
    "average_pool_counting_padding": image_graph(
        lambda b, x: b.node(
            "y", ops.AveragePool(kernel_size=(3, 2), stride=(2, 2), padding=((1, 1), (0, 1)), count_include_pad=True), x
        )
    ),
    "concat_of_many": image_graph(
        lambda b, x: b.node(
            "y", ops.Concat(axis=3), *(b.node(f"r{i}", ops.LeakyReLU(slope=i / 8), x) for i in range(8))
        )
    ),
    "resize_nearest_doubled": image_graph(behind_conv(resized((18, 16), "nearest", "half_pixel"))),
    "resize_nearest_tripled": image_graph(resized((27, 24), "nearest", "asymmetric")),
}
"""Name -> Graph with the ports "image" and "result"."""
