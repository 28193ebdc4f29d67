"""The command line: a table of commands, loaded when they are used, and one place that turns errors into exit codes."""

import importlib
import sys
from collections.abc import Callable, Sequence

import click

from edgecnn import __version__
from edgecnn.errors import EdgeCNNError

COMMANDS: dict[str, tuple[str, str]] = {
    "models": ("edgecnn.commands.models:models", "List the networks that can be built, with what they cost."),
    "cost": ("edgecnn.commands.cost:cost", "Count MACs and parameters, layer by layer."),
    "inspect": ("edgecnn.commands.inspect:inspect", "Show what a model file holds, or how two models differ."),
    "diagnose": ("edgecnn.commands.diagnose:diagnose", "Tell what a float network will suffer from in integers."),
    "build": ("edgecnn.commands.build:build", "Build a network and save it as a .keras file to train."),
    "train": ("edgecnn.commands.train:train", "Train a network on labelled images."),
    "convert": ("edgecnn.commands.convert:convert", "Write TFLite, ONNX and OpenVINO artifacts, verified."),
    "quantize": ("edgecnn.commands.quantize:quantize", "Write integer artifacts, and tell where the error comes from."),
    "verify": ("edgecnn.commands.verify:verify", "Compare artifacts with their source on real images."),
    "evaluate": (
        "edgecnn.commands.evaluate:evaluate_command",
        "Count how often artifacts are right, and if they differ.",
    ),
    "run": ("edgecnn.commands.run:run", "Classify an image with an artifact."),
    "bench": ("edgecnn.commands.bench:bench", "Measure the latency of artifacts, interleaved."),
    "targets": ("edgecnn.commands.targets:targets", "Tell which runtimes can be used here, and why not."),
    "demo": ("edgecnn.commands.demo:demo", "Train, convert, verify and time two small networks."),
}
"""Command -> (object, summary)."""


class Table(click.Group):
    """A group whose commands are imported only when they run; `--help` needs the table alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for an unknown one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from edgecnn.registry import unknown

            raise click.UsageError(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Table, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgecnn")
def edgecnn() -> None:
    """Small vision networks for phones, boards, NPUs and browsers: build, convert, prove, measure.

    MODEL is a zoo name (edgecnn models) or a file (.keras .h5 .onnx .tflite .xml). Every command has --json. Exit
    codes: 0 done, 1 the job failed its own check, 2 wrong usage, 3 bad input file, 4 something is not installed or not
    there.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    guarded(lambda: edgecnn.main(args=arguments, prog_name="edgecnn", standalone_mode=True))


def guarded(command: Callable[[], object]) -> None:
    """Run a command; an EdgeCNNError becomes its message and exit code, any other error keeps its traceback."""
    try:
        command()
    except EdgeCNNError as error:
        click.echo(f"edgecnn: {error}", err=True)
        sys.exit(error.exit_code)
    except MemoryError as error:
        click.echo(f"edgecnn: there is not enough memory for this network: {error}. Choose a smaller one.", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
