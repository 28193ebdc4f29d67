"""ResNet: each block learns what to add to its input, so that depth no longer hurts.

Source: He et al., Deep residual learning, arXiv:1512.03385, table 1 (blocks per stage; 18 and 34 with two 3x3
convolutions per block, 50 with the bottleneck 1x1, 3x3, 1x1 to four times the width):

    stem     conv 7x7, 64, stride 2; pooling 3x3, stride 2     224 -> 56
                        ResNet-18  ResNet-34  ResNet-50
    stage 1  64         2          3          3                56
    stage 2  128        2          4          4                28
    stage 3  256        2          6          6                14
    stage 4  512        2          3          3                7
    head     average pooling, dense

The stride belongs to a stage's first block, whose shortcut then is a 1x1 convolution (option B). ResNet-50 is v1 as in
the paper and keras.applications.resnet: stride on the first 1x1, biases, epsilon 1.001e-5, BGR pixels. ResNet-18 and 34
are as torchvision builds them: no biases, epsilon 1e-5.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edgecnn.builder import GraphBuilder, Initialiser
from edgecnn.graph import Graph
from edgecnn.models.blocks import classifier, finish, round_channels
from edgecnn.models.preprocessing import CAFFE, IMAGENET, Pixels, image_contract
from edgecnn.ops import BatchNorm, ReLU

Network = Callable[..., Graph]
WIDTHS = (64, 128, 256, 512)
BOTTLENECK_EXPANSION = 4
BOTH_SIDES = ((1, 1), (1, 1))
"""Padding of the 3x3 convolutions: symmetric also under a stride, as in Caffe and torchvision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One published depth.

    Attributes:
        name: Of the network.
        repeats: Blocks of each stage.
        is_bottleneck: Whether blocks are 1x1, 3x3, 1x1; else 3x3, 3x3.
        use_bias: Of the convolutions, before their BatchNorm.
        epsilon: Of the BatchNorms.
        momentum: Of the BatchNorms.
        pixels: How pixels enter.
    """

    name: str
    repeats: tuple[int, int, int, int]
    is_bottleneck: bool
    use_bias: bool
    epsilon: float
    momentum: float
    pixels: Pixels


VARIANTS = (
    Variant(
        name="resnet18",
        repeats=(2, 2, 2, 2),
        is_bottleneck=False,
        use_bias=False,
        epsilon=1e-5,
        momentum=0.9,
        pixels=IMAGENET,
    ),
    Variant(
        name="resnet34",
        repeats=(3, 4, 6, 3),
        is_bottleneck=False,
        use_bias=False,
        epsilon=1e-5,
        momentum=0.9,
        pixels=IMAGENET,
    ),
    Variant(
        name="resnet50",
        repeats=(3, 4, 6, 3),
        is_bottleneck=True,
        use_bias=True,
        epsilon=1.001e-5,
        momentum=0.99,
        pixels=CAFFE,
    ),
)


def _published(variant: Variant) -> Network:
    def network(
        *,
        width_multiplier: float = 1.0,
        resolution: int = 224,
        classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        head: str = "logits",
        initialise: Initialiser,
    ) -> Graph:
        norm = BatchNorm(epsilon=variant.epsilon, momentum=variant.momentum)
        b = GraphBuilder(variant.name, initialise=initialise, batch_norm=norm)
        x = b.input("image", (None, resolution, resolution, in_channels))
        x = _stem(b, x, round_channels(WIDTHS[0] * width_multiplier), variant)
        add_block = bottleneck if variant.is_bottleneck else basic_block
        for number, (width, repeats) in enumerate(zip(WIDTHS, variant.repeats, strict=True), 1):
            channels = round_channels(width * width_multiplier)
            for repeat in range(repeats):
                stride = 2 if number > 1 and repeat == 0 else 1
                name = f"stage_{number}/block_{repeat + 1}"
                x = add_block(b, x, name, channels, stride=stride, use_bias=variant.use_bias)
        logits = classifier(b, x, classes=classes, dropout=dropout)
        contract = image_contract(resolution, in_channels, head, pixels=variant.pixels)
        return finish(b, logits, head=head, contract=contract)

    network.__name__ = variant.name
    network.__doc__ = f"Build {variant.name}: image (N, resolution, resolution, in_channels) -> logits (N, classes)."
    return network


def _stem(b: GraphBuilder, x: str, channels: int, variant: Variant) -> str:
    three = ((3, 3), (3, 3))
    x = b.conv_bn(x, "stem", channels, ReLU(), kernel_size=7, stride=2, padding=three, use_bias=variant.use_bias)
    return b.max_pool(x, "stem/pool", kernel_size=3, stride=2, padding=BOTH_SIDES)


def basic_block(b: GraphBuilder, x: str, name: str, channels: int, *, stride: int, use_bias: bool) -> str:
    """Add two 3x3 convolutions and the shortcut: (N, H, W, C) -> (N, H / stride, W / stride, channels)."""
    shortcut = x
    x = b.conv_bn(
        x, f"{name}/conv_1", channels, ReLU(), kernel_size=3, stride=stride, padding=BOTH_SIDES, use_bias=use_bias
    )
    x = b.conv_bn(x, f"{name}/conv_2", channels, None, kernel_size=3, padding=BOTH_SIDES, use_bias=use_bias)
    if b.shape(x) != b.shape(shortcut):
        shortcut = b.conv_bn(
            shortcut, f"{name}/shortcut", channels, None, kernel_size=1, stride=stride, use_bias=use_bias
        )
    return b.activate(b.add(shortcut, x, f"{name}/add"), name, ReLU())


def bottleneck(b: GraphBuilder, x: str, name: str, channels: int, *, stride: int, use_bias: bool) -> str:
    """Add 1x1, 3x3, 1x1 and the shortcut: (N, H, W, C) -> (N, H / stride, W / stride, 4 * channels).

    The shortcut's convolution and BatchNorm stand where Keras lists them, beside the last ones: weight files have this
    order, and in the first stage both convolutions have the same shape.
    """
    shortcut, out_channels = x, channels * BOTTLENECK_EXPANSION
    x = b.conv_bn(x, f"{name}/reduce", channels, ReLU(), kernel_size=1, stride=stride, use_bias=use_bias)
    x = b.conv_bn(x, f"{name}/conv", channels, ReLU(), kernel_size=3, use_bias=use_bias)
    has_projection = stride != 1 or b.shape(shortcut)[-1] != out_channels
    if has_projection:
        shortcut = b.conv(shortcut, f"{name}/shortcut", out_channels, kernel_size=1, stride=stride, use_bias=use_bias)
    x = b.conv(x, f"{name}/expand", out_channels, kernel_size=1, use_bias=use_bias)
    if has_projection:
        shortcut = b.batch_norm(shortcut, f"{name}/shortcut/bn")
    x = b.batch_norm(x, f"{name}/expand/bn")
    return b.activate(b.add(shortcut, x, f"{name}/add"), name, ReLU())


resnet18, resnet34, resnet50 = (_published(variant) for variant in VARIANTS)
