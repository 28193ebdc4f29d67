"""Names of precisions and what they mean: `static_w8_a8` is read as kind, bits of weights, bits of activations.

    float32                 nothing is rounded
    float16                 constants are stored as float16, arithmetic stays float32
    weight_only_w<bits>     constants of layers are integers, turned into float32 before they are used
    dynamic_w<bits>         the same integers; the runtime quantizes activations as they come (TFLite, ONNX)
    static_w<bits>_a<bits>  weights and activations are integers whose scales a calibration fixed

Weights have 2 to 8 bits and are stored as int8; 7 keep 8-bit products from saturating on x86 without VNNI. Activations
have 8 or 16.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from edgecnn.errors import UsageError

Kind = Literal["float32", "float16", "weight_only", "dynamic", "static"]

PATTERN = re.compile(r"(float32|float16)|(weight_only|dynamic)_w([2-8])|(static)_w([2-8])_a(8|16)")

USUAL = ("float32", "float16", "dynamic_w8", "weight_only_w8", "static_w8_a8", "static_w8_a16")
"""The names that help texts list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """A decoded name.

    Attributes:
        name: Such as "static_w8_a8".
        kind: What is quantized.
        weight_bits: Of a layer's constants; None where they are float.
        activation_bits: Of what flows between layers; None where it is float or quantized by the runtime.
    """

    name: str
    kind: Kind
    weight_bits: int | None = None
    activation_bits: int | None = None

    @property
    def is_static(self) -> bool:
        """Tell whether a calibration is needed."""
        return self.kind == "static"

    @property
    def activation_dtype(self) -> str:
        """NumPy name of the type that activations are stored in."""
        return {8: "int8", 16: "int16"}.get(self.activation_bits or 0, "float32")

    @property
    def weight_limit(self) -> int:
        """The largest integer of a weight; the smallest is its opposite."""
        return int(2 ** ((self.weight_bits or 8) - 1)) - 1


def parse_precision(name: str) -> Precision:
    """Decode a name.

    >>> parse_precision("static_w8_a16").activation_bits
    16

    Raises:
        UsageError: When it is none of the names above.
    """
    found = PATTERN.fullmatch(name)
    if found is None:
        raise UsageError(f"recipe: one of {', '.join(USUAL)} (w2 to w8, a8 or a16) was wanted; got {name!r}")
    whole, some, some_bits, static, weight_bits, activation_bits = found.groups()
    kind: Any = whole or some or static
    bits = some_bits or weight_bits
    return Precision(
        name=name,
        kind=kind,
        weight_bits=int(bits) if bits else None,
        activation_bits=int(activation_bits) if activation_bits else None,
    )
