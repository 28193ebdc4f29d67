"""`edgecnn build`: a zoo network as a Keras file."""

from pathlib import Path

import click

from edgecnn import registry
from edgecnn.commands.model_options import force_option, json_option, model_options
from edgecnn.console import emit, message, show_bytes
from edgecnn.models.build import ZooOptions
from edgecnn.outputs import safe_name, staged
from edgecnn.source import load_model


@click.command()
@click.argument("model")
@click.option("-o", "--output", metavar="FILE.keras", help="Where to write it; else MODEL.keras.")
@model_options
@force_option
@json_option
def build(*, model: str, output: str | None, options: ZooOptions, force: bool, as_json: bool) -> None:
    """Write MODEL as a .keras file: trainable, with its contract inside."""
    graph = load_model(model, options, report=message)
    path = output_path(output, graph.name)
    door = registry.load("converters", "keras")
    with staged(path.parent, [path.name], force=force) as scratch:
        artifact = door.write(graph, scratch / path.name)
    data = {
        "model": graph.name,
        "path": str(path),
        "size_bytes": artifact.size_bytes,
        "layers": dict(artifact.operators),
    }
    written = f"Written: {path} ({show_bytes(artifact.size_bytes)})"
    emit(data, lambda console: console.print(written, soft_wrap=True), as_json=as_json)


def output_path(output: str | None, name: str) -> Path:
    """Return the .keras file to write.

    Args:
        output: What the user asked for, or None for one named after the network.
        name: Of the network.

    Raises:
        click.BadParameter: When it has another suffix.
    """
    path = Path(output or f"{safe_name(name)}.keras")
    if path.suffix != ".keras":
        raise click.BadParameter(f"a file that ends in .keras was wanted; got '{path}'", param_hint="--output")
    return path
