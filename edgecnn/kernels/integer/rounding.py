"""How an accumulator becomes the output's integer: times a real factor, in float32 or in integers alone.

A factor is M = m * 2^shift / 2^31 with an integer m in [2^30, 2^31). Fixed point multiplies by m, keeps the upper half
of the doubled product, and shifts; both steps round, the first one halves up, the second one halves away from zero.
Source: TensorFlow Lite, kernels/internal/quantization_util.cc (QuantizeMultiplier) and common.h
(MultiplyByQuantizedMultiplier); gemmlowp, fixedpoint.h (SaturatingRoundingDoublingHighMul, RoundingDivideByPOT).
"""

from typing import Any

import numpy as np

from edgecnn.graph import Array

MOST = 2.0**30
"""Largest factor: beyond it every integer but 0 saturates."""


def half_away(numbers: Array | np.floating[Any]) -> Array:
    """Round to whole numbers, halves away from zero: C's round()."""
    whole = np.trunc(numbers)
    # |numbers| + 0.5 would round up the float just below a half.
    with np.errstate(invalid="ignore"):
        return np.asarray(whole + np.where(np.abs(numbers - whole) >= 0.5, np.copysign(1, numbers), 0))


def multipliers(factor: Array | float) -> tuple[Array, Array]:
    """Return the factors as (m, shift), int64: factor = m * 2^(shift - 31).

    >>> multipliers(0.75)
    (array(1610612736), array(0))
    """
    fraction, shift = np.frexp(np.clip(np.asarray(factor, np.float64), -MOST, MOST))
    whole = half_away(fraction * 2.0**31).astype(np.int64)
    is_full, shift = whole == 2**31, shift.astype(np.int64)
    whole, shift = np.where(is_full, 2**30, whole), np.where(is_full, shift + 1, shift)
    is_nothing = shift < -31
    return np.where(is_nothing, 0, whole).astype(np.int64), np.where(is_nothing, 0, shift).astype(np.int64)


def high_product(values: Array, multiplier: Array | int, bits: int = 31) -> Array:
    """Return round(values * multiplier / 2^bits), halves up: gemmlowp's doubling high product."""
    return np.right_shift(values * multiplier + (1 << (bits - 1)), bits)


def shifted_right(values: Array, shift: Array | int) -> Array:
    """Return round(values / 2^shift), halves away from zero; shift 0 or more."""
    half = (1 << np.asarray(shift, np.int64)) >> 1
    return np.asarray((values + half - ((values < 0) & (half > 0))) >> shift)


def scaled_in_fixed_point(values: Array, factor: Array | float) -> Array:
    """Return values * factor in integers, as the reference kernels do.

    Args:
        values: int64 that fit int32.
        factor: Broadcasts to the values.
    """
    multiplier, shift = multipliers(factor)
    lifted = values << np.maximum(shift, 0) if np.any(shift > 0) else values
    return shifted_right(high_product(lifted, multiplier), np.maximum(-shift, 0))


def scaled_in_one_step(values: Array, factor: Array | float) -> Array:
    """Return values * factor, rounded once, halves up: what LiteRT's fully connected layers do, the reference ones too.

    Source: ruy, apply_multiplier.cc, MultiplyByQuantizedMultiplier; seen in LiteRT 2.3.
    """
    multiplier, shift = multipliers(factor)
    total = 31 - shift
    return np.asarray((values * multiplier + (np.int64(1) << (total - 1))) >> total)


def scaled_wide(values: Array, factor: Array | float) -> Array:
    """Return values * factor for accumulators of 48 bits, with a multiplier of 16 bits, halves up.

    Source: TensorFlow Lite, common.h, MultiplyByQuantizedMultiplier for int64.
    """
    multiplier, shift = multipliers(factor)
    reduced = np.minimum((multiplier + (1 << 15)) >> 16, 0x7FFF)
    total = 15 - shift
    return np.asarray((values * reduced + (np.int64(1) << (total - 1))) >> total)


def scaled_in_float32(values: Array, factor: Array | float) -> Array:
    """Return float32(values) * float32(factor), rounded half to even."""
    product = values.astype(np.float32)
    product *= np.asarray(factor, np.float32)
    return np.rint(product, out=product)
