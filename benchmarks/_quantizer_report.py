"""What the comparison of quantizers found: verdicts, the table, JSON, and the page docs/quantization.md."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from edgecnn.console import show_bytes, table

from ._quantizer_contests import SNR, Goal
from ._quantizer_figures import Figures
from ._quantizer_latency import Times
from .bench import interval_data
from .statistics import Interval

OURS = "edgecnn"
COMPARED = (SNR, "agreement")
"""Figures in which ours must reach the best peer, or lie inside its interval."""

PREFACE = """# Quantizers side by side

Written by `python -m edgecnn.benchmarks.quantizers --latency --page docs/quantization.md`: every tool gets the same
float network, the same images to calibrate on and the same other images to be measured on, in one run. Error is
measured in front of a final softmax, against the float network; SNR is 10 log10(signal / error) with the mean over the
images removed. Intervals hold 95 %: Wilson's for shares of images, the bootstrap over images for cosine and shares of
pixels. Top-1 is the change from the float network in points, with McNemar's exact p. Ours must reach the goal, and the
best peer in SNR and agreement, or lie inside its interval.
"""

COLUMNS = ("<network", "images", "<recipe", "<format", "<tool", "SNR dB", "figure", "95 %", "top-1", "size", "<verdict")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One tool's artifact.

    Attributes:
        tool: Its name.
        version: Of the tool; empty for ours.
        settings: That it was given.
        figures: What was measured, or None where there is no artifact that runs.
        refusal: Why there is none.
        size_bytes: Of all files of the artifact.
        times: Where they were measured.
    """

    tool: str
    version: str
    settings: str
    figures: Figures | None = None
    refusal: str = ""
    size_bytes: int | None = None
    times: Times | None = None

    @property
    def name(self) -> str:
        """Tool and settings."""
        return self.tool if self.tool == OURS else f"{self.tool} {self.settings}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One network, recipe and format.

    Attributes:
        contest: Name of the network.
        recipe: What was asked of every tool.
        format: Of the artifacts, which run in the same runtime.
        goal: What ours must reach.
        calibration: How many images everybody calibrated on.
        evaluation: How many other images were measured on.
        float_top1: Share of them that the float network has right; None without labels.
        rows: Ours first.
    """

    contest: str
    recipe: str
    format: str
    goal: Goal
    calibration: int
    evaluation: int
    float_top1: float | None
    rows: tuple[Row, ...]

    @property
    def failures(self) -> list[str]:
        """Return what is wrong with ours, in words."""
        ours, where = self.rows[0], f"{self.contest}, {self.recipe}, {self.format}"
        if ours.figures is None:
            return [f"{where}: no artifact: {ours.refusal}"]
        values, goal = ours.figures.values, self.goal
        found, reached = [], values[goal.figure].point
        if not reached >= goal.least:
            found.append(f"{where}: {goal.figure} {_shown(goal.figure, reached)} for {_shown(goal.figure, goal.least)}")
        for figure in COMPARED:
            best = self.best(figure)
            if figure in values and best is not None and not _reaches(values[figure].point, _interval(best, figure)):
                own, peer = (_shown(figure, _interval(each, figure).point) for each in (ours, best))
                found.append(f"{where}: {figure} {own}, {best.name} {peer}")
        slower = [row for row in self.rows if row.times is not None and not row.times.is_within_budget]
        return found + [f"{where}: slower than {row.name}" for row in slower]

    def best(self, figure: str) -> Row | None:
        """Return the best peer by a figure."""
        known = [row for row in self.rows[1:] if row.figures is not None and figure in row.figures.values]
        return max(known, key=lambda row: _interval(row, figure).point, default=None)


def _interval(row: Row, figure: str) -> Interval:
    if row.figures is None:
        return Interval(point=float("nan"), low=None, high=None)
    return row.figures.values[figure]


def _reaches(value: float, peer: Interval) -> bool:
    """Tell whether a value is at or above a peer's, or inside its interval."""
    return value >= (peer.point if peer.low is None else peer.low)


def _shown(figure: str, value: float) -> str:
    return f"{value:.2f} dB" if figure == SNR else f"{100 * value:.2f} %"


def table_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """Return the table's rows of an outcome; see COLUMNS."""
    return [_row(outcome, row) for row in outcome.rows]


def _row(outcome: Outcome, row: Row) -> tuple[str, ...]:
    known = (outcome.contest, str(outcome.evaluation), outcome.recipe, outcome.format, row.name)
    if row.figures is None:
        return (*known, "", "", "", "", "", f"none: {row.refusal}")
    name = next((each for each in row.figures.values if each != SNR), SNR)
    value = row.figures.values[name]
    return (
        *known,
        f"{row.figures.values[SNR].point:.2f}",
        f"{name} {_shown(name, value.point)}",
        "" if value.low is None or value.high is None else f"{_bare(name, value.low)} - {_bare(name, value.high)}",
        _top1(outcome, row.figures),
        "" if row.size_bytes is None else show_bytes(row.size_bytes),
        _verdict(outcome, row),
    )


def _bare(figure: str, value: float) -> str:
    return f"{value if figure == SNR else 100 * value:.2f}"


def _top1(outcome: Outcome, figures: Figures) -> str:
    """Return how top-1 differs from the float network's, with McNemar's p value."""
    if figures.top1 is None or figures.against_float is None or outcome.float_top1 is None:
        return ""
    return f"{100 * (figures.top1 - outcome.float_top1):+.2f} (p {figures.against_float.p_value:.2g})"


def _verdict(outcome: Outcome, row: Row) -> str:
    """Return whether ours reaches everything, or how our time compares with a peer's."""
    if row.tool == OURS:
        short = [text.partition(": ")[2] for text in outcome.failures]
        return "BELOW: " + "; ".join(short) if short else "reached"
    if row.times is None or row.times.ratio is None:
        return ""
    ratio = row.times.ratio
    interval = "" if ratio.low is None else f" ({ratio.low:.3f} - {ratio.high:.3f})"
    return f"ours takes {ratio.point:.3f}{interval} of its {row.times.median_s * 1e3:.3f} ms"


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print the table."""
    console.print(table("", COLUMNS, [row for each in outcomes for row in table_rows(each)]))


def to_data(outcomes: Sequence[Outcome], machine: str) -> dict[str, Any]:
    """Return everything for JSON."""
    return {"measured": "here", "machine": machine, "outcomes": [_outcome_data(each) for each in outcomes]}


def _outcome_data(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "rows": [_row_data(row) for row in outcome.rows], "failures": outcome.failures}


def _row_data(row: Row) -> dict[str, Any]:
    data = asdict(row)
    if row.figures is not None:
        data["figures"]["values"] = {name: interval_data(value) for name, value in row.figures.values.items()}
    return data


def page(outcomes: Sequence[Outcome], machine: str) -> str:
    """Return the page: one table, the goals, and what ours does not reach."""
    tools = sorted({f"{row.tool} {row.version}" for each in outcomes for row in each.rows if row.version})
    goals = {f"{each.contest}, {each.recipe}": each.goal for each in outcomes}
    failures = [text for each in outcomes for text in each.failures]
    names = [column.lstrip("<") for column in COLUMNS]
    cells = [[cell.replace("|", "/") for cell in row] for each in outcomes for row in table_rows(each)]
    return "\n".join(
        [
            PREFACE,
            f"Measured on {machine}. Tools: {', '.join(tools)}.",
            "",
            f"| {' | '.join(names)} |",
            f"|{'---|' * len(names)}",
            *(f"| {' | '.join(row)} |" for row in cells),
            "",
            "## Goals",
            "",
            *(f"- {name}: {goal.figure} at least {_shown(goal.figure, goal.least)}" for name, goal in goals.items()),
            "",
            "## What ours does not reach",
            "",
            *([f"- {text}" for text in failures] or ["Nothing."]),
            "",
        ]
    )
