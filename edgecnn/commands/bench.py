"""`edgecnn bench`: how long artifacts take, against each other."""

import importlib
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edgecnn.commands.model_options import data_option, json_option, target_option, threads_option
from edgecnn.console import emit, message, progress, show_count, table
from edgecnn.probe import probe

COLUMNS = ("<artifact", "<target", "threads", "<precision", "median ms", "p10", "p90", "MACs", "GMAC/s", "time / first")


@click.command()
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...", type=click.Path(path_type=Path))
@target_option
@threads_option
@click.option(
    "--rounds", default=20, show_default=True, type=click.IntRange(min=1), help="Each file has a turn in each."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the order of the turns.")
@data_option
@click.option("--model", metavar="MODEL", help="Zoo name or file to count MACs by; else each artifact says its own.")
@json_option
def bench(
    *,
    artifacts: tuple[Path, ...],
    target: str | None,
    threads: int,
    rounds: int,
    seed: int,
    data: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    """Measure how long artifacts take, one after the other in random order, again and again.

    Each ARTIFACT runs on a real image with the same number of threads. It warms up until its times are steady; the time
    of one invocation is measured, without feeding the input. The last column compares each file with the first one
    within the rounds, with a 95 % interval: a difference is one when the interval leaves 1.00 out.
    Where a session's memory lies is chance and stays for the whole measurement: give the same file twice to see how
    much that alone makes.
    """
    probe(artifacts, target)
    room = importlib.import_module("edgecnn.benchmarks.bench")
    plan = room.Plan(rounds=rounds, seed=seed)
    options = room.BenchOptions(
        artifacts=artifacts, target=target, threads=threads, plan=plan, data=Path(data) if data else None, model=model
    )
    with progress("rounds", rounds) as advance:
        report = room.bench(options, report=advance)
    for text in (*report.notes, *cautions(report)):
        message(text)
    emit(room.to_data(report), lambda console: show(report, console), as_json=as_json)


def show(report: Any, console: Console) -> None:
    """Print a BenchReport for people."""
    rows = [
        (
            row.artifact.name,
            row.target,
            row.facts.threads,
            row.facts.precision,
            milliseconds(row.latency.median_s),
            milliseconds(row.latency.p10_s),
            milliseconds(row.latency.p90_s),
            show_count(row.macs),
            "unknown" if row.macs_per_s is None else f"{row.macs_per_s / 1e9:.1f}",
            ratio(row.ratio),
        )
        for row in report.rows
    ]
    batches = sorted({row.batch for row in report.rows})
    images = " or ".join("1 image" if batch == 1 else f"{batch} images" for batch in batches)
    console.print(table(f"Measured here: one invocation with {images}, {report.plan.rounds} rounds", COLUMNS, rows))
    for target, runtime in sorted({(row.target, row.facts.runtime) for row in report.rows}):
        console.print(f"{target}: {runtime}")
    console.print(importlib.import_module("edgecnn.benchmarks.environment").show_environment(report.environment))


def cautions(report: Any) -> list[str]:
    """Return what to know before trusting the figures, each with its next step."""
    found = [(caution, "") for caution in report.cautions]
    found += [(caution, f"{row.artifact.name}: ") for row in report.rows for caution in row.latency.cautions]
    return [f"caution: {where}{caution.detail}. {caution.next_step}" for caution, where in found]


def milliseconds(seconds: float | None) -> str:
    """Return seconds as milliseconds for a table, or "unknown".

    >>> milliseconds(0.0035129)
    '3.513'
    """
    return "unknown" if seconds is None else f"{seconds * 1e3:.3f}"


def ratio(interval: Any) -> str:
    """Return a ratio with its 95 % interval for a table."""
    if interval.low is None:
        return f"{interval.point:.3f}"
    return f"{interval.point:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
