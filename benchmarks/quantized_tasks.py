"""The tasks that the quantized files of ../shared/data are measured on, with what their README publishes.

An int8 or uint8 input is fed the real numbers that its scale gives pixels: raw bytes for most of these files.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgecnn.contract import Contract
from edgecnn.graph import Array
from edgecnn.vision.detections import Detections, mean_average_precision

from .real_tasks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RAW,
    SAME_CLASS,
    TO_96,
    Labelled,
    Measure,
    Outputs,
    Task,
    cifar_jpeg,
    cifar_png,
    coco_stretched,
    imagenet,
    photographs,
    top,
)

ALLOWED_POINTS = 0.5
"""Percentage points of accuracy: the project's own goal."""

ALLOWED_OTHERS = 2.0
"""Percentage points of classes that differ from the source's own: runtimes round integers each in its own way."""

INTEGER_FORMATS = ("tflite", "onnx", "openvino")
"""Keras' layers keep float32 variables."""

NOT_IN_COCO = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Numbers from 1 to 90 that no class of COCO's instances has. Source: the data set's own list of categories."""

POST_PROCESS = "TFLite_Detection_PostProcess"


def ssd(boxes: Array, classes: Array, scores: Array) -> Detections:
    """Return what TensorFlow's detection post-processing found: at most 10 boxes, classes counted from 0 of 90.

    Args:
        boxes: (10, 4) as (top, left, bottom, right) in shares of the input.
        classes: (10,).
        scores: (10,).
    """
    dense = np.array([number for number in range(1, 91) if number not in NOT_IN_COCO])
    places = np.searchsorted(dense, classes.astype(int) + 1)
    return Detections(corners=boxes, scores=scores, classes=places)


def _ssd_map50(found: Outputs, source: Outputs, truth: Labelled) -> float:
    names = [POST_PROCESS, f"{POST_PROCESS}:1", f"{POST_PROCESS}:2"]
    rows = zip(*(found[name] for name in names), strict=True)
    return mean_average_precision([ssd(*row) for row in rows], truth.boxes)


def _same_pixels(found: Outputs, source: Outputs, truth: Labelled) -> float:
    """Return the share of pixels of one class; the file ends in ArgMax, so that its outputs are the classes."""
    (wanted,), (given,) = source.values(), found.values()
    return float((wanted == given).mean())


def _task(
    name: str,
    file: str,
    load: Callable[[Path], Labelled],
    *measures: Measure,
    formats: tuple[str, ...] = INTEGER_FORMATS,
) -> Task:
    is_accuracy = any(measure.published is not None for measure in measures)
    return Task(
        name=f"{name}, quantized",
        file=file,
        load=load,
        measures=measures,
        formats=formats,
        allowed_points=ALLOWED_POINTS if is_accuracy else ALLOWED_OTHERS,
    )


CAFFE_STYLE = Contract(height=224, width=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)

BYTES_300 = Contract(height=300, width=300, mean=(128.0,) * 3, std=(128.0,) * 3, resize="stretch")
"""The numbers that this file's scale of 1/128 gives bytes."""

TASKS: Sequence[Task] = (
    _task(
        "MobileNet v1 0.25",
        "imagenet_tflite/mobilenet_v1_0.25_224_quant.tflite",
        imagenet(),
        top(1, 54.6),
        top(5, 78.8),
    ),
    _task(
        "MobileNet v1 0.5",
        "imagenet_tflite/mobilenet_v1_0.5_160_quant.tflite",
        imagenet(Contract(height=160, width=160)),
        top(1, 67.0),
        top(5, 87.8),
    ),
    _task("MobileNet v2", "imagenet_tflite/mobilenet_v2_1.0_224_quant.tflite", imagenet(), top(1, 87.4), top(5, 96.8)),
    _task(
        "MobileNet v2 of ONNX",
        "imagenet_onnx/mobilenet_v2_quant.onnx",
        imagenet(CAFFE_STYLE, background=0),
        top(1, 65.6),
        top(5, 92.0),
    ),
    _task("ResNet-8, CIFAR JPEG", "mlperf_tiny/pretrainedResnet_quant.tflite", cifar_jpeg(RAW), top(1, 75.2)),
    _task("ResNet-8, CIFAR lossless", "mlperf_tiny/pretrainedResnet_quant.tflite", cifar_png(RAW), top(1, 92.7)),
    _task("VWW, COCO photographs", "mlperf_tiny/vww_96_int8.tflite", photographs(TO_96), SAME_CLASS),
    _task(
        "DeepLab v3, COCO photographs",
        "segmentation_voc/deeplabv3_mnv2_dm05_pascal_quant.tflite",
        photographs(Contract(height=513, width=513, resize="stretch")),
        Measure(name="same pixels", score=_same_pixels),
    ),
    _task(
        "SSD MobileNet v1, coco128_train",
        "detection_coco/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29_no_metadata.tflite",
        coco_stretched(BYTES_300),
        Measure(name="mAP50", score=_ssd_map50, published=33.4),
        formats=("tflite",),
    ),
)
"""Only TFLite has the operator that SSD ends in."""
