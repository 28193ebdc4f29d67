"""Options that several commands share."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

import click

from edgecnn.models.blocks import HEADS
from edgecnn.models.build import CONVOLUTIONS, ZooOptions

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
    click.option("--resolution", type=int, help="Input height and width in pixels."),
    click.option("--classes", type=int, help="Number of outputs."),
    click.option("--in-channels", type=int, help="Channels of the input."),
    click.option("--dropout", type=float, help="Dropout rate before the last layer."),
    click.option("--head", type=click.Choice(HEADS), help="What the network ends with; logits unless given."),
    click.option(
        "--convolution",
        type=click.Choice(CONVOLUTIONS),
        default="separable",
        show_default=True,
        help="normal: the twin with a normal convolution for each separable one.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the initial weights."),
)


def model_options(command: Command) -> Command:
    """Add the options of zoo networks to a command, which gets them as one record: `options`."""
    names = [field.name for field in fields(ZooOptions)]

    @wraps(command)
    def with_record(**arguments: Any) -> Any:
        return command(options=ZooOptions(**{name: arguments.pop(name) for name in names}), **arguments)

    for option in reversed(ZOO_OPTIONS):
        with_record = option(with_record)
    return with_record
