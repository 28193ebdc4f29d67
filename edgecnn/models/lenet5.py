"""LeNet-5, the network that read cheques: two convolutions, two poolings, three dense layers.

Source: LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86(11), 1998, figure 2:

    C1  conv 5x5, 6, valid       32 -> 28
    S2  pooling 2x2              14
    C3  conv 5x5, 16, valid      10
    S4  pooling 2x2              5
    C5  dense 120
    F6  dense 84
    out dense 10

As it is taught and shipped today: C3 sees all maps of S2, ReLU for the scaled tanh, max pooling for the trainable
subsampling, a plain last layer for the radial basis functions. ReLU and max pooling also are what integer accelerators
run.
"""

from edgecnn.builder import GraphBuilder, Initialiser
from edgecnn.errors import UsageError
from edgecnn.graph import Graph
from edgecnn.models.blocks import finish
from edgecnn.models.preprocessing import image_contract
from edgecnn.ops import Dropout, MaxPool, ReLU, Reshape, elements

CONVOLUTIONS = (("c1", 6), ("c3", 16))
DENSE = (("c5", 120), ("f6", 84))
SMALLEST_RESOLUTION = 16


def lenet5(
    *,
    width_multiplier: float = 1.0,
    resolution: int = 32,
    classes: int = 10,
    in_channels: int = 1,
    dropout: float = 0.0,
    head: str = "logits",
    initialise: Initialiser,
) -> Graph:
    """Build LeNet-5: image (N, resolution, resolution, in_channels) -> logits (N, classes).

    416,520 MACs and 61,706 parameters as published.

    Args:
        width_multiplier: Scales every width but the last.
        resolution: Height and width of the input in pixels, at least 16.
        classes: Number of logits.
        in_channels: 1 for grey, 3 for colour.
        dropout: Rate before the last layer.
        head: "logits" or "softmax".
        initialise: Gives each kernel its first values.
    """
    if resolution < SMALLEST_RESOLUTION:
        raise UsageError(f"lenet5: resolution must be at least {SMALLEST_RESOLUTION}; got {resolution}")
    b = GraphBuilder("lenet5", initialise=initialise)
    x = b.input("image", (None, resolution, resolution, in_channels))
    for name, channels in CONVOLUTIONS:
        x = b.conv(x, name, max(1, int(channels * width_multiplier)), kernel_size=5, padding="valid", use_bias=True)
        x = b.activate(x, name, ReLU())
        x = b.node(f"{name}/pool", MaxPool(kernel_size=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0))), x)
    x = b.node("flatten", Reshape(shape=(None, elements(b.shape(x)[1:]))), x)
    for name, features in DENSE:
        x = b.activate(b.dense(x, name, max(1, int(features * width_multiplier))), name, ReLU())
    if dropout:
        x = b.node("dropout", Dropout(rate=dropout), x)
    logits = b.dense(x, "logits", classes)
    return finish(b, logits, head=head, contract=image_contract(resolution, in_channels, head, crop_fraction=1.0))
