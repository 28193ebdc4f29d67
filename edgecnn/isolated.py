"""Run a function in a child process with limits, so that code which a bad file can crash takes nothing with it.

Runtimes and libhdf5 are C++ that was not written for hostile files. What crosses the border is JSON, a line for each
request and each reply; nothing is pickled. An error of ours that the child raises is raised here again; a crash, a time
or memory limit that was met, and anything else that ends the child becomes a ChildError.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import IO, Any, Self

from edgecnn import errors
from edgecnn.errors import InputFileError

CHILD = "edgecnn._isolated_worker"
RAISED = {name: each for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
"""Errors that a child may ask to be raised here."""

LARGEST_REPLY = 64 << 20
TAIL_BYTES = 4096
"""How much of what a child printed is looked at for its last line."""

SHOWN_CHARACTERS = 300
PATIENCE_S = 5.0
"""How long a child that closed its end may take to exit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one call may use.

    Attributes:
        seconds: Of wall-clock time, the start of the child included.
        memory_bytes: Private writable memory beyond what the child has when the call begins. Enforced by the kernel
            (RLIMIT_DATA) on Linux, which alone counts mapped memory by it; elsewhere only the time is limited.
    """

    seconds: float = 60.0
    memory_bytes: int = 4 << 30


class ChildError(InputFileError):
    """What a child process was given ended it: a crash, a limit, or an error that is none of ours."""


class Worker:
    """A child process that serves calls one after the other, and is started again after it died. A context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, function: str, *arguments: object, wanted: str, limits: Limits | None = None) -> Any:
        """Call a function in the child and return its value.

        Args:
            function: "module:name", importable in the child, which has this process's sys.path.
            arguments: What JSON holds.
            wanted: How a ChildError begins: "a.tflite: a file that litert_cpu can run was wanted".
            limits: Of this call.

        Raises:
            EdgeCNNError: The one that the function raised.
            ChildError: When the child died of the call.
        """
        limits = limits or Limits()
        call = {"function": function, "arguments": arguments, "folder": os.getcwd()}
        request = {**call, "memory_bytes": limits.memory_bytes}
        with self._lock:
            line, expired = self._exchange(json.dumps(request).encode() + b"\n", limits.seconds)
            if expired or not line.endswith(b"\n"):
                found = f"took longer than {limits.seconds:g} s" if expired else self._cause_of_death()
                self._end()
                raise ChildError(f"{wanted}; it {found}")
        reply = json.loads(line)
        if "error" in reply:
            raise RAISED[reply["error"]](reply["text"])
        return reply["value"]

    def close(self) -> None:
        """End the child; a later call starts another."""
        with self._lock:
            self._end()

    def _exchange(self, request: bytes, seconds: float) -> tuple[bytes, bool]:
        """Return the reply, which is no whole line when the child died, and whether the time was up."""
        process: Any = self._started()
        line = b""
        try:
            with _deadline(process, seconds) as is_up, suppress(BrokenPipeError):  # dead before it read: died of it
                process.stdin.write(request)
                process.stdin.flush()
                line = process.stdout.readline(LARGEST_REPLY)
        except BaseException:  # interrupted: the reply that is still to come belongs to nobody
            self._end()
            raise
        return line, is_up.is_set()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )
        return self._process

    def _cause_of_death(self) -> str:
        process: Any = self._process
        try:
            status = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            return "gave no proper reply"
        printed = f": {last}" if (last := self._last_line()) else ""
        if status == 1:  # Python's own, for an exception
            return f"failed{printed}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"exit code {status}"
        return f"crashed ({name}){printed}"

    def _last_line(self) -> str:
        """Return the last line that the child printed, without what could steer a terminal."""
        printed: Any = self._printed
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = [line.strip() for line in printed.read().decode(errors="replace").splitlines() if line.strip()]
        return "".join(each if each.isprintable() else "?" for each in (lines or [""])[-1])[:SHOWN_CHARACTERS]

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            _kill(process)
            process.wait()
        with suppress(BrokenPipeError):  # a request that it never took
            process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()  # type: ignore[union-attr]
        if self._printed is not None:
            self._printed.close()


@contextmanager
def _deadline(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill a child when its time is up; the event tells whether it was."""
    is_up = threading.Event()

    def stop() -> None:
        is_up.set()
        _kill(process)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield is_up
    finally:
        timer.cancel()
        timer.join()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a child that nobody has waited for, and what it forked: that holds the pipe of the replies open too."""
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(PermissionError):  # macOS' word for a group whose last process is a zombie
            os.killpg(process.pid, signal.SIGKILL)


@cache
def shared() -> Worker:
    """Return a child that lives as long as this process, for checks that many files need."""
    worker = Worker()
    atexit.register(worker.close)
    return worker
