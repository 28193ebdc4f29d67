"""How near a quantized network is to its float network: figures with the 95 % interval that the images allow.

An image, not a pixel, is the unit that chance draws: intervals are Wilson's where an image is right or wrong, and else
the percentile bootstrap over images (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgecnn.errors import CheckFailedError
from edgecnn.graph import Array
from edgecnn.paired import McNemar, mcnemar, wilson
from edgecnn.vision.detections import mean_average_precision
from edgecnn.vision.detectors import yolox

from .real_tasks import Labelled
from .statistics import CONFIDENCE, RESAMPLES, Interval

SEED = 0
"""Of the resampling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured of one artifact.

    Attributes:
        values: Figure -> its value with its interval; more is better. "SNR" is in dB, every other a share.
        top1: Share of images whose class is right; None without labels.
        against_float: How that differs from the float network's.
    """

    values: dict[str, Interval]
    top1: float | None = None
    against_float: McNemar | None = None


Compare = Callable[[Array, Array, Labelled], Interval]
"""(float network's outputs, found, truth), outputs (N, ...) with channels last -> a figure."""


def measured(reference: Array, found: Array, truth: Labelled, figures: Mapping[str, Compare]) -> Figures:
    """Return an artifact's figures.

    Args:
        reference: (N, ...) outputs of the float network.
        found: Those of the artifact.
        truth: Of the images.
        figures: Name -> how it is measured.

    Raises:
        CheckFailedError: When the artifact gives other outputs.
    """
    if found.size != reference.size:
        raise CheckFailedError(f"outputs {reference.shape} were wanted, as the float network gives; got {found.shape}")
    found = found.reshape(reference.shape)  # some tools drop or add an axis of size 1
    values = {name: compare(reference, found, truth) for name, compare in figures.items()}
    if truth.classes is None:
        return Figures(values=values)
    right, was_right = (each.argmax(axis=1) == truth.classes for each in (found, reference))
    difference = mcnemar(int((was_right & ~right).sum()), int((right & ~was_right).sum()))
    return Figures(values=values, top1=float(right.mean()), against_float=difference)


def signal_to_noise(reference: Array, found: Array, truth: Labelled) -> Interval:
    """Return the SNR in dB, the mean over the images removed from both; verify.snr_db with an interval."""
    flat = [each.reshape(len(each), -1).astype(np.float64) for each in (reference, found)]
    signal, seen = (each - each.mean(axis=0) for each in flat)
    energies = np.stack([np.square(signal).sum(axis=1), np.square(signal - seen).sum(axis=1)], axis=1)

    def decibels(sums: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(10 * np.log10(sums[..., 0] / sums[..., 1]))

    return _bootstrapped(energies, decibels)


def same_class(reference: Array, found: Array, truth: Labelled) -> Interval:
    """Return the share of images, or of pixels, with the same class."""
    same = reference.argmax(axis=-1) == found.argmax(axis=-1)
    if same.ndim == 1:
        share = wilson(int(same.sum()), len(same))
        return Interval(point=share.value, low=share.low, high=share.high)
    return _mean(same.reshape(len(same), -1).mean(axis=1))


def cosine(reference: Array, found: Array, truth: Labelled) -> Interval:
    """Return the mean cosine between the embeddings (N, size) of the same images."""
    lengths = np.linalg.norm(reference, axis=1) * np.linalg.norm(found, axis=1)
    return _mean((reference * found).sum(axis=1) / lengths)


def map50_change(reference: Array, found: Array, truth: Labelled) -> Interval:
    """Return what quantizing changes of YOLOX's mAP50, as a share; no interval."""
    exact, rounded = (
        mean_average_precision([yolox(each, truth.images.shape[1]) for each in outputs], truth.boxes)
        for outputs in (reference, found)
    )
    return Interval(point=rounded - exact, low=None, high=None)


def _mean(values: Array) -> Interval:
    return _bootstrapped(values[:, None], lambda sums: np.asarray(sums[..., 0] / len(values)))


def _bootstrapped(parts: Array, figure: Callable[[Array], Array]) -> Interval:
    """Return a figure of the sum over images.

    Args:
        parts: (N, k), what each image brings.
        figure: (..., k) sums -> (...) figures.
    """
    drawn = np.random.default_rng(SEED).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), size=RESAMPLES)
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(figure(drawn @ parts), (tail, 100 - tail), method="nearest")  # infinities too
    return Interval(point=float(figure(parts.sum(axis=0))), low=float(low), high=float(high))
