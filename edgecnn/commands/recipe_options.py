"""Options that make a recipe, and those that say what it is calibrated on."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

from edgecnn.commands.model_options import Command
from edgecnn.errors import UsageError
from edgecnn.extras import require
from edgecnn.feeding import load_feeds
from edgecnn.graph import Array, Graph
from edgecnn.outputs import refuse_existing, staged
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.image_checks import Finding
from edgecnn.quantization.lint import Inspection
from edgecnn.quantization.precision import USUAL
from edgecnn.quantization.quantize import Samples
from edgecnn.quantization.recipe import Correction, Observer, PortType, Recipe, Rounding, Spread, load_recipe
from edgecnn.quantization.samples import image_batches, random_batches, read_samples, samples
from edgecnn.vision.photographs import MINIMUM

CALIBRATION_IMAGES = 100
"""That ranges are taken from unless told otherwise; they have settled by then on every network that was tried."""


RECIPE_FIELDS = (
    "io",
    "observer",
    "scales",
    "rounding",
    "bias_correction",
    "equalize",
    "equalize_activations",
    "absorb_bias",
    "separate_ranges",
)
"""Options of a recipe's name; one that is left out keeps what the recipe says."""

RANGED_FIELDS = tuple(field for field in RECIPE_FIELDS if field != "scales")
"""Those that only layers look at whose activations are integers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantizing:
    """What a user asks for.

    Attributes:
        recipe: With every option applied.
        images: To calibrate on, at most.
        is_random: Whether random numbers may stand for them.
        is_lenient: Whether images that contradict the contract are taken all the same.
        save: Where the recipe is written as JSON, or None.
        picture: Where the errors of all layers are drawn, or None.
    """

    recipe: Recipe
    images: int
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

    def data(self, folder: str | None) -> "CalibrationData | None":
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
        return CalibrationData(folder_or_none, self.images, is_lenient=self.is_lenient)


class CalibrationData:
    """Images, or random numbers, that ranges are taken from; pictures are looked at as they pass."""

    def __init__(self, folder: Path | None, images: int, *, is_lenient: bool = False) -> None:
        """Read nothing yet.

        Args:
            folder: With real images; None for random numbers.
            images: At most.
            is_lenient: Whether images that contradict the contract are taken all the same.
        """
        self.folder, self.images, self._is_lenient = folder, images, is_lenient
        self._inspection: Inspection | None = None

    @property
    def samples(self) -> Samples:
        """What a calibration takes."""
        origin = "random numbers" if self.folder is None else str(self.folder)
        return Samples(batches=self._batches, origin=origin, is_random=self.folder is None, judge=self._judge)

    def _judge(self, calibration: Calibration) -> None:
        """Refuse images from which the ranges come out wrong."""
        wrong = [each for each in self.findings(calibration) if each.severity == "error"]
        if wrong and not self._is_lenient:
            raise UsageError(f"{self.folder}: {wrong[0].message} --ignore-lint takes them all the same.")

    def findings(self, calibration: Calibration | None) -> tuple[Finding, ...]:
        """Return what is wrong with the images that were seen."""
        return () if self._inspection is None else self._inspection.findings(None, calibration)

    def others(self, graph: Graph, limit: int) -> tuple[dict[str, Array], str]:
        """Return images that ranges were not taken from, as far as the folder has them, and what to call them.

        Args:
            graph: Which they are for.
            limit: How many.
        """
        contract = graph.contract
        if self.folder is None or contract is None or len(graph.inputs) != 1:
            feeds = load_feeds(graph, contract, self.folder, limit=limit)
            return feeds.values, feeds.origin
        taken = set(samples(self.folder, contract, limit=self.images))
        rest = [each for each in samples(self.folder, contract) if each not in taken]
        chosen = rest[:: max(1, len(rest) // limit)][:limit]
        if len(chosen) < MINIMUM:
            chosen = samples(self.folder, contract, limit=limit)
        what = "calibrated on, too: the folder has too few others" if taken.issuperset(chosen) else "not calibrated on"
        return {graph.inputs[0].name: np.stack(list(read_samples(chosen, contract)))}, f"{len(chosen)} images, {what}"

    def _batches(self, graph: Graph) -> Iterable[Mapping[str, Array]]:
        """Return inputs as a stream; those of several ports, or of none that is a picture, as other commands do."""
        if self.folder is None:
            return random_batches(graph, count=self.images, seed=0)
        contract = graph.contract
        if contract is None or len(graph.inputs) != 1:
            return [load_feeds(graph, contract, self.folder, limit=self.images).values]
        self._inspection = self._inspection or Inspection(contract)
        name, watch = graph.inputs[0].name, self._inspection.add
        return image_batches(self.folder, contract, port=name, limit=self.images, watch=watch)


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
        click.option("--rounding", type=click.Choice(get_args(Rounding)), help="How weights are rounded."),
        click.option("--bias-correction", type=click.Choice(get_args(Correction)), help="How biases are corrected."),
        click.option("--equalize/--no-equalize", default=None, help="Even out weights between neighbouring layers."),
        click.option(
            "--equalize-activations/--no-equalize-activations",
            default=None,
            help="Even out the ranges of channels between layers.",
        ),
        click.option("--absorb-bias/--no-absorb-bias", default=None, help="Move large biases into the next layer."),
        click.option(
            "--separate-ranges/--no-separate-ranges", default=None, help="Concatenate unlike outputs in float."
        ),
        click.option(
            "--calibration-images",
            "images",
            type=click.IntRange(1),
            default=CALIBRATION_IMAGES,
            show_default=True,
            help="Of --data that ranges are taken from, at most.",
        ),
        click.option("--random-data", "is_random", is_flag=True, help="Calibrate on random numbers, for trying only."),
        click.option("--ignore-lint", "is_lenient", is_flag=True, help="Take images that contradict the contract."),
        click.option("--save-recipe", "save", metavar="FILE.json", help="Write the recipe as JSON."),
        click.option("--picture", metavar="FILE.png", help="Draw the error of every layer (quantized artifacts)."),
    )

    def add(command: Command) -> Command:
        @wraps(command)
        def with_record(*, name: str, layers: tuple[str, ...], **arguments: Any) -> Any:
            asked = {field: arguments.pop(field) for field in RECIPE_FIELDS}
            changed = {field: value for field, value in asked.items() if value is not None}
            loaded = load_recipe(name)
            recipe = replace(loaded, overrides=(*map(_override, layers), *loaded.overrides), **changed)
            _refuse_idle(recipe, changed)
            paths = {each: Path(path) if (path := arguments.pop(each)) else None for each in ("save", "picture")}
            record = Quantizing(
                recipe=recipe,
                images=arguments.pop("images"),
                is_random=arguments.pop("is_random"),
                is_lenient=arguments.pop("is_lenient"),
                save=paths["save"],
                picture=paths["picture"],
            )
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


def _refuse_idle(recipe: Recipe, asked: Container[str]) -> None:
    """Refuse options that a recipe without ranges would not look at."""
    idle = [field for field in RANGED_FIELDS if field in asked]
    if idle and not recipe.is_static:
        option = idle[0].replace("_", "-")
        raise UsageError(f"--{option}: a static recipe was wanted, which has ranges; got {recipe.precision}")
