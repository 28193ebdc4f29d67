"""MODEL on the command line: a zoo name with its options, or a file."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecnn import registry
from edgecnn.errors import InputFileError, NotThereError, UnknownNameError, UsageError
from edgecnn.graph import Graph
from edgecnn.interfaces import Format, Reader
from edgecnn.models.build import ZooOptions, build
from edgecnn.outputs import safe_name


def load_model(
    model: str,
    options: ZooOptions | None = None,
    *,
    values: bool = True,
    report: Callable[[str], None] = lambda what: None,
) -> Graph:
    """Return the Graph behind a zoo name or a file.

    Args:
        model: "mobilenet_v2", or a path (.keras).
        options: For zoo names only.
        values: False is enough for counting.
        report: Called with what pretrained weights filled and what they left.

    Raises:
        UnknownNameError: When it is neither.
        UsageError: When zoo options stand beside a file.
        NotThereError: When it looks like a file that is not there.
    """
    path = Path(model)
    if model in registry.entries("models"):
        return build(model, options, values=values, report=report)
    if not path.suffix and len(path.parts) == 1 and not path.exists():
        raise UnknownNameError(registry.unknown("model", model, registry.entries("models")))
    if options is not None and options != ZooOptions():
        raise UsageError(f"{model}: options such as --width belong to zoo names; a file is taken as it is")
    reader = format_of(path)
    if not isinstance(reader, Reader):
        raise UsageError(f"{model}: a model that can be read was wanted ({', '.join(readable())}); got {path.suffix}")
    graph = reader.read(existing(path))
    return replace(graph, name=safe_name(path.stem))


def existing(path: Path) -> Path:
    """Return the path of a file that is there."""
    if not path.is_file():
        raise NotThereError(f"{path}: a file was wanted; there is none.")
    return path


def format_of(path: Path) -> Format:
    """Return the format that a file's suffix names.

    Raises:
        InputFileError: When no format has that suffix.
    """
    for each in formats():
        if path.suffix.lower() in (each.suffix, *each.aliases):
            return each
    known = ", ".join(suffix for each in formats() for suffix in (each.suffix, *each.aliases))
    raise InputFileError(f"{path}: a file that ends in one of {known} was wanted; got '{path.suffix}'")


def formats() -> Iterator[Format]:
    """Yield every format, loaded as it is asked for."""
    return (registry.load("converters", name) for name in registry.entries("converters"))


def readable() -> list[str]:
    """Return the suffixes of the formats that can be read."""
    return [suffix for each in formats() if isinstance(each, Reader) for suffix in (each.suffix, *each.aliases)]


def target_for(artifact: Path, name: str | None) -> Any:
    """Return the target of that name, or the CPU target that opens the artifact's format first.

    Raises:
        UsageError: When the named target does not open that format.
    """
    kind = format_of(artifact).name
    if name is not None:
        target = registry.load("targets", name)
        if kind not in target.formats:
            raise UsageError(f"{name} opens {', '.join(target.formats)}; {artifact} is {kind}. Leave --target out.")
        return target
    candidates = (registry.load("targets", each) for each in registry.entries("targets"))
    return next(each for each in candidates if kind in each.formats)
