"""How integers stand for numbers: rounding, zero, what is refused, signed and unsigned, and what a bias must have."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ops
from edgecnn.builder import GraphBuilder
from edgecnn.errors import GraphError
from edgecnn.graph import Graph, validate
from edgecnn.quantization.parameters import INTEGERS, Quantization, as_type, per_channel, per_tensor
from edgecnn.quantization.rules import bias_quantization

NARROW = st.sampled_from(["int8", "uint8", "int16", "uint16"])


@given(dtype=NARROW, scale=st.floats(1e-6, 1e3), zero=st.floats(0, 1), place=st.floats(0, 1))
def test_a_number_in_range_comes_back_within_half_a_step_and_zero_exactly(
    dtype: str, scale: float, zero: float, place: float
) -> None:
    least, most = (int(end) for end in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    found = per_tensor(scale, least + round(zero * (most - least)), dtype)
    low, high = found.range
    number = np.float32(low + place * (high - low))
    back = found.dequantize(found.quantize(np.asarray(number)))
    assert abs(float(back) - float(number)) <= found.scale[0] * (0.5 + 1e-3) + abs(float(number)) * 1e-6
    assert found.dequantize(found.quantize(np.zeros(1)))[0] == 0


@given(dtype=st.sampled_from(["int8", "uint8"]), zero=st.integers(0, 255))
def test_every_integer_stands_for_a_number_that_rounds_to_it(dtype: str, zero: int) -> None:
    least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    found, every = per_tensor(0.037, least + zero, dtype), np.arange(least, most + 1).astype(dtype)
    np.testing.assert_array_equal(found.quantize(found.dequantize(every)), every)


def test_halves_go_to_even_before_the_zero_point_comes_and_the_rest_saturates() -> None:
    found = per_tensor(1.0, 1)
    assert found.quantize(np.array([0.5, 1.5, 2.5, -0.5, 1e9, -1e9])).tolist() == [1, 3, 3, 1, 127, -128]
    assert per_tensor(1.0).quantize(np.array([-1e9]), low=-127).tolist() == [-127]


def test_each_channel_has_its_own_scale() -> None:
    found = Quantization(scale=(1.0, 0.5), zero_point=(0, 2), dtype="int8", axis=0)
    integers = found.quantize(np.array([[3.0, 1.0], [3.0, 1.0]]))
    assert integers.tolist() == [[3, 1], [8, 4]]
    assert found.dequantize(integers).tolist() == [[3.0, 1.0], [3.0, 1.0]]


@given(st.sampled_from([("int8", "uint8"), ("int16", "uint16")]), st.integers(-100, 100), st.floats(-20, 20))
def test_the_other_sign_of_a_type_stands_for_the_same_numbers(types: tuple[str, str], zero: int, number: float) -> None:
    signed = per_tensor(0.25, zero, types[0])
    unsigned = as_type(signed, types[1])
    assert as_type(unsigned, types[0]) == signed == as_type(signed, types[0])
    numbers = np.asarray(number)
    assert signed.dequantize(signed.quantize(numbers)) == unsigned.dequantize(unsigned.quantize(numbers))


def test_a_bias_counts_products() -> None:
    source, kernel = per_tensor(0.1, 3), per_channel([0.2, 0.3], axis=3)
    assert bias_quantization(source, kernel) == per_channel(
        np.float32(0.1) * np.array([0.2, 0.3], np.float32), axis=0, dtype="int32"
    )
    wide = bias_quantization(per_tensor(0.1, 0, "int16"), per_tensor(0.2))
    assert (wide.dtype, wide.axis, wide.zero_point) == ("int64", None, (0,))
    assert bias_quantization(per_tensor(0.1, 0, "int16"), kernel, "int32").dtype == "int32"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"dtype": "float32"}, f"a type of {', '.join(INTEGERS)} was wanted; got 'float32'"),
    (
        {"zero_point": (0, 0)},
        "as many zero points as scales, and one of each without an axis, were wanted; got 1 and 2",
    ),
    (
        {"scale": (1.0, 2.0), "zero_point": (0, 0)},
        "as many zero points as scales, and one of each without an axis, were wanted; got 2 and 2",
    ),
    ({"scale": (0.0,)}, "finite scales above 0 were wanted; got 0.0"),
    ({"scale": (float("nan"),)}, "finite scales above 0 were wanted; got nan"),
    ({"zero_point": (128,)}, "zero points in -128..127 were wanted; got 128"),
]


@pytest.mark.parametrize(("changes", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_integers_that_can_stand_for_nothing_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(GraphError) as caught:
        replace(per_tensor(1.0), **changes)
    assert str(caught.value) == f"quantization: {text}"


def _graph(**changes: Any) -> Graph:
    """Return ReLU over an input of two channels, and a constant that nothing needs."""
    b = GraphBuilder("tiny", initialise=lambda name, shape: np.zeros(shape, np.float32))
    graph = b.finish({"y": b.node("relu", ops.ReLU(), b.input("x", (1, 2)))})
    return replace(graph, tensors={**graph.tensors, "x": replace(graph.tensors["x"], **changes)})


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"quantization": per_tensor(1.0), "dtype": "int8"}, "x: quantized float32 numbers were wanted; got int8"),
    ({"quantization": per_tensor(1.0), "data": np.zeros((1, 2), np.uint8)}, "x: int8 data were wanted; got uint8"),
    (
        {"quantization": per_channel([1.0, 1.0, 1.0], axis=1)},
        "x: one scale for each of 2 channels of axis 1 was wanted; got 3",
    ),
    (
        {"quantization": per_channel([1.0, 1.0], axis=2)},
        "x: one scale for each of None channels of axis 2 was wanted; got 2",
    ),
]


@pytest.mark.parametrize(("changes", "text"), MISFITS, ids=[text for _, text in MISFITS])
def test_a_tensor_that_does_not_hold_such_integers_is_refused(changes: dict[str, Any], text: str) -> None:
    validate(_graph(quantization=per_channel([1.0, 1.0], axis=1)))
    with pytest.raises(GraphError) as caught:
        validate(_graph(**changes))
    assert str(caught.value) == text
