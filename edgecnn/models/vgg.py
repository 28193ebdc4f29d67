"""VGG-16: nothing but 3x3 convolutions and 2x2 poolings, each pooling followed by twice the channels.

Source: Simonyan and Zisserman, Very deep convolutional networks, arXiv:1409.1556, table 1, column D:

    stage 1  conv 3x3, 64 x 2,  pooling     224 -> 112
    stage 2  conv 3x3, 128 x 2, pooling     56
    stage 3  conv 3x3, 256 x 3, pooling     28
    stage 4  conv 3x3, 512 x 3, pooling     14
    stage 5  conv 3x3, 512 x 3, pooling     7
    head     dense 4096, dense 4096, dense
"""

from dataclasses import dataclass

from edgecnn.builder import GraphBuilder, Initialiser
from edgecnn.errors import UsageError
from edgecnn.graph import Graph
from edgecnn.models.blocks import dense_classifier, finish, round_channels
from edgecnn.models.preprocessing import CAFFE, image_contract
from edgecnn.ops import ReLU


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A run of convolutions, then a pooling."""

    channels: int
    repeats: int


STAGES = (
    Stage(channels=64, repeats=2),
    Stage(channels=128, repeats=2),
    Stage(channels=256, repeats=3),
    Stage(channels=512, repeats=3),
    Stage(channels=512, repeats=3),
)
DENSE_FEATURES = 4096
SMALLEST_RESOLUTION = 32


def vgg16(
    *,
    width_multiplier: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.5,
    head: str = "logits",
    initialise: Initialiser,
) -> Graph:
    """Build VGG-16: image (N, resolution, resolution, in_channels) -> logits (N, classes).

    15,470,264,320 MACs and 138,357,544 parameters at width 1.0 and resolution 224.

    Args:
        width_multiplier: Scales every width, rounded to multiples of 8.
        resolution: Height and width of the input in pixels, at least 32.
        classes: Number of logits.
        in_channels: 3 for colour, 1 for grey.
        dropout: Rate behind each dense layer but the last.
        head: "logits" or "softmax".
        initialise: Gives each kernel its first values.
    """
    if resolution < SMALLEST_RESOLUTION:
        raise UsageError(f"vgg16: resolution must be at least {SMALLEST_RESOLUTION}; got {resolution}")
    b = GraphBuilder("vgg16", initialise=initialise)
    x = b.input("image", (None, resolution, resolution, in_channels))
    for number, stage in enumerate(STAGES, 1):
        for repeat in range(1, stage.repeats + 1):
            name = f"stage_{number}/conv_{repeat}"
            x = b.conv(x, name, round_channels(stage.channels * width_multiplier), kernel_size=3, use_bias=True)
            x = b.activate(x, name, ReLU())
        x = b.max_pool(x, f"stage_{number}/pool", kernel_size=2, stride=2)
    features = round_channels(DENSE_FEATURES * width_multiplier)
    logits = dense_classifier(b, x, features=features, classes=classes, dropout=dropout)
    return finish(b, logits, head=head, contract=image_contract(resolution, in_channels, head, pixels=CAFFE))
