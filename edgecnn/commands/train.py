"""`edgecnn train`: a network trained on labelled images."""

from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edgecnn import registry
from edgecnn.commands.build import output_path
from edgecnn.commands.model_options import Command, force_option, json_option, model_options
from edgecnn.commands.verify import assumption
from edgecnn.console import emit, message, progress, table
from edgecnn.errors import UsageError
from edgecnn.models.build import ZooOptions
from edgecnn.outputs import staged
from edgecnn.passes import remove_auxiliary_heads
from edgecnn.source import load_model
from edgecnn.training.augmentation import Augmentation
from edgecnn.training.datasets import DIGITS, label_names, load_dataset
from edgecnn.training.fit import Trained, check_trainable
from edgecnn.training.fit import train as train_graph
from edgecnn.training.head import with_new_head

AUGMENTATION_OPTIONS = (
    click.option(
        "--shift", type=float, default=0.0, show_default=True, help="Move images at random by up to this share."
    ),
    click.option("--rotate", type=float, default=0.0, show_default=True, help="Turn them by up to so many degrees."),
    click.option("--mirror", is_flag=True, help="Mirror half of them left to right."),
)


def augmentation_options(command: Command) -> Command:
    """Add the options of random changes to a command, which gets them as one record: `augmentation`."""

    @wraps(command)
    def with_record(*, shift: float, rotate: float, mirror: bool, **arguments: Any) -> Any:
        return command(augmentation=Augmentation(shift=shift, rotation_degrees=rotate, mirror=mirror), **arguments)

    for option in reversed(AUGMENTATION_OPTIONS):
        with_record = option(with_record)
    return with_record


@click.command()
@click.argument("model")
@click.option(
    "--data", default=DIGITS, show_default=True, metavar="digits|DIR", help="DIR has one sub-folder per class."
)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Passes over the images.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images per step.")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True, help="At the start; it decays to zero.")
@augmentation_options
@click.option(
    "--new-head", is_flag=True, help="Replace the classifier by a fresh one for the classes of --data (files too)."
)
@click.option("--head-only", is_flag=True, help="Train the classifier alone; what comes before it stays as it is.")
@click.option("-o", "--output", metavar="FILE.keras", help="Where to write it; else MODEL.keras.")
@model_options
@force_option
@json_option
def train(
    *,
    model: str,
    data: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    augmentation: Augmentation,
    new_head: bool,
    head_only: bool,
    output: str | None,
    options: ZooOptions,
    force: bool,
    as_json: bool,
) -> None:
    """Train MODEL on labelled images and write it as a .keras file.

    A fifth of each class is held out; the accuracy on it is printed. --seed decides the first weights, what is held out
    and the order of the images. Auxiliary heads are trained along and left out of the file.

    A network from a file (edgecnn convert FILE --to keras) goes on learning its own classes, or with --new-head the
    ones of --data: best the head alone first (--head-only), then, if need be, all of it with --learning-rate 1e-4.
    """
    labels = label_names(data)
    graph = load_model(model, _options(model, options, data, len(labels)), report=message)
    if new_head:
        graph = with_new_head(graph, len(labels), seed=options.seed)
    check_trainable(graph, len(labels))
    if graph.contract is None:
        raise UsageError(f"{model}: a contract was wanted; the network has none.")
    if graph.contract.is_assumed:
        message(assumption(graph.contract, "for training and from then on"))
    path = output_path(output, graph.name)
    door = registry.load("converters", "keras")
    with staged(path.parent, [path.name], force=force) as scratch:
        dataset = load_dataset(data, graph.contract, seed=options.seed)
        with progress(f"training {graph.name} on {dataset.origin}", epochs) as advance:
            trained = train_graph(
                graph,
                dataset,
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                seed=options.seed,
                augmentation=augmentation,
                head_only=head_only,
                report=lambda epoch: advance(),
            )
        door.write(remove_auxiliary_heads.PASS(trained.graph).graph, scratch / path.name)
    emit(_as_data(trained, path), lambda console: _show(console, trained, path), as_json=as_json)


def _options(model: str, options: ZooOptions, data: str, classes: int) -> ZooOptions:
    """Return the zoo options with what the data set decides where the user did not; a file takes none but the seed."""
    if model not in registry.entries("models"):
        return replace(options, seed=ZooOptions().seed)
    in_channels = 1 if data == DIGITS else None
    return replace(options, classes=options.classes or classes, in_channels=options.in_channels or in_channels)


def _as_data(trained: Trained, path: Path) -> dict[str, Any]:
    return {
        "model": trained.graph.name,
        "path": str(path),
        "accuracy": trained.accuracy,
        "test_images": trained.test_images,
        "history": [asdict(epoch) for epoch in trained.history],
    }


def _show(console: Console, trained: Trained, path: Path) -> None:
    rows = [(epoch.number, f"{epoch.loss:.4f}", f"{epoch.accuracy:.1%}") for epoch in trained.history]
    console.print(table(f"Training {trained.graph.name}", ("epoch", "loss", "accuracy"), rows))
    console.print(f"\nAccuracy on {trained.test_images} held-out images: {trained.accuracy:.1%}")
    console.print(f"Written: {path}", soft_wrap=True)
