"""Output sizes, padding and broadcasting, against brute-force counting."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgecnn.errors import ShapeError
from edgecnn.ops import AveragePool, Concat, Conv, Dense, Mean, Op, Pad, Reshape, Transpose
from edgecnn.shapes import Shape, broadcast_shapes, check_shape, explicit_padding, output_size, same_padding, show_shape

sizes = st.integers(1, 40)
kernels = st.integers(1, 7)
steps = st.integers(1, 4)


def count_positions(size: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Slide the kernel and count where its last element still lies inside."""
    return sum(start + dilation * (kernel_size - 1) < size for start in range(0, size, stride))


def test_seven_by_seven_with_a_filter_of_three_and_stride_two_gives_three() -> None:
    assert output_size(7, 3, stride=2) == 3


def test_valid_gives_n_minus_f_plus_one_and_padding_adds_two_p() -> None:
    assert output_size(6, 3) == 6 - 3 + 1 == 4
    assert output_size(6, 3, padding=(1, 1)) == 6 + 2 * 1 - 3 + 1 == 6


@given(n=sizes, f=kernels, p=st.integers(0, 3), s=steps)
def test_the_notes_first_strided_formula_is_one_too_few_unless_the_stride_divides_it(
    n: int, f: int, p: int, s: int
) -> None:
    assume(n + 2 * p >= f)
    printed_first = (n + 2 * p - f + 1) // s
    printed_later = (n + 2 * p - f) // s + 1
    right = count_positions(n + 2 * p, f, s, 1)
    assert output_size(n, f, stride=s, padding=(p, p)) == printed_later == right
    assert right - printed_first == (1 if s > 1 and (n + 2 * p - f + 1) % s else 0)


@given(n=sizes, f=kernels, s=steps, d=steps, p=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_output_sizes_are_the_positions_that_fit(n: int, f: int, s: int, d: int, p: tuple[int, int]) -> None:
    padded = n + sum(p)
    assume(padded >= d * (f - 1) + 1)
    assert output_size(n, f, stride=s, padding=p, dilation=d) == count_positions(padded, f, s, d)


@given(n=sizes, f=kernels, s=steps, d=st.integers(1, 3))
def test_same_gives_the_ceiling_of_n_over_s_with_the_odd_one_after(n: int, f: int, s: int, d: int) -> None:
    before, after = same_padding(n, f, stride=s, dilation=d)
    assert after - before in (0, 1)
    assert before >= 0
    assert output_size(n, f, stride=s, padding=(before, after), dilation=d) == -(-n // s)


@given(n=sizes, f=st.sampled_from([1, 3, 5, 7]))
def test_same_for_odd_kernels_is_half_of_f_minus_one(n: int, f: int) -> None:
    assert same_padding(n, f) == ((f - 1) // 2, (f - 1) // 2)


def test_same_is_asymmetric_for_even_sizes_with_stride_two() -> None:
    assert same_padding(224, 3, stride=2) == (0, 1)
    assert same_padding(225, 3, stride=2) == (1, 1)


def test_explicit_padding_names_its_three_spellings() -> None:
    assert explicit_padding("valid", (5, 6), (3, 3), (1, 1), (1, 1)) == ((0, 0), (0, 0))
    assert explicit_padding("same", (5, 6), (3, 5), (1, 2), (1, 1)) == ((1, 1), (1, 2))
    assert explicit_padding(((1, 0), (0, 2)), (5, 6), (3, 3), (1, 1), (1, 1)) == ((1, 0), (0, 2))
    with pytest.raises(ShapeError, match=r"^padding must be 'same', 'valid' or explicit numbers; got 'full'$"):
        explicit_padding("full", (5,), (3,), (1,), (1,))


def test_a_kernel_larger_than_the_padded_input_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"^the kernel must fit the padded input; got a kernel of 5 over 4 positions$"):
        output_size(2, 3, padding=(1, 1), dilation=2)


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ((None, 7, 7, 3), (3,), (None, 7, 7, 3)),
        ((3,), (None, 7, 7, 3), (None, 7, 7, 3)),
        ((None, 1, 1, 3), (1, 7, 7, 1), (None, 7, 7, 3)),
        ((None, 4), (None, 4), (None, 4)),
        ((2, 1), (1, 5), (2, 5)),
        ((), (2, 3), (2, 3)),
    ],
)
def test_broadcasting_follows_numpy_and_keeps_a_symbolic_batch(a: Shape, b: Shape, wanted: Shape) -> None:
    assert broadcast_shapes(a, b) == wanted


@pytest.mark.parametrize(("a", "b"), [((2, 3), (4, 3)), ((None, 3), (5, 3)), ((2, 3), (2,))])
def test_shapes_that_do_not_broadcast_are_refused(a: Shape, b: Shape) -> None:
    with pytest.raises(ShapeError) as caught:
        broadcast_shapes(a, b)
    assert str(caught.value) == f"shapes must broadcast; got {show_shape(a)} and {show_shape(b)}"


def test_check_shape_lets_none_agree_with_every_size() -> None:
    check_shape("kernel", (None, 3), (8, None))
    with pytest.raises(ShapeError, match=r"^kernel must have shape 8x3; got Nx4$"):
        check_shape("kernel", (None, 4), (8, 3))
    with pytest.raises(ShapeError, match=r"^bias must have shape 3; got scalar$"):
        check_shape("bias", (), (3,))


def conv(**changes: object) -> Conv:
    attributes = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1, **changes}
    return Conv(**attributes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"groups": 0}, "groups must be at least 1; got 0"),
        ({"stride": (1, 0)}, "stride must be at least 1; got (1, 0)"),
        ({"dilation": (0, 1)}, "dilation must be at least 1; got (0, 1)"),
        ({"padding": ((0, 0), (0, -1))}, "padding must not be negative; got ((0, 0), (0, -1))"),
        ({"stride": (1,)}, "stride and padding must name the same 1 to 3 dimensions; got (1,) and ((0, 0), (0, 0))"),
    ],
)
def test_a_convolution_with_contradicting_attributes_cannot_be_made(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ShapeError) as caught:
        conv(**changes)
    assert str(caught.value) == text


def test_padding_that_crops_cannot_be_made() -> None:
    with pytest.raises(ShapeError, match=r"^padding must not be negative; got \(\(0, 0\), \(-1, 0\)\)$"):
        Pad(padding=((0, 0), (-1, 0)))


def test_a_pool_whose_window_could_lie_in_the_padding_cannot_be_made() -> None:
    with pytest.raises(ShapeError, match=r"^padding must be smaller than the kernel; got \(\(2, 0\),\) for \(2,\)$"):
        AveragePool(kernel_size=(2,), stride=(1,), padding=((2, 0),))


@pytest.mark.parametrize(
    ("op", "shapes", "text"),
    [
        (
            conv(),
            [(None, 8, 3), (3, 3, 3, 4)],
            "a 2-D convolution takes an input and a kernel of rank 4; got Nx8x3 and 3x3x3x4",
        ),
        (conv(groups=4), [(1, 8, 8, 30), (3, 3, 7, 4)], "groups must divide in_channels; got in_channels=30, groups=4"),
        (conv(groups=2), [(1, 8, 8, 4), (3, 3, 2, 3)], "groups must divide out_channels; got out_channels=3, groups=2"),
        (conv(), [(1, 8, 8, 4), (3, 3, 3, 5)], "kernel must have shape 3x3x4x5; got 3x3x3x5"),
        (conv(), [(1, 8, 8, 4), (3, 3, 4, 5), (4,)], "bias must have shape 5; got 4"),
        (
            conv(),
            [(1, None, 8, 4), (3, 3, 4, 5)],
            "only the batch may be symbolic; got a symbolic size in another place",
        ),
        (Dense(), [(1, 8), (7, 5)], "kernel must have shape 8x5; got 7x5"),
        (Mean(axes=(3,)), [(1, 8)], "axes must lie in 0..1; got (3,)"),
        (Pad(padding=((0, 0),)), [(1, 8)], "padding must name all 2 axes; got 1"),
        (Reshape(shape=(None, 9)), [(None, 8)], "a reshape keeps the elements; got Nx8 to Nx9"),
        (Reshape(shape=(1, 8)), [(None, 8)], "a reshape keeps the elements; got Nx8 to 1x8"),
        (Transpose(permutation=(0, 0)), [(1, 8)], "permutation must order the axes 0..1; got (0, 0)"),
        (Concat(axis=2), [(1, 8)], "axis must lie in 0..1; got 2"),
        (Concat(axis=1), [(1, 8), (2, 8)], "each input must have shape 1xN; got 2xN"),
        (Concat(axis=1), [], "at least one input was wanted; got none"),
    ],
)
def test_each_shape_rule_says_what_was_wanted_and_found(op: Op, shapes: list[Shape], text: str) -> None:
    with pytest.raises(ShapeError) as caught:
        op.output_shapes(shapes)
    assert str(caught.value) == text
