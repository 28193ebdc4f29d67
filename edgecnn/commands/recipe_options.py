"""Options that make a recipe, and those that say what it is calibrated on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from edgecnn.commands.model_options import Command
from edgecnn.errors import UsageError
from edgecnn.feeding import load_feeds
from edgecnn.graph import Array, Graph
from edgecnn.quantization.precision import USUAL
from edgecnn.quantization.quantize import Samples
from edgecnn.quantization.recipe import Correction, Observer, PortType, Recipe, Spread, load_recipe
from edgecnn.quantization.samples import image_batches, random_batches

CALIBRATION_IMAGES = 100
"""That ranges are taken from unless told otherwise; they have settled by then on every network that was tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantizing:
    """What a user asks for.

    Attributes:
        recipe: With every option applied.
        images: To calibrate on, at most.
        is_random: Whether random numbers may stand for them.
        save: Where the recipe is written as JSON, or None.
    """

    recipe: Recipe
    images: int
    is_random: bool
    save: Path | None

    def samples(self, data: str | None) -> Samples | None:
        """Return what a recipe is calibrated on, or None where it needs nothing.

        Args:
            data: Folder with real images.

        Raises:
            UsageError: When it needs images and there are none.
        """
        if not self.recipe.is_static:
            return None
        if self.is_random:
            return Samples(batches=self._random, origin="random numbers", is_random=True)
        if data is None:
            raise UsageError(
                f"--data: a folder with real images was wanted to calibrate {self.recipe.precision} on: 100 or so of "
                "what the network will see. --random-data takes random numbers, which are not fit for use."
            )
        return Samples(batches=lambda graph: self._pictures(graph, Path(data)), origin=data)

    def _random(self, graph: Graph) -> Iterable[Mapping[str, Array]]:
        return random_batches(graph, count=self.images, seed=0)

    def _pictures(self, graph: Graph, folder: Path) -> Iterable[Mapping[str, Array]]:
        """Return pictures as a stream; those of several inputs, or of none that is a picture, as other commands do."""
        if graph.contract is None or len(graph.inputs) != 1:
            return [load_feeds(graph, graph.contract, folder, limit=self.images).values]
        return image_batches(folder, graph.contract, port=graph.inputs[0].name, limit=self.images)


def recipe_options(default: str) -> Callable[[Command], Command]:
    """Add the options of a recipe; the command gets one record: `quantizing`.

    Args:
        default: The precision where the user names none.
    """
    options = (
        click.option(
            "--recipe",
            "name",
            default=default,
            show_default=True,
            metavar="NAME|FILE.json",
            help=f"Precision: {', '.join(USUAL)}; or a recipe that --save-recipe wrote.",
        ),
        click.option(
            "--layer",
            "layers",
            multiple=True,
            metavar="PATTERN=NAME",
            help="Another precision for the nodes of a name, such as 'head/*=float32'; the first that fits holds.",
        ),
        click.option("--io", type=click.Choice(get_args(PortType)), help="Type of inputs and outputs; uint8: bytes."),
        click.option("--observer", type=click.Choice(get_args(Observer)), help="How ranges are chosen."),
        click.option("--scales", type=click.Choice(get_args(Spread)), help="Of kernels: one per channel or one."),
        click.option("--bias-correction", type=click.Choice(get_args(Correction)), help="How biases are corrected."),
        click.option("--equalize/--no-equalize", default=None, help="Even out weights between neighbouring layers."),
        click.option("--absorb-bias/--no-absorb-bias", default=None, help="Move large biases into the next layer."),
        click.option(
            "--separate-ranges/--no-separate-ranges", default=None, help="Concatenate unlike outputs in float."
        ),
        click.option("--calibration-images", "images", type=click.IntRange(1), default=CALIBRATION_IMAGES),
        click.option("--random-data", "is_random", is_flag=True, help="Calibrate on random numbers, for trying only."),
        click.option("--save-recipe", "save", metavar="FILE.json", help="Write the recipe as JSON."),
    )

    def add(command: Command) -> Command:
        @wraps(command)
        def with_record(
            *,
            name: str,
            layers: tuple[str, ...],
            images: int,
            is_random: bool,
            save: str | None,
            io: PortType | None,
            observer: Observer | None,
            scales: Spread | None,
            bias_correction: Correction | None,
            equalize: bool | None,
            absorb_bias: bool | None,
            separate_ranges: bool | None,
            **arguments: Any,
        ) -> Any:
            given: dict[str, Any] = {
                "io": io,
                "observer": observer,
                "scales": scales,
                "bias_correction": bias_correction,
                "equalize": equalize,
                "absorb_bias": absorb_bias,
                "separate_ranges": separate_ranges,
                "overrides": tuple(map(_override, layers)) or None,
            }
            changed = {key: value for key, value in given.items() if value is not None}
            recipe = replace(load_recipe(name), **changed)
            record = Quantizing(recipe=recipe, images=images, is_random=is_random, save=Path(save) if save else None)
            return command(quantizing=record, **arguments)

        decorated: Command = with_record
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return add


def _override(text: str) -> tuple[str, str]:
    pattern, equals, precision = text.rpartition("=")
    if not equals or not pattern:
        raise UsageError(f"--layer: PATTERN=PRECISION was wanted; got {text!r}")
    return pattern, precision
