"""Compound scaling: one number, phi, makes a network deeper, wider and sharper together.

    depth       d = 1.2 ** phi      repeats of each stage, rounded up
    width       w = 1.1 ** phi      channels, rounded to multiples of 8
    resolution  r = 1.15 ** phi     input pixels, rounded to multiples of 8

MACs grow with d * w^2 * r^2, and alpha * beta^2 * gamma^2 = 1.2 * 1.1^2 * 1.15^2 = 1.92, about 2: a network of phi
costs about 2^phi times the one of phi 0, and more where phi is small, since repeats are rounded up. A negative phi
makes it smaller.

Source: Tan and Le, EfficientNet, arXiv:1905.11946, section 3.3, equation 3; alpha, beta and gamma from section 4. The
published B1..B7 round their coefficients by hand, so `efficientnet_b1` is not exactly `efficientnet` with phi 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgecnn.errors import UsageError

ALPHA_DEPTH = 1.2
BETA_WIDTH = 1.1
GAMMA_RESOLUTION = 1.15
RESOLUTION_STEP_PX = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """Factors on the repeats, on the channels, and on the resolution of the network of phi 0."""

    depth_coefficient: float
    width_coefficient: float
    resolution_factor: float


def scaling(phi: float) -> Scaling:
    """Return the three factors of a phi.

    >>> scaling(0)
    Scaling(depth_coefficient=1.0, width_coefficient=1.0, resolution_factor=1.0)
    >>> one = scaling(1)
    >>> round(one.depth_coefficient * one.width_coefficient**2 * one.resolution_factor**2, 2)
    1.92
    """
    return Scaling(
        depth_coefficient=ALPHA_DEPTH**phi, width_coefficient=BETA_WIDTH**phi, resolution_factor=GAMMA_RESOLUTION**phi
    )


def scale_resolution(resolution: int, factor: float) -> int:
    """Return a scaled resolution in pixels, the nearest multiple of 8, at least 8.

    >>> scale_resolution(224, scaling(0.5).resolution_factor)
    240
    """
    return max(1, round(resolution * factor / RESOLUTION_STEP_PX)) * RESOLUTION_STEP_PX


def scaled_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a family's options with phi and width_coefficient put into the family's own terms.

    Args:
        given: What the user chose, by name.
        defaults: The family's options and their defaults. A family can be scaled when it has a depth_coefficient; one
            that has a width_multiplier (the MobileNets) has it multiplied by the width coefficient.

    Raises:
        UsageError: When phi stands beside one of the three things that it sets.

    >>> family = {"width_multiplier": 1.0, "depth_coefficient": 1.0, "resolution": 224}
    >>> scaled_options({"width_coefficient": 1.5, "width_multiplier": 0.5}, family)
    {'width_multiplier': 0.75}
    """
    options = dict(given)
    if "depth_coefficient" not in defaults:
        return options
    phi = options.pop("phi", None)
    if phi is not None:
        beside = [name for name in ("width_coefficient", "depth_coefficient", "resolution") if name in options]
        if beside:
            raise UsageError(
                f"phi sets width_coefficient, depth_coefficient and resolution; got {beside[0]} beside it. "
                "Leave one of them out."
            )
        factors = scaling(phi)
        options["width_coefficient"] = factors.width_coefficient
        options["depth_coefficient"] = factors.depth_coefficient
        options["resolution"] = scale_resolution(defaults["resolution"], factors.resolution_factor)
    if "width_multiplier" in defaults and "width_coefficient" in options:
        width_multiplier = options.get("width_multiplier", defaults["width_multiplier"])
        options["width_multiplier"] = width_multiplier * options.pop("width_coefficient")
    return options
