"""`edgecnn run`: an image in, top classes out."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from edgecnn.commands.model_options import json_option, target_option, threads_option
from edgecnn.commands.verify import assumption
from edgecnn.console import emit, message, table
from edgecnn.contract import Contract, parse_contract
from edgecnn.errors import UsageError
from edgecnn.feeding import artifact_exterior, as_fed
from edgecnn.graph import Array
from edgecnn.interfaces import SessionOptions
from edgecnn.probe import probe
from edgecnn.source import existing, format_of, target_for
from edgecnn.verify import run_batches
from edgecnn.vision.preprocess import read_image


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """One class and how likely the network finds it."""

    index: int
    label: str
    probability: float


@click.command()
@click.argument("artifact")
@click.argument("image")
@click.option(
    "--contract", metavar="FILE", type=click.Path(path_type=Path), help="Contract of a file that brings none."
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to print.")
@target_option
@threads_option
@json_option
def run(
    *, artifact: str, image: str, contract: Path | None, top: int, target: str | None, threads: int, as_json: bool
) -> None:
    """Classify IMAGE with ARTIFACT; the image is cropped, resized and scaled by the artifact's own contract."""
    path = existing(Path(artifact))
    probe([path], target)
    how = contract_of(path, contract, "for running")
    guesses = classify(path, Path(image), top=top, target=target, threads=threads, contract=how)
    data: dict[str, Any] = {"artifact": artifact, "image": image, "classes": [asdict(guess) for guess in guesses]}

    def show(console: Console) -> None:
        rows = [(guess.label, guess.index, f"{guess.probability:.2%}") for guess in guesses]
        console.print(table(f"{Path(image).name} by {path.name}", ("<class", "index", "probability"), rows))

    emit(data, show, as_json=as_json)


def contract_of(path: Path, given: Path | None, purpose: str) -> Contract:
    """Return an artifact's own contract, or the given one where it brings none or only a guess.

    Args:
        path: The artifact.
        given: A contract file, or None.
        purpose: What a guess is used for, as words of the caution.

    Raises:
        UsageError: When there is neither.
    """
    own = format_of(existing(path)).read_contract(path)
    if own is not None and not own.is_assumed:
        return own
    if given is not None:
        return parse_contract(existing(given).read_bytes(), str(given))
    if own is None:
        raise UsageError(
            f"{path}: a contract was wanted, which says how an image becomes the input; the file carries none. "
            "Give it with --contract FILE (docs/contract.md)."
        )
    message(assumption(own, f"{purpose}; --contract FILE says it"))
    return own


def classify(
    path: Path,
    image: Path,
    *,
    top: int = 5,
    target: str | None = None,
    threads: int = 1,
    contract: Contract | None = None,
) -> list[Guess]:
    """Return the likeliest classes that an artifact sees in a picture.

    Args:
        path: The artifact.
        image: The picture.
        top: Classes that are wanted.
        target: Registry name, or None for the CPU target of the format.
        threads: Of the runtime.
        contract: How the picture becomes the input; None takes the artifact's own.

    Raises:
        UsageError: When there is no contract, or the artifact is no classifier.
    """
    contract = contract or contract_of(path, None, "for running")
    session = target_for(path, target).open(path, SessionOptions(threads=threads))
    try:
        values = read_image(image, contract)[None]
        dtype = next(iter(session.input_dtypes.values()))
        fed = {"image": as_fed(values, contract, dtype)}
        outputs = run_batches(session, fed, artifact_exterior(path, contract.layout))
    finally:
        session.close()
    name, values = next(iter(outputs.items()))
    if len(outputs) > 1:
        message(f"{path}: output '{name}' is shown; there are also {', '.join(list(outputs)[1:])}")
    if values.ndim != 2 or contract.output == "features":
        raise UsageError(f"{path}: output '{name}' of classes (1, N) was wanted; got {values.shape}")
    return top_classes(values[0], contract, top)


def top_classes(output: Array, contract: Contract, top: int) -> list[Guess]:
    """Return the likeliest classes of one output vector; logits become probabilities."""
    values = output.astype(np.float64)
    if contract.output == "logits":
        values = np.exp(values - np.max(values))
        values /= values.sum()
    order = np.argsort(-values, kind="stable")[:top]
    return [Guess(index=int(i), label=contract.label(int(i)), probability=float(values[i])) for i in order]
