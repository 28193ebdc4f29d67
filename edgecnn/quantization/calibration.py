"""What a calibration found out about a float Graph on real inputs."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgecnn.graph import Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Statistics:
    """Of one tensor, over all images.

    Attributes:
        low: Lower end of the range that the observer chose.
        high: Upper end of it.
        minimum: Smallest value of each channel (last axis), float32 (channels,).
        maximum: Largest value of each channel, float32 (channels,).
        mean: Of each channel, float64 (channels,).
        variance: Of each channel, float64 (channels,).
    """

    low: float
    high: float
    minimum: Array
    maximum: Array
    mean: Array
    variance: Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibration:
    """Statistics of every computed float tensor of a Graph.

    Attributes:
        statistics: Tensor name -> statistics; the input tensors are among them.
        images: How many were run.
        origin: Where they come from, for people and for the artifact's stamp.
        is_random: True where the inputs are random numbers and no real data.
        backend: What ran the Graph, with its version.
        observer: How ranges were chosen.
        convergence: Number of images -> largest relative growth of any tensor's range that the images behind it still
            brought: how far the ranges had settled.
    """

    statistics: Mapping[str, Statistics]
    images: int
    origin: str
    is_random: bool
    backend: str
    observer: str
    convergence: Mapping[int, float]
