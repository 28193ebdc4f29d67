"""MobileNet v1: depthwise-separable convolutions, a width and a resolution to trade accuracy for speed.

Source: Howard et al., MobileNets, arXiv:1704.04861, table 1. Each row is one depthwise-separable block, a depthwise 3x3
and a pointwise 1x1 convolution, each with BatchNorm and ReLU6 (ReLU in the paper, ReLU6 in its released code):

    stem   conv 3x3, 32, stride 2          224 -> 112
    1      64                              112
    2-3    128 (stride 2), 128             56
    4-5    256 (stride 2), 256             28
    6-11   512 (stride 2), 512 x 5         14
    12-13  1024 (stride 2), 1024           7
    head   average pooling, dropout, dense
"""

from dataclasses import dataclass

from edgecnn.builder import GraphBuilder, Initialiser
from edgecnn.graph import Graph
from edgecnn.models.blocks import classifier, depthwise_bn, finish, scale_repeats
from edgecnn.models.preprocessing import image_contract
from edgecnn.ops import ReLU6


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A run of separable blocks; the stride belongs to the first."""

    channels: int
    repeats: int
    stride: int


STEM_CHANNELS = 32
STAGES = (
    Stage(channels=64, repeats=1, stride=1),
    Stage(channels=128, repeats=2, stride=2),
    Stage(channels=256, repeats=2, stride=2),
    Stage(channels=512, repeats=6, stride=2),
    Stage(channels=1024, repeats=2, stride=2),
)


def mobilenet_v1(
    *,
    width_multiplier: float = 1.0,
    depth_coefficient: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 1e-3,
    head: str = "logits",
    initialise: Initialiser,
) -> Graph:
    """Build MobileNet v1: image (N, resolution, resolution, in_channels) -> logits (N, classes).

    568,740,352 MACs and 4,231,976 trainable parameters at width 1.0 and resolution 224.

    Args:
        width_multiplier: Scales every width (the paper's alpha); fractions are cut off.
        depth_coefficient: Scales every stage's repeats, rounded up.
        resolution: Height and width of the input in pixels.
        classes: Number of logits.
        in_channels: 3 for colour, 1 for grey.
        dropout: Rate before the last layer.
        head: "logits" or "softmax".
        initialise: Gives each kernel its first values.
    """
    b = GraphBuilder("mobilenet_v1", initialise=initialise)
    x = b.input("image", (None, resolution, resolution, in_channels))
    x = b.conv_bn(x, "stem", max(1, int(STEM_CHANNELS * width_multiplier)), ReLU6(), kernel_size=3, stride=2)
    block = 0
    for stage in STAGES:
        for repeat in range(scale_repeats(stage.repeats, depth_coefficient)):
            block += 1
            stride = stage.stride if repeat == 0 else 1
            x = depthwise_bn(b, x, f"block_{block}/depthwise", kernel_size=3, stride=stride)
            channels = max(1, int(stage.channels * width_multiplier))
            x = b.conv_bn(x, f"block_{block}/pointwise", channels, ReLU6(), kernel_size=1)
    logits = classifier(b, x, classes=classes, dropout=dropout)
    return finish(b, logits, head=head, contract=image_contract(resolution, in_channels, head))
