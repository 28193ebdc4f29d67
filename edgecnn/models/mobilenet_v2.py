"""MobileNet v2: inverted residuals with linear bottlenecks.

Source: Sandler et al., MobileNetV2, arXiv:1801.04381, table 2 (t expansion, c channels, n repeats, s stride):

    stem   conv 3x3, 32, s 2               224 -> 112
    t 1    c 16,  n 1, s 1                 112
    t 6    c 24,  n 2, s 2                 56
    t 6    c 32,  n 3, s 2                 28
    t 6    c 64,  n 4, s 2                 14
    t 6    c 96,  n 3, s 1                 14
    t 6    c 160, n 3, s 2                 7
    t 6    c 320, n 1, s 1                 7
    head   conv 1x1, 1280, average pooling, dropout, dense
"""

from dataclasses import dataclass

from edgecnn.builder import GraphBuilder, Initialiser
from edgecnn.graph import Graph
from edgecnn.models.blocks import classifier, finish, inverted_residual, round_channels, scale_repeats
from edgecnn.models.preprocessing import image_contract
from edgecnn.ops import ReLU6


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A run of inverted residuals; the stride belongs to the first."""

    expansion: int
    channels: int
    repeats: int
    stride: int


STEM_CHANNELS = 32
STAGES = (
    Stage(expansion=1, channels=16, repeats=1, stride=1),
    Stage(expansion=6, channels=24, repeats=2, stride=2),
    Stage(expansion=6, channels=32, repeats=3, stride=2),
    Stage(expansion=6, channels=64, repeats=4, stride=2),
    Stage(expansion=6, channels=96, repeats=3, stride=1),
    Stage(expansion=6, channels=160, repeats=3, stride=2),
    Stage(expansion=6, channels=320, repeats=1, stride=1),
)
HEAD_CHANNELS = 1280


def mobilenet_v2(
    *,
    width_multiplier: float = 1.0,
    depth_coefficient: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.2,
    head: str = "logits",
    initialise: Initialiser,
) -> Graph:
    """Build MobileNet v2: image (N, resolution, resolution, in_channels) -> logits (N, classes).

    300,774,272 MACs and 3,504,872 trainable parameters at width 1.0 and resolution 224. The head keeps 1280 channels
    below width 1.0, as the paper says (section 5).

    Args:
        width_multiplier: Scales every width, rounded to multiples of 8.
        depth_coefficient: Scales every stage's repeats, rounded up.
        resolution: Height and width of the input in pixels.
        classes: Number of logits.
        in_channels: 3 for colour, 1 for grey.
        dropout: Rate before the last layer.
        head: "logits" or "softmax".
        initialise: Gives each kernel its first values.
    """
    b = GraphBuilder("mobilenet_v2", initialise=initialise)
    x = b.input("image", (None, resolution, resolution, in_channels))
    x = b.conv_bn(x, "stem", round_channels(STEM_CHANNELS * width_multiplier), ReLU6(), kernel_size=3, stride=2)
    block = 0
    for stage in STAGES:
        channels = round_channels(stage.channels * width_multiplier)
        for repeat in range(scale_repeats(stage.repeats, depth_coefficient)):
            stride = stage.stride if repeat == 0 else 1
            x = inverted_residual(b, x, f"block_{block}", channels, expansion=stage.expansion, stride=stride)
            block += 1
    x = b.conv_bn(x, "head/conv", round_channels(HEAD_CHANNELS * max(1.0, width_multiplier)), ReLU6(), kernel_size=1)
    logits = classifier(b, x, classes=classes, dropout=dropout)
    return finish(b, logits, head=head, contract=image_contract(resolution, in_channels, head))
