"""What an artifact must reach: as near to its source as float32 rounds, or nearer than its integers are."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from edgecnn.interfaces import Facts
from edgecnn.quantization.assign import assign
from edgecnn.quantization.recipe import Recipe
from edgecnn.tolerance import (
    AGREEMENT,
    DYNAMIC_MARGIN_DB,
    NOISE_MARGIN_DB,
    Tolerance,
    computes_in_integers,
    judged,
    tolerance,
)
from edgecnn.verify import MINIMUM_SNR_DB, Parity
from tests.test_assign import network
from tests.test_scales import PLAIN, integers

FLOAT = Tolerance(minimum_snr_db=MINIMUM_SNR_DB, maximum_error=1e-4)
EXACT = {"y": np.array([[4.0, -4.0], [-4.0, 4.0], [4.0, -4.0], [-4.0, 4.0]])}
GOLDEN = {"y": EXACT["y"] + [[0.4, -0.4], [-0.4, 0.4], [-0.4, 0.4], [0.4, -0.4]]}
"""A tenth of the signal: 20 dB, the same classes."""
NOISE_DB = 20.0


def test_float_arithmetic_is_held_to_floats() -> None:
    graph = network()
    weight_only = assign(graph, None, Recipe(precision="weight_only_w8"))
    assert not computes_in_integers(graph)
    assert not computes_in_integers(weight_only)
    assert tolerance(graph, EXACT, None, 1e-4) == tolerance(weight_only, EXACT, GOLDEN, 1e-4) == FLOAT


def test_integers_are_held_to_their_own_noise_and_to_classes() -> None:
    static = integers(network())
    assert computes_in_integers(static)
    wanted = tolerance(static, EXACT, GOLDEN, 1e-4)
    assert wanted.minimum_snr_db == pytest.approx(NOISE_DB - NOISE_MARGIN_DB)
    assert (wanted.maximum_error, wanted.agreement) == (inf, AGREEMENT)


def test_a_network_whose_integers_change_classes_asks_no_more_of_a_runtime() -> None:
    golden = {"y": GOLDEN["y"] * [[1], [1], [1], [-1]]}
    assert tolerance(integers(network()), EXACT, golden, 1e-4).agreement == 0.5  # twice the one of four


def test_one_layer_of_integers_is_enough() -> None:
    mixed = integers(network(), replace(PLAIN, overrides=(("[!p]*", "float32"), ("p[!w]*", "float32"))))
    assert mixed.kinds()["Quantize"] == 1
    assert computes_in_integers(mixed)


def test_what_the_runtime_quantizes_as_it_comes_has_a_margin() -> None:
    dynamic = assign(network(), None, Recipe(precision="dynamic_w8"))
    assert computes_in_integers(dynamic)
    assert tolerance(dynamic, EXACT, GOLDEN, 1e-4).minimum_snr_db == pytest.approx(NOISE_DB - DYNAMIC_MARGIN_DB)


def parity(share: float | None, images: int, *, passed: bool = True) -> Parity:
    return Parity(
        artifact="a",
        target="t",
        facts=Facts(runtime="r", threads=1, precision="float32"),
        images=images,
        snr_db=50.0,
        max_error=0.0,
        top1_agreement=share,
        rounding_snr_db=NOISE_DB,
        minimum_snr_db=NOISE_DB,
        maximum_error=inf,
        resolvable_db=140.0,
        passed=passed,
    )


@pytest.mark.parametrize(
    ("others", "images", "passes"),
    [(0, 16, True), (1, 16, True), (2, 16, False), (1, 100, True), (2, 100, True), (3, 100, False), (2, 99, False)],
)
def test_two_classes_in_a_hundred_may_differ_and_one_always(others: int, images: int, passes: bool) -> None:
    wanted = Tolerance(minimum_snr_db=NOISE_DB, maximum_error=inf, agreement=AGREEMENT)
    assert judged(parity(1 - others / images, images), wanted).passed == passes
    assert judged(parity(1 - others / images, images), FLOAT).passed  # which other figures decide
    assert not judged(parity(1 - others / images, images, passed=False), wanted).passed


def test_an_output_without_classes_is_judged_by_its_noise_alone() -> None:
    wanted = Tolerance(minimum_snr_db=NOISE_DB, maximum_error=inf, agreement=AGREEMENT)
    assert judged(parity(None, 16), wanted).passed
