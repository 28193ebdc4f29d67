"""Verify: hold an artifact in its runtime against its source in NumPy, on real images.

Signal-to-noise ratio in dB = 10 log10(signal / error), with the mean over the images of each output removed from both:
what never changes from image to image is no signal. Parity of float artifacts is SNR >= 80 dB and a maximum error of
at most 1e-4 of the output's range, over at least 16 real images. A float16 artifact is held against the source with
the same rounded constants; what the rounding costs is reported beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.errors import ShapeError, UsageError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, from_layout, to_layout, with_batch
from edgecnn.interfaces import Facts, Session, SessionOptions, Target
from edgecnn.ports import Exterior
from edgecnn.shapes import Shape

MINIMUM_SNR_DB = 80.0
MAXIMUM_RELATIVE_ERROR = 1e-4
ROUNDING_WARNING_DB = 30.0
BATCH = 8
"""Images that the reference executes at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How far one artifact is from its source.

    Attributes:
        artifact: Its path.
        target: Where it ran.
        facts: What the runtime granted.
        images: How many real images were compared.
        snr_db: Smallest over the outputs.
        max_error: Largest absolute difference, as a share of the reference output's range; largest over the outputs.
        top1_agreement: Share of images with the same largest output, or None where the output is no vector of classes.
        rounding_snr_db: What storing constants as float16, or computing in integers, costs against float32; None for
            float32 artifacts.
        minimum_snr_db: That passes.
        maximum_error: That passes.
        resolvable_db: The SNR that float32's own resolution at the outputs allows; below 80 dB nothing can be proved.
        passed: Whether both thresholds hold.
    """

    artifact: str
    target: str
    facts: Facts
    images: int
    snr_db: float
    max_error: float
    top1_agreement: float | None
    rounding_snr_db: float | None
    minimum_snr_db: float
    maximum_error: float
    resolvable_db: float
    passed: bool


def verify(
    references: Mapping[str, Array],
    artifact: Path,
    target: Target,
    inputs: Mapping[str, Array],
    *,
    exterior: Exterior,
    rounding: Mapping[str, Array] | None = None,
    threads: int = 1,
    minimum_snr_db: float = MINIMUM_SNR_DB,
    maximum_error: float = MAXIMUM_RELATIVE_ERROR,
) -> Parity:
    """Compare an artifact with reference outputs.

    Args:
        references: Output name -> (N, ...) values of the source, NHWC.
        artifact: The file.
        target: Opens it.
        inputs: Port name -> (N, ...) values, pictures already preprocessed.
        exterior: What is known of the artifact's ports.
        rounding: Outputs of the float32 source, where `references` are of one with rounded constants.
        threads: For the runtime.
        minimum_snr_db: That passes.
        maximum_error: That passes, as a share of the reference output's range.

    Raises:
        UsageError: When the artifact's inputs or outputs are not the source's.
    """
    session = target.open(artifact, SessionOptions(threads=threads))
    try:
        found = run_batches(session, inputs, exterior)
        facts = session.facts
    finally:
        session.close()
    if len(found) == len(references) == 1:
        found = dict(zip(references, found.values(), strict=True))
    refuse_others(artifact, references, found)
    names = list(references)
    snr = min(snr_db(references[name], found[name]) for name in names)
    error = max(relative_error(references[name], found[name]) for name in names)
    first = names[0]
    return Parity(
        artifact=str(artifact),
        target=target.name,
        facts=facts,
        images=len(next(iter(inputs.values()))),
        snr_db=snr,
        max_error=error,
        top1_agreement=agreement(references[first], found[first]),
        rounding_snr_db=min(snr_db(rounding[name], references[name]) for name in names) if rounding else None,
        minimum_snr_db=minimum_snr_db,
        maximum_error=maximum_error,
        resolvable_db=min(resolvable_db(references[name]) for name in names),
        passed=snr >= minimum_snr_db and error <= maximum_error,
    )


def refuse_others(artifact: Path, references: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    """Refuse outputs that are not the source's."""
    if found.keys() != references.keys():
        raise UsageError(
            f"{artifact}: outputs {sorted(references)} were wanted; it has {sorted(found)}. Is it of this model?"
        )
    for name, values in references.items():
        if found[name].shape != values.shape:
            raise UsageError(
                f"{artifact}: output '{name}' {values.shape} was wanted; got {found[name].shape}. Is it of this model?"
            )


def allowed_error(minimum_snr_db: float) -> float:
    """Return the relative error that goes with a lower SNR than parity's: 20 dB of signal are a factor of 10."""
    return float(MAXIMUM_RELATIVE_ERROR * 10 ** ((MINIMUM_SNR_DB - minimum_snr_db) / 20))


def reference_outputs(graph: Graph, inputs: Mapping[str, Array], *, fetch: Sequence[str] = ()) -> dict[str, Array]:
    """Execute a source on (N, ...) values for each input, a few at a time, to bound memory.

    Args:
        graph: Any; one that is tied to its batch runs in batches of that size.
        inputs: Port name -> values.
        fetch: Inner tensors that are wanted besides the outputs.
    """
    graph = with_any_batch(graph)
    tied = _batch(graph.tensors[port.tensor].shape for port in graph.inputs)
    shown = (*fetch, *(port.tensor for port in graph.outputs))
    if tied is None and any((*graph.tensors[name].shape, 1)[0] is not None for name in shown):
        tied = 1  # the batch lies in another axis of some output (time first, say): one image at a time
    count, parts = len(next(iter(inputs.values()))), []
    for start in range(0, count, tied or BATCH):
        size = tied or min(BATCH, count - start)
        batch = {name: _filled(values[start:], size) for name, values in inputs.items()}
        parts.append(execute(graph, batch, fetch=fetch))
    return {name: _joined([part[name] for part in parts], tied, count) for name in parts[0]}


def _joined(parts: Sequence[Array], size: int | None, count: int) -> Array:
    """Return the outputs of several runs as (images, ...): end to end, or stacked where one run has no such axis."""
    if size == 1 and parts[0].shape[:1] != (1,):
        return np.stack(parts)
    return np.concatenate(parts)[:count]


def _batch(shapes: Iterable[Shape]) -> int | None:
    """Return the batch of several inputs; a scalar has none."""
    return next((shape[0] for shape in shapes if shape), None)


def with_any_batch(graph: Graph) -> Graph:
    """Return the Graph with a symbolic batch, or as it is where an operator ties the batch to a number."""
    try:
        return with_batch(graph, None)
    except ShapeError:
        return graph


def run_batches(session: Session, inputs: Mapping[str, Array], exterior: Exterior) -> dict[str, Array]:
    """Run (N, ...) values through a session in batches of the size that the artifact takes.

    Args:
        session: With the same inputs; an only input may have another name.
        inputs: Port name -> values in the Graph's order (pictures NHWC): real numbers, which an integer port gets as
            the integers that stand for them, or values of the port's own type (raw bytes, say), fed as they are.
        exterior: What is known of the artifact's ports; their own shapes come first.

    Returns:
        Output name -> real numbers in the Graph's order.

    Raises:
        UsageError: When the inputs are not the artifact's, or its integers cannot stand for them.
    """
    named = _named_like(session, inputs)
    layouts = {
        name: exterior.of_input(port, inputs[port].shape, session.input_shapes[name]) for name, port in named.items()
    }
    size, count = _batch(session.input_shapes.values()), len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, size or 1):
        filled = {name: _filled(inputs[port][start:], size or 1) for name, port in named.items()}
        stored = {
            name: exterior.to_stored(named[name], values, session.input_dtypes[name]) for name, values in filled.items()
        }
        outputs = session.run({name: to_layout(values, layouts[name]) for name, values in stored.items()})
        parts.append({name: _shown(name, values, exterior) for name, values in outputs.items()})
    return {name: _joined([part[name] for part in parts], size or 1, count) for name in parts[0]}


def _shown(name: str, values: Array, exterior: Exterior) -> Array:
    """Return an output as callers see it: real numbers in the Graph's order."""
    return from_layout(exterior.to_real(name, values), exterior.of_output(name, values.shape))


def _named_like(session: Session, inputs: Mapping[str, Array]) -> dict[str, str]:
    """Return the artifact's own name of each input -> ours."""
    wanted = session.input_shapes
    if len(wanted) == len(inputs) == 1:
        return {next(iter(wanted)): next(iter(inputs))}
    if wanted.keys() != inputs.keys():
        raise UsageError(
            f"inputs {sorted(inputs)} were wanted; the artifact has {sorted(wanted)}. Is it of this model?"
        )
    return {name: name for name in wanted}


def _filled(values: Array, size: int) -> Array:
    """Return the first `size` values, the last one repeated where there are fewer."""
    batch = values[:size]
    return np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])


def snr_db(reference: Array, found: Array) -> float:
    """Return the signal-to-noise ratio in dB, the mean over the images (axis 0) removed from both.

    10 log10 of the ratio of energies; -inf where the reference is the same for every image, since nothing is proved
    then.

    >>> round(snr_db(np.array([[1.0], [-1.0]]), np.array([[1.1], [-1.1]])), 6)
    20.0
    """
    reference, found = reference.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinities, which give no number
        signal = reference - reference.mean(axis=0)
        error = float(np.square(signal - (found - found.mean(axis=0))).sum())
    energy = float(np.square(signal).sum())
    if not np.isfinite(error) or energy == 0:
        return -np.inf
    return 10 * float(np.log10(energy / error)) if error else np.inf


def resolvable_db(reference: Array) -> float:
    """Return the SNR that rounding each output to float32 alone would leave.

    An untrained network's outputs may be nearly the same for every image; their differences then drown in the last bit.
    The error of rounding to steps of s is s / sqrt(12).
    """
    with np.errstate(invalid="ignore"):
        steps = np.spacing(np.abs(reference).astype(np.float32)).astype(np.float64)
        signal = reference.astype(np.float64) - reference.astype(np.float64).mean(axis=0)
    energy = float(np.square(signal).sum())
    return 10 * float(np.log10(energy / (np.square(steps).sum() / 12))) if energy else -np.inf


def relative_error(reference: Array, found: Array) -> float:
    """Return the largest absolute difference as a share of the reference's range; inf where no number says it.

    >>> relative_error(np.array([0.0, 4.0]), np.array([1.0, 4.0])), relative_error(np.zeros(1), np.array([np.nan]))
    (0.25, inf)
    """
    reference, found = reference.astype(np.float64), found.astype(np.float64)
    same = (reference == found) | (np.isnan(reference) & np.isnan(found))  # infinities may be meant: masks hold them
    if same.all():
        return 0.0
    known = reference[np.isfinite(reference)]
    error, spread = float(np.abs(reference[~same] - found[~same]).max()), float(np.ptp(known)) if known.size else 0.0
    return error / spread if spread > 0 and np.isfinite(error) else np.inf


def agreement(reference: Array, found: Array) -> float | None:
    """Return the share of images whose largest output is the same; None unless outputs are (N, classes > 1)."""
    if reference.ndim != 2 or reference.shape[1] < 2:
        return None
    return float((reference.argmax(axis=1) == found.argmax(axis=1)).mean())
