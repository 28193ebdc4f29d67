"""`edgecnn demo`: the whole way on real handwritten digits."""

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from edgecnn.commands.model_options import force_option, json_option
from edgecnn.commands.run import classify
from edgecnn.console import emit, message, show_bytes, show_ms, table
from edgecnn.demo import Demo, run_demo


@click.command()
@click.option("-o", "--output", "folder", default="demo_artifacts", show_default=True, help="Folder for the artifacts.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, split and training.")
@force_option
@json_option
def demo(*, folder: str, seed: int, force: bool, as_json: bool) -> None:
    """Train LeNet-5 and a small MobileNet v2 on scikit-learn's digits, convert, verify, evaluate and time them.

    One to two minutes on two cores; nothing is downloaded.
    """
    found = run_demo(Path(folder), force=force, seed=seed, report=message)
    guesses = {str(row.artifact): classify(row.artifact, found.picture)[0] for row in found.rows}
    data = {
        "artifacts": [{**asdict(row), "artifact": str(row.artifact)} for row in found.rows],
        "picture": str(found.picture),
        "truth": found.truth,
        "guesses": {artifact: asdict(guess) for artifact, guess in guesses.items()},
    }

    def show(console: Console) -> None:
        _show(console, found)
        console.print(f"\n{found.picture} shows a {found.truth}:")
        rows = [(artifact, guess.label, f"{guess.probability:.2%}") for artifact, guess in guesses.items()]
        console.print(table("", ("<artifact", "<says", "probability"), rows))

    emit(data, show, as_json=as_json)


def _show(console: Console, found: Demo) -> None:
    rows = [
        (
            str(row.artifact),
            row.target,
            f"{row.accuracy:.2%}",
            f"{row.source_accuracy:.2%}",
            f"{row.parity.snr_db:.1f} dB",
            f"{row.parity.max_error:.1e}",
            show_bytes(row.size_bytes),
            show_ms(row.median_s),
            show_ms(row.p10_s),
            show_ms(row.p90_s),
        )
        for row in found.rows
    ]
    columns = ("<artifact", "<target", "accuracy", "source", "SNR", "max error", "size", "median ms", "p10", "p90")
    console.print(table("", columns, rows))
    first = found.rows[0]
    console.print(
        f"Measured here: accuracy and parity on {first.test_images} held-out digits ('source' is the trained network "
        "in NumPy); latency of one image on one thread, rounds interleaved within each network."
    )
