"""What the quantizers are compared on: a float network, images to calibrate on, other images to measure on, goals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecnn.contract import Contract
from edgecnn.cut import cut
from edgecnn.graph import Array, Graph
from edgecnn.models.build import build
from edgecnn.quantization.report import logits
from edgecnn.source import load_model
from edgecnn.vision.preprocess import read_image

from ._quantizer_figures import Compare, cosine, map50_change, same_class, signal_to_noise
from .random_efficientnet import IMAGES, random_efficientnet
from .real_tasks import NORMALIZED, RAW, TASKS, TO_96, TO_112, TO_257, Labelled

SNR = "SNR"
"""The figure that is in dB."""

CLASSES: Mapping[str, Compare] = {SNR: signal_to_noise, "agreement": same_class}
EMBEDDING: Mapping[str, Compare] = {SNR: signal_to_noise, "cosine": cosine}
BOXES: Mapping[str, Compare] = {SNR: signal_to_noise, "mAP50 change": map50_change}
ENERGY: Mapping[str, Compare] = {SNR: signal_to_noise}

GREY = Contract(height=28, width=28, colour_order="GRAY", mean=(0.0,), std=(256.0,), resize="stretch")
YOLOX = Contract(height=416, width=416, colour_order="BGR", mean=(0.0,) * 3, std=(1.0,) * 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What one of our artifacts must reach: the project's own goals (docs/quantization.md).

    Attributes:
        figure: Its name.
        least: In the figure's own unit.
    """

    figure: str
    least: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loaded:
    """A contest's network and images.

    Attributes:
        graph: The float network, up to its logits.
        calibration: (N, height, width, channels) float32, preprocessed.
        evaluation: Other images, and what is true of them.
    """

    graph: Graph
    calibration: Array
    evaluation: Labelled


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """A network that is quantized by everybody.

    Attributes:
        name: For people.
        load: (data folder, how many images to calibrate on) -> network and images.
        calibration: How many images to calibrate on.
        figures: Name -> how it is measured.
        goals: Recipe -> what we must reach.
        evaluation: At most so many images to measure on; None takes all the others.
    """

    name: str
    load: Callable[[Path, int], Loaded]
    calibration: int
    figures: Mapping[str, Compare]
    goals: Mapping[str, Goal]
    evaluation: int | None = None


def to_logits(graph: Graph) -> Graph:
    """Return a network without the softmax that ends it: error is measured in front of it."""
    return cut(graph, outputs=logits(graph))


def split(truth: Labelled, count: int) -> tuple[Array, Labelled]:
    """Return so many images to calibrate on, spread evenly, and the rest to measure on."""
    total = len(truth.images)
    chosen = np.linspace(0, total - 1, count).astype(int)
    return truth.images[chosen], part(truth, np.delete(np.arange(total), chosen))


def part(truth: Labelled, places: Array) -> Labelled:
    """Return the images at some places, and what is true of them."""
    return replace(
        truth,
        images=truth.images[places],
        classes=None if truth.classes is None else truth.classes[places],
        boxes=tuple(truth.boxes[place] for place in places) if truth.boxes else (),
    )


def _published(
    task: str, contract: Contract, images: Callable[[Path], Labelled] | None = None
) -> Callable[..., Loaded]:
    """Return the loader of a task's file; its images, unless others are given."""
    row = next(each for each in TASKS if each.name == task)

    def load(data: Path, count: int) -> Loaded:
        graph = to_logits(replace(load_model(str(data / "weights" / row.file)), contract=contract))
        calibration, evaluation = split((images or row.load)(data), count)
        return Loaded(graph=graph, calibration=calibration, evaluation=evaluation)

    return load


def _photographs(data: Path) -> Labelled:
    """Return COCO's and ImageNet's photographs together, as VWW takes them."""
    return _pictures([*_jpegs(data / "coco128_train/images"), *_jpegs(data / "imagenet_sample_500")], TO_96)


def _pictures(paths: Sequence[Path], contract: Contract) -> Labelled:
    return Labelled(images=np.stack([read_image(path, contract) for path in paths]))


def _jpegs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jpg"))


def _random_efficientnet(data: Path, count: int) -> Loaded:
    """Return EfficientNet-B0 with random weights and the statistics of images that it is not measured on."""
    contract = build("efficientnet_b0", values=False).contract or Contract(height=224, width=224)
    calibration, evaluation = split(_pictures(_jpegs(data / "imagenet_sample_500"), contract), count)
    graph = to_logits(random_efficientnet(calibration[:IMAGES]))
    return Loaded(graph=graph, calibration=calibration, evaluation=evaluation)


def _goal(figure: str, least: float) -> dict[str, Goal]:
    return {"static_w8_a8": Goal(figure=figure, least=least)}


CONTESTS = (
    Contest(
        name="MobileNet v1 0.25",
        load=_published("MobileNet v1 0.25, ImageNet sample", Contract(height=224, width=224)),
        calibration=100,
        figures=CLASSES,
        goals=_goal("agreement", 0.88),
    ),
    Contest(
        name="ResNet-8",
        load=_published("ResNet-8, CIFAR JPEG", RAW),
        calibration=100,
        figures=CLASSES,
        goals=_goal("agreement", 0.98),
    ),
    Contest(
        name="ResNet-8 .h5",
        load=_published("ResNet-8 .h5, CIFAR JPEG", RAW),
        calibration=100,
        figures=CLASSES,
        goals=_goal("agreement", 0.98),
    ),
    Contest(
        name="ResNet-20",
        load=_published("ResNet-20, CIFAR JPEG", NORMALIZED),
        calibration=100,
        figures=CLASSES,
        goals=_goal("agreement", 0.98),
    ),
    Contest(
        name="VWW",
        load=_published("VWW, COCO photographs", TO_96, _photographs),
        calibration=100,
        figures=CLASSES,
        goals=_goal("agreement", 0.98),
    ),
    Contest(
        name="VWW .h5",
        load=_published("VWW .h5, COCO photographs", TO_96, _photographs),
        calibration=100,
        figures=CLASSES,
        goals=_goal("agreement", 0.98),
    ),
    Contest(
        name="LeNet",
        load=_published("LeNet, MNIST", GREY),
        calibration=100,
        figures=CLASSES,
        goals=_goal("agreement", 0.995),
    ),
    Contest(
        name="MobileFaceNet",
        load=_published("MobileFaceNet, COCO photographs", TO_112),
        calibration=32,
        figures=EMBEDDING,
        goals=_goal("cosine", 0.98),
    ),
    Contest(
        name="YOLOX-nano",
        load=_published("YOLOX-nano, coco128_train", YOLOX),
        calibration=32,
        figures=BOXES,
        goals=_goal("mAP50 change", -0.015),
    ),
    Contest(
        name="DeepLab v3",
        load=_published("DeepLab v3, COCO photographs", TO_257),
        calibration=32,
        figures=CLASSES,
        goals=_goal("agreement", 0.95),
    ),
    Contest(
        name="EfficientNet-B0, random",
        load=_random_efficientnet,
        calibration=48,
        evaluation=32,  # LiteRT's 16-bit kernels take seconds for an image
        figures=ENERGY,
        goals={"static_w8_a8": Goal(figure=SNR, least=8.0), "static_w8_a16": Goal(figure=SNR, least=17.0)},
    ),
)
"""In the order of the report."""
