"""What an artifact must reach to pass: as near to its source as float32 rounds, or nearer than its integers are.

A float artifact is held to SNR >= 80 dB and a maximum error of 1e-4 of the range. Runtimes round integers each in its
own way (OpenVINO not at all inside what it fuses), and an artifact of integers computes the same thing where its
difference from the golden integers of `execute` is no more than quantization noise: two roundings of a network that are
equally good and independent differ by the sum of their noise, 3 dB more than either has against the float network. The
classes are the golden's for 98 % of the images; where the golden's own are another than the float network's for a share
of them, for twice that share, likewise. Layer by layer the project's tests hold each runtime to the rounding that it
documents.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import floor, inf

from edgecnn.graph import Array, Graph, Node
from edgecnn.quantization.rules import WEIGHTED
from edgecnn.verify import MINIMUM_SNR_DB, Parity, agreement, snr_db

AGREEMENT = 0.98
"""Of the images; one may always differ, since two classes can be as good as equal."""

HAIR = 1e-9
"""1 - 0.98 is a little less or more than 0.02 in binary."""

NOISE_MARGIN_DB = 3.5
"""Two independent roundings differ by twice the energy of one."""

DYNAMIC_MARGIN_DB = 10.0
"""Where the runtime quantizes activations as they come, `execute` does not, and the difference adds to the noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """What passes.

    Attributes:
        minimum_snr_db: Against the reference.
        maximum_error: As a share of the output's range.
        agreement: Share of the images that must have the same class; None where that is not asked.
    """

    minimum_snr_db: float
    maximum_error: float
    agreement: float | None = None


def tolerance(
    shipped: Graph, exact: Mapping[str, Array], golden: Mapping[str, Array] | None, maximum_error: float
) -> Tolerance:
    """Return what an artifact must reach.

    Args:
        shipped: What it was written from.
        exact: Output -> what the float network gives for the images.
        golden: The same of `shipped` in `execute`; None where nothing was rounded.
        maximum_error: Of float artifacts.
    """
    if golden is None or not computes_in_integers(shipped):
        return Tolerance(minimum_snr_db=MINIMUM_SNR_DB, maximum_error=maximum_error)
    noise = min(snr_db(exact[name], golden[name]) for name in exact)
    margin = DYNAMIC_MARGIN_DB if any(is_dynamic(shipped, node) for node in shipped.nodes) else NOISE_MARGIN_DB
    first = next(iter(exact))
    has_classes = shipped.contract is None or shipped.contract.output != "features"
    same = agreement(exact[first], golden[first]) if has_classes else None
    return Tolerance(
        minimum_snr_db=noise - margin,
        maximum_error=inf,
        agreement=None if same is None else min(AGREEMENT, max(0.0, 2 * same - 1)),
    )


def computes_in_integers(graph: Graph) -> bool:
    """Tell whether any value that is computed is quantized, or a layer's kernel is without a Dequantize between."""
    is_rounded = any(t.quantization is not None and not t.is_constant for t in graph.tensors.values())
    return is_rounded or any(is_dynamic(graph, node) for node in graph.nodes)


def is_dynamic(graph: Graph, node: Node) -> bool:
    """Tell whether a layer takes float activations and integer weights, so that the runtime quantizes the former."""
    kernel = graph.constant(node, "kernel") if isinstance(node.op, WEIGHTED) else None
    return kernel is not None and kernel.quantization is not None and graph.tensors[node.inputs[0]].quantization is None


def judged(parity: Parity, wanted: Tolerance) -> Parity:
    """Return a parity that also fails where an artifact of integers gives other classes."""
    if wanted.agreement is None or parity.top1_agreement is None:
        return parity
    others = round((1 - parity.top1_agreement) * parity.images)
    allowed = max(1, floor((1 - wanted.agreement) * parity.images + HAIR))
    return replace(parity, passed=parity.passed and others <= allowed)
