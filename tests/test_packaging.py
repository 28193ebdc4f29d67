"""What is shipped and what importing it costs."""

import doctest
import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import edgecnn
from edgecnn.extras import EXTRA_OF

ROOT = Path(__file__).parents[1]
ROOMS = ("converters", "targets", "benchmarks")
FRAMEWORKS = {*EXTRA_OF, "ml_dtypes", "scipy", "skimage", "torch", "matplotlib"}


def python(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def module_names() -> list[str]:
    """Every module of edgecnn and of its rooms but __main__, which runs when it is imported."""
    packages = ["edgecnn", *(f"edgecnn.{room}" for room in ROOMS)]
    found = set(packages)
    for package in packages:
        paths = importlib.import_module(package).__path__
        found |= {each.name for each in pkgutil.walk_packages(paths, f"{package}.")}
    return sorted(found - {"edgecnn.__main__"})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a copy of the checkout and the folder with the sdist and the wheel that were built from it."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for each in ("edgecnn", *ROOMS, "tests", "docs"):
        shutil.copytree(ROOT / each, copy / each, ignore=shutil.ignore_patterns("__pycache__"))
    for each in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "Makefile", "CHANGELOG.md"):
        if (ROOT / each).exists():
            shutil.copy(ROOT / each, copy / each)
    done = python("-m", "build", "--no-isolation", "--outdir", str(out), str(copy))
    assert done.returncode == 0, done.stdout + done.stderr
    return copy, out


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    copy, out = built
    wanted = {f"edgecnn/{p.relative_to(copy / 'edgecnn')}" for p in (copy / "edgecnn").rglob("*.py")}
    wanted |= {f"edgecnn/{p.relative_to(copy)}" for room in ROOMS for p in (copy / room).rglob("*.py")}
    wanted.add("edgecnn/py.typed")
    (wheel,) = out.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    assert {name for name in names if ".dist-info/" not in name} == wanted
    assert {name.split("/")[0] for name in names} == {"edgecnn", f"edgecnn-{edgecnn.__version__}.dist-info"}


def test_the_wheel_has_the_command_and_the_licence(built: tuple[Path, Path]) -> None:
    (wheel,) = built[1].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = f"edgecnn-{edgecnn.__version__}.dist-info"
        assert "edgecnn = edgecnn.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()


def test_the_source_archive_holds_the_tests(built: tuple[Path, Path]) -> None:
    (archive,) = built[1].glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {f"tests/{path.name}" for path in (built[0] / "tests").glob("*.py")} <= names
    assert {"pyproject.toml", "LICENSE", "README.md", "Makefile"} <= names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_refuses_to_be_imported_under_its_plain_name(room: str) -> None:
    done = python("-c", f"import {room}")
    assert done.returncode == 1
    wanted = f"ImportError: import edgecnn.{room}, not {room}: a second copy of its classes would come to life"
    assert done.stderr.strip().splitlines()[-1] == wanted


def test_importing_edgecnn_and_its_command_line_loads_no_framework_and_no_room() -> None:
    done = python("-c", "import sys, json, edgecnn, edgecnn.cli; print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "edgecnn.cli" in loaded
    assert not {name.partition(".")[0] for name in loaded} & (FRAMEWORKS | {"numpy", "rich"})
    assert not [name for name in loaded if name.split(".")[1:2] in [[room] for room in ROOMS]]


def test_importing_every_module_loads_no_framework() -> None:
    code = f"import sys, json, importlib; [importlib.import_module(n) for n in {module_names()}]; "
    done = python("-c", code + "print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert not {name.partition(".")[0] for name in json.loads(done.stdout)} & FRAMEWORKS


def test_no_module_of_a_room_is_named_like_a_package_that_it_wraps() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    needed = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    packages = {re.split(r"[\[<>=]", each)[0].replace("-", "_").lower() for each in needed} | set(EXTRA_OF)
    stems = {path.stem for room in ROOMS for path in (ROOT / room).glob("*.py")}
    assert not stems & packages


@pytest.mark.parametrize("name", module_names())
def test_docstrings_keep_their_promises(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), "a module opens with one sentence"
    assert doctest.testmod(module).failed == 0


def test_docstrings_promise_something() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [importlib.import_module(name) for name in module_names()]
    assert sum(len(test.examples) for module in modules for test in finder.find(module)) > 20


def test_public_names_are_the_same_object_every_time() -> None:
    code = (
        "import edgecnn, edgecnn.convert, edgecnn.verify, edgecnn.models.build\n"
        "for name in edgecnn.PUBLIC: assert callable(getattr(edgecnn, name)), name\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
