"""Evaluate: how often artifacts are right on labelled images, and whether they differ by more than chance.

All artifacts see the same images, a few at a time, so that memory does not grow with the data. On a small set the
intervals of two accuracies overlap whatever is true; the paired difference (McNemar) is what says something.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecnn.contract import Contract
from edgecnn.errors import UsageError
from edgecnn.feeding import artifact_exterior, as_fed
from edgecnn.graph import Array, external_shape
from edgecnn.instruction_set import instruction_set
from edgecnn.interfaces import Facts, Session, SessionOptions
from edgecnn.labelled import LabelledImages, Truth, offset_of
from edgecnn.paired import McNemar, Share, mcnemar, wilson
from edgecnn.ports import Exterior
from edgecnn.shapes import check_shape
from edgecnn.source import existing, target_for
from edgecnn.verify import run_batches
from edgecnn.vision.preprocess import read_image

TOP = 5
CHUNK = 16
"""Images that are held at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """An artifact and how it is evaluated.

    Attributes:
        path: Its file.
        contract: How pixels become its input, and its own labels.
        offset: Class + offset = output; None where labels say it.
    """

    path: Path
    contract: Contract
    offset: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """How often one class was taken for another (-1 is the background)."""

    actual: int
    predicted: int
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one artifact got right.

    Attributes:
        artifact: Its path.
        target: Where it ran.
        facts: What the runtime granted, the instruction set included.
        outputs: How many it has.
        offset: Class + offset = output.
        top1: Share of images whose class scores highest; of equal scores the first counts.
        top5: Share of images whose class is among the five highest; None for at most five outputs.
        agreement: Share of images with the first artifact's answer; None for the first.
        against_first: Paired difference from the first; None for the first.
        right: Class -> how many of its images are right.
        confusions: Wrong answers, the most frequent first.
    """

    artifact: str
    target: str
    facts: Facts
    outputs: int
    offset: int
    top1: Share
    top5: Share | None
    agreement: Share | None
    against_first: McNemar | None
    right: dict[int, int]
    confusions: tuple[Confusion, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Several artifacts on the same labelled images.

    Attributes:
        images: How many.
        origin: Where they come from.
        rule: How class names became numbers.
        labels: Class -> its name, of every class that an image has or an artifact answers (-1 is the background).
        sizes: Class -> its images, of the classes that have any.
        instruction_set: Of this CPU; see instruction_set.py.
        results: One for each artifact.
    """

    images: int
    origin: str
    rule: str
    labels: dict[int, str]
    sizes: dict[int, int]
    instruction_set: tuple[str, ...] | None
    results: tuple[Result, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    contestant: Contestant
    target: str
    session: Session
    exterior: Exterior
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Answers:
    """(N, up to TOP) classes, the likeliest first, of a network with so many outputs."""

    ranked: Array
    outputs: int
    offset: int


def evaluate(
    contestants: Sequence[Contestant],
    images: LabelledImages,
    truth: Truth,
    *,
    target: str | None = None,
    threads: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Return how often artifacts are right.

    Args:
        contestants: One or more; the others are compared with the first.
        images: The pictures.
        truth: Their classes; see labelled.settle.
        target: Registry name, or None for the CPU target of each format.
        threads: Of the runtimes.
        advance: Called after each image.

    Raises:
        UsageError: When an artifact is no classifier of these classes, or its contract is not of its input.
        InputFileError: When a runtime refuses an artifact, or a picture is damaged.
    """
    with ExitStack() as stack:
        opened = [_open(each, target, threads, stack) for each in contestants]
        answers = _answers(opened, images.files, truth, advance)
        pairs = list(zip(opened, answers, strict=True))
        results = tuple(_result(each, found, answers[0], truth) for each, found in pairs)
    sizes = Counter(truth.classes.tolist())
    answered = {each.predicted for result in results for each in result.confusions}
    return Evaluation(
        images=len(images.files),
        origin=images.origin,
        rule=truth.rule,
        labels={index: truth.label(index) for index in sorted(answered.union(sizes))},
        sizes=dict(sorted(sizes.items())),
        instruction_set=instruction_set(),
        results=(replace(results[0], agreement=None, against_first=None), *results[1:]),
    )


def _open(contestant: Contestant, name: str | None, threads: int, stack: ExitStack) -> _Opened:
    """Open an artifact and check that its contract is of its input."""
    path, contract = contestant.path, contestant.contract
    target = target_for(existing(path), name)
    session: Session = target.open(path, SessionOptions(threads=threads))
    stack.callback(session.close)
    if len(session.input_shapes) != 1 or contract.output == "features":
        raise UsageError(
            f"{path}: a classifier of one picture was wanted; it takes {len(session.input_shapes)} inputs and gives "
            f"{contract.output}"
        )
    ((port, shape),) = session.input_shapes.items()
    exterior = artifact_exterior(path, contract.layout)
    picture = (1, contract.height, contract.width, contract.channels)
    layout = exterior.of_input(port, picture, shape)
    check_shape(f"{path}: input '{port}' by its contract", external_shape(picture, layout)[1:], shape[1:])
    return _Opened(
        contestant=contestant, target=target.name, session=session, exterior=exterior, dtype=session.input_dtypes[port]
    )


def _answers(
    opened: Sequence[_Opened], files: Sequence[Path], truth: Truth, advance: Callable[[], None]
) -> list[_Answers]:
    parts: list[list[_Answers]] = [[] for _ in opened]
    for chunk in _chunks(files):
        pictures: dict[Contract, Array] = {}
        for each, found in zip(opened, parts, strict=True):
            how = _preprocessing(each.contestant.contract)
            if how not in pictures:
                pictures[how] = np.stack([read_image(file, how) for file in chunk])
            found.append(_ranked(each, as_fed(pictures[how], how, each.dtype), truth))
        for _ in chunk:
            advance()
    return [replace(found[0], ranked=np.concatenate([part.ranked for part in found])) for found in parts]


def _chunks(files: Sequence[Path]) -> Iterator[Sequence[Path]]:
    return (files[start : start + CHUNK] for start in range(0, len(files), CHUNK))


def _preprocessing(contract: Contract) -> Contract:
    """Return what decides how a picture is read, so that artifacts that read it alike share it."""
    return replace(contract, layout="NHWC", labels=(), output="logits", macs=None, recipe="float32", is_assumed=False)


def _ranked(each: _Opened, values: Array, truth: Truth) -> _Answers:
    contestant, path = each.contestant, each.contestant.path
    name, scores = next(iter(run_batches(each.session, {"image": values}, each.exterior).items()))
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise UsageError(f"{path}: output '{name}' of classes (N, 2 or more) was wanted; got {scores.shape}")
    outputs = scores.shape[1]
    offset = offset_of(truth, outputs, contestant.contract.labels, contestant.offset, str(path))
    return _Answers(ranked=np.argsort(-scores, axis=1, kind="stable")[:, :TOP] - offset, outputs=outputs, offset=offset)


def _result(each: _Opened, found: _Answers, first: _Answers, truth: Truth) -> Result:
    classes, predicted, count = truth.classes, found.ranked[:, 0], len(truth.classes)
    right, first_right = predicted == classes, first.ranked[:, 0] == classes
    wrong = Counter(zip(classes[~right].tolist(), predicted[~right].tolist(), strict=True))
    confusions = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    among = (found.ranked == classes[:, None]).any(axis=1)
    return Result(
        artifact=str(each.contestant.path),
        target=each.target,
        facts=each.session.facts,
        outputs=found.outputs,
        offset=found.offset,
        top1=wilson(int(right.sum()), count),
        top5=wilson(int(among.sum()), count) if found.outputs > TOP else None,
        agreement=wilson(int((predicted == first.ranked[:, 0]).sum()), count),
        against_first=mcnemar(int((first_right & ~right).sum()), int((right & ~first_right).sum())),
        right=dict(sorted(Counter(classes[right].tolist()).items())),
        confusions=tuple(Confusion(actual=a, predicted=p, count=n) for (a, p), n in confusions),
    )


def confusion_matrix(evaluation: Evaluation, result: Result) -> Array:
    """Return (classes, classes) shares of each true class (row), in the order of `evaluation.sizes`.

    An answer that is no class of the data has no column, so that a row may add up to less than 1.
    """
    place = {index: position for position, index in enumerate(evaluation.sizes)}
    found = np.zeros((len(place), len(place)))
    for index, count in result.right.items():
        found[place[index], place[index]] = count
    for each in result.confusions:
        if each.predicted in place:
            found[place[each.actual], place[each.predicted]] = each.count
    return np.asarray(found / np.array([[size] for size in evaluation.sizes.values()]))
