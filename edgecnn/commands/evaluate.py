"""`edgecnn evaluate`: how often artifacts are right on labelled images."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from edgecnn.charts import draw_confusion
from edgecnn.commands.model_options import force_option, json_option, target_option, threads_option
from edgecnn.commands.run import contract_of
from edgecnn.console import emit, progress, table
from edgecnn.contract import Contract
from edgecnn.errors import InputFileError, NotThereError, UsageError
from edgecnn.evaluate import TOP, Contestant, Evaluation, Result, confusion_matrix, evaluate
from edgecnn.extras import require
from edgecnn.instruction_set import describe, saturates
from edgecnn.labelled import read_labelled, settle
from edgecnn.outputs import refuse_existing, staged
from edgecnn.paired import Share
from edgecnn.probe import probe
from edgecnn.quantization.precision import parse_precision
from edgecnn.source import existing, format_of

MOST_ROWS = 12
"""Up to this many classes are shown one by one, and as a whole confusion matrix; of more, the worst."""

TELLING = 2
"""Where there are many classes, one with fewer images, or a confusion that occurred less often, says nothing."""

Item = TypeVar("Item")


@click.command("evaluate")
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    metavar="DIR|CSV",
    type=click.Path(path_type=Path),
    help="Labelled images: a folder with one sub-folder per class, or with pictures named CLASS_anything.jpg; or a CSV "
    "file of lines file,label.",
)
@click.option(
    "--labels",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Class names in output order, one a line; else the first contract's that has any.",
)
@click.option(
    "--class-offset",
    "offsets",
    multiple=True,
    type=click.IntRange(-1, 1),
    help="Output = class + offset: 1 where output 0 is a background class that the data do not have. Once, or once "
    "for each ARTIFACT.",
)
@click.option(
    "--contract",
    "contracts",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Contract (edgecnn.json) of artifacts that bring none. Once, or once for each ARTIFACT.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many images, spread evenly over all.")
@click.option(
    "--picture", metavar="FILE.png", type=click.Path(path_type=Path), help="Draw the confusion matrices into a file."
)
@target_option
@threads_option
@force_option
@json_option
def evaluate_command(
    *,
    artifacts: tuple[Path, ...],
    data: Path,
    labels: Path | None,
    offsets: tuple[int, ...],
    contracts: tuple[Path, ...],
    limit: int | None,
    picture: Path | None,
    target: str | None,
    threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Count how often each ARTIFACT is right on the same labelled images.

    Shares have Wilson's 95 % interval. Every artifact is compared with the first one, image by image: McNemar's exact
    test says whether the difference could be chance (a small p: hardly). The same class in the data and in the network
    is found by label, by number, or by the sorted order of names.
    """
    _check_picture(picture, force=force)
    contestants = _contestants(artifacts, contracts, offsets)
    images = read_labelled(data)
    known = (each.contract.labels for each in contestants)
    truth_labels = _label_file(labels) if labels else next(filter(None, known), ())
    images = images.limited(limit)
    truth = settle(images, truth_labels)
    probe(artifacts, target)
    with progress(f"evaluating {len(artifacts)} artifacts", len(images.files)) as advance:
        found = evaluate(contestants, images, truth, target=target, threads=threads, advance=advance)
    if picture is not None:
        with staged(picture.parent, [picture.name], force=force) as folder:
            draw_confusion(found, folder / picture.name)
    emit(to_data(found), lambda console: show(found, console), as_json=as_json)


def _check_picture(picture: Path | None, *, force: bool) -> None:
    """Refuse what could not be drawn at the end, before the work begins."""
    if picture is None:
        return
    if picture.suffix.lower() != ".png":
        raise UsageError(f"--picture: a file that ends in .png was wanted; got {picture}")
    require("matplotlib.figure", purpose="edgecnn evaluate --picture")
    refuse_existing([picture], force=force)


def _contestants(artifacts: Sequence[Path], contracts: Sequence[Path], offsets: Sequence[int]) -> list[Contestant]:
    given = _each(contracts, len(artifacts), "--contract")
    chosen = _each(offsets, len(artifacts), "--class-offset")
    return [
        Contestant(path=path, contract=_contract(path, contract), offset=offset)
        for path, contract, offset in zip(artifacts, given, chosen, strict=True)
    ]


def _contract(path: Path, given: Path | None) -> Contract:
    """Return how pixels become an artifact's input; its integers hold only what they were calibrated on."""
    stored, contract = format_of(existing(path)).read_contract(path), contract_of(path, given, "for evaluating")
    if stored is None or not parse_precision(stored.recipe).is_static:
        return contract
    for name in ("colour_order", "mean", "std"):
        wanted, found = getattr(stored, name), getattr(contract, name)
        if wanted != found:
            raise UsageError(
                f"{path}: pixels of {name} {wanted} were wanted, for which its integers were calibrated; {given} says "
                f"{found}. Quantize the float network again with that --contract, or leave it out."
            )
    return contract


def _each(values: Sequence[Item], count: int, option: str) -> list[Item | None]:
    """Return one value for each artifact, from none, one for all, or one for each."""
    if len(values) not in (0, 1, count):
        raise UsageError(
            f"{option}: once, or once for each of {count} artifacts was wanted; got it {len(values)} times"
        )
    return list(values) if len(values) == count else [values[0] if values else None] * count


def _label_file(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise NotThereError(f"{path}: a file with one class name a line was wanted; there is none.")
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise InputFileError(f"{path}: class names in UTF-8 were wanted: {error}") from None


def to_data(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation for JSON."""
    return {
        "images": found.images,
        "origin": found.origin,
        "classes_by": found.rule,
        "instruction_set": found.instruction_set,
        "saturates": saturates(found.instruction_set),
        "classes": [
            {"index": index, "label": found.labels[index], "images": size} for index, size in found.sizes.items()
        ],
        "artifacts": [
            {**asdict(result), "right": [result.right.get(index, 0) for index in found.sizes]}
            for result in found.results
        ],
    }


def show(found: Evaluation, console: Console) -> None:
    """Print an evaluation for people."""
    columns = ("<artifact", "<target", "<runtime", "top-1", f"top-{TOP}", "as the first", "-", "+", "p (McNemar)")
    console.print(table("", columns, [_row(result) for result in found.results]))
    console.print(f"{found.images} images of {len(found.sizes)} classes ({found.origin}), {found.rule}.")
    for result in found.results:
        if result.offset:
            console.print(f"{Path(result.artifact).name}: class k is output k {result.offset:+d}.")
    if len(found.results) > 1:
        console.print("-: images that only the first artifact has right; +: those that only this one has right.")
    console.print(describe(found.instruction_set))
    for drawn in (_class_table(found), *(_confusion_table(found, result) for result in found.results)):
        if drawn.row_count:
            console.print(drawn)


def _row(result: Result) -> tuple[object, ...]:
    paired = result.against_first
    return (
        Path(result.artifact).name,
        result.target,
        result.facts.runtime,
        show_share(result.top1),
        show_share(result.top5),
        show_share(result.agreement),
        "" if paired is None else paired.only_first,
        "" if paired is None else paired.only_second,
        "" if paired is None else f"{paired.p_value:.3g}",
    )


def show_share(share: Share | None) -> str:
    """Return a share with its interval for a table.

    >>> from edgecnn.paired import wilson
    >>> show_share(wilson(81, 263))
    '30.8% [25.5, 36.6]'
    """
    return "" if share is None else f"{share.value:.1%} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _class_table(found: Evaluation) -> Table:
    """Return top-1 of each class; of many classes, of those with which all artifacts together do worst."""
    right = {index: [result.right.get(index, 0) for result in found.results] for index in found.sizes}
    is_whole = len(right) <= MOST_ROWS
    telling = [index for index in right if is_whole or found.sizes[index] >= TELLING]
    order = telling if is_whole else sorted(telling, key=lambda index: sum(right[index]) / found.sizes[index])
    rows = [
        (found.labels[index], found.sizes[index], *(f"{count / found.sizes[index]:.1%}" for count in right[index]))
        for index in order[:MOST_ROWS]
    ]
    title = "Top-1 of each class" if is_whole else f"Top-1 of the worst {MOST_ROWS} of {len(right)} classes"
    return table(title, ("<class", "images", *(Path(result.artifact).name for result in found.results)), rows)


def _confusion_table(found: Evaluation, result: Result) -> Table:
    """Return the confusion matrix of few classes, or the pairs that are confused most often."""
    name, labels = Path(result.artifact).name, found.labels
    if len(found.sizes) > MOST_ROWS:
        worst = [each for each in result.confusions if each.count >= TELLING][:MOST_ROWS]
        pairs = [(labels[each.actual], labels[each.predicted], each.count) for each in worst]
        return table(f"Most confused by {name}", ("<class", "<taken for", "images"), pairs)
    names = [labels[index] for index in found.sizes]
    shares = confusion_matrix(found, result)
    rows = [(label, *(f"{share:.1%}" for share in row)) for label, row in zip(names, shares, strict=True)]
    return table(f"Answers of {name} (rows: the true class)", ("<class", *names), rows)
