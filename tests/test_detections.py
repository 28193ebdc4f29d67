"""Boxes and how they are scored; heads of published detectors; the letterbox; classification figures."""

import numpy as np
import pytest

from edgecnn.errors import UsageError
from edgecnn.vision.accuracy import argmax_agreement, mean_cosine, top_k_accuracy
from edgecnn.vision.detections import (
    Detections,
    average_precision,
    from_centres,
    mean_average_precision,
    without_overlaps,
)
from edgecnn.vision.detectors import blazeface, fastestdet, yolox
from edgecnn.vision.letterbox import letterbox


def boxes(*rows: tuple[float, ...]) -> Detections:
    """Make detections of rows (class, score, top, left, bottom, right)."""
    values = np.array(rows, float).reshape(-1, 6)
    return Detections(corners=values[:, 2:], scores=values[:, 1], classes=values[:, 0].astype(int))


# --- average precision -----------------------------------------------------------------------------------------------


def test_average_precision_is_the_area_below_the_envelope() -> None:
    # Precisions 1, 1/2, 2/3, 3/4 at recalls 1/4, 1/4, 1/2, 3/4: the envelope is 1 to 1/4 and 3/4 from there to 3/4.
    assert average_precision(np.array([True, False, True, True]), 4) == pytest.approx(0.25 * 1 + 0.5 * 0.75)
    assert average_precision(np.array([], bool), 3) == 0
    assert average_precision(np.array([False, False]), 3) == 0
    assert average_precision(np.ones(3, bool), 3) == 1


def test_average_precision_agrees_with_the_area_below_the_steps() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        right, total = rng.random(30) < 0.5, 20
        hits = np.cumsum(right)
        recall = np.concatenate([[0], hits / total, [hits[-1] / total + 1e-9]])
        precision = np.concatenate([hits / np.arange(1, 31), [0]])
        wanted = sum((recall[i + 1] - recall[i]) * precision[i:].max() for i in range(30))
        assert average_precision(right, total) == pytest.approx(wanted)


def test_a_second_box_on_the_same_truth_is_wrong() -> None:
    truth = [boxes((0, 1, 0, 0, 10, 10), (0, 1, 20, 20, 30, 30))]
    once = boxes((0, 0.9, 0, 0, 10, 10), (0, 0.7, 20, 20, 30, 30))
    twice = boxes((0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 0, 10, 9), (0, 0.7, 20, 20, 30, 30))
    assert mean_average_precision([once], truth) == 1
    assert mean_average_precision([twice], truth) == pytest.approx((1 + 2 / 3) / 2)


def test_a_box_that_overlaps_a_taken_one_most_takes_no_other() -> None:
    truth = [boxes((0, 1, 0, 0, 10, 10), (0, 1, 0, 4, 10, 14))]
    found = boxes((0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 1, 10, 11))
    assert mean_average_precision([found], truth, iou_threshold=0.5) == 0.5, "COCO would let it take the second"


def test_the_mean_is_over_classes_that_occur_in_the_truth() -> None:
    truth = [boxes((3, 1, 0, 0, 10, 10)), boxes((5, 1, 0, 0, 10, 10))]
    found = [boxes((3, 0.5, 0, 0, 10, 10), (7, 0.9, 0, 0, 10, 10)), boxes()]
    assert mean_average_precision(found, truth) == 0.5
    assert mean_average_precision(found, truth, iou_threshold=1.0) == 0.5


def test_a_better_box_in_another_image_comes_first() -> None:
    truth = [boxes((0, 1, 0, 0, 10, 10)), boxes()]
    wrong_first = [boxes((0, 0.5, 0, 0, 10, 10)), boxes((0, 0.9, 0, 0, 10, 10))]
    assert mean_average_precision(wrong_first, truth) == 0.5


def test_a_truth_without_boxes_measures_nothing() -> None:
    with pytest.raises(UsageError, match="true boxes were wanted; 2 images have none"):
        mean_average_precision([boxes(), boxes((0, 0.9, 0, 0, 1, 1))], [boxes(), boxes()])


def test_suppression_is_within_a_class() -> None:
    found = boxes((0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 0, 10, 9), (1, 0.7, 0, 0, 10, 10), (1, 0.01, 50, 50, 60, 60))
    kept = without_overlaps(found, score_threshold=0.1, iou_threshold=0.5)
    assert list(zip(kept.classes.tolist(), kept.scores.tolist(), strict=True)) == [(0, 0.9), (1, 0.7)]
    assert len(without_overlaps(boxes(), score_threshold=0.1, iou_threshold=0.5).scores) == 0


# --- heads -----------------------------------------------------------------------------------------------------------


def test_a_yolox_cell_is_decoded_from_its_place_and_stride() -> None:
    output = np.zeros((8 * 8 + 4 * 4 + 2 * 2, 7), np.float32)
    output[64 + 4 + 2] = (0.5, 0.25, np.log(2), 0, 0.8, 0.1, 0.5)  # row 1, column 2 of the grid with stride 16
    found = yolox(output, 64)
    np.testing.assert_allclose(found.corners, [[12 / 64, 24 / 64, 28 / 64, 56 / 64]])
    assert (found.classes.tolist(), found.scores.tolist()) == ([1], [pytest.approx(0.4)])


def test_a_fastestdet_cell_is_decoded_from_its_place() -> None:
    output = np.zeros((4, 8, 7), np.float32)
    output[1, 2] = (0.5, 0, 0, 0, 0, 0.25, 0.1)
    found = fastestdet(output)
    np.testing.assert_allclose(found.corners, from_centres(np.array([[2 / 8, 1 / 4, 0.5, 0.5]])))
    assert found.scores.tolist() == [pytest.approx(0.5**0.6 * 0.25**0.4)]


def test_a_blazeface_anchor_is_the_centre_of_its_cell() -> None:
    regressors, logits = np.zeros((896, 16), np.float32), np.full((896, 1), -200, np.float32)
    regressors[512 + 6 * 9 + 5, :4], logits[512 + 6 * 9 + 5] = (12.8, 0, 64, 32), 200
    found = blazeface(regressors, logits)
    np.testing.assert_allclose(found.corners, from_centres(np.array([[1.5 / 8 + 0.1, 1.5 / 8, 0.5, 0.25]])), atol=1e-7)
    assert found.scores.tolist() == [1.0]


# --- pictures and classes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(30, 60), (60, 30), (7, 640)])
def test_a_letterbox_keeps_the_aspect_ratio_and_fills_the_rest(size: tuple[int, int]) -> None:
    square, scale = letterbox(np.full((*size, 3), 200, np.uint8), 32, fill=114)
    height, width = (max(1, int(each * scale)) for each in size)
    assert square.shape == (32, 32, 3)
    assert (square[:height, :width] == 200).all()
    assert (square == 200).sum() == height * width * 3
    assert max(height, width) == 32


def test_classification_figures() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4]])
    classes = np.array([2, 0, 1])
    assert top_k_accuracy(scores, classes, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(scores, classes, 2) == pytest.approx(2 / 3), "of equal scores the first counts"
    assert top_k_accuracy(scores, classes, 3) == 1
    assert argmax_agreement(scores, scores[:, ::-1]) == pytest.approx(1 / 3)
    assert mean_cosine(scores, 2 * scores) == pytest.approx(1)
    assert mean_cosine(scores, -scores) == pytest.approx(-1)
