"""Roundings of the integer golden against plain Python integers, after the C of gemmlowp and LiteRT."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ops
from edgecnn.kernels.integer.rounding import (
    half_away,
    multipliers,
    scaled_in_fixed_point,
    scaled_in_float32,
    scaled_in_one_step,
    scaled_wide,
)
from edgecnn.kernels.integer.scales import Scales
from edgecnn.quantization.parameters import per_tensor

SUMS = st.integers(-(2**24), 2**24)
FACTORS = st.floats(2**-24, 16, allow_subnormal=False)


def cut(a: int, b: int) -> int:
    """Divide as C does: toward zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def gemmlowp(x: int, multiplier: int, shift: int) -> int:
    """MultiplyByQuantizedMultiplier: SaturatingRoundingDoublingHighMul, then RoundingDivideByPOT."""
    product = x * 2 ** max(shift, 0) * multiplier
    high = cut(product + (2**30 if product >= 0 else 1 - 2**30), 2**31)
    exponent = max(-shift, 0)
    mask = 2**exponent - 1
    remainder, threshold = high & mask, (mask >> 1) + (1 if high < 0 else 0)
    return (high >> exponent) + (1 if remainder > threshold else 0)


@given(FACTORS)
def test_a_factor_is_a_multiplier_of_31_bits_and_a_shift(factor: float) -> None:
    multiplier, shift = (int(each) for each in multipliers(factor))
    assert 2**30 <= multiplier < 2**31
    assert abs(Fraction(multiplier) * Fraction(2) ** (shift - 31) - Fraction(factor)) <= Fraction(2) ** (shift - 32)


def test_a_factor_just_below_a_power_of_two_is_that_power() -> None:
    assert [int(each) for each in multipliers(np.nextafter(1.0, 0))] == [2**30, 1]


def test_a_vanishing_factor_is_zero() -> None:
    assert [int(each) for each in multipliers(2.0**-40)] == [0, 0]


@given(st.lists(SUMS, min_size=1, max_size=8), FACTORS)
def test_fixed_point_rounds_twice_as_gemmlowp_does(sums: list[int], factor: float) -> None:
    multiplier, shift = (int(each) for each in multipliers(factor))
    found = scaled_in_fixed_point(np.array(sums, np.int64), factor)
    assert found.tolist() == [gemmlowp(x, multiplier, shift) for x in sums]


def test_fixed_point_rounds_twice_first_up_then_away() -> None:
    assert scaled_in_fixed_point(np.array([-3, -1, 1, 3]), 0.5).tolist() == [-1, 0, 1, 2]
    assert scaled_in_fixed_point(np.array([-6, -2, 2, 6]), 0.25).tolist() == [-2, -1, 1, 2]
    # A quarter becomes a half, and the half a whole one; in one step it is nothing.
    assert scaled_in_fixed_point(np.array([1]), 0.25).tolist() == [1]
    assert scaled_in_one_step(np.array([1]), 0.25).tolist() == [0]


@given(st.lists(SUMS, min_size=1, max_size=8), FACTORS)
def test_one_step_is_the_nearest_multiple(sums: list[int], factor: float) -> None:
    found = scaled_in_one_step(np.array(sums, np.int64), factor)
    multiplier, shift = (int(each) for each in multipliers(factor))
    exact = [Fraction(x * multiplier) * Fraction(2) ** (shift - 31) for x in sums]
    assert found.tolist() == [math.floor(each + Fraction(1, 2)) for each in exact]


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=8), st.floats(2**-28, 2**-8))
def test_wide_sums_take_a_multiplier_of_16_bits(sums: list[int], factor: float) -> None:
    found = scaled_wide(np.array(sums, np.int64), factor)
    for x, each in zip(sums, found.tolist(), strict=True):
        assert abs(each - x * factor) <= 0.5 + abs(x * factor) * 2.0**-15


def test_float32_rounds_halves_to_even() -> None:
    assert scaled_in_float32(np.array([-3, -1, 1, 3, 5]), 0.5).tolist() == [-2, 0, 0, 2, 2]


def test_float32_sees_sums_as_float32() -> None:
    """2^24 + 1 is 2^24 there, so that half of it is no half."""
    assert scaled_in_float32(np.array([2**24 + 1, 2**24 + 3]), 0.5).tolist() == [2**23, 2**23 + 2]


@given(st.floats(-1e6, 1e6))
def test_halves_away_from_zero(number: float) -> None:
    exact = Fraction(number)
    assert int(half_away(np.array(number))) == (1 if exact >= 0 else -1) * math.floor(abs(exact) + Fraction(1, 2))


@pytest.mark.parametrize(
    ("activation", "wanted"), [(None, (-128, 127)), (ops.ReLU(), (-60, 127)), (ops.ReLU6(), (-60, 60))]
)
def test_a_fused_activation_clamps_integers(activation: ops.Activation | None, wanted: tuple[int, int]) -> None:
    scales = Scales(own=(), given=per_tensor(0.05, -60), rounding="float32", activation=activation)
    assert scales.limits() == wanted
