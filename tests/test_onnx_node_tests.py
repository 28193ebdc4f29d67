"""ONNX's own node tests: what the project claims of them, and that the page says what is so."""

from pathlib import Path

import pytest
from edgecnn.benchmarks.onnx_node_tests import QUANTIZED, STAGES, TABLE, all_cases, run_cases, share, table

ROOT = Path(__file__).parents[1]
SAMPLE = 60
WANTED = 0.95
"""Share of the float cases that each stage must pass; ONNX's cases of integers are mostly of what no network holds."""


def test_a_sample_of_the_cases_passes_every_stage_that_the_page_says_it_passes() -> None:
    cases, page = all_cases(), (ROOT / TABLE).read_text(encoding="utf-8")
    assert len(cases) > 400
    for outcome in run_cases(cases[:: -(-len(cases) // SAMPLE)]):
        listed = page.partition(f"- `{outcome.name}` (")[2].partition(")")[0]
        assert ", ".join(outcome.reasons) == listed, f"{outcome.name}: {outcome.reasons}"


@pytest.mark.slow
def test_nearly_all_cases_pass_every_stage_and_the_page_lists_the_rest() -> None:
    outcomes = run_cases(all_cases())
    floats = [outcome for outcome in outcomes if outcome.kind not in QUANTIZED]
    assert {stage: share(floats, stage) >= WANTED for stage in STAGES} == dict.fromkeys(STAGES, True)
    page = (ROOT / TABLE).read_text(encoding="utf-8")
    assert page == table(outcomes), "run: python -m edgecnn.benchmarks.onnx_node_tests"
