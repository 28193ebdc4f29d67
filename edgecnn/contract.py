"""The contract: what an app must know to feed a network and to read its outputs.

It is made with the model, travels inside every artifact as JSON (TFLite metadata, ONNX metadata_props, OpenVINO
rt_info, a member of the .keras file) under the key CONTRACT_KEY, and is what run, verify and bench feed images by.
"""

import json
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, Literal, get_args

from edgecnn.errors import InputFileError, UsageError
from edgecnn.quantization.precision import parse_precision

CONTRACT_KEY = "edgecnn.contract"
SCHEMA_VERSION = 1

ColourOrder = Literal["RGB", "BGR", "GRAY"]
ResizeRule = Literal["stretch", "center_crop"]
Layout = Literal["NHWC", "NCHW"]
Meaning = Literal["logits", "probabilities", "features"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """How pixels become the input, and what the output means.

    A pixel p in 0..255 enters as (p - mean[c]) / std[c], in this colour order.

    Attributes:
        height: Input height in pixels.
        width: Input width in pixels.
        colour_order: Of the channels; GRAY has one.
        mean: Subtracted from each channel's pixels, in 0..255.
        std: Each channel is divided by it afterwards.
        resize: "stretch" scales the whole image; "center_crop" takes the centred square (of the output's aspect ratio)
            that covers `crop_fraction` of the image first.
        crop_fraction: Share of the largest centred crop that is kept, in (0, 1].
        interpolation: Always "bilinear" with antialiasing, as Pillow does it.
        layout: Order of the input's axes in this artifact.
        output: What the first output holds.
        labels: Class names in output order, or empty.
        recipe: Precision of the artifact, such as "float16" or "static_w8_a8"; see quantization.precision.
        calibration: What the ranges of a quantized artifact were taken from, such as "100 images of photos"; it says so
            where they came from random numbers. Empty where nothing was calibrated.
        macs: Multiply-accumulates for one image, for reports; None where they were not counted.
        is_assumed: True when the source carried no contract and this is only a guess.
    """

    height: int
    width: int
    colour_order: ColourOrder = "RGB"
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (127.5, 127.5, 127.5)
    resize: ResizeRule = "center_crop"
    crop_fraction: float = 0.875
    interpolation: Literal["bilinear"] = "bilinear"
    layout: Layout = "NHWC"
    output: Meaning = "logits"
    labels: tuple[str, ...] = ()
    recipe: str = "float32"
    calibration: str = ""
    macs: int | None = None
    is_assumed: bool = False

    def __post_init__(self) -> None:
        channels = self.channels
        wanted = {
            "height and width": self.height > 0 and self.width > 0,
            "mean": len(self.mean) == channels and all(map(isfinite, self.mean)),
            "std": len(self.std) == channels and all(isfinite(value) and value > 0 for value in self.std),
            "crop_fraction": 0 < self.crop_fraction <= 1,
        }
        parse_precision(self.recipe)
        wrong = [name for name, holds in wanted.items() if not holds]
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"contract: {name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}")
        if wrong:
            raise UsageError(
                f"contract: {wrong[0]} must fit {channels} channel(s), be finite and (but for mean) positive; "
                f"got height={self.height}, width={self.width}, mean={self.mean}, std={self.std}, "
                f"crop_fraction={self.crop_fraction}"
            )

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return 1 if self.colour_order == "GRAY" else 3

    @property
    def input_range(self) -> tuple[float, float]:
        """Smallest and largest input that a picture can give.

        >>> Contract(height=224, width=224).input_range
        (-1.0, 1.0)
        """
        pairs = list(zip(self.mean, self.std, strict=True))
        return min(-m / s for m, s in pairs), max((255 - m) / s for m, s in pairs)

    def label(self, index: int) -> str:
        """Return a class name, or its number where the contract has no labels."""
        return self.labels[index] if index < len(self.labels) else str(index)

    def to_json(self) -> str:
        """Return the contract as one line of JSON with sorted keys."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, sort_keys=True)


CHOICES: dict[str, tuple[str, ...]] = {
    "colour_order": get_args(ColourOrder),
    "resize": get_args(ResizeRule),
    "layout": get_args(Layout),
    "output": get_args(Meaning),
    "interpolation": ("bilinear",),
}


KINDS: dict[str, tuple[type, ...]] = {
    "height": (int,),
    "macs": (int, type(None)),
    "width": (int,),
    "crop_fraction": (int, float),
    "is_assumed": (bool,),
}
"""Fields that are no text and no list -> the types that JSON may have for them."""


def parse_contract(text: str | bytes, where: str) -> Contract:
    """Read a contract that came from outside.

    Args:
        text: JSON.
        where: The file it came from, for the error.

    Raises:
        InputFileError: When it is no JSON, has another schema version, or its fields have wrong types or values.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("a JSON object was wanted; see docs/contract.md")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputFileError(f"{where}: a contract of schema_version {SCHEMA_VERSION} was wanted; got {version!r}")
        if not {"height", "width"} <= data.keys():
            raise ValueError("height and width were wanted; see docs/contract.md")
        known = {field.name for field in fields(Contract)}
        return Contract(**{name: _typed(name, value) for name, value in data.items() if name in known})
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"{where}: its contract cannot be read: {error}") from None


def _typed(name: str, value: Any) -> Any:
    if name in ("mean", "std", "labels"):
        kinds = (str,) if name == "labels" else (int, float)
        if not isinstance(value, list) or any(type(item) not in kinds for item in value):
            raise TypeError(f"{name} has the wrong type: {value!r}")
        return tuple(value) if name == "labels" else tuple(map(float, value))
    if type(value) not in KINDS.get(name, (str,)):
        raise TypeError(f"{name} has the wrong type: {value!r}")
    return value


def assumed_contract(height: int, width: int, channels: int, *, output: Meaning = "logits") -> Contract:
    """Return the contract that is assumed for a model that brings none: RGB (or grey) scaled to -1..1.

    Raises:
        UsageError: When the input does not look like an image of 1 or 3 channels.
    """
    if channels not in (1, 3):
        raise UsageError(f"a contract needs an image input of 1 or 3 channels; got {channels}")
    return Contract(
        height=height,
        width=width,
        colour_order="GRAY" if channels == 1 else "RGB",
        mean=(127.5,) * channels,
        std=(127.5,) * channels,
        output=output,
        is_assumed=True,
    )
