"""How the zoo's networks want their pixels: the contract's mean and std, as published with each family.

A pixel p in 0..255 enters as (p - mean) / std, channel by channel, in the network's colour order.
"""

from dataclasses import dataclass

from edgecnn.contract import ColourOrder, Contract


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """Colour order, mean and std of a family's input, in 0..255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colour_order: ColourOrder = "RGB"


MINUS_ONE_TO_ONE = Pixels(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
"""The MobileNets. Source: keras.applications, imagenet_utils.preprocess_input, mode "tf"; mobilenet_v3's Rescaling."""

IMAGENET = Pixels(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
"""255 times (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225). Source: tensorflow/tpu, efficientnet_builder.py."""

CAFFE = Pixels(mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), colour_order="BGR")
"""VGG and ResNet-50. Source: keras.applications, imagenet_utils.preprocess_input, mode "caffe"."""

MEAN_ONLY = Pixels(mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0))
"""AlexNet and GoogLeNet subtract the training set's mean. Source: Krizhevsky et al., 2012, section 2."""

LITE = Pixels(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
"""EfficientNet-Lite. Source: tensorflow/tpu, efficientnet/lite/efficientnet_lite_builder.py, MEAN_RGB, STDDEV_RGB."""

CROP_MARGIN_PX = 32
"""EfficientNets see the centre that leaves 32 pixels. Source: tensorflow/tpu, efficientnet/preprocessing.py."""


def centre_crop_fraction(resolution: int) -> float:
    """Return the share of an image that an EfficientNet of this resolution sees.

    >>> centre_crop_fraction(224)
    0.875
    """
    return resolution / (resolution + CROP_MARGIN_PX)


def image_contract(
    resolution: int, in_channels: int, head: str, *, pixels: Pixels = MINUS_ONE_TO_ONE, crop_fraction: float = 0.875
) -> Contract | None:
    """Return the contract of an image classifier; None where the input is no picture (channels).

    Grey pixels take the mean of the three channels' mean and std.
    """
    if in_channels not in (1, 3):
        return None
    is_grey = in_channels == 1
    return Contract(
        height=resolution,
        width=resolution,
        colour_order="GRAY" if is_grey else pixels.colour_order,
        mean=(sum(pixels.mean) / 3,) if is_grey else pixels.mean,
        std=(sum(pixels.std) / 3,) if is_grey else pixels.std,
        crop_fraction=crop_fraction,
        output="probabilities" if head == "softmax" else "logits",
    )
