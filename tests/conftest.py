"""Settings that every test shares."""

import sys

from hypothesis import settings

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # see targets/openvino_cpu.py

settings.register_profile("edgecnn", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("edgecnn")
