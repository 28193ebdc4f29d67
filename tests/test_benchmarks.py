"""Benchmarks: statistics against known answers, measuring with a clock of our own, the job with sessions of our own."""

import doctest
import gc
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from edgecnn.benchmarks import bench as bench_module
from edgecnn.benchmarks import environment as environment_module
from edgecnn.benchmarks import keras_export
from edgecnn.benchmarks import statistics as statistics_module
from edgecnn.benchmarks.bench import BenchOptions, bench, feed, to_data
from edgecnn.benchmarks.cautions import NEXT_STEP, CautionKind, environment_cautions, sample_cautions
from edgecnn.benchmarks.environment import Environment, read_environment, show_environment
from edgecnn.benchmarks.keras_export import Comparison, compare, compare_exports
from edgecnn.benchmarks.latency import Plan, measure
from edgecnn.benchmarks.statistics import (
    Interval,
    median,
    median_interval,
    minimum_samples,
    nested_ratio,
    paired_ratio,
    percentile,
    rank_correlation,
)

from edgecnn import cli, registry
from edgecnn.commands import bench as command_module
from edgecnn.contract import Contract
from edgecnn.errors import CheckFailedError, MissingError, UsageError
from edgecnn.graph import Array
from edgecnn.interfaces import Facts, SessionOptions
from edgecnn.models.build import build
from edgecnn.passes.deploy import deploy
from edgecnn.shapes import Shape
from edgecnn.vision.photographs import Images, load_images

# --- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [statistics_module, environment_module, command_module])
def test_examples_in_docstrings(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_percentiles_interpolate_and_refuse_small_samples() -> None:
    values = np.random.default_rng(0).permutation(np.arange(64.0))
    assert percentile(values, 90) == pytest.approx(56.7)  # rank 0.9 * 63
    assert percentile(values, 10) == pytest.approx(6.3)
    assert percentile(values[:63], 90) is None
    assert percentile(values, 99) is None
    assert median(values) == 31.5


def test_floors_of_percentiles_are_the_binomial_ones() -> None:
    for percent, floor in ((90, 64), (95, 130), (99, 662)):
        p = 1 - percent / 100
        accident = [(1 - p) ** n + n * p * (1 - p) ** (n - 1) for n in (floor - 1, floor)]
        assert minimum_samples(percent) == floor
        assert accident[0] > 0.01 >= accident[1]
    with pytest.raises(UsageError, match="between 0 and 100 was wanted; got 100"):
        minimum_samples(100)


def test_median_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        # Log-normal noise around a median of 1, and a disturbance that whole rounds share.
        samples = np.exp(generator.normal(0, 0.1, (20, 1)) + generator.normal(0, 0.05, (20, 4)))
        found = median_interval(samples, seed=seed)
        assert found.low <= found.point <= found.high
        hits += found.low <= 1.0 <= found.high
    assert 0.90 <= hits / 200 <= 0.995


def test_paired_ratio_cancels_what_a_round_shares() -> None:
    generator = np.random.default_rng(2)
    disturbance = generator.uniform(1, 3, (20, 1))
    a = 1.10 * disturbance * generator.normal(1, 0.005, (20, 9))
    b = 1.00 * disturbance * generator.normal(1, 0.005, (20, 5))
    found = paired_ratio(a, b, seed=0)
    assert found.low <= 1.10 <= found.high
    assert found.high - found.low < 0.01
    assert median_interval(a, seed=0).high / median_interval(a, seed=0).low > 1.1
    assert paired_ratio(a, b, seed=0) == found
    assert paired_ratio(a, a, seed=0) == Interval(point=1.0, low=1.0, high=1.0)


def test_intervals_need_six_rounds_and_pairs_the_same_ones() -> None:
    assert paired_ratio(np.full((5, 3), 2.0), np.ones((5, 3)), seed=0) == Interval(point=2.0, low=None, high=None)
    assert paired_ratio(np.full((6, 3), 2.0), np.ones((6, 3)), seed=0).low == 2.0
    with pytest.raises(UsageError, match=r"same number of rounds was wanted everywhere; got \[5, 6\]"):
        paired_ratio(np.ones((6, 1)), np.ones((5, 1)), seed=0)


def test_nested_ratio_has_the_luck_of_an_opening_in_its_interval() -> None:
    generator = np.random.default_rng(3)
    hits = wide = 0
    for seed in range(100):
        luck = generator.normal(1, 0.01, 8)
        openings = [(1.02 * each * generator.normal(1, 0.002, (6, 3)), np.ones((6, 3))) for each in luck]
        found = nested_ratio(openings, seed=seed)
        hits += found.low <= 1.02 <= found.high
        one = paired_ratio(*openings[0], seed=seed)
        wide += one.low <= 1.02 <= one.high
    assert hits >= 85
    assert wide <= 50


def test_rank_correlation_shares_ranks_among_ties() -> None:
    assert rank_correlation([4.0, 3.0, 2.0]) == -1.0
    assert rank_correlation([1.0, 1.0, 1.0]) == 0.0
    # Ranks 1.5, 1.5, 3, 4 against 0..3: covariance 4.5, variances 4.5 and 5.
    assert rank_correlation([1.0, 1.0, 2.0, 3.0]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


# --- measuring -------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Machine:
    """A clock that only invocations move, and a log of them."""

    now_ns: int = 0
    log: list[str] = field(default_factory=list)

    def clock(self) -> int:
        return self.now_ns

    def invocation(self, name: str, time_ns: Callable[[int], float]) -> Callable[[], None]:
        runs = iter(range(10**9))

        def invoke() -> None:
            self.log.append(name)
            self.now_ns += int(time_ns(next(runs)))

        return invoke


def constant(time_ns: int) -> Callable[[int], float]:
    return lambda run: time_ns


MS = 1_000_000
SHORT = Plan(rounds=12, slice_s=0.02)


def turns(log: list[str]) -> list[str]:
    return [name for place, name in enumerate(log) if place == 0 or log[place - 1] != name]


def test_measure_times_the_invocation_alone() -> None:
    machine = Machine()
    found = measure({"a": machine.invocation("a", lambda run: 2 * MS)}, SHORT, clock=machine.clock)["a"]
    assert found.samples_s.shape == (12, 10)
    assert np.all(found.samples_s == 0.002)
    assert (found.median_s, found.p10_s, found.p90_s, found.is_steady) == (0.002, 0.002, 0.002, True)
    assert found.cautions == ()
    assert len(machine.log) == found.warmup_runs + 12 * (1 + 10)
    assert found.warmup_runs * 0.002 >= 0.5


def test_turns_are_interleaved_and_in_random_order() -> None:
    def order(seed: int) -> list[str]:
        machine, ended = Machine(), []
        invocations = {name: machine.invocation(name, lambda run: 2 * MS) for name in "abc"}
        plan = Plan(rounds=12, seed=seed)
        measure(invocations, plan, clock=machine.clock, report=lambda: ended.append(len(machine.log)))
        assert len(ended) == 12
        edges = [ended[0] - (ended[1] - ended[0]), *ended]
        rounds = ["".join(turns(machine.log[a:b])) for a, b in itertools.pairwise(edges)]
        assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
        return rounds

    assert len(set(order(0))) >= 3
    assert order(0) == order(0) != order(1)


def test_turns_take_similar_time_whatever_an_artifact_takes() -> None:
    machine = Machine()
    times = {"slow": 100 * MS, "even": 1 * MS, "fast": 10_000}
    invocations = {name: machine.invocation(name, constant(t)) for name, t in times.items()}
    found = measure(invocations, Plan(rounds=2, slice_s=0.03), clock=machine.clock)
    assert {name: each.samples_s.shape[1] for name, each in found.items()} == {"slow": 4, "even": 30, "fast": 1000}


def test_slow_start_is_left_to_the_warm_up() -> None:
    machine = Machine()
    slow_start = machine.invocation("a", lambda run: max(2, 60 / (run + 1)) * MS)
    found = measure({"a": slow_start}, SHORT, clock=machine.clock)["a"]
    assert found.is_steady
    assert found.samples_s.max() == 0.002
    assert found.warmup_runs > 30


def test_what_never_gets_steady_says_so() -> None:
    machine = Machine()
    slowing = machine.invocation("a", lambda run: 2 * MS * 1.001**run)
    found = measure({"a": slowing}, SHORT, clock=machine.clock)["a"]
    assert not found.is_steady
    assert {CautionKind.UNSTEADY, CautionKind.DRIFT} <= {caution.kind for caution in found.cautions}


def test_garbage_collector_rests_and_comes_back() -> None:
    machine, seen = Machine(), []

    def invoke() -> None:
        seen.append(gc.isenabled())
        machine.now_ns += 5 * MS

    measure({"a": invoke}, Plan(rounds=1), clock=machine.clock)
    assert set(seen) == {False}
    assert gc.isenabled()

    def fail() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure({"a": fail}, Plan(rounds=1), clock=machine.clock)
    assert gc.isenabled()


def test_the_real_clock_tells_one_sleep_from_another() -> None:
    import time

    found = measure(
        {"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.004)},
        Plan(rounds=8, slice_s=0.01, warmup_s=0.05, warmup_limit_s=0.1),
    )
    assert 0.002 <= found["short"].median_s < found["long"].median_s
    ratio = paired_ratio(found["long"].samples_s, found["short"].samples_s, seed=0)
    assert 1.3 < ratio.point < 2.2


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"minimum_runs": 0}, {"maximum_runs": 2}, {"slice_s": 0.0}])
def test_a_plan_that_measures_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least one round, one run and a positive slice were wanted"):
        Plan(**wrong)


# --- cautions and environment ----------------------------------------------------------------------------------------

MACHINE = Environment(
    cpu="Test CPU",
    instruction_sets=("avx2",),
    cores=2,
    governor="performance",
    load_average=0.5,
    system="Linux",
    python="3.11",
)


def kinds_of(samples: Array, *, is_steady: bool = True, timer_s: float = 0.0) -> list[CautionKind]:
    return [caution.kind for caution in sample_cautions(samples, is_steady=is_steady, timer_s=timer_s)]


def test_every_caution_has_a_next_step() -> None:
    assert NEXT_STEP.keys() == set(CautionKind)


def test_cautions_about_samples() -> None:
    quiet = np.full((12, 10), 0.002)
    assert kinds_of(quiet) == []
    assert kinds_of(quiet, is_steady=False) == [CautionKind.UNSTEADY]
    assert kinds_of(quiet, timer_s=0.0001) == [CautionKind.TIMER]
    assert kinds_of(quiet[:, :5]) == [CautionKind.FEW_SAMPLES]
    assert kinds_of(quiet[:5].repeat(2, axis=1)) == [CautionKind.FEW_ROUNDS]
    assert kinds_of(quiet * np.where(np.arange(10) < 9, 1, 2)) == [CautionKind.SPREAD]
    assert kinds_of(quiet * np.linspace(1, 1.1, 12)[:, None]) == [CautionKind.DRIFT]
    assert kinds_of(quiet * np.linspace(1, 1.01, 12)[:, None]) == []
    assert kinds_of(quiet * np.array([1, 1.1] * 6)[:, None]) == []


def test_cautions_about_the_machine() -> None:
    assert environment_cautions(MACHINE, threads=1) == ()
    (busy,) = environment_cautions(MACHINE, threads=2)
    assert busy.detail == "load average 0.50 and 2 threads share 2 cores"
    assert busy.next_step == "Wait until the other programs are done, or take fewer --threads."
    (slow,) = environment_cautions(replace(MACHINE, governor="powersave"), threads=1)
    assert slow.kind is CautionKind.GOVERNOR
    assert environment_cautions(replace(MACHINE, governor=None, load_average=None), threads=2) == ()


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_environment_of_an_arm_board_in_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {2, 3}, raising=False)
    core = "processor\t: {}\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd0b\n\n"
    write(tmp_path, "proc/cpuinfo", core.format(0) + core.format(1) + "Model\t\t: Raspberry Pi 5 Model B\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000\n")
    write(tmp_path, "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "ondemand\n")
    found = read_environment(tmp_path)
    assert (found.cpu, found.cores, found.governor) == ("Raspberry Pi 5 Model B", 1.5, "ondemand")
    assert found.instruction_sets == ("neon", "dotprod", "i8mm")
    assert show_environment(found).startswith(
        "Raspberry Pi 5 Model B, 1.5 cores, neon, dotprod, i8mm; governor ondemand"
    )


def test_environment_of_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = read_environment(tmp_path)
    assert (found.instruction_sets, found.governor) == (None, None)
    assert found.cores >= 1
    assert "instruction sets unknown; governor unknown" in show_environment(found)


# --- the job, with sessions of our own -------------------------------------------------------------------------------


class FakeSession:
    """A session that logs what it is fed and does nothing."""

    def __init__(self, shapes: Mapping[str, Shape], output: Callable[[Array], Array] = lambda x: x) -> None:
        self.facts = Facts(runtime="fake 1.0", threads=1, precision="float32")
        self.input_shapes, self.output = shapes, output
        self.input_dtypes = dict.fromkeys(shapes, "float32")
        self.bound: list[Mapping[str, Array]] = []
        self.is_closed = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"logits": self.output(next(iter(inputs.values())))}

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        self.bound.append(inputs)
        return lambda: sum(range(2000))

    def close(self) -> None:
        self.is_closed = True


@dataclass(kw_only=True)
class FakeRoom:
    """A format and a target in one, for files that need only exist."""

    contract: Contract | None
    shapes: Mapping[str, Shape]
    name: str = "fake_cpu"
    sessions: list[FakeSession] = field(default_factory=list)
    options: list[SessionOptions] = field(default_factory=list)

    def read_contract(self, path: Path) -> Contract | None:
        return self.contract

    def open(self, path: Path, options: SessionOptions) -> FakeSession:
        self.sessions.append(FakeSession(self.shapes))
        self.options.append(options)
        return self.sessions[-1]


Enter = Callable[[Contract | None, Mapping[str, Shape]], FakeRoom]

QUICK = Plan(rounds=6, slice_s=0.002, warmup_s=0.01, warmup_limit_s=0.02)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Enter:
    def enter(contract: Contract | None, shapes: Mapping[str, Shape]) -> FakeRoom:
        made = FakeRoom(contract=contract, shapes=shapes)
        monkeypatch.setattr(bench_module, "format_of", lambda path: made)
        monkeypatch.setattr(bench_module, "target_for", lambda path, name: made)
        return made

    return enter


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "lenet5.fake"
    path.write_bytes(b"")
    return path


def test_bench_feeds_an_image_in_the_artifacts_layout(room: Enter, artifact: Path) -> None:
    contract = Contract(height=32, width=24, layout="NCHW")
    made = room(contract, {"image": (None, 3, 32, 24)})
    report = bench(BenchOptions(artifacts=(artifact,), threads=1, plan=QUICK))
    (values,) = made.sessions[0].bound[0].values()
    assert values.shape == (1, 3, 32, 24)
    assert values.flags.c_contiguous
    assert -1 <= values.min() < values.max() <= 1
    assert report.notes == ()
    assert "photographs" in report.rows[0].fed
    assert made.options == [SessionOptions(threads=1)]
    assert all(session.is_closed for session in made.sessions)


def test_bench_repeats_images_to_fill_a_batch() -> None:
    contract = Contract(height=8, width=8, colour_order="GRAY", mean=(0.0,), std=(255.0,))
    inputs, _ = feed(FakeSession({"image": (20, 8, 8, 1)}), contract, None, Path("x.tflite"))
    assert inputs["image"].shape == (20, 8, 8, 1)
    assert np.array_equal(inputs["image"][17:], inputs["image"][:3])


def test_bench_without_a_contract_says_that_it_feeds_no_image(room: Enter, artifact: Path, tmp_path: Path) -> None:
    room(None, {"a": (None, 4), "b": (2, 3)})
    report = bench(BenchOptions(artifacts=(artifact,), plan=QUICK))
    (note,) = report.notes
    assert note.startswith(f"{artifact}: fed random normal numbers, not an image")
    assert report.rows[0].batch == 1
    with pytest.raises(
        UsageError, match=r"--data needs a contract and one input; the file has none\. Leave --data out\."
    ):
        bench(BenchOptions(artifacts=(artifact,), plan=QUICK, data=tmp_path))


def test_bench_without_images_says_so_unless_a_folder_was_named(
    room: Enter, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(folder: Path | None, contract: Contract, *, limit: int) -> Images:
        raise MissingError("real images were wanted")

    monkeypatch.setattr(bench_module, "load_images", nothing)
    room(Contract(height=8, width=8), {"image": (1, 8, 8, 3)})
    notes = bench(BenchOptions(artifacts=(artifact,), plan=QUICK)).notes
    assert notes[0] == "real images were wanted"
    assert "random normal numbers" in notes[1]
    with pytest.raises(MissingError):
        bench(BenchOptions(artifacts=(artifact,), plan=QUICK, data=tmp_path))


def test_bench_counts_macs_of_the_model_times_the_batch(room: Enter, artifact: Path) -> None:
    room(None, {"image": (4, 32, 32, 1)})
    (row,) = bench(BenchOptions(artifacts=(artifact,), plan=QUICK, model="lenet5")).rows
    # LeNet-5 with full connections: 25*6*28^2 + 25*6*16*10^2 + 400*120 + 120*84 + 84*10.
    assert row.macs == 4 * 416_520
    assert row.macs_per_s == row.macs / row.latency.median_s
    (unknown,) = bench(BenchOptions(artifacts=(artifact,), plan=QUICK)).rows
    assert (unknown.macs, unknown.macs_per_s) == (None, None)


def test_bench_refuses_the_macs_of_another_network(room: Enter, artifact: Path) -> None:
    made = room(None, {"image": (1, 1, 32, 32)})
    with pytest.raises(UsageError, match=r"--model: an input .* was wanted; .* takes .* Leave --model out"):
        bench(BenchOptions(artifacts=(artifact,), plan=QUICK, model="mobilenet_v2"))
    assert made.sessions[0].is_closed
    assert bench(BenchOptions(artifacts=(artifact,), plan=QUICK, model="lenet5")).rows[0].macs == 416_520


def test_bench_compares_with_the_first_even_itself_and_gives_json(room: Enter, artifact: Path) -> None:
    room(None, {"image": (1, 8)})
    report = bench(BenchOptions(artifacts=(artifact, artifact), plan=QUICK))
    data = json.loads(json.dumps(to_data(report)))
    first, second = data["artifacts"]
    assert first["ratio_to_first"] == {"point": 1.0, "low_95": 1.0, "high_95": 1.0}
    assert 0.2 < second["ratio_to_first"]["point"] < 5
    assert len(second["round_medians_s"]) == 6
    assert (data["measured"], data["plan"]["rounds"], second["threads"]) == ("here", 6, 1)
    assert data["environment"]["cpu"]


# --- against Keras ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "within"),
    [
        (Interval(point=1.02, low=0.99, high=1.05), True),
        (Interval(point=0.90, low=0.88, high=0.92), True),
        (Interval(point=1.02, low=1.01, high=1.03), False),
        (Interval(point=1.04, low=0.99, high=1.09), False),
        (Interval(point=0.90, low=None, high=None), False),
    ],
)
def test_the_budget_asks_for_interval_and_point(interval: Interval, within: bool) -> None:
    facts = Facts(runtime="fake", threads=1, precision="float32")
    each = Comparison(format="onnx", facts=facts, snr_db=120.0, ours=(), keras=(), ratio=interval)
    assert each.is_within_budget is within


def test_too_few_rounds_are_refused_before_anything_is_built() -> None:
    graph = build("lenet5", values=False)
    with pytest.raises(UsageError, match="at least 6 rounds were wanted for an interval; got 5"):
        compare_exports(graph, np.zeros((1, 32, 32, 1)), Plan(rounds=5), formats=("onnx",), openings=1)


def test_times_of_artifacts_that_disagree_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    class Target:
        def open(self, path: Path, options: SessionOptions) -> FakeSession:
            sign = 1 if path.name.startswith("ours") else -1
            return FakeSession({"image": (1, 2, 2, 3)}, lambda x: sign * x)

    monkeypatch.setattr(keras_export.registry, "load", lambda room, name: Target())
    images = np.random.default_rng(0).normal(size=(16, 2, 2, 3)).astype(np.float32)
    pair: keras_export.Pair = {"ours": (Path("ours.x"), "NHWC"), "keras": (Path("keras.x"), "NHWC")}
    with pytest.raises(CheckFailedError, match=r"onnx: an SNR of 80 dB .* was wanted; got -6.0 dB"):
        compare("onnx", pair, images, QUICK, openings=1)


def test_every_opening_is_measured_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, FakeSession]] = []

    class Target:
        def open(self, path: Path, options: SessionOptions) -> FakeSession:
            opened.append((path.stem, FakeSession({"image": (1, 2, 2, 3)})))
            return opened[-1][1]

    monkeypatch.setattr(keras_export.registry, "load", lambda room, name: Target())
    images = np.random.default_rng(0).normal(size=(16, 2, 2, 3)).astype(np.float32)
    pair: keras_export.Pair = {"ours": (Path("ours.x"), "NHWC"), "keras": (Path("keras.x"), "NHWC")}
    found = compare("onnx", pair, images, replace(QUICK, rounds=3), openings=2)
    assert [len(found.ours), len(found.keras)] == [2, 2]
    assert found.snr_db == float("inf")
    assert found.ratio.low is not None
    assert [stem for stem, _ in opened[2:]] == ["keras", "ours", "ours", "keras"]
    assert all(session.is_closed for _, session in opened)


def test_a_missing_tf2onnx_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_export, "find_spec", lambda name: None)
    with pytest.raises(
        MissingError, match=r"needs the package tf2onnx, .* Run: python -m pip install 'edgecnn\[dev\]'"
    ):
        keras_export.keras_model(build("lenet5", values=False))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # TensorFlow's and tf2onnx's own
def test_our_lenet5_agrees_with_keras_exports() -> None:
    graph = build("lenet5")
    assert graph.contract is not None
    images = load_images(None, graph.contract, limit=16).values
    found = compare_exports(graph, images, replace(QUICK, rounds=6), formats=tuple(keras_export.PEERS), openings=1)
    assert [each.format for each in found] == ["tflite", "onnx", "openvino"]
    assert min(each.snr_db for each in found) >= 80
    assert all(0.3 < each.ratio.point < 3 for each in found)


# --- the command, with real runtimes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("bench")
    graph = deploy(build("lenet5")).graph
    paths = []
    for name in ("tflite", "onnx", "openvino"):
        writer = registry.load("converters", name)
        paths.append(folder / f"lenet5{writer.suffix}")
        writer.write(graph, paths[-1])
    return [str(path) for path in paths]


def edgecnn(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


def test_command_measures_every_runtime(artifacts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert edgecnn("bench", *artifacts, "--model", "lenet5", "--rounds", "6", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema_version"] == 1
    found = data["artifacts"]
    assert [row["artifact"] for row in found] == artifacts
    assert [row["target"] for row in found] == ["litert_cpu", "onnxruntime_cpu", "openvino_cpu"]
    for row in found:
        assert (row["macs"], row["threads"], row["precision"], row["batch"]) == (416_520, 1, "float32", 1)
        assert "photographs" in row["fed"]
        assert row["p10_s"] <= row["median_s"] <= row["p90_s"]
        assert row["macs_per_s"] == pytest.approx(416_520 / row["median_s"])
        assert 1e-6 < row["median_s"] < 0.1


def test_command_prints_a_table_that_is_not_cut(artifacts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert edgecnn("bench", artifacts[0], "--rounds", "6", "--threads", "2") == 0
    printed = capsys.readouterr().out
    assert "Measured here: one invocation with 1 image, 6 rounds" in printed
    (row,) = (line.split() for line in printed.splitlines() if line.startswith("lenet5.tflite"))
    assert row[1:4] == ["litert_cpu", "2", "float32"]
    assert row[7:9] == ["unknown", "unknown"]
    assert row[9:] == ["1.000", "[1.000,", "1.000]"]


def test_command_refuses_what_it_cannot_measure(artifacts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert edgecnn("bench", "nothing.tflite") == 4
    assert edgecnn("bench", artifacts[0], "--target", "openvino_cpu") == 2
    assert edgecnn("bench", artifacts[0], "--model", "mobilenet_v2") == 2
    errors = capsys.readouterr().err
    assert "nothing.tflite: a file was wanted; there is none." in errors
    assert "--model: an input Nx224x224x3 was wanted" in errors
