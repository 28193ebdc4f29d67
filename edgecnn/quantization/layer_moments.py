"""Sums over a layer's kernel: what it makes of the means and variances of its input channels."""

import numpy as np

from edgecnn.graph import Array

NEIGHBOURS = 0.8
"""Correlation of values under one kernel."""


def layer_variance(kernel: Array, groups: int, variance: Array) -> Array:
    """Return sum over inputs of R * variance for each output channel: see the module.

    Args:
        kernel: (spatial..., in_channels / groups, out_channels), or what is to be squared in its place.
        groups: Of the layer.
        variance: (in_channels,).
    """
    rows = by_group(kernel, groups)
    alone, together = np.einsum("pigo,pigo->igo", rows, rows), np.square(rows.sum(axis=0))
    spread = (1 - NEIGHBOURS) * alone + NEIGHBOURS * together
    return weighed(spread, variance)


def by_group(kernel: Array, groups: int) -> Array:
    """Return a kernel as (places, in_channels / groups, groups, out_channels / groups)."""
    return kernel.reshape(-1, kernel.shape[-2], groups, kernel.shape[-1] // groups)


def weighed(factors: Array, numbers: Array) -> Array:
    """Return the sum over inputs of factors times numbers, in the factors' own type: a kernel may have 10^8 weights.

    Args:
        factors: (in_channels / groups, groups, out_channels / groups).
        numbers: (in_channels,).

    Returns:
        (out_channels,), float64.
    """
    given = numbers.reshape(factors.shape[1], -1).astype(factors.dtype)
    return np.asarray(np.einsum("igo,gi->go", factors, given).reshape(-1), np.float64)


def layer_mean(kernel: Array, groups: int, mean: Array) -> Array:
    """Return sum w * mean for each output channel; the arguments are those of `layer_variance`."""
    return weighed(by_group(kernel, groups).sum(axis=0), mean)
