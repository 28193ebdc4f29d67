"""Building blocks that several families share, and the rounding of their widths and repeats."""

from math import ceil

from edgecnn.builder import GraphBuilder
from edgecnn.contract import Contract
from edgecnn.errors import UsageError
from edgecnn.graph import Graph
from edgecnn.models.squeeze_excite import SqueezeExcite, squeeze_excite
from edgecnn.ops import Activation, Dropout, Mean, ReLU, ReLU6, Reshape, Softmax, elements

HEADS = ("logits", "softmax")


def round_channels(channels: float, divisor: int = 8) -> int:
    """Return the multiple of `divisor` nearest to a width, never more than 10 % below it.

    Source: tensorflow/models, research/slim/nets/mobilenet/mobilenet.py, make_divisible.

    >>> round_channels(32 * 0.35)
    16
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def scale_repeats(repeats: int, depth_coefficient: float) -> int:
    """Return how often a stage repeats its block in a deeper (or shallower) network: rounded up.

    Source: tensorflow/tpu, efficientnet_model.py, round_repeats.

    >>> scale_repeats(2, 1.2)
    3
    """
    return ceil(repeats * depth_coefficient)


def inverted_residual(
    b: GraphBuilder,
    x: str,
    name: str,
    out_channels: int,
    *,
    expansion: float,
    stride: int,
    kernel_size: int = 3,
    activation: Activation | None = None,
    excite: SqueezeExcite | None = None,
) -> str:
    """Add a linear bottleneck: expand 1x1, depthwise, squeeze-excite, project 1x1, and the residual.

    (N, H, W, C) -> (N, H / stride, W / stride, out_channels). The residual stands where the stride is 1 and the width
    is kept. Sources: Sandler et al., arXiv:1801.04381, table 1; Howard et al., arXiv:1905.02244, figure 4.

    Args:
        b: The network so far.
        x: Input tensor.
        name: Of the block; its layers are named name/expand, name/depthwise, name/se/..., name/project and name/add.
        out_channels: Of the projection.
        expansion: Inner width / input width, rounded to multiples of 8; 1 leaves the first convolution out.
        stride: Of the depthwise convolution.
        kernel_size: Of the depthwise convolution.
        activation: After the first two convolutions; ReLU6 unless given.
        excite: The squeeze-excite behind the depthwise convolution, if there is one.
    """
    shortcut, in_channels = x, int(b.shape(x)[-1] or 0)
    activation = activation or ReLU6()
    if expansion != 1:
        x = b.conv_bn(x, f"{name}/expand", round_channels(in_channels * expansion), activation, kernel_size=1)
    x = depthwise_bn(b, x, f"{name}/depthwise", kernel_size=kernel_size, stride=stride, activation=activation)
    if excite is not None:
        x = squeeze_excite(b, x, f"{name}/se", excite)
    x = b.conv_bn(x, f"{name}/project", out_channels, None, kernel_size=1)
    return b.add(shortcut, x, f"{name}/add") if stride == 1 and in_channels == out_channels else x


def depthwise_bn(
    b: GraphBuilder, x: str, name: str, *, kernel_size: int, stride: int, activation: Activation | None = None
) -> str:
    """Add depthwise convolution, BatchNorm and activation (ReLU6 unless given)."""
    x = b.batch_norm(b.depthwise(x, name, kernel_size=kernel_size, stride=stride), f"{name}/bn")
    return b.activate(x, name, activation or ReLU6())


def flatten(b: GraphBuilder, x: str, name: str) -> str:
    """Add the reshape to one axis: (N, H, W, C) -> (N, H * W * C)."""
    return b.node(name, Reshape(shape=(None, elements(b.shape(x)[1:]))), x)


def classifier(b: GraphBuilder, x: str, *, classes: int, dropout: float) -> str:
    """Add global average pooling, dropout and the dense layer: (N, H, W, C) -> logits (N, classes)."""
    x = b.node("head/pool", Mean(axes=(1, 2)), x)
    if dropout:
        x = b.node("head/dropout", Dropout(rate=dropout), x)
    return b.dense(x, "logits", classes)


def dense_classifier(b: GraphBuilder, x: str, *, features: int, classes: int, dropout: float) -> str:
    """Add the head before global pooling was known: flatten, two dense layers, logits; (N, H, W, C) -> (N, classes).

    Source: Krizhevsky et al., 2012, section 3.5; VGG took it over.
    """
    x = flatten(b, x, "head/flatten")
    for name in ("head/fc1", "head/fc2"):
        x = b.activate(b.dense(x, name, features), name, ReLU())
        if dropout:
            x = b.node(f"{name}/dropout", Dropout(rate=dropout), x)
    return b.dense(x, "logits", classes)


def finish(
    b: GraphBuilder, logits: str, *, head: str, contract: Contract | None, auxiliary: tuple[str, ...] = ()
) -> Graph:
    """Return the Graph with the head that was asked for: logits, or softmax for probabilities.

    Args:
        b: The network so far.
        logits: Its result.
        head: "logits" or "softmax".
        contract: What an app must know.
        auxiliary: Logits that only training uses; they get the same head, and ports of their tensors' names.
    """
    if head not in HEADS:
        raise UsageError(f"head must be one of {', '.join(HEADS)}; got {head!r}")
    if head == "logits":
        return b.finish({"logits": logits}, contract=contract, auxiliary={name: name for name in auxiliary})
    probabilities = {name: b.node(f"{name}/probabilities", Softmax(), name) for name in auxiliary}
    output = {"probabilities": b.node("probabilities", Softmax(), logits)}
    return b.finish(output, contract=contract, auxiliary=probabilities)
