"""Labelled images to train on: scikit-learn's handwritten digits, or a folder with one sub-folder per class.

A share of each class is held out for testing; which images, the seed decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecnn.contract import Contract
from edgecnn.errors import NotThereError, UsageError
from edgecnn.extras import require
from edgecnn.graph import Array
from edgecnn.vision.photographs import image_files
from edgecnn.vision.preprocess import from_pixels, read_image

DIGITS = "digits"
"""Name of scikit-learn's digits where a folder could stand."""

HELD_OUT = 0.2
"""Share of each class that is kept for testing."""

LARGEST_BYTES = 4 << 30
"""A data set is held in memory as float32, and no larger one is loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Images and their classes.

    Attributes:
        images: (N, height, width, channels) float32, as the network takes them.
        classes: (N,) int64, indices of the labels.
    """

    images: Array
    classes: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Labelled images, some held out.

    Attributes:
        train: To learn from.
        test: Held out.
        contract: How the pixels became images, with the labels.
        origin: Where they come from, for people.
    """

    train: Split
    test: Split
    contract: Contract
    origin: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of their indices."""
        return self.contract.labels


def label_names(data: str) -> tuple[str, ...]:
    """Return the class names of a data set without loading its images.

    Args:
        data: "digits", or a folder with one sub-folder per class.

    Raises:
        NotThereError: When there is no such folder.
        UsageError: When it has fewer than two sub-folders.
    """
    if data == DIGITS:
        return tuple(str(digit) for digit in range(10))
    folder = Path(data)
    if not folder.is_dir():
        raise NotThereError(f"{data}: '{DIGITS}' or a folder with one sub-folder per class was wanted; there is none.")
    names = tuple(sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")))
    if len(names) < 2:
        raise UsageError(f"{data}: two or more sub-folders, one per class, were wanted; found {len(names)}")
    return names


def load_dataset(data: str, contract: Contract, *, seed: int) -> Dataset:
    """Return a data set by name or folder; see `digits` and `folder`."""
    return digits(contract, seed=seed) if data == DIGITS else folder(Path(data), contract, seed=seed)


def digits(contract: Contract, *, seed: int) -> Dataset:
    """Return the 1,797 handwritten digits of scikit-learn, 8x8 grey pixels each, whole (crop_fraction 1).

    Source: Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI repository, 1998 (its test set).

    Args:
        contract: How to resize and scale them; grey or colour.
        seed: Decides which fifth is held out.

    Raises:
        MissingError: When scikit-learn is not installed.
    """
    labels = label_names(DIGITS)
    whole = replace(contract, crop_fraction=1.0, labels=labels)
    loaded = require("sklearn.datasets", purpose="the digits").load_digits()
    pixels = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    return _dataset(
        len(pixels),
        lambda index: from_pixels(pixels[index], whole),
        loaded.target,
        whole,
        origin="scikit-learn's digits",
        seed=seed,
    )


def folder(path: Path, contract: Contract, *, seed: int) -> Dataset:
    """Return the pictures below a folder with one sub-folder per class, named after it.

    Args:
        path: The folder.
        contract: How to crop, resize and scale the pictures.
        seed: Decides which fifth of each class is held out.

    Raises:
        NotThereError: When there is no such folder, or a sub-folder has no picture.
        UsageError: When there are fewer than two classes, a class has one picture, or all are too many for memory.
        InputFileError: When a picture is damaged.
    """
    labels = label_names(str(path))
    files = [(file, index) for index, name in enumerate(labels) for file in image_files(path / name)]
    return _dataset(
        len(files),
        lambda index: read_image(files[index][0], contract),
        np.array([index for _, index in files]),
        replace(contract, labels=labels),
        origin=str(path),
        seed=seed,
    )


def _dataset(
    count: int, image: Callable[[int], Array], classes: Array, contract: Contract, *, origin: str, seed: int
) -> Dataset:
    shape = (count, contract.height, contract.width, contract.channels)
    needed = 4 * int(np.prod(shape, dtype=np.int64))
    if needed > LARGEST_BYTES:
        raise UsageError(
            f"{origin}: at most {LARGEST_BYTES / 1e9:.1f} GB of images were wanted; {count} of "
            f"{contract.height}x{contract.width} take {needed / 1e9:.1f} GB. Use fewer, or a lower --resolution."
        )
    images = np.empty(shape, np.float32)
    for index in range(count):
        images[index] = image(index)
    held_out = _held_out(classes, contract.labels, origin, np.random.default_rng(seed))
    return Dataset(
        train=Split(images=images[~held_out], classes=classes[~held_out].astype(np.int64)),
        test=Split(images=images[held_out], classes=classes[held_out].astype(np.int64)),
        contract=contract,
        origin=origin,
    )


def _held_out(classes: Array, labels: Sequence[str], origin: str, rng: np.random.Generator) -> Array:
    """Return a mask (N,) that holds out a share of each class, at least one image of it."""
    held_out = np.zeros(len(classes), bool)
    for index, label in enumerate(labels):
        members = rng.permutation(np.flatnonzero(classes == index))
        if len(members) < 2:
            raise UsageError(f"{origin}: two or more images of class '{label}' were wanted; found {len(members)}")
        held_out[members[: max(1, round(HELD_OUT * len(members)))]] = True
    return held_out
