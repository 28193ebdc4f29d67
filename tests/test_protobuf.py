"""Protocol buffers from untrusted bytes: what is decoded, that nothing is copied, and how damage is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgecnn.converters._onnx_messages import TENSOR
from edgecnn.converters._protobuf import Schema, mapped, numbers, read_message
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import InputFileError

SCHEMA: Schema = {
    1: ("count", "int", False),
    2: ("name", "text", False),
    3: ("sizes", "int", True),
    4: ("scale", "float", False),
    5: ("shares", "float", True),
    6: ("inner", "bytes", False),
}


def read(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = read_message(memoryview(content), SCHEMA)
    return found


def test_each_kind_is_decoded_and_unknown_fields_are_passed_by() -> None:
    found = read(b"\x08\x96\x01\x12\x02ab\x25\x00\x00\x80\x3f\x7a\x01x\x79" + bytes(8) + b"\x32\x01\x07")
    assert found == {"count": 150, "name": "ab", "scale": 1.0, "inner": b"\x07"}


def test_the_last_of_several_wins_and_negative_numbers_take_ten_bytes() -> None:
    assert read(b"\x08\x01\x08" + b"\xff" * 9 + b"\x01") == {"count": -1}


def test_repeated_numbers_may_be_packed_or_not() -> None:
    found = read(b"\x18\x01\x1a\x03\x02\x96\x01")
    assert numbers(found["sizes"], "int64").tolist() == [1, 2, 150]
    assert numbers([], "int64").tolist() == []


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_packed_integers_are_what_protobuf_writes(values: list[int]) -> None:
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto(dims=[len(values)], int64_data=values)
    found = read_message(memoryview(tensor.SerializeToString()), TENSOR)
    assert numbers(found.get("int64_data", []), "int64").tolist() == values


def test_packed_floats_are_a_view_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "numbers.bin"
    path.write_bytes(b"\x2a\x08" + np.array([1.5, -2], "<f4").tobytes())
    found = numbers(read_message(mapped(path), SCHEMA)["shares"], "float32")
    assert found.tolist() == [1.5, -2]
    assert not found.flags.owndata
    assert not found.flags.writeable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x08", "a number was wanted; its bytes do not end"),
        (b"\x08" + b"\xff" * 11, "a number was wanted; its bytes do not end"),
        (b"\x12\x05ab", "5 bytes were wanted; only 2 are left"),
        (b"\x12\xff\xff\xff\xff\x0fab", "4294967295 bytes were wanted; only 2 are left"),
        (b"\x25\x00", "4 bytes were wanted; only 1 are left"),
        (b"\x0b", "a field of wire type 0, 1, 2 or 5 was wanted; found 3"),
        (b"\x0a\x00", "field 'count' should hold int; it is stored with wire type 2"),
        (b"\x12\x02\xff\xfe", "text in UTF-8 was wanted"),
        (b"\x1a\x01\x80", "the last one does not end"),
        (b"\x1a\x0c" + b"\x80" * 11 + b"\x01", "an integer of at most 10 bytes was wanted"),
        (b"\x2a\x03abc", "packed numbers of 4 bytes were wanted; found 3 bytes"),
    ],
)
def test_damage_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        read(content)


def test_a_million_nested_messages_cost_one_look() -> None:
    assert read(b"\x32\x80\x80\x40" + b"\x32" * (1 << 20))["inner"] is not None


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    with pytest.raises(InputFileError, match="a file with content was wanted"):
        mapped(path)
