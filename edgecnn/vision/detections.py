"""Detections: the boxes in one image, and how well those found in many images fit the true ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecnn.errors import UsageError
from edgecnn.graph import Array
from edgecnn.kernels.detection import intersection_over_union, suppressed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Detections:
    """Boxes in one image.

    Attributes:
        corners: (boxes, 4) as (top, left, bottom, right), in one unit for everything that is compared.
        scores: (boxes,); ones where the boxes are the truth.
        classes: (boxes,) indices.
    """

    corners: Array
    scores: Array
    classes: Array

    def of_class(self, index: int) -> "Detections":
        """Return the boxes of one class."""
        return self.chosen(self.classes == index)

    def chosen(self, which: Array) -> "Detections":
        """Return some of the boxes, by mask or indices."""
        return Detections(corners=self.corners[which], scores=self.scores[which], classes=self.classes[which])


def from_centres(centres_sizes: Array) -> Array:
    """Return corners (boxes, 4) of boxes given as (centre x, centre y, width, height).

    >>> from_centres(np.array([[0.5, 0.5, 0.2, 0.4]])).tolist()
    [[0.3, 0.4, 0.7, 0.6]]
    """
    centres, halves = centres_sizes[:, 1::-1], centres_sizes[:, :1:-1] / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def without_overlaps(found: Detections, *, score_threshold: float, iou_threshold: float) -> Detections:
    """Return the boxes that overlap no better one of their class by more than a threshold (greedy suppression)."""
    kept: list[int] = []
    for index in np.unique(found.classes):
        own = np.flatnonzero(found.classes == index)
        best = suppressed(found.corners[own], found.scores[own], score_threshold, iou_threshold, len(own))
        kept += own[best].tolist()
    return found.chosen(np.array(kept, int))


def mean_average_precision(
    found: Sequence[Detections], wanted: Sequence[Detections], *, iou_threshold: float = 0.5
) -> float:
    """Return the mean, over the classes that occur in the truth, of the average precision; 0..1.

    A box is right when the true box of its class that it overlaps most is overlapped by at least the threshold and no
    better box took that one before. Source: Everingham et al., The Pascal Visual Object Classes challenge, IJCV 2010,
    section 4.4. (COCO's own evaluation gives a box the best true one that is still free, and reads precision at 101
    recalls.)

    Args:
        found: One for each image.
        wanted: The truth, likewise.
        iou_threshold: Intersection / union.

    Raises:
        UsageError: When no image has a true box.
    """
    if not any(len(each.classes) for each in wanted):
        raise UsageError(f"mean average precision: true boxes were wanted; {len(wanted)} images have none")
    classes = np.unique(np.concatenate([each.classes for each in wanted]))
    return float(np.mean([_of_class(int(index), found, wanted, iou_threshold) for index in classes]))


def _of_class(index: int, found: Sequence[Detections], wanted: Sequence[Detections], iou_threshold: float) -> float:
    scores, right, total = [], [], 0
    for ours, truth in zip(found, wanted, strict=True):
        own, true = ours.of_class(index), truth.of_class(index)
        scores.append(own.scores)
        right.append(is_right(own, true.corners, iou_threshold))
        total += len(true.scores)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return average_precision(np.concatenate(right)[order], total)


def is_right(found: Detections, truth: Array, iou_threshold: float) -> Array:
    """Return a mask (boxes,) of the boxes of one class in one image that are right; see mean_average_precision."""
    right, taken = np.zeros(len(found.scores), bool), np.zeros(len(truth), bool)
    if not len(truth):
        return right
    for box in np.argsort(-found.scores, kind="stable"):
        overlaps = intersection_over_union(found.corners[box], truth)
        nearest = int(overlaps.argmax())
        right[box] = overlaps[nearest] >= iou_threshold and not taken[nearest]
        taken[nearest] |= right[box]
    return right


def average_precision(right: Array, total: int) -> float:
    """Return the area below the precision over the recall, each precision the best at this recall or a higher one.

    Source: Everingham and Winn, The Pascal VOC 2012 Development Kit, section 3.4.1 (all points, not eleven).

    Args:
        right: (boxes,) whether each box found is right, best score first.
        total: True boxes, at least 1.

    >>> average_precision(np.array([True, False, True]), 2)
    0.8333333333333333
    """
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best_behind = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best_behind * np.asarray(right)).sum() / total)
