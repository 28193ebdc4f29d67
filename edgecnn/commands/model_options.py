"""Options that several commands share."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

import click

from edgecnn import registry
from edgecnn.console import message
from edgecnn.models.blocks import HEADS
from edgecnn.models.build import CONVOLUTIONS, ZooOptions, npu_safe_changes
from edgecnn.models.npu_safe import describe

Command = Callable[..., Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
force_option = click.option("--force", is_flag=True, help="Replace outputs that exist already.")
data_option = click.option(
    "--data", metavar="DIR", help="Folder with real images; else the photographs of scikit-image or scikit-learn."
)
target_option = click.option(
    "--target", metavar="NAME", help="Where artifacts run; else the CPU target of each format."
)
threads_option = click.option(
    "--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads of the runtime, exactly."
)

ZOO_OPTIONS = (
    click.option("--width", "width_multiplier", type=float, help="Width multiplier (alpha) of a zoo network."),
    click.option(
        "--phi",
        type=float,
        help="Compound scaling: depth 1.2^phi, width 1.1^phi, resolution 1.15^phi at once; about 2^phi times the MACs.",
    ),
    click.option("--width-coefficient", type=float, help="Factor on every width, as phi would set it."),
    click.option("--depth-coefficient", type=float, help="Factor on every stage's repeats, rounded up."),
    click.option("--resolution", type=int, help="Input height and width in pixels."),
    click.option("--classes", type=int, help="Number of outputs."),
    click.option("--in-channels", type=int, help="Channels of the input."),
    click.option("--dropout", type=float, help="Dropout rate before the last layer."),
    click.option("--head", type=click.Choice(HEADS), help="What the network ends with; logits unless given."),
    click.option("--auxiliary-heads", is_flag=True, help="Add the outputs that only training uses (googlenet)."),
    click.option(
        "--npu-safe",
        is_flag=True,
        help="ReLU6 for swish and hard-swish, no squeeze-excite, no LRN: what integer accelerators run.",
    ),
    click.option(
        "--convolution",
        type=click.Choice(CONVOLUTIONS),
        default="separable",
        show_default=True,
        help="normal: the twin with a normal convolution for each separable one.",
    ),
    click.option("--weights", metavar="imagenet|FILE", help="Keras weights of the same architecture (.h5, .keras)."),
    click.option("--labels", metavar="FILE", help="Class names, one a line; imagenet weights bring their own."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the weights."),
)


def model_options(command: Command) -> Command:
    """Add the options of zoo networks to a command, which gets them as one record: `options`."""
    names = [field.name for field in fields(ZooOptions)]

    @wraps(command)
    def with_record(**arguments: Any) -> Any:
        options = ZooOptions(**{name: arguments.pop(name) for name in names})
        _announce(arguments.get("model"), options)
        return command(options=options, **arguments)

    for option in reversed(ZOO_OPTIONS):
        with_record = option(with_record)
    return with_record


def _announce(model: str | None, options: ZooOptions) -> None:
    """Say on stderr what --npu-safe changes; what is no zoo name is refused where it is loaded."""
    if options.npu_safe and model in registry.entries("models"):
        message(describe(str(model), npu_safe_changes(str(model), options)))
