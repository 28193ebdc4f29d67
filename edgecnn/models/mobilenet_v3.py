"""MobileNet v3: inverted residuals found by search, with squeeze-excite and hard-swish where they pay.

Source: Howard et al., Searching for MobileNetV3, arXiv:1905.02244, tables 1 and 2, one row per block, as
keras.applications.mobilenet_v3 builds them: a squeeze-excite narrows to a quarter of the expanded width, and the stem
keeps 16 channels at any width.

    large  stem conv 3x3, 16, s 2; 15 blocks; conv 1x1 to 6 x the last width; average pooling; dense 1280; dense
    small  stem conv 3x3, 16, s 2; 11 blocks; conv 1x1 to 6 x the last width; average pooling; dense 1024; dense

The minimalistic variants have 3x3 kernels, ReLU and no squeeze-excite: what every accelerator runs (slim README).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from edgecnn.builder import GraphBuilder, Initialiser
from edgecnn.graph import Graph
from edgecnn.models.blocks import finish, inverted_residual, round_channels, scale_repeats
from edgecnn.models.preprocessing import image_contract
from edgecnn.models.squeeze_excite import SqueezeExcite
from edgecnn.ops import Activation, BatchNorm, Dropout, HardSigmoid, HardSwish, Mean, ReLU

Network = Callable[..., Graph]

RE: Activation = ReLU()
HS: Activation = HardSwish()


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One inverted residual: k kernel, t expansion, c channels, squeeze-excite, NL activation, s stride."""

    kernel_size: int
    expansion: float
    channels: int
    excite: bool
    activation: Activation
    stride: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One published network: its blocks, the width of its last but one layer, and the activation of stem and head."""

    name: str
    blocks: tuple[Block, ...]
    head_channels: int
    activation: Activation


LARGE = (
    Block(kernel_size=3, expansion=1, channels=16, excite=False, activation=RE, stride=1),
    Block(kernel_size=3, expansion=4, channels=24, excite=False, activation=RE, stride=2),
    Block(kernel_size=3, expansion=3, channels=24, excite=False, activation=RE, stride=1),
    Block(kernel_size=5, expansion=3, channels=40, excite=True, activation=RE, stride=2),
    Block(kernel_size=5, expansion=3, channels=40, excite=True, activation=RE, stride=1),
    Block(kernel_size=5, expansion=3, channels=40, excite=True, activation=RE, stride=1),
    Block(kernel_size=3, expansion=6, channels=80, excite=False, activation=HS, stride=2),
    Block(kernel_size=3, expansion=2.5, channels=80, excite=False, activation=HS, stride=1),
    Block(kernel_size=3, expansion=2.3, channels=80, excite=False, activation=HS, stride=1),
    Block(kernel_size=3, expansion=2.3, channels=80, excite=False, activation=HS, stride=1),
    Block(kernel_size=3, expansion=6, channels=112, excite=True, activation=HS, stride=1),
    Block(kernel_size=3, expansion=6, channels=112, excite=True, activation=HS, stride=1),
    Block(kernel_size=5, expansion=6, channels=160, excite=True, activation=HS, stride=2),
    Block(kernel_size=5, expansion=6, channels=160, excite=True, activation=HS, stride=1),
    Block(kernel_size=5, expansion=6, channels=160, excite=True, activation=HS, stride=1),
)
SMALL = (
    Block(kernel_size=3, expansion=1, channels=16, excite=True, activation=RE, stride=2),
    Block(kernel_size=3, expansion=72 / 16, channels=24, excite=False, activation=RE, stride=2),
    Block(kernel_size=3, expansion=88 / 24, channels=24, excite=False, activation=RE, stride=1),
    Block(kernel_size=5, expansion=4, channels=40, excite=True, activation=HS, stride=2),
    Block(kernel_size=5, expansion=6, channels=40, excite=True, activation=HS, stride=1),
    Block(kernel_size=5, expansion=6, channels=40, excite=True, activation=HS, stride=1),
    Block(kernel_size=5, expansion=3, channels=48, excite=True, activation=HS, stride=1),
    Block(kernel_size=5, expansion=3, channels=48, excite=True, activation=HS, stride=1),
    Block(kernel_size=5, expansion=6, channels=96, excite=True, activation=HS, stride=2),
    Block(kernel_size=5, expansion=6, channels=96, excite=True, activation=HS, stride=1),
    Block(kernel_size=5, expansion=6, channels=96, excite=True, activation=HS, stride=1),
)
STEM_CHANNELS = 16
SQUEEZE_RATIO = 0.25


def _minimalistic(blocks: Sequence[Block]) -> tuple[Block, ...]:
    return tuple(replace(block, kernel_size=3, excite=False, activation=RE) for block in blocks)


VARIANTS = (
    Variant(name="mobilenet_v3_large", blocks=LARGE, head_channels=1280, activation=HS),
    Variant(name="mobilenet_v3_small", blocks=SMALL, head_channels=1024, activation=HS),
    Variant(name="mobilenet_v3_large_minimalistic", blocks=_minimalistic(LARGE), head_channels=1280, activation=RE),
    Variant(name="mobilenet_v3_small_minimalistic", blocks=_minimalistic(SMALL), head_channels=1024, activation=RE),
)


def deepen(blocks: Sequence[Block], depth_coefficient: float) -> list[Block]:
    """Return the blocks of a deeper (or shallower) network: a run of one width repeats (or loses) its last ones.

    >>> len(deepen(SMALL, 1.0)), len(deepen(SMALL, 1.5)), len(deepen(SMALL, 0.5))
    (11, 18, 7)
    """
    deeper: list[Block] = []
    for _, run in groupby(blocks, key=lambda block: block.channels):
        stage = list(run)
        repeats = scale_repeats(len(stage), depth_coefficient)
        deeper += stage[:repeats] + [replace(stage[-1], stride=1)] * (repeats - len(stage))
    return deeper


def _published(variant: Variant) -> Network:
    def network(
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
        b = GraphBuilder(variant.name, initialise=initialise, batch_norm=BatchNorm(momentum=0.999))
        x = b.input("image", (None, resolution, resolution, in_channels))
        x = b.conv_bn(x, "stem", STEM_CHANNELS, variant.activation, kernel_size=3, stride=2)
        for number, block in enumerate(deepen(variant.blocks, depth_coefficient)):
            x = _block(b, x, f"block_{number}", block, width_multiplier)
        x = b.conv_bn(x, "head/conv", round_channels(int(b.shape(x)[-1] or 0) * 6), variant.activation, kernel_size=1)
        x = b.node("head/pool", Mean(axes=(1, 2)), x)
        x = b.dense(x, "head/dense", round_channels(variant.head_channels * max(1.0, width_multiplier)))
        x = b.activate(x, "head/dense", variant.activation)
        if dropout:
            x = b.node("head/dropout", Dropout(rate=dropout), x)
        logits = b.dense(x, "logits", classes)
        return finish(b, logits, head=head, contract=image_contract(resolution, in_channels, head))

    network.__name__ = variant.name
    network.__doc__ = f"Build {variant.name}: image (N, resolution, resolution, in_channels) -> logits (N, classes)."
    return network


def _block(b: GraphBuilder, x: str, name: str, block: Block, width_multiplier: float) -> str:
    expanded = round_channels(int(b.shape(x)[-1] or 0) * block.expansion)
    narrow = round_channels(expanded * SQUEEZE_RATIO)
    excite = SqueezeExcite(channels=narrow, activation=ReLU(), gate=HardSigmoid()) if block.excite else None
    return inverted_residual(
        b,
        x,
        name,
        round_channels(block.channels * width_multiplier),
        expansion=block.expansion,
        stride=block.stride,
        kernel_size=block.kernel_size,
        activation=block.activation,
        excite=excite,
    )


(mobilenet_v3_large, mobilenet_v3_small, mobilenet_v3_large_minimalistic, mobilenet_v3_small_minimalistic) = (
    _published(variant) for variant in VARIANTS
)
