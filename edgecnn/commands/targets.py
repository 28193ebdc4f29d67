"""`edgecnn targets`: which runtimes can be used here, and why not."""

from dataclasses import asdict

import click
from rich.console import Console

from edgecnn import registry
from edgecnn.commands.model_options import json_option
from edgecnn.console import emit, table


@click.command()
@json_option
def targets(*, as_json: bool) -> None:
    """Try every runtime and tell whether it can be used here."""
    found = {name: registry.load("targets", name) for name in registry.entries("targets")}
    states = {name: target.status() for name, target in found.items()}

    def show(console: Console) -> None:
        rows = [
            (name, ", ".join(found[name].formats), status.state, status.detail, status.remedy)
            for name, status in states.items()
        ]
        console.print(table("", ("<target", "<opens", "<state", "<detail", "<to use it"), rows))

    data = [{"name": name, "formats": found[name].formats, **asdict(status)} for name, status in states.items()]
    emit({"targets": data}, show, as_json=as_json)
