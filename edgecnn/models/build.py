"""Build a zoo network by name, with its options in one record."""

import inspect
from dataclasses import dataclass, fields

from edgecnn import registry
from edgecnn.builder import he_normal, no_values
from edgecnn.errors import UsageError
from edgecnn.graph import Graph
from edgecnn.models.normal_twin import normal_twin

CONVOLUTIONS = ("separable", "normal")


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooOptions:
    """What a user may choose; None leaves the family's own default.

    Attributes:
        width_multiplier: Scales every width.
        resolution: Height and width of the input in pixels.
        classes: Number of outputs.
        in_channels: Channels of the input.
        dropout: Rate before the last layer, in [0, 1).
        head: "logits" or "softmax".
        convolution: "separable", or "normal" for the twin with normal convolutions.
        seed: Of the He initialisation.
    """

    width_multiplier: float | None = None
    resolution: int | None = None
    classes: int | None = None
    in_channels: int | None = None
    dropout: float | None = None
    head: str | None = None
    convolution: str = "separable"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width_multiplier", "resolution", "classes", "in_channels"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 10_000:
                raise UsageError(f"{name} must lie in (0, 10000]; got {value}")
        if self.convolution not in CONVOLUTIONS:
            raise UsageError(f"convolution must be one of {', '.join(CONVOLUTIONS)}; got {self.convolution!r}")

    def given(self) -> dict[str, object]:
        """Return what the user chose, as the family's function takes it."""
        named = [field.name for field in fields(self) if field.name not in ("convolution", "seed")]
        return {name: getattr(self, name) for name in named if getattr(self, name) is not None}


def build(name: str, options: ZooOptions | None = None, *, values: bool = True) -> Graph:
    """Build a zoo network.

    Args:
        name: Registered name, such as "mobilenet_v2".
        options: What differs from the family's defaults.
        values: False leaves the kernels at zero without taking memory, which is enough for counting.

    Raises:
        UnknownNameError: When no model has that name.
        UsageError: When an option has a value that the family cannot take.

    >>> build("mobilenet_v2", ZooOptions(width_multiplier=0.5), values=False).outputs[0].name
    'logits'
    """
    options = options or ZooOptions()
    family = registry.load("models", name)
    initialise = he_normal(options.seed) if values else no_values
    unknown = sorted(options.given().keys() - inspect.signature(family).parameters.keys())
    if unknown:
        raise UsageError(f"{name}: it has no option {unknown[0]}")
    graph: Graph = family(**options.given(), initialise=initialise)
    return normal_twin(graph, initialise) if options.convolution == "normal" else graph
