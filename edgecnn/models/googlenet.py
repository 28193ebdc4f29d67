"""GoogLeNet (Inception v1): four views of every scale side by side, the wide ones behind 1x1 bottlenecks.

Source: Szegedy et al., Going deeper with convolutions, arXiv:1409.4842, table 1, with the paper's 5x5, with biases,
without BatchNorm. Columns of an inception block: 1x1; 1x1 before the 3x3, 3x3; 1x1 before the 5x5, 5x5; 1x1 behind the
pooling:

    stem  conv 7x7, 64, s 2; pool s 2; LRN; conv 1x1, 64; conv 3x3, 192; LRN; pool s 2      224 -> 28
    3a    64   96, 128   16, 32   32        28
    3b    128  128, 192  32, 96   64        28, then pooling
    4a    192  96, 208   16, 48   64        14, first auxiliary head
    4b    160  112, 224  24, 64   64        14
    4c    128  128, 256  24, 64   64        14
    4d    112  144, 288  32, 64   64        14, second auxiliary head
    4e    256  160, 320  32, 128  128       14, then pooling
    5a    256  160, 320  32, 128  128       7
    5b    384  192, 384  48, 128  128       7
    head  average pooling, dropout 40 %, dense

Auxiliary heads (section 5): average pooling 5x5 stride 3, conv 1x1 128, dense 1024, dropout 70 %, dense. They help to
train and are no outputs afterwards. The paper gives no numbers for LRN: those of AlexNet are taken.
"""

from dataclasses import dataclass

from edgecnn.builder import GraphBuilder, Initialiser
from edgecnn.errors import UsageError
from edgecnn.graph import Graph
from edgecnn.models.blocks import classifier, finish, flatten, round_channels
from edgecnn.models.preprocessing import MEAN_ONLY, image_contract
from edgecnn.ops import LRN, Concat, Dropout, ReLU


@dataclass(frozen=True, kw_only=True, slots=True)
class Inception:
    """One block: the widths of its six convolutions, and what follows it."""

    name: str
    conv_1x1: int
    reduce_3x3: int
    conv_3x3: int
    reduce_5x5: int
    conv_5x5: int
    pool_project: int
    then_pool: bool = False
    has_auxiliary: bool = False


def _row(name: str, *widths: int, then_pool: bool = False, has_auxiliary: bool = False) -> Inception:
    one, reduce_3, three, reduce_5, five, pool = widths
    return Inception(
        name=name,
        conv_1x1=one,
        reduce_3x3=reduce_3,
        conv_3x3=three,
        reduce_5x5=reduce_5,
        conv_5x5=five,
        pool_project=pool,
        then_pool=then_pool,
        has_auxiliary=has_auxiliary,
    )


BLOCKS = (
    _row("3a", 64, 96, 128, 16, 32, 32),
    _row("3b", 128, 128, 192, 32, 96, 64, then_pool=True),
    _row("4a", 192, 96, 208, 16, 48, 64, has_auxiliary=True),
    _row("4b", 160, 112, 224, 24, 64, 64),
    _row("4c", 128, 128, 256, 24, 64, 64),
    _row("4d", 112, 144, 288, 32, 64, 64, has_auxiliary=True),
    _row("4e", 256, 160, 320, 32, 128, 128, then_pool=True),
    _row("5a", 256, 160, 320, 32, 128, 128),
    _row("5b", 384, 192, 384, 48, 128, 128),
)
STEM = (64, 64, 192)
AUXILIARY_CHANNELS, AUXILIARY_FEATURES, AUXILIARY_DROPOUT = 128, 1024, 0.7
NORM = LRN(size=5, alpha=1e-4, beta=0.75, bias=2.0)
SMALLEST_WITH_AUXILIARY = 65
"""Pixels from which the 5x5 pooling of the auxiliary heads fits their input, a sixteenth of the image."""


def googlenet(
    *,
    width_multiplier: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.4,
    head: str = "logits",
    auxiliary_heads: bool = False,
    initialise: Initialiser,
) -> Graph:
    """Build GoogLeNet: image (N, resolution, resolution, in_channels) -> logits (N, classes).

    1,582,671,872 MACs and 6,998,552 parameters, 13,378,280 with the auxiliary heads, at width 1.0 and resolution 224.

    Args:
        width_multiplier: Scales every width, rounded to multiples of 8.
        resolution: Height and width of the input in pixels, at least 65 with auxiliary heads.
        classes: Number of logits.
        in_channels: 3 for colour, 1 for grey.
        dropout: Rate before the last layer.
        head: "logits" or "softmax".
        auxiliary_heads: Add the two outputs that only training uses, auxiliary_1 and auxiliary_2.
        initialise: Gives each kernel its first values.
    """
    if auxiliary_heads and resolution < SMALLEST_WITH_AUXILIARY:
        raise UsageError(
            f"googlenet: resolution must be at least {SMALLEST_WITH_AUXILIARY} with auxiliary heads; got {resolution}"
        )
    b = GraphBuilder("googlenet", initialise=initialise)
    auxiliary: list[str] = []
    x = _stem(b, b.input("image", (None, resolution, resolution, in_channels)), width_multiplier)
    for block in BLOCKS:
        x = _inception(b, x, block, width_multiplier)
        if auxiliary_heads and block.has_auxiliary:
            name = f"auxiliary_{len(auxiliary) + 1}"
            auxiliary.append(_auxiliary(b, x, name, classes=classes, width_multiplier=width_multiplier))
        if block.then_pool:
            x = b.max_pool(x, f"inception_{block.name}/pool_after", kernel_size=3, stride=2, padding="same")
    logits = classifier(b, x, classes=classes, dropout=dropout)
    contract = image_contract(resolution, in_channels, head, pixels=MEAN_ONLY)
    return finish(b, logits, head=head, contract=contract, auxiliary=tuple(auxiliary))


def _stem(b: GraphBuilder, x: str, width_multiplier: float) -> str:
    first, reduce, second = (round_channels(channels * width_multiplier) for channels in STEM)
    x = _conv(b, x, "stem/conv_1", first, kernel_size=7, stride=2)
    x = b.max_pool(x, "stem/pool_1", kernel_size=3, stride=2, padding="same")
    x = b.node("stem/lrn_1", NORM, x)
    x = _conv(b, x, "stem/reduce", reduce, kernel_size=1)
    x = _conv(b, x, "stem/conv_2", second, kernel_size=3)
    x = b.node("stem/lrn_2", NORM, x)
    return b.max_pool(x, "stem/pool_2", kernel_size=3, stride=2, padding="same")


def _inception(b: GraphBuilder, x: str, block: Inception, width_multiplier: float) -> str:
    def conv(source: str, name: str, channels: int, kernel_size: int) -> str:
        width = round_channels(channels * width_multiplier)
        return _conv(b, source, f"inception_{block.name}/{name}", width, kernel_size=kernel_size)

    one = conv(x, "conv_1x1", block.conv_1x1, 1)
    three = conv(conv(x, "reduce_3x3", block.reduce_3x3, 1), "conv_3x3", block.conv_3x3, 3)
    five = conv(conv(x, "reduce_5x5", block.reduce_5x5, 1), "conv_5x5", block.conv_5x5, 5)
    pool = b.max_pool(x, f"inception_{block.name}/pool", kernel_size=3, stride=1, padding="same")
    pool = conv(pool, "pool_project", block.pool_project, 1)
    return b.node(f"inception_{block.name}/concat", Concat(axis=3), one, three, five, pool)


def _auxiliary(b: GraphBuilder, x: str, name: str, *, classes: int, width_multiplier: float) -> str:
    x = b.average_pool(x, f"{name}/pool", kernel_size=5, stride=3)
    x = _conv(b, x, f"{name}/conv", round_channels(AUXILIARY_CHANNELS * width_multiplier), kernel_size=1)
    x = b.dense(
        flatten(b, x, f"{name}/flatten"), f"{name}/dense", round_channels(AUXILIARY_FEATURES * width_multiplier)
    )
    x = b.node(f"{name}/dropout", Dropout(rate=AUXILIARY_DROPOUT), b.activate(x, f"{name}/dense", ReLU()))
    return b.dense(x, name, classes)


def _conv(b: GraphBuilder, x: str, name: str, channels: int, *, kernel_size: int, stride: int = 1) -> str:
    x = b.conv(x, name, channels, kernel_size=kernel_size, stride=stride, use_bias=True)
    return b.activate(x, name, ReLU())
