"""The tasks that the float files of ../shared/data are measured on: images, truth, and what their README publishes."""

import gzip
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecnn.contract import Contract
from edgecnn.extras import require
from edgecnn.graph import Array
from edgecnn.vision.accuracy import argmax_agreement, mean_cosine, top_k_accuracy
from edgecnn.vision.detections import Detections, from_centres, mean_average_precision
from edgecnn.vision.detectors import blazeface, fastestdet, yolox
from edgecnn.vision.letterbox import letterbox
from edgecnn.vision.preprocess import from_pixels, read_image

Outputs = Mapping[str, Array]

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
RAW = Contract(height=32, width=32, mean=(0.0,) * 3, std=(1.0,) * 3, resize="stretch")
TO_224 = Contract(height=224, width=224)
SAME_BOX = 0.95
"""Intersection / union from which on two boxes are the same."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labelled:
    """What a task feeds, and what is true of it.

    Attributes:
        images: (N, height, width, channels) float32.
        classes: (N,) indices, or None where there are no labels.
        boxes: One for each image, in shares of the input; empty where there are none.
    """

    images: Array
    classes: Array | None = None
    boxes: tuple[Detections, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One figure.

    Attributes:
        name: Such as "top-1".
        score: (outputs, the source file's outputs, truth) -> 0..1.
        published: In %, by the README of the data; None where it gives none.
    """

    name: str
    score: Callable[[Outputs, Outputs, Labelled], float]
    published: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A file and what it is measured on.

    Attributes:
        name: For people.
        file: Below the folder weights.
        load: Data folder -> images and truth.
        measures: What is measured.
        source_target: Where the source file runs; None takes the runtime of its format.
        formats: That can carry the file.
        allowed_points: Percentage points that an artifact, or the source, may be off. The project's own goal.
    """

    name: str
    file: str
    load: Callable[[Path], Labelled]
    measures: tuple[Measure, ...]
    source_target: str | None = None
    formats: tuple[str, ...] = ("tflite", "onnx", "openvino", "keras")
    allowed_points: float = 0.2


def imagenet(contract: Contract = TO_224, *, background: int = 1) -> Callable[[Path], Labelled]:
    """Return the loader of 500 photographs.

    Args:
        contract: Of the network.
        background: Classes that it has before the first of ImageNet.
    """

    def load(data: Path) -> Labelled:
        paths = sorted((data / "imagenet_sample_500").glob("*.jpg"))
        classes = np.array([int(path.name[:3]) + background for path in paths])
        return Labelled(images=np.stack([read_image(path, contract) for path in paths]), classes=classes)

    return load


def cifar_jpeg(contract: Contract) -> Callable[[Path], Labelled]:
    """Return the loader of 1,000 validation images that lossy compression has changed."""

    def load(data: Path) -> Labelled:
        labels = (data / "cifar10/classes.txt").read_text(encoding="utf-8").split()
        with zipfile.ZipFile(data / "cifar10/cifar10_jpeg_val_1k.zip") as archive:
            names = [name for name in archive.namelist() if name.endswith(".jpg")]
            images = [from_pixels(_pixels(io.BytesIO(archive.read(name))), contract) for name in names]
        return Labelled(images=np.stack(images), classes=np.array([labels.index(n.split("/")[-2]) for n in names]))

    return load


def cifar_png(contract: Contract) -> Callable[[Path], Labelled]:
    """Return the loader of 4,000 lossless training images, one row of a sheet each."""

    def load(data: Path) -> Labelled:
        sheets = [_pixels(data / f"cifar10/cifar10_batch_{index}.png") for index in range(4)]
        pixels = np.concatenate(sheets).reshape(-1, 32, 32, 3)
        classes = np.loadtxt(data / "cifar10/cifar10_png_labels.txt", dtype=int)
        return Labelled(images=np.stack([from_pixels(each, contract) for each in pixels]), classes=classes)

    return load


def mnist(data: Path) -> Labelled:
    """Return 1,000 validation digits, pixels / 256."""
    images, labels = (
        gzip.decompress((data / f"mnist/val1k-{what}-ubyte.gz").read_bytes()) for what in ("images-idx3", "labels-idx1")
    )
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)
    return Labelled(images=pixels.astype(np.float32) / 256, classes=np.frombuffer(labels, np.uint8, offset=8))


def photographs(contract: Contract) -> Callable[[Path], Labelled]:
    """Return the loader of COCO's photographs without their labels, by a contract."""
    return lambda data: Labelled(images=np.stack([read_image(path, contract) for path in _coco(data)]))


def coco_letterboxed(data: Path) -> Labelled:
    """Return COCO's photographs as YOLOX takes them: BGR in 0..255, letterboxed with 114."""
    images, boxes = [], []
    for path in _coco(data):
        pixels = _pixels(path)
        square, scale = letterbox(pixels, 416, fill=114)
        images.append(square[:, :, ::-1].astype(np.float32))
        height, width, _ = pixels.shape
        boxes.append(_truth(path, (width * scale / 416, height * scale / 416)))
    return Labelled(images=np.stack(images), boxes=tuple(boxes))


def coco_stretched(contract: Contract) -> Callable[[Path], Labelled]:
    """Return the loader of COCO's photographs, stretched by a contract, with their boxes."""

    def load(data: Path) -> Labelled:
        paths = _coco(data)
        truth = tuple(_truth(path, (1.0, 1.0)) for path in paths)
        return Labelled(images=np.stack([read_image(path, contract) for path in paths]), boxes=truth)

    return load


def _coco(data: Path) -> list[Path]:
    return sorted((data / "coco128_train/images").glob("*.jpg"))


def _truth(image: Path, shares: tuple[float, float]) -> Detections:
    """Return the true boxes of an image of which the input shows (width, height) shares; YOLO's text format."""
    path = image.parents[1] / "labels" / f"{image.stem}.txt"
    rows = np.loadtxt(path, ndmin=2) if path.is_file() else np.zeros((0, 5))
    corners = from_centres(rows[:, 1:] * (*shares, *shares))
    return Detections(corners=corners, scores=np.ones(len(rows)), classes=rows[:, 0].astype(int))


def _pixels(source: Path | io.BytesIO) -> Array:
    with require("PIL.Image", purpose="reading images").open(source) as opened:
        return np.asarray(opened.convert("RGB"))


def top(k: int, published: float | None = None) -> Measure:
    """Return the measure top-k."""

    def score(found: Outputs, source: Outputs, truth: Labelled) -> float:
        if truth.classes is None:
            return argmax_agreement(_only(source), _only(found))
        return top_k_accuracy(_only(found), truth.classes, k)

    return Measure(name=f"top-{k}", score=score, published=published)


def against_source(name: str, compare: Callable[[Array, Array], float]) -> Measure:
    """Return a measure that compares with the source file's own outputs."""
    return Measure(name=name, score=lambda found, source, truth: compare(_only(source), _only(found)))


def map50(decode: Callable[[Array], Detections], published: float) -> Measure:
    """Return the measure mAP at an intersection / union of 0.5."""

    def score(found: Outputs, source: Outputs, truth: Labelled) -> float:
        return mean_average_precision([decode(each) for each in _only(found)], truth.boxes)

    return Measure(name="mAP50", score=score, published=published)


def _same_faces(found: Outputs, source: Outputs, truth: Labelled) -> float:
    return mean_average_precision(_faces(found), _faces(source), iou_threshold=SAME_BOX)


def _faces(outputs: Outputs) -> list[Detections]:
    pairs = zip(outputs["regressors"], outputs["classificators"], strict=True)
    return [blazeface(regressors, logits) for regressors, logits in pairs]


def _only(outputs: Outputs) -> Array:
    (values,) = outputs.values()
    return values


NORMALIZED = replace(RAW, mean=IMAGENET_MEAN, std=IMAGENET_STD)
TO_96 = Contract(height=96, width=96, mean=(0.0,) * 3, std=(255.0,) * 3)
TO_112 = Contract(height=112, width=112, mean=(0.0,) * 3, std=(1.0,) * 3)
TO_128 = Contract(height=128, width=128, crop_fraction=1.0)
TO_352 = Contract(height=352, width=352, colour_order="BGR", mean=(0.0,) * 3, std=(255.0,) * 3, resize="stretch")
TO_257 = Contract(height=257, width=257, resize="stretch")
SAME_CLASS = against_source("same class", argmax_agreement)

RESNET_8, RESNET_20 = "mlperf_tiny/pretrainedResnet.tflite", "resnet_cifar10/resnet20_cifar10.onnx"

TASKS: Sequence[Task] = (
    Task(
        name="MobileNet v1 0.25, ImageNet sample",
        file="imagenet_tflite/mobilenet_v1_0.25_224_float.tflite",
        load=imagenet(),
        measures=(top(1, 54.2), top(5, 78.0)),
    ),
    Task(name="ResNet-8, CIFAR JPEG", file=RESNET_8, load=cifar_jpeg(RAW), measures=(top(1, 75.1),)),
    Task(name="ResNet-8, CIFAR lossless", file=RESNET_8, load=cifar_png(RAW), measures=(top(1, 93.0),)),
    Task(
        name="ResNet-8 .h5, CIFAR JPEG",
        file="mlperf_tiny/pretrainedResnet.h5",
        load=cifar_jpeg(RAW),
        measures=(top(1, 75.1),),
        source_target="reference",
    ),
    Task(name="ResNet-20, CIFAR JPEG", file=RESNET_20, load=cifar_jpeg(NORMALIZED), measures=(top(1, 80.4),)),
    Task(name="ResNet-20, CIFAR lossless", file=RESNET_20, load=cifar_png(NORMALIZED), measures=(top(1, 99.8),)),
    Task(name="LeNet, MNIST", file="lenet_mnist/lenet_mnist.onnx", load=mnist, measures=(top(1, 99.0),)),
    Task(
        name="VWW, COCO photographs",
        file="mlperf_tiny/vww_96_float.tflite",
        load=photographs(TO_96),
        measures=(SAME_CLASS,),
    ),
    Task(
        name="VWW .h5, COCO photographs",
        file="mlperf_tiny/vww_96.h5",
        load=photographs(TO_96),
        measures=(SAME_CLASS,),
        source_target="reference",
    ),
    Task(
        name="YOLOX-nano, coco128_train",
        file="detection_coco/yolox_nano.onnx",
        load=coco_letterboxed,
        measures=(map50(lambda output: yolox(output, 416), 49.9),),
    ),
    Task(
        name="FastestDet, coco128_train",
        file="detection_coco/FastestDet.onnx",
        load=coco_stretched(TO_352),
        measures=(map50(fastestdet, 33.4),),
    ),
    Task(
        name="DeepLab v3, COCO photographs",
        file="segmentation_voc/deeplabv3.tflite",
        load=photographs(TO_257),
        measures=(against_source("same pixels", argmax_agreement),),
    ),
    Task(
        name="BlazeFace, COCO photographs",
        file="face/face_detection_short_range-659bce.tflite",
        load=photographs(TO_128),
        measures=(Measure(name="same boxes", score=_same_faces),),
    ),
    Task(
        name="MobileFaceNet, COCO photographs",
        file="face/mobilefacenet_112.onnx",
        load=photographs(TO_112),
        measures=(against_source("cosine", mean_cosine),),
    ),
)
"""Keras 3 cannot open the .h5 files of Keras 2, so that their source runs as we read it."""
