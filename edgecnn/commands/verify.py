"""`edgecnn verify`: artifacts against their source on real images."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from math import inf
from pathlib import Path

import click
from rich.console import Console

from edgecnn.commands.choices import source_options
from edgecnn.commands.model_options import data_option, json_option, target_option, threads_option
from edgecnn.console import emit, message, progress, table
from edgecnn.contract import Contract
from edgecnn.convert import FLOAT32
from edgecnn.errors import InputFileError, UsageError
from edgecnn.feeding import Feeds, load_feeds
from edgecnn.graph import Graph, Port
from edgecnn.passes.deploy import deploy
from edgecnn.probe import probe
from edgecnn.proof import Load, References, check, check_source, has_float16
from edgecnn.quantization.quantize import quantize
from edgecnn.quantization.recipe import Recipe
from edgecnn.source import Choices, existing, format_of, load_model, load_source
from edgecnn.verify import MAXIMUM_RELATIVE_ERROR, MINIMUM_SNR_DB, ROUNDING_WARNING_DB, Parity
from edgecnn.vision.photographs import MINIMUM

POOR_DB = 10.0
"""Of integers against their float network: the error has a tenth of the signal's energy."""

limit_option = click.option(
    "--limit", type=click.IntRange(MINIMUM), default=MINIMUM, show_default=True, help="Real images to verify on."
)


@click.command()
@click.argument("model")
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...")
@data_option
@limit_option
@target_option
@threads_option
@source_options
@json_option
def verify(
    *,
    model: str,
    artifacts: tuple[str, ...],
    data: str | None,
    limit: int,
    target: str | None,
    threads: int,
    choices: Choices,
    as_json: bool,
) -> None:
    """Hold each ARTIFACT in its runtime against the source MODEL in NumPy, on real images.

    Parity: SNR of at least 80 dB and a maximum error of at most 1e-4 of the output's range. An artifact of integers is
    held against its own integers in NumPy: nearer to them than they are to the float network, and the same class for
    98 % of the images. Exit code 1 when one fails.
    """
    paths = [existing(Path(artifact)) for artifact in artifacts]
    source = load_source(model, choices, report=message)
    origin: list[str] = []
    references = References(loader(data, limit, origin))
    probe(paths, target)
    with progress(f"verifying {len(paths)} artifacts", len(paths)) as advance:
        proof = check_source(source, references, threads=threads)
        parity = tuple(
            parity
            for path in paths
            for parity in check(
                source.graph,
                _written_from(source.graph, path),
                [path],
                references,
                proof=proof,
                threads=threads,
                advance=lambda what: advance(),
                target=target,
            )
        )
    passed = all(each.passed for each in parity)
    if proof is not None and proof.assumed is not None:
        message(assumption(proof.assumed, "for verifying; --contract FILE says it"))
    emit(
        {"model": source.graph.name, "images": origin[-1], "parity": [asdict(p) for p in parity], "passed": passed},
        lambda console: show_parity(console, parity, origin),
        as_json=as_json,
    )
    if not passed:
        sys.exit(1)


def _written_from(source: Graph, artifact: Path) -> Graph:
    """Return the Graph that an artifact stands for: the source, with rounded constants, or the integers that it holds.

    Integers come from a calibration that cannot be repeated: those in the artifact are the reference, executed in
    NumPy, and what they lose against the source is reported beside it.
    """
    deployed, name = deploy(source).graph, _precision(source, artifact)
    if name in (FLOAT32.precision, "float16"):
        return quantize(deployed, Recipe(precision=name)).graph
    return _with_names_of(source, load_model(str(artifact)), artifact)


def _with_names_of(source: Graph, found: Graph, artifact: Path) -> Graph:
    """Return what was read with the source's names: an only input, or an only output, may be called otherwise."""
    inputs, outputs = (
        _named_alike(*sides) for sides in ((source.inputs, found.inputs), (source.outputs, found.outputs))
    )
    wanted, got = sorted(port.name for port in source.outputs), sorted(port.name for port in outputs)
    if wanted != got:
        raise UsageError(f"{artifact}: outputs {wanted} were wanted; it has {got}. Is it of this model?")
    return replace(found, inputs=inputs, outputs=outputs)


def _named_alike(wanted: tuple[Port, ...], found: tuple[Port, ...]) -> tuple[Port, ...]:
    return (replace(found[0], name=wanted[0].name),) if len(wanted) == len(found) == 1 else found


def _precision(source: Graph, artifact: Path) -> str:
    """Return how an artifact stores numbers: as its contract says, or else as it is read.

    A contract that came from a user (--contract) says nothing of integers that were there before.
    """
    contract = format_of(artifact).read_contract(artifact)
    if contract is not None and (contract.recipe != FLOAT32.precision or not source.is_quantized):
        return contract.recipe
    with suppress(InputFileError, UsageError):
        found = load_model(str(artifact))
        if found.is_quantized:
            return "static_w8_a8"
        return "float16" if has_float16(found) and not has_float16(source) else FLOAT32.precision
    return FLOAT32.precision


def assumption(contract: Contract, purpose: str = "for verifying here and for edgecnn run") -> str:
    """Return what is said of a contract that is only a guess."""
    low, high = (bound + 0.0 for bound in contract.input_range)
    return (
        f"CAUTION: the model does not say how pixels become its input; {contract.colour_order} in "
        f"{low:g}..{high:g} is assumed, {purpose}."
    )


def loader(data: str | None, limit: int, origin: list[str]) -> Load:
    """Return what gives real images for a source; where they came from is appended to `origin`."""

    def load(graph: Graph, contract: Contract | None) -> Feeds:
        feeds = load_feeds(graph, contract, Path(data) if data else None, limit=limit)
        origin.append(feeds.origin)
        return feeds

    return load


def show_parity(console: Console, parity: Sequence[Parity], origin: Sequence[str]) -> None:
    """Print the parity of artifacts as a table."""
    rows = [
        (
            Path(p.artifact).name,
            p.target,
            p.facts.runtime,
            "integers" if _is_of_integers(p) else p.facts.precision,
            f"{p.snr_db:.1f} dB",
            f"{p.max_error:.1e}",
            "" if p.top1_agreement is None else f"{p.top1_agreement:.1%}",
            "passed" if p.passed else "FAILED",
        )
        for p in parity
    ]
    columns = ("<artifact", "<target", "<runtime", "<computes in", "SNR", "max error", "same top-1", "<parity")
    console.print(table("", columns, rows))
    images = f"{parity[0].images} images ({', '.join(dict.fromkeys(origin))})"
    wanted = f"; wanted: SNR >= {MINIMUM_SNR_DB:g} dB, max error <= {MAXIMUM_RELATIVE_ERROR:g} of the output's range"
    console.print(f"Measured on {images}{'' if all(map(_is_of_integers, parity)) else wanted}.")
    for each in parity:
        for note in _notes(each):
            console.print(f"{each.artifact}: {note}")


def _is_of_integers(parity: Parity) -> bool:
    return parity.maximum_error == inf  # see edgecnn.tolerance


def _notes(parity: Parity) -> Iterator[str]:
    """Yield what is worth knowing about one artifact's parity."""
    loss = parity.rounding_snr_db
    if _is_of_integers(parity):
        wanted = f"at least {parity.minimum_snr_db:.1f} dB against its own integers in NumPy were wanted"
        low = "; WARNING, that is low" if loss is not None and loss < POOR_DB else ""
        yield f"{wanted}{'' if loss is None else f'; those have {loss:.1f} dB against the float network'}{low}."
        return
    if parity.passed and parity.max_error > MAXIMUM_RELATIVE_ERROR:
        yield (
            f"a max error of up to {parity.maximum_error:.1e} passes here: float32's rounding makes as much of a "
            "difference between the source in its own runtime and in NumPy."
        )
    if loss is not None and loss < inf:
        low = "; WARNING, that is low" if loss < ROUNDING_WARNING_DB else ""
        yield f"rounded constants give {loss:.1f} dB SNR against float32{low}."
