"""What can be wrong with calibration images: one check each, from what is kept of every image.

Nothing is guessed that a file says itself: a picture's channel order and range are known once it is decoded, so these
are checked for arrays only, whose values come from somebody else's preprocessing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgecnn.contract import Contract
from edgecnn.graph import Array
from edgecnn.quantization.likeness import alike, digest, grey_copy
from edgecnn.quantization.samples import Sample

FEWEST = 8
"""Images below which a range is the range of these images."""

FLAT_LEVELS = 3.0
"""Standard deviation of an image's grey values, of 255, below which there is nothing to see."""

GREY_LEVELS = 1.0
"""Mean difference of the channels, of 255, below which a picture has no colour."""

GREY_SHARE = 0.25
"""Share of grey pictures above which a colour network is fed the wrong ones; photographs have a few percent."""

RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
"""What preprocessing commonly gives."""

FILES_NAMED = 5
"""How many files a message names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flaw:
    """One thing that is wrong with calibration images.

    Attributes:
        kind: Such as "duplicates" or "overlap".
        severity: "error" where the ranges that come out of it are wrong.
        message: What was wanted, what was found and what to do.
        figures: Name -> number behind it.
        files: The images that it is about.
    """

    kind: str
    severity: Literal["warning", "error"]
    message: str
    figures: Mapping[str, float]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Look:
    """What is kept of one image.

    Attributes:
        sample: Where it is.
        digest: Of its values.
        copy: See likeness.grey_copy.
        low: Smallest value, as the network takes it.
        high: Largest value.
        means: Of each channel, in pixels 0..255.
        deviation: Standard deviation of its grey values, in pixels.
        colour: Mean absolute difference of its channels, in pixels.
    """

    sample: Sample
    digest: bytes
    copy: Array
    low: float
    high: float
    means: Array
    deviation: float
    colour: float

    @property
    def is_flat(self) -> bool:
        """Tell whether there is nothing to see."""
        return self.deviation < FLAT_LEVELS


def look(sample: Sample, values: Array, contract: Contract) -> Look:
    """Return what is kept of an image.

    Args:
        sample: Where it is.
        values: (height, width, channels) as the network takes it.
        contract: How it came from pixels.
    """
    pixels = values * np.asarray(contract.std, np.float32) + np.asarray(contract.mean, np.float32)
    grey = pixels @ np.full(pixels.shape[-1], 1 / pixels.shape[-1], np.float32)
    return Look(
        sample=sample,
        digest=digest(values),
        copy=grey_copy(grey),
        low=float(values.min()),
        high=float(values.max()),
        means=pixels.mean(axis=(0, 1), dtype=np.float64),
        deviation=float(grey.std()),
        colour=float(np.abs(pixels - grey[..., None]).mean()),
    )


def _few(looks: Sequence[Look], contract: Contract) -> Iterator[Flaw]:
    if len(looks) < FEWEST:
        yield Flaw(
            kind="few_images",
            severity="warning",
            message=f"{FEWEST} or more calibration images were wanted, better 100; got {len(looks)}.",
            figures={"images": len(looks)},
        )


def _duplicates(looks: Sequence[Look], contract: Contract) -> Iterator[Flaw]:
    groups: dict[bytes, list[Look]] = {}
    for each in looks:
        groups.setdefault(each.digest, []).append(each)
    twice = [group for group in groups.values() if len(group) > 1]
    if twice:
        extra = sum(len(group) - 1 for group in twice)
        names = tuple(" = ".join(each.sample.name for each in group[:FILES_NAMED]) for group in twice)
        yield about("duplicates", names, len(looks), f"{extra} of {len(looks)} images are copies of others", extra)
    first = [group[0] for group in groups.values() if not group[0].is_flat]
    copies = [each.copy for each in first]
    earlier = {later: one for one, later in alike(copies, copies) if one < later}  # one each, of frames of a video too
    if earlier:
        names = tuple(f"{first[one].sample.name} ~ {first[later].sample.name}" for later, one in earlier.items())
        what = f"{len(names)} of {len(looks)} images show almost what another shows"
        yield about("near_duplicates", names, len(looks), what, len(names))


def _flat(looks: Sequence[Look], contract: Contract) -> Iterator[Flaw]:
    names = tuple(each.sample.name for each in looks if each.is_flat)
    if names:
        what = f"{len(names)} of {len(looks)} images are the same almost everywhere"
        yield about("near_constant", names, len(looks), what, len(names))


def _grey(looks: Sequence[Look], contract: Contract) -> Iterator[Flaw]:
    names = tuple(each.sample.name for each in looks if each.colour < GREY_LEVELS and not each.is_flat)
    if contract.channels == 3 and len(names) > GREY_SHARE * len(looks):
        what = f"{len(names)} of {len(looks)} images are grey, and the network takes {contract.colour_order}"
        yield about("grey", names, len(looks), what, len(names))


def _range(looks: Sequence[Look], contract: Contract) -> Iterator[Flaw]:
    """Compare the values of arrays with what the contract's pixels can give."""
    arrays = _arrays(looks)
    if not arrays:
        return
    low, high = min(each.low for each in arrays), max(each.high for each in arrays)
    least, most = contract.input_range
    span = most - least
    other = [pair for pair in RANGES if pair != (least, most) and _fills((low, high), pair)]
    outside = low < least - span / 20 or high > most + span / 20
    if not (outside or high - low < span / 4 or (other and not _fills((low, high), (least, most)))):
        return
    hint = f" They look like {other[0][0]:g}..{other[0][1]:g}." if other else ""
    is_certain = outside or bool(other)
    yield Flaw(
        kind="range",
        severity="error" if is_certain else "warning",
        message=f"{arrays[0].sample.path.name}: values in {least:.4g}..{most:.4g} were wanted, as the contract says; "
        f"the arrays hold {low:.4g}..{high:.4g}.{hint} Preprocess them as the network was trained, or correct the "
        "contract.",
        figures={"low": low, "high": high, "wanted_low": least, "wanted_high": most},
        files=tuple(dict.fromkeys(each.sample.path.name for each in arrays)),
    )


def _channel_order(looks: Sequence[Look], contract: Contract) -> Iterator[Flaw]:
    """Tell whether the channels' means fit the contract's much better the other way round.

    A contract that subtracts a different mean from each channel states the training images' means. With d the mean of
    an image's channels, |d - m|^2 - |d[::-1] - m|^2 is how much better the swapped order fits; over the images its mean
    must exceed 4 standard errors. A contract with one mean for all channels says nothing about their order.
    """
    arrays = _arrays(looks)
    mean = np.asarray(contract.mean)
    if len(arrays) < FEWEST or contract.channels == 1 or np.ptp(mean) < GREY_LEVELS:
        return
    means = np.stack([each.means for each in arrays])
    gain = np.square(means - mean).sum(axis=1) - np.square(means[:, ::-1] - mean).sum(axis=1)
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5
    if gain.mean() > 4 * error and gain.mean() > 0:
        found = ", ".join(f"{value:.0f}" for value in means.mean(axis=0))
        wanted = ", ".join(f"{value:.0f}" for value in mean)
        yield Flaw(
            kind="channel_order",
            severity="warning",
            message=f"{arrays[0].sample.path.name}: channels in the order {contract.colour_order} were wanted, with "
            f"means near {wanted}; the arrays' means are {found}, which fit the other way round. Swap the channels.",
            figures={"gain": float(gain.mean()), "standard_error": error},
            files=tuple(dict.fromkeys(each.sample.path.name for each in arrays)),
        )


def _classes(looks: Sequence[Look], contract: Contract) -> Iterator[Flaw]:
    """Name the classes that have no image where each class has a folder of its own."""
    folders = {each.sample.path.parent.name for each in looks}
    labels = contract.labels
    if len(folders) < 2 or len(looks) < len(labels) or len(folders.intersection(labels)) * 2 < len(folders):
        return
    missing = tuple(label for label in labels if label not in folders)
    if missing:
        what = f"{len(missing)} of {len(labels)} classes have no image"
        yield about("missing_classes", missing, len(labels), what, len(missing))


CHECKS: dict[str, Callable[[Sequence[Look], Contract], Iterator[Flaw]]] = {
    "few_images": _few,
    "duplicates": _duplicates,
    "near_constant": _flat,
    "grey": _grey,
    "range": _range,
    "channel_order": _channel_order,
    "missing_classes": _classes,
}
"""What is checked of the images alone."""

OF_PIXELS = frozenset({"near_constant", "grey", "channel_order"})
"""Kinds that say nothing where the range is wrong, since values are no pixels then."""


def flaws_of(looks: Sequence[Look], contract: Contract) -> list[Flaw]:
    """Return what is wrong with images."""
    found = [flaw for check in CHECKS.values() for flaw in check(looks, contract)]
    has_wrong_range = any(flaw.kind == "range" for flaw in found)
    return [flaw for flaw in found if not (has_wrong_range and flaw.kind in OF_PIXELS)]


def _arrays(looks: Sequence[Look]) -> list[Look]:
    return [each for each in looks if each.sample.array is not None]


def _fills(found: tuple[float, float], wanted: tuple[float, float]) -> bool:
    """Tell whether values reach both ends of a range and leave it nowhere, but for a fiftieth of it."""
    slack = (wanted[1] - wanted[0]) / 50
    return all(abs(a - b) <= slack for a, b in zip(found, wanted, strict=True))


ADVICE = {
    "duplicates": "Remove the copies: they count as one image.",
    "near_duplicates": "They count as little more than one image each.",
    "near_constant": "Remove them: they narrow the averages and widen nothing.",
    "grey": "Take colour pictures, as the network will see.",
    "missing_classes": "Take some images of each class.",
    "overlap": "Measure accuracy on other images: on these it flatters.",
}
"""Kind -> what to do about it."""


def about(kind: str, names: tuple[str, ...], of: int, what: str, count: int) -> Flaw:
    """Return a warning that names files or classes."""
    more = f" and {len(names) - FILES_NAMED} more" if len(names) > FILES_NAMED else ""
    listed = ", ".join(names[:FILES_NAMED])
    return Flaw(
        kind=kind,
        severity="warning",
        message=f"{what}: {listed}{more}. {ADVICE[kind]}",
        figures={"count": count, "of": of},
        files=names,
    )
