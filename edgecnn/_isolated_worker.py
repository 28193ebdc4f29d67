"""The child of isolated.Worker: answers requests until its input ends.

Replies leave by a copy of the standard output; the standard output itself goes where errors go, because runtimes print.
"""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from edgecnn.errors import EdgeCNNError
from edgecnn.isolated import RAISED

DATA_PAGES = 5
"""Place of "data + stack", in pages, in /proc/self/statm. Source: proc_pid_statm(5)."""


def main() -> None:
    """Serve requests; what is no EdgeCNNError ends the child, with a traceback whose last line the parent shows."""
    with _private(0, "r") as requests, _private(1, "w") as replies:
        os.dup2(2, 1)
        no_core_dump()
        for line in requests:
            request = json.loads(line)
            os.chdir(request["folder"])
            limit_memory(request["memory_bytes"])
            replies.write(json.dumps(answer(request)) + "\n")
            replies.flush()


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply to one request."""
    module, _, name = request["function"].partition(":")
    try:
        return {"value": getattr(importlib.import_module(module), name)(*request["arguments"])}
    except EdgeCNNError as error:
        nearest = next(each.__name__ for each in type(error).__mro__ if RAISED.get(each.__name__) is each)
        return {"error": nearest, "text": str(error)}


def no_core_dump() -> None:
    """Leave no core file behind a crash."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def limit_memory(further_bytes: int) -> None:
    """Allow this process so much private writable memory more than it has now; does nothing but on Linux."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[DATA_PAGES])
        wanted = pages * resource.getpagesize() + further_bytes
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(
            resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def _private(descriptor: int, mode: str) -> IO[str]:
    return os.fdopen(os.dup(descriptor), mode, encoding="utf-8")


if __name__ == "__main__":
    main()
