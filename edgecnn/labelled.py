"""Labelled images to evaluate on, and which output of a network each of their classes is.

Networks with a background class have one output more than there are classes. Whether a class is output k or k + 1 is
taken from labels or asked of the user, and never guessed.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.errors import InputFileError, NotThereError, UsageError
from edgecnn.graph import Array
from edgecnn.vision.photographs import image_files

BACKGROUND = "background"
"""Label of output 0 of the networks that have such a class. Source: TensorFlow, models/slim, ImageNet labels."""

IMAGENET_WITH_BACKGROUND = 1001
HEADERS = (frozenset({"file", "filename", "image", "path"}), frozenset({"label", "class"}))
"""What the first line of a CSV file may call its columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledImages:
    """Pictures and the names of their classes, as their folder or list has them.

    Attributes:
        files: The pictures.
        names: One class name for each.
        all_names: Every class that the data have, whether or not `files` show it.
        origin: Where they come from, for people.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    all_names: tuple[str, ...]
    origin: str

    def limited(self, limit: int | None) -> "LabelledImages":
        """Return at most so many of the images, spread evenly over them."""
        if limit is None or limit >= len(self.files):
            return self
        chosen = np.linspace(0, len(self.files) - 1, limit).astype(int).tolist()
        files, names = tuple(self.files[i] for i in chosen), tuple(self.names[i] for i in chosen)
        return LabelledImages(files=files, names=names, all_names=self.all_names, origin=self.origin)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Truth:
    """The class of each image as a number.

    Attributes:
        classes: (N,) int64; class k is output k + offset of a network.
        labels: Name of each class; empty where classes are only numbers.
        rule: How names became numbers, for people.
    """

    classes: Array
    labels: tuple[str, ...]
    rule: str

    def label(self, index: int) -> str:
        """Return the name of a class, or its number where it has none."""
        if index < 0:
            return BACKGROUND
        return self.labels[index] if index < len(self.labels) else str(index)


def read_labelled(data: Path) -> LabelledImages:
    """Return the labelled images of a folder or of a CSV file.

    Args:
        data: A folder with one sub-folder per class; a folder with pictures named CLASS_anything.jpg; or a CSV file of
            lines "file,label", the files beside it or below its folder (a first line that names the columns may stand).

    Raises:
        NotThereError: When it is not there, or a picture is missing.
        InputFileError: When the CSV file is damaged.
        UsageError: When there are fewer than two classes.
    """
    if data.is_file():
        pairs = _of_list(data)
    else:
        folders = sorted(each for each in _entries(data) if each.is_dir() and not each.name.startswith("."))
        pairs = _of_folders(folders) if folders else _of_names(data)
    files, names = zip(*pairs, strict=True)
    classes = tuple(sorted(set(names)))
    if len(classes) < 2:
        raise UsageError(
            f"{data}: images of two or more classes were wanted (a sub-folder per class, CLASS_anything.jpg, or a CSV "
            f"file of lines file,label); found only '{classes[0]}'"
        )
    return LabelledImages(files=files, names=names, all_names=classes, origin=str(data))


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise NotThereError(f"{folder}: a folder of labelled images or a CSV file was wanted; there is none.")
    return list(folder.iterdir())


def _of_folders(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    return [(file, folder.name) for folder in folders for file in image_files(folder)]


def _of_names(folder: Path) -> list[tuple[Path, str]]:
    return [(file, file.stem.partition("_")[0]) for file in image_files(folder)]


def _of_list(path: Path) -> list[tuple[Path, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputFileError(f"{path}: a CSV file in UTF-8 was wanted: {error}") from None
    pairs = []
    for number, row in enumerate(rows, 1):
        if not row or (
            number == 1 and len(row) == 2 and all(a.lower() in b for a, b in zip(row, HEADERS, strict=True))
        ):
            continue
        if len(row) != 2 or not all(row):
            raise InputFileError(f"{path}, line {number}: file,label was wanted; got {len(row)} columns")
        pairs.append((path.parent / row[0], row[1]))
    if not pairs:
        raise InputFileError(f"{path}: lines of file,label were wanted; there is none")
    missing = next((file for file, _ in pairs if not file.is_file()), None)
    if missing is not None:
        raise NotThereError(f"{path}: the image {missing} was wanted; there is none.")
    return pairs


def settle(images: LabelledImages, labels: Sequence[str]) -> Truth:
    """Return the number of each image's class.

    Names that are labels come first (a label's first synonym will do: "tench" for "tench, Tinca tinca"; case and
    underscores do not matter), then names that are numbers, then, where there are no labels, the sorted order of names.
    With labels that begin with a background class, number k is label k + 1.

    Args:
        images: With the names of their classes.
        labels: Of the network's outputs, or none.

    Raises:
        UsageError: When a name is neither a label nor a number.
    """
    known = _index_of(labels)
    if labels and all(_key(name) in known for name in images.all_names):
        found, rule = {name: known[_key(name)] for name in images.all_names}, "by label"
    elif all(name.isascii() and name.isdecimal() for name in images.all_names):
        shift = int(bool(labels) and _key(labels[0]) == BACKGROUND)
        found = {name: int(name) + shift for name in images.all_names}
        rule = (
            "by number; the labels begin with a background class, so number k is label k + 1" if shift else "by number"
        )
    elif not labels:
        labels = images.all_names
        found, rule = {name: index for index, name in enumerate(labels)}, "in the sorted order of their names"
    else:
        stranger = next(name for name in images.all_names if _key(name) not in known)
        raise UsageError(
            f"{images.origin}: classes named by label or by number were wanted; '{stranger}' is no label of the "
            f"network ({', '.join(labels[:3])}, ...), or of several classes. Give the data's own with --labels FILE."
        )
    classes = np.array([found[name] for name in images.names], np.int64)
    return Truth(classes=classes, labels=tuple(labels), rule=rule)


def _key(name: str) -> str:
    return name.casefold().replace("_", " ").strip()


def _index_of(labels: Sequence[str]) -> Mapping[str, int]:
    """Return name -> index of labels and of their first synonyms; what could mean several is left out."""
    whole, first = ([_key(part) for part in parts] for parts in (labels, [each.partition(",")[0] for each in labels]))
    found: dict[str, int] = {}
    for names in (first, whole):  # whole labels win
        times = Counter(names)
        found.update({name: index for index, name in enumerate(names) if times[name] == 1})
    return found


def offset_of(truth: Truth, outputs: int, own_labels: Sequence[str], chosen: int | None, where: str) -> int:
    """Return what is added to a class to get a network's output.

    Args:
        truth: The classes.
        outputs: How many the network has.
        own_labels: Of the network's own contract, or none.
        chosen: By the user; None where the labels have to say it.
        where: The artifact, for errors.

    Raises:
        UsageError: When nothing says it, or a class is then no output.
    """
    offset = _said_by_labels(truth, outputs, own_labels) if chosen is None else chosen
    if offset is None:
        classes = f"{len(truth.labels)} classes" if truth.labels else "numbered classes"
        raise UsageError(
            f"{where}: {classes} and {outputs} outputs do not say which output a class is. Use --class-offset 1 if "
            "output 0 is a background class that the data do not have, 0 if class k is output k, or --labels FILE."
        )
    low, high = int(truth.classes.min()) + offset, int(truth.classes.max()) + offset
    if low < 0 or high >= outputs:
        raise UsageError(
            f"{where}: classes that are outputs 0..{outputs - 1} were wanted; with a class offset of {offset} they are "
            f"{low}..{high}. Is it of this data set? See --labels and --class-offset."
        )
    return offset


def _said_by_labels(truth: Truth, outputs: int, own_labels: Sequence[str]) -> int | None:
    def has_background(labels: Sequence[str]) -> bool:
        return bool(labels) and _key(labels[0]) == BACKGROUND

    if not truth.labels:
        return None if outputs == IMAGENET_WITH_BACKGROUND else 0
    if outputs == len(truth.labels):
        return 0
    if outputs == len(truth.labels) - 1 and has_background(truth.labels):
        return -1
    return 1 if outputs == len(truth.labels) + 1 and has_background(own_labels) else None
