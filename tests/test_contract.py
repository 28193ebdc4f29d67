"""What an app must know: there and back through JSON, and every refusal."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.contract import CHOICES, Contract, assumed_contract, parse_contract
from edgecnn.errors import InputFileError, UsageError

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-3, 1e6)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    chosen: dict[str, Any] = {name: draw(st.sampled_from(choices)) for name, choices in CHOICES.items()}
    channels = 1 if chosen["colour_order"] == "GRAY" else 3
    return Contract(
        height=draw(st.integers(1, 4096)),
        width=draw(st.integers(1, 4096)),
        **chosen,
        mean=draw(st.tuples(*[finite] * channels)),
        std=draw(st.tuples(*[positive] * channels)),
        crop_fraction=draw(st.floats(0, 1, exclude_min=True)),
        is_assumed=draw(st.booleans()),
        labels=tuple(draw(st.lists(st.text(max_size=9), max_size=4))),
    )


@given(contract=contracts())
def test_json_there_and_back_gives_the_same_contract(contract: Contract) -> None:
    text = contract.to_json()
    assert parse_contract(text, "file") == contract == parse_contract(text.encode(), "file")
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert "\n" not in text


def test_fields_of_a_later_version_that_we_do_not_know_are_passed_over() -> None:
    data = {**json.loads(Contract(height=8, width=9).to_json()), "gamma": 2.2}
    assert parse_contract(json.dumps(data), "file") == Contract(height=8, width=9)


MEASURES = "got height=8, width=8, mean={}, std={}, crop_fraction={}"
STANDARD = "(127.5, 127.5, 127.5)"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"colour_order": "YUV"}, "contract: colour_order must be one of RGB, BGR, GRAY; got 'YUV'"),
        ({"resize": "letterbox"}, "contract: resize must be one of stretch, center_crop; got 'letterbox'"),
        ({"layout": "NCWH"}, "contract: layout must be one of NHWC, NCHW; got 'NCWH'"),
        ({"output": "boxes"}, "contract: output must be one of logits, probabilities, features; got 'boxes'"),
        ({"interpolation": "nearest"}, "contract: interpolation must be one of bilinear; got 'nearest'"),
        (
            {"crop_fraction": 1.5},
            "contract: crop_fraction must fit 3 channel(s), be finite and (but for mean) positive; "
            + MEASURES.format(STANDARD, STANDARD, 1.5),
        ),
    ],
)
def test_a_contract_that_cannot_be_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Contract(height=8, width=8, **changes)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"height": 0}, "height and width"),
        ({"width": -3}, "height and width"),
        ({"mean": (0.0,)}, "mean"),
        ({"mean": (0.0, 0.0, float("nan"))}, "mean"),
        ({"std": (1.0, 1.0, 0.0)}, "std"),
        ({"std": (1.0, 1.0, float("inf"))}, "std"),
        ({"std": (1.0, 1.0)}, "std"),
        ({"colour_order": "GRAY"}, "mean"),
        ({"crop_fraction": 0.0}, "crop_fraction"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError, match=rf"^contract: {field} must fit [13] channel"):
        Contract(**{"height": 8, "width": 8, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '"text"',
        b"\xff\xfe",
        "[" * 100_000,
        '{"schema_version": 1}',
        '{"schema_version": 1, "height": 8}',
    ],
    ids=range(10),
)
def test_what_is_no_contract_is_refused_with_the_file(text: str | bytes) -> None:
    with pytest.raises(InputFileError, match=r"^model.onnx: its contract cannot be read: "):
        parse_contract(text, "model.onnx")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_is_refused(version: object) -> None:
    with pytest.raises(InputFileError) as caught:
        parse_contract(json.dumps({"schema_version": version, "height": 8, "width": 8}), "m.onnx")
    assert str(caught.value) == f"m.onnx: a contract of schema_version 1 was wanted; got {version!r}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", "8"),
        ("height", 8.5),
        ("height", True),
        ("width", None),
        ("crop_fraction", "0.5"),
        ("crop_fraction", True),
        ("is_assumed", 1),
        ("colour_order", 3),
        ("layout", ["NHWC"]),
        ("mean", "123"),
        ("mean", [1, 2, "3"]),
        ("mean", {"a": 1}),
        ("mean", 5),
        ("std", [True, True, True]),
        ("labels", "abc"),
        ("labels", [1]),
        ("labels", {"cat": 0}),
        ("mean", [10**400, 0, 0]),
    ],
)
def test_fields_of_a_wrong_type_are_refused(field: str, value: object) -> None:
    data = {**json.loads(Contract(height=8, width=8).to_json()), field: value}
    with pytest.raises(InputFileError, match=r"^file: its contract cannot be read: "):
        parse_contract(json.dumps(data), "file")


def test_a_contract_that_contradicts_itself_in_a_file_is_the_files_fault() -> None:
    data = {**json.loads(Contract(height=8, width=8).to_json()), "mean": [float("nan")] * 3}
    with pytest.raises(InputFileError, match=r"^file: its contract cannot be read: contract: mean must fit 3"):
        parse_contract(json.dumps(data), "file")


@given(contract=contracts(), pixel=st.integers(0, 255))
def test_every_pixel_lies_in_the_input_range(contract: Contract, pixel: int) -> None:
    low, high = contract.input_range
    for mean, std in zip(contract.mean, contract.std, strict=True):
        assert low <= (pixel - mean) / std <= high


def test_labels_fall_back_to_numbers() -> None:
    contract = Contract(height=8, width=8, labels=("cat", "dog"))
    assert [contract.label(index) for index in (0, 1, 2)] == ["cat", "dog", "2"]


def test_what_is_assumed_says_so() -> None:
    assert assumed_contract(8, 9, 3) == Contract(height=8, width=9, is_assumed=True)
    grey = assumed_contract(8, 9, 1, output="probabilities")
    assert (grey.colour_order, grey.mean, grey.output) == ("GRAY", (127.5,), "probabilities")
    with pytest.raises(UsageError, match=r"^a contract needs an image input of 1 or 3 channels; got 4$"):
        assumed_contract(8, 9, 4)
