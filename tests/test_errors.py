"""The error tree against its drawing."""

import re

import pytest

from edgecnn import errors
from edgecnn.errors import EdgeCNNError

LINE = re.compile(r"^ {4}(?P<rails>[│├└─ ]*)(?P<name>\w+)(?: \((?P<builtin>\w+)\))?(?: +(?P<code>\d))?(?: {2,}.*)?$")


def drawn() -> dict[str, tuple[str | None, str | None, int | None]]:
    """Read the docstring's drawing: class -> (parent, built-in parent, exit code where one is written)."""
    found: dict[str, tuple[str | None, str | None, int | None]] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        depth = len(match["rails"]) // 4
        above[depth] = match["name"]
        code = int(match["code"]) if match["code"] else None
        found[match["name"]] = (above.get(depth - 1), match["builtin"], code)
    return found


TREE = drawn()
CLASSES = {
    name: each for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, EdgeCNNError)
}


def test_the_drawing_shows_every_error() -> None:
    assert TREE.keys() == CLASSES.keys()


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "EdgeCNNError"])
def test_each_error_has_the_parents_and_the_exit_code_of_the_drawing(name: str) -> None:
    parent, builtin, code = TREE[name]
    error = CLASSES[name]
    assert [base.__name__ for base in error.__bases__] == [each for each in (parent, builtin) if each]
    inherited = code if code is not None else CLASSES[parent or ""].exit_code
    assert error.exit_code == inherited
    assert issubclass(error, EdgeCNNError)
    assert str(error("where: wanted, found")) == "where: wanted, found"


def test_exit_codes() -> None:
    codes = {name: error.exit_code for name, error in CLASSES.items()}
    assert codes == {
        "EdgeCNNError": 1,
        "CheckFailedError": 1,
        "UsageError": 2,
        "UnknownNameError": 2,
        "ShapeError": 2,
        "OutputError": 2,
        "InputFileError": 3,
        "GraphError": 3,
        "UnsupportedError": 3,
        "MissingError": 4,
        "NotThereError": 4,
    }
