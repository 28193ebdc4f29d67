"""EfficientNet: inverted residuals with squeeze-excite and swish, scaled in depth, width and resolution together.

Source: Tan and Le, EfficientNet, arXiv:1905.11946, table 1 (t expansion, k kernel, c channels, n repeats, s stride):

    stem     conv 3x3, 32, s 2               224 -> 112
    stage 1  t 1, k 3, c 16,  n 1, s 1       112
    stage 2  t 6, k 3, c 24,  n 2, s 2       56
    stage 3  t 6, k 5, c 40,  n 2, s 2       28
    stage 4  t 6, k 3, c 80,  n 3, s 2       14
    stage 5  t 6, k 5, c 112, n 3, s 1       14
    stage 6  t 6, k 5, c 192, n 4, s 2       7
    stage 7  t 6, k 3, c 320, n 1, s 1       7
    head     conv 1x1, 1280, average pooling, dropout, dense

Squeeze-excite narrows to a quarter of the block's input width (released code, se_ratio 0.25). Training's stochastic
depth is not part of the Graph. Counts are without the 7 numbers of Keras' Normalization layer: the contract holds them.

Keras Applications has the preprocessing inside: Rescaling(1/255), then Normalization. With weights="imagenet" the
stored variance is the standard deviation, so Normalization divides by its square root, and a third layer by the square
root once more: together (p / 255 - mean) / std, which is what the contract says. With weights=None Normalization is the
identity, and with a path the third layer is missing: then a network computes (p / 255 - mean) / sqrt(variance).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgecnn.builder import GraphBuilder, Initialiser
from edgecnn.graph import Graph
from edgecnn.models.blocks import classifier, finish, inverted_residual, round_channels, scale_repeats
from edgecnn.models.preprocessing import IMAGENET, Pixels, centre_crop_fraction, image_contract
from edgecnn.models.squeeze_excite import SqueezeExcite
from edgecnn.ops import Activation, Sigmoid, Swish

Network = Callable[..., Graph]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A run of inverted residuals; the stride belongs to the first."""

    expansion: int
    kernel_size: int
    channels: int
    repeats: int
    stride: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """One published size: coefficients, resolution in pixels and dropout."""

    name: str
    width: float
    depth: float
    resolution: int
    dropout: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """What tells EfficientNet and EfficientNet-Lite apart.

    Attributes:
        activation: Everywhere but in the gates.
        squeeze_ratio: Squeeze-excite width / block input width; 0 for none.
        is_fully_scaled: Whether stem, head and the repeats of the first and last stage are scaled too.
        pixels: How pixels enter.
    """

    activation: Activation
    squeeze_ratio: float
    is_fully_scaled: bool
    pixels: Pixels


STEM_CHANNELS = 32
STAGES = (
    Stage(expansion=1, kernel_size=3, channels=16, repeats=1, stride=1),
    Stage(expansion=6, kernel_size=3, channels=24, repeats=2, stride=2),
    Stage(expansion=6, kernel_size=5, channels=40, repeats=2, stride=2),
    Stage(expansion=6, kernel_size=3, channels=80, repeats=3, stride=2),
    Stage(expansion=6, kernel_size=5, channels=112, repeats=3, stride=1),
    Stage(expansion=6, kernel_size=5, channels=192, repeats=4, stride=2),
    Stage(expansion=6, kernel_size=3, channels=320, repeats=1, stride=1),
)
HEAD_CHANNELS = 1280

SCALES = (  # tensorflow/tpu, efficientnet_builder.py, efficientnet_params
    Scale(name="efficientnet_b0", width=1.0, depth=1.0, resolution=224, dropout=0.2),
    Scale(name="efficientnet_b1", width=1.0, depth=1.1, resolution=240, dropout=0.2),
    Scale(name="efficientnet_b2", width=1.1, depth=1.2, resolution=260, dropout=0.3),
    Scale(name="efficientnet_b3", width=1.2, depth=1.4, resolution=300, dropout=0.3),
    Scale(name="efficientnet_b4", width=1.4, depth=1.8, resolution=380, dropout=0.4),
    Scale(name="efficientnet_b5", width=1.6, depth=2.2, resolution=456, dropout=0.4),
    Scale(name="efficientnet_b6", width=1.8, depth=2.6, resolution=528, dropout=0.5),
    Scale(name="efficientnet_b7", width=2.0, depth=3.1, resolution=600, dropout=0.5),
)
STYLE = Style(activation=Swish(), squeeze_ratio=0.25, is_fully_scaled=True, pixels=IMAGENET)


def efficientnet(
    *,
    width_coefficient: float = 1.0,
    depth_coefficient: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.2,
    head: str = "logits",
    initialise: Initialiser,
) -> Graph:
    """Build an EfficientNet of any size: image (N, resolution, resolution, in_channels) -> logits (N, classes).

    385,814,752 MACs and 5,288,548 trainable parameters as B0. `phi` sets the first three together (compound_scaling).

    Args:
        width_coefficient: Scales every width, rounded to multiples of 8.
        depth_coefficient: Scales every stage's repeats, rounded up.
        resolution: Height and width of the input in pixels.
        classes: Number of logits.
        in_channels: 3 for colour, 1 for grey.
        dropout: Rate before the last layer.
        head: "logits" or "softmax".
        initialise: Gives each kernel its first values.
    """
    scale = Scale(
        name="efficientnet", width=width_coefficient, depth=depth_coefficient, resolution=resolution, dropout=dropout
    )
    return _build(scale, STYLE, classes=classes, in_channels=in_channels, head=head, initialise=initialise)


def published(scales: Sequence[Scale], style: Style) -> list[Network]:
    """Return the function that builds each published size, in the rows' order."""
    return [_published(scale, style) for scale in scales]


def _published(scale: Scale, style: Style) -> Network:
    def network(
        *,
        resolution: int = scale.resolution,
        classes: int = 1000,
        in_channels: int = 3,
        dropout: float = scale.dropout,
        head: str = "logits",
        initialise: Initialiser,
    ) -> Graph:
        chosen = replace(scale, resolution=resolution, dropout=dropout)
        return _build(chosen, style, classes=classes, in_channels=in_channels, head=head, initialise=initialise)

    network.__name__ = scale.name
    network.__doc__ = f"Build {scale.name}: width {scale.width}, depth {scale.depth}, {scale.resolution} pixels."
    return network


def _build(scale: Scale, style: Style, *, classes: int, in_channels: int, head: str, initialise: Initialiser) -> Graph:
    b = GraphBuilder(scale.name, initialise=initialise)
    end_width = scale.width if style.is_fully_scaled else 1.0
    x = b.input("image", (None, scale.resolution, scale.resolution, in_channels))
    x = b.conv_bn(x, "stem", round_channels(STEM_CHANNELS * end_width), style.activation, kernel_size=3, stride=2)
    for number, stage in enumerate(STAGES, 1):
        is_fixed = not style.is_fully_scaled and number in (1, len(STAGES))
        for repeat in range(stage.repeats if is_fixed else scale_repeats(stage.repeats, scale.depth)):
            x = inverted_residual(
                b,
                x,
                f"stage_{number}/block_{repeat + 1}",
                round_channels(stage.channels * scale.width),
                expansion=stage.expansion,
                stride=stage.stride if repeat == 0 else 1,
                kernel_size=stage.kernel_size,
                activation=style.activation,
                excite=_excite(style, int(b.shape(x)[-1] or 0)),
            )
    x = b.conv_bn(x, "head/conv", round_channels(HEAD_CHANNELS * end_width), style.activation, kernel_size=1)
    logits = classifier(b, x, classes=classes, dropout=scale.dropout)
    crop_fraction = centre_crop_fraction(scale.resolution)
    contract = image_contract(scale.resolution, in_channels, head, pixels=style.pixels, crop_fraction=crop_fraction)
    return finish(b, logits, head=head, contract=contract)


def _excite(style: Style, in_channels: int) -> SqueezeExcite | None:
    if not style.squeeze_ratio:
        return None
    channels = max(1, int(in_channels * style.squeeze_ratio))
    return SqueezeExcite(channels=channels, activation=style.activation, gate=Sigmoid())


(
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_b5,
    efficientnet_b6,
    efficientnet_b7,
) = published(SCALES, STYLE)
