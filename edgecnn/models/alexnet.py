"""AlexNet: the network that won ImageNet 2012, its two GPUs kept as two groups.

Source: Krizhevsky et al., ImageNet classification with deep convolutional neural networks, 2012, section 3.5, figure 2;
227 pixels for the 224 that the paper prints, which do not give its 55 x 55:

    conv_1  11x11, 96, stride 4, valid           227 -> 55   ReLU, LRN, pooling 3x3 stride 2 -> 27
    conv_2  5x5, 256, 2 groups                   27          ReLU, LRN, pooling 3x3 stride 2 -> 13
    conv_3  3x3, 384                             13          ReLU
    conv_4  3x3, 384, 2 groups                   13          ReLU
    conv_5  3x3, 256, 2 groups                   13          ReLU, pooling 3x3 stride 2 -> 6
    head    dense 4096, dense 4096, dense        each of the first two with ReLU and dropout
"""

from dataclasses import dataclass

from edgecnn.builder import GraphBuilder, Initialiser
from edgecnn.errors import UsageError
from edgecnn.graph import Graph
from edgecnn.models.blocks import dense_classifier, finish, round_channels
from edgecnn.models.preprocessing import MEAN_ONLY, image_contract
from edgecnn.ops import LRN, ReLU


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One convolution with ReLU, and what follows it."""

    kernel_size: int
    channels: int
    stride: int = 1
    padding: str = "same"
    groups: int = 1
    has_norm: bool = False
    has_pool: bool = False


LAYERS = (
    Layer(kernel_size=11, channels=96, stride=4, padding="valid", has_norm=True, has_pool=True),
    Layer(kernel_size=5, channels=256, groups=2, has_norm=True, has_pool=True),
    Layer(kernel_size=3, channels=384),
    Layer(kernel_size=3, channels=384, groups=2),
    Layer(kernel_size=3, channels=256, groups=2, has_pool=True),
)
DENSE_FEATURES = 4096
NORM = LRN(size=5, alpha=1e-4, beta=0.75, bias=2.0)  # section 3.3
SMALLEST_RESOLUTION = 67


def alexnet(
    *,
    width_multiplier: float = 1.0,
    resolution: int = 227,
    classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.5,
    head: str = "logits",
    initialise: Initialiser,
) -> Graph:
    """Build AlexNet: image (N, resolution, resolution, in_channels) -> logits (N, classes).

    724,406,816 MACs and 60,965,224 parameters at width 1.0 and resolution 227.

    Args:
        width_multiplier: Scales every width, rounded to multiples of 8.
        resolution: Height and width of the input in pixels, at least 67.
        classes: Number of logits.
        in_channels: 3 for colour, 1 for grey.
        dropout: Rate behind each dense layer but the last.
        head: "logits" or "softmax".
        initialise: Gives each kernel its first values.
    """
    if resolution < SMALLEST_RESOLUTION:
        raise UsageError(f"alexnet: resolution must be at least {SMALLEST_RESOLUTION}; got {resolution}")
    b = GraphBuilder("alexnet", initialise=initialise)
    x = b.input("image", (None, resolution, resolution, in_channels))
    for number, layer in enumerate(LAYERS, 1):
        x = _layer(b, x, f"conv_{number}", layer, round_channels(layer.channels * width_multiplier))
    features = round_channels(DENSE_FEATURES * width_multiplier)
    logits = dense_classifier(b, x, features=features, classes=classes, dropout=dropout)
    return finish(b, logits, head=head, contract=image_contract(resolution, in_channels, head, pixels=MEAN_ONLY))


def _layer(b: GraphBuilder, x: str, name: str, layer: Layer, channels: int) -> str:
    x = b.conv(
        x,
        name,
        channels,
        kernel_size=layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        use_bias=True,
    )
    x = b.activate(x, name, ReLU())
    if layer.has_norm:
        x = b.node(f"{name}/lrn", NORM, x)
    return b.max_pool(x, f"{name}/pool", kernel_size=3, stride=2) if layer.has_pool else x
