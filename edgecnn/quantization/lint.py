"""Lint: what is wrong with the images that a network is calibrated on, and with how its ranges settled."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgecnn.contract import Contract
from edgecnn.graph import Array
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.image_checks import Flaw, Look, about, flaws_of, look
from edgecnn.quantization.likeness import alike
from edgecnn.quantization.samples import Sample, read_samples, samples

GROWTH = 0.05
"""Share of a range that the last quarter of the images may still bring."""


class Inspection:
    """Looks at calibration images as they pass; 4 kB are kept of each."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self._looks: dict[Sample, Look] = {}

    @property
    def looks(self) -> list[Look]:
        """What was seen, each image once."""
        return list(self._looks.values())

    def add(self, sample: Sample, values: Array) -> None:
        """Look at one image (height, width, channels), as the network takes it."""
        if sample not in self._looks:
            self._looks[sample] = look(sample, values, self.contract)

    def flaws(self, evaluation: Path | None = None, calibration: Calibration | None = None) -> tuple[Flaw, ...]:
        """Return what is wrong with the images that were seen.

        Args:
            evaluation: Folder of the images that accuracy will be measured on.
            calibration: What came of them: tells whether the ranges have settled.
        """
        found = flaws_of(self.looks, self.contract)
        if evaluation is not None:
            found += _overlap(self.looks, self.contract, evaluation)
        if calibration is not None:
            found += unsettled(calibration)
        return tuple(found)


def lint(
    images: Path | Sequence[Path],
    contract: Contract,
    evaluation: Path | None = None,
    calibration: Calibration | None = None,
    *,
    limit: int | None = None,
) -> tuple[Flaw, ...]:
    """Return what is wrong with calibration images.

    Args:
        images: A folder or files; see samples.image_batches.
        contract: Of the network.
        evaluation: Folder of the images that accuracy will be measured on.
        calibration: What came of these images, where they were run.
        limit: As for image_batches.

    Raises:
        NotThereError: When there are no images.
    """
    inspection = Inspection(contract)
    chosen = samples(images, contract, limit=limit)
    for sample, values in zip(chosen, read_samples(chosen, contract), strict=True):
        inspection.add(sample, values)
    return inspection.flaws(evaluation, calibration)


def _overlap(looks: Sequence[Look], contract: Contract, evaluation: Path) -> Iterator[Flaw]:
    """Name the images that accuracy will be measured on, too."""
    chosen = samples(evaluation, contract)
    digests = {each.digest: each.sample.name for each in looks}
    seen = [each for each in looks if not each.is_flat]
    copies = [each.copy for each in seen]
    names = []
    for sample, values in zip(chosen, read_samples(chosen, contract), strict=True):
        other = look(sample, values, contract)
        near = next(alike([other.copy], copies), None)
        name = digests.get(other.digest) or (seen[near[1]].sample.name if near else None)
        if name is not None:
            names.append(f"{name} = {sample.name}")
    if names:
        what = f"{len(names)} of {len(chosen)} images of {evaluation} are among the calibration images"
        yield about("overlap", tuple(names), len(chosen), what, len(names))


def unsettled(calibration: Calibration) -> Iterator[Flaw]:
    """Tell whether the last quarter of the images still widened a range: more images are needed then."""
    before = [count for count in calibration.convergence if count <= calibration.images * 3 / 4]
    growth = calibration.convergence[max(before)] if before else 0.0
    if growth > GROWTH:
        yield Flaw(
            kind="unsettled",
            severity="warning",
            message=f"ranges that have settled were wanted; the last quarter of {calibration.images} images brought "
            f"{growth:.0%} of a tensor's range. Calibrate on more images.",
            figures={"growth": growth, "images": calibration.images},
        )
