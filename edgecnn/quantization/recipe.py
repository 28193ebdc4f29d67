"""A recipe: the precision of every layer, how ranges are chosen and which repairs are made; saved and read as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from edgecnn.errors import InputFileError, UnknownNameError, UsageError
from edgecnn.quantization.precision import Precision, parse_precision

SCHEMA_VERSION = 1

LARGEST_BYTES = 1 << 16
"""Of a recipe's file: hundreds of overrides, and no more than can be matched with every node."""

PortType = Literal["float32", "int8", "uint8"]
Correction = Literal["none", "analytic", "empirical"]
Rounding = Literal["nearest", "balanced", "error_feedback"]
Spread = Literal["channel", "tensor"]
Observer = Literal["min_max", "moving_average", "percentile", "entropy", "mean_squared_error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a network is quantized.

    Attributes:
        precision: Name of every layer's precision (see quantization.precision).
        overrides: (pattern of node names, precision) for layers that deviate; the first that fits holds. A pattern is
            a shell's: "head/*".
        io: Type of inputs and outputs. uint8 takes the bytes of a picture: the contract's normalisation is folded in.
        observer: How the range of an activation is chosen from what was seen.
        scales: One for each output channel of a convolution, or one for the whole kernel.
        rounding: Of weights: each to the nearest integer, so that the errors of a channel add up to nothing, or each
            making up for the errors of those before it on real inputs.
        bias_correction: Shifts biases by the mean error that rounded weights make: computed from mean inputs, or
            measured layer by layer behind layers that are quantized already.
        equalize: Whether weights are scaled between neighbouring layers first, so that channels have like weights.
        equalize_activations: Whether channels are scaled between layers first, so that they have like ranges.
        absorb_bias: Whether large biases are moved into the next layer's first.
        separate_ranges: Whether outputs that are concatenated and differ much in range are put together in float.
    """

    precision: str = "static_w8_a8"
    overrides: tuple[tuple[str, str], ...] = ()
    io: PortType = "float32"
    observer: Observer = "min_max"
    scales: Spread = "channel"
    rounding: Rounding = "balanced"
    bias_correction: Correction = "empirical"
    equalize: bool = False
    equalize_activations: bool = True
    absorb_bias: bool = False
    separate_ranges: bool = True

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"recipe: {name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}")
        kinds = {parse_precision(name).kind for name in (self.precision, *(name for _, name in self.overrides))}
        if "float16" in kinds and len(kinds) > 1:
            raise UsageError(
                "recipe: float16 is for a whole network; it was wanted beside others. Take weight_only_w8."
            )
        if self.io != "float32" and not parse_precision(self.precision).is_static:
            raise UsageError(f"recipe: inputs and outputs of {self.io} need a static precision; got {self.precision}")

    @property
    def name(self) -> str:
        """What artifacts are called by: the precision, or the first override's where all else stays float32."""
        return next(
            (name for name in (self.precision, *(name for _, name in self.overrides)) if name != "float32"), "float32"
        )

    @property
    def default(self) -> Precision:
        """The precision of every layer that no override names."""
        return parse_precision(self.precision)

    @property
    def is_static(self) -> bool:
        """Tell whether any layer needs a calibration."""
        return any(parse_precision(name).is_static for name in (self.precision, *(name for _, name in self.overrides)))

    def precision_of(self, node: str) -> Precision:
        """Return the precision of a node."""
        fitting = (name for pattern, name in self.overrides if fnmatchcase(node, pattern))
        return parse_precision(next(fitting, self.precision))

    def refuse_unmatched(self, nodes: Iterable[str]) -> None:
        """Raise UnknownNameError when an override fits no node, which a misspelt pattern does."""
        names = list(nodes)
        for pattern, _ in self.overrides:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = get_close_matches(pattern, names, n=1)
                meant = f" Did you mean '{near[0]}'?" if near else " `edgecnn cost` lists the layers."
                raise UnknownNameError(f"recipe: a pattern of node names was wanted; '{pattern}' fits none.{meant}")

    def to_json(self) -> str:
        """Return the recipe as JSON."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"


CHOICES: dict[str, tuple[str, ...]] = {
    "io": get_args(PortType),
    "observer": get_args(Observer),
    "scales": get_args(Spread),
    "rounding": get_args(Rounding),
    "bias_correction": get_args(Correction),
}

FLAGS = ("equalize", "equalize_activations", "absorb_bias", "separate_ranges")


def load_recipe(text: str) -> Recipe:
    """Return the recipe of a precision's name, or of a .json file that `Recipe.to_json` wrote.

    Raises:
        UsageError: When it is neither.
        InputFileError: When the file is damaged, or of another schema version.
    """
    if not text.endswith(".json"):
        return Recipe(precision=text)
    path = Path(text)
    if not path.is_file():
        raise UsageError(f"{path}: a recipe was wanted; there is no such file")
    if path.stat().st_size > LARGEST_BYTES:
        raise InputFileError(f"{path}: a recipe of at most {LARGEST_BYTES} bytes was wanted; this has more")
    try:
        return _parsed(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputFileError(f"{path}: a recipe cannot be read from it: {error}") from None


def _parsed(data: Any) -> Recipe:
    """Return the recipe in JSON's objects; UsageErrors are ValueErrors of no other kind here."""
    if not isinstance(data, dict) or data.pop("schema_version", None) != SCHEMA_VERSION:
        raise ValueError(f"an object of schema_version {SCHEMA_VERSION} was wanted")
    unknown = sorted(data.keys() - {field.name for field in fields(Recipe)})
    if unknown:
        raise ValueError(f"the field '{unknown[0]}' is not known")
    wrong = [name for name, value in data.items() if not _is_typed(name, value)]
    if wrong:
        raise TypeError(f"{wrong[0]} has the wrong type: {data[wrong[0]]!r}")
    overrides = tuple((pattern, name) for pattern, name in data.pop("overrides", ()))
    try:
        return Recipe(overrides=overrides, **data)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _is_typed(name: str, value: object) -> bool:
    if name == "overrides":
        return isinstance(value, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in value
        )
    return isinstance(value, bool if name in FLAGS else str)
