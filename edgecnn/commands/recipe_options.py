"""Options that make a recipe, and what a user asks for with them."""

from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from edgecnn.commands.calibration_data import CalibrationData
from edgecnn.commands.model_options import Command
from edgecnn.errors import UsageError
from edgecnn.extras import require
from edgecnn.outputs import refuse_existing, staged
from edgecnn.quantization.precision import USUAL
from edgecnn.quantization.recipe import Correction, Observer, PortType, Recipe, Rounding, Spread, load_recipe

CALIBRATION_IMAGES = 100
"""That ranges are taken from unless told otherwise; they have settled by then on every network that was tried."""

RECIPE_FIELDS = tuple(field.name for field in fields(Recipe) if field.name not in ("precision", "overrides"))
"""Options of a recipe's name; one that is left out keeps what the recipe says."""

RANGED_FIELDS = tuple(field for field in RECIPE_FIELDS if field != "scales")
"""Those that only layers look at whose activations are integers."""

PATHS = ("evaluation", "save", "picture")

OPTIONS = (
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
    click.option("--rounding", type=click.Choice(get_args(Rounding)), help="How weights are rounded."),
    click.option("--bias-correction", type=click.Choice(get_args(Correction)), help="How biases are corrected."),
    click.option("--equalize/--no-equalize", default=None, help="Even out weights between neighbouring layers."),
    click.option(
        "--equalize-activations/--no-equalize-activations",
        default=None,
        help="Even out the ranges of channels between layers.",
    ),
    click.option("--absorb-bias/--no-absorb-bias", default=None, help="Move large biases into the next layer."),
    click.option("--separate-ranges/--no-separate-ranges", default=None, help="Concatenate unlike outputs in float."),
    click.option(
        "--calibration-images",
        "images",
        type=click.IntRange(1),
        default=CALIBRATION_IMAGES,
        show_default=True,
        help="Of --data that ranges are taken from, at most.",
    ),
    click.option(
        "--evaluation", metavar="DIR", help="Images that accuracy will be measured on: none may be in --data."
    ),
    click.option("--random-data", "is_random", is_flag=True, help="Calibrate on random numbers, for trying only."),
    click.option("--ignore-lint", "is_lenient", is_flag=True, help="Take images that contradict the contract."),
    click.option("--save-recipe", "save", metavar="FILE.json", help="Write the recipe as JSON."),
    click.option("--picture", metavar="FILE.png", help="Draw the error of every layer (quantized artifacts)."),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantizing:
    """What a user asks for.

    Attributes:
        recipe: With every option applied.
        images: To calibrate on, at most.
        evaluation: Folder of images that accuracy will be measured on, or None.
        is_random: Whether random numbers may stand for them.
        is_lenient: Whether images that contradict the contract are taken all the same.
        save: Where the recipe is written as JSON, or None.
        picture: Where the errors of all layers are drawn, or None.
    """

    recipe: Recipe
    images: int
    evaluation: Path | None
    is_random: bool
    is_lenient: bool
    save: Path | None
    picture: Path | None

    def refuse(self, *, force: bool, is_measured: bool) -> None:
        """Refuse what could not be written at the end, before the work begins.

        Args:
            force: Whether existing files may be replaced.
            is_measured: Whether there will be errors to draw.
        """
        for option, path, suffix in (("--save-recipe", self.save, ".json"), ("--picture", self.picture, ".png")):
            if path is not None and path.suffix.lower() != suffix:
                raise UsageError(f"{option}: a file that ends in {suffix} was wanted; got {path}")
        if self.picture is not None:
            if not self.recipe.is_static:
                raise UsageError(f"--picture: layers of integers were wanted; {self.recipe.precision} has none to draw")
            if not is_measured:
                raise UsageError("--picture: there is nothing to draw with --no-verify. Leave one of them out.")
            require("matplotlib.figure", purpose="--picture")
        refuse_existing([path for path in (self.save, self.picture) if path is not None], force=force)

    @contextmanager
    def files(self, *, force: bool) -> Iterator[Path | None]:
        """Yield where the picture is drawn, or None; it and the recipe appear when the block ends well."""
        with ExitStack() as stack:
            recipe, picture = (
                None if path is None else stack.enter_context(staged(path.parent, [path.name], force=force)) / path.name
                for path in (self.save, self.picture)
            )
            yield picture
            if recipe is not None:
                recipe.write_text(self.recipe.to_json(), encoding="utf-8")

    def data(self, folder: str | None) -> CalibrationData | None:
        """Return what a recipe is calibrated on, or None where it needs nothing.

        Args:
            folder: With real images.

        Raises:
            UsageError: When it needs images and there are none.
        """
        if not self.recipe.is_static:
            return None
        if not self.is_random and folder is None:
            raise UsageError(
                f"--data: a folder with real images was wanted to calibrate {self.recipe.precision} on: 100 or so of "
                "what the network will see. --random-data takes random numbers, which are not fit for use."
            )
        folder_or_none = None if self.is_random else Path(str(folder))
        return CalibrationData(folder_or_none, self.images, evaluation=self.evaluation, is_lenient=self.is_lenient)


def recipe_options(default: str) -> Callable[[Command], Command]:
    """Add the options of a recipe; the command gets one record: `quantizing`.

    Args:
        default: The precision where the user names none.
    """
    named = click.option(
        "--recipe",
        "name",
        default=default,
        show_default=True,
        metavar="NAME|FILE.json",
        help=f"Precision: {', '.join(USUAL)}; or a recipe that --save-recipe wrote.",
    )

    def add(command: Command) -> Command:
        decorated = _with_record(command)
        for option in reversed((named, *OPTIONS)):
            decorated = option(decorated)
        return decorated

    return add


def _with_record(command: Command) -> Command:
    """Return a command that makes one record of all these options: `quantizing`."""

    @wraps(command)
    def with_record(*, name: str, layers: tuple[str, ...], **arguments: Any) -> Any:
        asked = {field: arguments.pop(field) for field in RECIPE_FIELDS}
        changed = {field: value for field, value in asked.items() if value is not None}
        loaded = load_recipe(name)
        recipe = replace(loaded, overrides=(*map(_override, layers), *loaded.overrides), **changed)
        _refuse_idle(recipe, changed)
        paths = {each: Path(path) if (path := arguments.pop(each)) else None for each in PATHS}
        record = Quantizing(
            recipe=recipe,
            images=arguments.pop("images"),
            is_random=arguments.pop("is_random"),
            is_lenient=arguments.pop("is_lenient"),
            **paths,
        )
        return command(quantizing=record, **arguments)

    return with_record


def _override(text: str) -> tuple[str, str]:
    pattern, equals, precision = text.rpartition("=")
    if not equals or not pattern:
        raise UsageError(f"--layer: PATTERN=PRECISION was wanted; got {text!r}")
    return pattern, precision


def _refuse_idle(recipe: Recipe, asked: Container[str]) -> None:
    """Refuse options that a recipe without ranges would not look at."""
    idle = [field for field in RANGED_FIELDS if field in asked]
    if idle and not recipe.is_static:
        option = idle[0].replace("_", "-")
        raise UsageError(f"--{option}: a static recipe was wanted, which has ranges; got {recipe.precision}")
