"""What a conversion made and found, and the error that a failed one ends in."""

from dataclasses import dataclass

from edgecnn.bisect import Divergence
from edgecnn.errors import CheckFailedError
from edgecnn.interfaces import Artifact
from edgecnn.passes.deploy import Deployment
from edgecnn.proof import SourceProof
from edgecnn.quantization.quantize import Quantized
from edgecnn.verify import MINIMUM_SNR_DB, Parity


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What a conversion made.

    Attributes:
        deployment: Which passes were applied and refused.
        quantized: What every format was written from, and how the recipe made it.
        artifacts: One for each format, in the order asked for.
        parity: One for each artifact, or empty where nothing was verified.
        source_proof: Whether the source file was read as its own runtime reads it; None where there is no such file.
        divergences: Where the artifacts that failed leave the source.
        notes: What could not be found out about a failure.
    """

    deployment: Deployment
    quantized: Quantized
    artifacts: tuple[Artifact, ...]
    parity: tuple[Parity, ...]
    source_proof: SourceProof | None = None
    divergences: tuple[Divergence, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def checks(self) -> tuple[Parity, ...]:
        """Every parity that was measured, the source's own first."""
        proof = self.source_proof
        return self.parity if proof is None or proof.parity is None else (proof.parity, *self.parity)

    @property
    def passed(self) -> bool:
        """Tell whether every check that ran holds."""
        return all(parity.passed for parity in self.checks)


class ParityError(CheckFailedError):
    """An artifact does not compute what its source computes, so that nothing was handed over.

    Attributes:
        conversion: What was found.
    """

    def __init__(self, conversion: Conversion) -> None:
        worst = min((parity for parity in conversion.checks if not parity.passed), key=lambda parity: parity.snr_db)
        first = next(iter(conversion.divergences), None)
        is_reading = worst not in conversion.parity
        reading = f"{worst.target} computes something else: edgecnn reads the file wrongly; please report it. "
        super().__init__(
            f"{worst.artifact}: parity was wanted; found an SNR of {worst.snr_db:.1f} dB and a maximum error of "
            f"{worst.max_error:.1e} of the range. {reading if is_reading else ''}{_explained(worst)}"
            f"{describe(first) if first else ''}"
            f"Nothing {'else ' if first else ''}was written; --no-verify writes it all the same."
        )
        self.conversion = conversion


def _explained(parity: Parity) -> str:
    if parity.resolvable_db >= MINIMUM_SNR_DB:
        return ""
    return (
        "The outputs hardly differ from image to image, as an untrained network's do: float32 itself resolves only "
        f"{parity.resolvable_db:.1f} dB of that, so nothing can be proved. Train the network first. "
    )


def describe(found: Divergence) -> str:
    """Return a divergence as sentences for people."""
    figures = f"an SNR of {found.snr_db:.1f} dB and a maximum error of {found.max_error:.1e} of its range"
    return (
        f"In {found.format}, {found.kind} '{found.node}' is the first to differ, by {found.refusal or figures}: "
        f"{found.model} ({found.operators} operators) shows it, with its inputs and outputs in {found.values.name}. "
    )
