"""Functions in a child process: values and errors come back; crashes, limits and strange replies become one error."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from edgecnn.benchmarks.bench import feed

from edgecnn import isolated, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn
from edgecnn.errors import InputFileError, NotThereError, UnknownNameError, UnsupportedError
from edgecnn.interfaces import SessionOptions
from edgecnn.isolated import ChildError, Limits, Worker
from edgecnn.models.build import build
from edgecnn.ops import Cast
from edgecnn.passes.deploy import deploy
from edgecnn.probe import closed, probe
from edgecnn.source import target_for

WANTED = "a.tflite: a file that runs was wanted"
posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not count mapped memory")


# --- what the child calls --------------------------------------------------------------------------------------------


def echo(*values: object) -> object:
    return list(values)


def raise_error(kind: str) -> None:
    raise {"own": UnsupportedError, "child": ChildError, "value": ValueError}[kind](f"{kind}\x1b[31m: a reason")


def crash(number: int) -> None:
    os.write(2, b"first\n  the runtime's \x1b]0;last\x07 words  \n\n")
    os.kill(os.getpid(), number)


def fork_and_die() -> None:
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(30)
    os._exit(0)


def print_and_return() -> str:
    os.write(1, b'{"value": "forged"}\n')
    return "genuine"


def core_and_data() -> list[int]:
    import resource

    return [resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_DATA)[0]]


def ask(worker: Worker, name: str, *arguments: object, **limits: Any) -> Any:
    return worker.call(f"{__name__}:{name}", *arguments, wanted=WANTED, limits=Limits(**limits))


# --- calls -----------------------------------------------------------------------------------------------------------


def test_values_come_back_and_one_child_serves_many_calls() -> None:
    with Worker() as worker:
        assert ask(worker, "echo", 1, 2.5, None, "ü\n", [True, {"a": []}]) == [1, 2.5, None, "ü\n", [True, {"a": []}]]
        first = worker.call("os:getpid", wanted=WANTED)
        assert worker.call("os:getpid", wanted=WANTED) == first != os.getpid()


def test_errors_of_ours_are_raised_here_as_they_were_raised_there() -> None:
    with Worker() as worker:
        with pytest.raises(UnsupportedError, match=r"own.*: a reason"):
            ask(worker, "raise_error", "own")
        with pytest.raises(UnknownNameError, match="Did you mean 'litert_cpu'"):
            worker.call("edgecnn.registry:load", "targets", "litert_cpux", wanted=WANTED)
        with pytest.raises(InputFileError) as caught:
            ask(worker, "raise_error", "child")
        assert type(caught.value) is InputFileError


def test_any_other_exception_is_named() -> None:
    with Worker() as worker, pytest.raises(ChildError) as caught:
        ask(worker, "raise_error", "value")
    assert str(caught.value) == f"{WANTED}; it failed: ValueError: value?[31m: a reason"
    assert caught.value.exit_code == 3


@posix
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_names_its_signal_and_the_last_line_printed(number: signal.Signals) -> None:
    with Worker() as worker:
        with pytest.raises(ChildError) as caught:
            ask(worker, "crash", int(number))
        assert str(caught.value) == f"{WANTED}; it crashed ({number.name}): the runtime's ?]0;last? words"
        assert ask(worker, "echo", 1) == [1]


def test_a_call_that_takes_too_long_is_ended() -> None:
    with Worker() as worker:
        start = time.monotonic()
        with pytest.raises(ChildError, match=r"a\.tflite: a file that runs was wanted; it took longer than 1\.5 s$"):
            worker.call("time:sleep", 60, wanted=WANTED, limits=Limits(seconds=1.5))
        assert time.monotonic() - start < 10
        assert ask(worker, "echo", 1) == [1]


@posix
def test_what_a_dead_child_forked_holds_nobody_up() -> None:
    with Worker() as worker:
        start = time.monotonic()
        with pytest.raises(ChildError, match=r"it took longer than 1\.5 s$"):
            ask(worker, "fork_and_die", seconds=1.5)
        assert time.monotonic() - start < 10
        assert ask(worker, "echo", 1) == [1]


@linux
def test_memory_is_limited_beyond_what_the_child_has() -> None:
    with Worker() as worker:
        with pytest.raises(ChildError, match=r"it failed: numpy.*MemoryError: Unable to allocate 8\.00 GiB"):
            worker.call("numpy:zeros", 1 << 30, wanted=WANTED, limits=Limits(memory_bytes=1 << 30))
        core, data = ask(worker, "core_and_data", memory_bytes=1 << 28)
        assert core == 0
        assert 1 << 28 < data < 1 << 29
        assert ask(worker, "core_and_data", memory_bytes=1 << 32)[1] > 1 << 32


def test_what_runtimes_print_is_no_reply() -> None:
    with Worker() as worker:
        assert ask(worker, "print_and_return") == "genuine"


def test_a_child_that_died_between_two_calls_is_reported_and_replaced() -> None:
    with Worker() as worker:
        ask(worker, "echo")
        process = worker._process
        assert process is not None
        process.kill()
        process.wait()
        with pytest.raises(ChildError, match="a file that runs was wanted; it "):
            ask(worker, "echo", 1)
        assert ask(worker, "echo", 1) == [1]


def test_the_folder_that_the_user_stands_in_is_not_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with Worker() as worker:
        assert ask(worker, "echo", 1) == [1]


def test_the_shared_child_is_one_and_ends_with_this_process() -> None:
    assert isolated.shared() is isolated.shared()
    code = "from edgecnn.isolated import shared; print(shared().call('os:getpid', wanted=''))"
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr == ""
    if sys.platform == "linux":
        assert not Path(f"/proc/{int(found.stdout)}").exists()


# --- artifacts -------------------------------------------------------------------------------------------------------

RUNTIMES = {"tflite": "ai_edge_litert", "onnx": "onnxruntime", "openvino": "openvino"}


def lenet(form: str, folder: Path) -> Path:
    pytest.importorskip(RUNTIMES[form])
    writer = registry.load("converters", form)
    path: Path = folder / f"lenet5{writer.suffix}"
    writer.write(deploy(build("lenet5")).graph, path)
    return path


@pytest.mark.parametrize("form", RUNTIMES)
def test_a_good_file_passes_and_a_damaged_one_is_refused(form: str, tmp_path: Path) -> None:
    path = lenet(form, tmp_path)
    probe([path, path])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputFileError, match=f"{path.name}"):
        probe([path])


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
@pytest.mark.parametrize("form", RUNTIMES)
def test_inputs_are_fed_in_their_own_type(form: str, dtype: str, tmp_path: Path) -> None:
    pytest.importorskip(RUNTIMES[form])
    b = GraphBuilder("typed", initialise=he_normal(0))
    real = b.node("real", Cast(dtype="float32"), b.input("x", (1, 8, 8, 3), dtype=dtype))
    writer = registry.load("converters", form)
    path = tmp_path / f"typed{writer.suffix}"
    writer.write(b.finish({"y": b.conv(real, "conv", 4, kernel_size=3)}), path)
    probe([path])
    with closing(target_for(path, None).open(path, SessionOptions())) as session:
        inputs, _ = feed(session, None, None, path)
        assert inputs["x"].dtype == dtype
        session.run(inputs)


def test_a_file_that_crashes_openvino_is_refused(tmp_path: Path) -> None:
    """OpenVINO 2026.4 dies of SIGSEGV where two layers have the same number."""
    path = lenet("openvino", tmp_path)
    text = path.read_text()
    assert '<layer id="6"' in text
    path.write_text(text.replace('<layer id="6"', '<layer id="1"'))
    with pytest.raises(
        InputFileError, match=r"lenet5\.xml: a file that openvino_cpu can load and run was wanted; it crashed"
    ):
        probe([path])


def test_a_file_that_is_not_there_and_a_target_that_is_python(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=r"a\.onnx: a file was wanted"):
        probe([tmp_path / "a.onnx"])
    (tmp_path / "a.keras").write_bytes(b"no archive")
    probe([tmp_path / "a.keras"])


def crashing_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child crash wherever it loads a file, as no file at hand does in every version of a runtime."""
    call = Worker.call

    def crash_instead(self: Worker, function: str, *arguments: object, **settings: Any) -> Any:
        return call(self, "os:abort", **settings)

    monkeypatch.setattr(Worker, "call", crash_instead)


@posix
@pytest.mark.parametrize("command", [["run", "lenet5.tflite", "no.png"], ["bench", "lenet5.tflite"]])
def test_commands_survive_a_file_that_crashes_its_runtime(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenet("tflite", tmp_path)
    monkeypatch.chdir(tmp_path)
    crashing_target(monkeypatch)
    result = CliRunner().invoke(edgecnn, command)
    assert isinstance(result.exception, ChildError)
    wanted = "lenet5.tflite: a file that litert_cpu can load and run was wanted; it crashed (SIGABRT)"
    assert str(result.exception).startswith(wanted)


@posix
def test_a_keras_file_that_crashes_hdf5_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing_target(monkeypatch)
    with pytest.raises(ChildError, match=r"a\.h5: a Keras file that HDF5 can read was wanted; it crashed \(SIGABRT\)"):
        registry.load("converters", "keras").read(tmp_path / "a.h5")


def test_open_sizes_are_closed_by_the_contract() -> None:
    contract = build("lenet5").contract
    assert closed((None, None, None, 1), contract) == (1, 32, 32, 1)
    assert closed((4, 16, None, 1), contract) == (4, 16, 32, 1)
    assert closed((None, None, None, 1), None) == (1, 1, 1, 1)
    assert closed((None, 10), contract) == (1, 10)


@pytest.mark.parametrize("form", RUNTIMES)
def test_running_on_the_wrong_sizes_is_an_error_of_ours(form: str, tmp_path: Path) -> None:
    path = lenet(form, tmp_path)
    name = {"tflite": "litert_cpu", "onnx": "onnxruntime_cpu", "openvino": "openvino_cpu"}[form]
    session = registry.load("targets", name).open(path, SessionOptions())
    with pytest.raises(InputFileError, match="cannot run it"):
        session.run({port: np.zeros((1, 3, 5, 7), np.float32) for port in session.input_shapes})
    session.close()
