"""Damaged and hostile files: each gives a Graph or an EdgeCNNError, in bounded time and memory, and nothing else."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import registry
from edgecnn.errors import EdgeCNNError, GraphError, InputFileError, UnsupportedError
from edgecnn.execute import with_image_statistics
from edgecnn.graph import Graph
from edgecnn.isolated import ChildError, Limits, Worker
from edgecnn.models.build import ZooOptions, build
from edgecnn.passes.deploy import deploy
from tests.mutations import KNOWING, mutated

LIMITS = Limits(seconds=5, memory_bytes=1 << 30)
"""For one file of a few megabytes."""

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")) / "weights"
REAL = sorted(path for path in DATA.rglob("*") if path.suffix in KNOWING) if DATA.is_dir() else []

CRASHING = (".h5", ".keras")
DEADLY = ("crashed", "took longer")
"""Suffixes that libhdf5 reads, and what it may do there, since users meet it in a child alone."""

REFUSALS = (InputFileError, GraphError, UnsupportedError)

WRITTEN = ("lenet5.tflite", "small.tflite", "lenet5.onnx", "small.onnx", "lenet5.xml", "small.xml")
SAVED = ("lenet5.keras", "small.keras", "lenet5.h5")

MANY = {**dict.fromkeys(WRITTEN, 1400), **dict.fromkeys(SAVED, 550)}
"""File -> mutations in the slow run: ten thousand in all, fewer where libhdf5 may go round until its time is up."""

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as child:
        yield child


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def network(stem: str) -> Graph:
    if stem == "lenet5":
        return build("lenet5")
    graph = build("mobilenet_v2", ZooOptions(width_multiplier=0.35, resolution=32, classes=4))
    image = np.random.default_rng(0).standard_normal((4, 32, 32, 3), dtype=np.float32)
    return with_image_statistics(graph, {graph.inputs[0].name: image})


def written(name: str, folder: Path) -> Path:
    """Return a small network in a format, written once."""
    path, kinds = folder / name, {".tflite": "tflite", ".onnx": "onnx", ".xml": "openvino"}
    if not path.exists():
        if path.suffix in kinds:
            registry.load("converters", kinds[path.suffix]).write(deploy(network(path.stem)).graph, path)
        else:
            pytest.importorskip("keras")
            registry.load("converters", "keras").to_keras(network(path.stem)).save(path)
    return path


def ending(worker: Worker, function: str, *arguments: object, limits: Limits = LIMITS) -> EdgeCNNError | None:
    """Return the error that a call ended with, or None where it gave a value."""
    try:
        worker.call(function, *arguments, wanted="a finding", limits=limits)
    except EdgeCNNError as error:
        return error
    return None


def assert_bounded(worker: Worker, source: Path, seeds: range, folder: Path) -> None:
    """Every mutation of a file gives a Graph or an error of ours."""
    findings = []
    for seed in seeds:
        error = ending(worker, "tests.mutations:read_mutated", str(source), seed, str(folder))
        is_fine = error is None or (type(error) in REFUSALS and "mutated" in str(error))
        if not is_fine and not (source.suffix in CRASHING and any(words in str(error) for words in DEADLY)):
            findings.append(f"{source.name} {seed}: {type(error).__name__}: {error}")
        if len(findings) == 20:
            break
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize("name", [*WRITTEN, *SAVED])
def test_mutations_of_our_files(name: str, worker: Worker, folder: Path) -> None:
    assert_bounded(worker, written(name, folder), range(50), folder)


@pytest.mark.data
@pytest.mark.parametrize("source", REAL, ids=lambda path: path.name)
def test_mutations_of_real_files(source: Path, worker: Worker, folder: Path) -> None:
    assert_bounded(worker, source, range(8), folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WRITTEN, *SAVED])
def test_many_mutations_of_our_files(name: str, worker: Worker, folder: Path) -> None:
    assert_bounded(worker, written(name, folder), range(1000, 1000 + MANY[name]), folder)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("source", REAL, ids=lambda path: path.name)
def test_many_mutations_of_real_files(source: Path, worker: Worker, folder: Path) -> None:
    assert_bounded(worker, source, range(1000, 1150), folder)


@pytest.mark.parametrize("name", [*WRITTEN, *SAVED])
def test_a_seed_always_gives_the_same_damage(name: str, folder: Path) -> None:
    path = written(name, folder)
    data = path.read_bytes()
    made = [mutated(data, path.suffix, seed) for seed in range(20)]
    assert made == [mutated(data, path.suffix, seed) for seed in range(20)]
    assert sum(each == data for each in made) <= 3


# --- files that are not what they claim to be ------------------------------------------------------------------------


def symlink_loop(path: Path) -> None:
    path.symlink_to(path.with_name("b"))
    path.with_name("b").symlink_to(path)


NOT_FILES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "one_byte": lambda path: path.write_bytes(b"\x00"),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "web_page": lambda path: path.write_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 20),
    "lfs_pointer": lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)),
    "elf": lambda path: path.write_bytes(b"\x7fELF" + bytes(range(256)) * 8),
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
    "symlink_loop": symlink_loop,
}


@pytest.mark.parametrize("suffix", KNOWING)
@pytest.mark.parametrize("case", NOT_FILES)
def test_what_is_no_model_is_refused(case: str, suffix: str, worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    NOT_FILES[case](path)
    with pytest.raises(EdgeCNNError, match=r"a\.\w+: .* wanted") as caught:
        worker.call("tests.mutations:read_file", str(path), wanted=f"{path}: a finding", limits=LIMITS)
    assert not isinstance(caught.value, ChildError), str(caught.value)


@pytest.mark.parametrize("name", [name for name in (*WRITTEN, *SAVED) if name.startswith("lenet5")])
def test_a_gigabyte_of_nothing_behind_a_valid_start_stays_bounded(
    name: str, worker: Worker, folder: Path, tmp_path: Path
) -> None:
    source = written(name, folder)
    path = tmp_path / f"sparse{source.suffix}"
    path.write_bytes(source.read_bytes())
    os.truncate(path, 1 << 30)
    if source.suffix == ".xml":
        path.with_suffix(".bin").write_bytes(source.with_suffix(".bin").read_bytes())
    limits = Limits(seconds=20, memory_bytes=(1 << 30) + (1 << 29))  # the file once, never twice
    found = ending(worker, "tests.mutations:read_file", str(path), limits=limits)
    assert not isinstance(found, ChildError), str(found)
