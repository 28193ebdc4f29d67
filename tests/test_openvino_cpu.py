"""The target openvino_cpu: what it grants, whose memory results are, and what it says when it cannot."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgecnn.converters.openvino_ir import OPENVINO
from edgecnn.targets.openvino_cpu import OPENVINO_CPU

from edgecnn import registry
from edgecnn.errors import InputFileError, NotThereError
from edgecnn.graph import with_batch
from edgecnn.interfaces import SessionOptions
from edgecnn.models.build import build
from edgecnn.passes.deploy import deploy

pytest.importorskip("openvino")


@pytest.fixture
def lenet5(tmp_path: Path) -> Path:
    OPENVINO.write(deploy(with_batch(build("lenet5"), 1)).graph, tmp_path / "lenet5.xml")
    return tmp_path / "lenet5.xml"


def test_the_target_grants_float32_and_the_threads_that_were_asked_for(lenet5: Path) -> None:
    for threads in (1, 2):
        session = OPENVINO_CPU.open(lenet5, SessionOptions(threads=threads))
        assert (session.facts.precision, session.facts.threads) == ("float32", threads)
        assert re.fullmatch(r"openvino \d+\.\d+\.\d+", session.facts.runtime)
        assert session.input_shapes == {"image": (1, 1, 32, 32)}
        session.close()


def test_results_belong_to_the_caller_and_bound_inputs_stay_bound(lenet5: Path) -> None:
    session = OPENVINO_CPU.open(lenet5, SessionOptions())
    zeros, ones = np.zeros((1, 1, 32, 32), np.float32), np.ones((1, 1, 32, 32), np.float32)
    first = session.run({"image": zeros})["logits"]
    kept = first.copy()
    assert not np.array_equal(session.run({"image": ones})["logits"], kept)
    np.testing.assert_array_equal(first, kept)
    bound = [session.bind({"image": values}) for values in (zeros.copy(), ones.copy())]
    session.close()
    np.testing.assert_array_equal(bound[0]()["logits"], kept)
    assert not np.array_equal(bound[1]()["logits"], kept)


def test_missing_constants_are_not_there(lenet5: Path) -> None:
    lenet5.with_suffix(".bin").unlink()
    with pytest.raises(NotThereError, match=r"lenet5\.xml: its constants were wanted in lenet5\.bin; there is none\."):
        OPENVINO_CPU.open(lenet5, SessionOptions())


Damage = Callable[[bytes, bytes], tuple[bytes, bytes]]
REFUSED: dict[str, tuple[Damage, str]] = {
    "constants_cut": (lambda xml, bin_: (xml, bin_[:1000]), "Incorrect weights in bin file!"),
    "unknown_layer": (lambda xml, bin_: (xml.replace(b'"ReLU"', b'"Fancy"'), bin_), "type: Fancy"),
    "cut": (lambda xml, bin_: (xml[:5000], bin_), "tags mismatch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_openvino_refuses_is_told_in_its_own_words(name: str, lenet5: Path) -> None:
    damage, message = REFUSED[name]
    constants = lenet5.with_suffix(".bin")
    xml, bin_ = damage(lenet5.read_bytes(), constants.read_bytes())
    lenet5.write_bytes(xml)
    constants.write_bytes(bin_)
    with pytest.raises(InputFileError, match=rf"lenet5\.xml: OpenVINO refuses it: .*{message}"):
        OPENVINO_CPU.open(lenet5, SessionOptions())


def test_status_names_the_release_and_the_processor() -> None:
    status = OPENVINO_CPU.status()
    assert status.state == "available"
    assert re.fullmatch(r"openvino \d+\.\d+\.\d+, \S.*", status.detail)


class Broken:
    """An openvino whose plug-ins do not load."""

    class Core:
        def __init__(self) -> None:
            raise RuntimeError(
                "Exception from src/core.cpp:84:\nCannot load library 'libopenvino_intel_cpu_plugin.so'\n"
            )


def test_status_tells_missing_from_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    missing = OPENVINO_CPU.status()
    assert (missing.state, missing.remedy) == ("missing", "python -m pip install 'edgecnn[openvino]'")
    monkeypatch.setitem(sys.modules, "openvino", Broken)
    unusable = OPENVINO_CPU.status()
    assert (unusable.state, unusable.detail) == ("unusable", "Cannot load library 'libopenvino_intel_cpu_plugin.so'")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "import os; os.register_at_fork(before=lambda: print('forked'));"
        "from edgecnn.targets.openvino_cpu import OPENVINO_CPU; print(OPENVINO_CPU.status().state);"
        "import sys; print(sys.modules['openvino_telemetry'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["available", "None"]


def test_the_registry_knows_the_target() -> None:
    assert registry.load("targets", "openvino_cpu") is OPENVINO_CPU
