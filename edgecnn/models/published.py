"""What each network reaches on ImageNet, as published, and where.

Top-1 in per cent, single crop where the source says so. Networks that nobody published in exactly this form are not
here: scaled ones, and MobileNet v3 small, whose published figure stands beside the counts of another network.
"""

from dataclasses import dataclass

MOBILENET_V1_PAPER = "Howard et al., arXiv:1704.04861"
SLIM_README = "tensorflow/models, research/slim/nets/mobilenet/README.md"
KERAS_APPLICATIONS = "keras.io/api/applications"
EFFICIENTNET_PAPER = "Tan and Le, arXiv:1905.11946v5, table 2"
LITE_README = "tensorflow/tpu, models/official/efficientnet/lite/README.md"
TORCHVISION = "torchvision, IMAGENET1K_V1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One published result: ImageNet top-1 in per cent, and its source."""

    top_1: float
    source: str


RESULTS = {
    "alexnet": Result(top_1=57.2, source=f"{MOBILENET_V1_PAPER}, table 9"),
    "vgg16": Result(top_1=71.3, source=KERAS_APPLICATIONS),
    "googlenet": Result(top_1=69.8, source=f"{MOBILENET_V1_PAPER}, table 8"),
    "resnet18": Result(top_1=69.758, source=TORCHVISION),
    "resnet34": Result(top_1=73.314, source=TORCHVISION),
    "resnet50": Result(top_1=74.9, source=KERAS_APPLICATIONS),
    "mobilenet_v1": Result(top_1=70.6, source=f"{MOBILENET_V1_PAPER}, table 4"),
    "mobilenet_v2": Result(top_1=71.8, source=SLIM_README),
    "mobilenet_v3_large": Result(top_1=75.2, source=SLIM_README),
    "mobilenet_v3_large_minimalistic": Result(top_1=72.3, source=SLIM_README),
    "mobilenet_v3_small_minimalistic": Result(top_1=61.9, source=SLIM_README),
    "efficientnet_b0": Result(top_1=77.1, source=EFFICIENTNET_PAPER),
    "efficientnet_b1": Result(top_1=79.1, source=EFFICIENTNET_PAPER),
    "efficientnet_b2": Result(top_1=80.1, source=EFFICIENTNET_PAPER),
    "efficientnet_b3": Result(top_1=81.6, source=EFFICIENTNET_PAPER),
    "efficientnet_b4": Result(top_1=82.9, source=EFFICIENTNET_PAPER),
    "efficientnet_b5": Result(top_1=83.6, source=EFFICIENTNET_PAPER),
    "efficientnet_b6": Result(top_1=84.0, source=EFFICIENTNET_PAPER),
    "efficientnet_b7": Result(top_1=84.3, source=EFFICIENTNET_PAPER),
    "efficientnet_lite0": Result(top_1=75.1, source=LITE_README),
    "efficientnet_lite1": Result(top_1=76.7, source=LITE_README),
    "efficientnet_lite2": Result(top_1=77.6, source=LITE_README),
    "efficientnet_lite3": Result(top_1=79.8, source=LITE_README),
    "efficientnet_lite4": Result(top_1=81.5, source=LITE_README),
}
"""Registered name -> result."""
