"""Names that are found or suggested, and packages that are there or named with their remedy."""

import importlib
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from edgecnn import registry
from edgecnn.errors import EdgeCNNError, MissingError, UnknownNameError
from edgecnn.extras import EXTRA_OF, require

ROOMS = ("models", "converters", "targets")


class Blocker:
    """An importer that finds nothing under some names, as if the packages were not installed."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if any(name == blocked or name.startswith(f"{blocked}.") for blocked in self.names):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget every import that a test makes impossible, and every registry table that it changes."""
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for loaded in [each for each in sys.modules if any(each == n or each.startswith(f"{n}.") for n in names)]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [Blocker(*names), *sys.meta_path])


@pytest.mark.parametrize("package", EXTRA_OF)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, package)
    with pytest.raises(MissingError) as caught:
        require(f"{package}.inner", purpose="edgecnn convert --to onnx")
    assert str(caught.value) == (
        f"edgecnn convert --to onnx needs the package {package}, which is not installed. "
        f"Run: python -m pip install 'edgecnn[{EXTRA_OF[package]}]'"
    )


def test_every_extra_that_an_error_names_exists() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert set(EXTRA_OF.values()) <= tomllib.loads(text)["project"]["optional-dependencies"].keys()


def test_a_package_that_is_there_is_imported() -> None:
    assert require("PIL.Image", purpose="this test") is importlib.import_module("PIL.Image")


def test_a_broken_package_keeps_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("import nothing_of_that_name")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name") as caught:
        require("onnxruntime", purpose="this test")
    assert not isinstance(caught.value, MissingError)


@pytest.mark.parametrize(
    ("room", "name", "text"),
    [
        ("models", "mobilnet_v2", "No model is named 'mobilnet_v2'. Did you mean 'mobilenet_v2'?"),
        (
            "targets",
            "zebra",
            "No target is named 'zebra'. There are: keras_cpu, litert_cpu, onnxruntime_cpu, openvino_cpu, reference.",
        ),
        ("converters", "tflit", "No format is named 'tflit'. Did you mean 'tflite'?"),
        ("targets", "litert_gpu", "No target is named 'litert_gpu'. Did you mean 'litert_cpu'?"),
    ],
)
def test_unknown_names_suggest_the_nearest_or_list_all(room: str, name: str, text: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry.load(room, name)
    assert str(caught.value) == text


@pytest.mark.parametrize("room", ROOMS)
def test_every_built_in_entry_names_an_object_that_is_there(room: str) -> None:
    for name, where in registry.entries(room).items():
        module, _, attribute = where.partition(":")
        assert hasattr(importlib.import_module(module), attribute), (name, where)


@pytest.mark.usefixtures("block")
def test_other_peoples_entry_points_are_found_and_cannot_replace_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "edgecnn.models"
    points = [
        EntryPoint(name="their_net", value="math:hypot", group=group),
        EntryPoint(name="lenet5", value="math:sqrt", group=group),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: points)
    assert registry.load("models", "their_net") is importlib.import_module("math").hypot
    assert registry.entries("models")["lenet5"] == "edgecnn.models.lenet5:lenet5"


@pytest.mark.usefixtures("block")
def test_a_checkout_that_was_never_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "edgecnn.converters")
    with pytest.raises(EdgeCNNError) as caught:
        registry.entries("converters")
    assert str(caught.value) == (
        "edgecnn.converters is not there: this checkout was never installed. Run: python -m pip install -e ."
    )
