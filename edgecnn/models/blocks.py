"""Building blocks that several families share, and the rounding of their widths."""

from edgecnn.builder import GraphBuilder
from edgecnn.contract import Contract
from edgecnn.errors import UsageError
from edgecnn.graph import Graph
from edgecnn.ops import Dropout, Mean, ReLU6, Softmax

HEADS = ("logits", "softmax")


def round_channels(channels: float, divisor: int = 8) -> int:
    """Return the multiple of `divisor` nearest to a width, never more than 10 % below it.

    Source: tensorflow/models, research/slim/nets/mobilenet/mobilenet.py, make_divisible.

    >>> round_channels(32 * 0.35)
    16
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def inverted_residual(
    b: GraphBuilder, x: str, name: str, out_channels: int, *, expansion: int, stride: int, kernel_size: int = 3
) -> str:
    """Add a linear bottleneck: expand 1x1, depthwise, project 1x1, and the residual where the shape is kept.

    (N, H, W, C) -> (N, H / stride, W / stride, out_channels). Source: Sandler et al., arXiv:1801.04381, table 1.
    """
    shortcut, in_channels = x, b.shape(x)[-1] or 0
    if expansion != 1:
        x = b.conv_bn(x, f"{name}/expand", in_channels * expansion, ReLU6(), kernel_size=1)
    x = depthwise_bn(b, x, f"{name}/depthwise", kernel_size=kernel_size, stride=stride)
    x = b.conv_bn(x, f"{name}/project", out_channels, None, kernel_size=1)
    return b.add(shortcut, x, f"{name}/add") if b.shape(x) == b.shape(shortcut) else x


def depthwise_bn(b: GraphBuilder, x: str, name: str, *, kernel_size: int, stride: int) -> str:
    """Add depthwise convolution, BatchNorm and ReLU6."""
    x = b.batch_norm(b.depthwise(x, name, kernel_size=kernel_size, stride=stride), f"{name}/bn")
    return b.activate(x, name, ReLU6())


def classifier(b: GraphBuilder, x: str, *, classes: int, dropout: float) -> str:
    """Add global average pooling, dropout and the dense layer: (N, H, W, C) -> logits (N, classes)."""
    x = b.node("head/pool", Mean(axes=(1, 2)), x)
    if dropout:
        x = b.node("head/dropout", Dropout(rate=dropout), x)
    return b.dense(x, "logits", classes)


def finish(b: GraphBuilder, logits: str, *, head: str, contract: Contract | None) -> Graph:
    """Return the Graph with the head that was asked for: logits, or softmax for probabilities."""
    if head not in HEADS:
        raise UsageError(f"head must be one of {', '.join(HEADS)}; got {head!r}")
    if head == "logits":
        return b.finish({"logits": logits}, contract=contract)
    return b.finish({"probabilities": b.node("probabilities", Softmax(), logits)}, contract=contract)


def image_contract(resolution: int, in_channels: int, head: str, *, crop_fraction: float = 0.875) -> Contract | None:
    """Return the contract of an image classifier that takes -1..1; None where the input is no picture (channels)."""
    if in_channels not in (1, 3):
        return None
    return Contract(
        height=resolution,
        width=resolution,
        colour_order="GRAY" if in_channels == 1 else "RGB",
        mean=(127.5,) * in_channels,
        std=(127.5,) * in_channels,
        crop_fraction=crop_fraction,
        output="probabilities" if head == "softmax" else "logits",
    )
