"""Options that settle how a model is read: shapes, a part of it, layouts, its contract, integers as floats."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from edgecnn.commands.model_options import Command, model_options
from edgecnn.errors import UsageError
from edgecnn.models.build import ZooOptions
from edgecnn.ports import parse_layouts
from edgecnn.shapes import Shape
from edgecnn.source import Choices

PART_OPTIONS = (
    click.option(
        "--input-shape",
        "input_shapes",
        multiple=True,
        metavar="NAME:1,3,H,W",
        help="Fix an input's shape, in the file's own order; once for each input.",
    ),
    click.option("--inputs", metavar="A,B", help="Cut: the part that begins at these tensors or nodes."),
    click.option("--outputs", metavar="C,D", help="Cut: the part that ends at these tensors or nodes."),
    click.option(
        "--dequantize", is_flag=True, help="Read a quantized file as the float network that its integers stand for."
    ),
)
PORT_OPTIONS = (
    click.option(
        "--io-layout",
        metavar="nhwc|nchw|NAME:nchw,...",
        help="Order of axes of every picture that goes in or out, or of each named port; else each format's own.",
    ),
    click.option("--contract", metavar="FILE", help="Contract (edgecnn.json) of a model that brings none."),
)


def part_options(command: Command) -> Command:
    """Add the options of zoo networks and of a part and its shapes; the command gets one record: `choices`."""
    return _with_choices(command, PART_OPTIONS)


def source_options(command: Command) -> Command:
    """Add the options of zoo networks and all that settles what a model leaves open; the command gets `choices`."""
    return _with_choices(command, (*PART_OPTIONS, *PORT_OPTIONS))


def _with_choices(command: Command, added: Sequence[Callable[[Command], Command]]) -> Command:
    @model_options
    @wraps(command)
    def with_record(
        *,
        options: ZooOptions,
        input_shapes: tuple[str, ...],
        inputs: str | None,
        outputs: str | None,
        dequantize: bool,
        io_layout: str | None = None,
        contract: str | None = None,
        **arguments: Any,
    ) -> Any:
        choices = Choices(
            zoo=options,
            input_shapes=_shapes(input_shapes),
            inputs=_names(inputs),
            outputs=_names(outputs),
            io_layout=parse_layouts(io_layout) if io_layout else None,
            contract=Path(contract) if contract else None,
            dequantize=dequantize,
        )
        return command(choices=choices, **arguments)

    decorated: Command = with_record
    for option in reversed(added):
        decorated = option(decorated)
    return decorated


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _shapes(texts: Sequence[str]) -> dict[str, Shape]:
    """Read NAME:1,3,H,W; a name may hold colons.

    >>> _shapes(["serving:0:1,3,8,8"])
    {'serving:0': (1, 3, 8, 8)}
    """
    shapes: dict[str, Shape] = {}
    for text in texts:
        name, _, sizes = text.rpartition(":")
        numbers = [size.strip() for size in sizes.split(",")]
        if not name or name in shapes or not all(size.isdecimal() and 0 < int(size) < 2**31 for size in numbers):
            raise UsageError(f"--input-shape: NAME:1,3,H,W of positive sizes was wanted, once each; got {text!r}")
        shapes[name] = tuple(map(int, numbers))
    return shapes
