"""The operator that ends detectors: decoded boxes, without those that overlap a better one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgecnn.errors import ShapeError
from edgecnn.ops.op import Op, known
from edgecnn.shapes import Shape, check_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionPostProcess(Op):
    """Decode SSD boxes against their anchors and keep the best by non-maximum suppression.

    Operands: boxes (1, anchors, 4) as (y, x, height, width) offsets, scores (1, anchors, classes with the background
    first where there is one more than `classes`), anchors (anchors, 4) as (y, x, height, width) of their centres.
    Outputs, float32 and filled up with zeros: boxes (1, D, 4) as (top, left, bottom, right) in 0..1, classes (1, D)
    counted without the background, scores (1, D), number of boxes (1,); D = max_detections * max_classes.
    Source: LiteRT, tflite/kernels/detection_postprocess.cc (the custom operator TFLite_Detection_PostProcess).

    Attributes:
        max_detections: Boxes that are kept.
        max_classes: Classes that one box may be kept for.
        detections_per_class: Boxes that each class may keep, where `is_per_class`.
        is_per_class: Suppress within each class, not by the best class of each box.
        score_threshold: Lowest score.
        iou_threshold: Overlap (intersection / union) from which on the lower score goes.
        classes: Without the background.
        scales: Divisors of the offsets (y, x, height, width).
    """

    operands: ClassVar[tuple[str, ...]] = ("boxes", "scores", "anchors")
    max_detections: int
    max_classes: int
    detections_per_class: int = 100
    is_per_class: bool = False
    score_threshold: float
    iou_threshold: float
    classes: int
    scales: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        counts = (self.max_detections, self.max_classes, self.detections_per_class, self.classes)
        if min(counts) < 1 or self.max_classes > self.classes:
            raise ShapeError(f"positive counts, and at most `classes` classes for a box, were wanted; got {self}")
        if not 0 < self.iou_threshold <= 1 or min(self.scales) <= 0:
            raise ShapeError(f"an iou_threshold in (0, 1] and positive scales were wanted; got {self}")

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shapes of boxes, classes, scores and their number."""
        boxes, scores, anchors = shapes
        check_shape("boxes", boxes, (1, None, 4))
        check_shape("anchors", anchors, (boxes[1], 4))
        check_shape("scores", scores, (1, boxes[1], None))
        if known(scores[2]) - self.classes not in (0, 1):
            raise ShapeError(f"{self.classes} classes, or one more for the background, were wanted; got {scores[2]}")
        kept = self.max_detections * self.max_classes
        return (1, kept, 4), (1, kept), (1, kept), (1,)
