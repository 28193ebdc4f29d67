"""Accuracy: how often a network is right, or two networks say the same."""

import numpy as np

from edgecnn.graph import Array


def top_k_accuracy(scores: Array, classes: Array, k: int) -> float:
    """Return the share of images whose class is among the k highest scores; of equal scores the first counts.

    Args:
        scores: (N, classes).
        classes: (N,) indices.
        k: At least 1.

    >>> top_k_accuracy(np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]), np.array([2, 0]), 1)
    0.5
    """
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((ranked == classes[:, None]).any(axis=1).mean())


def argmax_agreement(reference: Array, found: Array) -> float:
    """Return the share of images, or of pixels, to which two networks give the same class.

    Args:
        reference: (..., classes).
        found: Likewise.
    """
    return float((reference.argmax(axis=-1) == found.argmax(axis=-1)).mean())


def mean_cosine(reference: Array, found: Array) -> float:
    """Return the mean cosine between the embeddings (N, size) that two networks give the same images."""
    lengths = np.linalg.norm(reference, axis=1) * np.linalg.norm(found, axis=1)
    return float(((reference * found).sum(axis=1) / lengths).mean())
