"""What a command calibrates on: the images of a folder, which are looked at as they pass, or random numbers."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from edgecnn.errors import UsageError
from edgecnn.feeding import load_feeds
from edgecnn.graph import Array, Graph
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.image_checks import Flaw
from edgecnn.quantization.lint import Inspection
from edgecnn.quantization.quantize import Samples
from edgecnn.quantization.samples import array_batches, image_batches, random_batches, read_samples, samples
from edgecnn.vision.photographs import MINIMUM


class CalibrationData:
    """Images, or random numbers, that ranges are taken from; pictures are looked at as they pass."""

    def __init__(
        self, folder: Path | None, images: int, *, evaluation: Path | None = None, is_lenient: bool = False
    ) -> None:
        """Read nothing yet.

        Args:
            folder: With real images; None for random numbers.
            images: At most.
            evaluation: Folder of images that accuracy will be measured on.
            is_lenient: Whether images that contradict the contract are taken all the same.
        """
        self.folder, self.images, self._is_lenient = folder, images, is_lenient
        self._evaluation = evaluation
        self._inspection: Inspection | None = None

    @property
    def samples(self) -> Samples:
        """What a calibration takes."""
        origin = "random numbers" if self.folder is None else str(self.folder)
        return Samples(batches=self._batches, origin=origin, is_random=self.folder is None, judge=self._judge)

    def _judge(self, calibration: Calibration) -> None:
        """Refuse images from which the ranges come out wrong."""
        wrong = [each for each in self.flaws(calibration) if each.severity == "error"]
        if wrong and not self._is_lenient:
            raise UsageError(f"{self.folder}: {wrong[0].message} --ignore-lint takes them all the same.")

    def flaws(self, calibration: Calibration | None) -> tuple[Flaw, ...]:
        """Return what is wrong with the images that were seen."""
        return () if self._inspection is None else self._inspection.flaws(self._evaluation, calibration)

    def others(self, graph: Graph, limit: int) -> tuple[dict[str, Array], str]:
        """Return images that ranges were not taken from, as far as the folder has them, and what to call them.

        Args:
            graph: Which they are for.
            limit: How many.
        """
        contract = graph.contract
        if self.folder is None:
            feeds = load_feeds(graph, contract, None, limit=limit)
            return feeds.values, feeds.origin
        if contract is None or len(graph.inputs) != 1:
            batches = list(_of_ports(self.folder, graph, limit))
            values = {port.name: np.concatenate([batch[port.name] for batch in batches]) for port in graph.inputs}
            return values, f"{len(next(iter(values.values())))} inputs, calibrated on, too"
        taken = set(samples(self.folder, contract, limit=self.images))
        rest = [each for each in samples(self.folder, contract) if each not in taken]
        chosen = rest[:: max(1, len(rest) // limit)][:limit]
        if len(chosen) < MINIMUM:
            chosen = samples(self.folder, contract, limit=limit)
        what = "calibrated on, too: the folder has too few others" if taken.issuperset(chosen) else "not calibrated on"
        return {graph.inputs[0].name: np.stack(list(read_samples(chosen, contract)))}, f"{len(chosen)} images, {what}"

    def _batches(self, graph: Graph) -> Iterable[Mapping[str, Array]]:
        """Return inputs as a stream."""
        if self.folder is None:
            return random_batches(graph, count=self.images, seed=0)
        contract = graph.contract
        if contract is None or len(graph.inputs) != 1:
            return _of_ports(self.folder, graph, self.images)
        self._inspection = self._inspection or Inspection(contract)
        name, watch = graph.inputs[0].name, self._inspection.add
        return image_batches(self.folder, contract, port=name, limit=self.images, watch=watch)


def _of_ports(folder: Path, graph: Graph, limit: int) -> Iterable[Mapping[str, Array]]:
    """Return what several ports take, or one that is no picture: the arrays of an .npz file, or pictures for each.

    Raises:
        UsageError: When random numbers would have to stand in for real ones.
    """
    files = sorted(folder.glob("*.npz"))
    if len(files) == 1:
        return array_batches(files[0], graph, limit=limit)
    feeds = load_feeds(graph, graph.contract, folder, limit=limit)
    if feeds.random:
        raise UsageError(
            f"{folder}: one .npz file with an array (N, ...) for each input was wanted, since '{feeds.random[0]}' is "
            f"no picture; found {len(files)}. --random-data takes random numbers, which are not fit for use."
        )
    return [feeds.values]
