"""The kernel that decodes boxes and suppresses those that overlap a better one."""

from collections.abc import Callable

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array


def _detect(op: ops.DetectionPostProcess, boxes: Array, scores: Array, anchors: Array) -> tuple[Array, ...]:
    corners = decoded(op, boxes[0], anchors)
    scores = scores[0, :, scores.shape[2] - op.classes :]
    found = (_each_class if op.is_per_class else _best_class)(op, corners, scores)
    kept = op.max_detections * op.max_classes
    out_boxes, out_classes, out_scores = (np.zeros((1, kept, *tail), np.float32) for tail in ((4,), (), ()))
    for place, (box, label, score) in enumerate(found[:kept]):
        out_boxes[0, place], out_classes[0, place], out_scores[0, place] = corners[box], label, score
    boxes_found = len(found) if op.is_per_class else len(found) // op.max_classes
    return out_boxes, out_classes, out_scores, np.array([min(boxes_found, kept)], np.float32)


def decoded(op: ops.DetectionPostProcess, offsets: Array, anchors: Array) -> Array:
    """Return boxes (anchors, 4) as (top, left, bottom, right)."""
    scaled = offsets / np.asarray(op.scales, np.float32)
    centres = scaled[:, :2] * anchors[:, 2:] + anchors[:, :2]
    halves = np.exp(scaled[:, 2:]) * anchors[:, 2:] / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def _best_class(op: ops.DetectionPostProcess, corners: Array, scores: Array) -> list[tuple[int, int, float]]:
    """Suppress by each box' best score; a box that stays is listed for its `max_classes` best classes."""
    kept = suppressed(corners, scores.max(axis=1), op.score_threshold, op.iou_threshold, op.max_detections)
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, : op.max_classes]
    return [(box, int(label), float(scores[box, label])) for box in kept for label in ranked[box]]


def _each_class(op: ops.DetectionPostProcess, corners: Array, scores: Array) -> list[tuple[int, int, float]]:
    """Suppress within each class; the best of all classes stay."""
    found = []
    for label in range(op.classes):
        own = scores[:, label]
        kept = suppressed(corners, own, op.score_threshold, op.iou_threshold, op.detections_per_class)
        found += [(box, label, float(own[box])) for box in kept]
    return sorted(found, key=lambda each: -each[2])[: op.max_detections]


def suppressed(corners: Array, scores: Array, score_threshold: float, iou_threshold: float, most: int) -> list[int]:
    """Return the boxes, best first, that overlap no better one by more than a threshold.

    Args:
        corners: (boxes, 4) as (top, left, bottom, right).
        scores: (boxes,).
        score_threshold: Lowest score.
        iou_threshold: Highest intersection / union with a better box.
        most: How many are kept.
    """
    waiting = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] >= score_threshold]
    kept: list[int] = []
    while waiting and len(kept) < most:
        best, *rest = waiting
        kept.append(best)
        overlaps = intersection_over_union(corners[best], corners[rest])
        waiting = [box for box, overlap in zip(rest, overlaps, strict=True) if overlap <= iou_threshold]
    return kept


def intersection_over_union(box: Array, others: Array) -> Array:
    """Return intersection / union of one box (4,) with others (boxes, 4); 0 where a box has no area."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area, areas = np.prod(box[2:] - box[:2]), np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = area + areas - shared
    return np.where((areas > 0) & (area > 0), shared / np.where(union > 0, union, 1), 0)


KERNELS: dict[type[ops.Op], Callable[..., tuple[Array, ...]]] = {ops.DetectionPostProcess: _detect}
