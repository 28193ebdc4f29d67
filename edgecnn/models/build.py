"""Build a zoo network by name, with its options in one record."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from edgecnn import registry
from edgecnn.builder import he_normal, no_values
from edgecnn.errors import NotThereError, UsageError
from edgecnn.graph import Graph
from edgecnn.models.compound_scaling import scaled_options
from edgecnn.models.imagenet_weights import IMAGENET_CLASSES, imagenet_file, imagenet_labels
from edgecnn.models.normal_twin import normal_twin
from edgecnn.models.npu_safe import Change, npu_safe
from edgecnn.models.pretrained import load_weights, read_labels
from edgecnn.ops import elements

CONVOLUTIONS = ("separable", "normal")

LARGEST = {
    "width_multiplier": 10_000,
    "resolution": 10_000,
    "classes": 10_000,
    "in_channels": 10_000,
    "width_coefficient": 20,
    "depth_coefficient": 20,
}
"""Option that must be positive -> its largest value."""
LARGEST_BYTES = 4 << 30
"""Of all parameters together; B7 has 0.3 GB."""

NOT_THE_FAMILYS = ("npu_safe", "convolution", "weights", "labels", "seed")
"""Options that act on what the family's function has built."""

LARGEST_PHI = 10
"""Of either sign; phi 7 is B7, 10 costs about 1000 times B0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooOptions:
    """What a user may choose; None leaves the family's own default.

    Attributes:
        width_multiplier: Scales every width.
        phi: Compound scaling: sets width_coefficient, depth_coefficient and resolution together.
        width_coefficient: Scales every width, on top of width_multiplier where a family has one.
        depth_coefficient: Scales the repeats of every stage.
        resolution: Height and width of the input in pixels.
        classes: Number of outputs.
        in_channels: Channels of the input.
        dropout: Rate before the last layer, in [0, 1).
        head: "logits" or "softmax".
        auxiliary_heads: Add the outputs that only training uses.
        npu_safe: Replace what integer accelerators do not run well, before training.
        convolution: "separable", or "normal" for the twin with normal convolutions.
        weights: A Keras weight file of the same architecture, or "imagenet" for the ones that Keras publishes.
        labels: A text file with one class name a line; "imagenet" weights bring their own.
        seed: Of the He initialisation.
    """

    width_multiplier: float | None = None
    phi: float | None = None
    width_coefficient: float | None = None
    depth_coefficient: float | None = None
    resolution: int | None = None
    classes: int | None = None
    in_channels: int | None = None
    dropout: float | None = None
    head: str | None = None
    auxiliary_heads: bool = False
    npu_safe: bool = False
    convolution: str = "separable"
    weights: str | None = None
    labels: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if value is not None and not 0 < value <= largest:
                raise UsageError(f"{name} must lie in (0, {largest}]; got {value}")
        if self.phi is not None and not -LARGEST_PHI <= self.phi <= LARGEST_PHI:
            raise UsageError(f"phi must lie in [-{LARGEST_PHI}, {LARGEST_PHI}]; got {self.phi}")
        if self.convolution not in CONVOLUTIONS:
            raise UsageError(f"convolution must be one of {', '.join(CONVOLUTIONS)}; got {self.convolution!r}")
        if self.weights is not None and self.convolution != "separable":
            raise UsageError("weights are of the separable network; its normal twin is another one. Leave one out.")

    def given(self) -> dict[str, object]:
        """Return what the user chose for the family itself, by name."""
        named = [field.name for field in fields(self) if field.name not in NOT_THE_FAMILYS]
        chosen = {name: getattr(self, name) for name in named}
        return {name: value for name, value in chosen.items() if value is not None and value is not False}


def build(
    name: str,
    options: ZooOptions | None = None,
    *,
    values: bool = True,
    report: Callable[[str], None] = lambda what: None,
) -> Graph:
    """Build a zoo network.

    Args:
        name: Registered name, such as "mobilenet_v2".
        options: What differs from the family's defaults.
        values: False leaves the kernels at zero without taking memory, which is enough for counting.
        report: Called with what pretrained weights filled and what they left.

    Raises:
        InputFileError: When a weight or label file does not fit.
        NotThereError: When a weight or label file is not there.
        UnknownNameError: When no model has that name.
        UsageError: When the family does not take an option, or not that value, or options contradict each other.

    >>> build("mobilenet_v2", ZooOptions(width_multiplier=0.5), values=False).outputs[0].name
    'logits'
    """
    options = options or ZooOptions()
    if values:
        _refuse_too_large(name, options)
    graph = _family(name, options, values=values)
    if values:
        graph = _pretrained(graph, name, options, report)
    if options.npu_safe:
        graph, _ = npu_safe(graph)
    initialise = he_normal(options.seed) if values else no_values
    return normal_twin(graph, initialise) if options.convolution == "normal" else graph


def _refuse_too_large(name: str, options: ZooOptions) -> None:
    """Refuse a network whose parameters alone would fill the memory, before they are made."""
    tensors = _family(name, options, values=False).tensors.values()
    size = sum(4 * elements(tensor.shape) for tensor in tensors if tensor.is_constant)
    if size > LARGEST_BYTES:
        raise UsageError(f"{name}: parameters of at most {LARGEST_BYTES} bytes were wanted; these would take {size}")


def _pretrained(graph: Graph, name: str, options: ZooOptions, report: Callable[[str], None]) -> Graph:
    if options.weights is not None:
        loaded = load_weights(graph, _weight_file(graph, name, options))
        graph = loaded.graph
        left = f"; {', '.join(loaded.fresh)} keeps its fresh values" if loaded.fresh else ""
        report(f"{name}: {loaded.layers} layers took their weights from {options.weights}{left}")
    labels = _labels(graph, options)
    if labels and graph.contract is not None:
        graph = replace(graph, contract=replace(graph.contract, labels=labels))
    return graph


def _weight_file(graph: Graph, name: str, options: ZooOptions) -> Path:
    if options.weights != "imagenet":
        path = Path(options.weights or "")
        if not path.is_file():
            raise NotThereError(f"{path}: 'imagenet' or a Keras weight file was wanted; there is no such file.")
        return path
    if options.phi or options.width_coefficient or options.depth_coefficient:
        raise UsageError(f"{name}: ImageNet weights are of the published sizes; leave phi and the coefficients out")
    width = 1.0 if options.width_multiplier is None else options.width_multiplier
    resolution = graph.tensors[graph.inputs[0].tensor].shape[1] or 0
    return imagenet_file(name, width_multiplier=width, resolution=resolution)


def _labels(graph: Graph, options: ZooOptions) -> tuple[str, ...]:
    classes = graph.tensors[graph.outputs[0].tensor].shape[-1] or 0
    if options.labels is not None:
        return read_labels(Path(options.labels), classes)
    return imagenet_labels() if options.weights == "imagenet" and classes == IMAGENET_CLASSES else ()


def npu_safe_changes(name: str, options: ZooOptions) -> tuple[Change, ...]:
    """Return what npu_safe changes in a zoo network with these options: cheap, since no values are made."""
    return npu_safe(_family(name, options, values=False))[1]


def _family(name: str, options: ZooOptions, *, values: bool) -> Graph:
    family = registry.load("models", name)
    parameters = inspect.signature(family).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items() if key != "initialise"}
    chosen = scaled_options(options.given(), defaults)
    _check_taken(name, chosen, defaults)
    initialise = he_normal(options.seed) if values else no_values
    graph: Graph = family(**chosen, initialise=initialise)
    return graph


def _check_taken(name: str, chosen: Mapping[str, object], defaults: Mapping[str, object]) -> None:
    unknown = [option for option in chosen if option not in defaults]
    if not unknown:
        return
    takes = list(defaults)
    if "depth_coefficient" in defaults:
        takes += [option for option in ("phi", "width_coefficient") if option not in defaults]
    raise UsageError(f"{name}: it has no option {unknown[0]}; it takes {', '.join(sorted(takes))}")
