"""Detectors: what the raw outputs of published ones mean, as boxes in shares of the network's input."""

import numpy as np

from edgecnn.graph import Array
from edgecnn.vision.detections import Detections, from_centres, without_overlaps

YOLOX_STRIDES = (8, 16, 32)
BLAZEFACE_GRIDS = ((16, 2), (8, 6))
"""(Cells along each side, anchors in each cell)."""


def yolox(output: Array, side: int, *, score_threshold: float = 0.001, iou_threshold: float = 0.65) -> Detections:
    """Return the boxes of a YOLOX head, each with its best class.

    Source: Megvii-BaseDetection/YOLOX, yolox/utils/demo_utils.py and yolox/utils/boxes.py, thresholds of tools/eval.py.

    Args:
        output: (cells, 5 + classes): offsets from the cell and logarithms of sizes, both in strides; then the
            probabilities of an object and of each class.
        side: Of the input, in pixels.
        score_threshold: Lowest product of the two probabilities.
        iou_threshold: Of the suppression, class by class.
    """
    cells = np.concatenate([_cells(side // stride) for stride in YOLOX_STRIDES])
    strides = np.concatenate([np.full((side // stride) ** 2, stride) for stride in YOLOX_STRIDES])[:, None]
    boxes = np.concatenate([output[:, :2] + cells, np.exp(output[:, 2:4])], axis=1) * strides / side
    scores = output[:, 4:5] * output[:, 5:]
    found = Detections(corners=from_centres(boxes), scores=scores.max(axis=1), classes=scores.argmax(axis=1))
    return without_overlaps(found, score_threshold=score_threshold, iou_threshold=iou_threshold)


def fastestdet(output: Array, *, score_threshold: float = 0.001, iou_threshold: float = 0.45) -> Detections:
    """Return the boxes of a FastestDet head, each with its best class.

    Source: dog-qiuqiu/FastestDet, utils/tool.py (handle_preds), thresholds of utils/evaluation.py; score as in its
    ncnn example: object^0.6 * class^0.4.

    Args:
        output: (height, width, 5 + classes) in cells: the probability of an object, offsets before tanh, sizes before
            the sigmoid, the probability of each class.
        score_threshold: Lowest score.
        iou_threshold: Of the suppression, class by class.
    """
    height, width, _ = output.shape
    raw = output.reshape(height * width, -1)
    centres = (np.tanh(raw[:, 1:3]) + _cells(height, width)) / (width, height)
    boxes = np.concatenate([centres, 1 / (1 + np.exp(-raw[:, 3:5]))], axis=1)
    scores = raw[:, 0] ** 0.6 * raw[:, 5:].max(axis=1) ** 0.4
    found = Detections(corners=from_centres(boxes), scores=scores, classes=raw[:, 5:].argmax(axis=1))
    return without_overlaps(found, score_threshold=score_threshold, iou_threshold=iou_threshold)


def blazeface(
    regressors: Array, logits: Array, *, side: int = 128, score_threshold: float = 0.5, iou_threshold: float = 0.3
) -> Detections:
    """Return the faces of BlazeFace, short range.

    Source: google-ai-edge/mediapipe, modules/face_detection/face_detection_short_range.pbtxt (anchors of size 1).

    Args:
        regressors: (896, 16): offset of the centre and size in pixels, then six points.
        logits: (896, 1).
        side: Of the input, in pixels.
        score_threshold: Lowest probability.
        iou_threshold: Of the suppression.
    """
    anchors = np.concatenate([(np.repeat(_cells(n), times, axis=0) + 0.5) / n for n, times in BLAZEFACE_GRIDS])
    boxes = regressors[:, :4] / side
    boxes = np.concatenate([boxes[:, :2] + anchors, boxes[:, 2:]], axis=1)
    scores = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64).clip(-100, 100)))
    found = Detections(corners=from_centres(boxes), scores=scores, classes=np.zeros(len(scores), int))
    return without_overlaps(found, score_threshold=score_threshold, iou_threshold=iou_threshold)


def _cells(height: int, width: int | None = None) -> Array:
    """Return the (x, y) of each cell of a grid, row by row."""
    rows, columns = np.mgrid[:height, : width or height]
    return np.stack([columns, rows], axis=-1).reshape(-1, 2)
