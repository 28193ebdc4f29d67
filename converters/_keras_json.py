"""Values of an untrusted configuration, each with its type checked."""

import reprlib
from collections.abc import Mapping

from edgecnn.errors import InputFileError


def show(value: object) -> str:
    """Return a value of the file for an error message, cut short however large or deep it is."""
    return reprlib.repr(value)


def json_text(where: str, value: object, what: str) -> str:
    """Return a value as text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InputFileError(f"{where}: {what}: text was wanted; found {show(value)}")
    return value


def json_object(where: str, value: object, what: str) -> Mapping[str, object]:
    """Return a value as a JSON object."""
    if not isinstance(value, dict):
        raise InputFileError(f"{where}: {what}: a JSON object was wanted; found {show(value)}")
    return value


def json_array(where: str, value: object, what: str) -> list[object]:
    """Return a value as a JSON array."""
    if not isinstance(value, list):
        raise InputFileError(f"{where}: {what}: a JSON array was wanted; found {show(value)}")
    return value
