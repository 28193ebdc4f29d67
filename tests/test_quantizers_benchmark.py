"""Quantizers side by side: the figures, the verdicts, and that a tool that fails takes nothing with it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from edgecnn.benchmarks import _quantizer_latency, quantizers
from edgecnn.benchmarks._quantizer_contests import CLASSES, CONTESTS, Contest, Goal, Loaded, split, to_logits
from edgecnn.benchmarks._quantizer_figures import Figures, cosine, map50_change, measured, same_class, signal_to_noise
from edgecnn.benchmarks._quantizer_latency import Times, times
from edgecnn.benchmarks._quantizer_peers import PEERS, Peer
from edgecnn.benchmarks._quantizer_report import COLUMNS, OURS, Outcome, Row, page, table_rows
from edgecnn.benchmarks.latency import Plan
from edgecnn.benchmarks.quantizers import compete, main
from edgecnn.benchmarks.real_tasks import Labelled
from edgecnn.benchmarks.statistics import Interval

from edgecnn.convert import convert
from edgecnn.errors import UnknownNameError
from edgecnn.execute import with_image_statistics
from edgecnn.graph import Array
from edgecnn.models.build import build
from edgecnn.paired import wilson
from edgecnn.verify import snr_db
from edgecnn.vision.detections import Detections

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("EDGECNN_TEST_DATA", ROOT.parent / "shared" / "data"))
RNG = np.random.default_rng(0)
NOTHING = Labelled(images=np.zeros((0, 8, 8, 3), np.float32))


def numbers(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


# --- figures ---------------------------------------------------------------------------------------------------------


def test_the_snr_is_that_of_verify_with_an_interval_around_it() -> None:
    exact = numbers(40, 10)
    found = exact + 0.1 * RNG.normal(size=exact.shape)
    figure = signal_to_noise(exact, found, NOTHING)
    assert figure.point == pytest.approx(snr_db(exact, found))
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low < figure.point < figure.high < figure.low + 3
    assert signal_to_noise(exact, exact, NOTHING).point == np.inf
    assert signal_to_noise(exact, exact + 1, NOTHING).point > 100, "a constant shift is no error"


def test_agreement_of_images_has_wilsons_interval_and_that_of_pixels_one_over_images() -> None:
    exact = numbers(50, 10)
    found = np.concatenate([exact[:45], -exact[45:]])
    share = wilson(45, 50)
    assert same_class(exact, found, NOTHING) == Interval(point=0.9, low=share.low, high=share.high)
    pixels = np.repeat(exact[:, None, None, :], 8, axis=1), np.repeat(found[:, None, None, :], 8, axis=1)
    figure = same_class(*pixels, NOTHING)
    assert figure.point == 0.9
    assert figure.low is not None
    assert figure.low < wilson(8 * 45, 8 * 50).low, "8 equal pixels are no 8 images"


def test_cosine_of_the_same_directions_is_one() -> None:
    exact = numbers(20, 16)
    assert cosine(exact, 3 * exact, NOTHING).point == pytest.approx(1)
    assert cosine(exact, -exact, NOTHING).point == pytest.approx(-1)


def test_map50_falls_when_a_box_is_lost() -> None:
    exact = np.full((1, 3549, 85), -20, np.float32)
    exact[:, :, 4:] = 0
    exact[0, 0, [0, 1, 2, 3, 4, 5]] = [0.5, 0.5, 1, 1, 1, 1]
    side = 8 * float(np.e) / 416
    corners = np.array([[4 / 416 - side / 2, 4 / 416 - side / 2, 4 / 416 + side / 2, 4 / 416 + side / 2]])
    box = Detections(corners=corners, scores=np.ones(1), classes=np.zeros(1, int))
    truth = Labelled(images=np.zeros((1, 416, 416, 3), np.float32), boxes=(box,))
    assert map50_change(exact, exact, truth).point == 0
    lost = np.where(np.arange(85) == 4, 0, exact).astype(np.float32)
    assert map50_change(exact, lost, truth).point == -1


def test_labels_give_top_1_and_mcnemar_against_the_float_network() -> None:
    exact = np.eye(4, dtype=np.float32)
    found = exact.copy()
    found[3] = exact[0]
    truth = replace(NOTHING, classes=np.arange(4))
    figures = measured(exact, found.reshape(4, 1, 4), truth, CLASSES)
    assert figures.top1 == 0.75
    assert figures.against_float is not None
    assert (figures.against_float.only_first, figures.against_float.only_second) == (1, 0)
    assert measured(exact, found, NOTHING, CLASSES).top1 is None


# --- contests --------------------------------------------------------------------------------------------------------


def test_no_image_is_both_calibrated_and_measured_on() -> None:
    truth = Labelled(images=np.arange(50, dtype=np.float32), classes=np.arange(50))
    calibration, evaluation = split(truth, 20)
    assert len(calibration) == 20
    assert sorted([*calibration, *evaluation.images]) == list(range(50))
    assert evaluation.classes is not None
    assert np.array_equal(evaluation.classes, evaluation.images)


def test_every_recipe_of_a_contest_is_one_that_ours_and_some_peer_know() -> None:
    known = {recipe for peer in PEERS for recipe in peer.settings}
    assert {recipe for contest in CONTESTS for recipe in contest.goals} <= known
    assert all(goal.figure in contest.figures for contest in CONTESTS for goal in contest.goals.values())


# --- verdicts --------------------------------------------------------------------------------------------------------


def row(tool: str, snr: float, agreement: float, *, ratio: Interval | None = None) -> Row:
    share = wilson(round(400 * agreement), 400)
    values = {
        "SNR": Interval(point=snr, low=snr - 1, high=snr + 1),
        "agreement": Interval(point=share.value, low=share.low, high=share.high),
    }
    time = None if ratio is None else Times(median_s=1e-3, ratio=ratio)
    return Row(tool=tool, version="1.0", settings="best", figures=Figures(values=values), size_bytes=10, times=time)


def outcome(*found: Row, least: float = 0.88) -> Outcome:
    return Outcome(
        contest="net",
        recipe="static_w8_a8",
        format="onnx",
        goal=Goal(figure="agreement", least=least),
        calibration=100,
        evaluation=400,
        float_top1=None,
        rows=found,
    )


def test_ours_must_reach_the_goal_and_the_best_peer_or_its_interval() -> None:
    assert outcome(row(OURS, 20, 0.9), row("a", 20.9, 0.92), row("b", 10, 0.7)).failures == []
    assert outcome(row(OURS, 20, 0.9), row("a", 21.5, 0.95)).failures == [
        "net, static_w8_a8, onnx: SNR 20.00 dB, a best 21.50 dB",
        "net, static_w8_a8, onnx: agreement 90.00 %, a best 95.00 %",
    ]
    assert outcome(row(OURS, 20, 0.8)).failures == ["net, static_w8_a8, onnx: agreement 80.00 % for 88.00 %"]
    assert outcome(row(OURS, 20, float(np.nextafter(0.88, 0)))).failures == []


def test_a_figure_that_is_no_number_is_a_failure() -> None:
    wrong = row(OURS, 20, 0.9)
    assert wrong.figures is not None
    nothing = Interval(point=float("nan"), low=None, high=None)
    wrong = replace(wrong, figures=Figures(values={"SNR": nothing, "agreement": nothing}))
    assert len(outcome(wrong, row("a", 1, 0.1)).failures) == 3


def test_a_missing_artifact_of_ours_is_a_failure_and_one_of_a_peer_is_told() -> None:
    none = Row(tool=OURS, version="", settings="", refusal="why")
    assert outcome(none).failures == ["net, static_w8_a8, onnx: no artifact: why"]
    found = outcome(row(OURS, 20, 0.9), Row(tool="a", version="", settings="s", refusal="it crashed | badly"))
    assert found.failures == []
    assert table_rows(found)[1][-1] == "none: it crashed | badly"
    assert "| none: it crashed / badly |" in page([found], "a machine")


def test_ours_must_be_as_fast() -> None:
    fast, slow = Interval(point=1.02, low=0.99, high=1.04), Interval(point=1.02, low=1.01, high=1.04)
    assert outcome(row(OURS, 20, 0.9), row("a", 10, 0.7, ratio=fast)).failures == []
    found = outcome(row(OURS, 20, 0.9), row("a", 10, 0.7, ratio=slow))
    assert found.failures == ["net, static_w8_a8, onnx: slower than a best"]
    assert table_rows(found)[0][-1] == "BELOW: slower than a best"
    assert table_rows(found)[1][-1] == "ours takes 1.020 (1.010 - 1.040) of its 1.000 ms"


def test_the_page_holds_every_row_and_what_is_not_reached() -> None:
    text = page([outcome(row(OURS, 20, 0.8), row("a", 10, 0.7))], "a machine")
    assert text.count("| net | 400 |") == 2
    assert "- net, static_w8_a8, onnx: agreement 80.00 % for 88.00 %" in text
    assert "- net, static_w8_a8: agreement at least 88.00 %" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    assert len(COLUMNS) == len(table_rows(outcome(row(OURS, 20, 0.8)))[0])


# --- the whole of it -------------------------------------------------------------------------------------------------


def tiny(folder: Path, count: int) -> Loaded:
    """Return LeNet-5 with random weights, and noise in place of digits."""
    graph = build("lenet5")
    contract = graph.contract
    assert contract is not None
    images = np.random.default_rng(0).uniform(*contract.input_range, (60, contract.height, contract.width, 1))
    graph = with_image_statistics(graph, {graph.inputs[0].name: images[:16].astype(np.float32)})
    calibration, evaluation = split(Labelled(images=images.astype(np.float32)), count)
    return Loaded(graph=to_logits(graph), calibration=calibration, evaluation=evaluation)


TINY = Contest(
    name="tiny", load=tiny, calibration=20, figures=CLASSES, goals={"static_w8_a8": Goal(figure="SNR", least=15.0)}
)
MISSING = Peer(name="absent", module="no_such_tool", format="tflite", function="run", settings={"static_w8_a8": ("x",)})
FAILING = Peer(
    name="failing", module="onnxruntime", format="onnx", function="onnxruntime", settings={"static_w8_a8": ("no type",)}
)
WORKING = replace(FAILING, name="ONNX Runtime", settings={"static_w8_a8": ("QUInt8 QInt8",)})


def test_a_tool_that_is_missing_or_fails_takes_nothing_with_it() -> None:
    pytest.importorskip("onnxruntime.quantization")
    found = compete(TINY, Path("nowhere"), peers=(MISSING, FAILING, WORKING), limit=16)
    assert [(each.format, each.calibration, each.evaluation) for each in found] == [
        ("tflite", 20, 16),
        ("onnx", 20, 16),
        ("openvino", 20, 16),
    ]
    assert [each.failures for each in found] == [[], [], []]
    tflite, onnx, _ = found
    assert tflite.rows[1].refusal == (
        "edgecnn.benchmarks.quantizers compares with no_such_tool, which is not installed. "
        "Run: python -m pip install 'edgecnn[peers]'"
    )
    assert onnx.rows[1].refusal.startswith("failing: a quantized tiny was wanted; it failed: AttributeError")
    assert onnx.rows[2].figures is not None
    assert onnx.rows[2].figures.values["SNR"].point > 10
    assert onnx.rows[2].version


def test_times_of_two_copies_of_an_artifact_are_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Plan(rounds=3, slice_s=0.002, warmup_s=0.01, warmup_limit_s=0.02)
    monkeypatch.setattr(_quantizer_latency, "PLAN", quick)
    loaded = tiny(tmp_path, 20)
    made = convert(loaded.graph, tmp_path, quantizers.Plan(formats=("tflite",))).artifacts[0].path
    found = times({"ours": made, "theirs": made}, "ours", loaded.calibration[:1])
    assert found["ours"].ratio is None
    ratio = found["theirs"].ratio
    assert ratio is not None
    assert 0.5 < ratio.point < 2
    assert found["ours"].median_s > 0


def test_a_network_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"No network is named 'alexnet'. There are: MobileNet v1 0.25, "):
        CliRunner().invoke(main, ["alexnet"], catch_exceptions=False)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not (DATA / "weights").is_dir(), reason="real weights are wanted: set EDGECNN_TEST_DATA")
def test_lenet_reaches_its_goal_and_every_peer() -> None:
    contest = next(each for each in CONTESTS if each.name == "LeNet")
    assert [each.failures for each in compete(contest, DATA, limit=400)] == [[], [], []]


def test_the_page_in_the_repository_is_of_these_networks() -> None:
    text = (ROOT / "docs/quantization.md").read_text(encoding="utf-8")
    missing = [contest.name for contest in CONTESTS if f"| {contest.name} |" not in text]
    assert missing == [], "run: python -m edgecnn.benchmarks.quantizers --latency --page docs/quantization.md"
